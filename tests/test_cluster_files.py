"""The files of cluster/: whether Ray, KubeRay, MLflow and enpar itself would take them as they are."""

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube import Container, PodSpec, Strict
from kuberay import KINDS, RayCluster, RayJob
from mlflow.server.security_utils import is_allowed_host_header
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from enpar import __version__
from enpar.config import PretrainJob, Settings
from enpar.settings import parse
from enpar.training.resources import settle
from enpar.verbs import VERBS

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
IMAGE = f"registry.example.com/enpar:{__version__}"
INSIDE = "/opt/enpar/"  # where the image has the repository
UP = ["onprem.yaml", "aws.yaml"]
# Ray Serve, which comes with Ray's command line, warns some twenty times when it is imported.
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SADeprecationWarning")


def objects() -> list[Strict]:
    """Every Kubernetes object of every file."""
    return [KINDS[item["kind"]].model_validate(item) for file in files() for item in file]


def files() -> list[list[dict[str, Any]]]:
    return [list(yaml.safe_load_all(path.read_text())) for path in sorted((CLUSTER / "kuberay").iterdir())]


def of(kind: str) -> list[Any]:
    return [item for item in objects() if type(item).__name__ == kind]


def cluster() -> RayCluster:
    (only,) = of("RayCluster")
    return only


def pods() -> list[PodSpec]:
    spec = cluster().spec
    groups = [spec.headGroupSpec, *spec.workerGroupSpecs]
    return [group.template.spec for group in groups] + [item.spec.template.spec for item in of("Deployment")]


def containers() -> list[Container]:
    return [container for pod in pods() for container in pod.containers]


def job_of(job: RayJob) -> Settings:
    """The settings of the enpar command that a RayJob runs, as enpar reads them."""
    program, verb, *arguments = shlex.split(job.spec.entrypoint)
    assert program == "enpar"
    settings = [str(ROOT / word.removeprefix(INSIDE)) if word.startswith(INSIDE) else word for word in arguments]
    return parse(VERBS[verb], settings)


# ---- ray up -------------------------------------------------------------------------------------------------------


def up(name: str) -> dict[str, Any]:
    config: dict[str, Any] = prepare_config(yaml.safe_load((CLUSTER / name).read_text()))
    return config


@pytest.mark.parametrize("name", UP)
def test_ray_up_takes_the_file(name: str):
    validate_config(up(name))


def test_a_field_that_ray_up_does_not_know_would_be_found():
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(up("aws.yaml") | {"idle_minutes": 5})


@quiet
@pytest.mark.parametrize("name", UP)
def test_nodes_of_ray_up_want_the_token_and_keep_the_dashboard_to_themselves(name: str):
    from ray.scripts.scripts import start

    config = up(name)
    options = config["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    (path,) = [option.split("=", 1)[1] for option in options if "RAY_AUTH_TOKEN_PATH" in option]
    assert config["file_mounts"] == {path: "~/.ray/auth_token"}
    assert "0.0.0.0" not in (CLUSTER / name).read_text()
    for head, command in ((True, config["head_start_ray_commands"]), (False, config["worker_start_ray_commands"])):
        assert command[0] == "ray stop"
        options = start.make_context("ray start", shlex.split(command[1].replace("$", ""))[2:]).params
        assert options["head"] is head
        assert not head or options["dashboard_host"] == "127.0.0.1"


def test_nodes_on_aws_have_no_public_address_and_none_is_kept_idle():
    config = up("aws.yaml")
    assert config["provider"]["use_internal_ips"] is True
    assert config["auth"]["ssh_proxy_command"].startswith("aws ssm start-session")
    head, *workers = config["available_node_types"].values()
    assert head["resources"]["CPU"] == 0
    assert [(kind["min_workers"], kind["resources"].get("GPU", 0)) for kind in workers] == [(0, 0), (0, 1)]
    assert all(kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for kind in [head, *workers])


# ---- KubeRay ------------------------------------------------------------------------------------------------------


def test_every_kubernetes_object_has_known_fields_only():
    assert {type(item).__name__ for item in objects()} == {kind.__name__ for kind in KINDS.values()}


def test_a_field_that_kuberay_does_not_know_would_be_found():
    (item,) = yaml.safe_load_all((CLUSTER / "kuberay" / "cluster.yaml").read_text())
    item["spec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(ValidationError, match="minReplica"):
        RayCluster.model_validate(item)


def test_the_cluster_wants_the_token_grows_from_nothing_and_is_of_our_ray():
    spec = cluster().spec
    assert spec.authOptions is not None and spec.authOptions.mode == "token"
    assert f"ray=={spec.rayVersion}\n" in (ROOT / "constraints.txt").read_text()
    assert spec.enableInTreeAutoscaling
    assert spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    assert [(group.groupName, group.replicas, group.minReplicas) for group in spec.workerGroupSpecs] == [
        ("cpu", 0, 0),
        ("gpu", 0, 0),
    ]
    gpus = [group.template.spec.containers[0].resources.limits.get("nvidia.com/gpu") for group in spec.workerGroupSpecs]
    assert gpus == [None, "1"]


def test_nothing_is_open_to_the_world():
    assert cluster().spec.headGroupSpec.serviceType == "ClusterIP"
    assert not cluster().spec.headGroupSpec.enableIngress
    assert all(pod.securityContext.runAsNonRoot for pod in pods())
    assert all(not container.securityContext.allowPrivilegeEscalation for container in containers())
    (policy,) = of("NetworkPolicy")
    assert policy.spec.podSelector.matchLabels == {}  # all pods
    sources = [peer for rule in policy.spec.ingress for peer in rule.from_]
    assert all(peer.podSelector is not None for peer in sources)


def test_no_file_holds_a_secret():
    for container in containers():
        assert all(not re.search("TOKEN|KEY|SECRET|PASSWORD", env.name) or env.value is None for env in container.env)
    text = "".join(path.read_text() for path in CLUSTER.rglob("*") if path.is_file())
    assert "kind: Secret" not in text
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{64}", text)


def test_what_is_mounted_is_claimed():
    claims = {item.metadata.name for item in of("VolumeClaim")}
    for pod in pods():
        volumes = {volume.name: volume.persistentVolumeClaim.claimName for volume in pod.volumes}
        assert set(volumes.values()) <= claims
        assert {mount.name for container in pod.containers for mount in container.volumeMounts} == set(volumes)


@quiet
def test_mlflow_takes_its_arguments_and_the_name_by_which_the_cluster_calls_it():
    import mlflow.cli

    (deployment,), (service,) = of("Deployment"), of("Service")
    (server,) = deployment.spec.template.spec.containers
    assert server.command == ["mlflow", "server"]
    options = mlflow.cli.server.make_context("mlflow server", list(server.args)).params
    assert service.spec.selector == deployment.spec.template.metadata.labels == deployment.spec.selector.matchLabels
    assert service.spec.ports[0].port == server.ports[0].containerPort == options["port"]
    (uri,) = {env.value for container in containers() for env in container.env if env.name == "MLFLOW_TRACKING_URI"}
    assert uri == f"http://{service.metadata.name}:{service.spec.ports[0].port}"
    allowed = options["allowed_hosts"].split(",")
    for host, fits in (
        (uri.removeprefix("http://"), True),
        (service.metadata.name, True),
        ("localhost:5000", True),
        ("127.0.0.1:5001", True),
        ("evil.example:5000", False),
        ("enpar-mlflow.evil.example:5000", False),
    ):
        assert is_allowed_host_header(allowed, host) is fits, host


# ---- jobs and image -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", of("RayJob"), ids=lambda job: job.metadata.generateName.strip("-"))
def test_a_job_goes_to_the_cluster_and_its_settings_are_enpars(job: RayJob):
    assert job.spec.clusterSelector == {"ray.io/cluster": cluster().metadata.name}
    # KubeRay takes neither with a clusterSelector.
    assert job.spec.backoffLimit is None and job.spec.shutdownAfterJobFinishes is None
    settings = job_of(job)
    assert str(settings.model_dump()["output"]).startswith("/data/")
    # A pod has no other folder that outlives it.
    places = [text for text in texts(settings.model_dump()) if "/" in text]
    assert [place for place in places if not place.startswith("/data/")] == []


def texts(settings: Any) -> Iterator[str]:
    """Every text among settings, however deep."""
    if isinstance(settings, dict):
        yield from chain.from_iterable(map(texts, settings.values()))
    elif isinstance(settings, str | Path):
        yield str(settings)


def test_the_pretraining_job_fits_the_gpu_pods():
    (settings,) = [settings for settings in map(job_of, of("RayJob")) if isinstance(settings, PretrainJob)]
    scaling = settle(settings).scaling
    gpu = cluster().spec.workerGroupSpecs[1]
    pod = gpu.template.spec.containers[0].resources.limits
    assert scaling.use_gpu and (scaling.num_workers or 0) <= gpu.maxReplicas * int(pod["nvidia.com/gpu"])
    assert scaling.cpus_per_worker + scaling.view_workers * scaling.cpus_for_views <= float(pod["cpu"])


def recipe() -> list[str]:
    return (CLUSTER / "Containerfile").read_text().splitlines()


def test_one_image_everywhere():
    images = {container.image for container in containers()} | {up(name)["docker"]["image"] for name in UP}
    assert images == {IMAGE}
    assert f"-t {IMAGE} ." in "\n".join(recipe())
    assert f"WORKDIR {INSIDE.rstrip('/')}" in recipe()


def test_what_the_image_is_made_from_is_here():
    sources = chain.from_iterable(line.split()[1:-1] for line in recipe() if line.startswith("COPY "))
    assert all((ROOT / source).exists() for source in sources)

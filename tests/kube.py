"""Kubernetes' own objects, with the fields that cluster/kuberay needs; any other field is refused."""

# ruff: noqa: N815 - the field names are Kubernetes' own
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Replicas = Annotated[int, Field(ge=0, lt=2**31)]
Texts = dict[str, str]


class Strict(BaseModel):
    """Refuses unknown fields, and numbers where Kubernetes wants text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name | None = None
    generateName: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]*-$", max_length=40)] | None = None
    labels: Texts = {}


class LabelSelector(Strict):
    matchLabels: Texts = {}


class Capabilities(Strict):
    add: list[str] = []
    drop: list[str] = []


class Seccomp(Strict):
    type: Literal["RuntimeDefault", "Localhost", "Unconfined"]


class PodSecurity(Strict):
    runAsNonRoot: bool
    runAsUser: int
    fsGroup: int | None = None
    fsGroupChangePolicy: Literal["Always", "OnRootMismatch"] | None = None
    seccompProfile: Seccomp


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: bool
    capabilities: Capabilities
    readOnlyRootFilesystem: bool | None = None


class KeyRef(Strict):
    name: Name
    key: str
    optional: bool = False


class EnvSource(Strict):
    secretKeyRef: KeyRef


class Env(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
    value: str | None = None
    valueFrom: EnvSource | None = None


class SecretRef(Strict):
    name: Name
    optional: bool = False


class EnvFrom(Strict):
    secretRef: SecretRef


class ContainerPort(Strict):
    name: Annotated[str, Field(max_length=15)]
    containerPort: int


class Resources(Strict):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class HttpGet(Strict):
    path: str
    port: int | str


class Probe(Strict):
    httpGet: HttpGet
    periodSeconds: int | None = None


class Mount(Strict):
    name: Name
    mountPath: str


class Container(Strict):
    name: Name
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[Env] = []
    envFrom: list[EnvFrom] = []
    ports: list[ContainerPort] = []
    readinessProbe: Probe | None = None
    resources: Resources
    securityContext: ContainerSecurity
    volumeMounts: list[Mount] = []


class Claim(Strict):
    claimName: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim


class Toleration(Strict):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    automountServiceAccountToken: bool | None = None
    restartPolicy: Literal["Always", "OnFailure", "Never"] | None = None
    securityContext: PodSecurity
    nodeSelector: Texts = {}
    tolerations: list[Toleration] = []
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []


class PodTemplate(Strict):
    metadata: Metadata | None = None
    spec: PodSpec


class DeploymentStrategy(Strict):
    type: Literal["Recreate", "RollingUpdate"]


class DeploymentSpec(Strict):
    replicas: Replicas
    strategy: DeploymentStrategy
    selector: LabelSelector
    template: PodTemplate


class Deployment(Strict):
    apiVersion: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Strict):
    name: str
    port: int
    targetPort: int | str


class ServiceSpec(Strict):
    type: Literal["ClusterIP"]  # what NodePort and LoadBalancer open, the world can reach
    selector: Texts
    ports: list[ServicePort]


class Service(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class VolumeClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteOnce", "ReadWriteMany"]]
    storageClassName: Name | None = None
    resources: Resources


class VolumeClaim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: VolumeClaimSpec


class Peer(Strict):
    podSelector: LabelSelector | None = None
    namespaceSelector: LabelSelector | None = None


class IngressRule(Strict):
    from_: Annotated[list[Peer], Field(alias="from", min_length=1)]


class NetworkPolicySpec(Strict):
    podSelector: LabelSelector
    policyTypes: list[Literal["Ingress", "Egress"]]
    ingress: list[IngressRule]


class NetworkPolicy(Strict):
    apiVersion: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: NetworkPolicySpec

"""KubeRay's objects with all fields of its API reference for v1.7.0 (docs/reference/api.md of ray-project/kuberay); any
other field is refused.
"""

# ruff: noqa: N815, RUF012 - the names are Kubernetes' own, and pydantic copies what is mutable
from typing import Any, Literal

from kube import (
    ContainerSecurity,
    Deployment,
    Env,
    EnvFrom,
    Metadata,
    Mount,
    Name,
    NetworkPolicy,
    PodTemplate,
    Replicas,
    Resources,
    Service,
    Strict,
    Texts,
    VolumeClaim,
)  # fmt: skip


class AuthOptions(Strict):
    enableK8sTokenAuth: bool | None = None
    secretName: Name | None = None
    mode: Literal["disabled", "token"] = "token"


class AutoscalerOptions(Strict):
    resources: Resources | None = None
    image: str | None = None
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    securityContext: ContainerSecurity | None = None
    idleTimeoutSeconds: Replicas | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    version: Literal["v1", "v2"] | None = None
    env: list[Env] = []
    envFrom: list[EnvFrom] = []
    volumeMounts: list[Mount] = []
    command: list[str] = []
    args: list[str] = []


class HeadGroupSpec(Strict):
    template: PodTemplate
    headService: dict[str, Any] | None = None
    enableIngress: bool | None = None
    ingressOptions: dict[str, Any] | None = None
    resources: Texts = {}
    labels: Texts = {}
    rayStartParams: Texts
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class ScaleStrategy(Strict):
    workersToDelete: list[str] = []


class WorkerGroupSpec(Strict):
    suspend: bool | None = None
    groupName: Name
    replicas: Replicas = 0
    minReplicas: Replicas = 0
    maxReplicas: Replicas = 2**31 - 1
    idleTimeoutSeconds: Replicas | None = None
    priority: int | None = None
    resources: Texts = {}
    labels: Texts = {}
    rayStartParams: Texts
    template: PodTemplate
    scaleStrategy: ScaleStrategy | None = None
    numOfHosts: int = 1


class UpgradeStrategy(Strict):
    type: Literal["Recreate", "None"] | None = None


class TlsOptions(Strict):
    enabled: bool | None = None


class RayClusterSpec(Strict):
    upgradeStrategy: UpgradeStrategy | None = None
    authOptions: AuthOptions | None = None
    suspend: bool | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    autoscalerOptions: AutoscalerOptions | None = None
    headServiceAnnotations: Texts = {}
    enableInTreeAutoscaling: bool | None = None
    gcsFaultToleranceOptions: dict[str, Any] | None = None
    historyServerOptions: dict[str, Any] | None = None
    networkPolicy: dict[str, Any] | None = None
    tlsOptions: TlsOptions | None = None
    headGroupSpec: HeadGroupSpec
    rayVersion: str
    workerGroupSpecs: list[WorkerGroupSpec] = []


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class SubmitterConfig(Strict):
    backoffLimit: int | None = None


class RayJobSpec(Strict):
    activeDeadlineSeconds: int | None = None
    backoffLimit: int | None = None
    rayClusterSpec: RayClusterSpec | None = None
    submitterPodTemplate: PodTemplate | None = None
    metadata: Texts = {}
    clusterSelector: Texts = {}
    submitterConfig: SubmitterConfig | None = None
    managedBy: Literal["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"] | None = None
    deletionStrategy: dict[str, Any] | None = None
    entrypoint: str
    runtimeEnvYAML: str | None = None
    jobId: str | None = None
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    entrypointResources: str | None = None
    entrypointNumCpus: float | None = None
    entrypointNumGpus: float | None = None
    ttlSecondsAfterFinished: int | None = None
    preRunningDeadlineSeconds: int | None = None
    shutdownAfterJobFinishes: bool | None = None
    suspend: bool | None = None


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


KINDS: dict[str, type[Strict]] = {
    kind.__name__: kind for kind in (Deployment, NetworkPolicy, RayCluster, RayJob, Service)
} | {"PersistentVolumeClaim": VolumeClaim}

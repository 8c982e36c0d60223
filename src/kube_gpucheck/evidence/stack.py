"""Which workload is what of the GPU stack, recognised by what it runs, never by its name.

Sources: container commands and images of k8s-device-plugin (0.12 to 0.20), gpu-feature-discovery,
node-feature-discovery, dcgm-exporter, gpu-operator and k8s-dra-driver-gpu (upstream-facts §1.2, §7.1, §8, §9).
"""

import enum
import posixpath
import re
from typing import TYPE_CHECKING

from kube_gpucheck.evidence.documents import Container, DeploymentDocument, PodSpec
from kube_gpucheck.evidence.readings import derived, need

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet


class Component(enum.Enum):
    """A part of the GPU stack that runs as pods."""

    DEVICE_PLUGIN = "device plugin"
    PROVIDER_DEVICE_PLUGIN = "the provider's device plugin"
    GFD = "GPU Feature Discovery"
    NFD_WORKER = "NFD worker"
    NFD_MASTER = "NFD master"
    NFD_GC = "NFD garbage collector"
    DCGM_EXPORTER = "dcgm-exporter"
    DCGM = "DCGM host engine"
    MPS_CONTROL_DAEMON = "MPS control daemon"
    DRIVER = "driver container"
    TOOLKIT = "container toolkit"
    VALIDATOR = "operator validator"
    MIG_MANAGER = "MIG manager"
    NODE_STATUS_EXPORTER = "node status exporter"
    DRA_KUBELET_PLUGIN = "DRA kubelet plugin"
    OPERATOR = "GPU Operator"

    def is_main(self, container: Container) -> bool:
        """Tell whether a container does this component's work (and is no sidecar of it)."""
        return component_of(container) is self

    @property
    def needs_driver(self) -> bool:
        """Whether its pods load the driver's libraries."""
        return self in _NEED_DRIVER

    @property
    def belongs_on_gpu_nodes(self) -> bool:
        """Whether it should have one pod on each GPU node."""
        return self in _ON_GPU_NODES


_NEED_DRIVER = {Component.DEVICE_PLUGIN, Component.GFD, Component.DCGM_EXPORTER, Component.DCGM, Component.MPS_CONTROL_DAEMON}
_ON_GPU_NODES = _NEED_DRIVER | {Component.PROVIDER_DEVICE_PLUGIN, Component.NFD_WORKER, Component.DRA_KUBELET_PLUGIN}

_BY_COMMAND = {
    "nvidia-device-plugin": Component.DEVICE_PLUGIN,
    "gpu-feature-discovery": Component.GFD,
    "mps-control-daemon": Component.MPS_CONTROL_DAEMON,
    "nfd-worker": Component.NFD_WORKER,
    "nfd-master": Component.NFD_MASTER,
    "nfd-gc": Component.NFD_GC,
    "dcgm-exporter": Component.DCGM_EXPORTER,
    "nv-hostengine": Component.DCGM,
    "gpu-kubelet-plugin": Component.DRA_KUBELET_PLUGIN,
    "compute-domain-kubelet-plugin": Component.DRA_KUBELET_PLUGIN,
    "nvidia-mig-manager": Component.MIG_MANAGER,
    "gpu-operator": Component.OPERATOR,
    "nvidia-toolkit": Component.TOOLKIT,
}
_NOT_MAIN = {"config-manager", "sh", "bash"}
_BY_IMAGE = (
    (re.compile(r"(?:^|/)(?:k8s-device-plugin|nvidia-device-plugin|eks-nvidia-device-plugin)$"), Component.DEVICE_PLUGIN),
    (re.compile(r"(?:^|/)nvidia-gpu-device-plugin$"), Component.PROVIDER_DEVICE_PLUGIN),
    (re.compile(r"(?:^|/)gpu-feature-discovery$"), Component.GFD),
    (re.compile(r"(?:^|/)dcgm-exporter$"), Component.DCGM_EXPORTER),
    (re.compile(r"(?:^|/)dcgm$"), Component.DCGM),
    (re.compile(r"(?:^|/)container-toolkit$"), Component.TOOLKIT),
    (re.compile(r"(?:^|/)k8s-mig-manager$"), Component.MIG_MANAGER),
    (re.compile(r"(?:^|/)gpu-operator$"), Component.OPERATOR),
    (re.compile(r"(?:^|/)k8s-dra-driver-gpu$"), Component.DRA_KUBELET_PLUGIN),
)
_BY_NAME = (
    (re.compile(r"nvidia-device-plugin(?:-ctr)?"), Component.DEVICE_PLUGIN),
    (re.compile(r"gpu-feature-discovery(?:-ctr)?"), Component.GFD),
    (re.compile(r"nvidia-driver-ctr"), Component.DRIVER),
    (re.compile(r"nvidia-container-toolkit-ctr"), Component.TOOLKIT),
    (re.compile(r"nvidia-operator-validator"), Component.VALIDATOR),
    (re.compile(r"nvidia-node-status-exporter"), Component.NODE_STATUS_EXPORTER),
    (re.compile(r"nvidia-dcgm-exporter"), Component.DCGM_EXPORTER),
)


def component_of(container: Container) -> Component | None:
    """Return what a container is: by its program, else its image (one image serves several), else its name."""
    words = [posixpath.basename(word) for word in (*(container.command or ()), *(container.args or ())) if word]
    if words and words[0] in _BY_COMMAND:
        return _BY_COMMAND[words[0]]
    if words and words[0] == "config-manager":
        return None
    for word in words:
        for program, component in _BY_COMMAND.items():
            if re.search(rf"(?:^|[\s/;&]){re.escape(program)}(?:$|[\s;&])", word):
                return component
    for pattern, component in _BY_NAME:
        if pattern.fullmatch(container.name):
            return component
    repository = container.image.split("@", 1)[0]
    head, colon, tag = repository.rpartition(":")
    repository = head if colon and "/" not in tag else repository
    for pattern, component in _BY_IMAGE:
        if pattern.search(repository):
            return component
    return None


def recognise(spec: PodSpec) -> Component | None:
    """Return what a pod is of the GPU stack, None if none of it."""
    for container in spec.containers:
        component = component_of(container)
        if component is not None:
            return component
    return None


class Stack:
    """The GPU stack of a cluster: who is installed, as what."""

    def __init__(self, cluster: "Cluster") -> None:
        """Remember the cluster."""
        self.cluster = cluster

    @derived
    def daemonsets(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are part of the GPU stack."""
        return tuple(one for one in need(self.cluster.daemonsets) if one.component is not None)

    @derived
    def device_plugins(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are device plugins, NVIDIA's or the provider's."""
        kinds = {Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN}
        return tuple(one for one in need(self.daemonsets) if one.component in kinds)

    @derived
    def feature_discoveries(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are GPU Feature Discovery."""
        return tuple(one for one in need(self.daemonsets) if one.component is Component.GFD)

    @derived
    def nfd_workers(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are NFD workers."""
        return tuple(one for one in need(self.daemonsets) if one.component is Component.NFD_WORKER)

    @derived
    def exporters(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are dcgm-exporters."""
        return tuple(one for one in need(self.daemonsets) if one.component is Component.DCGM_EXPORTER)

    @derived
    def dra_plugins(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are kubelet plugins of NVIDIA's DRA driver."""
        return tuple(one for one in need(self.daemonsets) if one.component is Component.DRA_KUBELET_PLUGIN)

    @derived
    def nfd_masters(self) -> tuple[DeploymentDocument, ...]:
        """The Deployments that are NFD masters."""
        return tuple(one for one in need(self.cluster.objects("deployments.apps")) if recognise(one.spec.template.spec) is Component.NFD_MASTER)

    def of(self, component: Component) -> "tuple[DaemonSet, ...]":
        """Return the DaemonSets of one component; the caller needs `daemonsets` known.

        Raises:
            GapError: the DaemonSets could not be listed; call it inside a `derived` property.
        """
        return tuple(one for one in need(self.daemonsets) if one.component is component)

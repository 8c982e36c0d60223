"""Which workload is what of the GPU stack, recognised by what it runs, never by its name.

Sources: container commands and images of k8s-device-plugin (0.12 to 0.20), gpu-feature-discovery (to 0.8),
node-feature-discovery (0.8 to 0.20), dcgm-exporter (3.1 to 4.8), gpu-operator (22.9 to 26.7: assets/ and
manifests/), dra-driver-nvidia-gpu, GKE's nvidia-gpu-device-plugin (upstream-facts §1.2, §5, §7.1, §8, §9);
HAMi 2.9 (charts/hami) and volcano-vgpu-device-plugin 1.12 (deployments/static).
"""

import enum
import functools
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.documents import Container, DeploymentDocument, PodSpec
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.scheduling import Rejection, selection
from kube_gpucheck.evidence.sharing import Sharing, sharing_in
from kube_gpucheck.model import Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node


class Component(enum.Enum):
    """A part of the GPU stack that runs as pods."""

    DEVICE_PLUGIN = "device plugin"
    PROVIDER_DEVICE_PLUGIN = "the provider's device plugin"
    OTHER_DEVICE_PLUGIN = "device plugin of another make"
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
        """Whether it should have one pod on each GPU node.

        Not the MPS control daemon (only where MPS is configured), nor the operator's driver, toolkit and MIG
        manager (only where the host has none of its own, or MIG): their own rows judge them.
        """
        return self in _ON_GPU_NODES


_NEED_DRIVER: Final = frozenset(
    {
        Component.DEVICE_PLUGIN,
        Component.GFD,
        Component.DCGM_EXPORTER,
        Component.DCGM,
        Component.MPS_CONTROL_DAEMON,
    }
)
_ON_GPU_NODES: Final = frozenset(
    {
        Component.DEVICE_PLUGIN,
        Component.PROVIDER_DEVICE_PLUGIN,
        Component.GFD,
        Component.NFD_WORKER,
        Component.DCGM_EXPORTER,
        Component.DCGM,
        Component.DRA_KUBELET_PLUGIN,
    }
)

_SELECTING: Final = _ON_GPU_NODES - {Component.NFD_WORKER}
"""Those of them that discovery must find nodes for; NFD's worker is discovery itself."""

_BY_PROGRAM: Final = {
    "nvidia-device-plugin": Component.DEVICE_PLUGIN,
    "nvidia-gpu-device-plugin": Component.PROVIDER_DEVICE_PLUGIN,
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
    "nvidia-ctk-installer": Component.TOOLKIT,
    "nvidia-validator": Component.VALIDATOR,
    "nvidia-driver": Component.DRIVER,
    "ocp_dtk_entrypoint": Component.DRIVER,
}
"""What a container's program says of it."""
_BY_IMAGE: Final = {
    "gpu-feature-discovery": Component.GFD,
    "nvidia-gpu-device-plugin": Component.PROVIDER_DEVICE_PLUGIN,
    "dcgm-exporter": Component.DCGM_EXPORTER,
    "dcgm": Component.DCGM,
    "container-toolkit": Component.TOOLKIT,
    "k8s-mig-manager": Component.MIG_MANAGER,
    "gpu-operator-validator": Component.VALIDATOR,
}
"""Images with one purpose, by the last part of their repository; a prefix ending in '-' may stand before it."""
_BY_NAME: Final = {
    "nvidia-device-plugin": Component.DEVICE_PLUGIN,
    "nvidia-device-plugin-ctr": Component.DEVICE_PLUGIN,
    "gpu-feature-discovery": Component.GFD,
    "gpu-feature-discovery-ctr": Component.GFD,
    "mps-control-daemon-ctr": Component.MPS_CONTROL_DAEMON,
    "nvidia-driver-ctr": Component.DRIVER,
    "nvidia-container-toolkit-ctr": Component.TOOLKIT,
    "nvidia-operator-validator": Component.VALIDATOR,
    "nvidia-sandbox-validator": Component.VALIDATOR,
    "nvidia-dra-validator": Component.VALIDATOR,
    "nvidia-node-status-exporter": Component.NODE_STATUS_EXPORTER,
    "nvidia-mig-manager": Component.MIG_MANAGER,
    "nvidia-dcgm-ctr": Component.DCGM,
    "nvidia-dcgm-exporter": Component.DCGM_EXPORTER,
}
"""What upstream calls a container whose program is hidden behind a script, and whose image serves several."""
_PLUGIN_IMAGES: Final = frozenset({"k8s-device-plugin", "nvidia-device-plugin"})
"""Images of plugin, GFD and config-manager alike, whose own entry point is the device plugin."""
_OTHER_VENDORS: Final = frozenset({"rocm", "amd", "intel", "habana", "habanalabs", "cambricon", "mthreads", "enflame"})
"""Makers whose device plugins are called k8s-device-plugin too (rocm/k8s-device-plugin)."""
_FORKS_FLAGS: Final = (
    "--disable-core-limit",
    "--device-split-count",
    "--device-memory-scaling",
    "--device-cores-scaling",
)
_FORKS_VARIABLE: Final = "HOOK_PATH"
"""By which a plugin that divides GPUs by itself is told from NVIDIA's, whose program its own is called after."""
_OTHERS_VARIABLES: Final = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES", _FORKS_VARIABLE)
_OTHERS_WORDS: Final = re.compile(r"v?gpu|nvidia|cuda", re.IGNORECASE)
"""A variable or a word of its name, image or program says that a plugin of an unknown make deals with NVIDIA's GPUs."""
PLUGIN_FOLDER: Final = "device-plugins"
"""The kubelet's folder in which every device plugin registers, below its root. Source: Kubernetes, "Device Plugins"."""
_KNOWN_OTHERWISE: Final = re.compile(r"sandbox|kubevirt|kata|rdma|sriov|exporter|discovery", re.IGNORECASE)
DEPLOY_PREFIX: Final = "nvidia.com/gpu.deploy."
"""The labels by which the GPU Operator lets its operands onto a node. Source: gpu-operator state_manager.go."""
_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "busybox"})
_BEFORE_PROGRAM: Final = frozenset(
    {"exec", "env", "nohup", "then", "else", "do", "time", "tini", "dumb-init", "--", "command"}
)
_SEPARATORS: Final = re.compile(r"[;&|\n(){}]+")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VERSION: Final = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(?![0-9])")


def component_of(container: Container) -> Component | None:
    """Return what a container is: by its program, else its image if that serves one purpose, else its name.

    A program that is known to be something else (config-manager, compute-domain-daemon, driver-manager)
    makes it none, whatever its image. A shell is opened: what its script runs last counts.
    """
    mode = next((one.value for one in container.env or () if one.name == "COMPONENT"), None)
    return _component((container.name, container.image, container.command or (), container.args or (), mode))


@functools.lru_cache(maxsize=4096)
def _component(told: "tuple[str, str, tuple[str, ...], tuple[str, ...], str | None]") -> Component | None:
    """Return what a container is by its name, image, command, arguments and COMPONENT: thousands have the same."""
    name, image, command, arguments, mode = told
    program, is_hidden = _program(command, arguments)
    repository = repository_of(image)
    if program in _BY_PROGRAM:
        return _special(_BY_PROGRAM[program], name, repository, mode)
    parts = repository.lower().split("/")
    last = parts[-1]
    for known, component in _BY_IMAGE.items():
        if last == known or last.endswith(f"-{known}"):
            return component if program is None or is_hidden else None
    if program is not None and not is_hidden:
        return None
    if name in _BY_NAME:
        return _BY_NAME[name]
    if _OTHER_VENDORS.isdisjoint(parts) and any(last == one or last.endswith(f"-{one}") for one in _PLUGIN_IMAGES):
        return Component.DEVICE_PLUGIN
    return Component.OPERATOR if last == "gpu-operator" and program is None else None


def recognise(spec: PodSpec) -> Component | None:
    """Return what a pod is of the GPU stack by its first container that is any of it, None if none is.

    A pod that is none of it, mounts the kubelet's folder of device plugins and deals with NVIDIA's GPUs is a device
    plugin of another make; so is one whose plugin divides GPUs by itself.
    """
    for container in spec.containers:
        component = component_of(container)
        if component is Component.DEVICE_PLUGIN and _is_fork(container):
            return Component.OTHER_DEVICE_PLUGIN
        if component is not None:
            return component
    return Component.OTHER_DEVICE_PLUGIN if any(_is_others(spec, one) for one in spec.containers) else None


def _is_fork(container: Container) -> bool:
    words = (*(container.command or ()), *(container.args or ()))
    told = any(word.partition("=")[0] in _FORKS_FLAGS for word in words)
    return told or any(one.name == _FORKS_VARIABLE for one in container.env or ())


def _is_others(spec: PodSpec, container: Container) -> bool:
    """Tell whether a container is a device plugin for NVIDIA's GPUs that is of no make known here."""
    image = repository_of(container.image).rpartition("/")[2]
    words = " ".join((container.name, image, *(container.command or ())))
    if not (_OTHERS_WORDS.search(words) or any(one.name in _OTHERS_VARIABLES for one in container.env or ())):
        return False
    vendors = re.split(r"[/._-]", f"{repository_of(container.image)}/{container.name}".lower())
    if _KNOWN_OTHERWISE.search(words) or not _OTHER_VENDORS.isdisjoint(vendors):
        return False
    mounted = {one.name for one in container.volume_mounts or ()}
    paths = (one.host_path.path.rstrip("/") for one in spec.volumes or () if one.host_path and one.name in mounted)
    return any(posixpath.basename(path) == PLUGIN_FOLDER for path in paths)


def repository_of(image: str) -> str:
    """Return an image's name without tag and digest (`registry:5000/nvidia/dcgm-exporter`)."""
    name = image.split("@", 1)[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def version_of(image: str) -> tuple[int, int, int] | None:
    """Return the version that an image's tag begins with, None if its tag is no version or it has none.

    `v0.20.0` and `v0.17.4-ubuntu22.04` give three numbers; `3.1.3-3.1.2-ubuntu20.04` the first of two
    versions; a digest alone, `latest` and `devel` give None.
    """
    name = image.split("@", 1)[0]
    repository = repository_of(image)
    return parse_version(name[len(repository) + 1 :])


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return the version that a text begins with, None if it begins with none; a missing third number is 0."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _program(command: tuple[str, ...], arguments: tuple[str, ...]) -> tuple[str | None, bool]:
    """Return the program's base name, and whether a script hides it; None where the image's own entry point runs.

    Arguments without a command go to the image's entry point, and name no program.
    """
    if not command:
        return None, False
    first = posixpath.basename(command[0])
    rest = [*command[1:], *arguments]
    if first in _BEFORE_PROGRAM:
        words = [word for word in rest if not word.startswith("-") and not _ASSIGNMENT.match(word)]
        first, rest = (posixpath.basename(words[0]), rest[rest.index(words[0]) + 1 :]) if words else (first, [])
    if first not in _SHELLS:
        return first, first.endswith(".sh")
    known = [name for word in rest for name in _run_by(word) if name in _BY_PROGRAM]
    return (known[-1], False) if known else (first, True)


def _run_by(script: str) -> Iterator[str]:
    """Yield the base names of what a shell script's simple commands run, in order."""
    for part in _SEPARATORS.split(script):
        for word in part.split():
            if word not in _BEFORE_PROGRAM and not _ASSIGNMENT.match(word):
                yield posixpath.basename(word)
                break


def _special(found: Component, name: str, repository: str, mode: str | None) -> Component | None:
    """Tell apart what one program does under several names (nvidia-validator, nvidia-driver)."""
    if found is Component.VALIDATOR:
        return Component.NODE_STATUS_EXPORTER if mode == "metrics" or "status-exporter" in name else found
    if found is Component.DRIVER and "vgpu-manager" in f"{name} {repository}":
        return None
    return found


class Unselected(msgspec.Struct, frozen=True):
    """Which GPU DaemonSets select nodes by label, and which of them leave one node out.

    `selecting`: how many select by label at all. `missed`: those that leave the node out, and why.
    """

    selecting: int
    missed: "tuple[tuple[DaemonSet, Rejection], ...]"


class UnreadSharing(msgspec.Struct, frozen=True):
    """A ConfigMap's entry that says how to share GPUs, and that no device plugin mounts.

    `config_map`: as namespace/name. `is_meant`: it stands in a device plugin's namespace, or a pod waits for GPUs; else
    it may be left over.
    """

    config_map: str
    entry: str
    sharing: Sharing
    is_meant: bool


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
    def other_plugins(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are device plugins of another make, which divide or name GPUs by rules of their own."""
        return self.of(Component.OTHER_DEVICE_PLUGIN)

    @derived
    def feature_discoveries(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are GPU Feature Discovery."""
        return self.of(Component.GFD)

    @derived
    def nfd_workers(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are NFD workers."""
        return self.of(Component.NFD_WORKER)

    @derived
    def exporters(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are dcgm-exporters."""
        return self.of(Component.DCGM_EXPORTER)

    @derived
    def dra_plugins(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are kubelet plugins of NVIDIA's DRA driver."""
        return self.of(Component.DRA_KUBELET_PLUGIN)

    @derived
    def nfd_masters(self) -> tuple[DeploymentDocument, ...]:
        """The Deployments that are NFD masters."""
        return tuple(
            one
            for one in need(self.cluster.objects("deployments.apps"))
            if recognise(one.spec.template.spec) is Component.NFD_MASTER
        )

    @derived
    def operators(self) -> tuple[DeploymentDocument, ...]:
        """The Deployments that are the GPU Operator."""
        return tuple(
            one
            for one in need(self.cluster.objects("deployments.apps"))
            if recognise(one.spec.template.spec) is Component.OPERATOR
        )

    @derived
    def unread_sharing(self) -> tuple[UnreadSharing, ...]:
        """The sharing configurations that no device plugin mounts, those in a plugin's namespace first."""
        maps = need(self.cluster.objects("configmaps"))
        plugins = need(self.device_plugins)
        homes = {one.namespace for one in plugins}
        mounted = {
            (one.namespace, volume.config_map.name)
            for one in plugins
            for volume in need(one.object).spec.template.spec.volumes or ()
            if volume.config_map is not None
        }
        found = []
        for document in maps:
            namespace = document.metadata.namespace or ""
            if (namespace, document.metadata.name) in mounted:
                continue
            for entry, text in (document.data or {}).items():
                sharing = sharing_in(text)
                if sharing is not None:
                    name = f"{namespace}/{document.metadata.name}"
                    found.append(UnreadSharing(name, entry, sharing, namespace in homes or self._somebody_waits()))
        return tuple(sorted(found, key=lambda one: (not one.is_meant, one.config_map, one.entry)))

    def _somebody_waits(self) -> bool:
        return any(
            pod.node_name is None and need(pod.gpu_request) and not need(pod.is_finished)
            for pod in need(self.cluster.readable_pods)
        )

    def of(self, component: Component) -> "tuple[DaemonSet, ...]":
        """Return the DaemonSets of one component; the caller needs `daemonsets` known.

        Raises:
            GapError: the DaemonSets could not be listed; call it inside a `derived` property.
        """
        return tuple(one for one in need(self.daemonsets) if one.component is component)

    def unselected(self, node: "Node") -> Reading[Unselected]:
        """Return which GPU DaemonSets leave a node out by label, NFD's workers and those kept off on purpose apart."""

        def derive() -> Unselected:
            wanted = [one for one in need(self.daemonsets) if one.component in _SELECTING]
            selecting = [one for one in wanted if selection(need(one.object).spec.template.spec)]
            missed: list[tuple[DaemonSet, Rejection]] = []
            for component in dict.fromkeys(one.component for one in selecting):
                for one, why in self.exclusions(component, node, taints=False) if component is not None else ():
                    if why.is_by_label and kept_off(need(node.labels), why.keys) is None:
                        missed.append((one, why))
            return Unselected(len(selecting), tuple(missed))

        return attempt(derive)

    def exclusions(
        self, component: Component, node: "Node", *, taints: bool
    ) -> "tuple[tuple[DaemonSet, Rejection], ...]":
        """Return why each of a component's DaemonSets may not run on a node; empty if any may.

        A provider has one DaemonSet for each kind of node: only a node that none of them serves is left out.
        Taints that repeat a node's conditions are not looked at.

        Raises:
            GapError: DaemonSets or the node could not be read; call it inside a derivation.
        """
        found: list[tuple[DaemonSet, Rejection]] = []
        for one in self.of(component):
            why = need(one.rejection(node, taints=taints, conditions=False))
            if why is None:
                return ()
            found.append((one, why))
        return tuple(found)


def kept_off(labels: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    """Return what keeps the operator's operands off a node on purpose, None if nothing does.

    `keys`: the labels by which an operand selects. A person's `false` is honoured by the operator, and a node
    for virtual machines gets other operands (upstream-facts §8).
    """
    if not keys or not all(key.startswith(DEPLOY_PREFIX) for key in keys):
        return None
    if labels.get(f"{DEPLOY_PREFIX}operands") == "false":
        return f"label {DEPLOY_PREFIX}operands=false"
    declined = next((key for key in keys if labels.get(key) == "false"), None)
    if declined:
        return f"label {declined}=false"
    workload = labels.get("nvidia.com/gpu.workload.config", "container")
    return f"label nvidia.com/gpu.workload.config={workload}" if workload in {"vm-passthrough", "vm-vgpu"} else None

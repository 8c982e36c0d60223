"""How GPUs reach the containers of one node: most of what is right in one mode is wrong in another.

Source: CHECKS.md, "Delivery mode"; upstream-facts, sections 1.3, 3, 5 and 8. What was not asked points nowhere; what
was asked and could not be had makes the mode unknown.
"""

import enum
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from kube_gpucheck.evidence.configuration import names_nvidia
from kube_gpucheck.evidence.documents import Container, RuntimeClassDocument
from kube_gpucheck.evidence.engine import Distribution, EngineKind, not_asked
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.model import Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node


class Mode(enum.Enum):
    """A way in which a container is given the GPU. Several may hold on one node."""

    RUNTIME_CLASS = "runtime-class"
    DEFAULT_RUNTIME = "default-runtime"
    CDI_ENGINE = "cdi-engine"
    NRI = "nri"
    OCI_HOOK = "oci-hook"
    PROVIDER = "provider"
    DRA = "dra"
    WSL = "wsl"
    TEGRA = "tegra"
    VM_PASSTHROUGH = "vm-passthrough"
    VM_VGPU = "vm-vgpu"


BY_HANDLER: Final = frozenset({Mode.RUNTIME_CLASS, Mode.DEFAULT_RUNTIME})
"""The modes in which an engine's handler gives containers the GPU."""

_WORKLOAD: Final = "nvidia.com/gpu.workload.config"
_VIRTUAL: Final = {"vm-passthrough": Mode.VM_PASSTHROUGH, "vm-vgpu": Mode.VM_VGPU}
_OTHER_WAYS: Final = frozenset({Mode.CDI_ENGINE, Mode.NRI, Mode.OCI_HOOK, Mode.PROVIDER, Mode.DRA})
_HOOKS: Final = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
_WSL: Final = re.compile(r"microsoft.*wsl|wsl2", re.IGNORECASE)
_ANNOTATION: Final = re.compile(r"(?:[a-z0-9-]+\.)*cdi\.k8s\.io(?:/|$)")
_DRIVER_ROOTS: Final = (
    "/run/nvidia/driver",
    "/home/kubernetes/bin/nvidia",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl",
    "/opt/nvidia/driver",
)
"""Where drivers lie whole: driver container, GKE, COS, WSL2, Flatcar (upstream-facts, sections 1.3 and 5)."""
_TRUE: Final = {"true", "1", "t"}


class Delivery:
    """How one node's containers get their GPUs."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @derived
    def modes(self) -> frozenset[Mode]:
        """Every mode that holds; `runtime-class` where nothing that was read points elsewhere."""
        declared = need(self.declared)
        if declared & {Mode.VM_PASSTHROUGH, Mode.VM_VGPU}:
            return declared
        configuration = self.node.runtime.configuration
        if not not_asked(configuration) and need(configuration).default_is_nvidia:
            named = {Mode.RUNTIME_CLASS} if need(self.class_is_named) else set()
            return declared | {Mode.DEFAULT_RUNTIME} | named
        return declared | {Mode.RUNTIME_CLASS} if need(self.by_handler) else declared

    @derived
    def by_handler(self) -> bool:
        """Whether a handler of the engine gives containers the GPU (runtime-class or default-runtime).

        Told from Kubernetes objects alone: a class is named by the GPU stack, or no other way is declared.
        """
        declared = need(self.declared)
        if declared & {Mode.VM_PASSTHROUGH, Mode.VM_VGPU}:
            return False
        return not declared & _OTHER_WAYS or (Mode.PROVIDER not in declared and need(self.class_is_named))

    @derived
    def declared(self) -> frozenset[Mode]:
        """The modes that Kubernetes objects and the node's own description declare."""
        found: set[Mode] = set()
        document = self.node.object
        if not not_asked(document):
            virtual = _VIRTUAL.get(need(self.node.labels).get(_WORKLOAD, ""))
            if virtual is not None:
                return frozenset({virtual})
            kernel = need(document).status.node_info.kernel_version
            if _WSL.search(kernel):
                found.add(Mode.WSL)
            if need(self.node.is_tegra):
                found.add(Mode.TEGRA)
        plugins = need(self.serving(Component.DEVICE_PLUGIN))
        if need(self._provider_serves):
            found.add(Mode.PROVIDER)
        if any(strategy.startswith("cdi-") for one in plugins for strategy in strategies(need(one.main_container))):
            found.add(Mode.CDI_ENGINE)
        if need(self._nri_is_on):
            found.add(Mode.NRI)
        if need(self._hook_is_used):
            found.add(Mode.OCI_HOOK)
        if need(self._dra_serves):
            found.add(Mode.DRA)
        return frozenset(found)

    @derived
    def class_is_named(self) -> bool:
        """Whether a DaemonSet that serves this node and needs the driver names a RuntimeClass."""
        return any(need(one.object).spec.template.spec.runtime_class_name for one in need(self._needing))

    @derived
    def classes_in_use(self) -> tuple[RuntimeClassDocument, ...]:
        """The RuntimeClasses meant for NVIDIA that are used here, in order of name; those that do not exist apart.

        Used by a DaemonSet that serves this node and needs the driver, or by a pod of this node that has not ended
        and asks for a GPU or names a class that is NVIDIA's by its own or its handler's name.
        """
        named = {need(one.object).spec.template.spec.runtime_class_name for one in need(self._needing)}
        classes = {one.metadata.name: one for one in need(self.node.cluster.runtime_classes)}
        pods = self.node.pods
        for pod in () if not_asked(pods) else need(pods):
            name = need(pod.runtime_class)
            if name is None or need(pod.is_finished):
                continue
            one = classes.get(name)
            if need(pod.gpu_request) or names_nvidia(name) or (one is not None and names_nvidia(one.handler)):
                named.add(name)
        return tuple(classes[name] for name in sorted(name for name in named if name is not None) if name in classes)

    @derived
    def classes_running(self) -> frozenset[str]:
        """The RuntimeClasses that running pods of this node name."""
        running = (pod for pod in need(self.node.pods) if need(pod.outline).phase == "Running")
        names = (need(pod.runtime_class) for pod in running)
        return frozenset(name for name in names if name is not None)

    @derived
    def only_dra_serves(self) -> bool:
        """Whether GPUs come from the DRA driver alone, so that the node has no capacity to speak of."""
        return Mode.DRA in need(self.declared) and not need(self.serving(Component.DEVICE_PLUGIN))

    @derived
    def _stack(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets of the GPU stack whose selection allows this node; none where none were asked for."""
        listed = self.node.cluster.stack.daemonsets
        if not_asked(listed):
            return ()
        if not_asked(self.node.object):
            return ()
        return tuple(one for one in need(listed) if need(one.selects(self.node)) is None)

    @derived
    def _needing(self) -> "tuple[DaemonSet, ...]":
        return tuple(one for one in need(self._stack) if one.component is not None and one.component.needs_driver)

    def serving(self, component: Component) -> "Reading[tuple[DaemonSet, ...]]":
        """Return the DaemonSets of one component whose selection allows this node; none where none were asked for."""
        return attempt(lambda: tuple(one for one in need(self._stack) if one.component is component))

    @derived
    def toolkit_waits(self) -> bool:
        """Whether the GPU Operator brings the toolkit here and its container has not begun: it waits for the driver."""
        for daemonset in need(self.serving(Component.TOOLKIT)):
            for pod in need(daemonset.pods):
                if pod.node_name != self.node.name:
                    continue
                main = need(daemonset.main_container).name
                states = [one.state for one in need(pod.statuses) if one.name == main]
                if need(pod.object).status.phase == "Pending" and all(
                    one.waiting is not None and one.waiting.reason == "PodInitializing" for one in states
                ):
                    return True
        return False

    def _listed(self, kind: str) -> "Reading[tuple[Any, ...]]":
        """Return a kind's objects, none where it was not asked for; what the API serves tells the two apart."""
        objects = self.node.cluster.objects(kind)
        if not not_asked(objects):
            return objects
        discovery = self.node.cluster.discovery
        return Seen(()) if not_asked(discovery) or isinstance(discovery, Seen) else discovery

    @derived
    def _provider_serves(self) -> bool:
        """Whether the provider's image or plugin brings the driver to pods (GKE, Bottlerocket, EKS Auto Mode)."""
        document = self.node.object
        if not_asked(document):
            return False
        labels = need(self.node.labels)
        toolkit, plugins = need(self.serving(Component.TOOLKIT)), need(self.serving(Component.DEVICE_PLUGIN))
        if toolkit:
            return False
        if need(self.serving(Component.PROVIDER_DEVICE_PLUGIN)) and not plugins:
            return True
        if "cloud.google.com/gke-accelerator" in labels and not plugins:
            return True
        image = need(self.node.runtime.engine.distribution) is Distribution.BOTTLEROCKET
        return (image or labels.get("eks.amazonaws.com/compute-type") == "auto") and not plugins

    @derived
    def _nri_is_on(self) -> bool:
        """Whether the toolkit's NRI plugin adds the devices. Source: ENABLE_NRI_PLUGIN, spec.cdi.nriPluginEnabled."""
        for one in need(self.serving(Component.TOOLKIT)):
            for container in need(one.containers):
                if setting(container, "ENABLE_NRI_PLUGIN", "--enable-nri-plugin").lower() in _TRUE:
                    return True
                if "--enable-nri-plugin" in (container.args or ()):
                    return True
        for policy in need(self._listed("clusterpolicies.nvidia.com")):
            cdi = (policy.spec or {}).get("cdi")
            if isinstance(cdi, dict) and cdi.get("nriPluginEnabled") is True and cdi.get("enabled") is not False:
                return True
        return False

    @derived
    def _hook_is_used(self) -> bool:
        """Whether CRI-O injects by a hook: its file is there, or the operator's toolkit runs and no class is named."""
        kind = self.node.runtime.engine.kind
        if not_asked(kind) or need(kind) is not EngineKind.CRI_O:
            return False
        for folder in _HOOKS:
            listing = self.node.host.listing(folder)
            if not not_asked(listing):
                entries = need(listing)
                if entries is not None and any("nvidia" in entry.name for entry in entries.entries):
                    return True
        return (
            bool(need(self.serving(Component.TOOLKIT))) and bool(need(self._needing)) and not need(self.class_is_named)
        )

    @derived
    def hook_is_absent(self) -> bool:
        """Whether no folder of OCI hooks that was listed has NVIDIA's; missing where none was listed."""
        listings = [self.node.host.listing(folder) for folder in _HOOKS]
        read = [need(one) for one in listings if not not_asked(one)]
        if not read:
            need(listings[0])
        return not any("nvidia" in entry.name for one in read if one is not None for entry in one.entries)

    @derived
    def _dra_serves(self) -> bool:
        """Whether the DRA driver offers GPUs here. Source: ResourceSlices of gpu.nvidia.com, its kubelet plugin."""
        need(self._listed("resourceslices.resource.k8s.io"))
        offering = self.node.cluster.dra.offering
        if not not_asked(offering) and self.node.name in need(offering):
            return True
        return bool(need(self.serving(Component.DRA_KUBELET_PLUGIN))) and not need(
            self.serving(Component.DEVICE_PLUGIN)
        )


def gives_driver(daemonset: "DaemonSet") -> "Reading[bool]":
    """Return whether a template asks for the driver otherwise than by a RuntimeClass.

    By a CDI or NRI annotation, a ResourceClaim, or a folder with a driver that its main container mounts.
    """

    def derive() -> bool:
        template = need(daemonset.object).spec.template
        annotations = (template.metadata or {}).get("annotations")
        keys = annotations if isinstance(annotations, dict) else {}
        if any(_ANNOTATION.match(str(key)) and "nvidia" in f"{key}{value}" for key, value in keys.items()):
            return True
        if template.spec.resource_claims:
            return True
        mounted = {one.name for one in need(daemonset.main_container).volume_mounts or ()}
        paths = (one.host_path.path for one in template.spec.volumes or () if one.host_path and one.name in mounted)
        return any(_holds_driver(path) for path in paths)

    return attempt(derive)


def _holds_driver(path: str) -> bool:
    return path == "/" or any(f"{path.rstrip('/')}/".startswith(f"{root}/") for root in _DRIVER_ROOTS)


def strategies(container: Container) -> tuple[str, ...]:
    """Return the device plugin's device list strategies; `envvar` where none is said (upstream-facts, section 1.3)."""
    said = setting(container, "DEVICE_LIST_STRATEGY", "--device-list-strategy")
    return tuple(one.strip() for one in said.split(",") if one.strip()) or ("envvar",)


def setting(container: Container, variable: str, flag: str) -> str:
    """Return what a container is told by a flag (its values, with commas between), else a variable, "" if not."""
    words = (*(container.command or ()), *(container.args or ()))
    values = [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
    values += [after for word, after in pairwise(words) if word == flag]
    if values:
        return ",".join(values)
    return next((one.value or "" for one in container.env or () if one.name == variable), "")

"""One node: its object, its host, its GPUs, and the sections that the layers read."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from kube_gpucheck.evidence.allocation import Kubelet
from kube_gpucheck.evidence.delivery import Delivery, Mode
from kube_gpucheck.evidence.devicehealth import DeviceHealth
from kube_gpucheck.evidence.deviceplugin import DevicePlugin
from kube_gpucheck.evidence.documents import LeaseDocument, NodeDocument
from kube_gpucheck.evidence.driver import Driver
from kube_gpucheck.evidence.gpu import Gpu
from kube_gpucheck.evidence.holdings import Holdings
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.labelling import Labelling
from kube_gpucheck.evidence.mps import MpsDaemon
from kube_gpucheck.evidence.partition import Partitions
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.runtime import Runtime
from kube_gpucheck.evidence.workload import Workload
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen, Subject, SubjectKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.pod import Pod

GPU_LABELS: Final = re.compile(
    r"feature\.node\.kubernetes\.io/pci-(?:03\d\d_)?10de(?:_[0-9a-f]+)*\.present|nvidia\.com/gpu\.present|nvidia\.com/gpu\.(?:count|product)|"
    r"cloud\.google\.com/gke-accelerator|k8s\.amazonaws\.com/accelerator|eks\.amazonaws\.com/instance-gpu-manufacturer|kubernetes\.azure\.com/accelerator|nvidia\.com/gpu\.deploy\..+"
)
"""Labels that say "this node has an NVIDIA GPU". Source: upstream-facts §1.1, §2, §5 (GKE), §8."""
_KEPT: Final = frozenset({"cluster", "name", "object", "node", "subject", "gpu_signs", "lease", "pods"})
"""What a node keeps when the rest is let go."""
GPU_RESOURCE: Final = re.compile(r"nvidia\.com/(?:gpu(?:\.[a-z0-9.-]+)?|mig-[0-9a-z.+-]+)")
"""Extended resources that NVIDIA's device plugin serves by default names, renamed ones by suffix."""


T = TypeVar("T")


@functools.lru_cache(maxsize=4096)
def _tells_gpu(key: str) -> bool:
    return GPU_LABELS.fullmatch(key) is not None


class _Section(Generic[T]):
    """A part of a node that is worked out when it is looked at, and let go when enough other nodes were."""

    def __init__(self, function: "Callable[[Node], T]") -> None:
        """Keep the function and its docstring."""
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    def __get__(self, node: "Node", owner: type[Any]) -> T:
        """Return the part; the second access finds it in the node."""
        node.cluster.takes_up(node)
        part = vars(node)[self._name] = self._function(node)
        return part


class Node:
    """One node, or a host of its own where no Node object joins it."""

    def __init__(self, cluster: "Cluster", name: str, document: Reading[NodeDocument]) -> None:
        """Keep the object and reach for the host by name."""
        self.cluster = cluster
        self.name = name
        self.object = document
        self.node = self
        self.subject = Subject(SubjectKind.NODE, name, node=name)

    def let_go(self) -> None:
        """Forget the host and the sections, which can be worked out again; what tells a GPU node stays."""
        kept = {name: value for name, value in vars(self).items() if name in _KEPT}
        vars(self).clear()
        vars(self).update(kept)
        self.cluster.bundle.let_go(self.name)

    @_Section
    def host(self) -> Host:
        """What was read on the node itself."""
        return Host(self.cluster.bundle, self.name)

    @_Section
    def driver(self) -> Driver:
        """The driver layer on this node: PCI, kernel module, libraries, NVML, device nodes, kernel log."""
        return Driver(self.host)

    @_Section
    def runtime(self) -> Runtime:
        """The container runtime on this node: engine, its configuration, the NVIDIA Container Toolkit, CDI."""
        return Runtime(self)

    @_Section
    def deliveries(self) -> Delivery:
        """How GPUs reach this node's containers, and what says so."""
        return Delivery(self)

    @derived
    def delivery(self) -> frozenset[Mode]:
        """The delivery modes that hold on this node (CHECKS.md, "Delivery mode")."""
        return need(self.deliveries.modes)

    @derived
    def only_dra_serves(self) -> bool:
        """Whether this node's GPUs come from the DRA driver alone."""
        return need(self.deliveries.only_dra_serves)

    @derived
    def is_tegra(self) -> bool:
        """Whether the node is a Tegra system: by its kernel's name; False where it is not known."""
        if isinstance(self.object, Missing) and self.object.kind is MissingKind.NOT_ASKED:
            return False
        return "tegra" in need(self.object).status.node_info.kernel_version.lower()

    @_Section
    def plugin(self) -> DevicePlugin:
        """The device plugin on this node: its pods, log, configuration, and what it should offer."""
        return DevicePlugin(self)

    @_Section
    def partitions(self) -> Partitions:
        """MIG on this node: what was asked for, how far it is, and which MIG devices there are."""
        return Partitions(self)

    @_Section
    def mps(self) -> MpsDaemon:
        """The MPS control daemon on this node."""
        return MpsDaemon(self)

    @_Section
    def device_health(self) -> DeviceHealth:
        """What the device plugin thinks of the health of this node's GPUs, beside NVML."""
        return DeviceHealth(self)

    @_Section
    def labelling(self) -> Labelling:
        """The labels of the GPU stack on this node: how old they are, and whether they are of what is there."""
        return Labelling(self)

    @_Section
    def kubelet(self) -> Kubelet:
        """The kubelet's device manager on this node: root folder, checkpoint, holders of GPUs."""
        return Kubelet(self)

    @_Section
    def holdings(self) -> Holdings:
        """Who holds what of this node's GPUs, by the API beside the kubelet's record."""
        return Holdings(self)

    @_Section
    def workload(self) -> Workload:
        """What gpucheck's own workloads measured on this node."""
        return Workload(self)

    @derived
    def labels(self) -> Mapping[str, str]:
        """The node's labels. Source: metadata.labels."""
        return need(self.object).metadata.labels or {}

    @derived
    def capacity(self) -> dict[str, int]:
        """GPU resources in capacity, as counts (0 stays). Source: status.capacity."""
        return {
            name: whole(value)
            for name, value in need(self.object).status.capacity.items()
            if GPU_RESOURCE.fullmatch(name)
        }

    @derived
    def allocatable(self) -> dict[str, int]:
        """GPU resources in allocatable, as counts (0 stays). Source: status.allocatable."""
        return {
            name: whole(value)
            for name, value in need(self.object).status.allocatable.items()
            if GPU_RESOURCE.fullmatch(name)
        }

    @derived
    def gpu_signs(self) -> tuple[str, ...]:
        """What says that this node has an NVIDIA GPU, the first kind of sign that speaks; empty if none does.

        In order: the user (`--node`), labels, capacity, ResourceSlices, the PCI bus, NVML. A host that was
        not read is no sign; one that was asked and did not answer stops the derivation.
        """
        if self.name in self.cluster.option.named_nodes:
            return ("named with --node",)
        if isinstance(self.object, Seen):
            labels = need(self.labels)
            found = [
                f"label {key}={value}"
                for key, value in labels.items()
                if _tells_gpu(key) and value not in {"false", "0", ""}
            ]
            if found:
                return tuple(sorted(found))
            offered = [f"capacity {name}: {count}" for name, count in sorted(need(self.capacity).items()) if count]
            if offered:
                return tuple(offered)
            offering = self.cluster.dra.offering
            unasked = isinstance(offering, Missing) and offering.kind is MissingKind.NOT_ASKED
            if not unasked and self.name in need(offering):
                return ("a ResourceSlice of gpu.nvidia.com",)
        elif self.object.kind is not MissingKind.NOT_ASKED:
            need(self.object)
        return tuple(f"GPU {gpu.name}" for gpu in self._asked_gpus())

    def _asked_gpus(self) -> tuple[Gpu, ...]:
        gpus = self.gpus
        if isinstance(gpus, Missing) and gpus.kind is MissingKind.NOT_ASKED:
            return ()
        return need(gpus)

    @derived
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs, in order of PCI address: the union of what the PCI bus and NVML list."""
        return tuple(Gpu(self, identity) for identity in need(self.driver.gpus))

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """The well-formed pods that are bound to this node."""
        return need(self.cluster.pods_by_node).get(self.name, ())

    @derived
    def lease(self) -> LeaseDocument | None:
        """The kubelet's heartbeat, None if there is none. Source: Lease in kube-node-lease of the node's name."""
        return need(self.cluster.node_leases).get(self.name)

"""Dynamic resource allocation: what NVIDIA's DRA driver publishes, who claims it, and what is left.

Sources: k8s.io/api/resource/v1, v1beta2, v1beta1 (1.36); dra-driver-nvidia-gpu, cmd/ and deployments/helm (25.3 to
0.5). Not evaluated: constraints between devices, shared counters of partitions, consumable capacity; where those may
decide, the scheduler's words are kept.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kube_gpucheck.evidence.documents import (
    Container,
    DeviceClassDocument,
    DraAttribute,
    DraDeviceBody,
    DraTaint,
    ExactRequest,
    PodSpec,
    ResourceClaimDocument,
    ResourceClaimTemplateDocument,
    ResourceSliceDocument,
    Taint,
    Toleration,
)
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.scheduling import tolerated
from kube_gpucheck.evidence.selectors import matches, texts
from kube_gpucheck.evidence.stack import Component, component_of, kept_off
from kube_gpucheck.model import Missing, MissingKind, Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node

GPU_DRIVER: Final = "gpu.nvidia.com"
DOMAIN_DRIVER: Final = "compute-domain.nvidia.com"
DRIVERS: Final = frozenset({GPU_DRIVER, DOMAIN_DRIVER})
"""The two halves of NVIDIA's DRA driver."""
SLICES: Final = "resourceslices.resource.k8s.io"
CLASSES: Final = "deviceclasses.resource.k8s.io"
CLAIMS: Final = "resourceclaims.resource.k8s.io"
TEMPLATES: Final = "resourceclaimtemplates.resource.k8s.io"
GROUP: Final = "resource.k8s.io"
USABLE: Final = ("v1", "v1beta2", "v1beta1")
"""The versions of the API that the driver can use, the newest first."""
GPU_CLASS: Final = "gpu.nvidia.com"
DOMAIN_CLASSES: Final = ("compute-domain-daemon.nvidia.com", "compute-domain-default-channel.nvidia.com")
"""What the driver's own ComputeDomains ask for by name; the first only where the driver runs IMEX itself."""
_PROGRAMS: Final = {GPU_DRIVER: "gpu-kubelet-plugin", DOMAIN_DRIVER: "compute-domain-kubelet-plugin"}
_CONTAINERS: Final = {"gpus": GPU_DRIVER, "compute-domains": DOMAIN_DRIVER}
_GPU_TYPES: Final = frozenset({"gpu", "mig"})
"""Types of devices that containers get as GPUs; `vfio` is for virtual machines."""
_REPELLING: Final = frozenset({"NoSchedule", "NoExecute"})
_PCI: Final = "resource.kubernetes.io/pciBusID"


class Device(msgspec.Struct, frozen=True):
    """One device that a driver publishes. `node`: None where its pool is not of one node."""

    driver: str
    pool: str
    name: str
    node: str | None
    body: DraDeviceBody

    @property
    def key(self) -> tuple[str, str, str]:
        """By what an allocation names it."""
        return self.driver, self.pool, self.name

    def text(self, name: str) -> str | None:
        """Return a text among its driver's own attributes, None if it has none of that name."""
        attributes = self.body.attributes or {}
        found: DraAttribute | None = attributes.get(name) or attributes.get(f"{self.driver}/{name}")
        return found.text if found is not None else None

    @property
    def kind(self) -> str:
        """The type that the driver gives it: gpu, mig, vfio, daemon or channel; else empty."""
        return self.text("type") or ""

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, or a part of one, that containers can get."""
        return self.driver == GPU_DRIVER and self.kind in _GPU_TYPES

    @property
    def gpu(self) -> str | None:
        """The UUID of the GPU that it is, or is a part of; None if it does not tell."""
        return self.text("parentUUID") or self.text("uuid")

    @property
    def stands_for(self) -> frozenset[str]:
        """UUIDs and PCI addresses of the GPU that it is, or is a part of."""
        attributes = self.body.attributes or {}
        found = attributes.get(_PCI)
        told = (self.gpu, found.text if found is not None else self.text("pcieBusID"))
        return frozenset(one for one in told if one)

    @property
    def is_divided(self) -> bool:
        """Whether its being free depends on what others take of the counters that it shares with them."""
        return bool(self.body.consumes_counters) or self.body.allow_multiple_allocations

    def repels(self, tolerations: tuple[Toleration, ...]) -> tuple[DraTaint, ...]:
        """Return its taints that keep claims with these tolerations away; the effect None keeps nobody away."""
        return tuple(
            one
            for one in self.body.taints or ()
            if one.effect in _REPELLING and not tolerated(Taint(one.key, one.effect, one.value), tolerations)
        )

    def __str__(self) -> str:
        """Return it as a reader finds it."""
        return f"{self.name} on {self.node or self.pool}"


class Pool(msgspec.Struct, frozen=True):
    """The devices of one pool at its newest generation. `published`: of so many slices, `wanted` make it complete."""

    driver: str
    name: str
    node: str | None
    generation: int
    published: int
    wanted: int
    devices: tuple[Device, ...]

    @property
    def problem(self) -> str | None:
        """Why the scheduler does not use it, None if it does. Source: k8s.io/api/resource/v1, ResourcePool."""
        if self.published == self.wanted:
            return None
        return (
            f"of the pool {self.name} of {self.driver} {self.published} of {self.wanted} ResourceSlices of generation "
            f"{self.generation} are there"
        )


class Holder(msgspec.Struct, frozen=True):
    """Who has a device: a claim, and the pods that may use it now."""

    claim: str
    pods: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in a reader's words."""
        return f"claim {self.claim}{f' of {self.pods[0]}' if self.pods else ''}"


class Absent(msgspec.Struct, frozen=True):
    """A GPU node on which no kubelet plugin of the driver may run, and nothing else serves; with the rule, in words."""

    node: str
    reason: str
    keys: tuple[str, ...]


class Dra:
    """Dynamic resource allocation in one cluster, as far as NVIDIA's driver is concerned."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster
        self.memory: dict[bytes, Any] = {}
        """What was worked out for claims that ask alike."""

    @derived
    def versions(self) -> tuple[str, ...]:
        """The versions of resource.k8s.io that are served and that the driver can use, the newest first."""
        discovery = need(self.cluster.discovery)
        groups = [one for one in discovery.groups if one.name == GROUP]
        if not groups or not discovery.serves(SLICES):
            return ()
        return tuple(one for one in USABLE if one in groups[0].versions)

    @derived
    def plugins(self) -> "tuple[DaemonSet, ...]":
        """The DaemonSets that are the driver's kubelet plugin."""
        return need(self.cluster.stack.dra_plugins)

    @derived
    def halves(self) -> frozenset[str]:
        """The halves of the driver that are installed, by their names as drivers."""
        return frozenset(half for one in need(self.plugins) for half in halves_of(need(one.object).spec.template.spec))

    @derived
    def slices(self) -> tuple[ResourceSliceDocument, ...]:
        """All ResourceSlices of NVIDIA's drivers."""
        return tuple(one for one in self._all(SLICES) if one.spec.driver in DRIVERS)

    @derived
    def offering(self) -> frozenset[str]:
        """The names of the nodes of which a ResourceSlice of gpu.nvidia.com is there, with devices or without."""
        return frozenset(
            one.spec.node_name
            for one in need(self.cluster.objects(SLICES))
            if one.spec.driver == GPU_DRIVER and one.spec.node_name is not None
        )

    @derived
    def pools(self) -> tuple[Pool, ...]:
        """The pools of NVIDIA's drivers at their newest generation, in order of driver and name."""
        found: dict[tuple[str, str], list[ResourceSliceDocument]] = defaultdict(list)
        for one in need(self.slices):
            found[one.spec.driver, one.spec.pool.name].append(one)
        return tuple(_pool(driver, name, found[driver, name]) for driver, name in sorted(found))

    @derived
    def pools_by_node(self) -> dict[str, tuple[Pool, ...]]:
        """The pools of NVIDIA's drivers by the node that they are of."""
        found: dict[str, list[Pool]] = defaultdict(list)
        for one in need(self.pools):
            if one.node is not None:
                found[one.node].append(one)
        return {name: tuple(pools) for name, pools in found.items()}

    @derived
    def devices(self) -> tuple[Device, ...]:
        """The devices of all pools; missing where a pool is not complete."""
        for one in need(self.pools):
            if one.problem is not None:
                need(_incomplete(one))
        return tuple(device for one in need(self.pools) for device in one.devices)

    def gpu_pools(self, node: "Node") -> Reading[tuple[Pool, ...]]:
        """Return the pools of GPUs of a node; missing where one is not complete."""

        def derive() -> tuple[Pool, ...]:
            pools = tuple(one for one in need(self.pools_by_node).get(node.name, ()) if one.driver == GPU_DRIVER)
            for one in pools:
                if one.problem is not None:
                    need(_incomplete(one))
            return pools

        return attempt(derive)

    @derived
    def classes(self) -> dict[str, DeviceClassDocument]:
        """All DeviceClasses by name."""
        return {one.metadata.name: one for one in self._all(CLASSES)}

    @derived
    def gpu_classes(self) -> tuple[str, ...]:
        """The DeviceClasses by which GPUs can be claimed: the chart's, and those whose selectors name its driver."""
        return tuple(
            name
            for name, one in need(self.classes).items()
            if name == GPU_CLASS
            or any(f"{quote}{GPU_DRIVER}{quote}" in text for text in texts(one.spec.selectors or ()) for quote in "'\"")
        )

    @derived
    def extended(self) -> dict[str, DeviceClassDocument]:
        """NVIDIA's DeviceClasses by the extended resource that pods may ask for instead of making a claim.

        The newest class wins where several name one resource. Source: k8s.io/api/resource/v1, DeviceClassSpec.
        """
        named = [one for one in need(self.classes).values() if one.spec.extended_resource_name and _is_nvidias(one)]
        named.sort(key=lambda one: (one.metadata.creation_timestamp is not None, one.metadata.creation_timestamp))
        return {str(one.spec.extended_resource_name): one for one in named}

    def offers(self, resource: str) -> Reading[dict[str, tuple[int, int]]]:
        """Return how many devices each node has behind an extended resource, and how many of them are free.

        None at all where nobody asked for classes or slices. A device of which it cannot be decided whether it is of
        the class counts as one. Source: Kubernetes, KEP-5004, on by default from 1.36.
        """

        def derive() -> dict[str, tuple[int, int]]:
            if is_not_asked(self.classes) or is_not_asked(self.slices) or resource not in need(self.extended):
                return {}
            selectors = need(self.extended)[resource].spec.selectors or ()
            taken = {} if is_not_asked(self.taken) else need(self.taken)
            found: dict[str, tuple[int, int]] = {}
            for one in need(self.devices):
                if (
                    one.node is not None
                    and not one.repels(())
                    and matches(selectors, one.driver, one.body) is not False
                ):
                    total, free = found.get(one.node, (0, 0))
                    found[one.node] = total + 1, free + (one.key not in taken)
            return found

        key = f"offers {resource}".encode()
        if key not in self.memory:
            self.memory[key] = attempt(derive)
        answer: Reading[dict[str, tuple[int, int]]] = self.memory[key]
        return answer

    @derived
    def claims(self) -> dict[tuple[str, str], ResourceClaimDocument]:
        """All ResourceClaims by namespace and name."""
        return {(one.metadata.namespace or "default", one.metadata.name): one for one in self._all(CLAIMS)}

    @derived
    def templates(self) -> dict[tuple[str, str], ResourceClaimTemplateDocument]:
        """All ResourceClaimTemplates by namespace and name."""
        return {(one.metadata.namespace or "default", one.metadata.name): one for one in self._all(TEMPLATES)}

    @derived
    def taken(self) -> dict[tuple[str, str, str], Holder]:
        """Who has which device of NVIDIA's drivers; an administrator's access takes nothing."""
        found: dict[tuple[str, str, str], Holder] = {}
        for (namespace, name), claim in need(self.claims).items():
            allocation = claim.status.allocation
            for one in (allocation.devices.results or ()) if allocation is not None else ():
                if one.driver in DRIVERS and not one.admin_access:
                    users = (one for one in claim.status.reserved_for or () if one.resource == "pods")
                    names = tuple(f"pod {namespace}/{user.name}" for user in users)
                    found[one.driver, one.pool, one.device] = Holder(f"{namespace}/{name}", names)
        return found

    def holders(self, node: str) -> Reading[tuple[Holder, ...]]:
        """Return who has devices of a node."""

        def derive() -> tuple[Holder, ...]:
            pools = need(self.pools_by_node).get(node, ())
            keys = (device.key for pool in pools for device in pool.devices)
            return tuple(need(self.taken)[key] for key in keys if key in need(self.taken))

        return attempt(derive)

    def concerns(self, request: ExactRequest) -> bool:
        """Tell whether a request is for NVIDIA's devices: by its class, its class's selectors, or its own.

        Raises:
            GapError: the classes could not be listed; call it inside a derivation.
        """
        name = request.device_class_name
        if _names_nvidia(name) or any(map(_names_nvidia, texts(request.selectors or ()))):
            return True
        found = need(self.classes).get(name)
        return found is not None and _is_nvidias(found)

    @derived
    def absent(self) -> tuple[Absent, ...]:
        """The GPU nodes that no kubelet plugin of the driver selects, and that nothing else serves.

        Left out: nodes that a person keeps it off by label, and nodes where a device plugin or the node's image serves.
        """
        plugins = need(self.plugins)
        found = []
        for node in need(self.cluster.gpu_nodes) if plugins else ():
            why = [need(one.rejection(node, conditions=False)) for one in plugins]
            first = next((one for one in why if one is not None), None)
            if None in why or first is None or kept_off(need(node.labels), first.keys) is not None:
                continue
            if not self._is_served_otherwise(node):
                found.append(Absent(node.name, str(first), first.keys))
        return tuple(found)

    def _is_served_otherwise(self, node: "Node") -> bool:
        if any(need(node.allocatable).values()):
            return True
        plugins = need(self.cluster.stack.device_plugins)
        return any(need(one.rejection(node, conditions=False)) is None for one in plugins)

    def gpu_half_on(self, node: "Node") -> Reading[bool]:
        """Return whether the half of the driver that gives out GPUs is meant to run on a node."""
        return attempt(
            lambda: any(
                GPU_DRIVER in halves_of(need(one.object).spec.template.spec)
                and need(one.rejection(node, conditions=False)) is None
                for one in need(self.plugins)
            )
        )

    def _all(self, kind: str) -> tuple[Any, ...]:
        """Return a kind's objects; one that cannot be read makes it missing, for it might be what is looked for."""
        items = need(self.cluster.items(kind))
        for bad in items.bad if items is not None else ():
            source = f"cluster/{kind}.json"
            need(Missing(MissingKind.UNPARSABLE, f"{kind.partition('.')[0]} '{bad.name}': {bad.reason}", source))
        return items.good if items is not None else ()


def _pool(driver: str, name: str, slices: list[ResourceSliceDocument]) -> Pool:
    newest = max(one.spec.pool.generation for one in slices)
    mine = [one for one in slices if one.spec.pool.generation == newest]
    return Pool(
        driver=driver,
        name=name,
        node=mine[0].spec.node_name,
        generation=newest,
        published=len(mine),
        wanted=mine[0].spec.pool.resource_slice_count,
        devices=tuple(
            Device(driver, name, device.name, one.spec.node_name, device.body)
            for one in sorted(mine, key=lambda one: one.metadata.name)
            for device in one.spec.devices or ()
        ),
    )


def _incomplete(pool: Pool) -> Missing:
    return Missing(MissingKind.ERROR, f"{pool.problem}; the driver is publishing it anew", f"cluster/{SLICES}.json")


def _names_nvidia(text: str) -> bool:
    return "nvidia.com" in text


def _is_nvidias(document: DeviceClassDocument) -> bool:
    return _names_nvidia(document.metadata.name) or any(map(_names_nvidia, texts(document.spec.selectors or ())))


def halves_of(spec: PodSpec) -> frozenset[str]:
    """Return which halves of the driver a pod runs: by its containers' programs, else by their names."""
    return frozenset(half for one in spec.containers if (half := _half(one)) is not None)


def _half(container: Container) -> str | None:
    if component_of(container) is not Component.DRA_KUBELET_PLUGIN:
        return None
    words = " ".join((*(container.command or ()), *(container.args or ())))
    found = next((half for half, program in _PROGRAMS.items() if program in words), None)
    return found or _CONTAINERS.get(container.name)


def runs_imex(spec: PodSpec) -> bool:
    """Tell whether a kubelet plugin runs IMEX daemons of its own, so that the host's must not run.

    It does by default, and not where it is told to use the host's (IMEX_MODE=hostManaged, from 0.5 on). Source:
    dra-driver-nvidia-gpu, deployments/helm, resources.computeDomains.imex.mode.
    """
    for container in spec.containers:
        if _half(container) == DOMAIN_DRIVER:
            return all(one.value != "hostManaged" for one in container.env or () if one.name == "IMEX_MODE")
    return False


def unlisted(node: "Node") -> Reading[tuple[GpuIdentity, ...]]:
    """Return the GPUs of a node, by PCI bus and NVML, for which no device of its ResourceSlices stands."""

    def derive() -> tuple[GpuIdentity, ...]:
        pools = need(node.cluster.dra.gpu_pools(node))
        listed = frozenset(word.lower() for pool in pools for one in pool.devices for word in one.stands_for)
        return tuple(gpu.identity for gpu in need(node.gpus) if listed.isdisjoint(_words(gpu.identity)))

    return attempt(derive)


def strangers(node: "Node") -> Reading[tuple[Device, ...]]:
    """Return the devices of a node's ResourceSlices that stand for GPUs which the node does not have."""

    def derive() -> tuple[Device, ...]:
        here = frozenset(word for gpu in need(node.gpus) for word in _words(gpu.identity))
        devices = [one for pool in need(node.cluster.dra.gpu_pools(node)) for one in pool.devices]
        return tuple(one for one in devices if one.stands_for and here.isdisjoint(map(str.lower, one.stands_for)))

    return attempt(derive)


def _words(gpu: GpuIdentity) -> frozenset[str]:
    return frozenset(word.lower() for word in (gpu.uuid, gpu.address) if word)

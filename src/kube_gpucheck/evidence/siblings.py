"""Nodes of one kind side by side: how many GPUs, of which product, memory and driver, most of them have.

Worked out once, in one pass over the GPU nodes; of each node a few words are kept. Judges nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from kube_gpucheck.evidence.fleet import driver_version, instance_type, products
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.model import Missing, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node

T = TypeVar("T")

_POOLS: Final = (
    "cloud.google.com/gke-nodepool",
    "cloud.google.com/gke-accelerator",
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "kubernetes.azure.com/agentpool",
    "doks.digitalocean.com/node-pool",
)
"""Labels by which providers tell pools of nodes. Source: GKE, EKS, Karpenter, AKS, DOKS documentation of node labels.

A machine type of GKE's says nothing of the accelerators beside it, so its label of those counts as one.
"""
_GKE_CLIENTS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"


class Kind(msgspec.Struct, frozen=True):
    """What makes nodes siblings. `words`: the labels, in a reader's words.

    `is_told`: an instance type or a pool says so; else only the chassis, which is sold with other GPUs and numbers of
    them too, so that `product` is part of the kind (empty where the kind is told).
    """

    words: str
    is_told: bool
    product: str = ""


class Traits(msgspec.Struct, frozen=True):
    """What a node has, each with how it is known; a field is seen as None where nothing tells."""

    kind: Kind
    count: Reading[int | None]
    product: Reading[str | None]
    memory_mib: Reading[int | None]
    driver: Reading[str | None]


class Most(msgspec.Struct, Generic[T], frozen=True):
    """The value that most nodes of a kind have: on how many nodes, and how many tell."""

    value: T
    nodes: int
    of: int


class Usual(msgspec.Struct, frozen=True):
    """What most nodes of a kind have; None where no node tells. `nodes`: how many there are of the kind."""

    nodes: int
    count: Most[int] | None
    product: Most[str] | None
    memory_mib: Most[int] | None
    driver: Most[str] | None


def kind_of(node: "Node") -> Reading[Kind | None]:
    """Return what kind of node this is, None where no label tells. Source: labels of Kubernetes, providers and GFD."""

    def derive() -> Kind | None:
        labels = need(node.labels)
        told = {key: labels[key] for key in _POOLS if labels.get(key)}
        kind = instance_type(labels)
        if kind is not None:
            told = {"node.kubernetes.io/instance-type": kind, **told}
        chassis = labels.get("nvidia.com/gpu.machine", "unknown")
        words = [f"{key}={value}" for key, value in told.items()]
        if told:
            return Kind(", ".join(words), is_told=True)
        if chassis in {"unknown", ""}:
            return None
        names = need(products(node))
        return Kind(f"nvidia.com/gpu.machine={chassis}", is_told=False, product=" + ".join(names))

    return attempt(derive)


def _traits(node: "Node") -> Reading[Traits | None]:
    kind = kind_of(node)
    if isinstance(kind, Missing):
        return kind
    if kind.value is None:
        return Seen(None)
    traits = Traits(
        kind.value,
        count=attempt(lambda: _count(node)),
        product=attempt(lambda: " + ".join(need(products(node))) or None),
        memory_mib=memory_mib(node),
        driver=driver_version(node),
    )
    return Seen(traits)


def _count(node: "Node") -> int | None:
    """Return how many GPUs a node has: by bus and NVML, else by GFD's label, else by capacity; None if none tells."""
    gpus = node.gpus
    if not is_not_asked(gpus):
        return len(need(gpus)) or None
    labels = need(node.labels)
    told = labels.get("nvidia.com/gpu.count", "")
    if told.isdigit():
        return None if _is_of_parts(labels) else int(told) or None
    offered = need(node.capacity).get("nvidia.com/gpu", 0)
    if not offered or need(node.plugin.is_partitioned):
        return None
    if need(node.plugin.is_provider):
        clients = labels.get(_GKE_CLIENTS, "1")
        return offered // max(int(clients), 1) if clients.isdigit() else None
    config = need(node.plugin.config)
    shared = config.sharing.of("nvidia.com/gpu")
    return None if config.mig_strategy == "single" else offered // (shared.replicas if shared else 1) or None


def memory_mib(node: "Node") -> Reading[int | None]:
    """Return the memory of a node's smallest GPU in MiB, by NVML, else by GFD's label; None if neither tells."""
    return attempt(lambda: _memory(node))


def _memory(node: "Node") -> int | None:
    gpus = node.gpus
    if not is_not_asked(gpus):
        told = [node.driver.memory(gpu.identity) for gpu in need(gpus) if gpu.identity.index is not None]
        sizes = [one.total_mib for one in map(need, told) if one is not None]
        return min(sizes, default=None)
    labels = need(node.labels)
    size = labels.get("nvidia.com/gpu.memory", "")
    return int(size) or None if size.isdigit() and not _is_of_parts(labels) else None


def _is_of_parts(labels: Mapping[str, str]) -> bool:
    """Tell whether GFD's labels describe MIG devices in place of GPUs (strategy single)."""
    return "-MIG-" in labels.get("nvidia.com/gpu.product", "")


class Siblings:
    """The GPU nodes of one cluster, by kind."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self._cluster = cluster

    @derived
    def traits(self) -> dict[str, Reading[Traits | None]]:
        """What each GPU node has, by its name; None where no label tells of what kind it is."""
        return {node.name: _traits(node) for node in need(self._cluster.gpu_nodes)}

    @derived
    def usual(self) -> dict[Kind, Usual]:
        """What most nodes of each kind have; a node that does not tell has no part in it."""
        found: dict[Kind, list[Traits]] = defaultdict(list)
        for reading in need(self.traits).values():
            traits = _seen(reading)
            if traits is not None:
                found[traits.kind].append(traits)
        return {
            kind: Usual(
                len(nodes),
                count=_most(_seen(one.count) for one in nodes),
                product=_most(_seen(one.product) for one in nodes),
                memory_mib=_most(_seen(one.memory_mib) for one in nodes),
                driver=_most(_seen(one.driver) for one in nodes),
            )
            for kind, nodes in found.items()
        }


def _seen(reading: Reading[T | None]) -> T | None:
    return None if isinstance(reading, Missing) else reading.value


def _most(values: Iterable[T | None]) -> Most[T] | None:
    told = [one for one in values if one is not None]
    return Most(*Counter(told).most_common(1)[0], len(told)) if told else None

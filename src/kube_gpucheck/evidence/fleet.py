"""What the GPU nodes of a cluster have in common: drivers and NVLinks by product. Worked out once, in one pass.

A host of its own is a cluster of one node. Of each node little is kept, for the nodes themselves are let go.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node

_SUFFIX: Final = re.compile(r"-(?:SHARED|MIG-\S{1,40})$")


class Kind(msgspec.Struct, frozen=True):
    """A product in one kind of machine, as GFD writes the product (`NVIDIA-H200`)."""

    product: str
    machine: str


class Link(msgspec.Struct, frozen=True):
    """How many NVLinks of one GPU are active."""

    node: str
    gpu: str
    active: int


def driver_version(node: "Node") -> Reading[str | None]:
    """Return the version of a node's loaded driver, None if none is loaded; from the host, else from GFD's labels.

    Source: `Driver.module_version`; nvidia.com/cuda.driver-version.full, or cuda.driver.{major,minor,rev}.
    """
    version = node.driver.module_version
    if not is_not_asked(version):
        return version
    labels = node.labels
    if isinstance(labels, Missing):
        return version
    told = labels.value.get("nvidia.com/cuda.driver-version.full")
    if told is None:
        parts = [labels.value.get(f"nvidia.com/cuda.driver.{part}", "") for part in ("major", "minor", "rev")]
        told = ".".join(part for part in parts if part) if parts[0] and parts[1] else None
    return version if told is None or not _VERSION.fullmatch(told) else Seen(told)


_VERSION: Final = re.compile(r"\d{3,4}(?:\.\d{1,4}){1,3}")


def products(node: "Node") -> Reading[tuple[str, ...]]:
    """Return the products of a node's GPUs, as GFD writes them, each once, in order; from NVML, else from the label.

    Source: nvmlDeviceGetName, else nvidia.com/gpu.product without what sharing adds to it.
    """
    starts = node.driver.nvml_init_code
    names = attempt(lambda: _named(node))
    if not is_not_asked(names) and not (isinstance(starts, Seen) and starts.value != 0):
        return names
    labels = node.labels
    label = None if isinstance(labels, Missing) else labels.value.get("nvidia.com/gpu.product")
    return names if label is None else Seen((_SUFFIX.sub("", label),))


def _named(node: "Node") -> tuple[str, ...]:
    names = (need(gpu.health.product) for gpu in need(node.gpus) if gpu.identity.index is not None)
    return tuple(sorted({one.replace(" ", "-") for one in names if one}))


def instance_type(labels: Mapping[str, str]) -> str | None:
    """Return a node's instance type where it stands for a kind of machine, None where it does not or there is none.

    K3s and RKE2 write their own name there, vSphere writes processors and memory. Source: k3s pkg/cloudprovider
    (instances.go); cloud-provider-vsphere pkg/cloudprovider/vsphere (instances.go).
    """
    told = labels.get("node.kubernetes.io/instance-type") or None
    return None if told in {"k3s", "rke2"} or (told or "").startswith("vsphere-vm.") else told


def machine(node: "Node") -> str:
    """Return what kind of machine a node is, empty where no label tells. Source: instance type, else GFD's machine."""
    labels = node.labels
    if isinstance(labels, Missing):
        return ""
    chassis = labels.value.get("nvidia.com/gpu.machine", "unknown")
    return instance_type(labels.value) or ("" if chassis == "unknown" else chassis)


class Fleet:
    """The GPU nodes of one cluster, side by side."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self._cluster = cluster

    @derived
    def drivers(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The nodes by product and driver version; nodes of which neither was asked are left out.

        A node with GPUs of several products stands under each. Missing where what was asked of a node is.
        """
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        unasked: Missing | None = None
        for node in need(self._cluster.gpu_nodes):
            version, names = driver_version(node), products(node)
            gap = next((one for one in (version, names) if isinstance(one, Missing)), None)
            if gap is not None and gap.kind is MissingKind.NOT_ASKED:
                unasked = unasked or gap
                continue
            told = need(version)
            for name in need(names) if told is not None else ():
                found[name][told or ""].append(node.name)
        if not found and unasked is not None:
            need(unasked)
        return {name: {one: tuple(nodes) for one, nodes in told.items()} for name, told in found.items()}

    @derived
    def links(self) -> dict[Kind, tuple[Link, ...]]:
        """The GPUs with NVLinks, by kind, as far as their nodes tell; a GPU that does not say has no part in it."""
        found: dict[Kind, list[Link]] = defaultdict(list)
        for node in need(self._cluster.gpu_nodes):
            gpus = node.gpus
            for gpu in gpus.value if isinstance(gpus, Seen) else ():
                product, links = gpu.health.product, gpu.health.nvlinks
                if isinstance(product, Seen) and isinstance(links, Seen) and product.value and links.value:
                    link = Link(node.name, gpu.name, sum(links.value))
                    found[Kind(product.value.replace(" ", "-"), machine(node))].append(link)
        return {kind: tuple(links) for kind, links in found.items()}

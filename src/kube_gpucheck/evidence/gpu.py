"""One GPU of a node, as the PCI bus and NVML know it."""

from typing import TYPE_CHECKING

import msgspec

from kube_gpucheck.model import Subject, SubjectKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.health import Health
    from kube_gpucheck.evidence.node import Node


class GpuIdentity(msgspec.Struct, frozen=True):
    """How one GPU is known.

    `address`: PCI address as the kernel writes it (`0000:02:00.0`), None if only NVML lists it.
    `index`: NVML's index, None if NVML does not list it. `uuid`: `GPU-…`, None if not known.
    """

    address: str | None
    index: int | None = None
    uuid: str | None = None


class Gpu:
    """One GPU."""

    def __init__(self, node: "Node", identity: GpuIdentity) -> None:
        """Keep node and identity."""
        self.node = node
        self.identity = identity
        self.name = identity.address or identity.uuid or f"NVML index {identity.index}"
        self.subject = Subject(SubjectKind.GPU, self.name, node=node.name)

    @property
    def health(self) -> "Health":
        """What NVML says of this GPU's health."""
        return self.node.driver.health(self.identity)

    @property
    def cluster(self) -> "Cluster":
        """The cluster that the node belongs to."""
        return self.node.cluster

"""One pod: what it asks for, where it is, how its containers fare."""

from functools import cached_property
from typing import TYPE_CHECKING

from kube_gpucheck.evidence.documents import Container, ContainerStatus, EventDocument, PodDocument
from kube_gpucheck.evidence.node import GPU_RESOURCE, Node
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen, Subject, SubjectKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster


class Pod:
    """One pod."""

    def __init__(self, cluster: "Cluster", namespace: str, name: str, document: Reading[PodDocument]) -> None:
        """Keep the object."""
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.object = document

    @cached_property
    def subject(self) -> Subject:
        """The pod's name, with the node that it is bound to."""
        return Subject(SubjectKind.POD, self.name, namespace=self.namespace, node=self.node_name)

    @property
    def node_name(self) -> str | None:
        """The node that it is bound to, None if it is not scheduled or its object is malformed."""
        return self.object.value.spec.node_name if isinstance(self.object, Seen) else None

    @property
    def node(self) -> Node | None:
        """The node that it is bound to, None if it is not scheduled or the node is not in the evidence."""
        return self.cluster.node_of(self.node_name) if self.node_name else None

    @derived
    def containers(self) -> tuple[Container, ...]:
        """Init containers, then containers."""
        spec = need(self.object).spec
        return (*(spec.init_containers or ()), *spec.containers)

    @derived
    def statuses(self) -> tuple[ContainerStatus, ...]:
        """Statuses of init containers, then of containers; empty until the kubelet has seen the pod."""
        status = need(self.object).status
        return (*(status.init_container_statuses or ()), *(status.container_statuses or ()))

    @derived
    def gpu_request(self) -> dict[str, int]:
        """GPU resources that it asks for: the sum over containers, or the largest init container if that is more.

        Extended resources have limits equal to requests; either spelling counts. Names are kept as
        written, misspelled ones in the NVIDIA domain too. Source: Kubernetes, "Init containers: resources".
        """
        spec = need(self.object).spec
        total: dict[str, int] = {}
        for container in spec.containers:
            for name, count in gpu_resources(container).items():
                total[name] = total.get(name, 0) + count
        for container in spec.init_containers or ():
            for name, count in gpu_resources(container).items():
                total[name] = max(total.get(name, 0), count)
        return {name: count for name, count in total.items() if count}

    @derived
    def is_finished(self) -> bool:
        """Whether it has ended, well or badly, so that it holds nothing any more."""
        return need(self.object).status.phase in {"Succeeded", "Failed"}

    @derived
    def runs_with_gpu(self) -> bool:
        """Whether it runs and holds a GPU of the device plugin: what it asks for was granted when it was admitted."""
        return need(self.object).status.phase == "Running" and bool(need(self.gpu_request))

    @derived
    def reached_node(self) -> Node:
        """The node that it is bound to; missing where the evidence has no such node."""
        need(self.cluster.nodes)
        node = self.node
        if node is None:
            reason = f"pod '{self.namespace}/{self.name}': no node '{self.node_name}' in the evidence"
            raise GapError(Missing(MissingKind.ERROR, reason, "cluster/nodes.json"))
        return node

    @derived
    def is_ready(self) -> bool:
        """Whether its Ready condition is True."""
        return any(one.type == "Ready" and one.status == "True" for one in need(self.object).status.conditions or ())

    @derived
    def restarts(self) -> int:
        """Restarts of all its containers together."""
        return sum(status.restart_count for status in need(self.statuses))

    @derived
    def events(self) -> tuple[EventDocument, ...]:
        """The events about it, oldest first."""
        return need(self.cluster.events("Pod", self.namespace, self.name))

    def log(self, container: str, *, previous: bool = False) -> Reading[str]:
        """Return a container's log, or that of its previous run."""
        return self.cluster.bundle.log(self.namespace, self.name, container, previous=previous)

    def environment(self, container: Container, name: str) -> str | None:
        """Return a variable's literal value, None if it is not set or is taken from elsewhere."""
        return next((one.value for one in container.env or () if one.name == name), None)


def gpu_resources(container: Container) -> dict[str, int]:
    """Return what one container asks for in the NVIDIA domain, as counts."""
    asked: dict[str, int] = {}
    for source in (container.resources.requests, container.resources.limits):
        for name, quantity in (source or {}).items():
            if GPU_RESOURCE.fullmatch(name) or name.startswith("nvidia.com/"):
                asked[name] = whole(quantity)
    return asked

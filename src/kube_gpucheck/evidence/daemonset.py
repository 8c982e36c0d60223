"""One DaemonSet: what it is, which nodes it selects, how its pods fare."""

from functools import cached_property
from typing import TYPE_CHECKING

from kube_gpucheck.evidence.documents import Container, DaemonSetDocument, EventDocument
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.scheduling import Rejection, rejection, selection
from kube_gpucheck.evidence.stack import Component, recognise
from kube_gpucheck.model import Missing, Reading, Subject, SubjectKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod


class DaemonSet:
    """One DaemonSet."""

    def __init__(self, cluster: "Cluster", namespace: str, name: str, document: Reading[DaemonSetDocument]) -> None:
        """Keep the object."""
        self.cluster = cluster
        self.namespace = namespace
        self.name = name
        self.object = document
        self.subject = Subject(SubjectKind.DAEMONSET, name, namespace=namespace)
        self._rejections: dict[tuple[object, ...], Reading[Rejection | None]] = {}

    @cached_property
    def component(self) -> Component | None:
        """What it is of the GPU stack, None if it is none of it or its object is malformed."""
        found = self._component
        return None if not hasattr(found, "value") else found.value

    @derived
    def _component(self) -> Component | None:
        return recognise(need(self.object).spec.template.spec)

    @derived
    def containers(self) -> tuple[Container, ...]:
        """Init containers, then containers, of the template."""
        spec = need(self.object).spec.template.spec
        return (*(spec.init_containers or ()), *spec.containers)

    @derived
    def main_container(self) -> Container:
        """The container that does the component's work (not a sidecar), else the first."""
        spec = need(self.object).spec.template.spec
        component = self.component
        mine = [one for one in spec.containers if component is not None and component.is_main(one)]
        return (mine or list(spec.containers))[0]

    @derived
    def pods(self) -> "tuple[Pod, ...]":
        """Its pods, by controlling owner; missing where one of its pods is malformed."""
        for pod in need(self.cluster.malformed_pods):
            if self.names(pod):
                need(pod.outline)
        return need(self.cluster.pods_by_owner).get(need(self.object).metadata.uid, ())

    def names(self, pod: "Pod") -> bool:
        """Tell whether a pod whose owner cannot be read is one of its pods: their names are its own and a word."""
        own, _, word = pod.name.rpartition("-")
        return pod.namespace == self.namespace and own == self.name and bool(word)

    @derived
    def events(self) -> tuple[EventDocument, ...]:
        """The events about it, oldest first."""
        return need(self.cluster.events("DaemonSet", self.namespace, self.name))

    def rejection(self, node: "Node", *, taints: bool = True, conditions: bool = True) -> Reading[Rejection | None]:
        """Return why its pods may not run on a node, None if they may (selector, affinity, taints).

        Worked out once for all nodes that are alike in what its template asks for.
        """
        if isinstance(self.object, Missing) or isinstance(node.object, Missing):
            return rejection(self.object, node, taints=taints, conditions=conditions)
        document = node.object.value
        labels = document.metadata.labels or {}
        alike = (
            taints,
            conditions,
            node.name if self._names_nodes else None,
            tuple(labels.get(key) for key in self._selection),
            (document.spec.unschedulable, document.spec.taints) if taints else None,
        )
        if alike not in self._rejections:
            self._rejections[alike] = rejection(self.object, node, taints=taints, conditions=conditions)
        return self._rejections[alike]

    @cached_property
    def _selection(self) -> tuple[str, ...]:
        return selection(need(self.object).spec.template.spec)

    @cached_property
    def _names_nodes(self) -> bool:
        """Whether its template asks for nodes by name."""
        spec = need(self.object).spec.template.spec
        affinity = spec.affinity.node_affinity if spec.affinity else None
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        return bool(spec.node_name) or any(
            term.match_fields for term in (required.node_selector_terms if required else ())
        )

    def selects(self, node: "Node") -> Reading[Rejection | None]:
        """Return why its selector or affinity excludes a node, None if it does not; taints are not looked at."""
        return self.rejection(node, taints=False)

"""Which subjects concern each other: the one function by which findings are joined."""

from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.daemonset import DaemonSet
from kube_gpucheck.evidence.pod import Pod
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.evidence.scheduling import reject
from kube_gpucheck.model import Missing, Seen, Subject, SubjectKind


class Relations:
    """Answers `related` for the subjects of one cluster. Symmetric and reflexive."""

    def __init__(self, cluster: Cluster) -> None:
        """Index DaemonSets and pods by name."""
        self.cluster = cluster
        daemonsets, pods = cluster.daemonsets, cluster.seen_pods
        self._daemonsets = (
            {(one.namespace, one.name): one for one in daemonsets.value} if isinstance(daemonsets, Seen) else {}
        )
        seen = pods.value if isinstance(pods, Seen) else ()
        self._pods = {(one.namespace, one.name): one for one in seen if one.is_known}
        gpu_nodes = cluster.gpu_nodes
        self._gpu_nodes = (
            frozenset(node.name for node in gpu_nodes.value) if isinstance(gpu_nodes, Seen) else frozenset()
        )
        self._allowed: dict[tuple[bytes, str], bool] = {}
        self._wants: dict[Subject, bytes] = {}
        self._by_node: dict[DaemonSet, Mapping[str | None, list[Pod]]] = {}

    @property
    def gpu_nodes(self) -> frozenset[str]:
        """The names of the GPU nodes; empty where they could not be told."""
        return self._gpu_nodes

    def daemonset(self, subject: Subject) -> DaemonSet | None:
        """Return the DaemonSet of that subject."""
        return self._daemonsets.get((subject.namespace or "", subject.name))

    def pod(self, subject: Subject) -> Pod | None:
        """Return the pod of that subject."""
        return self._pods.get((subject.namespace or "", subject.name))

    def related(self, one: Subject, other: Subject) -> bool:
        """Tell whether two subjects concern each other (DESIGN.md, "Relations")."""
        if one == other or SubjectKind.CLUSTER in {one.kind, other.kind}:
            return True
        return self._reaches(one, other) or self._reaches(other, one)

    def _reaches(self, one: Subject, other: Subject) -> bool:
        if other.kind is SubjectKind.NODE:
            match one.kind:
                case SubjectKind.GPU | SubjectKind.TARGET:
                    return one.node == other.name
                case SubjectKind.POD:
                    return one.node == other.name if one.node is not None else self._may_land(one, other)
                case SubjectKind.DAEMONSET:
                    return other.name in self._gpu_nodes
                case SubjectKind.NODE | SubjectKind.CLUSTER:
                    return False
        if one.kind is SubjectKind.DAEMONSET and other.kind is SubjectKind.POD:
            return self._owns(one, other)
        return False

    def _owns(self, one: Subject, other: Subject) -> bool:
        daemonset, pod = self.daemonset(one), self.pod(other)
        if daemonset is None or pod is None:
            return False
        if isinstance(daemonset.object, Missing) or isinstance(pod.outline, Missing):
            return False
        return daemonset.object.value.metadata.uid in pod.outline.value.controllers

    def pods_on(self, daemonset: DaemonSet, nodes: Collection[str]) -> tuple[Pod, ...]:
        """Return a DaemonSet's pods on these nodes, and those on none, in order of name.

        Raises:
            GapError: they could not be listed; call it inside a derivation.
        """
        if daemonset not in self._by_node:
            by_node: dict[str | None, list[Pod]] = defaultdict(list)
            for pod in need(daemonset.pods):
                by_node[pod.node_name].append(pod)
            self._by_node[daemonset] = by_node
        known = self._by_node[daemonset]
        found = [pod for name in (None, *nodes) for pod in known.get(name, ())]
        return tuple(sorted(found, key=lambda pod: pod.name))

    def _may_land(self, one: Subject, other: Subject) -> bool:
        pod, node = self.pod(one), self.cluster.node_of(other.name)
        if pod is None or node is None:
            return False
        key = (self._wanted(one, pod), other.name)
        if key not in self._allowed:
            answer = attempt(lambda: reject(need(pod.object).spec, node, tolerations=(), taints=False))
            self._allowed[key] = not isinstance(answer, Missing) and answer.value is None
        return self._allowed[key]

    def _wanted(self, subject: Subject, pod: Pod) -> bytes:
        """Return by what a pod selects nodes; the replicas of one workload select alike."""
        if subject not in self._wants:
            spec = pod.object.value.spec if isinstance(pod.object, Seen) else None
            wants = (spec.node_name, spec.node_selector, spec.affinity) if spec is not None else ()
            self._wants[subject] = msgspec.json.encode(wants)
        return self._wants[subject]

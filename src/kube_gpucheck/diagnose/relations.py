"""Which subjects concern each other: the one function by which findings are joined."""

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
        daemonsets, pods = cluster.daemonsets, cluster.readable_pods
        self._daemonsets = (
            {(one.namespace, one.name): one for one in daemonsets.value} if isinstance(daemonsets, Seen) else {}
        )
        self._pods = {(one.namespace, one.name): one for one in pods.value} if isinstance(pods, Seen) else {}
        gpu_nodes = cluster.gpu_nodes
        self._gpu_nodes = (
            frozenset(node.name for node in gpu_nodes.value) if isinstance(gpu_nodes, Seen) else frozenset()
        )
        self._allowed: dict[tuple[str, str, str], bool] = {}

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
        pods = daemonset.pods
        return isinstance(pods, Seen) and pod in pods.value

    def _may_land(self, one: Subject, other: Subject) -> bool:
        key = (one.namespace or "", one.name, other.name)
        if key not in self._allowed:
            pod, node = self.pod(one), self.cluster.node_of(other.name)
            if pod is None or node is None:
                self._allowed[key] = False
            else:
                answer = attempt(lambda: reject(need(pod.object).spec, node, tolerations=(), taints=False))
                self._allowed[key] = not isinstance(answer, Missing) and answer.value is None
        return self._allowed[key]

"""The surroundings of one subject, in which a cause's signs are looked for."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Final

from kube_gpucheck.diagnose.catalogue import Sign
from kube_gpucheck.diagnose.journal import Heard, Journal
from kube_gpucheck.diagnose.judgements import Judgements
from kube_gpucheck.evidence import Cluster, Component, DaemonSet, Node, Pod
from kube_gpucheck.evidence.access import in_a_role, refused, rules_to_read
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen, Subject, SubjectKind

COMPONENTS: Final = {
    "device-plugin": (Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN),
    "gfd": (Component.GFD,),
    "nfd-worker": (Component.NFD_WORKER,),
    "dcgm-exporter": (Component.DCGM_EXPORTER,),
    "mps-control-daemon": (Component.MPS_CONTROL_DAEMON,),
    "driver": (Component.DRIVER,),
    "toolkit": (Component.TOOLKIT,),
    "validator": (Component.VALIDATOR,),
    "mig-manager": (Component.MIG_MANAGER,),
    "dra-kubelet-plugin": (Component.DRA_KUBELET_PLUGIN,),
}
"""What a log sign may name, beside `pod` (the subject's own pods) and the node's units."""
UNITS: Final = ("kernel", "containerd", "kubelet", "nvidia-container-runtime")

_NOT_ASKED: Final = Missing(MissingKind.NOT_ASKED, "no log of the pod was asked for", "cluster/logs")


class Context:
    """One subject, and what can be reached from it."""

    def __init__(
        self,
        subject: Subject,
        cluster: Cluster,
        judgements: Judgements,
        journal: Journal,
        *,
        among: tuple[str, ...] | None = None,
    ) -> None:
        """Keep the subject, and the names of those of its nodes that are looked at, if not all are."""
        self.subject = subject
        self.spoken: dict[Sign, Reading[bool]] = {}
        self.among = among
        self._journal = journal
        self._heard: dict[str, Heard] = {}
        self._messages: dict[str, tuple[tuple[tuple[str, str], ...], Missing | None]] = {}
        self.cluster = cluster
        self.judgements = judgements

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes it concerns: its own; for the cluster and a DaemonSet the GPU nodes, of them those looked at."""
        if self.subject.node is not None:
            node = self.cluster.node_of(self.subject.node)
            return (node,) if node else ()
        gpu_nodes = self.cluster.gpu_nodes
        every = gpu_nodes.value if isinstance(gpu_nodes, Seen) else ()
        wanted = self.judgements.relations.gpu_nodes.intersection(self.among or ())
        named = (self.cluster.node_of(name) for name in self.among or () if name in wanted)
        return tuple(node for node in named if node is not None) or every

    @cached_property
    def node(self) -> Node | None:
        """The first node it concerns."""
        return self.nodes[0] if self.nodes else None

    @cached_property
    def distribution(self) -> str:
        """What brings the engine of its nodes (`rke2`, `k3s`, `plain`, …); `plain` where that cannot be told.

        Every node must agree, for a remedy is said once; the cluster's nodes speak for a subject without one.
        """
        nodes = self.nodes or (self.cluster.nodes.value if isinstance(self.cluster.nodes, Seen) else ())
        readings = [node.runtime.distribution_name for node in nodes]
        found = {reading.value for reading in readings if isinstance(reading, Seen)}
        return found.pop() if len(found) == 1 else "plain"

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What the words NODE, NAMESPACE, RELEASE and RULES of a remedy stand for here; one in doubt is left out.

        NODE only where the subject has one node. NAMESPACE and RELEASE are those of the subject, else of the one
        device plugin; a Helm release is the label `app.kubernetes.io/instance`. RULES are those of a role that would
        have allowed what the API server refused.
        """
        found: dict[str, str] = {}
        lacking = refused(self.cluster.bundle.manifest.missing)
        if lacking:
            found["RULES"] = in_a_role(rules_to_read(lacking))
        if len(self.nodes) == 1:
            found["NODE"] = self.nodes[0].name
        plugins = self.cluster.stack.device_plugins
        mine = (
            [self.daemonset] if self.daemonset is not None else list(plugins.value) if isinstance(plugins, Seen) else []
        )
        if self.subject.namespace is not None:
            found["NAMESPACE"] = self.subject.namespace
        elif len(mine) == 1:
            found["NAMESPACE"] = mine[0].namespace
        if len(mine) == 1 and isinstance(mine[0].object, Seen):
            release = (mine[0].object.value.metadata.labels or {}).get("app.kubernetes.io/instance")
            if release:
                found["RELEASE"] = release
        return found

    @cached_property
    def stack_names(self) -> Mapping[str, str]:
        """The same for a remedy on the GPU stack: NAMESPACE is the device plugin's, not that of a pod which suffers."""
        found = dict(self.names)
        plugins = self.cluster.stack.device_plugins
        if self.subject.kind is SubjectKind.POD:
            found.pop("NAMESPACE", None)
            if isinstance(plugins, Seen) and len(plugins.value) == 1:
                found["NAMESPACE"] = plugins.value[0].namespace
        return found

    @cached_property
    def pod(self) -> Pod | None:
        """The pod, if the subject is one."""
        return self.judgements.relations.pod(self.subject) if self.subject.kind is SubjectKind.POD else None

    @cached_property
    def daemonset(self) -> DaemonSet | None:
        """The DaemonSet, if the subject is one."""
        return self.judgements.relations.daemonset(self.subject) if self.subject.kind is SubjectKind.DAEMONSET else None

    @property
    def daemonsets(self) -> tuple[DaemonSet, ...]:
        """The DaemonSets it concerns: itself, else all of the GPU stack.

        Raises:
            GapError: they could not be listed.
        """
        if self.subject.kind is SubjectKind.DAEMONSET:
            return (self.daemonset,) if self.daemonset is not None else ()
        return need(self.cluster.stack.daemonsets)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """The pods it concerns: itself; a DaemonSet's on the nodes looked at; a node's; for the cluster every pod.

        Raises:
            GapError: they could not be listed.
        """
        match self.subject.kind:
            case SubjectKind.POD:
                return (self.pod,) if self.pod is not None else ()
            case SubjectKind.DAEMONSET:
                return self.pods_of(self.daemonset) if self.daemonset is not None else ()
            case SubjectKind.CLUSTER:
                return need(self.cluster.readable_pods)
            case SubjectKind.NODE | SubjectKind.GPU | SubjectKind.TARGET:
                return tuple(pod for node in self.nodes for pod in need(node.pods))

    def pods_of(self, daemonset: DaemonSet) -> tuple[Pod, ...]:
        """Return a DaemonSet's pods on the nodes looked at, or on the subject's own, else all of them.

        Raises:
            GapError: they could not be listed.
        """
        places = self.among or ((self.subject.node,) if self.subject.node is not None else ())
        return self.judgements.relations.pods_on(daemonset, places) if places else need(daemonset.pods)

    def component_pods(self, component: str) -> tuple[Pod, ...]:
        """Return the pods of a component on the nodes that the subject concerns.

        Raises:
            GapError: they could not be listed.
        """
        names = self.among or [node.name for node in self.nodes]
        relations = self.judgements.relations
        wanted = [one for one in need(self.cluster.stack.daemonsets) if one.component in COMPONENTS[component]]
        return tuple(pod for one in wanted for pod in relations.pods_on(one, names))

    def heard(self, component: str) -> Heard:
        """Return what the logs of a component say, those of the previous run too, or those of a node's unit.

        Raises:
            GapError: the pods could not be listed.
        """
        if component not in self._heard:
            self._heard[component] = Heard(self._logs(component))
        return self._heard[component]

    def _logs(self, component: str) -> Iterator[Reading[frozenset[str]]]:
        matched = self._journal.matched
        if component in UNITS:
            for node in self.nodes:
                yield matched((component, node.name), partial(_unit_log, node, component))
            return
        pods = self.pods if component == "pod" else self.component_pods(component)
        for pod in pods:
            if not self.cluster.bundle.has_logs_of(pod.namespace, pod.name):
                yield _NOT_ASKED
                continue
            for container in need(pod.containers):
                place = (component, pod.namespace, pod.name, container.name)
                yield matched(place, partial(pod.log, container.name))
                previous = matched((*place, "previous"), partial(pod.log, container.name, previous=True))
                if not isinstance(previous, Missing) or previous.kind is not MissingKind.NOT_ASKED:
                    yield previous

    def messages(self, component: str = "") -> Iterator[tuple[str, str]]:
        """Yield what `_said` does, each word once; it is asked for by every sign, and thousands of pods say the same.

        Raises:
            GapError: pods or events could not be listed; raised where what could be had has been yielded.
        """
        if component not in self._messages:
            said: dict[tuple[str, str], None] = {}
            missing: Missing | None = None
            try:
                for one in self._said(component):
                    said[one] = None
            except GapError as gap:
                missing = gap.missing
            self._messages[component] = (tuple(said), missing)
        found, missing = self._messages[component]
        yield from found
        if missing is not None:
            raise GapError(missing)

    def _said(self, component: str) -> Iterator[tuple[str, str]]:
        """Yield (reason, message) of the events and status messages that concern the subject, or a component's pods.

        What the objects themselves say comes first: it stands where no events were asked for or none are left.

        Raises:
            GapError: pods or events could not be listed; raised where what could be had has been yielded.
        """
        pods = tuple(self.component_pods(component) if component else self.pods)
        yield from self._said_by(pods)
        if not component:
            for node in self.nodes:
                if isinstance(node.object, Seen):
                    yield from (
                        (one.reason, one.message)
                        for one in node.object.value.status.conditions
                        if one.type == "Ready" and one.status != "True"
                    )
        for pod in pods:
            yield from ((event.reason, event.message) for event in need(pod.events))
        if component:
            return
        if self.subject.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET}:
            for daemonset in self.daemonsets:
                yield from ((event.reason, event.message) for event in need(daemonset.events))
        for node in self.nodes:
            yield from ((event.reason, event.message) for event in need(self.cluster.events("Node", "", node.name)))

    def _said_by(self, pods: Iterable[Pod]) -> Iterator[tuple[str, str]]:
        for pod in pods:
            if need(pod.outline).is_silent:
                continue
            status = need(pod.object).status
            yield status.reason, status.message
            yield from ((one.reason, one.message) for one in status.conditions or () if one.status != "True")
            for container in need(pod.statuses):
                for state in (container.state, container.last_state):
                    if state.waiting is not None:
                        yield state.waiting.reason, state.waiting.message
                    if state.terminated is not None:
                        yield state.terminated.reason, state.terminated.message


def _unit_log(node: Node, unit: str) -> Reading[str]:
    if unit != "kernel":
        return node.host.log(unit)
    command = node.host.command("dmesg")
    if isinstance(command, Missing):
        return command
    return Seen(command.value.text if command.value else "")

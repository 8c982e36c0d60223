"""The cluster as a whole: every list, decoded once, and the views of nodes, DaemonSets and pods.

What the lists mean layer by layer stands in the sections (`stack`, `runtime`, `deviceplugin`, …).
"""

import datetime
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from kube_gpucheck.evidence import documents
from kube_gpucheck.evidence.allocation import Offers
from kube_gpucheck.evidence.bundle import Bundle, DiscoveryRecord
from kube_gpucheck.evidence.computedomain import ComputeDomains
from kube_gpucheck.evidence.daemonset import DaemonSet
from kube_gpucheck.evidence.discovery import Discovery
from kube_gpucheck.evidence.dra import Dra
from kube_gpucheck.evidence.fleet import Fleet
from kube_gpucheck.evidence.labelling import Selectors
from kube_gpucheck.evidence.lists import Items, ListRecord, decode_items
from kube_gpucheck.evidence.node import Node
from kube_gpucheck.evidence.operator import Operator
from kube_gpucheck.evidence.pluginlog import PluginLog
from kube_gpucheck.evidence.pod import Pod, outline
from kube_gpucheck.evidence.progress import Progress
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.siblings import Siblings
from kube_gpucheck.evidence.stack import Component, Stack
from kube_gpucheck.evidence.telemetry import Telemetry
from kube_gpucheck.model import THE_CLUSTER, Missing, MissingKind, Reading, Seen, Subject

View = TypeVar("View", Pod, DaemonSet)

KINDS: Final[dict[str, type[Any]]] = {
    "nodes": documents.NodeDocument,
    "pods": documents.PodDocument,
    "events": documents.EventDocument,
    "services": documents.ServiceDocument,
    "configmaps": documents.ConfigMapDocument,
    "namespaces": documents.NamespaceDocument,
    "replicasets.apps": documents.ReplicaSetDocument,
    "resourcequotas": documents.ResourceQuotaDocument,
    "limitranges": documents.LimitRangeDocument,
    "daemonsets.apps": documents.DaemonSetDocument,
    "deployments.apps": documents.DeploymentDocument,
    "runtimeclasses.node.k8s.io": documents.RuntimeClassDocument,
    "endpointslices.discovery.k8s.io": documents.EndpointSliceDocument,
    "leases.coordination.k8s.io": documents.LeaseDocument,
    "nodefeatures.nfd.k8s-sigs.io": documents.NodeFeatureDocument,
    "servicemonitors.monitoring.coreos.com": documents.ServiceMonitorDocument,
    "clusterpolicies.nvidia.com": documents.PolicyDocument,
    "gpuclusters.nvidia.com": documents.PolicyDocument,
    "nvidiadrivers.nvidia.com": documents.PolicyDocument,
    "resourceslices.resource.k8s.io": documents.ResourceSliceDocument,
    "deviceclasses.resource.k8s.io": documents.DeviceClassDocument,
    "resourceclaims.resource.k8s.io": documents.ResourceClaimDocument,
    "resourceclaimtemplates.resource.k8s.io": documents.ResourceClaimTemplateDocument,
    "computedomains.resource.nvidia.com": documents.ComputeDomainDocument,
}
"""The kinds that are decoded, as `<plural>[.<group>]`, and their forms."""
KEPT: Final[dict[str, Callable[[Any, int], Any]]] = {"pods": outline}
"""What is kept of an object, where that is not the object with its words shared. Of a pod: its outline."""
_PODS_AT_HAND: Final = 512
"""Pods whose objects are held at a time, about 7 KB each."""
_NODES_AT_HAND: Final = 64
"""Nodes whose hosts and sections are held at a time, up to 200 KB each."""


class Cluster:
    """The root of the evidence: everything is reached from here."""

    def __init__(self, bundle: Bundle) -> None:
        """Keep the bundle; nothing is decoded yet."""
        self.bundle = bundle
        self.subject: Subject = THE_CLUSTER
        self.cluster = self
        self.stack = Stack(self)
        self.features = Discovery(self)
        self.telemetry = Telemetry(self)
        self.operator = Operator(self)
        self.offers = Offers(self)
        self.dra = Dra(self)
        self.compute_domains = ComputeDomains(self)
        self.fleet = Fleet(self)
        self.siblings = Siblings(self)
        self.selectors = Selectors(self)
        self.progress = Progress(self)
        self.plugin_logs: dict[Pod, Reading[PluginLog]] = {}
        self._items: dict[tuple[str, bool], Reading[Items | None]] = {}
        self._pod_list: Reading[ListRecord | None] | None = None
        self._pods_at_hand: deque[Pod] = deque()
        self._nodes_at_hand: dict[Node, None] = {}

    @property
    def gathered_at(self) -> datetime.datetime:
        """The clock of every check: when the evidence was gathered, in UTC."""
        return self.bundle.gathered_at

    @property
    def option(self) -> "Options":
        """What the user said that checks may read."""
        return Options(self.bundle)

    @property
    def discovery(self) -> Reading[DiscoveryRecord]:
        """The server's version and what it serves. Source: /version and the discovery documents."""
        return self.bundle.discovery()

    def items(self, kind: str, *, part: bool = False) -> Reading[Items | None]:
        """Return a decoded list with its malformed items; None where the API does not serve the kind.

        Of pods there are the outlines. `part`: where only one namespace could be read, what that has.
        """
        if self.bundle.trace is not None:
            self.bundle.kind(kind, part=part)
        if (kind, part) not in self._items:
            listed = self.bundle.kind(kind, unread=True, part=part)
            if kind == "pods" and isinstance(listed, Seen):
                self._pod_list = listed
            keep = KEPT.get(kind, documents.share)
            self._items[kind, part] = decode_items(listed, KINDS[kind], f"cluster/{kind}.json", keep)
        return self._items[kind, part]

    def objects(self, kind: str) -> Reading[tuple[Any, ...]]:
        """Return a list's well-formed objects (of pods the outlines); empty where the API does not serve the kind."""
        reading = self.items(kind)
        if isinstance(reading, Missing):
            return reading
        return Seen(reading.value.good if reading.value else ())

    def reread(self, pod: Pod, place: int) -> Reading[documents.PodDocument]:
        """Return a pod's object from its place in the list, and let that of another pod go for it."""
        if not isinstance(self._pod_list, Seen) or self._pod_list.value is None:
            return Missing(MissingKind.ERROR, f"pod '{pod.subject}': its list is gone", _PODS)
        try:
            document = _POD_DECODER.decode(self._pod_list.value.items[place])
        except (msgspec.MsgspecError, OSError) as error:
            reason = f"pod '{pod.subject}': its list changed while it was judged: {error}"
            return Missing(_UNPARSABLE, reason, _PODS)
        self._pods_at_hand.append(pod)
        if len(self._pods_at_hand) > _PODS_AT_HAND:
            self._pods_at_hand.popleft().let_go()
        return Seen(document)

    def takes_up(self, node: Node) -> None:
        """Hear that a node's host and sections are held now, and let those of another node go for it."""
        if node in self._nodes_at_hand:
            return
        self._nodes_at_hand[node] = None
        if len(self._nodes_at_hand) > _NODES_AT_HAND:
            oldest = next(iter(self._nodes_at_hand))
            del self._nodes_at_hand[oldest]
            oldest.let_go()

    @derived
    def nodes(self) -> tuple[Node, ...]:
        """All nodes in order of name: those of the API, and hosts of their own that no Node joins by boot id."""
        listed = self.objects("nodes")
        if isinstance(listed, Missing) and (listed.kind is not MissingKind.NOT_ASKED or not self.bundle.hosts):
            need(listed)
        views: dict[str, Node] = {}
        if isinstance(listed, Seen):
            for one in listed.value:
                views[one.metadata.name] = Node(self, one.metadata.name, Seen(one))
            items = self.items("nodes")
            for bad in items.value.bad if isinstance(items, Seen) and items.value else ():
                views[bad.name] = Node(
                    self, bad.name, Missing(_UNPARSABLE, f"node '{bad.name}': {bad.reason}", "cluster/nodes.json")
                )
        for name in self.bundle.hosts:
            if name not in views:
                views[name] = Node(self, name, listed if isinstance(listed, Missing) else self._unlisted(name))
        return tuple(views[name] for name in sorted(views))

    def _unlisted(self, name: str) -> Missing:
        """Say why a host has no Node object: it is none of the cluster's, or its object is lost, for pods name it."""
        pods = self.objects("pods")
        if isinstance(pods, Seen) and any(one.node_name == name for one in pods.value):
            reason = f"pods are bound to node '{name}', which is not in the list of nodes"
            return Missing(MissingKind.ERROR, reason, "cluster/nodes.json")
        return Missing(MissingKind.NOT_ASKED, f"no Node object is called '{name}'", "cluster/nodes.json")

    @derived
    def gpu_nodes(self) -> tuple[Node, ...]:
        """The nodes with a sign of an NVIDIA GPU, in order of name; a node that may have one stops it."""
        return tuple(node for node in need(self.nodes) if need(node.gpu_signs))

    @derived
    def nodes_by_name(self) -> dict[str, Node]:
        """Every node by its name."""
        return {node.name: node for node in need(self.nodes)}

    @derived
    def pods(self) -> tuple[Pod, ...]:
        """All pods, in order of namespace and name; a malformed one has no object."""
        return self._pods_of(need(self.items("pods")))

    @derived
    def seen_pods(self) -> tuple[Pod, ...]:
        """The pods that can be judged: all of them, or those of the one namespace that may be read."""
        return need(self.pods) if isinstance(self.pods, Seen) else self._pods_of(need(self.items("pods", part=True)))

    def _pods_of(self, items: Items | None) -> tuple[Pod, ...]:
        if items is None:
            return ()
        views = [Pod(self, one.namespace, one.name, Seen(one)) for one in items.good]
        return self._with_malformed(views, items, kind="pods", view=Pod)

    @derived
    def _namespaces_in_part(self) -> frozenset[str]:
        """The namespaces that were read where the cluster could not be: those of the pods that are seen so."""
        whole = isinstance(self.pods, Seen)
        return frozenset() if whole else frozenset(pod.namespace for pod in need(self.seen_pods))

    @derived
    def readable_pods(self) -> tuple[Pod, ...]:
        """All pods whose object is well-formed."""
        return tuple(pod for pod in need(self.pods) if pod.is_known)

    @derived
    def malformed_pods(self) -> tuple[Pod, ...]:
        """The pods whose object cannot be read; `Pod.outline` says why."""
        return tuple(pod for pod in need(self.pods) if not pod.is_known)

    @derived
    def pods_by_node(self) -> dict[str, tuple[Pod, ...]]:
        """Well-formed pods by the node that they are bound to."""
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in need(self.readable_pods):
            if pod.node_name:
                found[pod.node_name].append(pod)
        return {name: tuple(pods) for name, pods in found.items()}

    @derived
    def pods_by_component(self) -> dict[Component, tuple[Pod, ...]]:
        """Well-formed pods of the GPU stack by what they are of it."""
        found: dict[Component, list[Pod]] = defaultdict(list)
        for pod in need(self.readable_pods):
            component = need(pod.component)
            if component is not None:
                found[component].append(pod)
        return {component: tuple(pods) for component, pods in found.items()}

    @derived
    def pods_by_owner(self) -> dict[str, tuple[Pod, ...]]:
        """Well-formed pods by the UID of their controlling owner."""
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in need(self.readable_pods):
            for uid in need(pod.outline).controllers:
                found[uid].append(pod)
        return {uid: tuple(pods) for uid, pods in found.items()}

    @derived
    def daemonsets(self) -> tuple[DaemonSet, ...]:
        """All DaemonSets, in order of namespace and name; a malformed one has no object."""
        items = need(self.items("daemonsets.apps"))
        if items is None:
            return ()
        views = [
            DaemonSet(self, one.metadata.namespace or "default", one.metadata.name, Seen(one)) for one in items.good
        ]
        return self._with_malformed(views, items, kind="daemonsets.apps", view=DaemonSet)

    def _with_malformed(self, views: list[View], items: Items, *, kind: str, view: type[View]) -> tuple[View, ...]:
        """Return the views of a namespaced kind, malformed objects among them, in order of namespace and name."""
        for bad in items.bad:
            reason = f"{_NOUNS[kind]} '{bad.namespace}/{bad.name}': {bad.reason}"
            missing = Missing(_UNPARSABLE, reason, f"cluster/{kind}.json")
            views.append(view(self, bad.namespace or "default", bad.name, missing))
        return tuple(sorted(views, key=lambda one: (one.namespace, one.name)))

    @derived
    def runtime_classes(self) -> tuple[documents.RuntimeClassDocument, ...]:
        """All RuntimeClasses, in the API's order; missing where one of them could not be read."""
        items = need(self.items("runtimeclasses.node.k8s.io"))
        for bad in items.bad if items else ():
            reason = f"RuntimeClass '{bad.name}': {bad.reason}"
            need(Missing(_UNPARSABLE, reason, "cluster/runtimeclasses.node.k8s.io.json"))
        return items.good if items else ()

    @derived
    def node_leases(self) -> dict[str, documents.LeaseDocument]:
        """The kubelets' heartbeats by node. Source: Leases in kube-node-lease, named as their nodes."""
        leases = need(self.objects("leases.coordination.k8s.io"))
        return {one.metadata.name: one for one in leases if one.metadata.namespace == "kube-node-lease"}

    @derived
    def usual_heartbeat(self) -> datetime.datetime | None:
        """When most kubelets renewed last: the median of at least three leases, None where there are fewer.

        All leases are listed at one moment, which in a large cluster is long after the first answer (`gathered_at`).
        """
        renewed = sorted(one.spec.renew_time for one in need(self.node_leases).values() if one.spec.renew_time)
        return renewed[len(renewed) // 2] if len(renewed) >= _A_MEDIAN else None

    @derived
    def events_by_object(self) -> dict[tuple[str, str, str], tuple[documents.EventDocument, ...]]:
        """Events by (kind, namespace or "", name) of what they are about, oldest first."""
        return _by_object(need(self.objects("events")))

    @derived
    def _events_in_part(self) -> dict[tuple[str, str, str], tuple[documents.EventDocument, ...]]:
        items = need(self.items("events", part=True))
        return _by_object(items.good if items else ())

    def events(self, kind: str, namespace: str, name: str) -> Reading[tuple[documents.EventDocument, ...]]:
        """Return the events about one object, oldest first; namespace is "" for a node."""
        table = self.events_by_object
        if isinstance(table, Missing):
            read = self._namespaces_in_part
            in_part = self._events_in_part
            if isinstance(read, Seen) and namespace in read.value and isinstance(in_part, Seen):
                return Seen(in_part.value.get((kind, namespace, name), ()))
            return table
        return Seen(table.value.get((kind, namespace, name), ()))

    def node_of(self, name: str) -> Node | None:
        """Return the node of that name, or None if the evidence has no such node."""
        table = self.nodes_by_name
        return None if isinstance(table, Missing) else table.value.get(name)


class Options:
    """What the user said that checks may read; recorded in the run's options."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the recorded options."""
        self._options = bundle.manifest.run.options

    @property
    def expected_gpu_nodes(self) -> int | None:
        """How many GPU nodes the user expects (`--expect-gpu-nodes`), None if they did not say."""
        value = self._options.get("expect-gpu-nodes")
        return None if value is None else int(value)

    @property
    def named_nodes(self) -> tuple[str, ...]:
        """The nodes that the user named (`--node`), which are taken for GPU nodes."""
        return tuple(filter(None, self._options.get("node", "").split(",")))


_A_MEDIAN: Final = 3
"""Of two clocks that differ nothing tells the wrong one."""
_UNPARSABLE: Final = MissingKind.UNPARSABLE
_PODS: Final = "cluster/pods.json"
_NOUNS: Final = {"pods": "pod", "daemonsets.apps": "DaemonSet"}
_POD_DECODER: Final = msgspec.json.Decoder(documents.PodDocument)


def _by_object(
    events: Iterable[documents.EventDocument],
) -> dict[tuple[str, str, str], tuple[documents.EventDocument, ...]]:
    found: dict[tuple[str, str, str], list[documents.EventDocument]] = defaultdict(list)
    for event in events:
        about = event.involved_object
        found[about.kind, about.namespace or "", about.name].append(event)
    return {key: tuple(sorted(of_one, key=_moment)) for key, of_one in found.items()}


def _moment(event: documents.EventDocument) -> float:
    seen = event.last_seen
    return seen.timestamp() if seen else 0.0

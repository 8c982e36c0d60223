"""The cluster as a whole: every list, decoded once, and the views of nodes, DaemonSets and pods.

What the lists mean layer by layer stands in the sections (`stack`, `runtime`, `deviceplugin`, …).
"""

import datetime
from collections import defaultdict
from typing import Any, Final, TypeVar

from kube_gpucheck.evidence import documents
from kube_gpucheck.evidence.bundle import Bundle, DiscoveryRecord, Items, decode_items
from kube_gpucheck.evidence.daemonset import DaemonSet
from kube_gpucheck.evidence.discovery import Discovery
from kube_gpucheck.evidence.node import Node
from kube_gpucheck.evidence.operator import Operator
from kube_gpucheck.evidence.pod import Pod
from kube_gpucheck.evidence.readings import derived, need
from kube_gpucheck.evidence.stack import Stack
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
}
"""The kinds that are decoded, as `<plural>[.<group>]`, and their forms."""


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
        self._items: dict[str, Reading[Items | None]] = {}

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

    def items(self, kind: str) -> Reading[Items | None]:
        """Return a decoded list with its malformed items; None where the API does not serve the kind."""
        if self.bundle.trace is not None:
            self.bundle.kind(kind)
        if kind not in self._items:
            self._items[kind] = decode_items(self.bundle.kind(kind), KINDS[kind])
        return self._items[kind]

    def objects(self, kind: str) -> Reading[tuple[Any, ...]]:
        """Return a list's well-formed objects; empty where the API does not serve the kind."""
        reading = self.items(kind)
        if isinstance(reading, Missing):
            return reading
        return Seen(reading.value.good if reading.value else ())

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
        if isinstance(pods, Seen) and any(one.spec.node_name == name for one in pods.value):
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
        return self._namespaced("pods", "pod", Pod)

    @derived
    def readable_pods(self) -> tuple[Pod, ...]:
        """All pods whose object is well-formed."""
        return tuple(pod for pod in need(self.pods) if isinstance(pod.object, Seen))

    @derived
    def pods_by_node(self) -> dict[str, tuple[Pod, ...]]:
        """Well-formed pods by the node that they are bound to."""
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in need(self.readable_pods):
            if pod.node_name:
                found[pod.node_name].append(pod)
        return {name: tuple(pods) for name, pods in found.items()}

    @derived
    def pods_by_owner(self) -> dict[str, tuple[Pod, ...]]:
        """Well-formed pods by the UID of their controlling owner."""
        found: dict[str, list[Pod]] = defaultdict(list)
        for pod in need(self.readable_pods):
            for owner in need(pod.object).metadata.owner_references:
                if owner.controller:
                    found[owner.uid].append(pod)
        return {uid: tuple(pods) for uid, pods in found.items()}

    @derived
    def daemonsets(self) -> tuple[DaemonSet, ...]:
        """All DaemonSets, in order of namespace and name; a malformed one has no object."""
        return self._namespaced("daemonsets.apps", "DaemonSet", DaemonSet)

    def _namespaced(self, kind: str, noun: str, view: type[View]) -> tuple[View, ...]:
        """Return the views of a namespaced kind, malformed objects among them."""
        items = need(self.items(kind))
        if items is None:
            return ()
        views = [view(self, one.metadata.namespace or "default", one.metadata.name, Seen(one)) for one in items.good]
        for bad in items.bad:
            reason = f"{noun} '{bad.namespace}/{bad.name}': {bad.reason}"
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
    def events_by_object(self) -> dict[tuple[str, str, str], tuple[documents.EventDocument, ...]]:
        """Events by (kind, namespace or "", name) of what they are about, oldest first."""
        found: dict[tuple[str, str, str], list[documents.EventDocument]] = defaultdict(list)
        for event in need(self.objects("events")):
            about = event.involved_object
            found[about.kind, about.namespace or "", about.name].append(event)
        return {key: tuple(sorted(events, key=_moment)) for key, events in found.items()}

    def events(self, kind: str, namespace: str, name: str) -> Reading[tuple[documents.EventDocument, ...]]:
        """Return the events about one object, oldest first; namespace is "" for a node."""
        table = self.events_by_object
        if isinstance(table, Missing):
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


_UNPARSABLE: Final = MissingKind.UNPARSABLE


def _moment(event: documents.EventDocument) -> float:
    seen = event.last_seen
    return seen.timestamp() if seen else 0.0

"""Cluster layer: each GPU node is Ready, open to the GPU stack, and really runs containers."""

import datetime

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.documents import Condition, NodeDocument
from kube_gpucheck.evidence.scheduling import LIFECYCLE_TAINTS, show, untolerated
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, MissingKind, Seen, Severity

STALE_LEASE = Threshold(
    "CLU-009-lease",
    300,
    "s",
    "the kubelet renews every 10 s, and the node counts as lost after 40 s to 50 s: this is beyond any pause",
)
STALE_STATUS = Threshold(
    "CLU-009-status", 600, "s", "twice nodeStatusReportFrequency (5 min), the longest pause of an unchanged status"
)
_UNWELL = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
_SERVICES = (
    ("+rke2", "rke2-server or rke2-agent"),
    ("+k3s", "k3s or k3s-agent"),
    ("+k0s", "k0scontroller or k0sworker"),
)
_VIRTUAL_LABELS = (("type", "virtual-kubelet"), ("type", "kwok"), ("kubernetes.azure.com/role", "virtual-node"))


@check("CLU-004", layer=Layer.CLUSTER, severity=Severity.CRITICAL, after=("CLU-001",))
def check_node_is_ready(node: Node) -> None:
    """The GPU node is Ready; pressure and network conditions are clear.

    Pressure alone is major: running pods go on, new ones are kept away or evicted. Conditions that others
    set (node-problem-detector, GPU health monitors) are not judged.
    """
    document = known(node.object, "the node")
    conditions = {one.type: one for one in document.status.conditions}
    ready = conditions.get("Ready")
    if ready is None:
        fault(
            seen=f"{node.name} has no Ready condition",
            means="the kubelet has never reported",
            remedy="look at the kubelet on the node ('systemctl status kubelet'), then run 'gpucheck run -k CLU-004'",
        )
    if ready.status != "True":
        fault(seen=f"{node.name}: {_said(ready)}", means=_why_not_ready(ready), remedy=_bring_back(document, ready))
    unwell = [conditions[name] for name in _UNWELL if name in conditions and conditions[name].status != "False"]
    if unwell:
        no_network = any(one.type == "NetworkUnavailable" for one in unwell)
        fault(
            seen=f"{node.name}: {'; '.join(_said(one) for one in unwell)}",
            means="the node's network is not set up, so no pod is placed there"
            if no_network
            else "the kubelet evicts pods from this node, and the scheduler keeps new ones away",
            remedy="look at the network plugin's pod on the node, then run 'gpucheck run -k CLU-004'"
            if no_network
            else "free what the condition names on the node, then run 'gpucheck run -k CLU-004'",
            severity=Severity.CRITICAL if no_network else Severity.MAJOR,
        )


def _said(one: Condition) -> str:
    words = " ".join(one.message.split())[:240]
    return f"{one.type}={one.status}, {one.reason or 'no reason'}{f': {words}' if words else ''}"


def _why_not_ready(ready: Condition) -> str:
    text = ready.message.lower()
    if "container runtime" in text:
        return "the kubelet cannot reach the node's container engine"
    if ready.status == "Unknown":
        return "the kubelet has stopped reporting: the node is down, cut off, or its kubelet does not run"
    if "network" in text or "cni" in text:
        return "the node's network plugin is not ready"
    return "the kubelet says itself that it is not ready"


def _bring_back(document: NodeDocument, ready: Condition) -> str:
    version = document.status.node_info.kubelet_version
    own = next((service for mark, service in _SERVICES if mark in version), None)
    then = ", then run 'gpucheck run -k CLU-004'"
    if "container runtime" in ready.message.lower():
        engine = own or (
            "crio" if document.status.node_info.container_runtime_version.startswith("cri-o") else "containerd"
        )
        return f"start the container engine on the node ('systemctl status {engine}' shows why it stopped){then}"
    if ready.status == "Unknown":
        return f"reach the node, and look at '{f'systemctl status {own}' if own else 'systemctl status kubelet'}'{then}"
    return f"mend what the condition's message names{then}"


@check("CLU-005", layer=Layer.CLUSTER, severity=Severity.MINOR)
def check_node_is_open_to_the_stack(node: Node) -> None:
    """The GPU node is schedulable, and each of its taints is tolerated by the GPU stack's DaemonSets.

    Taints that repeat a condition (not-ready, disk-pressure and their kin) are CLU-004's. A DaemonSet that
    does not select the node by label, or does not belong on each GPU node, is not asked. Whether a person's
    workload tolerates a taint is PLG-008's.
    """
    document = known(node.object, "the node")
    if document.spec.unschedulable:
        fault(
            seen=f"{node.name} is cordoned (spec.unschedulable)",
            means="no new workload is placed on this node; somebody keeps it free, or forgot to open it again",
            remedy=f"if the maintenance is over, run 'kubectl uncordon {node.name}', then 'gpucheck run -k CLU-005'",
        )
    taints = tuple(one for one in document.spec.taints or () if one.key not in LIFECYCLE_TAINTS)
    if not any(one.effect in {"NoSchedule", "NoExecute"} for one in taints):
        return
    shown = ", ".join(show(one) for one in taints)
    stack = known(node.cluster.stack.daemonsets, "the GPU stack's DaemonSets")
    asked = [one for one in stack if one.component is not None and one.component.belongs_on_gpu_nodes]
    asked = [one for one in asked if known(one.selects(node), f"whether {one.subject} selects {node.name}") is None]
    if not asked:
        not_applicable(
            f"{node.name} has taints ({shown}), and no GPU DaemonSet selects it that would have to tolerate them"
        )
    kept = [
        (one, missed)
        for one in asked
        if (missed := untolerated(known(one.object, "the DaemonSet").spec.template.spec, taints))
    ]
    if kept:
        daemonset, missed = kept[0]
        fault(
            seen=f"{node.name} has {', '.join(show(one) for one in missed)}, not tolerated by "
            f"{', '.join(str(one.subject) for one, _ in kept)} ({len(kept)} of {len(asked)} GPU DaemonSets)",
            means=f"its {daemonset.component.value if daemonset.component else 'pod'} cannot run on this node",
            remedy=f"add to {daemonset.subject} a toleration with key {missed[0].key}, operator Exists "
            f"and effect {missed[0].effect}, then run 'gpucheck run -k CLU-005'",
        )


@check("CLU-009", layer=Layer.CLUSTER, severity=Severity.MAJOR)
def check_node_really_executes(node: Node) -> None:
    """The node really executes: its heartbeats move, and it reports images, an engine and the images that run.

    Virtual and hollow nodes (virtual-kubelet, KWOK, kubemark) accept pods and call them Running. Whether the
    node is Ready is CLU-004's.
    """
    document = known(node.object, "the node")
    virtual = _virtual(document)
    if virtual:
        _fault_virtual(node, virtual)
    _judge_heartbeat(node, document)
    engine = document.status.node_info.container_runtime_version
    if not engine:
        _fault_virtual(node, "it reports no container runtime")
    pods = node.pods
    if document.status.images and isinstance(pods, Missing) and pods.kind is MissingKind.NOT_ASKED:
        return
    outlines = [(pod, known(pod.outline, "the pod")) for pod in known(pods, "the pods on the node")]
    running = sum(one.running for _, one in outlines)
    nameless = [pod for pod, one in outlines if one.nameless]
    if nameless:
        pod = nameless[0]
        statuses = known(pod.statuses, "the pod's containers")
        name = next(one.name for one in statuses if one.state.running is not None and not one.image_id)
        share = f"{sum(one.nameless for _, one in outlines)} of {running} containers"
        _fault_virtual(node, f"container {name} of {pod.namespace}/{pod.name} runs with no imageID ({share})")
    if not document.status.images and not running:
        _fault_virtual(node, f"it reports no image and runs no container, its engine is {engine}")


def _fault_virtual(node: Node, seen: str) -> None:
    fault(
        seen=f"{node.name}: {seen}",
        means="this node accepts pods and does not run them as a kubelet would, so its GPUs are not real either",
        remedy=f"keep GPU workloads off it, or remove it if nobody needs it ('kubectl describe node {node.name}'), "
        "then run 'gpucheck run -k CLU-009'",
    )


def _virtual(document: NodeDocument) -> str | None:
    """Return what gives a virtual or hollow node away, None if nothing does.

    Sources: virtual-kubelet (label type, taint), KWOK (annotation, kubelet version), kubemark (provider id).
    """
    labels, info = document.metadata.labels or {}, document.status.node_info
    for key, value in _VIRTUAL_LABELS:
        if labels.get(key) == value:
            return f"label {key}={value}"
    if (document.metadata.annotations or {}).get("kwok.x-k8s.io/node"):
        return "annotation kwok.x-k8s.io/node"
    if any(taint.key == "virtual-kubelet.io/provider" for taint in document.spec.taints or ()):
        return "taint virtual-kubelet.io/provider"
    if document.spec.provider_id.startswith(("kubemark://", "kwok://")):
        return f"provider id {document.spec.provider_id}"
    if info.container_runtime_version.startswith("fakeRuntime://"):
        return f"container runtime {info.container_runtime_version}"
    marks = ("-vk-", "kwok", "fake")
    return f"kubelet version {info.kubelet_version}" if any(mark in info.kubelet_version for mark in marks) else None


def _judge_heartbeat(node: Node, document: NodeDocument) -> None:
    """Judge by the lease, by the Ready condition only where the node has none (it is made a few seconds later)."""
    now = node.cluster.gathered_at
    reading = node.lease
    asked = isinstance(reading, Seen) or reading.kind is not MissingKind.NOT_ASKED
    lease = known(reading, "the node's lease") if asked else None
    renewed = lease.spec.renew_time if lease is not None else None
    if renewed is not None:
        _judge_age(node, now - renewed, STALE_LEASE, f"its lease was renewed {renewed:%H:%M:%SZ}")
        return
    beats = [
        one.last_heartbeat_time for one in document.status.conditions if one.type == "Ready" and one.last_heartbeat_time
    ]
    if not beats:
        _fault_virtual(node, "it has no lease, and its Ready condition no heartbeat")
    _judge_age(node, now - beats[0], STALE_STATUS, f"no lease; its Ready condition was reported {beats[0]:%H:%M:%SZ}")


def _judge_age(node: Node, age: datetime.timedelta, limit: Threshold, said: str) -> None:
    if age.total_seconds() > limit.value:
        fault(
            seen=f"{node.name}: {said}, {int(age.total_seconds())} s before the evidence was gathered "
            f"(limit {limit.value:g} {limit.unit})",
            means="the kubelet has stopped reporting, so what the API says of this node is old",
            remedy="look at the kubelet on the node ('systemctl status kubelet'), then run 'gpucheck run -k CLU-009'",
        )

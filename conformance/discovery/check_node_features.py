"""Discovery layer: what feature discovery finds can be published."""

import datetime
from typing import NoReturn

from kube_gpucheck.evidence import Cluster, Component, DaemonSet, Node, Pod
from kube_gpucheck.evidence.discovery import NODE_FEATURES, Refusal, does_well
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, MissingKind, Severity

FIRST_PUBLICATION = Threshold("DSC-010-grace", 60, "s", "GFD publishes once it has started, then each minute")
_THEN = "then run 'gpucheck run -k DSC-010'"


@check("DSC-010", layer=Layer.DISCOVERY, severity=Severity.MAJOR, after=("DSC-001",))
def check_node_features_can_be_published(cluster: Cluster) -> None:
    """Where GFD or NFD uses NodeFeature objects: CRD served, RBAC allows it, one for each GPU node, one NFD generation.

    Judged where a publisher has come so far: a pod that does not run is DSC-001's or DSC-003's. Whether the
    labels reach the node is DSC-004's.
    """
    publishers = known(cluster.features.publishers, "who publishes NodeFeature objects")
    if not publishers:
        not_applicable("no GFD and no NFD worker publishes by NodeFeature objects")
    served = known(cluster.features.node_features, "the NodeFeature objects") is not None
    nodes = known(cluster.gpu_nodes, "the nodes with a GPU")
    judged = sum(_judge(publisher, node, served=served) for publisher in publishers for node in nodes)
    if not judged:
        absent = "" if served else ", and its type is not served"
        not_applicable(
            f"no pod of {publishers[0].subject} has come to publish a NodeFeature{absent}; DSC-003 judges that"
        )
    versions = known(cluster.features.nfd_versions, "the versions of NFD's parts")
    generations = {version[:2] for _, version in versions}
    if len(generations) > 1:
        fault(
            seen=", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in versions),
            means="parts of two NFD releases read and write the same objects",
            remedy=f"upgrade them to one release, {_THEN}",
            severity=Severity.MINOR,
        )


def _judge(publisher: DaemonSet, node: Node, *, served: bool) -> bool:
    """Judge one publisher on one node; tell whether it had come so far that there was something to judge."""
    features = node.cluster.features
    if served and known(features.published(publisher, node), "the NodeFeature objects") is not None:
        return True
    pod = known(features.pod_on(publisher, node), f"the pod of {publisher.subject} on {node.name}")
    if pod is None:
        return False
    refusal = known(features.refusal(publisher, pod), f"the log of pod {pod.name}")
    if refusal is not None:
        _fault_refused(publisher, node, refusal)
    if known(does_well(pod), f"whether pod {pod.name} is well"):
        _wait_for_first(publisher, node)
        _fault_unpublished(publisher, pod, served=served)
    return False


def _fault_unpublished(publisher: DaemonSet, pod: Pod, *, served: bool) -> NoReturn:
    log = f"kubectl -n {publisher.namespace} logs {pod.name}"
    fault(
        seen=f"pod {pod.name} on {pod.node_name} is Ready, and "
        + ("no NodeFeature of it names that node" if served else f"the API does not serve {NODE_FEATURES}"),
        means="what it finds does not reach NFD's master",
        remedy=f"look at its log ('{log}'), mend what it names, {_THEN}" if served else _install(publisher),
    )


def _fault_refused(publisher: DaemonSet, node: Node, refusal: Refusal) -> None:
    if refusal.is_absent:
        fault(
            seen=f"pod {refusal.pod} on {node.name}: '{refusal.words}'",
            means="NFD's NodeFeature type is not installed, so discovery has nowhere to publish its labels",
            remedy=_install(publisher),
        )
    fault(
        seen=f"pod {refusal.pod} on {node.name}: '{refusal.words}'",
        means="its service account may not write NodeFeature objects",
        remedy=f"install with 'helm install', or apply its Role and RoleBinding in {publisher.namespace}, {_THEN}",
    )


def _install(publisher: DaemonSet) -> str:
    if publisher.component is Component.GFD:
        return f"install NFD with its CRDs ('gfd.enabled=true' in the device plugin's chart brings them), {_THEN}"
    return f"install NFD's CRDs of the same release (deployment/base/nfd-crds), {_THEN}"


def _wait_for_first(publisher: DaemonSet, node: Node) -> None:
    """End as unknown while a publisher has only just started."""
    pod = known(node.cluster.features.pod_on(publisher, node), "the publisher's pod")
    for status in known(pod.statuses, "the pod's containers") if pod is not None else ():
        running = status.state.running
        started = running.started_at if running is not None else None
        if started is not None:
            age = node.cluster.gathered_at - started
            if age < datetime.timedelta(seconds=FIRST_PUBLICATION.value):
                seconds = int(age.total_seconds())
                reason = f"{publisher.subject} started on {node.name} {seconds} s ago, and has not published yet"
                known(Missing(MissingKind.ERROR, reason, f"cluster/{NODE_FEATURES}.json"), "the NodeFeature object")

"""Discovery layer: Node Feature Discovery and GPU Feature Discovery run on each GPU node."""

from kube_gpucheck.evidence import Component, DaemonSet
from kube_gpucheck.evidence.rollout import Plight, Rollout
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Reading, Seen, Severity

_THEN = "then run 'gpucheck run -k DSC-001'"
_MEANS = {
    Plight.LABEL: "its selector or affinity needs a label that this GPU node does not have",
    Plight.TAINT: "a taint keeps it off a GPU node, so this node is never labelled",
    Plight.ELSEWHERE: "its template is pinned to one node",
    Plight.NOT_COUNTED: "the DaemonSet controller has not looked at these nodes yet",
    Plight.NOT_CREATED: "the API server refuses its pods",
    Plight.IMAGE: "the node cannot pull its image",
    Plight.NO_HANDLER: "the node's container engine does not know the runtime class's handler",
    Plight.MISMATCH: "the driver's kernel module and its libraries have different versions",
    Plight.ABSENT_TYPE: "NFD's NodeFeature type is not installed, so there is nowhere to publish labels",
    Plight.REFUSED: "its service account may not do what it needs to do",
    Plight.OUT_OF_MEMORY: "its memory limit is too low for this cluster",
    Plight.NO_DRIVER: "its container sees no NVIDIA driver: it runs outside NVIDIA's runtime, or the node has none",
    Plight.CREATE: "the container engine cannot create its container",
    Plight.OTHER: "its pods are not well; the last words of their log tell why",
}
_DO = {
    Plight.LABEL: "give the node the label, or let whoever sets it run there (DSC-002 names both)",
    Plight.TAINT: "give it a toleration of the taint with operator Exists",
    Plight.ELSEWHERE: "take nodeName out of its template",
    Plight.NOT_COUNTED: "look whether kube-controller-manager runs",
    Plight.NOT_CREATED: "mend what the event names",
    Plight.IMAGE: "make the image available to the node, or correct its name",
    Plight.NO_HANDLER: "configure the handler in the node's container engine (RTM-003), and restart that (RTM-005)",
    Plight.MISMATCH: "reboot the node, so that the new module is loaded",
    Plight.ABSENT_TYPE: "install NFD with its CRDs (the device plugin's chart brings them with 'gfd.enabled=true')",
    Plight.REFUSED: "bind its service account to the chart's role in this namespace",
    Plight.OUT_OF_MEMORY: "raise its memory limit",
    Plight.NO_DRIVER: "set 'runtimeClassName: nvidia' on it, where NVIDIA is not the default runtime",
    Plight.CREATE: "mend what the message names",
    Plight.OTHER: "mend what the log names",
}


def _is_nfd_worker(daemonset: DaemonSet) -> Reading[bool]:
    return Seen(daemonset.component is Component.NFD_WORKER)


def _is_gfd(daemonset: DaemonSet) -> Reading[bool]:
    return Seen(daemonset.component is Component.GFD)


@check(
    "DSC-001",
    layer=Layer.DISCOVERY,
    severity=Severity.MAJOR,
    after=("CLU-004", "CLU-005", "PLG-013"),
    among=_is_nfd_worker,
)
def check_nfd_runs_once_on_each_gpu_node(daemonset: DaemonSet) -> None:
    """NFD's master and workers are Ready, one worker on each GPU node; exactly one NFD is installed.

    Which labels NFD writes is DSC-002's, whether they are used at all DSC-009's. Topology updater and garbage
    collector are not judged.
    """
    _judge_is_used(daemonset)
    rollout = Rollout(daemonset)
    _judge(rollout, "DSC-001")
    others = [one for one in known(daemonset.cluster.stack.nfd_workers, "the NFD workers") if one is not daemonset]
    mine = {node.name for node in known(rollout.wanted_on, "the nodes on which NFD's workers may run")}
    for other in others:
        theirs = known(Rollout(other).wanted_on, "the nodes on which NFD's workers may run")
        shared = sorted(mine & {node.name for node in theirs})
        if shared:
            fault(
                seen=f"{daemonset.subject} and {other.subject} both run on {shared[0]}"
                f"{f' and {len(shared) - 1} more nodes' if len(shared) > 1 else ''}",
                means="two NFD installations write the same labels, and remove each other's",
                remedy=f"keep one: install the other's chart with 'nfd.enabled=false', {_THEN}",
            )
    _judge_masters(daemonset)


def _judge_masters(daemonset: DaemonSet) -> None:
    masters = known(daemonset.cluster.stack.nfd_masters, "the Deployments, of which one is NFD's master")
    if not masters:
        fault(
            seen=f"{daemonset.subject} is installed, and no Deployment runs nfd-master",
            means="nobody copies what the workers find to the nodes' labels",
            remedy=f"install NFD whole (chart node-feature-discovery, master enabled), {_THEN}",
        )
    for master in masters:
        status, wanted = master.status, master.spec.replicas
        if not status.ready_replicas:
            name = f"{master.metadata.namespace}/{master.metadata.name}"
            log = f"kubectl -n {master.metadata.namespace} logs deployment/{master.metadata.name}"
            fault(
                seen=f"NFD's master {name}: {status.ready_replicas} of {wanted} replicas Ready",
                means="what the workers and GFD find does not become labels while no master runs",
                remedy=f"look at its log ('{log}'), mend what it names, {_THEN}",
            )


@check(
    "DSC-003",
    layer=Layer.DISCOVERY,
    severity=Severity.MAJOR,
    after=(
        "DSC-002",
        "RTC-004",
        "RTM-002",
        "CLU-004",
        "CLU-005",
        "DRV-005",
        "DRV-007",
        "OPR-003",
        "DSC-010",
        "PLG-013",
        "RTC-002",
        "RTM-004",
        "RTM-009",
        "RTM-010",
        "RTM-016",
        "RTM-017",
    ),
    among=_is_gfd,
)
def check_gfd_runs_on_each_gpu_node(daemonset: DaemonSet) -> None:
    """The GFD DaemonSet wants one pod for each GPU node and all are Ready.

    A node that another GFD serves, or from which somebody keeps the operator's operands by label, does not
    count. A pod that is Ready now and ended badly twice, the last time within ten minutes, is not well.
    """
    _judge_is_used(daemonset)
    _judge(Rollout(daemonset), "DSC-003")


def _judge_is_used(daemonset: DaemonSet) -> None:
    if not known(daemonset.cluster.gpu_nodes, "the nodes with a GPU"):
        not_applicable("no node shows a sign of an NVIDIA GPU; CLU-003 judges that")
    if known(daemonset.cluster.features.user, "who selects nodes by discovery's labels") is None:
        not_applicable("no DaemonSet and no pod selects nodes by a label of discovery")


def _judge(rollout: Rollout, identifier: str) -> None:
    subject = rollout.daemonset.subject
    shortfall = known(rollout.shortfall, f"how {subject} fares")
    if shortfall is not None:
        fault(
            seen=shortfall.facts,
            means=_MEANS[shortfall.plight],
            remedy=f"{_DO[shortfall.plight]}; once {subject} is Ready, run 'gpucheck run -k {identifier}'",
            nodes=known(rollout.lacking_on, f"where {subject} lacks a pod"),
        )

"""Device-plugin layer: what pods hold of a node's GPUs is there, and nobody keeps what he no longer needs."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

OVERDUE = Threshold(
    "PLG-010-overdue", 300, "s", "the grace period is in the deletion's time; the kubelet kills within seconds of it"
)


@check(
    "PLG-010", layer=Layer.DEVICE_PLUGIN, severity=Severity.MINOR, after=("CLU-004", "CLU-008", "PLG-005", "PLG-006")
)
def check_holdings_are_due(node: Node) -> None:
    """What running pods hold is at most allocatable, and no finished or deleted pod still holds a device.

    The kubelet clears its record of ended pods only when it gives devices to the next: such an entry is a fault where
    a later pod was given devices, or refused for want of them, and it is still there. Not judged: what processes hold
    (DRV-024).
    """
    if known(node.only_dra_serves, "how GPUs reach this node's containers"):
        not_applicable("only the DRA driver serves this node; what it gives stands in ResourceClaims")
    holdings = node.holdings
    leaked = known(holdings.leaked, "the kubelet's record of devices")
    if leaked:
        fault(
            seen=f"the kubelet's record on {node.name} still gives {'; '.join(leaked)}",
            means="the kubelet takes devices for used that nobody uses, and refuses pods that the scheduler sends",
            remedy="restart the kubelet on the node (RKE2 and K3s: their service); then run 'gpucheck run -k PLG-010'",
        )
    now = node.cluster.gathered_at
    for pod, due in known(holdings.overdue, "the pods on the node"):
        late = (now - due).total_seconds()
        if late > OVERDUE.value:
            fault(
                seen=f"{pod.namespace}/{pod.name} was to be gone by {due:%Y-%m-%d %H:%M:%SZ}, {late:.0f} s ago (limit "
                f"{OVERDUE.value:g} {OVERDUE.unit}), and holds GPUs",
                means="a process that does not die, a volume or a finalizer keeps the pod, and its GPUs with it",
                remedy=f"look at 'kubectl -n {pod.namespace} describe pod {pod.name}' and, on the node, for its "
                "process in state D ('ps -eo pid,stat,wchan,comm'); then run 'gpucheck run -k PLG-010'",
            )
    excess = known(holdings.excess, "what pods hold and what is allocatable")
    if excess:
        one = excess[0]
        fault(
            seen=f"pods on {node.name} hold {one.held} {one.resource}, {one.allocatable} allocatable: "
            f"{', '.join(one.holders)}",
            means="devices went away, or were shared otherwise, under pods that were given them before",
            remedy="wait for these pods, or delete those that can be; then run 'gpucheck run -k PLG-010'",
        )

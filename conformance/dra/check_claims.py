"""DRA layer: what pods claim of NVIDIA's devices can be given to them."""

from kube_gpucheck.evidence import Pod, claims
from kube_gpucheck.evidence.allocation import words_of_scheduler
from kube_gpucheck.evidence.claims import Lack, Shortage
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Severity


@check(
    "DRA-004",
    layer=Layer.DRA,
    severity=Severity.MAJOR,
    after=("DRA-001", "DRA-002", "DRA-003", "CLU-004", "CLU-005"),
    among=claims.claims_devices,
)
def check_claims_are_allocated(pod: Pod) -> None:
    """No ResourceClaim for NVIDIA's devices stays unallocated, but for what waiting heals.

    A pod that waits for devices in use, or for a gate, is a minor finding. Whether an allocated claim was prepared on
    its node is PLG-009's.
    """
    lack = known(claims.shortage(pod), "what the pod's claims ask for, and what is published")
    if lack is None:
        return
    document = known(pod.object, "the pod")
    then = "then run 'gpucheck run -k DRA-004'"
    if document.spec.scheduling_gates:
        fault(
            seen=f"{lack.words}; the pod is held by the scheduling gate '{document.spec.scheduling_gates[0].name}'",
            means="whoever set the gate has not let it go yet; nothing is broken",
            remedy=f"ask the queue or controller that owns the gate; {then}",
            severity=Severity.MINOR,
        )
    if document.spec.node_name is not None:
        fault(
            seen=f"{lack.words}; the pod is bound to {document.spec.node_name} and its claim is not allocated",
            means="the pod names its node itself: only the scheduler allocates claims, and it never saw the pod",
            remedy=f"take nodeName out of the pod, and select the node by nodeSelector; {then}",
        )
    said = words_of_scheduler(document)
    seen = f"{lack.words}{f'; the scheduler says: {said}' if said else ''}"
    if lack.lack is Lack.USE:
        holders = f"; held by {', '.join(lack.holders[:5])}{' and others' if len(lack.holders) > 5 else ''}"  # noqa: PLR2004  as many as are shown
        fault(
            seen=f"{seen}{holders}",
            means="all devices that it could have are in use; nothing is broken",
            remedy=f"wait until a holder ends, or add a node; {then}",
            severity=Severity.MINOR,
        )
    if lack.lack in {Lack.NOTHING, Lack.UNDECIDED}:
        _judge_open(seen, said=said, then=then)
    means, remedy = _EXPLAINED[lack.lack]
    fault(seen=seen, means=means, remedy=f"{_filled(remedy, lack)}; {then}")


def _judge_open(seen: str, *, said: str, then: str) -> None:
    if not said:
        fault(
            seen=f"{seen}; the scheduler has not looked at the pod yet",
            means="the pod or its claim has just been made",
            remedy=f"run 'kubectl describe pod' in a minute; if nothing has changed, look whether the scheduler runs; "
            f"{then}",
            severity=Severity.MINOR,
        )
    fault(
        seen=seen,
        means="devices that fit are published: what else the pod or the claim asks for is not to be had, as the "
        "scheduler's message says",
        remedy=f"lower what the message names, or correct the claim's selectors and constraints; {then}",
    )


def _filled(remedy: str, lack: Shortage) -> str:
    return remedy.replace("KEYS", ", ".join(f"'{key}'" for key in lack.keys[:3]))


_EXPLAINED = {
    Lack.CLAIM: (
        "the pod names a claim or template that is not there, or none has been made from it yet",
        "create what is missing in the pod's namespace, or correct its resourceClaims; its events name a refusal",
    ),
    Lack.CLASS: (
        "the claim names a class that does not exist, so it is never allocated",
        "correct its deviceClassName, or install what makes KEYS (of the driver: resources.gpus.enabled=true)",
    ),
    Lack.DEVICE: (
        "no device of that class is published, so the claim is never allocated",
        "bring the DRA driver to publish devices (DRA-001, DRA-002), or ask for a class that it serves",
    ),
    Lack.MATCH: (
        "the class or the claim's selectors rule out every device that there is, so it waits for ever",
        "correct the claim's selectors to what the ResourceSlices list",
    ),
    Lack.TAINT: (
        "the driver has tainted the devices: it holds them unhealthy, as after an XID",
        "mend the GPU (DRV-011, DRV-027), then delete the kubelet plugin's pod; or tolerate KEYS in the claim",
    ),
    Lack.NUMBER: (
        "no node has that many, even when idle, so it waits for ever",
        "ask for no more than one node can give, or spread the work over several pods",
    ),
    Lack.NODE: (
        "the pod's own rules, or the nodes', keep it off every node that has the devices",
        "correct the pod's nodeSelector, affinity or tolerations (KEYS)",
    ),
}
"""What each lack means, and its remedy."""

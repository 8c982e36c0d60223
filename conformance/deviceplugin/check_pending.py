"""Device-plugin layer: pods that ask for GPUs are placed, and are not refused where they are placed."""

from typing import Final

from kube_gpucheck.evidence import Cluster, Pod, workload
from kube_gpucheck.evidence.allocation import (
    Fit,
    Placement,
    Wait,
    gpu_limits,
    quota_refusals,
    scale_up,
    wait_of,
    words_of_scheduler,
)
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Severity

SHOWN: Final = 5
"""How many nodes or holders a finding lists."""


@check(
    "PLG-008",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.MAJOR,
    after=("PLG-005", "PLG-006", "CLU-003", "CLU-004", "CLU-005", "DRA-002", "RTC-003", "PLG-011", "SHR-007"),
    among=workload.asks_and_lives,
)
def check_no_gpu_pod_waits_in_vain(pod: Pod) -> None:
    """No pod that asks for a GPU is Pending for a reason that no waiting can heal.

    A pod that waits for GPUs in use, for a gate, a queue or a new node is a minor finding. A pod that is placed
    passes: what happens to it on its node is PLG-009's.
    """
    document = known(pod.object, "the pod")
    if document.spec.node_name:
        if document.spec.node_name not in known(pod.cluster.nodes_by_name, "the nodes"):
            fault(
                seen=f"the pod is bound to {document.spec.node_name}, and the cluster has no such node",
                means="the node has left the cluster while the pod was on it",
                remedy="delete the pod, so that its owner makes another; then run 'gpucheck run -k PLG-008'",
            )
        return
    request = ", ".join(f"{count} {name}" for name, count in known(pod.gpu_request, "what the pod asks for").items())
    said = words_of_scheduler(document)
    wait = known(wait_of(pod), f"the nodes that the pod may run on{said and f' (the scheduler says: {said})'}")
    if wait.gates:
        fault(
            seen=f"the pod asks for {request} and is held by the scheduling gate '{wait.gates[0]}'",
            means="whoever set the gate has not let it go yet; nothing is broken",
            remedy="ask the queue or controller that owns the gate; then run 'gpucheck run -k PLG-008'",
            severity=Severity.MINOR,
        )
    busy = wait.of(Fit.IN_USE)
    if busy:
        holders = [one for node in busy for one in node.holders]
        fault(
            seen=f"the pod asks for {request}; {_listed(busy)}; held by "
            f"{', '.join(holders[:SHOWN])}{' and others' if len(holders) > SHOWN else ''}",
            means="all GPUs that it could have are in use; nothing is broken",
            remedy="wait until a holder ends, or add a node; then run 'gpucheck run -k PLG-008'",
            severity=Severity.MINOR,
        )
    if wait.of(Fit.FREE):
        _not_for_gpus(request, wait)
    scaling = known(scale_up(pod), "the events about the pod")
    if scaling is not None:
        fault(
            seen=f"the pod asks for {request}; no node has that now, and a node is on its way: {scaling}",
            means="the autoscaler is adding a node; nothing is broken",
            remedy="wait for the node, then run 'gpucheck run -k PLG-008'",
            severity=Severity.MINOR,
        )
    _never(pod, request, wait)


def _not_for_gpus(request: str, wait: Wait) -> None:
    free = _listed(wait.of(Fit.FREE))
    if not wait.message:
        fault(
            seen=f"the pod asks for {request}; {free}, and the scheduler has not looked at the pod yet",
            means="it has just been made, or no scheduler of the name that it asks for runs",
            remedy="run 'kubectl describe pod' in a minute; if it is still unscheduled, look at its schedulerName, "
            "then run 'gpucheck run -k PLG-008'",
            severity=Severity.MINOR,
        )
    fault(
        seen=f"the pod asks for {request}; {free}; the scheduler says: {wait.message}",
        means="GPUs are free: what else the pod asks for is not to be had, as the scheduler's message says",
        remedy="lower what the message names (CPU, memory, volumes, affinity) or free it, then run 'gpucheck run -k "
        "PLG-008'",
    )


def _never(pod: Pod, request: str, wait: Wait) -> None:
    barred = wait.of(Fit.EXCLUDED, Fit.CORDONED)
    then = "then run 'gpucheck run -k PLG-008'"
    if barred:
        first = barred[0]
        means, remedy = {
            "taint": (
                "the nodes that have the GPUs repel it by a taint that it does not tolerate",
                f"add a toleration for '{first.keys[0]}' to the pod, {then}",
            ),
            "unschedulable": (
                "the nodes that have the GPUs are cordoned",
                f"run 'kubectl uncordon {first.node}' once its maintenance is over, {then}",
            ),
        }.get(
            first.rule,
            (
                "its selection excludes every node that has the GPUs",
                f"correct the pod's nodeSelector or affinity ({', '.join(first.keys)}), {then}",
            ),
        )
        fault(seen=f"the pod asks for {request}; {_listed(barred)}", means=means, remedy=remedy)
    lost = wait.of(Fit.OUT_OF_SERVICE)
    if lost:
        fault(
            seen=f"the pod asks for {request}; {_listed(lost)}",
            means="the GPUs are out of service: their plugin is gone, or holds them unhealthy",
            remedy=f"mend what PLG-006 names, {then}",
        )
    small = wait.of(Fit.TOO_SMALL)
    if small:
        fault(
            seen=f"the pod asks for {request}; {_listed(small)}",
            means="no node has that many, even when idle, so it waits for ever",
            remedy=f"ask for no more than one node can give (or spread the work over several pods), {then}",
        )
    fault(
        seen=f"the pod asks for {request}; no node offers it ({_listed(wait.placements) or 'there is no node'})",
        means="no node serves this resource now",
        remedy="bring the device plugin to serve it (PLG-005), or correct the resource name of "
        f"{pod.namespace}/{pod.name} (SHR-007), {then}",
    )


def _listed(placements: tuple[Placement, ...]) -> str:
    more = f"; and {len(placements) - SHOWN} more nodes" if len(placements) > SHOWN else ""
    return "; ".join(one.reason for one in placements[:SHOWN]) + more


@check(
    "PLG-009",
    layer=Layer.DEVICE_PLUGIN,
    severity=Severity.MAJOR,
    after=(
        "PLG-003",
        "PLG-006",
        "RTM-002",
        "RTM-004",
        "RTM-005",
        "RTM-010",
        "RTM-009",
        "RTM-011",
        "RTM-017",
        "RTM-018",
        "RTC-002",
        "DRV-005",
        "DRV-007",
        "SHR-007",
        "WRK-014",
    ),
    among=workload.may_fail_for_nvidia,
)
def check_gpu_pods_start(pod: Pod) -> None:
    """No pod failed at admission, at its sandbox or at container creation on account of NVIDIA's part or of CDI.

    A pod that a later, running one of the same owner has replaced passes, and so does one whose program ended badly
    by itself. Pods of the GPU stack are PLG-003's, DSC-003's and TEL-001's.
    """
    failure = known(workload.start_failure(pod), "why the pod does not run")
    if failure is None or known(workload.replacement(pod), "whether another pod has replaced it") is not None:
        return
    refused = known(workload.refusal(pod), "whether the kubelet refused the pod") is not None
    fault(
        seen=f"on {pod.node_name}: {failure}",
        means="the kubelet refused the pod: the devices that the scheduler counted on were not to be had"
        if refused
        else "the engine could not make the pod's sandbox or container with what NVIDIA's runtime or CDI adds",
        remedy="mend what the message names"
        + (
            ", then delete the pod (it does not recover by itself)"
            if refused
            else "; the kubelet tries again by itself unless the pod has ended"
        )
        + "; then run 'gpucheck run -k PLG-009'",
    )


@check("PLG-011", layer=Layer.DEVICE_PLUGIN, severity=Severity.MAJOR)
def check_quotas_leave_room_for_gpus(cluster: Cluster) -> None:
    """ResourceQuota and LimitRange do not forbid GPUs where GPU pods want to run.

    Minor while they stop no pod. Quotas on priority classes that stop a GPU DaemonSet are PLG-013's.
    """
    refused = known(quota_refusals(cluster), "the events about pods that were not created")
    if refused:
        fault(
            seen="; ".join(refused[:3]),
            means="a quota or limit range stops pods that ask for GPUs",
            remedy="enlarge the quota or limit that the message names, or ask for less; then run 'gpucheck run -k "
            "PLG-011'",
        )
    tight = known(gpu_limits(cluster), "the quotas and limit ranges")
    if tight:
        fault(
            seen="; ".join(tight[:3]),
            means="the next pod there that asks for a GPU will be refused, or the key limits nothing",
            remedy="set 'requests.nvidia.com/gpu' to what the namespace may use, then run 'gpucheck run -k PLG-011'",
            severity=Severity.MINOR,
        )

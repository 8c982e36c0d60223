"""Where a pod can run: the scheduler's rules, and the extended resources that are left.

Not evaluated: CPU and memory, topology spread, pod affinity, volumes, ports. Source: evidence/scheduling.py;
k8s.io/kubernetes/pkg/scheduler/framework/types.go (FitError) at 1.36, and the events of the recorded clusters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.documents import NodeDocument, PodSpec, Toleration
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.scheduling import reject_document

_REASONS: Final = {
    "nodeName": "node(s) didn't match the requested node name",
    "nodeSelector": "node(s) didn't match Pod's node affinity/selector",
    "affinity": "node(s) didn't match Pod's node affinity/selector",
    "unschedulable": "node(s) were unschedulable",
    "taint": "node(s) had untolerated taint(s)",
}
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_Amounts = Mapping[str, int]


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""


class _Placed(msgspec.Struct, frozen=True):
    """What is read of a pod to know what it holds."""

    spec: PodSpec
    status: _Status = _Status()


class Placement(msgspec.Struct, frozen=True):
    """The node that was found, or why there is none, in the scheduler's words."""

    node: str | None
    message: str = ""


def requested(spec: PodSpec) -> dict[str, int]:
    """Return how much of each extended resource a pod asks for.

    Containers' requests add up; an init container needs the most that any does. A request that is not
    written is the limit.
    """
    total: Counter[str] = Counter()
    for container in spec.containers:
        total.update(_extended(container.resources.limits, container.resources.requests))
    for container in spec.init_containers or ():
        for name, count in _extended(container.resources.limits, container.resources.requests).items():
            total[name] = max(total[name], count)
    return {name: count for name, count in total.items() if count}


def _extended(limits: Mapping[str, str | int] | None, requests: Mapping[str, str | int] | None) -> dict[str, int]:
    return {name: whole(quantity) for name, quantity in {**(limits or {}), **(requests or {})}.items() if "/" in name}


def held(pods: Iterable[bytes]) -> dict[str, Counter[str]]:
    """Return how much of each extended resource the pods on each node hold; what cannot be decoded holds nothing."""
    found: dict[str, Counter[str]] = {}
    decoder = msgspec.json.Decoder(_Placed)
    for raw in pods:
        if b'"nodeName"' not in raw:
            continue
        try:
            pod = decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if pod.spec.node_name and pod.status.phase not in _ENDED:
            found.setdefault(pod.spec.node_name, Counter()).update(requested(pod.spec))
    return found


def placed(
    spec: PodSpec, nodes: Iterable[NodeDocument], taken: Mapping[str, _Amounts], tolerations: tuple[Toleration, ...]
) -> Placement:
    """Return the first node, in order, on which a pod can run.

    Args:
        spec: the pod's.
        nodes: all nodes.
        taken: what is held on each, by name.
        tolerations: the pod's.
    """
    wanted = requested(spec)
    reasons: Counter[str] = Counter()
    hopeless = total = 0
    for node in nodes:
        total += 1
        rejection = reject_document(spec, node, tolerations=tolerations)
        if rejection is not None:
            reasons[_REASONS[rejection.rule]] += 1
            hopeless += 1
            continue
        there = {name: whole(node.status.allocatable.get(name, 0)) for name in wanted}
        used = taken.get(node.metadata.name, {})
        lacking = [name for name, count in wanted.items() if count > there[name] - used.get(name, 0)]
        if not lacking:
            return Placement(node.metadata.name)
        reasons.update(f"Insufficient {name}" for name in lacking)
        hopeless += any(wanted[name] > there[name] for name in lacking)
    if not total:
        return Placement(None, "no nodes available to schedule pods")
    return Placement(None, _fit_error(total, reasons, hopeless))


def _fit_error(total: int, reasons: Counter[str], hopeless: int) -> str:
    preemption = Counter(
        {
            "Preemption is not helpful for scheduling": hopeless,
            "No preemption victims found for incoming pod": total - hopeless,
        }
    )
    return (
        f"0/{total} nodes are available: {_counted(reasons)}. no new claims to deallocate, "
        f"preemption: 0/{total} nodes are available: {_counted(preemption)}."
    )


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items() if count))

"""Operator layer: the GPU Operator says that what was asked of it is done, and why not where it is not."""

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.operator import WORKED, Policy
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, MissingKind, Severity

_THEN = "then run 'gpucheck run -k OPR-001'"


@check(
    "OPR-001",
    layer=Layer.OPERATOR,
    severity=Severity.CRITICAL,
    after=(
        "OPR-002",
        "OPR-003",
        "OPR-006",
        "OPR-009",
        "OPR-011",
        "DRV-003",
        "DRV-005",
        "RTM-003",
        "RTM-005",
        "RTC-002",
        "PLG-003",
        "PLG-013",
        "DSC-003",
        "TEL-001",
    ),
)
def check_policies_are_reconciled(cluster: Cluster) -> None:
    """The policy object (ClusterPolicy, GPUCluster, each NVIDIADriver) is ready with reason Reconciled.

    Ready with another reason means that nothing was deployed. An NVIDIADriver that is disabled on purpose is
    passed over, and so is a second ClusterPolicy that the operator ignores, but for a minor word. Operators
    before 23.9 write no conditions: their state alone is judged.
    """
    policies = known(cluster.operator.policies, "the GPU Operator's policy objects")
    if not policies:
        served = known(cluster.operator.is_served, "whether the operator's API is served")
        not_applicable(
            "no ClusterPolicy, GPUCluster or NVIDIADriver exists: nothing is asked of the operator"
            if served
            else "the GPU Operator's API is not served"
        )
    for policy in policies:
        if policy.state not in {"ignored", "disabled"}:
            _judge(policy)
    ignored = [policy for policy in policies if policy.state == "ignored"]
    if ignored:
        fault(
            seen=f"{ignored[0]} is ignored; {len(policies)} policy objects exist",
            means="the operator follows the oldest ClusterPolicy alone, so what this one asks for is not done",
            remedy=f"merge it into the other ('kubectl get clusterpolicy'), and delete this one, {_THEN}",
            severity=Severity.MINOR,
        )


def _judge(policy: Policy) -> None:
    if policy.state == "ready" and policy.is_ready is None:
        if not policy.has_no_conditions_yet:
            reason = f"{policy} is ready and has no Ready condition, which operators write since 23.9.0"
            known(Missing(MissingKind.ERROR, reason, "cluster/clusterpolicies.nvidia.com.json"), "why it is ready")
        return
    if policy.state == "ready" and policy.is_ready and policy.reason == WORKED:
        return
    said = f"{policy.reason or 'no reason'}{f': {policy.message}' if policy.message else ''}"
    if policy.state == "ready" and policy.is_ready:
        fault(
            seen=f"{policy} is ready with reason {said}",
            means="the operator found no node that it takes for a GPU node, so it deployed nothing",
            remedy=f"install or repair Node Feature Discovery, which labels the nodes (DSC-001, DSC-002), {_THEN}",
        )
    states = policy.states_not_ready
    condition = "" if policy.is_ready is None else f", Ready={policy.is_ready}, {said}"
    fault(
        seen=f"{policy} is {policy.state or 'not looked at yet'}{condition}",
        means=f"the operator waits for {', '.join(states)}, the first of which comes first in its order"
        if states
        else "the operator has not done what this object asks for",
        remedy=f"look at the pods of {states[0]} ('kubectl get pods -A | grep -i nvidia'), mend what they name, {_THEN}"
        if states
        else f"mend what the message names ('kubectl describe {policy.kind.lower()} {policy.name}'), {_THEN}",
    )

"""Sharing layer: where GPUs are shared by MPS, its control daemon runs."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("SHR-005", layer=Layer.SHARING, severity=Severity.MAJOR, after=("CLU-004", "PLG-003", "DRV-018"))
def check_mps_control_daemon_runs(node: Node) -> None:
    """Where MPS is configured, its control daemon runs on the node, and MIG is off.

    The daemon's pod is Ready also while it fails to start MPS: its log tells. One that was started by hand on the host
    is not used.
    """
    if not known(node.mps.is_wanted, "the device plugin's configuration"):
        not_applicable("the device plugin does not share this node's GPUs by MPS")
    partitioned = known(node.mps.partitioned, "whether a GPU has MIG on")
    if partitioned:
        fault(
            seen=f"on {node.name} MPS is configured, and MIG is on: {', '.join(partitioned)}",
            means="neither the device plugin nor the control daemon shares MIG devices by MPS: nothing is offered",
            remedy="switch MIG off, or share MIG devices by time-slicing; then run 'gpucheck run -k SHR-005'",
        )
    absence = known(node.mps.absence, "the MPS control daemons")
    if absence is not None:
        fault(
            seen=f"on {node.name} MPS is configured, and no MPS control daemon is there: {absence}",
            means="the device plugin waits for the daemon and registers nothing, or its pods cannot reach the GPU",
            remedy="install the device plugin's chart with gfd.enabled=true, whose labels place the daemon (operator: "
            "devicePlugin.mps), then run 'gpucheck run -k SHR-005'",
        )
    failure = known(node.mps.failure, "how the MPS control daemon fares")
    if failure is not None:
        fault(
            seen=f"on {node.name} MPS is configured, and its control daemon does not serve: {failure}",
            means="programs that are given a share cannot open the GPU, and the device plugin may register nothing",
            remedy="mend what it names, delete its pod on the node, then the device plugin's; then run 'gpucheck run "
            "-k SHR-005'",
        )

"""Workload layer: gpucheck's own workload runs, computes, and sees what it was granted."""

from kube_gpucheck.evidence import Gpu, Node
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Missing, MissingKind, Severity


@check(
    "WRK-001",
    layer=Layer.WORKLOAD,
    severity=Severity.CRITICAL,
    after=("PLG-005", "PLG-006", "PLG-011", "PLG-013", "RTC-002", "CLU-005", "DRA-002"),
)
def check_gpu_pod_runs_and_proves_it(node: Node) -> None:
    """A pod that asks in the way this node serves GPUs is scheduled, runs in time, and proves that it ran.

    Proof: the answer to its nonce comes from the GPU, it has an imageID, and it took time. GPUs that are all held by
    others make this unknown for the node. Whether the sums are right is WRK-002's.
    """
    found = known(node.workload.vector_add, "the workload on this node")
    if found.outcome != "ran":
        fault(
            seen=f"pod '{found.pod}' asked for {found.request} on {node.name}: "
            f"{found.outcome}{': ' + found.reason if found.reason else ''} (limit {found.limit_s:g} s)",
            means="GPU work cannot run here as this node serves GPUs",
            remedy="mend what the reason names, then run 'gpucheck run --active -k WRK-001'",
        )
    lacks = found.lacks
    if lacks:
        fault(
            seen=f"pod '{found.pod}' is said to have run on {node.name}, and {'; '.join(lacks)}",
            means="nothing proves that a GPU has executed the pod: the node may only pretend to run pods",
            remedy="look whether the node executes pods at all (CLU-009), then run 'gpucheck run --active -k WRK-001'",
        )


@check("WRK-002", layer=Layer.WORKLOAD, severity=Severity.CRITICAL, after=("WRK-001", "WRK-011", "DRV-014", "DRV-032"))
def check_gpu_computes(gpu: Gpu) -> None:
    """The GPU computes: a vector addition through the CUDA driver API gives the exact result."""
    device = known(gpu.node.workload.of(gpu), "what this GPU computed")
    if device is None:
        known(
            Missing(MissingKind.NOT_ASKED, f"the workload was not given {gpu.name}", "workload/vectoradd", "--active"),
            "what this GPU computed",
        )
    elif device.wrong or not device.elements:
        fault(
            seen=f"{device.wrong} of {device.elements} sums are wrong on {device.uuid} of {gpu.node.name}",
            means="the GPU, its memory or its link gives wrong results, or gave none",
            remedy="drain the node, run 'dcgmi diag -r 3' on it, and replace the GPU if that fails; then run "
            "'gpucheck run --active -k WRK-002'",
        )


@check("WRK-003", layer=Layer.WORKLOAD, severity=Severity.CRITICAL, after=("WRK-001",))
def check_pod_sees_what_it_was_granted(node: Node) -> None:
    """The pod sees exactly the GPUs that it was granted: its UUIDs equal the kubelet's allocation."""
    found = known(node.workload.vector_add, "the workload on this node")
    if found.outcome != "ran":
        known(
            Missing(
                MissingKind.ERROR,
                f"the workload did not run ({found.outcome}); WRK-001 judges that",
                "workload/vectoradd",
            ),
            "the GPUs that it saw",
        )
    granted = known(node.workload.granted, "what the kubelet allocated")
    if sorted(found.seen) != sorted(granted):
        fault(
            seen=f"pod '{found.pod}' on {node.name} saw {', '.join(sorted(found.seen)) or 'no GPU'}; it was granted "
            f"{', '.join(sorted(granted)) or 'none'}",
            means="the list of granted GPUs does not reach the container as it is: runtime, plugin strategy and "
            "toolkit do not agree",
            remedy="compare the plugin's deviceListStrategy with the toolkit's accept-nvidia-visible-devices "
            "settings, then run 'gpucheck run --active -k WRK-003'",
        )

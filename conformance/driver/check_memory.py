"""Driver layer: what uses the GPUs is known to the cluster."""

from typing import Final

from kube_gpucheck.evidence import Component, Gpu, Pod
from kube_gpucheck.evidence.driver import Memory
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import workload_config
from kube_gpucheck.evidence.stack import recognise
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

DRIVERS_OWN: Final = Threshold(
    "driver-memory", 768, "MiB", "an idle H200 has 615 MiB of 143771 in use (recordings/healthy); the rest is allowance"
)
"""What the driver keeps of each GPU for itself, where NVML counts it as used."""
DRIVERS_SHARE: Final = Threshold("driver-memory-share", 0.005, "of total", "page tables grow with the memory; as above")
DRIVERS_MOST: Final = Threshold(
    "driver-memory-most", 0.4, "of total", "so that small GPUs keep a limit below their size"
)
ENOUGH: Final = Threshold("free-memory-enough", 0.5, "of total", "half a GPU is left for work")


@check("DRV-024", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_gpu_memory_is_accounted_for(gpu: Gpu) -> None:
    """No process holds GPU memory that no running pod or known host service accounts for.

    A process is accounted for by a running pod that was given this GPU (the kubelet's record, where it was read),
    by MPS, or by a display server. Minor while half of the memory is free. Not judged: which pod is whose process,
    and memory below what the driver itself keeps.
    """
    if known(workload_config(gpu.node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: this GPU is not the host's")
    driver = gpu.node.driver
    processes = known(driver.processes(gpu.identity), "what NVML says of the GPU")
    if processes is None:
        not_applicable("NVML cannot list the processes of this GPU")
    memory = driver.memory(gpu.identity)
    size = None if is_not_asked(memory) else known(memory, "the GPU's memory")
    if not processes and (size is None or size.used_mib <= _own(size) or driver.has_display(gpu.identity)):
        return
    if _is_accounted_for(gpu):
        return
    fault(
        seen=_facts(processes, size),
        means="something uses this GPU that the scheduler does not know of: a program on the host, a container that "
        "sees GPUs without asking for one, or what a killed program left behind",
        remedy="run 'nvidia-smi' and 'cat /proc/PID/cgroup' on the node to see whose process it is; end it, or let its "
        "pod ask for nvidia.com/gpu; then run 'gpucheck run -k DRV-024'",
        severity=Severity.MINOR if size is not None and _leaves_enough(size) else None,
    )


def _own(size: Memory) -> float:
    """Return how much of the used memory the driver may keep itself, in MiB."""
    if not size.has_reserved:
        return DRIVERS_SHARE.value * size.total_mib + 64  # a GPU that was never used shows a few MiB
    own = DRIVERS_OWN.value + DRIVERS_SHARE.value * size.total_mib
    return min(own, DRIVERS_MOST.value * size.total_mib)


def _leaves_enough(size: Memory) -> bool:
    return size.total_mib - size.used_mib >= ENOUGH.value * size.total_mib


def _facts(processes: tuple[int | None, ...], size: Memory | None) -> str:
    pids = ", ".join(str(pid) for pid in processes if pid is not None)
    who = f"{len(processes)} process{'es' if len(processes) > 1 else ''}" if processes else "no process that NVML lists"
    used = f"{size.used_mib} of {size.total_mib} MiB used" if size is not None else "memory use is not told"
    return f"{who}{f' (pid {pids})' if pids else ''}, {used}; no running pod on this node was given this GPU"


def _is_accounted_for(gpu: Gpu) -> bool:
    pods = [pod for pod in known(gpu.node.pods, "the node's pods") if _runs(pod)]
    if any(recognise(known(pod.object, "the pod").spec) is Component.MPS_CONTROL_DAEMON for pod in pods):
        return True
    holders = [pod for pod in pods if _holds(pod)]
    if not holders:
        return False
    granted = sum(sum(known(pod.gpu_request, "the pod's request").values()) for pod in holders)
    claims = any(known(pod.object, "the pod").spec.resource_claims for pod in holders)
    is_only_one = len(known(gpu.node.gpus, "the node's GPUs")) == 1
    if claims or is_only_one or (granted >= _busy(gpu) and not gpu.node.kubelet.has_checkpoint):
        return True
    checkpoint = known(gpu.node.kubelet.checkpoint, "the kubelet's record of devices")
    if checkpoint is None:
        return granted >= _busy(gpu)
    uids = {known(pod.object, "the pod").metadata.uid for pod in holders}
    devices = {one for given in checkpoint.allocations if given.pod_uid in uids for one in given.devices}
    return any(_is_of(device, gpu) for device in devices)


def _busy(gpu: Gpu) -> int:
    """Return how many of the node's GPUs have a process."""
    driver = gpu.node.driver
    others = [known(driver.processes(one.identity), "the GPUs' processes") for one in known(gpu.node.gpus, "the GPUs")]
    return sum(bool(processes) for processes in others)


def _is_of(device: str, gpu: Gpu) -> bool:
    """Tell whether a device id is this GPU's: its UUID, a share of it, or a MIG device, which does not tell its GPU."""
    return gpu.identity.uuid is None or device.split("::", 1)[0] == gpu.identity.uuid or not device.startswith("GPU-")


def _runs(pod: Pod) -> bool:
    return known(pod.object, "the pod").status.phase == "Running"


def _holds(pod: Pod) -> bool:
    return bool(known(pod.gpu_request, "the pod's request") or known(pod.object, "the pod").spec.resource_claims)

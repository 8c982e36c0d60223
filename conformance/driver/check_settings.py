"""Driver layer: what administrators set lets work run."""

from kube_gpucheck.evidence import Component, Gpu, Node
from kube_gpucheck.evidence.health import ComputeMode
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.evidence.services import MPS, PERSISTENCED
from kube_gpucheck.evidence.stack import recognise
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("DRV-008", layer=Layer.DRIVER, severity=Severity.MINOR, after=("DRV-005",))
def check_driver_stays_loaded(node: Node) -> None:
    """Persistence mode is on for each GPU, or nvidia-persistenced runs.

    GPUs that have no such mode are passed over. Not judged: whether it comes back after a reboot.
    """
    if (reason := known(given_away(node), "the node's workload type")) is not None:
        not_applicable(reason)
    listed = [gpu for gpu in known(node.gpus, "the GPUs") if gpu.identity.index is not None]
    if not listed:
        known(node.driver.nvml_init_code, "NVML's start")
        not_applicable("NVML lists no GPU; DRV-005 and DRV-006 judge that")
    modes = {gpu.name: known(gpu.health.persistence_is_on, "what NVML says of the GPU") for gpu in listed}
    if all(is_on is None for is_on in modes.values()):
        not_applicable("these GPUs have no persistence mode")
    off = [name for name, is_on in modes.items() if is_on is False]
    if off and not known(node.driver.services.is_running(PERSISTENCED), "the node's services"):
        fault(
            seen=f"persistence mode is off for {', '.join(off)}, and nvidia-persistenced does not run",
            means="without a client the driver shuts the GPU down: the next one waits seconds, ECC counters and "
            "settings are lost, and clients that come and go wear the GPU's state",
            remedy="run 'systemctl enable --now nvidia-persistenced' on the node ('nvidia-smi -pm 1' until the next "
            "boot); then run 'gpucheck run -k DRV-008'",
        )


@check("DRV-019", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_compute_mode_lets_programs_in(gpu: Gpu) -> None:
    """Compute mode is Default, or Exclusive_Process where MPS serves this GPU.

    MPS serves it where its daemon runs on the node, as a process or a pod, or has clients on the GPU. Not judged:
    whether MPS is what the plugin is configured for (SHR-005).
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    mode = known(gpu.health.compute_mode, "what NVML says of the GPU")
    if mode is None:
        not_applicable("this GPU has no compute mode")
    if mode is ComputeMode.DEFAULT or (mode is ComputeMode.EXCLUSIVE_PROCESS and _mps_serves(gpu)):
        return
    fault(
        seen=f"compute mode is {mode.name.title()}"
        + ("; no MPS daemon was seen on the node" if mode is ComputeMode.EXCLUSIVE_PROCESS else ""),
        means="no program can use the GPU"
        if mode is ComputeMode.PROHIBITED
        else "a second program on this GPU, as with time-slicing, ends with 'all CUDA-capable devices are busy'",
        remedy=f"run 'nvidia-smi -c DEFAULT -i {gpu.name}' on the node as root, and remove what sets the mode at "
        "boot; then run 'gpucheck run -k DRV-019'",
    )


def _mps_serves(gpu: Gpu) -> bool:
    clients = gpu.health.mps_clients
    if not is_not_asked(clients) and known(clients, "what NVML says of the GPU"):
        return True
    process = gpu.node.driver.services.is_running(MPS)
    if not is_not_asked(process) and known(process, "the node's services"):
        return True
    pods = gpu.node.pods
    if is_not_asked(pods):
        known(process, "the node's services")
        return False
    return any(
        recognise(known(pod.object, "the pod").spec) is Component.MPS_CONTROL_DAEMON
        for pod in known(pods, "the node's pods")
        if known(pod.object, "the pod").status.phase == "Running"
    )

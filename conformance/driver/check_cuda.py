"""Driver layer: CUDA starts on the host, and is licensed where it must be."""

from typing import Final

from kube_gpucheck.evidence import Gpu, Node
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.evidence.tables import cuda_code
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

_NO_DEVICE: Final = 100


@check("DRV-032", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-005", "DRV-014"))
def check_cuda_starts(node: Node) -> None:
    """CUDA starts on the host and counts a device.

    NVML can be well where CUDA is not. With MIG on and no MIG device there is rightly none. Not judged: CUDA inside
    containers (WRK-002), and how many devices there are, which MIG and compute modes change.
    """
    if (reason := known(given_away(node), "the node's workload type")) is not None:
        not_applicable(reason)
    code = known(node.driver.cuda_init_code, "CUDA's start")
    if code is None:
        not_applicable("no libcuda is on the host; RTM-009 and RTM-016 judge where it must be")
    if code == _NO_DEVICE and _is_empty_by_mig(node):
        not_applicable("MIG is on and has no device, so that CUDA has none; SHR-002 judges that")
    if code != 0:
        said = cuda_code(code)
        fault(
            seen=f"cuInit answers {code} ({said.name})",
            means=said.meaning,
            remedy=f"{said.remedy}; then run 'gpucheck run -k DRV-032'",
        )
    count = known(node.driver.cuda_devices, "how many devices CUDA counts")
    if count == 0:
        fault(
            seen="cuInit succeeds, and cuDeviceGetCount counts 0",
            means="no GPU is usable for CUDA, though the driver is",
            remedy="compare 'nvidia-smi -L' with 'ls -l /dev/nvidia*'; then run 'gpucheck run -k DRV-032'",
        )


def _is_empty_by_mig(node: Node) -> bool:
    listed = [gpu.identity for gpu in known(node.gpus, "the GPUs") if gpu.identity.index is not None]
    driver = node.driver
    on = [
        known(driver.mig_is_on(gpu), "the GPU's MIG mode") for gpu in listed if not is_not_asked(driver.mig_mode(gpu))
    ]
    return bool(on) and all(on) and not any(known(driver.mig_profiles(gpu), "the MIG devices") for gpu in listed)


@check("DRV-029", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_vgpu_guest_is_licensed(gpu: Gpu) -> None:
    """A virtual GPU holds a licence.

    Not judged: a GPU that is no share of one, and until when the licence holds.
    """
    is_vgpu = known(gpu.health.is_vgpu, "what NVML says of the GPU")
    if not is_vgpu:
        not_applicable("this is no virtual GPU")
    licences = known(gpu.health.licences, "what NVML says of the GPU")
    if not licences:
        not_applicable("this virtual GPU has no feature that needs a licence")
    enabled = [one for one in licences if one.enabled] or list(licences)
    if not any(one.licensed for one in enabled):
        fault(
            seen=f"{', '.join(one.product or 'the feature' for one in enabled)} is not licensed",
            means="after a while without a licence the virtual GPU is slowed down, and CUDA with it",
            remedy="put the client token into /etc/nvidia/ClientConfigToken (or the licence server into "
            "/etc/nvidia/gridd.conf), restart nvidia-gridd and read its journal; with the GPU Operator: "
            "driver.licensingConfig; then run 'gpucheck run -k DRV-029'",
        )

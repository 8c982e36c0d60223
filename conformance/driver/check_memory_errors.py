"""Driver layer: the GPU's memory has no errors that matter."""

from kube_gpucheck.evidence import Gpu
from kube_gpucheck.evidence.health import Sram
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity


@check("DRV-009", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-005",))
def check_no_uncorrectable_memory_error(gpu: Gpu) -> None:
    """The GPU's memory had no uncorrectable error since the driver loaded.

    Critical where SRAM has more errors than the GPU's own threshold lets pass, or a row could not be remapped; else
    major. Errors of earlier times alone are info. Not judged: correctable errors, and rows that wait (DRV-010).
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    health = gpu.health
    is_on = known(health.ecc_is_on, "what NVML says of the GPU")
    if not is_on:
        not_applicable("this GPU has no ECC" if is_on is None else "ECC is off, so that no error is counted")
    errors = known(health.uncorrected, "what NVML says of the GPU")
    if errors is None:
        not_applicable("this GPU does not count its memory errors")
    sram = None if is_not_asked(health.sram) else known(health.sram, "what NVML says of the GPU")
    if errors or (sram is not None and sram.exceeded):
        _fault(gpu, errors, sram)
    ever = known(health.uncorrected_ever, "what NVML says of the GPU")
    if ever:
        fault(
            seen=f"0 uncorrectable errors since the driver loaded, {ever} over the GPU's life",
            means="the GPU had such errors before, and has repaired or retired what was hit",
            remedy="nothing to mend; watch whether the number grows ('nvidia-smi -q -d ECC')",
            severity=Severity.INFO,
        )


def _fault(gpu: Gpu, errors: int, sram: Sram | None) -> None:
    exceeded = sram is not None and sram.exceeded
    remap = gpu.health.remap
    failed = False if is_not_asked(remap) else (known(remap, "what NVML says of the GPU") is not None and _failed(gpu))
    parts = [f"{errors} uncorrectable error{'' if errors == 1 else 's'} since the driver loaded"]
    if sram is not None and sram.errors:
        parts.append(f"{sram.errors} of them in SRAM")
    if exceeded:
        parts.append("SRAM has exceeded the GPU's own error threshold")
    if failed:
        parts.append("a row could not be remapped")
    replace = exceeded or failed
    fault(
        seen="; ".join(parts),
        means="what ran on the GPU was ended or computed wrongly"
        + (
            ", and the GPU cannot repair itself any more"
            if replace
            else "; a reset lets the GPU set the bad part aside"
        ),
        remedy=("drain the node and replace the GPU" if replace else "drain the node and reset the GPU, or reboot")
        + "; then run 'gpucheck run -k DRV-009'",
        severity=Severity.CRITICAL if replace else Severity.MAJOR,
    )


def _failed(gpu: Gpu) -> bool:
    remap = known(gpu.health.remap, "what NVML says of the GPU")
    return remap is not None and remap.failed


@check("DRV-010", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_memory_repair_is_complete(gpu: Gpu) -> None:
    """No row remap is pending or failed, no retired page is pending, and no bank of memory has run out of spare rows.

    Row remapping is Ampere's and later, page retirement that of earlier GPUs; NVML offers neither of GeForce, nor the
    former while MIG is on. Not judged: how many rows were remapped.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    health = gpu.health
    remap = known(health.remap, "what NVML says of the GPU")
    if remap is None:
        _judge_pages(gpu)
        return
    counted = f"{remap.correctable} rows remapped for correctable, {remap.uncorrectable} for uncorrectable errors"
    if remap.failed:
        fault(
            seen=f"a row could not be remapped; {counted}",
            means="the GPU has no spare row for it: the bad memory stays in use",
            remedy="drain the node and replace the GPU; then run 'gpucheck run -k DRV-010'",
        )
    if remap.pending:
        fault(
            seen=f"a row waits to be remapped; {counted}",
            means="a bad row stays in use until the GPU is reset",
            remedy=f"drain the node, run 'nvidia-smi --gpu-reset -i {gpu.name}' or reboot; "
            "then run 'gpucheck run -k DRV-010'",
        )
    banks = known(health.banks_without_spares, "what NVML says of the GPU")
    if banks:
        fault(
            seen=f"{banks} bank{'' if banks == 1 else 's'} of memory without a spare row; {counted}",
            means="the next bad row there cannot be set aside",
            remedy="plan to replace the GPU; then run 'gpucheck run -k DRV-010'",
        )


def _judge_pages(gpu: Gpu) -> None:
    pending = known(gpu.health.retirement_is_pending, "what NVML says of the GPU")
    if pending is None:
        not_applicable("NVML offers neither row remapping nor page retirement of this GPU, or not in MIG mode")
    if pending:
        fault(
            seen="a page of memory waits to be retired",
            means="a bad page stays in use until the driver is loaded anew",
            remedy=f"drain the node, run 'nvidia-smi --gpu-reset -i {gpu.name}' or reboot; "
            "then run 'gpucheck run -k DRV-010'",
        )

"""Driver layer: NVML starts, lists every GPU, and every GPU answers."""

from typing import Final

from kube_gpucheck.evidence import Gpu, Node
from kube_gpucheck.evidence.health import Recovery
from kube_gpucheck.evidence.kernel_log import slot_of
from kube_gpucheck.evidence.pci import given_away, off_the_bus, workload_config
from kube_gpucheck.evidence.tables import nvml_code
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity

UNKNOWN_ERROR = 999


@check("DRV-005", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-003", "DRV-004", "RTM-009"))
def check_nvml_starts(node: Node) -> None:
    """NVML initialises on the host.

    Not judged: NVML inside containers (RTC-004), and CUDA, which can fail where NVML works (DRV-032).
    """
    if known(workload_config(node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: its GPUs are not the host's")
    code = known(node.driver.nvml_init_code, "NVML's start")
    if code != 0:
        said = nvml_code(code)
        fault(
            seen=f"nvmlInit answers {code} ({said.name})",
            means=said.meaning,
            remedy=f"{said.remedy}; then run 'gpucheck run -k DRV-005'",
        )


@check("DRV-006", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-001", "DRV-005"))
def check_nvml_lists_every_gpu(node: Node) -> None:
    """NVML lists as many GPUs as the PCI bus does.

    Not judged: a GPU that has gone from the bus as well (CLU-008 compares with siblings).
    """
    config = known(workload_config(node), "the node's workload type")
    if config != "container":
        not_applicable(f"the node's workload type is {config}: not every function on the bus is the host's")
    driver = node.driver
    on_bus = known(driver.pci_gpus, "the PCI bus")
    listed = known(driver.nvml_gpus, "the GPUs that NVML lists")
    if not on_bus:
        not_applicable(off_the_bus(node) or "the PCI bus has no NVIDIA GPU; DRV-001 judges that")
    indices = {gpu.address: gpu.index for gpu in known(driver.gpus, "the GPUs")}
    absent = [gpu for gpu in on_bus if indices[gpu.address] is None]
    if not absent:
        return
    named = ", ".join(f"{gpu.address} ({_story(node, gpu.address)})" for gpu in absent)
    if known(driver.nvml_init_code, "NVML's start") != 0:
        means, remedy = "NVML does not start, so that it lists no GPU", "mend what DRV-005 names first"
    elif any(gpu.driver == "nvidia" for gpu in absent):
        means = "the driver holds the GPU and cannot bring it up, or has lost it"
        remedy = "drain the node and power-cycle it; if the same GPU stays away, reseat or replace it"
    else:
        means, remedy = "the driver does not have the GPU", "mend what DRV-001 names first"
    fault(
        seen=f"the PCI bus has {_counted(len(on_bus))}, NVML lists {len(listed)}; it lacks {named}",
        means=means,
        remedy=f"{remedy}; then run 'gpucheck run -k DRV-006'",
    )


def _counted(number: int) -> str:
    return f"{number} GPU" if number == 1 else f"{number} GPUs"


def _story(node: Node, address: str) -> str:
    """Say what is known of a GPU that NVML lacks: what the kernel said of it, else why NVML has none."""
    information = node.driver.information(address)
    if isinstance(information, Seen) and (information.value or {}).get("GPU Excluded") == "Yes":
        return "excluded by the module's parameter NVreg_ExcludedGpus"
    log = node.driver.kernel_log
    if isinstance(log, Seen):
        slot = slot_of(address)
        for notice in log.value.notices:
            if notice.address == slot:
                return f"the kernel log says '{notice.text}'"
        for xid in log.value.xids:
            if xid.address == slot:
                return f"the kernel log says 'Xid {xid.code}, {xid.text}'"
    code = node.driver.nvml_init_code
    if isinstance(code, Seen) and code.value != 0:
        return f"nvmlInit answers {nvml_code(code.value)}"
    return "nothing that was read says why"


@check("DRV-018", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_mig_mode_is_what_was_asked(gpu: Gpu) -> None:
    """MIG mode now equals MIG mode pending.

    Not judged: whether MIG should be on (SHR-002 compares with the strategy).
    """
    if known(workload_config(gpu.node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: this GPU is not the host's")
    mode = known(gpu.node.driver.mig_mode(gpu.identity), "what NVML says of the GPU")
    if mode is None:
        not_applicable("this GPU has no MIG")
    now, pending = mode
    if now != pending:
        fault(
            seen=f"MIG is {_on(is_on=now)} and pending is {_on(is_on=pending)}",
            means=f"MIG was turned {_on(is_on=pending)} and waits for a reset of the GPU, with no client on it",
            remedy="drain the node, stop the device plugin, DCGM and nvidia-persistenced on it, run 'nvidia-smi "
            f"--gpu-reset -i {gpu.name}' or reboot, then 'gpucheck run -k DRV-018'",
        )


def _on(*, is_on: bool) -> str:
    return "on" if is_on else "off"


@check("DRV-023", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-005",))
def check_gpu_answers(gpu: Gpu) -> None:
    """The GPU answers every query that NVML was asked of it.

    An answer of "not supported" is one. Major where only some queries end in an unknown error. Not judged: the values.
    """
    if known(workload_config(gpu.node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: this GPU is not the host's")
    answers = known(gpu.node.driver.queries(gpu.identity), "what NVML says of the GPU")
    if not answers:
        not_applicable("NVML was asked nothing of this GPU")
    bad = [(call, nvml_code(answer.code)) for call, answer in answers if nvml_code(answer.code).lost]
    if not bad:
        return
    call, worst = min(bad, key=lambda one: (one[1].code == UNKNOWN_ERROR, one[1].code))
    partly = all(one.code == UNKNOWN_ERROR for _, one in bad) and len(bad) < len(answers)
    fault(
        seen=f"{len(bad)} of {len(answers)} queries failed; {call} answers {worst.code} ({worst.name})",
        means=worst.meaning,
        remedy=f"{worst.remedy}; then run 'gpucheck run -k DRV-023'",
        severity=Severity.MAJOR if partly else None,
    )


_ACTIONS: Final = {
    Recovery.GPU_RESET: ("reset", "a reset of this GPU", "drain the node and run 'nvidia-smi --gpu-reset -i {gpu}'"),
    Recovery.NODE_REBOOT: ("reboot", "a reboot of the node", "drain and reboot the node"),
    Recovery.DRAIN_P2P: (
        "drain P2P",
        "that peers stop using this GPU over NVLink",
        "end the jobs that share this GPU with others, so that the driver can take it out of the fabric and back",
    ),
    Recovery.DRAIN_AND_RESET: (
        "drain and reset",
        "that its work ends, and then a reset",
        "let what runs on this GPU end, give it nothing new, then run 'nvidia-smi --gpu-reset -i {gpu}'",
    ),
    Recovery.RECOVER_IMEX_DOMAIN: (
        "recover the IMEX domain",
        "that the domain's IMEX daemons are set up anew",
        "restart nvidia-imex on all nodes of the domain, or delete the ComputeDomain's pods",
    ),
}
"""What each action is called, what the GPU asks for by it, and how it is done. Source: nvml.h."""


@check("DRV-027", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-005",))
def check_gpu_asks_for_no_recovery(gpu: Gpu) -> None:
    """NVML's recovery action for the GPU is none.

    Major where work that runs may go on. Not judged: drivers that do not tell (before 570), and what led to it, which
    the kernel log's XIDs tell (DRV-011).
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    action = known(gpu.health.recovery, "what NVML says of the GPU")
    if action is None:
        not_applicable("this GPU or driver tells no recovery action")
    if action is not Recovery.NONE:
        name, wants, step = _ACTIONS[action]
        goes_on = action in {Recovery.DRAIN_P2P, Recovery.DRAIN_AND_RESET}
        fault(
            seen=f"the recovery action is {action.value} ({name})",
            means=f"after an error the GPU asks for {wants}" + ("" if goes_on else "; until then work on it fails"),
            remedy=f"{step.format(gpu=gpu.name)}; then run 'gpucheck run -k DRV-027'",
            severity=Severity.MAJOR if goes_on else None,
        )

"""Driver layer: PCIe, NVLink and the NVLink fabric carry what the hardware can."""

import math
from collections import Counter
from typing import Final

from kube_gpucheck.evidence import Gpu
from kube_gpucheck.evidence.fleet import Kind, machine
from kube_gpucheck.evidence.health import FabricState, PcieLink
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.evidence.tables import nvml_code
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, Reading, Seen, Severity

BIT_ERRORS: Final = Threshold(
    "pcie-bit-errors",
    1e-12,
    "per bit",
    "PCI Express Base Specification, bit error ratio; DCGM 4.6.0 takes it likewise",
)
NVLINK_EVENTS: Final = Threshold(
    "nvlink-events", 1, "per minute", "DCGM 4.6.0, common/DcgmGPUHardwareLimits.h, DCGM_LIMIT_MAX_NVLINK_ERROR"
)
NVLINK_CRC: Final = Threshold(
    "nvlink-crc", 100, "per second", "DCGM 4.6.0, common/DcgmGPUHardwareLimits.h, DCGM_LIMIT_MAX_NVLINK_CRC_ERROR"
)
_GIGATRANSFERS: Final = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
"""Transfers a second and lane by PCIe generation, in 10⁹. Source: PCI Express Base Specification."""
_NOT_READY: Final = 802


@check("DRV-012", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_pcie_link_is_whole(gpu: Gpu) -> None:
    """The PCIe link has the width and, under load, the generation that GPU and slot both support, and repeats little.

    An idle GPU lowers its generation to save power; then only the width is judged. Repeats are judged over the time
    since boot, and over that of the sweep. Not judged: virtual machines, which do not see the hardware's link.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    on_bus = gpu.node.driver.pci_gpus
    if not is_not_asked(on_bus) and gpu.identity.address not in {one.address for one in known(on_bus, "the PCI bus")}:
        not_applicable("this GPU stands on no PCI bus of the host, as on WSL2 and Tegra")
    health = gpu.health
    if not known(health.is_of_a_machine, "what NVML says of the GPU"):
        not_applicable("this is a virtual machine, which does not see the hardware's link")
    if known(health.has_c2c, "what NVML says of the GPU"):
        not_applicable("this GPU reaches its CPU by NVLink-C2C")
    link = known(health.pcie, "what NVML says of the GPU")
    if link is None:
        not_applicable("NVML does not tell this GPU's PCIe link")
    if link.width < link.max_width:
        _fault_link(link, f"the link trains at x{link.width}, GPU and slot support x{link.max_width}")
    if link.generation < link.max_generation and known(health.is_idle, "what NVML says of the GPU") is False:
        _fault_link(link, f"under load the link is {link}")
    _judge_replays(gpu, link)


def _fault_link(link: PcieLink, seen: str) -> None:
    share = link.width * 2.0**link.generation / (link.max_width * 2.0**link.max_generation)
    fault(
        seen=seen,
        means=f"copies between host and GPU reach about {share:.0%} of what they could, by seating, riser or slot",
        remedy="drain the node and power it off; reseat GPU and riser, look at the slot's bifurcation in firmware, try "
        "the GPU in another slot; then run 'gpucheck run -k DRV-012'",
    )


def _judge_replays(gpu: Gpu, link: PcieLink) -> None:
    replays = known(gpu.health.replays, "what NVML says of the GPU")
    if not replays:
        return
    minutes = known(gpu.node.driver.uptime_s, "the host's uptime") / 60
    allowed = math.ceil(_GIGATRANSFERS.get(link.generation, 64.0) * 1e9 * BIT_ERRORS.value * 60 * link.width)
    later = gpu.health.later_replays
    grown = 0 if is_not_asked(later) else (known(later, "what NVML says of the GPU") or replays) - replays
    if replays > allowed * max(minutes, 1) or grown > allowed:
        fault(
            seen=f"{replays} replays in {minutes:.0f} minutes"
            + (f", {grown} of them while it was read" if grown > 0 else "")
            + f"; a sound link of gen {link.generation} x{link.width} has at most {allowed} a minute",
            means="data is sent again and again: the link's signal is bad, as of a loose card or riser",
            remedy="drain the node and power it off; reseat GPU and riser, try the GPU in another slot; then run "
            "'gpucheck run -k DRV-012'",
        )


@check("DRV-013", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_nvlinks_are_active(gpu: Gpu) -> None:
    """As many NVLinks are active as on the GPU's siblings, and their errors do not grow.

    Siblings are GPUs of the same product on this node, else on nodes of the same kind. Errors are judged over the time
    since boot; a link that failed to come back counts alone. Not judged: a fabric that is not set up (DRV-014).
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    health = gpu.health
    links = known(health.nvlinks, "what NVML says of the GPU")
    if links is None:
        not_applicable("this GPU has no NVLink")
    active = sum(links)
    if not active and not known(_has_switches(gpu), "whether NVLinks lead to NVSwitches"):
        not_applicable(f"none of its {len(links)} NVLinks is connected")
    others = _siblings(gpu)
    usual = max(others.values(), default=active)
    if active < usual:
        like = next(name for name, count in others.items() if count == usual)
        down = ", ".join(str(number) for number, is_active in enumerate(links) if not is_active)
        fault(
            seen=f"{active} of {len(links)} NVLinks are active, {usual} on {like}; down: {down}",
            means="GPUs reach this one by fewer lanes, or not at all, and collective operations run at its pace",
            remedy="read 'nvidia-smi nvlink -s' and Fabric Manager's log, drain and reboot the node; have bridge or "
            "baseboard checked if it comes again; then run 'gpucheck run -k DRV-013'",
        )
    _judge_link_errors(gpu)


def _has_switches(gpu: Gpu) -> Reading[bool]:
    connected = gpu.health.links_to_switches
    if isinstance(connected, Seen) and connected.value:
        return Seen(value=True)
    switches = gpu.node.driver.nvswitches
    return switches if isinstance(switches, Missing) else Seen(bool(switches.value))


def _siblings(gpu: Gpu) -> dict[str, int]:
    """Return how many NVLinks are active on each sibling, by its name; one that does not say tells of itself."""
    product = known(gpu.health.product, "what NVML says of the GPU")
    here = {}
    for other in known(gpu.node.gpus, "the node's GPUs"):
        name, links = other.health.product, other.health.nvlinks
        if other.name == gpu.name or isinstance(name, Missing) or isinstance(links, Missing):
            continue
        if name.value == product:
            here[other.name] = sum(links.value or ())
    if here:
        return here
    kind = Kind((product or "").replace(" ", "-"), machine(gpu.node))
    alike = known(gpu.cluster.fleet.links, "the GPUs of the other nodes").get(kind, ())
    elsewhere = [one for one in alike if one.node != gpu.node.name]
    usual = Counter(one.active for one in elsewhere).most_common(1)
    return {f"{one.node}/{one.gpu}": one.active for one in elsewhere if one.active == usual[0][0]}


def _judge_link_errors(gpu: Gpu) -> None:
    down = known(gpu.health.links_declared_down, "what NVML says of the GPU")
    if down:
        _fault_errors(f"NVLink {', '.join(map(str, down))} failed to recover since the driver loaded")
    errors = {
        kind: count for kind, count in known(gpu.health.link_errors, "what NVML says of the GPU").items() if count
    }
    if not errors:
        return
    seconds = max(known(gpu.node.driver.uptime_s, "the host's uptime"), 60.0)
    events = sum(errors.get(kind, 0) for kind in ("REPLAY", "RECOVERY")) / (seconds / 60)
    broken = sum(errors.get(kind, 0) for kind in ("CRC_FLIT", "CRC_DATA")) / seconds
    if events > NVLINK_EVENTS.value or broken > NVLINK_CRC.value:
        told = ", ".join(f"{count} {kind.lower().replace('_', ' ')}" for kind, count in errors.items())
        _fault_errors(
            f"{told} errors in {seconds / 60:.0f} minutes; at most {NVLINK_EVENTS.value:.0f} replay or recovery a "
            f"minute and {NVLINK_CRC.value:.0f} CRC errors a second are sound"
        )


def _fault_errors(seen: str) -> None:
    fault(
        seen=seen,
        means="an NVLink's signal is bad; it slows down, and will go down",
        remedy="drain the node; read 'nvidia-smi nvlink -e' and the kernel log's XID 74, reboot, and have bridge or "
        "baseboard checked if it comes again; then run 'gpucheck run -k DRV-013'",
    )


@check(
    "DRV-014",
    layer=Layer.DRIVER,
    severity=Severity.CRITICAL,
    after=("DRV-005", "DRV-006", "DRV-013", "DRV-025"),
)
def check_gpu_is_part_of_its_fabric(gpu: Gpu) -> None:
    """The GPU's registration with its NVLink fabric is complete, successful and healthy.

    Judged by NVML from Hopper on; on earlier systems with NVSwitches by whether CUDA answers that the fabric is not
    ready. Major where the GPU registered and something of the fabric is bad. Not judged: GPUs without such a fabric.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    fabric = known(gpu.health.fabric, "what NVML says of the GPU")
    if fabric is None or fabric.state is FabricState.NOT_SUPPORTED:
        _judge_by_cuda(gpu)
        return
    if fabric.state is not FabricState.COMPLETED:
        state = fabric.state.name.lower().replace("_", " ")
        fault(
            seen=f"the GPU's registration with its NVLink fabric is {state}",
            means="CUDA does not start (802) until Fabric Manager has set up the fabric",
            remedy=_SET_UP,
        )
    if fabric.status:
        fault(
            seen=f"the registration ended with {nvml_code(fabric.status)}",
            means="Fabric Manager refused the GPU, or lost it",
            remedy=_SET_UP,
        )
    if fabric.troubles:
        fault(
            seen="; ".join(fabric.troubles),
            means="the fabric works in part: some GPUs are reached slowly, or not at all",
            remedy="read Fabric Manager's log (of NVL72 that of NMX on the switch trays), drain and reboot the node; "
            "then run 'gpucheck run -k DRV-014'",
            severity=Severity.MAJOR,
        )


_SET_UP: Final = (
    "run 'systemctl status nvidia-fabricmanager' on the node; install it in exactly the driver's version, 'systemctl "
    "enable --now nvidia-fabricmanager', and read /var/log/fabricmanager.log; then run 'gpucheck run -k DRV-014'"
)


def _judge_by_cuda(gpu: Gpu) -> None:
    switches = known(gpu.node.driver.nvswitches, "the PCI bus")
    if not switches:
        not_applicable("this GPU belongs to no NVLink fabric")
    code = known(gpu.node.driver.cuda_init_code, "CUDA's start")
    if code == _NOT_READY:
        fault(
            seen=f"cuInit answers {_NOT_READY} on a node with NVSwitches ({', '.join(switches)})",
            means="the NVLink fabric is not set up: Fabric Manager does not run, or has not finished",
            remedy=_SET_UP,
        )
    if code != 0:
        not_applicable("CUDA does not start, for another reason; DRV-032 judges that")

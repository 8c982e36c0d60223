"""Driver layer: the services and modules beside the driver that this node needs."""

from typing import Final

from kube_gpucheck.evidence import Gpu, Node, computedomain
from kube_gpucheck.evidence.modules import Flavour
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.evidence.services import FABRIC_MANAGER, IMEX, PERSISTENCED
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

_DMA_BUF_SINCE: Final = (5, 12)
"""The kernel from which the open modules offer DMA-BUF. Source: GPU Operator documentation, GPUDirect RDMA."""


@check("DRV-025", layer=Layer.DRIVER, severity=Severity.MINOR)
def check_services_that_the_node_needs_run(node: Node) -> None:
    """Fabric Manager runs, in the driver's version, where NVSwitches are; IMEX runs where it must, and only there.

    Fabric Manager: where NVSwitches stand on the bus, or NVLinks lead to some, except in a rack, whose switches run it.
    Host IMEX: in a rack's domain, unless the DRA driver's compute-domain plugin is on the node, which runs it itself. A
    service of the driver's that systemd calls failed is a fault anywhere. Not judged: configurations.
    """
    if (reason := known(given_away(node), "the node's workload type")) is not None:
        not_applicable(reason)
    in_domain = any(known(gpu.health.is_in_rack_domain, "what NVML says of the GPU") for gpu in _listed(node))
    _judge_failed(node)
    if known(node.driver.manages_switches, "whether NVSwitches are there"):
        _judge_fabric_manager(node)
    _judge_imex(node, in_domain=in_domain)


def _listed(node: Node) -> list[Gpu]:
    return [gpu for gpu in known(node.gpus, "the GPUs") if gpu.identity.index is not None]


def _judge_failed(node: Node) -> None:
    for name in (PERSISTENCED, FABRIC_MANAGER, IMEX):
        unit = known(node.driver.services.unit(name), "the node's services")
        if unit is not None and unit.state == "failed":
            fault(
                seen=f"systemd calls {name} failed",
                means="the service did not start, or ended with an error",
                remedy=f"run 'journalctl -u {name} -b' on the node and mend what it says, then 'systemctl restart "
                f"{name}'; then run 'gpucheck run -k DRV-025'",
            )


def _judge_fabric_manager(node: Node) -> None:
    driver = node.driver
    if not known(driver.services.is_running(FABRIC_MANAGER), "the node's services"):
        fault(
            seen="the node has NVSwitches, and nvidia-fabricmanager does not run",
            means="the NVLink fabric is not set up: CUDA does not start (802) while nvidia-smi looks well",
            remedy="install nvidia-fabricmanager in exactly the driver's version and run 'systemctl enable --now "
            "nvidia-fabricmanager' on the node; then run 'gpucheck run -k DRV-025'",
        )
    version = driver.services.fabric_manager_version
    mine = None if is_not_asked(version) else known(version, "Fabric Manager's version")
    module = known(driver.module_version, "the loaded nvidia module")
    if mine is not None and module is not None and mine != module:
        fault(
            seen=f"Fabric Manager is {mine}, the loaded driver {module}",
            means="Fabric Manager ends when it starts with another driver than its own",
            remedy=f"install nvidia-fabricmanager {module} and restart it; update both together from then on; then run "
            "'gpucheck run -k DRV-025'",
        )


def _judge_imex(node: Node, *, in_domain: bool) -> None:
    runs = known(node.driver.services.is_running(IMEX), "the node's services")
    if not runs and not in_domain:
        return
    if known(computedomain.manages_imex(node), "the node's pods"):
        if known(computedomain.host_imex_runs(node), "the node's services"):
            fault(
                seen="nvidia-imex runs on the host, and the DRA driver's compute-domain plugin is on the node",
                means="both want the same domain; ComputeDomains do not become ready",
                remedy="run 'systemctl disable --now nvidia-imex' and 'systemctl mask nvidia-imex' on the node; then "
                "run 'gpucheck run -k DRV-025'",
            )
        return
    if not runs:
        fault(
            seen="the GPUs are part of a rack's NVLink domain; neither nvidia-imex nor a compute-domain plugin runs",
            means="memory cannot be shared with GPUs of other nodes over NVLink (CUDA answers 800)",
            remedy="run 'systemctl enable --now nvidia-imex' on each node of the domain, or install the DRA driver "
            "with ComputeDomains; then run 'gpucheck run -k DRV-025'",
        )


@check("DRV-031", layer=Layer.DRIVER, severity=Severity.MINOR, after=("DRV-003",))
def check_gpudirect_pieces_are_loaded(node: Node) -> None:
    """The GPUDirect modules that the GPU Operator's policy asks for are loaded, or DMA-BUF does their work.

    nvidia_peermem for RDMA, unless the open modules and the kernel offer DMA-BUF; nvidia_fs for storage; gdrdrv for
    GDRCopy. Not judged: nodes of which no policy asks for any, and whether a network card uses them.
    """
    wanted = known(node.cluster.operator.gpudirect, "the GPU Operator's policy")
    if not wanted:
        not_applicable("no policy of the GPU Operator asks for GPUDirect")
    driver = node.driver
    absent = [name for name in wanted if not known(driver.is_loaded(name), "the loaded kernel modules")]
    if "nvidia_peermem" in absent and _offers_dma_buf(node):
        absent.remove("nvidia_peermem")
    if absent:
        fault(
            seen=f"the policy asks for {', '.join(wanted[name] for name in absent)}; not loaded: {', '.join(absent)}",
            means="transfers between GPU and network or storage go through the host's memory",
            remedy="read the log of the driver pod's container for it (nvidia-peermem-ctr, nvidia-fs-ctr, "
            "nvidia-gdrcopy-ctr), which names what is missing, as OFED or headers; then run 'gpucheck run -k DRV-031'",
        )


def _offers_dma_buf(node: Node) -> bool:
    flavour = known(node.driver.module_flavour, "the loaded nvidia module")
    release = known(node.driver.kernel_release, "the kernel's release").split("-")[0].split(".")
    numbers = tuple(int(one) for one in release[:2] if one.isdecimal())
    return flavour is Flavour.OPEN and numbers >= _DMA_BUF_SINCE

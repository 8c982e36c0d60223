"""Driver layer: the kernel modules are loaded, and are the right ones for these GPUs."""

from typing import Final

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.driver import Hindrance, Obstacle
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.kernel_log import NoticeKind, slot_of
from kube_gpucheck.evidence.modules import Flavour
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import off_the_bus, workload_config
from kube_gpucheck.evidence.tables import Generation
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity

_REMEDIES: Final = {
    Obstacle.NOT_INSTALLED: "install the NVIDIA driver (Ubuntu: 'apt install nvidia-driver-NNN-server', Red Hat: "
    "'dnf module install nvidia-driver', or the GPU Operator's driver) and reboot the node",
    Obstacle.REBOOT_PENDING: "drain and reboot the node",
    Obstacle.NOUVEAU: "do what DRV-002 says about nouveau",
    Obstacle.HEADERS_MISSING: "install the headers of the running kernel (Ubuntu: 'apt install "
    "linux-headers-$(uname -r)', Red Hat: 'dnf install kernel-devel-$(uname -r)'), then run 'dkms autoinstall' and "
    "'modprobe nvidia'",
    Obstacle.NOT_BUILT: "run 'dkms autoinstall' (or install the distribution's module package for this kernel), "
    "then 'modprobe nvidia'",
    Obstacle.SECURE_BOOT: "install the distribution's signed driver packages, or enrol the key that signed the module "
    "('mokutil --import'), then reboot the node",
    Obstacle.SELINUX: "install container-selinux and run 'restorecon -R' on the driver's files, then load the module "
    "again",
    Obstacle.BLACKLISTED: "take that word off the kernel's command line and reboot the node",
    Obstacle.WRONG_BUILD: "rebuild the module for this kernel ('dkms install --force nvidia/VERSION') and run "
    "'modprobe nvidia'",
    Obstacle.NOT_LOADED: "run 'modprobe nvidia' on the node; if it fails, 'dmesg' says why",
    Obstacle.UNTOLD: "run 'modprobe nvidia' on the node; if it fails, 'dmesg' says why",
}


@check("DRV-003", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-002", "DRV-022", "DRV-028"))
def check_modules_are_loaded(node: Node) -> None:
    """The nvidia kernel module is loaded, and nvidia_uvm is loaded or loadable, for the running kernel.

    Not judged: modules for display (nvidia_drm, nvidia_modeset), and whether the module drives the GPU (DRV-001).
    """
    if known(workload_config(node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: no nvidia module has a place on it")
    driver = node.driver
    if not known(driver.nvidia_loaded, "the loaded kernel modules"):
        by_design = off_the_bus(node)
        if by_design is not None:
            not_applicable(by_design)
        found = driver.hindrance
        fault(
            seen="; ".join(("the nvidia module is not loaded", *found.facts)),
            means=_meaning(found),
            remedy=f"{_REMEDIES[found.obstacle]}; then run 'gpucheck run -k DRV-003'",
        )
    if not known(driver.uvm_usable, "the nvidia_uvm module"):
        fault(
            seen="nvidia is loaded; nvidia_uvm is neither loaded nor on disk beside it",
            means="CUDA cannot start: cuInit needs nvidia_uvm",
            remedy="install the driver's modules package again, run 'modprobe nvidia_uvm', then 'gpucheck run -k "
            "DRV-003'",
        )


def _meaning(found: Hindrance) -> str:
    return f"no program can reach the GPU: {found.obstacle.value}"


@check("DRV-022", layer=Layer.DRIVER, severity=Severity.CRITICAL)
def check_module_flavour_fits_the_gpus(node: Node) -> None:
    """The kernel modules' flavour (open or proprietary) fits every GPU, and the open ones' GSP firmware runs.

    Blackwell and GH200 need the open modules; Maxwell, Pascal and Volta the proprietary ones. Judged of the loaded
    module, else of the one on disk. Not judged: GSP with the proprietary modules, which work without it.
    """
    driver = node.driver
    flavour, where = _flavour(node)
    gpus = known(driver.gpus, "the GPUs")
    if not gpus:
        not_applicable("no GPU is on the PCI bus or in NVML; DRV-001 judges that")
    generations = [(gpu, known(driver.generation(gpu), "the GPU's generation")) for gpu in gpus]
    wrong = [(gpu, one) for gpu, one in generations if one.modules not in {"either", flavour.value}]
    if wrong:
        gpu, one = wrong[0]
        fault(
            seen=f"the {where} nvidia module is {flavour.value}; "
            + ", ".join(f"{one.name} {gpu.address or gpu.uuid} needs the {one.modules} one" for gpu, one in wrong),
            means=f"the module refuses {one.name}: NVML lists no such GPU",
            remedy=f"install the {one.modules} kernel modules of the same version (Ubuntu: 'nvidia-driver-NNN"
            f"{'-open' if one.modules == 'open' else ''}', operator: driver.kernelModuleType={one.modules}), reboot "
            "the node, then run 'gpucheck run -k DRV-022'",
        )
    if flavour is Flavour.OPEN and where == "loaded":
        for gpu, one in generations:
            if one.gsp:
                _judge_gsp(node, gpu, one)


def _flavour(node: Node) -> tuple[Flavour, str]:
    loaded = node.driver.module_flavour
    if not is_not_asked(loaded):
        flavour = known(loaded, "the loaded nvidia module")
        if flavour is not None:
            return flavour, "loaded"
    file = node.driver.installed_module
    if is_not_asked(file):
        if is_not_asked(loaded):
            known(loaded, "the loaded nvidia module")
        not_applicable("no nvidia module is loaded; DRV-003 judges that")
    on_disk = known(file, "the nvidia module on disk")
    if on_disk is None or on_disk.flavour is None:
        not_applicable("no nvidia module is loaded, and the flavour of one on disk is not told; DRV-003 judges that")
    return on_disk.flavour, "installed"


def _judge_gsp(node: Node, gpu: GpuIdentity, generation: Generation) -> None:
    driver = node.driver
    information = driver.information(gpu.address) if gpu.address is not None else None
    if isinstance(information, Seen) and information.value is None:
        return  # the module does not have this GPU: DRV-001 judges that
    firmware = driver.gsp_firmware(gpu)
    if isinstance(firmware, Seen) and firmware.value is not None:
        return
    log = driver.kernel_log
    slot = slot_of(gpu.address or "")
    kinds = (NoticeKind.GSP_FAILURE, NoticeKind.GSP_TIMEOUT)
    notices = [one for kind in kinds for one in log.value.of(kind)] if isinstance(log, Seen) else []
    said = [one.text for one in notices if one.address in {slot, ""}]
    if not said:
        known(firmware, "the GPU's GSP firmware")
    fault(
        seen=f"{generation.name} {gpu.address or gpu.uuid} runs no GSP firmware, with the open modules"
        + (f"; the kernel log says '{said[0]}'" if said else ""),
        means="the open modules drive a GPU through its system processor (GSP) alone; it did not start",
        remedy="install the driver's firmware package of the same version (/lib/firmware/nvidia/VERSION/gsp_*.bin), "
        "drain and reboot the node, then run 'gpucheck run -k DRV-022'",
    )


@check("DRV-028", layer=Layer.DRIVER, severity=Severity.CRITICAL)
def check_branch_supports_the_gpus(node: Node) -> None:
    """The driver's branch supports every GPU present.

    Judged of the loaded module, else of the one on disk. Not judged: whether the branch is still maintained (DRV-021).
    """
    driver = node.driver
    version = _version(node)
    branch = int(version.split(".", 1)[0])
    gpus = known(driver.gpus, "the GPUs")
    if not gpus:
        not_applicable("no GPU is on the PCI bus or in NVML; DRV-001 judges that")
    for gpu in gpus:
        one = known(driver.generation(gpu), "the GPU's generation")
        what = f"the driver is {version}; {one.name} {gpu.address or gpu.uuid}"
        if one.last_branch is not None and branch > one.last_branch:
            fault(
                seen=f"{what} is supported up to R{one.last_branch}",
                means=f"this driver no longer drives {one.name}: the module loads and refuses the GPU",
                remedy=f"install a driver of branch R{one.last_branch} and hold it there, reboot the node, then run "
                "'gpucheck run -k DRV-028'",
            )
        if branch < one.first_branch:
            fault(
                seen=f"{what} is supported from R{one.first_branch} on",
                means=f"this driver is older than {one.name} and does not know the GPU",
                remedy=f"install a driver of branch R{one.first_branch} or later, reboot the node, then run "
                "'gpucheck run -k DRV-028'",
            )


def _version(node: Node) -> str:
    loaded = node.driver.module_version
    if not is_not_asked(loaded):
        version = known(loaded, "the loaded nvidia module")
        if version is not None:
            return version
    file = node.driver.installed_module
    if is_not_asked(file):
        if is_not_asked(loaded):
            known(loaded, "the loaded nvidia module")
        not_applicable("no nvidia module is loaded; DRV-003 judges that")
    on_disk = known(file, "the nvidia module on disk")
    if on_disk is None or on_disk.version is None:
        not_applicable("no nvidia module is loaded, and the version of one on disk is not told; DRV-003 judges that")
    return on_disk.version

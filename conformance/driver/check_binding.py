"""Driver layer: which kernel driver holds the GPUs."""

from typing import Final

from kube_gpucheck.evidence import Node, pci
from kube_gpucheck.evidence.kernel_log import NoticeKind
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import PciGpu, given_away, off_the_bus, workload_config
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity


@check("DRV-001", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-002", "DRV-003", "DRV-022"))
def check_gpus_are_bound_to_their_driver(node: Node) -> None:
    """Every NVIDIA 3D or display controller on the PCI bus is bound to the nvidia kernel driver.

    On a node whose workload type is vm-passthrough, vfio-pci is right and nvidia is not. Not judged: whether the
    driver brought the GPU up (DRV-006), and the functions that a vGPU host hands to its guests.
    """
    gpus = known(node.driver.pci_gpus, "the PCI bus")
    config = known(workload_config(node), "the node's workload type")
    if config == "vm-vgpu":
        not_applicable("the node's workload type is vm-vgpu: its GPUs' functions belong to the guests")
    if not gpus:
        by_design = off_the_bus(node)
        if by_design is not None:
            not_applicable(by_design)
        fault(
            seen=f"the PCI bus has no NVIDIA display or 3D controller, though: {known(node.gpu_signs, 'its signs')[0]}",
            means="the GPU has gone from the bus, or it was never given to this machine",
            remedy="run 'lspci -d 10de:' on the node; if it shows nothing, power-cycle it, and give the GPU to the "
            "virtual machine if it is one; then run 'gpucheck run -k DRV-001'",
        )
    wanted = "vfio-pci" if config == "vm-passthrough" else "nvidia"
    wrong = tuple(gpu for gpu in gpus if gpu.driver != wanted)
    if wrong:
        fault(
            seen=", ".join(f"{gpu.address} is bound to {gpu.driver or 'no driver'}" for gpu in wrong)
            + f"; expected {wanted}"
            + (f", as on the other {len(gpus) - len(wrong)}" if len(wrong) < len(gpus) else ""),
            means=_meaning(node, wrong, wanted=wanted),
            remedy=_remedy(wrong, wanted=wanted),
        )


def _meaning(node: Node, wrong: tuple[PciGpu, ...], *, wanted: str) -> str:
    drivers = {gpu.driver for gpu in wrong}
    if wanted == "vfio-pci":
        return "the GPU cannot be handed to a virtual machine while another driver holds it"
    if "nouveau" in drivers:
        return "nouveau took the GPU first, so the NVIDIA driver cannot have it"
    if "vfio-pci" in drivers:
        return "the GPU is set aside for a virtual machine, and the node's workload type says that containers use it"
    loaded = node.driver.nvidia_loaded
    if isinstance(loaded, Seen):
        return "the nvidia module is loaded and refused the GPU" if loaded.value else "the nvidia module is not loaded"
    return "no driver serves the GPU"


def _remedy(wrong: tuple[PciGpu, ...], *, wanted: str) -> str:
    address = wrong[0].address
    if wanted == "vfio-pci":
        step = "drain the node and take the host's NVIDIA driver off it, so that the vfio manager can bind the GPU"
    elif any(gpu.driver == "nouveau" for gpu in wrong):
        step = "do what DRV-002 says about nouveau"
    elif any(gpu.driver == "vfio-pci" for gpu in wrong):
        step = "label the node nvidia.com/gpu.workload.config=vm-passthrough, or unbind vfio-pci and reboot the node"
    else:
        step = f"run 'dmesg | grep -e NVRM -e {address}' on the node, which says why the GPU was not taken"
    return f"{step}; then run 'gpucheck run -k DRV-001'"


@check("DRV-002", layer=Layer.DRIVER, severity=Severity.CRITICAL)
def check_nouveau_is_out_of_the_way(node: Node) -> None:
    """The nouveau driver is neither loaded nor bound to a GPU.

    Minor where every GPU is bound to nvidia all the same. Not judged: whether it is blacklisted for the next boot.
    """
    loaded = known(node.driver.nouveau_loaded, "the loaded kernel modules")
    on_bus = node.driver.pci_gpus
    gpus = () if is_not_asked(on_bus) else known(on_bus, "the PCI bus")
    held = tuple(gpu.address for gpu in gpus if gpu.driver == "nouveau")
    if not loaded and not held:
        return
    hold = f"holds {', '.join(held)}" if held else "holds no GPU"
    harmless = bool(gpus) and all(gpu.driver == "nvidia" for gpu in gpus)
    fault(
        seen=f"nouveau is {'loaded' if loaded else 'not listed as loaded'} and {hold}",
        means=_why_nouveau(node),
        remedy=f"{_without_nouveau(node)}; then run 'gpucheck run -k DRV-002'",
        severity=Severity.MINOR if harmless else None,
    )


def _why_nouveau(node: Node) -> str:
    file = node.driver.installed_module
    later = node.driver.module_installed_after_boot
    if isinstance(file, Seen) and file.value is None:
        return "the node has no NVIDIA driver for its kernel, and the kernel took its own driver for the GPU"
    if isinstance(later, Seen) and later.value:
        return "the NVIDIA driver was installed after the node started; nouveau stays until the next boot"
    if isinstance(file, Seen):
        return "the NVIDIA driver is installed, and nouveau was loaded before it, as the initramfs does"
    return "the kernel loaded its own driver for the GPU, so the NVIDIA driver cannot have it"


def _without_nouveau(node: Node) -> str:
    file = node.driver.installed_module
    later = node.driver.module_installed_after_boot
    if isinstance(later, Seen) and later.value:
        return "drain and reboot the node"
    rebuild = "'dracut --force'" if _is_of_red_hat(node) else "'update-initramfs -u'"
    blacklist = (
        "write 'blacklist nouveau' and 'options nouveau modeset=0' to /etc/modprobe.d/nouveau.conf, "
        f"run {rebuild}, drain and reboot the node"
    )
    if isinstance(file, Seen) and file.value is None:
        return f"install the NVIDIA driver, which blacklists nouveau, and reboot the node; by hand: {blacklist}"
    return blacklist


def _is_of_red_hat(node: Node) -> bool:
    names = node.driver.os_release
    if isinstance(names, Seen):
        family = {names.value.get("ID", ""), *names.value.get("ID_LIKE", "").split()}
        return bool(family & {"rhel", "fedora", "centos", "suse", "opensuse"})
    return False


@check("DRV-030", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-001",))
def check_gpus_have_memory_windows_and_come_up(node: Node) -> None:
    """Each GPU's memory windows are assigned, and the kernel log holds no failed initialisation since boot.

    A GPU is reached through registers and a window on its memory, so that it needs two. Minor where the driver has
    brought the GPU up since. Not judged: a GPU that left the bus (DRV-006), and one that is a virtual machine's.
    """
    if (reason := known(given_away(node), "the node's workload type")) is not None:
        not_applicable(reason)
    on_bus = known(node.driver.pci_gpus, "the PCI bus")
    if not on_bus:
        not_applicable(off_the_bus(node) or "the PCI bus has no NVIDIA GPU; DRV-001 judges that")
    for gpu in on_bus:
        windows = known(pci.windows(node.host, gpu.address), "the GPU's memory windows")
        lacking = [one.number for one in windows if not one.assigned]
        if lacking or len(windows) < _WINDOWS:
            fault(
                seen=f"{gpu.address} has {len(windows)} memory windows"
                + (f", of which BAR {', '.join(map(str, lacking))} has no address" if lacking else "")
                + f"; at least {_WINDOWS} are needed",
                means="firmware or hypervisor left no room for the GPU's memory; the driver refuses it",
                remedy="turn on 'Above 4G Decoding' in firmware; for a virtual machine enlarge its 64-bit window "
                "(OVMF: X-PciMmio64Mb, VMware: pciPassthru.64bitMMIOSizeGB); then run 'gpucheck run -k DRV-030'",
            )
    log = known(node.driver.kernel_log, "the kernel log")
    failed = [one for kind in (NoticeKind.INIT_FAILURE, NoticeKind.NO_BAR) for one in log.of(kind)]
    if not failed:
        known(node.driver.whole_kernel_log, "the kernel log since boot")
        return
    listed = node.driver.nvml_gpus
    up = isinstance(listed, Seen) and len(listed.value) == len(on_bus)
    fault(
        seen=f"the kernel log says '{failed[0].text}'"
        + (f", one of {len(failed)} such lines" if len(failed) > 1 else "")
        + ("; NVML lists every GPU now" if up else ""),
        means="the driver could not bring a GPU up" + (", and did later" if up else ""),
        remedy="drain the node and switch it off and on again (a warm reboot does not reset a GPU); check seating, "
        "power and firmware of that slot if it comes again; then run 'gpucheck run -k DRV-030'",
        severity=Severity.MINOR if up else None,
    )


_WINDOWS: Final = 2
"""Registers, and a window on its memory. Source: open-gpu-kernel-modules, kernel-open/nvidia/nv-pci.c."""

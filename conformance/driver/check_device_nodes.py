"""Driver layer: programs can open the driver's device nodes."""

from typing import Final

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.bundle import Entry
from kube_gpucheck.evidence.device_nodes import gpu_nodes
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import off_the_bus, workload_config
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity

_REMEDY: Final = (
    "run 'nvidia-modprobe -u -c0' on the node as root, and enable nvidia-persistenced so that it holds after a reboot; "
    "then run 'gpucheck run -k DRV-007'"
)


@check("DRV-007", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-003",))
def check_device_nodes(node: Node) -> None:
    """The device nodes exist, with the major numbers that the kernel registered and modes that programs can use.

    nvidia-uvm may be absent: whoever needs it makes it (nvidia-modprobe). nvidia-caps is judged where MIG is on. Minor
    where only the mode keeps others than root out. Not judged: links in /dev/char (RTM-012), nodes inside containers.
    """
    if known(workload_config(node), "the node's workload type") == "vm-passthrough":
        not_applicable("the node's workload type is vm-passthrough: its GPUs are not the host's")
    majors = known(node.driver.majors, "the kernel's device numbers")
    major = majors.get("nvidia")
    if major is None:
        by_design = off_the_bus(node)
        if by_design is not None:
            not_applicable(by_design)
        fault(
            seen="the kernel has registered no major number for nvidia",
            means="the nvidia module is not loaded, so that no device node can work",
            remedy="mend what DRV-003 names first, then run 'gpucheck run -k DRV-007'",
        )
    if not known(node.driver.gpus, "the GPUs"):
        not_applicable("no GPU is on the PCI bus or in NVML; DRV-001 judges that")
    wanted = {"nvidiactl": majors.get("nvidiactl", major), **dict.fromkeys(_gpu_nodes(node), major)}
    found = {name: known(node.driver.device_node(name), "the device nodes") for name in wanted}
    if "nvidia-uvm" in majors:
        for name in ("nvidia-uvm", "nvidia-uvm-tools"):
            uvm = known(node.driver.device_node(name), "the device nodes")
            if uvm is not None:
                wanted[name], found[name] = majors["nvidia-uvm"], uvm
    _judge_presence(found)
    _judge_majors(found, wanted)
    _judge_caps(node, majors)
    _judge_modes(node, found)


def _gpu_nodes(node: Node) -> list[str]:
    """Return the names that GPUs' nodes have to have; the lowest free ones for GPUs whose number is not told."""
    names = []
    untold = 0
    for gpu in known(node.driver.gpus, "the GPUs"):
        information = node.driver.information(gpu.address) if gpu.address is not None else None
        if information is not None and not is_not_asked(information) and known(information, "the GPU") is None:
            continue  # the driver does not have this GPU: DRV-001 judges that
        starts = node.driver.nvml_init_code
        if gpu.index is None and isinstance(starts, Seen) and starts.value == 0:
            continue  # the driver could not bring it up: DRV-006 judges that
        minor = known(node.driver.minor_of(gpu), "the GPU's device number")
        if minor is None:
            untold += 1
        else:
            names.append(f"nvidia{minor}")
    if untold:
        folder = known(node.driver.device_folder, "the device nodes")
        there = gpu_nodes(folder) if folder is not None else {}
        spare = [name for _, name in sorted(there.items()) if name not in names]
        lowest = (f"nvidia{number}" for number in range(untold + len(names)))
        names.extend((spare + [name for name in lowest if name not in names and name not in spare])[:untold])
    return names


def _judge_presence(found: dict[str, Entry | None]) -> None:
    absent = [f"/dev/{name}" for name, entry in found.items() if entry is None]
    if absent:
        fault(
            seen=f"the nvidia module is loaded; {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not there",
            means="nothing made the device nodes after the module was loaded",
            remedy=_REMEDY,
        )


def _judge_majors(found: dict[str, Entry | None], wanted: dict[str, int]) -> None:
    for name, entry in found.items():
        if entry is not None and (entry.type != "char" or entry.major not in {wanted[name], None}):
            fault(
                seen=f"/dev/{name} is {_kind(entry)}, expected a character device with major {wanted[name]}",
                means="the node was made for another driver or by hand; opening it reaches no GPU",
                remedy=f"remove /dev/{name}; {_REMEDY}",
            )


def _kind(entry: Entry) -> str:
    return f"a character device with major {entry.major}" if entry.type == "char" else f"a {entry.type}"


def _judge_caps(node: Node, majors: dict[str, int]) -> None:
    """Judge the nodes by which a container is let into a MIG device, where a GPU has MIG on."""
    code = node.driver.nvml_init_code
    if is_not_asked(code) or known(code, "NVML's start") != 0:
        return
    partitioned = []
    for gpu in known(node.driver.gpus, "the GPUs"):
        answer = node.driver.query(gpu, "nvmlDeviceGetMigMode")
        if gpu.index is None or is_not_asked(answer) or known(answer, "the GPU's MIG mode").code != 0:
            continue  # no MIG here, or DRV-023 judges what it answers
        mode = known(node.driver.mig_mode(gpu), "the GPU's MIG mode")
        if mode is not None and mode[0]:
            partitioned.append(gpu.address or gpu.uuid)
    if not partitioned:
        return
    folder = known(node.driver.caps_folder, "the nodes in /dev/nvidia-caps")
    major = majors.get("nvidia-caps")
    usable = [one for one in folder.entries if one.type == "char" and one.major in {major, None}] if folder else []
    if not usable:
        fault(
            seen=f"MIG is on for {', '.join(str(one) for one in partitioned)}; /dev/nvidia-caps has no node of "
            f"major {major}",
            means="no container can be let into a MIG device",
            remedy="run 'nvidia-modprobe -c 0 -f /proc/driver/nvidia/capabilities/mig/config' on the node as root (the "
            "toolkit and mig-parted do the rest), then run 'gpucheck run -k DRV-007'",
        )


def _judge_modes(node: Node, found: dict[str, Entry | None]) -> None:
    closed = {
        name: entry.mode for name, entry in found.items() if entry is not None and entry.mode and not _open(entry)
    }
    if not closed:
        return
    for_root = all(mode[1:3] == "rw" for mode in closed.values())
    meant = node.driver.device_file_mode
    if for_root and not is_not_asked(meant):
        mode = known(meant, "the module's DeviceFileMode")
        if mode is not None and all(mode == one for one in closed.values()):
            return  # the administrator gave the module this mode
    fault(
        seen=", ".join(f"/dev/{name} has mode {mode}" for name, mode in closed.items()) + "; expected crw-rw-rw-",
        means="programs of other users than root cannot open the GPU" if for_root else "no program can open the GPU",
        remedy="remove these nodes and let the driver make them again ('nvidia-modprobe -u -c0' as root); if it is "
        "meant to be so, say it to the module (NVreg_DeviceFileMode); then run 'gpucheck run -k DRV-007'",
        severity=Severity.MINOR if for_root else None,
    )


def _open(entry: Entry) -> bool:
    return entry.mode[7:9] == "rw" and entry.mode[1:3] == "rw"

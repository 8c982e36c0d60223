"""NVIDIA's functions on a host's PCI bus, from sysfs."""

import posixpath
import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.node import Node

BUS: Final = "/sys/bus/pci/devices"
NVIDIA: Final = 0x10DE
GPU_CLASSES: Final = frozenset({0x0300, 0x0302})
"""VGA and 3D controllers; a GPU's audio function is 0403. Source: PCI code and ID assignment."""
SWITCH_CLASS: Final = 0x0680
"""Other bridges: of NVIDIA's, NVSwitches. Source: open-gpu-kernel-modules, kernel-open/nvidia/linux_nvswitch.c."""
_HEX: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{1,8})\s*")


class PciGpu(msgspec.Struct, frozen=True):
    """One GPU on the bus. `driver`: the kernel driver that is bound to it, None if none is."""

    address: str
    device: int
    driver: str | None


class Window(msgspec.Struct, frozen=True):
    """A window of memory through which a function is reached. `number`: of its base address register."""

    number: int
    assigned: bool


def nvidia_switches(host: Host) -> tuple[str, ...]:
    """Return the addresses of NVIDIA's NVSwitches on the bus, in order.

    Raises:
        GapError: the bus, or an attribute of a function on it, could not be read.
    """
    listing = need(host.listing(BUS))
    names = () if listing is None else (entry.name for entry in listing.entries)
    folders = {name: f"{BUS}/{name}" for name in sorted(names)}
    mine = {name: one for name, one in folders.items() if _number(host, f"{one}/vendor") == NVIDIA}
    return tuple(name for name, one in mine.items() if _number(host, f"{one}/class") >> 8 == SWITCH_CLASS)


def windows(host: Host, address: str) -> Reading[tuple[Window, ...]]:
    """Return a function's windows of memory, in order of their registers.

    A window is not assigned where the kernel gave it no address, or says that it has none (IORESOURCE_UNSET).
    Source: sysfs, resource: start, end and flags of one region a line; Linux, include/linux/ioport.h.
    """
    path = f"{BUS}/{address}/resource"
    text = host.file(path)
    if isinstance(text, Missing):
        return text
    lines = (text.value or "").splitlines()[:_REGISTERS]
    found = []
    for number, line in enumerate(lines):
        parsed = _REGION.fullmatch(line)
        if parsed is None:
            source = f"nodes/{host.name}/host.json#file:{path}"
            return Missing(MissingKind.UNPARSABLE, f"{path} on {host.name}: '{line[:40]}' is no region", source)
        start, flags = int(parsed.group(1), 16), int(parsed.group(2), 16)
        if flags & _MEMORY:
            found.append(Window(number, bool(start) and not flags & _UNSET))
    return Seen(tuple(found))


_REGISTERS: Final = 6
_REGION: Final = re.compile(r"(0x[0-9a-f]{1,16}) 0x[0-9a-f]{1,16} (0x[0-9a-f]{1,16})\s*")
_MEMORY: Final = 0x200
_UNSET: Final = 0x20000000


def nvidia_gpus(host: Host) -> tuple[PciGpu, ...]:
    """Return the bus's NVIDIA display and 3D controllers in order of address; none where there is no PCI bus.

    Raises:
        GapError: the bus, or an attribute of a function on it, could not be read.
    """
    listing = need(host.listing(BUS))
    if listing is None:
        return ()
    found = []
    for address in sorted(entry.name for entry in listing.entries):
        folder = f"{BUS}/{address}"
        if _number(host, f"{folder}/vendor") != NVIDIA or _number(host, f"{folder}/class") >> 8 not in GPU_CLASSES:
            continue
        driver = need(host.link(f"{folder}/driver"))
        bound = posixpath.basename(driver.strip().rstrip("/")) if driver else None
        found.append(PciGpu(address, _number(host, f"{folder}/device"), bound))
    return tuple(found)


def _number(host: Host, path: str) -> int:
    text = need(host.file(path))
    found = _HEX.fullmatch(text or "")
    if found is None:
        source = f"nodes/{host.name}/host.json#file:{path}"
        raise GapError(
            Missing(
                MissingKind.UNPARSABLE, f"{path} on {host.name}: '{(text or '')[:40]}' is no hexadecimal number", source
            )
        )
    return int(found.group(1), 16)


def workload_config(node: "Node") -> Reading[str]:
    """Return what the node's GPUs are for: `container`, or `vm-passthrough` or `vm-vgpu` for virtual machines.

    Source: the node's label nvidia.com/gpu.workload.config (GPU Operator); a host of its own has none.
    """
    labels = node.labels
    if isinstance(labels, Missing):
        return Seen("container") if labels.kind is MissingKind.NOT_ASKED else labels
    return Seen(labels.value.get("nvidia.com/gpu.workload.config", "container"))


def given_away(node: "Node") -> Reading[str | None]:
    """Return why a node's GPUs are not the host's to use, None where they are."""
    config = workload_config(node)
    if isinstance(config, Missing):
        return config
    given = config.value == "vm-passthrough"
    return Seen("the node's workload type is vm-passthrough: its GPUs are not the host's" if given else None)


def off_the_bus(node: "Node") -> str | None:
    """Return why a node's GPU stands on no PCI bus by design, None where nothing that was read says so.

    WSL2 reaches the GPU through /dev/dxg, Tegra has it in the chip. Source: the kernel's release, of `uname -a` or
    of the Node object.
    """
    releases = [node.driver.kernel_release]
    if isinstance(node.object, Seen):
        releases.append(Seen(node.object.value.status.node_info.kernel_version))
    for release in releases:
        if isinstance(release, Seen):
            for word, name in (("microsoft", "WSL2"), ("tegra", "Tegra")):
                if word in release.value.lower():
                    return f"this is {name} (kernel {release.value}), whose GPU stands on no PCI bus"
    return None

"""Device nodes under /dev, and the major numbers that the kernel registered for them."""

import re
from typing import Final

from kube_gpucheck.evidence.host import Host, Listing
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.model import Missing, MissingKind

_DEVICE: Final = re.compile(r" {0,3}(\d{1,4}) (\S{1,64})\s*")
_GPU_NODE: Final = re.compile(r"nvidia(\d{1,4})")


def majors(host: Host) -> dict[str, int]:
    """Return the character devices' major numbers by the name they are registered under.

    Drivers to 5xx register `nvidia-frontend` where later ones register `nvidia` and `nvidiactl`; the
    name `nvidia` stands for either. Source: /proc/devices; open-gpu-kernel-modules, kernel-open/nvidia/nv.c.

    Raises:
        GapError: /proc/devices was not read, or holds no list of devices.
    """
    text = need(host.file("/proc/devices"))
    found: dict[str, int] = {}
    for line in (text or "").partition("Block devices:")[0].splitlines():
        parsed = _DEVICE.fullmatch(line)
        if parsed is not None:
            found.setdefault(parsed.group(2), int(parsed.group(1)))
    if not found:
        source = f"nodes/{host.name}/host.json#file:/proc/devices"
        filtered = need(host.read("file:/proc/devices")).filtered
        if text is None or filtered is None:
            raise GapError(
                Missing(MissingKind.UNPARSABLE, f"/proc/devices on {host.name} lists no character device", source)
            )
    if "nvidia-frontend" in found:
        found.setdefault("nvidia", found["nvidia-frontend"])
    return found


def device_folder(host: Host, path: str) -> Listing | None:
    """Return a folder of device nodes, None if there is no such folder.

    Raises:
        GapError: it was not read.
    """
    return need(host.listing(path))


def gpu_nodes(listing: Listing) -> dict[int, str]:
    """Return the names of the `nvidiaN` nodes by N."""
    found = {}
    for entry in listing.entries:
        named = _GPU_NODE.fullmatch(entry.name)
        if named is not None:
            found[int(named.group(1))] = entry.name
    return found

"""A host's text dumps by their file's name: which parser reads each, and what is lost with one that is damaged.

Knows names and places alone; `evidence.dumps` reads the texts.
"""

from collections.abc import Callable, Mapping
from typing import Final

from kube_gpucheck.evidence import dumps

Parser = Callable[[str], dumps.Dump]

PCI: Final = "/sys/bus/pci/devices"

PARSERS: Final[Mapping[str, Callable[[str], dumps.Dump]]] = {
    "uname.txt": dumps.whole_command("uname -a"),
    "os-release.txt": dumps.whole_file("/etc/os-release"),
    "pci-all.txt": dumps.pci_addresses_dump,
    "pci-all-ids.txt": dumps.pci_ids_dump,
    "pci-10de.txt": dumps.pci_files_dump,
    "proc-modules-nvidia.txt": dumps.modules_dump,
    "proc-devices-nvidia.txt": dumps.filtered_file("/proc/devices", "nvidia"),
    "proc-mounts-nvidia.txt": dumps.filtered_file("/proc/mounts", "nvidia"),
    "proc-driver-nvidia-version.txt": dumps.whole_file("/proc/driver/nvidia/version"),
    "proc-driver-nvidia-params.txt": dumps.whole_file("/proc/driver/nvidia/params"),
    "proc-driver-nvidia-tree.txt": dumps.tree_dump,
    "proc-driver-nvidia-gpus.txt": dumps.files_dump,
    "proc-driver-nvidia-caps.txt": dumps.files_dump,
    "sys-module-nvidia.txt": dumps.module_dump,
    "dev-nvidia.txt": lambda text: dumps.listing_dump(text, globs={"/dev": "^nvidia"}),
    "bin.txt": lambda text: dumps.listing_dump(text, globs={"/usr/bin": "^nvidia-|^containerd|^runc$"}),
    "usr-local-nvidia.txt": lambda text: dumps.listing_dump(text, globs={}),
    "dirs.txt": lambda text: dumps.listing_dump(text, globs={}),
    "ldconfig-nvidia-cuda.txt": dumps.whole_command("ldconfig -p", filtered="nvidia|cuda"),
    "dmesg-nvidia.txt": dumps.whole_command("dmesg", filtered="(?i)nvidia|nvrm"),
    "versions.txt": dumps.versions_dump,
    "nvidia-smi-L.txt": dumps.whole_command("nvidia-smi -L"),
    "nvidia-ctk-cdi-list.txt": dumps.whole_command("nvidia-ctk cdi list"),
    "nvml.json": dumps.nvml_dump,
}
"""The dumps that are understood, in the order in which they are read."""

LOST_WITH: Final[Mapping[str, tuple[str, ...]]] = {
    "uname.txt": ("exec:uname -a",),
    "os-release.txt": ("file:/etc/os-release",),
    "pci-all.txt": (f"list:{PCI}",),
    "pci-all-ids.txt": (f"list:{PCI}",),
    "proc-modules-nvidia.txt": ("file:/proc/modules",),
    "proc-devices-nvidia.txt": ("file:/proc/devices",),
    "proc-mounts-nvidia.txt": ("file:/proc/mounts",),
    "proc-driver-nvidia-version.txt": ("file:/proc/driver/nvidia/version",),
    "proc-driver-nvidia-params.txt": ("file:/proc/driver/nvidia/params",),
    "proc-driver-nvidia-tree.txt": ("list:/proc/driver/nvidia", "list:/proc/driver/nvidia/gpus"),
    "sys-module-nvidia.txt": ("file:/sys/module/nvidia/version", "list:/sys/bus/pci/drivers/nvidia"),
    "dev-nvidia.txt": ("list:/dev", "list:/dev/nvidia-caps"),
    "bin.txt": ("list:/usr/bin",),
    "usr-local-nvidia.txt": ("list:/usr/local/nvidia", "list:/usr/local/nvidia/lib64"),
    "dirs.txt": ("list:/etc/cdi", "list:/var/run/cdi", "list:/var/lib/kubelet/device-plugins"),
    "ldconfig-nvidia-cuda.txt": ("exec:ldconfig -p",),
    "dmesg-nvidia.txt": ("exec:dmesg",),
    "versions.txt": (
        "exec:containerd --version",
        "exec:runc --version",
        "exec:nvidia-ctk --version",
        "exec:nvidia-container-runtime --version",
    ),
    "nvidia-smi-L.txt": ("exec:nvidia-smi -L",),
    "nvidia-ctk-cdi-list.txt": ("exec:nvidia-ctk cdi list",),
    "nvml.json": ("nvml:nvmlInit_v2", "nvml:nvmlDeviceGetCount_v2", "nvml:nvmlSystemGetDriverVersion"),
}
"""What was asked for by a dump that is empty or no text."""

FUNCTION_FILES: Final = ("vendor", "device", "class")
"""What `pci-all-ids.txt` should tell of each PCI function, beside its driver."""

GPU_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "pci-10de.txt": (
        f"file:{PCI}/{{}}/current_link_width",
        f"file:{PCI}/{{}}/max_link_width",
        f"file:{PCI}/{{}}/numa_node",
        f"file:{PCI}/{{}}/resource",
    ),
    "proc-driver-nvidia-gpus.txt": ("file:/proc/driver/nvidia/gpus/{}/information",),
}
"""What these dumps should tell of each of NVIDIA's PCI functions."""

MAY_BE_EMPTY: Final = frozenset({"proc-mounts-nvidia.txt"})
"""Dumps of which an empty one says something: no mount names NVIDIA. A `grep` of the kernel log that is
empty may be of a log that could not be read."""

_PLACES: Final = (
    "/etc/rancher/rke2",
    "/etc/rancher/k3s",
    "/var/lib/rancher/rke2/agent/etc/containerd",
    "/var/lib/rancher/k3s/agent/etc/containerd",
    "/var/lib/rancher/rke2/agent/etc",
    "/var/lib/rancher/k3s/agent/etc",
    "/var/lib/rancher/rke2/agent",
    "/var/lib/rancher/k3s/agent",
    "/var/lib/rancher/rke2",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/lib/k0s",
    "/var/snap/microk8s/current/args",
    "/run/k3s/containerd",
    "/run/nvidia",
    "/run/cdi",
    "/var/run/cdi",
    "/usr/local/nvidia/toolkit",
)
_ROOTS: Final = frozenset({"etc", "var", "usr", "opt", "run", "proc", "sys", "lib"})


def place_of(top: str) -> str | None:
    """Return the folder on the host that was copied under this name, or None if it cannot be told.

    `etc-containerd` was `/etc/containerd`. A name in which dashes stand for slashes and for dashes is
    looked up among known places; a tree that begins at a root's own folder (`etc`, `var`) is taken as it is.
    """
    known = next((place for place in _PLACES if place.strip("/").replace("/", "-") == top), None)
    if known is not None:
        return known
    if top in _ROOTS:
        return f"/{top}"
    if top.startswith("etc-") and len(top) > len("etc-"):
        return f"/etc/{top.removeprefix('etc-')}"
    return None


def copied_whole(place: str) -> bool:
    """Tell whether a folder of configuration was copied with all that it holds, so that it is a listing too."""
    return place.startswith("/etc/") or "/etc/containerd/" in f"{place}/"

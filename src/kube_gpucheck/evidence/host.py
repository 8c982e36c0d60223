"""What was read on one host, by path, command and NVML call, and the table of reads that sections use.

Every live collector, importer and scenario gives the same canonical reads, so that all parsing
stands in this room, once:

| read | what it is |
| --- | --- |
| `file:/etc/os-release`, `exec:uname -a` | distribution; kernel release |
| `file:/proc/{cmdline,uptime,modules,devices}` | as the kernel gives them |
| `list:/sys/bus/pci/devices` | PCI functions; then `file:…/<address>/vendor` for each, and for those of |
| | vendor 0x10de `…/class`, `…/device`, `link:…/<address>/driver` (absent where none is bound) |
| `file:/proc/driver/nvidia/{version,params}`, `…/gpus/<address>/information` | the loaded kernel module |
| `file:/sys/module/nvidia/version` | version of the loaded module |
| `list:/dev`, `list:/dev/nvidia-caps`, `list:/dev/char` | device nodes |
| `list:/lib/modules/<release>/…` (`updates/dkms`, `build`) | modules and headers on disk |
| `exec:modinfo nvidia`, `exec:dkms status`, `exec:mokutil --sb-state` | flavour, build, Secure Boot |
| `exec:ldconfig -p` | the loader's cache |
| `list:<folder>` of libraries, `link:<path>` | library versions |
| `exec:dmesg` | the kernel's log |
| `nvml:nvmlInit_v2`, `nvml:nvmlSystemGet…`, `nvml:nvmlDeviceGetCount_v2` | NVML: code and value |
| `nvml:nvmlDeviceGet…(<index>)` | NVML of one GPU; index is NVML's |
| `cuda:cuInit`, `cuda:cuDriverGetVersion`, `cuda:cuDeviceGetCount` | CUDA: code and value |
| `exec:nvidia-smi -L` | GPUs as nvidia-smi lists them |
| `file:<engine configuration>`, `list:<drop-in folder>` | containerd's or CRI-O's files |
| `exec:containerd config dump`, `exec:crictl info` | effective configuration of the files; that of the running engine |
| `file:/etc/docker/daemon.json` | Docker's configuration |
| `exec:ps -e -o args=` | command lines of kubelet, containerd, crio, dockerd and cri-dockerd alone |
| | (`filtered`), and of their options only `--config` `-c`, `--address` `-a`, `--root-dir`, |
| | `--container-runtime-endpoint`, `--cgroup-driver` and `--cpu-manager-policy` |
| `exec:TZ=UTC ps -e -o lstart=,comm=` | when those were started, in whole seconds (`filtered`) |
| `file:/var/lib/kubelet/config.yaml` | the kubelet's configuration |
| `file:/var/snap/microk8s/current/args/kubelet` | the same on MicroK8s |
| `file:/var/lib/rancher/{rke2,k3s}/agent/etc/kubelet.conf.d/<name>` | the same on RKE2 and K3s |
| `stat:/sys/fs/cgroup/cgroup.controllers` | there with cgroup v2 alone |
| `file:/sys/fs/selinux/enforce`, `file:/sys/fs/selinux/booleans/container_use_devices` | SELinux |
| `stat:/var/run/nri/nri.sock` | NRI's socket |
| `exec:systemctl show <unit>` | `Key=Value` lines: ActiveState, ActiveEnterTimestamp (RFC 3339) |
| `list:/usr/bin`, `list:/usr/local/nvidia/toolkit`, `stat:<path>` | programs |
| `exec:<program> --version` of nvidia-ctk, containerd, runc, nvidia-container-runtime | versions |
| `file:/etc/nvidia-container-runtime/config.toml` | the toolkit's configuration |
| `list:/etc/cdi`, `list:/var/run/cdi`, `file:<folder>/<name>` | CDI specifications |
| `list:/var/lib/kubelet/device-plugins`, `file:…/kubelet_internal_checkpoint` | sockets and allocations |
| `log:<unit>` | marks `nodes/<node>/logs/<unit>.log` as asked for |
"""

import datetime
import posixpath
import re
from typing import Any

import msgspec

from kube_gpucheck.evidence.bundle import Bundle, Entry, Read
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen


class Listing(msgspec.Struct, frozen=True):
    """A folder's entries. `filtered` is the pattern that let them through, `None` if all are here."""

    path: str
    entries: tuple[Entry, ...]
    filtered: str | None = None

    def find(self, name: str) -> Entry | None:
        """Return the entry of that name, or None if it is not listed."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def tells_of(self, name: str) -> bool:
        """Tell whether absence of that name means anything: a filter may have hidden it."""
        return self.filtered is None or re.search(self.filtered, name) is not None


class Command(msgspec.Struct, frozen=True):
    """What a command printed, and its exit status (None if the dump does not have it)."""

    text: str
    status: int | None = None
    filtered: str | None = None
    truncated: bool = False


class NvmlAnswer(msgspec.Struct, frozen=True):
    """What an NVML call answered: its return code (0 is success), and the value."""

    code: int
    value: Any = None


class Host:
    """One host's reads. `asked` tells whether anything was asked of it at all."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        """Remember where to read."""
        self._bundle = bundle
        self.name = name

    @property
    def asked(self) -> bool:
        """Tell whether host evidence was asked for on this node."""
        return self.name in self._bundle.manifest.asked.host

    @property
    def read_at(self) -> datetime.datetime:
        """When the host was read, to within the run: the evidence's clock."""
        return self._bundle.gathered_at

    def keys(self, prefix: str) -> tuple[str, ...]:
        """Return the reads asked for whose key starts so, in the order in which they were asked."""
        return tuple(key for key in self._bundle.host_keys(self.name) if key.startswith(prefix))

    def read(self, key: str) -> Reading[Read]:
        """Return one verbatim read."""
        return self._bundle.host_read(self.name, key)

    def log(self, unit: str) -> Reading[str]:
        """Return a service's log (`containerd`, `kubelet`)."""
        return self._bundle.node_log(self.name, unit)

    def file(self, path: str) -> Reading[str | None]:
        """Return a file's text, None if there is no such file."""
        return self._text(f"file:{path}")

    def link(self, path: str) -> Reading[str | None]:
        """Return where a link points, None if there is no such link."""
        return self._text(f"link:{path}")

    def command(self, line: str) -> Reading[Command | None]:
        """Return what a command printed, None if there is no such program."""
        reading = self.read(f"exec:{line}")
        if isinstance(reading, Missing):
            return reading
        read = reading.value
        if read.absent:
            return Seen(None)
        if read.text is None:
            return self._malformed(f"exec:{line}", "text")
        return Seen(Command(read.text, read.code, read.filtered, read.truncated))

    def listing(self, path: str) -> Reading[Listing | None]:
        """Return a folder's entries, None if there is no such folder."""
        reading = self.read(f"list:{path}")
        if isinstance(reading, Missing):
            return reading
        read = reading.value
        if read.absent:
            return Seen(None)
        if read.entries is None:
            return self._malformed(f"list:{path}", "entries")
        return Seen(Listing(path, read.entries, read.filtered))

    def entry(self, path: str) -> Reading[Entry | None]:
        """Return what stands at a path, None if nothing does.

        From `stat:`, else from the listing of its folder, else from the listing of a folder above
        that does not hold the next part. A filtered listing proves absence only of what it lets through.
        """
        if not self.asked:
            return self._not_looked_for(path)
        key = f"stat:{path}"
        if self._bundle.asks_of(self.name, key):
            reading = self.read(key)
            if isinstance(reading, Missing):
                return reading
            if reading.value.absent:
                return Seen(None)
            if not reading.value.entries:
                return self._malformed(key, "entries")
            return Seen(reading.value.entries[0])
        return self._listed(path)

    def _listed(self, path: str) -> Reading[Entry | None]:
        """Return what the listings of the folders above a path tell of it."""
        name = posixpath.basename(path)
        folder = posixpath.dirname(path)
        while folder != path and name:
            if self._bundle.asks_of(self.name, f"list:{folder}"):
                listing = self.listing(folder)
                if isinstance(listing, Missing):
                    return listing
                if listing.value is None:
                    return Seen(None)
                found = listing.value.find(name)
                if found is not None and posixpath.join(folder, name) == path:
                    return Seen(found)
                if found is None and listing.value.tells_of(name):
                    return Seen(None)
                break
            name = posixpath.basename(folder)
            path_above = posixpath.dirname(folder)
            if path_above == folder:
                break
            folder = path_above
        return self._not_looked_for(path)

    def _not_looked_for(self, path: str) -> Missing:
        reason = f"'{path}' was not looked for"
        return Missing(MissingKind.NOT_ASKED, reason, f"nodes/{self.name}/host.json#stat:{path}", "--probe")

    def nvml(self, call: str) -> Reading[NvmlAnswer]:
        """Return what an NVML call answered (`nvmlDeviceGetUUID(0)`)."""
        reading = self.read(f"nvml:{call}")
        if isinstance(reading, Missing):
            return reading
        if reading.value.code is None:
            return self._malformed(f"nvml:{call}", "code")
        return Seen(NvmlAnswer(reading.value.code, reading.value.value))

    def _text(self, key: str) -> Reading[str | None]:
        reading = self.read(key)
        if isinstance(reading, Missing):
            return reading
        if reading.value.absent:
            return Seen(None)
        if reading.value.text is None:
            return self._malformed(key, "text")
        return Seen(reading.value.text)

    def _malformed(self, key: str, field: str) -> Missing:
        source = f"nodes/{self.name}/host.json#{key}"
        return Missing(MissingKind.UNPARSABLE, f"{source}: has neither '{field}' nor 'absent' nor 'error'", source)

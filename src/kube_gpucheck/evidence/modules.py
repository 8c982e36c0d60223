"""The NVIDIA kernel modules of a host: loaded, on disk, built by DKMS."""

import datetime
import enum
import re
from typing import Final

import msgspec

from kube_gpucheck.evidence.host import Command, Host
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.model import Missing, MissingKind

_MODULE: Final = re.compile(r"([\w-]{1,64}) \d{1,12} (?:\d{1,9}|-) .{0,2000}")
_TOTAL: Final = re.compile(r"\s*(\d{1,5}) /proc/modules\s*")
_NVRM: Final = re.compile(r"NVRM version:? .*?(\d{3,4}(?:\.\d{1,4}){1,3})\b")
_VERSION: Final = re.compile(r"\d{3,4}(?:\.\d{1,4}){1,3}")
_FIELD: Final = re.compile(r"(\w{1,32}): {1,16}(.*)")
_FILE: Final = re.compile(r"nvidia(?:-current)?\.ko(?:\.(?:gz|xz|zst))?")
_UVM_FILE: Final = re.compile(r"nvidia(?:-current)?-uvm\.ko(?:\.(?:gz|xz|zst))?")
_DKMS: Final = re.compile(r"nvidia[\w-]{0,40}[/,] ?(\d[\w.]{0,30})(?:, ([^,:]{1,80}), [^:]{1,30})?: (\w{1,20}).*")


class LoadedModules(msgspec.Struct, frozen=True):
    """Names in /proc/modules; `filtered` is the pattern that let them through, None if all are there."""

    names: frozenset[str]
    filtered: str | None = None

    def tells_of(self, name: str) -> bool:
        """Tell whether absence of that name means anything: a filter may have hidden it."""
        if self.filtered is None:
            return True
        try:
            return re.search(self.filtered, name) is not None
        except re.error:
            return False


class Flavour(enum.Enum):
    """NVIDIA publishes its kernel modules in two flavours."""

    OPEN = "open"
    PROPRIETARY = "proprietary"


class ModuleFile(msgspec.Struct, frozen=True):
    """The nvidia module on disk that the running kernel would load.

    `version` and `flavour` are None where only its file was seen. `uvm` tells whether nvidia-uvm stands beside
    it, None if that was not seen.
    """

    path: str
    version: str | None = None
    flavour: Flavour | None = None
    uvm: bool | None = None


class DkmsBuild(msgspec.Struct, frozen=True):
    """One line of `dkms status`. `kernel` is None for a source tree that was built for none."""

    version: str
    kernel: str | None
    state: str


def loaded_modules(host: Host) -> LoadedModules:
    """Return what /proc/modules lists.

    A dump that was filtered and ends with `wc -l`'s "N /proc/modules" is whole if it holds N modules.

    Raises:
        GapError: it was not read, or none of its lines is a module's.
    """
    read = need(host.read("file:/proc/modules"))
    text = need(host.file("/proc/modules")) or ""
    names = set()
    total: int | None = None
    others = 0
    for line in text.splitlines():
        found = _MODULE.fullmatch(line)
        counted = _TOTAL.fullmatch(line)
        if found is not None:
            names.add(found.group(1).replace("-", "_"))
        elif counted is not None:
            total = int(counted.group(1))
        elif line.strip():
            others += 1
    if others and not names:
        source = f"nodes/{host.name}/host.json#file:/proc/modules"
        raise GapError(Missing(MissingKind.UNPARSABLE, f"/proc/modules on {host.name} has no line of a module", source))
    return LoadedModules(frozenset(names), None if total == len(names) else read.filtered)


def version_in(text: str) -> str | None:
    """Return the version in /proc/driver/nvidia/version, None if there is none in it."""
    found = _NVRM.search(text)
    return found.group(1) if found else None


def flavour_in(text: str) -> Flavour:
    """Return the flavour that /proc/driver/nvidia/version names.

    The open modules call themselves "NVIDIA UNIX Open Kernel Module". Source: nv-kernel's NVRM banner, both in
    `recordings` (open) and in every proprietary driver since 2000 ("NVIDIA UNIX x86_64 Kernel Module").
    """
    return Flavour.OPEN if "Open Kernel Module" in text else Flavour.PROPRIETARY


def is_version(text: str) -> bool:
    """Tell whether a text is a driver's version (`580.159.04`)."""
    return _VERSION.fullmatch(text) is not None


def described(command: Command) -> ModuleFile | None:
    """Return what `modinfo nvidia` describes, None if it found no such module.

    The open modules have the licence "Dual MIT/GPL", the proprietary ones "NVIDIA".
    """
    fields: dict[str, str] = {}
    for line in command.text.splitlines():
        found = _FIELD.fullmatch(line.rstrip())
        if found is not None:
            fields.setdefault(found.group(1), found.group(2).strip())
    if "filename" not in fields:
        return None
    licence = fields.get("license")
    flavour = None if licence is None else Flavour.PROPRIETARY if licence == "NVIDIA" else Flavour.OPEN
    return ModuleFile(fields["filename"], fields.get("version"), flavour)


def module_in_folders(host: Host, release: str) -> ModuleFile | None:
    """Return the module that stands in the running kernel's folders, None if it stands in none of them.

    Raises:
        GapError: a folder could not be read, or those that were read do not prove that it is absent.
    """
    top = f"/lib/modules/{release}"
    folders = [key.removeprefix("list:") for key in host.keys("list:") if _is_below(key.removeprefix("list:"), top)]
    proven = False
    for folder in folders:
        listing = need(host.listing(folder))
        proven = proven or folder.endswith("/updates/dkms")
        if listing is None:
            continue
        file = next((entry.name for entry in listing.entries if _FILE.fullmatch(entry.name)), None)
        if file is not None:
            uvm = any(_UVM_FILE.fullmatch(entry.name) for entry in listing.entries)
            return ModuleFile(f"{folder}/{file}", uvm=uvm)
    if not proven:
        reason = f"neither 'modinfo nvidia' nor {top}/updates/dkms was read on {host.name}"
        raise GapError(
            Missing(MissingKind.NOT_ASKED, reason, f"nodes/{host.name}/host.json#exec:modinfo nvidia", "--probe")
        )
    return None


def _is_below(folder: str, top: str) -> bool:
    return any(folder == one or folder.startswith(f"{one}/") for one in (top, f"/usr{top}"))


def dkms_builds(command: Command) -> tuple[DkmsBuild, ...]:
    """Return what `dkms status` says of NVIDIA's modules, in its order; both of its spellings are read."""
    found = (_DKMS.fullmatch(line.strip()) for line in command.text.splitlines())
    return tuple(DkmsBuild(one.group(1), one.group(2), one.group(3)) for one in found if one is not None)


def moment(text: str | None) -> datetime.datetime | None:
    """Return a time that says its date and zone, None for any other spelling (`ls` leaves out the year)."""
    if text is None:
        return None
    try:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=datetime.timezone.utc)

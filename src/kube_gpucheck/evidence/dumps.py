"""Text dumps of a host, and what canonical reads they hold: `ls -l`, `== path` files, PCI, NVML, versions.

A dump is what a shell loop printed. Each parser here takes a dump's text and says which reads of the
table in `host` it answers, which it should have answered and does not, and whether anything was left
over. A line that is no line of the format makes its listing unread, never shorter: a cut dump must not
prove that something is absent. Opens no file and judges nothing.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.bundle import Entry, Read

ERRNO: Final = {
    "No such file or directory": "ENOENT",
    "Not a directory": "ENOTDIR",
    "Permission denied": "EACCES",
    "Operation not permitted": "EPERM",
    "Input/output error": "EIO",
    "Connection timed out": "ETIMEDOUT",
    "Invalid argument": "EINVAL",
    "No such device": "ENODEV",
    "Is a directory": "EISDIR",
    "Too many levels of symbolic links": "ELOOP",
    "Stale file handle": "ESTALE",
    "Transport endpoint is not connected": "ENOTCONN",
}
"""Texts of strerror(3) in the C locale, and errno's names."""

MAX_TEXT: Final = 16 * 1024
"""The longest text that a multi-file dump gives one read; `mig-minors` has 100 KB and no reader."""

MAX_NVML_BYTES: Final = 8 * 1024
"""About what the named NVML getters take a GPU (DESIGN.md, "Bundle")."""

_MAX_LINE: Final = 8 * 1024
_TOOL_ERROR: Final = re.compile(
    r"(?:\S{0,80}/)?(?:ls|cat|find|head|tail|readlink|grep|cut): "
    r"(?:cannot (?:access|open directory|open|read symbolic link) |reading directory |error reading |"
    r"(?=['\u2018\"/]))"
    r"(.+): ([A-Z][A-Za-z/ ]+)"
)
_NOT_FOUND: Final = re.compile(
    r"(?:\S+: )?(?:line \d+: |\d+: )?(?:\S+: (?:command )?not found|\S+: No such file or directory)|"
    r"exec: \S+: executable file not found in \$PATH"
)
_LS_LINE: Final = re.compile(
    r"(?P<type>[-dlcbsp])(?P<mode>[-rwxsStT]{9})[.+@]? +\d+ +\S+ +\S+ +"
    r"(?:(?P<major>\d+), *(?P<minor>\d+)|(?P<size>\d+)) +"
    r"(?P<when>[A-Z][a-z]{2} +\d{1,2} +(?:\d{1,2}:\d\d|\d{4})|"
    r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d(?:\.\d+)?(?: [+-]\d{4})?)?) "
    r"(?P<name>.+)"
)
_LS_BLIND: Final = re.compile(r"(?P<type>[-dlcbsp])\?{9}[ ?]+ (?P<name>[^ ?].*)")
_LS_TYPES: Final = {"-": "file", "d": "dir", "l": "link", "c": "char", "b": "block", "s": "socket", "p": "fifo"}
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_HEX_ID: Final = re.compile(r"0x[0-9a-f]{4,6}", re.IGNORECASE)
_RESOURCE: Final = re.compile(r"0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x[0-9a-f]{16}", re.IGNORECASE)
_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)*")


class Dump(msgspec.Struct, frozen=True):
    """What one dump answers.

    `reads`: canonical reads by key. `unread`: keys that it should answer and does not, each with the
    reason. `whole`: whether every line of it went into a read.
    """

    reads: Mapping[str, Read] = {}
    unread: Mapping[str, str] = {}
    whole: bool = True


class Listings(msgspec.Struct, frozen=True):
    """What `ls -l` printed of several paths.

    `folders`: entries by the header above them, without `.` and `..`. `paths`: entries named by a whole
    path, as a glob gives them. `errors`: errno's name by the path that could not be looked at. `broken`:
    folders of which a line could not be read, with that line; "" for lines outside any folder. `rest`:
    whether other text was found behind the listings.
    """

    folders: Mapping[str, tuple[Entry, ...]] = {}
    paths: Mapping[str, Entry] = {}
    errors: Mapping[str, str] = {}
    broken: Mapping[str, str] = {}
    rest: bool = False


def tool_error(line: str) -> tuple[str, str] | None:
    """Return the path and errno's name that a coreutils message tells of, or None if it is no such message."""
    found = _TOOL_ERROR.fullmatch(line.strip()) if len(line) < _MAX_LINE else None
    if found is None or found[2] not in ERRNO:
        return None
    return found[1].strip("'\u2018\u2019\""), ERRNO[found[2]]


def failed(errno: str) -> Read:
    """Return the read that ended in this error; one that found nothing is absent, not an error."""
    return Read(absent=True) if errno in {"ENOENT", "ENOTDIR"} else Read(error=errno)


def text_read(text: str) -> Read:
    """Return what `cat` printed of one file: its text, or the error that stands in its place."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and (error := tool_error(lines[0])) is not None:
        return failed(error[1])
    return Read(text=text)


def command_read(text: str, *, status: int | None = None, filtered: str | None = None) -> Read:
    """Return what a command printed; absent where the shell found no such program, the error where it was denied."""
    stripped = text.strip()
    if "\n" not in stripped and len(stripped) < _MAX_LINE and _NOT_FOUND.fullmatch(stripped):
        return Read(absent=True)
    denied = re.fullmatch(r"\S+: .*: (Permission denied|Operation not permitted)", stripped[:_MAX_LINE])
    if denied is not None:
        return failed(ERRNO[denied[1]])
    return Read(text=text, code=status, filtered=filtered)


def ls_entry(line: str) -> Entry | None:
    """Return the entry that a line of `ls -l` shows, or None if it is no such line.

    A device has its major and minor number in place of a size, a link its target behind the name.
    """
    if len(line) > _MAX_LINE:
        return None
    found = _LS_LINE.fullmatch(line)
    if found is None:
        blind = _LS_BLIND.fullmatch(line)
        return None if blind is None else Entry(blind["name"], _LS_TYPES[blind["type"]])
    kind = _LS_TYPES[found["type"]]
    name, target = found["name"], None
    if kind == "link":
        name, arrow, end = name.partition(" -> ")
        target = end if arrow else None
    return Entry(
        name,
        kind,
        found["type"] + found["mode"],
        size=None if found["size"] is None else int(found["size"]),
        major=None if found["major"] is None else int(found["major"]),
        minor=None if found["minor"] is None else int(found["minor"]),
        target=target,
        modified=" ".join(found["when"].split()),
    )


def read_listings(text: str) -> Listings:
    """Read what `ls -l`, `ls -la` or `ls -lR` printed of files and folders, errors included.

    A second `total` under one header is a listing of a folder whose name is not in the dump: it, and
    whatever follows up to the next header, is passed over.
    """
    folders: dict[str, dict[str, Entry]] = {}
    paths: dict[str, Entry] = {}
    errors: dict[str, str] = {}
    broken: dict[str, str] = {}
    here: str | None = None
    totals = 0
    nameless = rest = False
    for line in text.splitlines():
        if not line.strip():
            continue
        error = tool_error(line)
        if error is not None:
            errors[error[0]] = error[1]
        elif line.startswith("/") and line.endswith(":") and " -> " not in line:
            here, totals, nameless = line[:-1], 0, False
            folders[here] = {}
        elif re.fullmatch(r"total \d+\S{0,2}", line) is not None:
            totals += 1
            nameless = here is None or totals > 1
        elif nameless:
            rest = True
        elif (entry := ls_entry(line)) is None:
            broken.setdefault(here or "", line[:200])
        elif here is None or entry.name.startswith("/"):
            paths[posixpath.normpath(entry.name)] = entry
        elif entry.name not in {".", ".."}:
            folders[here][entry.name] = entry
    whole = {folder: tuple(entries.values()) for folder, entries in folders.items()}
    return Listings(whole, paths, errors, broken, rest)


def listing_dump(text: str, *, globs: Mapping[str, str]) -> Dump:
    """Return the `list:` reads that `ls -l` of folders and of globs gives.

    `globs` names the folders of which a glob was listed, and the pattern of names that it lets through:
    such a listing is filtered, and stands even where the glob met nothing. It stands only where the dump
    shows that the folder was looked at. Files named one by one prove nothing of others beside them.
    """
    seen = read_listings(text)
    reads = _failed_listings(seen, globs)
    unread: dict[str, str] = {}
    for folder, listed in seen.folders.items():
        if folder in seen.broken:
            unread[f"list:{folder}"] = _no_ls_line(seen.broken[folder])
        else:
            reads[f"list:{folder}"] = Read(entries=listed)
    for folder, entries in _named_one_by_one(seen, globs).items():
        if folder in seen.folders:
            continue
        if "" in seen.broken:
            unread[f"list:{folder}"] = _no_ls_line(seen.broken[""])
        elif folder in globs:
            reads[f"list:{folder}"] = Read(entries=entries, filtered=globs[folder])
        else:
            names = "|".join(re.escape(entry.name) for entry in entries)
            reads[f"list:{folder}"] = Read(entries=entries, filtered=f"^(?:{names})$")
    return Dump(reads, unread, whole=not seen.rest and not seen.broken)


def _no_ls_line(line: str) -> str:
    return f"a line is no line of ls -l: {line!r}"


def _failed_listings(seen: Listings, globs: Mapping[str, str]) -> dict[str, Read]:
    reads: dict[str, Read] = {}
    for path, errno in seen.errors.items():
        above, name = posixpath.split(path)
        if not _is_glob(path):
            reads[f"list:{path}"] = failed(errno)
            if above in globs and re.search(globs[above], name):
                reads[f"stat:{path}"] = failed(errno)
    return reads


def _named_one_by_one(seen: Listings, globs: Mapping[str, str]) -> dict[str, tuple[Entry, ...]]:
    """Return the entries of each folder that was not listed itself; a listed folder shows in the one above."""
    found: dict[str, dict[str, Entry]] = {}
    for path, entry in seen.paths.items():
        folder, name = posixpath.split(path)
        found.setdefault(folder, {})[name] = msgspec.structs.replace(entry, name=name)
    for path in seen.folders:
        above, name = posixpath.split(path)
        if above in globs and re.search(globs[above], name):
            found.setdefault(above, {}).setdefault(name, Entry(name, "dir"))
    for path in seen.errors:
        above, name = posixpath.split(path)
        if above in globs and (_is_glob(name) or re.search(globs[above], name)):
            found.setdefault(above, {})
    return {folder: tuple(entries.values()) for folder, entries in found.items()}


def _is_glob(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def file_sections(text: str) -> tuple[tuple[str, str], ...]:
    """Return the files of a `== path` dump in order, each with its text; a path may come twice."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("== /"):
            found.append((line[3:].strip(), []))
        elif found:
            found[-1][1].append(line)
    return tuple((path, "".join(lines)) for path, lines in found)


def files_dump(text: str) -> Dump:
    """Return the `file:` reads of a `== path` dump; a file longer than `MAX_TEXT` is left out."""
    reads: dict[str, Read] = {}
    unread: dict[str, str] = {}
    whole = True
    sections = file_sections(text)
    if not sections:
        for line in text.splitlines():
            error = tool_error(line)
            if error is not None and not _is_glob(error[0]):
                reads[f"list:{error[0]}"] = failed(error[1])
        return Dump(reads, unread, whole=False)
    for path, content in sections:
        if len(content) > MAX_TEXT:
            whole = False
        else:
            reads[f"file:{path}"] = text_read(content)
    return Dump(reads, unread, whole)


def pci_addresses_dump(text: str) -> Dump:
    """Return the listing of `/sys/bus/pci/devices` from one address a line."""
    folder = "/sys/bus/pci/devices"
    names = text.split()
    error = tool_error(text.strip())
    if error is not None:
        return Dump({f"list:{folder}": failed(error[1])})
    bad = next((name for name in names if not _ADDRESS.fullmatch(name)), None)
    if bad is not None or not names:
        reason = f"'{bad}' is no PCI address" if bad is not None else "no PCI address in it"
        return Dump({}, {f"list:{folder}": reason}, whole=False)
    return Dump({f"list:{folder}": Read(entries=tuple(Entry(name, "link") for name in dict.fromkeys(names)))})


def pci_ids_dump(text: str) -> Dump:
    """Return vendor, device, class and driver of each PCI function from lines `address vendor device class driver`.

    The driver is left out where none is bound. The dump has the driver's name alone; the link is given
    as sysfs writes it.
    """
    folder = "/sys/bus/pci/devices"
    reads: dict[str, Read] = {}
    unread: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    bad: str | None = None
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if not _ADDRESS.fullmatch(words[0]):
            bad = line[:200]
            continue
        here = f"{folder}/{words[0]}"
        entries[words[0]] = Entry(words[0], "link")
        for place, name in enumerate(("vendor", "device", "class"), start=1):
            if place < len(words) and _HEX_ID.fullmatch(words[place]):
                reads[f"file:{here}/{name}"] = Read(text=f"{words[place]}\n")
            else:
                unread[f"file:{here}/{name}"] = f"no {name} in the line {line[:200]!r}"
        known = f"file:{here}/class" in reads
        if not known:
            unread[f"link:{here}/driver"] = f"the line {line[:200]!r} is not whole"
        elif len(words) == 4:  # noqa: PLR2004  address and three identifiers: no driver is bound
            reads[f"link:{here}/driver"] = Read(absent=True)
        else:
            reads[f"link:{here}/driver"] = Read(text=f"../../../bus/pci/drivers/{words[4]}")
    if bad is not None or not entries:
        unread[f"list:{folder}"] = (
            f"no PCI function in the line {bad!r}" if bad is not None else "no PCI function in it"
        )
    else:
        reads[f"list:{folder}"] = Read(entries=tuple(entries.values()))
    return Dump(reads, unread, whole=bad is None)


def pci_files_dump(text: str) -> Dump:
    """Return the sysfs files of each PCI function from a `== path` dump of `name=value` lines.

    `driver` and `iommu_group` are links: empty where there is none. The `resource` file stands at the
    section's end as lines of three numbers. Names of the folder's other files are passed over.
    """
    reads: dict[str, Read] = {}
    for path, content in file_sections(text):
        resource: list[str] = []
        for line in content.splitlines():
            if _RESOURCE.fullmatch(line.strip()):
                resource.append(line.strip())
                continue
            name, equals, value = line.partition("=")
            if not equals or not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
                continue
            error = tool_error(value)
            if name in {"driver", "iommu_group"}:
                value = value.strip()
                link = failed(error[1]) if error is not None else Read(text=value) if value else Read(absent=True)
                reads[f"link:{path}/{name}"] = link
            else:
                reads[f"file:{path}/{name}"] = failed(error[1]) if error is not None else Read(text=f"{value}\n")
        if resource:
            reads[f"file:{path}/resource"] = Read(text="\n".join(resource) + "\n")
    return Dump(reads, {}, whole=bool(reads))


def modules_dump(text: str) -> Dump:
    """Return `/proc/modules` from a `grep nvidia` of it that may be followed by `wc -l` of the whole.

    Where the count equals the lines shown nothing was filtered out, and the text is the whole file.
    """
    key = "file:/proc/modules"
    lines = text.splitlines(keepends=True)
    error = tool_error(text.strip())
    if error is not None:
        return Dump({key: failed(error[1])})
    total: int | None = None
    kept: list[str] = []
    for line in lines:
        found = re.fullmatch(r"\s*(\d+) /proc/modules\s*", line)
        if found is not None:
            total = int(found[1])
        elif line.strip():
            kept.append(line)
    bad = next((line for line in kept if not re.match(r"\w+ \d+ ", line)), None)
    if bad is not None:
        return Dump({}, {key: f"a line is no line of /proc/modules: {bad[:200]!r}"}, whole=False)
    if not kept and total is None:
        return Dump({}, {key: "neither a module nor the count of modules in it"}, whole=False)
    return Dump({key: Read(text="".join(kept), filtered=None if total == len(kept) else "nvidia")})


def module_dump(text: str) -> Dump:
    """Return the loaded module's version and the driver's bindings from two `== folder` listings.

    Behind the names in `/sys/module/nvidia` stand the contents of `version` and `srcversion`. A folder of
    sysfs is never empty: a listing without a name was not read.
    """
    driver, module = "/sys/bus/pci/drivers/nvidia", "/sys/module/nvidia"
    reads: dict[str, Read] = {}
    unread: dict[str, str] = {}
    folders = dict(file_sections(text))
    for folder, key in ((driver, f"list:{driver}"), (module, f"file:{module}/version")):
        lines = [line.strip() for line in folders.get(folder, "").splitlines() if line.strip()]
        errors = dict(found for line in lines if (found := tool_error(line)) is not None)
        names = [line for line in lines if tool_error(line) is None]
        versions = [line for line in names if _VERSION.fullmatch(line)]
        if folder in errors:
            reads[key] = failed(errors[folder])
        elif folder == driver and names:
            reads[key] = Read(entries=tuple(_sysfs_driver_entry(name) for name in names))
        elif folder == module and versions:
            reads[key] = Read(text=f"{versions[0]}\n")
        elif f"{module}/version" in errors and folder == module:
            reads[key] = failed(errors[f"{module}/version"])
        else:
            unread[key] = f"nothing of it behind '== {folder}'"
    return Dump(reads, unread, whole=False)


def _sysfs_driver_entry(name: str) -> Entry:
    # The driver model: functions bound to a driver, and `module`, are links; the rest are files.
    return Entry(name, "link" if _ADDRESS.fullmatch(name) or name == "module" else "file")


def tree_dump(text: str) -> Dump:
    """Return listings of `/proc/driver/nvidia` and its `gpus` from `find -type f`."""
    root = "/proc/driver/nvidia"
    paths = [line for line in text.splitlines() if line.startswith(f"{root}/")]
    if not paths:
        missing = next(
            (found for line in text.splitlines() if (found := tool_error(line)) is not None and found[0] == root), None
        )
        if missing is not None:
            return Dump({f"list:{root}": failed(missing[1])})
        return Dump({}, {f"list:{root}": f"no path under {root} in it"}, whole=False)
    reads: dict[str, Read] = {}
    for folder in (root, f"{root}/gpus"):
        parts = [path.removeprefix(f"{folder}/").split("/") for path in paths if path.startswith(f"{folder}/")]
        entries = {part[0]: Entry(part[0], "dir" if len(part) > 1 else "file") for part in parts}
        reads[f"list:{folder}"] = Read(entries=tuple(entries.values()))
    return Dump(reads)


_PROGRAMS: Final = (
    (re.compile(r"NVIDIA Container Toolkit CLI version "), "nvidia-ctk --version"),
    (re.compile(r"NVIDIA Container Runtime version "), "nvidia-container-runtime --version"),
    (re.compile(r"NVIDIA Container Runtime Hook version "), "nvidia-container-runtime-hook --version"),
    (re.compile(r"cli-version: "), "nvidia-container-cli --version"),
    (re.compile(r"containerd \S+ "), "containerd --version"),
    (re.compile(r"runc version "), "runc --version"),
    (re.compile(r"crun version "), "crun --version"),
    (re.compile(r"crio version |Version: +\d"), "crio --version"),
    (re.compile(r"crictl version "), "crictl --version"),
)
"""How each program begins what it prints for `--version`."""


def versions_dump(text: str) -> Dump:
    """Return each program's `--version` from their texts one behind the other.

    nvidia-container-runtime prints the version of the runtime below it behind an empty line: that belongs
    to it. A program that the shell did not find is absent.
    """
    parts: dict[str, list[str]] = {}
    reads: dict[str, Read] = {}
    here: str | None = None
    blank = False
    whole = True
    for line in text.splitlines(keepends=True):
        program = next((name for start, name in _PROGRAMS if start.match(line)), None)
        within = (
            here == "nvidia-container-runtime --version" and blank and program in {"runc --version", "crun --version"}
        )
        missing = re.match(r"(?:\S+: )?(?:line \d+: |\d+: )?(\S+): (?:command )?not found\s*$", line[:_MAX_LINE])
        if missing is not None:
            reads[f"exec:{posixpath.basename(missing[1])} --version"] = Read(absent=True)
            here = None
        elif program is not None and not within and program not in parts:
            here = program
            parts[program] = [line]
        elif here is not None:
            parts[here].append(line)
        else:
            whole = whole and not line.strip()
        blank = not line.strip()
    reads.update({f"exec:{name}": Read(text="".join(lines)) for name, lines in parts.items()})
    return Dump(reads, {}, whole)


NVML_SYSTEM: Final = {
    "nvmlInit": "nvmlInit_v2",
    "nvmlDeviceGetCount": "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetCount_v2": "nvmlDeviceGetCount_v2",
    "nvmlSystemGetDriverVersion": "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion": "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2": "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetConfComputeState": "nvmlSystemGetConfComputeState",
}
"""Calls without a device, as a dump by pynvml names them and as the library does."""

NVML_DEVICE: Final = (
    # Identity.
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetModuleId",
    "nvmlDeviceGetBrand",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetInforomImageVersion",
    "nvmlDeviceGetInforomVersion(NVML_INFOROM_OEM)",
    "nvmlDeviceGetInforomVersion(NVML_INFOROM_ECC)",
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetGspFirmwareVersion",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetGridLicensableFeatures",
    # PCI.
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetGpuMaxPcieLinkGeneration",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetNumaNodeId",
    # Memory, ECC and its repair.
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetMemoryErrorCounter(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_VOLATILE_ECC,NVML_MEMORY_LOCATION_SRAM)",
    "nvmlDeviceGetMemoryErrorCounter(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_AGGREGATE_ECC,NVML_MEMORY_LOCATION_SRAM)",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS)",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)",
    "nvmlDeviceGetRepairStatus",
    # State.
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetDefaultApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_MEM_MAX)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_GPU_MAX)",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetNvLinkState(0)",
)
"""Getters whose answers become reads, as a dump names them: the index comes first in the read's name."""

NVML_FIELDS: Final = (
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "NVML_FI_DEV_MEMORY_TEMP",
    "NVML_FI_DEV_REMAPPED_COR",
    "NVML_FI_DEV_REMAPPED_UNC",
    "NVML_FI_DEV_REMAPPED_PENDING",
    "NVML_FI_DEV_REMAPPED_FAILURE",
    "NVML_FI_DEV_PCIE_REPLAY_COUNTER",
    "NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT",
    "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT",
    "NVML_FI_DEV_RESET_STATUS",
    "NVML_FI_DEV_DRAIN_AND_RESET_STATUS",
)
"""Field values that become reads, `nvmlDeviceGetFieldValues(<index>,<field>)`."""


def nvml_dump(text: str) -> Dump:
    """Return the `nvml:` reads of a sweep of pynvml's getters in JSON: each value, or NVML's return code.

    A getter that the sweep skipped, or that failed in Python, was not read. Where the sweep is not whole
    the calls that begin every reading of NVML are unread.
    """
    begin = ("nvml:nvmlInit_v2", "nvml:nvmlDeviceGetCount_v2", "nvml:nvmlSystemGetDriverVersion")
    try:
        document = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Dump({}, dict.fromkeys(begin, f"not JSON: {error}"), whole=False)
    if not isinstance(document, dict):
        return Dump({}, dict.fromkeys(begin, "not an object of NVML calls"), whole=False)
    reads: dict[str, Read] = {}
    unread: dict[str, str] = {}
    system = {**_mapping(document.get("system")), "nvmlInit": document.get("nvmlInit")}
    for name, call in NVML_SYSTEM.items():
        if name in system:
            _answer(f"nvml:{call}", system[name], reads, unread)
    unread.update({key: "the sweep has no answer of it" for key in begin if key not in reads and key not in unread})
    devices = document.get("devices")
    for place, device in enumerate(devices if isinstance(devices, list) else []):
        index = _mapping(device).get("index", place)
        number = index if isinstance(index, int) else place
        getters = _mapping(_mapping(device).get("getters"))
        for name in NVML_DEVICE:
            if name in getters:
                _answer(f"nvml:{nvml_call(name, number)}", getters[name], reads, unread)
        fields = _mapping(_mapping(device).get("field_values"))
        for name in NVML_FIELDS:
            if name in fields:
                _answer(f"nvml:nvmlDeviceGetFieldValues({number},{name})", fields[name], reads, unread)
    return Dump(reads, unread, whole=False)


def nvml_call(name: str, index: int) -> str:
    """Return a read's name: `nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)` of GPU 0 has the index in front."""
    call, _, arguments = name.partition("(")
    return f"{call}({index}{',' if arguments else ''}{arguments.removesuffix(')')})"


def _mapping(value: Any) -> Mapping[str, Any]:  # noqa: ANN401  decoded JSON
    return value if isinstance(value, dict) else {}


def _answer(key: str, answer: Any, reads: dict[str, Read], unread: dict[str, str]) -> None:  # noqa: ANN401  decoded JSON
    fields = _mapping(answer)
    code = fields.get("error", fields.get("nvmlReturn"))
    if isinstance(code, int) and not isinstance(code, bool) and code != 0:
        reads[key] = Read(code=code)
    elif "value" in fields:
        reads[key] = Read(code=0, value=fields["value"])
    elif "skipped" not in fields and "python_error" not in fields:
        unread[key] = "neither a value nor a code in the sweep"


def filtered_file(path: str, pattern: str) -> Callable[[str], Dump]:
    """Return a parser of a `grep` of one file."""

    def parse(text: str) -> Dump:
        read = text_read(text)
        return Dump({f"file:{path}": read if read.text is None else Read(text=text, filtered=pattern)})

    return parse


def whole_file(path: str) -> Callable[[str], Dump]:
    """Return a parser of a `cat` of one file."""
    return lambda text: Dump({f"file:{path}": text_read(text)})


def whole_command(line: str, *, filtered: str | None = None) -> Callable[[str], Dump]:
    """Return a parser of what one command printed, its exit status unknown."""
    return lambda text: Dump({f"exec:{line}": command_read(text, filtered=filtered)})

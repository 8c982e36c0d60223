"""The kernel's log: what the NVIDIA driver said in it, and how far back it reaches.

Takes the text of `dmesg` or of a journal's kernel lines, whole or filtered, with any of their
timestamps. Says what stands there; which of it matters is for the checks.
"""

import enum
import re
from collections.abc import Iterator
from typing import Final

import msgspec

_TIME: Final = re.compile(r"\[ {0,12}(\d{1,12}\.\d{1,9})\] ?")
_PCI: Final = re.compile(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.([0-7]))?")
_XID: Final = re.compile(r"NVRM: Xid \(([^)]{0,80})\): (\d{1,4})(?:, ?(.*))?")
_SXID: Final = re.compile(r"nvidia-nvswitch\d{1,3}: SXid \(([^)]{0,80})\): (\d{1,5}), ?(.*)")
_PREVIOUS: Final = re.compile(r"caused by previous Xid (\d{1,4})$")
_PROCESS: Final = re.compile(r"\bname=([^,]{1,64})")
_PID: Final = re.compile(r"\bpid='?(\d{1,10})")
_VERSION: Final = re.compile(r"version:? (\d{3,4}(?:\.\d{1,4}){1,3})")
_CLIENT: Final = re.compile(r"the client '([^']{0,64})'")
_HEAD: Final = 200
"""A line's timestamp, host and facility stand in its first characters."""
_MISMATCH_LINES: Final = 6
"""The API mismatch message is up to this many lines long."""
_LINES_ABOVE: Final = 3
"""A message of several lines names its GPU in the first: "The NVIDIA GPU 0000:b3:00.0"."""


class NoticeKind(enum.Enum):
    """Something that the kernel said about the driver beside XIDs."""

    UNSIGNED_MODULE = "the kernel refused a module's signature"
    SELINUX_DENIAL = "SELinux refused to load a module"
    WRONG_BUILD = "a module was built for another kernel"
    NOUVEAU_OWNS = "nouveau or another driver owned the GPU"
    OPEN_ONLY = "the GPU needs the open kernel modules"
    UNSUPPORTED = "this driver does not support the GPU"
    GSP_FAILURE = "the GPU System Processor did not start or answer"
    INIT_FAILURE = "the GPU could not be initialised"
    GSP_TIMEOUT = "the GPU System Processor stopped answering"
    FELL_OFF = "the GPU has fallen off the bus"
    NO_BAR = "the GPU has no memory window"


_PHRASES: Final = (
    ("fallen off the bus", NoticeKind.FELL_OFF),
    ("RmInitAdapter failed", NoticeKind.INIT_FAILURE),
    ("rm_init_adapter failed", NoticeKind.INIT_FAILURE),
    ("Cannot initialize GSP firmware RM", NoticeKind.GSP_FAILURE),
    ("Timeout waiting for RPC from GSP", NoticeKind.GSP_TIMEOUT),  # drivers to 535
    ("waiting for RPC response from G", NoticeKind.GSP_TIMEOUT),  # "… from GPU0 GSP!", from 550 on
    ("failed to wait for GFW_BOOT", NoticeKind.GSP_FAILURE),
    ("requires use of the NVIDIA open kernel modules", NoticeKind.OPEN_ONLY),
    ("installed in this system is not supported by", NoticeKind.UNSUPPORTED),
    ("supported through the NVIDIA", NoticeKind.UNSUPPORTED),
    ("obtained ownership of the NVIDIA device", NoticeKind.NOUVEAU_OWNS),
    ("This PCI I/O region assigned to your NVIDIA device is invalid", NoticeKind.NO_BAR),
    ("BAR1 is 0M", NoticeKind.NO_BAR),
    ("Loading of unsigned module is rejected", NoticeKind.UNSIGNED_MODULE),
    ("Loading of module with unavailable key is rejected", NoticeKind.UNSIGNED_MODULE),
    ("Required key not available", NoticeKind.UNSIGNED_MODULE),
    ("unsigned module loading is restricted", NoticeKind.UNSIGNED_MODULE),
    ("Key was rejected by service", NoticeKind.UNSIGNED_MODULE),
    ("{ module_load }", NoticeKind.SELINUX_DENIAL),
    ("version magic", NoticeKind.WRONG_BUILD),
    ("disagrees about version of symbol", NoticeKind.WRONG_BUILD),
)
"""What a line contains, in the order in which it is looked for.

Source: open-gpu-kernel-modules, kernel-open/nvidia/nv-pci.c, nv.c and src/nvidia (NVRM lines); Linux,
kernel/module/{signing,version,main}.c and security/lockdown.
"""
_WORTH_READING: Final = ("NVRM", "nvidia", "module", "key", "Key")
"""A line without any of these says nothing of the driver."""
_ABOUT_MODULES: Final = {NoticeKind.WRONG_BUILD}
"""Kinds whose phrase other modules' lines hold too: they count only where the line names nvidia."""
_LOADED: Final = (
    "NVRM: loading NVIDIA UNIX",
    "nvidia: loading out-of-tree module",
    "nvidia-nvlink: Nvlink Core is being initialized",
    "nvidia: module license 'NVIDIA' taints kernel",
)
"""Lines that the module's loading writes; the first three are in `recordings/*/host/dmesg-nvidia.txt`."""


class Xid(msgspec.Struct, frozen=True):
    """One XID line. `address`: PCI domain, bus and device (`0000:00:06`), empty if the line has none.

    `time_s`: seconds since boot, None if the log has no such timestamps. `text`: what follows the code.
    """

    address: str
    code: int
    text: str
    time_s: float | None = None
    process: str | None = None
    pid: int | None = None

    @property
    def previous(self) -> int | None:
        """The code of the XID that this one follows, as drivers from 580 on say it of 45; None if it does not say."""
        found = _PREVIOUS.search(self.text)
        return int(found.group(1)) if found is not None else None


class Sxid(msgspec.Struct, frozen=True):
    """One error of an NVSwitch. `address`: the switch's, as an XID's. `text`: what follows the code.

    Source: open-gpu-kernel-modules, src/common/nvswitch, NVSWITCH_PRINT_SXID.
    """

    address: str
    code: int
    text: str
    time_s: float | None = None

    @property
    def fatal(self) -> bool:
        """Tell whether the switch calls it fatal: its links carry nothing until it is reset."""
        return self.text.startswith("Fatal")


class Mismatch(msgspec.Struct, frozen=True):
    """A program was refused because its library is of another version than the kernel module."""

    client: str | None
    client_version: str
    module_version: str
    time_s: float | None = None


class Notice(msgspec.Struct, frozen=True):
    """One line of another kind; `address` is empty where the line names no GPU."""

    kind: NoticeKind
    address: str
    text: str
    time_s: float | None = None


class KernelLog(msgspec.Struct, frozen=True):
    """What the NVIDIA driver and the module loader said, oldest first.

    `gap`: why XIDs since boot may be missing from it, None if it has them all.
    """

    xids: tuple[Xid, ...] = ()
    sxids: tuple[Sxid, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    notices: tuple[Notice, ...] = ()
    gap: str | None = None

    def of(self, kind: NoticeKind) -> tuple[Notice, ...]:
        """Return the lines of one kind."""
        return tuple(notice for notice in self.notices if notice.kind is kind)


def slot_of(address: str) -> str:
    """Return domain, bus and device of a PCI address in the kernel's spelling (`0000:00:06`), empty if it is none."""
    found = _PCI.search(address)
    if found is None:
        return ""
    domain, bus, device, _ = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}".lower()


def parse_kernel_log(text: str, *, filtered: str | None = None, truncated: bool = False) -> KernelLog:
    """Read a kernel log, since the last boot that it shows.

    `filtered` is the pattern that let lines through, `truncated` says that the head is missing.
    """
    lines = _since_boot(text.splitlines())
    xids: list[Xid] = []
    sxids: list[Sxid] = []
    mismatches: list[Mismatch] = []
    notices: list[Notice] = []
    loaded = False
    for place, line in enumerate(lines):
        if not any(word in line for word in _WORTH_READING):
            continue
        loaded = loaded or any(phrase in line for phrase in _LOADED)
        time_s, words = _split(line)
        found = _XID.search(words)
        if found is not None:
            xids.append(_xid(found.group(1), int(found.group(2)), found.group(3) or "", time_s))
        elif (switch := _SXID.search(words)) is not None:
            sxids.append(Sxid(slot_of(switch.group(1)), int(switch.group(2)), switch.group(3).strip(), time_s))
        elif "API mismatch" in words:
            mismatches.extend(_mismatch(words, lines[place + 1 : place + _MISMATCH_LINES], time_s))
        else:
            notices.extend(_notice(words, lines[max(0, place - _LINES_ABOVE) : place], time_s))
    gap = _gap(lines, filtered=filtered, truncated=truncated, loaded=loaded)
    return KernelLog(tuple(xids), tuple(sxids), tuple(mismatches), tuple(notices), gap)


def _since_boot(lines: list[str]) -> list[str]:
    """Leave out what a journal holds of earlier boots."""
    for place in range(len(lines) - 1, -1, -1):
        if "Linux version " in lines[place][:_HEAD]:
            return lines[place:]
    return lines


def _split(line: str) -> tuple[float | None, str]:
    found = _TIME.search(line, 0, _HEAD)
    if found is not None:
        return float(found.group(1)), line[found.end() :].strip()
    head, colon, rest = line.partition("kernel: ")
    return None, (rest if colon and len(head) < _HEAD else line).strip()


def _xid(where: str, code: int, text: str, time_s: float | None) -> Xid:
    process = _PROCESS.search(text)
    pid = _PID.search(text)
    name = process.group(1).strip("'\" ") if process else None
    if name == "<unknown>":
        name = None
    return Xid(slot_of(where), code, text.strip(), time_s, name, int(pid.group(1)) if pid else None)


def _mismatch(words: str, following: list[str], time_s: float | None) -> Iterator[Mismatch]:
    """Put a message of several lines together; drivers before 5xx name no client, and break lines elsewhere."""
    parts = [words]
    for line in following:
        _, more = _split(line)
        if not more.startswith("NVRM:") or "API mismatch" in more:
            break
        parts.append(more.removeprefix("NVRM:").strip())
    message = " ".join(parts)
    versions = _VERSION.findall(message)
    client = _CLIENT.search(message)
    if len(versions) > 1:
        yield Mismatch(client.group(1) if client else None, versions[0], versions[1], time_s)


def _notice(words: str, above: list[str], time_s: float | None) -> Iterator[Notice]:
    for phrase, kind in _PHRASES:
        if phrase in words and (kind not in _ABOUT_MODULES or "nvidia" in words):
            yield Notice(kind, slot_of(words) or _named_above(above), words, time_s)
            return


def _named_above(lines: list[str]) -> str:
    """Return the GPU that the first line of a message names, empty where the lines above are of other messages."""
    for line in reversed(lines):
        _, words = _split(line)
        if not words.startswith("NVRM:"):
            return ""
        if "The NVIDIA GPU" in words:
            return slot_of(words)
    return ""


_SAMPLE: Final = "NVRM: Xid (PCI:0000:00:06): 79, GPU has fallen off the bus."


def _gap(lines: list[str], *, filtered: str | None, truncated: bool, loaded: bool) -> str | None:
    """Say why an XID since boot may be missing.

    The ring drops its oldest lines first: a log that shows the module being loaded has all that came
    after, and so has one that begins with the kernel's start.
    """
    if filtered is not None and not _lets_through(filtered):
        return f"the log was read through the filter '{filtered}', which keeps NVRM's lines out"
    if loaded:
        return None
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        return (
            "the log is empty"
            if filtered is None
            else f"no line passed the filter '{filtered}', not even of the module's start"
        )
    if filtered is not None or truncated:
        return "the log does not show the nvidia module being loaded: its beginning is missing or was rotated away"
    time_s, _ = _split(first)
    if "Linux version " in first[:_HEAD] or (time_s is not None and time_s < 1):
        return None
    begins = f"begins {time_s:.0f} s after boot" if time_s is not None else "has no beginning that can be dated"
    return f"the log {begins} and does not show the nvidia module being loaded: it was rotated"


def _lets_through(pattern: str) -> bool:
    try:
        return re.search(pattern, _SAMPLE, re.IGNORECASE) is not None
    except re.error:
        return False

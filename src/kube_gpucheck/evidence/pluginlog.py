"""What the log of a device plugin proves, and a log's own last word on what went wrong.

Judges nothing. Sources: k8s-device-plugin 0.7 to 0.20 (log lines), GKE's container-engine-accelerators.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from kube_gpucheck.evidence.sharing import DEFAULT_RESOURCE, ConfigError, PluginConfig, parse_printed
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

_START: Final = re.compile(r"Starting plugins\.|device-plugin started$", re.IGNORECASE)
_REGISTERED: Final = re.compile(r"Registered device plugin(?: for '([^']{1,300})')? with Kubelet", re.IGNORECASE)
_PROVIDER_REGISTERED: Final = re.compile(r"device-plugin registered with the kubelet", re.IGNORECASE)
_STOPPED: Final = re.compile(r"Stopping to serve '([^']{1,300})'")
_WAITS: Final = re.compile(r"No devices found\. Waiting indefinitely")
_PLATFORM: Final = re.compile(r"Detected platform: (\w+)")
_LEGACY_PLATFORM: Final = re.compile(r"Detected (non-)?(NVML|Tegra) platform", re.IGNORECASE)
_CONFIG: Final = re.compile(r"Running with config:")
_XID: Final = re.compile(r"XidCriticalError: Xid=(\d+) on Device=([^\s,;]+)")
_UNHEALTHY: Final = re.compile(r"'([^']{1,300})' device marked unhealthy: (\S+)")
_TOO_OLD: Final = re.compile(r"Device (\S+) is too old to support healthchecking")
_NO_SOCKET: Final = re.compile(r"(/\S{0,300}kubelet\.sock)\S*:[^\n]{0,200}no such file or directory", re.IGNORECASE)
_NO_LIBRARY: Final = re.compile(
    r"ERROR_LIBRARY_NOT_FOUND|could not load NVML library|libnvidia-ml\.so[.\d]*: cannot open shared object",
    re.IGNORECASE,
)
_TELLING: Final = (
    "register",
    "stopping to",
    "no devices",
    "detected",
    "xid",
    "unhealthy",
    "too old",
    "kubelet.sock",
    "library",
    "libnvidia-ml",
)
_COMPLAINING: Final = ("error", "failed", "fatal", "panic", "could not", "cannot", "unable")
"""Words in lower case, of which one stands in each line that the expressions above, or `_COMPLAINT`, find."""
_KLOG_COMPLAINT: Final = re.compile(r"(?:^|\r)[EF]\d{4} ", re.MULTILINE)
LOST: Final = re.compile(r"(?:unable to|failed to) retrieve container logs for ")
_KLOG: Final = re.compile(r"[IWEF]\d{4} [\d:.]{8,15} +\d+ [^\]\s]{1,80}\] ?")
_STAMP: Final = re.compile(r"\s{0,4}((?:[IWEF]\d{4} |\d{4}/\d\d/\d\d )\d\d:\d\d:\d\d)")
_DATED: Final = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
_FATAL: Final = re.compile(r"error starting plugins|panic:|fatal|unable to (?:load|parse|create)", re.IGNORECASE)
_COMPLAINT: Final = re.compile(
    r"^(?:[EF]\d{4} )|\b(?:error|failed|fatal|panic|could not|cannot|unable)\b", re.IGNORECASE
)
_HINT: Final = re.compile(
    r"If this is (?:not )?a GPU node|You can (?:check|learn)|Failed to start one or more (?:plugins|MPS)"
)
MISLEADING: Final = re.compile(
    r"unable to get vGPU devices|IOMMU FD"
    r"|[Aa]ssertion failure: selected configuration not currently applied"
    r"|[Ff]ailed to remove \.ready file"
    r"|failed to (?:detect|read|get) (?:[cp]state|kconfig|SST-BF|nvdimm devices|cpufreq directory|Swap nodes|hypervisor"
    r"|kvm status|selinux status|builtin kernel modules|DMI entry|huge ?pages|net (?:iface|device) attribute"
    r"|hyper-threading|USB device info)"
    r"|can't detect whether turbo boost is enabled",
)
"""Complaints that a healthy component makes too, so that none of them is why one is not well.

Source: GFD 0.20.0 (recorded); mig-parted 0.10 to 0.15, cmd/nvidia-mig-parted/assert (each change begins with it);
k8s-device-plugin 0.15 to 0.20, cmd/mps-control-daemon/main.go (stopDaemons); node-feature-discovery 0.11 to 0.20,
source/ (what a virtual machine, or a kernel without its configuration, does not offer).
"""
_MAX_LINE: Final = 4_000
_SHOWN: Final = 360


def brief(text: str, limit: int = _SHOWN) -> str:
    """Return a text in one line; of a long one head and end, where a chain of errors names its origin."""
    line = " ".join(text.split())
    head = limit // 3
    return line if len(line) <= limit else f"{line[:head]} ... {line[len(line) - limit + head + 5 :]}"


class Unhealthy(msgspec.Struct, frozen=True):
    """A device that the plugin took out of service, with the XID that made it do so (None: another reason)."""

    device: str
    xid: int | None = None


class PluginLog(msgspec.Struct, frozen=True):
    """What a plugin's log proves, since the last start that stands in it.

    `has_start`: a start stands in it; without one the head is cut off and absence proves nothing. `registered`:
    resources registered with the kubelet and still served; `registered_when`: the stamp of the last registration, as
    it is written. `waits`: it found no device and waits for ever.
    `platform`: nvml, wsl, tegra or unknown, None if it does not say. `config`: what it prints that it runs with, None
    if it prints none. `socket`: the kubelet's socket that it did not find. `no_library`: it could not load NVML's
    library. `problem`: its own last word on what went wrong, None if it complains of nothing.
    """

    has_start: bool
    registered: tuple[str, ...] = ()
    registered_when: str | None = None
    waits: bool = False
    platform: str | None = None
    config: Reading[PluginConfig | None] = Seen(None)
    unhealthy: tuple[Unhealthy, ...] = ()
    socket: str | None = None
    no_library: bool = False
    problem: str | None = None


def complaint(text: str) -> str | None:
    """Return a log's own last word on what went wrong, None if it complains of nothing.

    The last line that ends a program, else the last that complains; without its time stamp, cut to a line.
    """
    last = None
    for short in _lines(text, () if _KLOG_COMPLAINT.search(text) else _COMPLAINING):
        if not _COMPLAINT.search(short) or _HINT.search(short) or MISLEADING.search(short):
            continue
        if last is None or _FATAL.search(short) or not _FATAL.search(last):
            last = short
    return None if last is None else brief(_DATED.sub("", _KLOG.sub("", last, count=1), count=1))


def parse_log(text: str, source: str) -> Reading[PluginLog]:
    """Return what a plugin's log proves; missing where the text says that there is no log to be had."""
    head = text[:_MAX_LINE].lstrip()
    if LOST.match(head):
        return Missing(MissingKind.ERROR, brief(head), source)
    start = _last_start(text)
    return Seen(_since(text[start or 0 :], source, has_start=start is not None))


def _last_start(text: str) -> int | None:
    """Return where the line of the last start begins, None if the log tells of none."""
    lowered = text.lower()
    place = len(text)
    while (place := lowered.rfind("start", 0, place)) >= 0:
        begin = text.rfind("\n", 0, place) + 1
        end = text.find("\n", place)
        line = text[begin : min(end if end >= 0 else len(text), begin + _MAX_LINE)]
        if _START.search(line.rstrip()):
            return begin
        place = begin
    return None


def _lines(text: str, words: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines in which one of these words stands, whatever their case; every line if no word is given."""
    lowered = text.lower()
    here = [word for word in words if word in lowered]
    if words and not here:
        return
    for line, low in zip(text.splitlines(), lowered.splitlines(), strict=True):
        if not words or any(word in low for word in here):
            yield line[:_MAX_LINE]


def _stamp(line: str) -> str | None:
    """Return the stamp that a line begins with: klog's, or that of Go's logger."""
    found = _STAMP.match(line)
    return found[1] if found else None


class _Told:
    """What the lines of a log have told so far."""

    def __init__(self) -> None:
        self.registered: dict[str, None] = {}
        self.when: str | None = None
        self.xids: dict[str, int | None] = {}
        self.waits = self.no_library = False
        self.platform: str | None = None
        self.socket: str | None = None

    def hear(self, line: str) -> None:
        """Take in a line."""
        if found := _REGISTERED.search(line):
            self.registered[found[1] or DEFAULT_RESOURCE] = None
            self.when = _stamp(line)
        elif _PROVIDER_REGISTERED.search(line):
            self.registered[DEFAULT_RESOURCE] = None
            self.when = _stamp(line)
        elif found := _STOPPED.search(line):
            self.registered.pop(found[1], None)
        elif found := _PLATFORM.search(line):
            self.platform = found[1].lower()
        elif found := _LEGACY_PLATFORM.search(line):
            self.platform = (self.platform or found[2].lower()) if not found[1] else self.platform
        elif found := _XID.search(line):
            self.xids[found[2]] = int(found[1])
        elif found := _UNHEALTHY.search(line):
            self.xids.setdefault(found[2], None)
        elif (found := _TOO_OLD.search(line)) and "unhealthy" in line:
            self.xids.setdefault(found[1], None)
        self.waits = self.waits or _WAITS.search(line) is not None
        self.no_library = self.no_library or _NO_LIBRARY.search(line) is not None
        found = _NO_SOCKET.search(line)
        self.socket = found[1] if found else self.socket


def _bare(text: str) -> str:
    """Return a log without the configurations that it prints: two thirds of the lines of a plugin that runs well."""
    parts, place = [], 0
    for found in _CONFIG.finditer(text):
        opening = found.end()
        if opening < place or not text.startswith("\n{", opening):
            continue
        end = text.find("\n}", opening)
        if end < 0:
            break  # cut off; nor does any later one end
        parts.append(text[place:opening])
        place = end + 2
    return "".join((*parts, text[place:])) if parts else text


def _since(text: str, source: str, *, has_start: bool) -> PluginLog:
    told = _Told()
    bare = _bare(text)
    for line in _lines(bare, _TELLING):
        told.hear(line)
    return PluginLog(
        has_start=has_start,
        registered=tuple(told.registered),
        registered_when=told.when,
        waits=told.waits and not told.registered,
        platform=told.platform,
        config=_printed(text, source),
        unhealthy=tuple(Unhealthy(device, xid) for device, xid in told.xids.items()),
        socket=told.socket,
        no_library=told.no_library,
        problem=complaint(bare),
    )


def _printed(text: str, source: str) -> Reading[PluginConfig | None]:
    ends = [found.end() for found in _CONFIG.finditer(text)]
    if not ends:
        return Seen(None)
    try:
        return Seen(parse_printed(text, ends[-1]))
    except ConfigError as error:
        return Missing(MissingKind.UNPARSABLE, f"{source}: {error}", source)

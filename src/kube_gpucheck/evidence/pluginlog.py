"""What the log of a device plugin proves, and a log's own last word on what went wrong.

Judges nothing. Sources: k8s-device-plugin 0.7 to 0.20 (log lines), GKE's container-engine-accelerators.
"""

import re
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
LOST: Final = re.compile(r"(?:unable to|failed to) retrieve container logs for ")
_KLOG: Final = re.compile(r"[IWEF]\d{4} [\d:.]{8,15} +\d+ [^\]\s]{1,80}\] ?")
_DATED: Final = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
_FATAL: Final = re.compile(r"error starting plugins|panic:|fatal|unable to (?:load|parse|create)", re.IGNORECASE)
_COMPLAINT: Final = re.compile(
    r"^(?:[EF]\d{4} )|\b(?:error|failed|fatal|panic|could not|cannot|unable)\b", re.IGNORECASE
)
_HINT: Final = re.compile(r"If this is (?:not )?a GPU node|You can (?:check|learn)|Failed to start one or more plugins")
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
    resources registered with the kubelet and still served. `waits`: it found no device and waits for ever.
    `platform`: nvml, wsl, tegra or unknown, None if it does not say. `config`: what it prints that it runs with, None
    if it prints none. `socket`: the kubelet's socket that it did not find. `no_library`: it could not load NVML's
    library. `problem`: its own last word on what went wrong, None if it complains of nothing.
    """

    has_start: bool
    registered: tuple[str, ...] = ()
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
    for line in text.splitlines():
        short = line[:_MAX_LINE]
        if _HINT.search(short) or not _COMPLAINT.search(short):
            continue
        if last is None or _FATAL.search(short) or not _FATAL.search(last):
            last = short
    return None if last is None else brief(_DATED.sub("", _KLOG.sub("", last, count=1), count=1))


def parse_log(text: str, source: str) -> Reading[PluginLog]:
    """Return what a plugin's log proves; missing where the text says that there is no log to be had."""
    head = text[:_MAX_LINE].lstrip()
    if LOST.match(head):
        return Missing(MissingKind.ERROR, brief(head), source)
    lines = text.splitlines(keepends=True)
    start = 0
    has_start = False
    place = 0
    for line in lines:
        if _START.search(line[:_MAX_LINE].rstrip()):
            start, has_start = place, True
        place += len(line)
    return Seen(_since(text[start:], source, has_start=has_start))


def _since(text: str, source: str, *, has_start: bool) -> PluginLog:
    registered: dict[str, None] = {}
    xids: dict[str, int | None] = {}
    waits = no_library = False
    platform = socket = None
    for raw in text.splitlines():
        line = raw[:_MAX_LINE]
        if found := _REGISTERED.search(line):
            registered[found[1] or DEFAULT_RESOURCE] = None
        elif _PROVIDER_REGISTERED.search(line):
            registered[DEFAULT_RESOURCE] = None
        elif found := _STOPPED.search(line):
            registered.pop(found[1], None)
        elif found := _PLATFORM.search(line):
            platform = found[1].lower()
        elif found := _LEGACY_PLATFORM.search(line):
            platform = (platform or found[2].lower()) if not found[1] else platform
        elif found := _XID.search(line):
            xids[found[2]] = int(found[1])
        elif found := _UNHEALTHY.search(line):
            xids.setdefault(found[2], None)
        elif (found := _TOO_OLD.search(line)) and "unhealthy" in line:
            xids.setdefault(found[1], None)
        waits = waits or _WAITS.search(line) is not None
        no_library = no_library or _NO_LIBRARY.search(line) is not None
        found = _NO_SOCKET.search(line)
        socket = found[1] if found else socket
    return PluginLog(
        has_start=has_start,
        registered=tuple(registered),
        waits=waits and not registered,
        platform=platform,
        config=_printed(text, source),
        unhealthy=tuple(Unhealthy(device, xid) for device, xid in xids.items()),
        socket=socket,
        no_library=no_library,
        problem=complaint(text),
    )


def _printed(text: str, source: str) -> Reading[PluginConfig | None]:
    ends = [found.end() for found in _CONFIG.finditer(text)]
    if not ends:
        return Seen(None)
    try:
        return Seen(parse_printed(text, ends[-1]))
    except ConfigError as error:
        return Missing(MissingKind.UNPARSABLE, f"{source}: {error}", source)

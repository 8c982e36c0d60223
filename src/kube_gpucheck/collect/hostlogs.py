"""The logs of a host's services: kernel, engine, kubelet; from the kernel's ring, the journal, or files.

A log is kept as it is, from its end. What it means is told elsewhere.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from kube_gpucheck.collect import hostplaces as places

if TYPE_CHECKING:
    from kube_gpucheck.collect.hostreads import HostReads, Read

MAX_LINES: Final = 5000
"""Of a service's journal, from its end: a kubelet's last hour, as a rule."""
MAX_CHARACTERS: Final = 1 << 20
_REFUSED: Final = re.compile("not permitted|insufficient permissions|Permission denied")
_FORBIDDEN: Final = frozenset({"EACCES", "EPERM"})


def read_logs(reads: HostReads) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the logs by unit, and for each that could not be had its unit, kind, reason and source."""
    logs: dict[str, str] = {}
    missing: list[dict[str, str]] = []
    kernel = _kernel(reads)
    if isinstance(kernel, str):
        logs["kernel"] = kernel
    else:
        missing.append(kernel)
    for unit, services, files in (
        ("containerd", places.ENGINE_UNITS, places.ENGINE_LOGS),
        ("kubelet", places.KUBELET_UNITS, places.KUBELET_LOGS),
    ):
        log = _service(reads, services, files)
        if isinstance(log, str):
            logs[unit] = log
        elif log is not None:
            missing.append(_lost(unit, [("journalctl", log)]))
    return logs, missing


def _kernel(reads: HostReads) -> str | dict[str, str]:
    """Return the kernel's log from the first source that has it, or which were tried and how each ended."""
    tried: list[tuple[str, Read]] = []
    ring = reads.peek("kmsg")
    if ring.get("text"):
        return str(ring["text"])
    tried.append(("/dev/kmsg", ring))
    if reads.root == "/":
        for line, options in (("dmesg", ()), ("journalctl -k -b", ("--no-pager", "-o", "short-monotonic", "-q"))):
            printed = reads.run(line, options=options)
            if printed.get("code") == 0 and str(printed.get("text", "")).strip():
                return str(printed["text"])
            tried.append((line, printed))
    for path in places.KERNEL_LOGS:
        text = reads.peek("file", path).get("text")
        if isinstance(text, str) and "kernel: " in text:
            return "".join(line for line in text.splitlines(keepends=True) if "kernel: " in line)
    return _lost("kernel", tried)


def _lost(unit: str, tried: list[tuple[str, Read]]) -> dict[str, str]:
    refused = any(_is_refused(read) for _, read in tried)
    late = all(read.get("error") == "ETIMEDOUT" for _, read in tried)
    kind = "forbidden" if refused else "timeout" if late else "error"
    reason = "; ".join(f"{name}: {_ending(read)}" for name, read in tried)
    return {"unit": unit, "kind": kind, "reason": reason, "source": tried[0][0]}


def _is_refused(read: Read) -> bool:
    return read.get("error") in _FORBIDDEN or _REFUSED.search(str(read.get("text", ""))[:1000]) is not None


def _ending(read: Read) -> str:
    """Return in a few words how a read ended that gave no log."""
    if "absent" in read:
        return "not there"
    if "error" in read:
        return str(read["error"])
    words = " ".join(str(read.get("text", "")).split())[:120]
    return words or "empty"


def _service(reads: HostReads, services: tuple[str, ...], files: tuple[str, ...]) -> str | Read | None:
    """Return a service's log from its file, else from the journal of those units that are there; None without any.

    What the journal answered stands in its place where it gave no log.
    """
    for path in files:
        text = reads.peek("file", path).get("text")
        if isinstance(text, str) and text.strip():
            return text[-MAX_CHARACTERS:]
    units = [one for one in services if _is_loaded(reads.reads.get("exec:systemctl show " + one, {}))]
    if not units:
        return None
    options = ["--no-pager", "-q", "-b", "-o", "short-iso", "-n", str(MAX_LINES)]
    for unit in units:
        options += ["-u", unit]
    printed = reads.run("journalctl", options=tuple(options))
    text = printed.get("text")
    if printed.get("code") != 0 or not isinstance(text, str):
        return printed
    if not text.strip() and os.getuid() != 0:
        return {"error": "EACCES"}  # of what it may not show journalctl says nothing, and ends with 0
    return text[-MAX_CHARACTERS:]


def _is_loaded(read: Read) -> bool:
    text = str(read.get("text", ""))
    return bool(text) and "LoadState=not-found" not in text

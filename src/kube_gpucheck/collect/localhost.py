"""Gathers the host that gpucheck itself runs on, into a bundle of its own or for a cluster's.

`host` does the reading; here its report gets a name and its place. What the host is to a cluster is found
out where the cluster's nodes are read.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from kube_gpucheck.collect import deadlines, hostplaces
from kube_gpucheck.collect.hostreport import report
from kube_gpucheck.collect.probe import files_of
from kube_gpucheck.evidence.bundle import BUNDLE_FORMAT, Asked, HostRecord, Manifest, RunRecord
from kube_gpucheck.evidence.names import is_name
from kube_gpucheck.evidence.nodereport import NodeReport
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.evidence.writing import BundleWriter

_NO_NAME: Final = "this-host"
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9.-]+")


def find_gpu(root: Path = Path("/")) -> str | None:
    """Return what says that an NVIDIA GPU is on this host, in a reader's words; None if nothing does.

    A look at the bus and at what a driver puts into /proc and /dev: it asks no GPU, and starts nothing.
    """
    for device in _children(root / hostplaces.PCI.lstrip("/")):
        kind = _first_line(device / "class")
        if _first_line(device / "vendor") == hostplaces.NVIDIA and kind.startswith(hostplaces.GPU_CLASSES):
            return f"an NVIDIA GPU at {device.name}"
    for path in hostplaces.SIGNS_OF_A_DRIVER:
        if (root / path.lstrip("/")).exists():
            return f"an NVIDIA driver ({path})"
    return None


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def read_this_host(name: str, *, timeout_s: float | None = None, root: str = "/") -> NodeReport:
    """Read this host whole. `name` is its host name, of which what no node's name can hold is left out.

    Starts children, and programs that tell of their own state; changes nothing.
    """
    cleaned = _NOT_IN_NAMES.sub("-", name.lower()).strip(".-")
    node = cleaned if is_name(cleaned) else _NO_NAME
    whole_s = deadlines.HOST_S if timeout_s is None else min(timeout_s, deadlines.HOST_S)
    found = report(node, root, full=False, deadline_s=whole_s)
    return msgspec.json.decode(msgspec.json.encode(found), type=NodeReport)


def boot_id_of(found: NodeReport) -> str | None:
    """Return the boot id that stands in a report, None if there is none."""
    return msgspec.json.decode(found.host, type=HostRecord).boot_id


def renamed(found: NodeReport, node: str) -> NodeReport:
    """Return the report as that of another node."""
    missing = tuple(msgspec.structs.replace(one, node=node) for one in found.missing)
    return msgspec.structs.replace(found, node=node, missing=missing)


def collect_host(found: NodeReport, folder: Path, *, run: RunRecord, tool: str) -> Manifest:
    """Write a bundle of one host, and return its manifest. Creates the folder.

    Raises:
        BundleError: the folder holds something, or cannot be written.
    """
    writer = BundleWriter(folder)
    redactor = Redactor()
    try:
        for path, content in files_of(found):
            writer.put(path, redactor.content(path, content))
        return writer.finish(
            Manifest(
                format=BUNDLE_FORMAT,
                tool=tool,
                run=run,
                provenance="live",
                asked=Asked(host={found.node: found.asked}),
                missing=found.missing,
                redacted=redactor.counts(),
            )
        )
    except BaseException:
        writer.abandon()
        raise

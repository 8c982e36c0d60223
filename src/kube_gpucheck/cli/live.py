"""Evidence of what lives: a cluster, this host, both; or a bundle put behind a Kubernetes API on this host."""

import contextlib
import datetime
import math
import os
import platform
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

import kube_gpucheck
from kube_gpucheck.cli.sources import Recorded, named_after
from kube_gpucheck.cli.streams import note
from kube_gpucheck.collect.cluster import collect
from kube_gpucheck.collect.connection import Connection, connect, open_connection
from kube_gpucheck.collect.kubeconfig import find_cluster
from kube_gpucheck.collect.localhost import collect_host, find_gpu, read_this_host
from kube_gpucheck.collect.progress import SILENT, Bar, Lines, Progress
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.bundle import Asked, Bundle, Manifest, RunRecord, open_bundle
from kube_gpucheck.evidence.nodereport import NodeReport
from kube_gpucheck.simulate.server import EmbeddedCluster

DEFAULT_TIMEOUT_S: Final = 300.0
"""For gathering everything from a cluster: 5,000 nodes take seconds, a slow server and many logs take minutes."""


class Gathered:
    """A cluster behind an API server."""

    live = True

    def __init__(
        self,
        connection: Connection,
        *,
        progress: Progress,
        timeout_s: float,
        pod: tuple[str, str] | None = None,
        host: bool = False,
        ask: Asked | None = None,
        played: Manifest | None = None,
        said: Mapping[str, str] | None = None,
    ) -> None:
        """Keep how to reach it.

        `host`: this host is read besides. `played`: what a simulated cluster plays back. `said`: the options that name
        the cluster.
        """
        self._connection = connection
        self._progress = progress
        self._timeout_s = timeout_s
        self._pod = pod
        self.reads_host = host
        self._ask = ask
        self._played = played
        self._said = said or {}

    @property
    def name(self) -> str:
        """What was asked, in the reader's words."""
        if self._played is not None:
            return f"the simulated cluster {self._played.run.id}"
        return f"{self._connection.context} at {self._connection.server}"

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:
        """Gather everything into the folder, the host and the cluster within one time. Creates it."""
        record = msgspec.structs.replace(_record(self.name), options=self._said)
        played = self._played
        deadline = Deadline(min(self._timeout_s, within_s))
        host = _read_host(self._progress, deadline.limit_s) if self.reads_host else None
        collect(
            self._connection,
            folder,
            ask=self._ask,
            run=record,
            tool=_TOOL,
            provenance=played.provenance if played else "live",
            modelled_on=played.modelled_on if played else None,
            not_real=played.not_real if played else (),
            progress=self._progress,
            timeout_s=deadline.limit_s if host is None else deadline.left_s(),
            pod=self._pod,
            host=host,
            reuse=reuse,
        )
        return open_bundle(folder)


class ThisHost:
    """The host that gpucheck runs on, alone."""

    live = True

    def __init__(self, *, progress: Progress, timeout_s: float) -> None:
        """Keep how long it may take."""
        self._progress = progress
        self._timeout_s = timeout_s

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:  # noqa: ARG002  a host is read whole
        """Gather everything into the folder. Creates it."""
        found = _read_host(self._progress, min(self._timeout_s, within_s))
        collect_host(found, folder, run=_record(f"host {found.node}"), tool=_TOOL)
        return open_bundle(folder)


def _read_host(progress: Progress, timeout_s: float) -> NodeReport:
    progress.begin("this host")
    found = read_this_host(platform.node(), timeout_s=timeout_s)
    progress.end(f"{len(found.asked):,} reads")
    return found


def _record(source: str) -> RunRecord:
    now = datetime.datetime.now(datetime.timezone.utc)
    return RunRecord(id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", started=now, gathered_at=now, source=source)


_TOOL: Final = f"gpucheck {kube_gpucheck.__version__}"


@contextlib.contextmanager
def simulated(origin: str, *, progress: Progress, timeout_s: float, pod: tuple[str, str] | None) -> Iterator[Gathered]:
    """Put a bundle or scenario behind a Kubernetes API on this host while the source is used."""
    with tempfile.TemporaryDirectory(prefix="gpucheck.") as scratch:
        folder = Path(scratch)
        bundle = Recorded(origin).gather(folder / "bundle")
        with EmbeddedCluster(bundle, name=named_after(origin)) as cluster:
            kubeconfig = folder / "kubeconfig"
            kubeconfig.write_text(cluster.kubeconfig(), encoding="utf-8")
            yield Gathered(
                open_connection(kubeconfig, None),
                progress=progress,
                timeout_s=timeout_s,
                pod=pod,
                ask=None if pod else bundle.manifest.asked,
                played=bundle.manifest,
            )


def of_this_place(
    kubeconfig: Path | None,
    context: str | None,
    *,
    progress: Progress,
    timeout_s: float,
    pod: tuple[str, str] | None,
    host: bool,
    look_for_gpu: Callable[[], str | None] = find_gpu,
) -> Gathered | ThisHost:
    """Return what is asked for; where nothing is said, the cluster and the GPU that are found, and say so.

    `host`: this host is asked for, alone unless a cluster is named. `look_for_gpu` tells what says that one is here.

    Raises:
        UsageError: there is none, or the kubeconfig is wrong.
    """
    named = kubeconfig is not None or context is not None
    if host and not named:
        return ThisHost(progress=progress, timeout_s=timeout_s)
    access = find_cluster(kubeconfig, context)
    sign = None if host or named or pod is not None else look_for_gpu()
    if access is None and sign is None:
        where = "" if pod is not None else ", and no NVIDIA GPU on this host"
        seen = f"no cluster was found: no kubeconfig ($KUBECONFIG, ~/.kube/config), and this is no pod of one{where}"
        way_out = "try 'gpucheck run --simulate tutorial/06-plugin-undesired', or judge evidence with --from BUNDLE"
        msg = f"{seen}; {way_out}"
        raise UsageError(msg)
    if access is None:
        note(f"no cluster was found, and {sign}: this host is judged alone")
        return ThisHost(progress=progress, timeout_s=timeout_s)
    connection = connect(access)
    if sign is not None:
        note(f"found the cluster {connection.context} at {connection.server}, and {sign} on this host: both are judged")
    named_by = {"kubeconfig": kubeconfig, "context": context}
    said = {name: str(value) for name, value in named_by.items() if value is not None}
    reads_host = host or sign is not None
    return Gathered(connection, progress=progress, timeout_s=timeout_s, pod=pod, host=reads_host, said=said)


@contextlib.contextmanager
def progress_of(*, quiet: bool) -> Iterator[Progress]:
    """Give who is told how the gathering goes: a bar on a terminal, lines elsewhere. Writes to standard error."""
    if quiet:
        yield SILENT
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with Bar(sys.stderr) as bar:
            yield bar
    else:
        yield Lines(sys.stderr)

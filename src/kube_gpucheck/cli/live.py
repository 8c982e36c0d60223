"""Evidence of clusters: a live one, or a bundle put behind a Kubernetes API on this host."""

import contextlib
import datetime
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import kube_gpucheck
from kube_gpucheck.cli.sources import Recorded, named_after
from kube_gpucheck.collect.cluster import collect
from kube_gpucheck.collect.connection import Connection, connect, open_connection
from kube_gpucheck.collect.kubeconfig import find_cluster
from kube_gpucheck.collect.progress import SILENT, Bar, Lines, Progress
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.bundle import Asked, Bundle, Manifest, RunRecord, open_bundle
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
        ask: Asked | None = None,
        played: Manifest | None = None,
    ) -> None:
        """Keep how to reach it. `played` is the bundle that a simulated cluster plays back, whose label stays."""
        self._connection = connection
        self._progress = progress
        self._timeout_s = timeout_s
        self._pod = pod
        self._ask = ask
        self._played = played

    @property
    def name(self) -> str:
        """What was asked, in the reader's words."""
        if self._played is not None:
            return f"the simulated cluster {self._played.run.id}"
        return f"{self._connection.context} at {self._connection.server}"

    def gather(self, folder: Path, *, reuse: Path | None = None) -> Bundle:
        """Gather everything into the folder. Creates it."""
        now = datetime.datetime.now(datetime.timezone.utc)
        record = RunRecord(
            id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}", started=now, gathered_at=now, source=self.name
        )
        played = self._played
        collect(
            self._connection,
            folder,
            ask=self._ask,
            run=record,
            tool=f"gpucheck {kube_gpucheck.__version__}",
            provenance=played.provenance if played else "live",
            modelled_on=played.modelled_on if played else None,
            not_real=played.not_real if played else (),
            progress=self._progress,
            timeout_s=self._timeout_s,
            pod=self._pod,
            reuse=reuse,
        )
        return open_bundle(folder)


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


def of_kubeconfig(
    kubeconfig: Path | None,
    context: str | None,
    *,
    progress: Progress,
    timeout_s: float,
    pod: tuple[str, str] | None,
) -> Gathered:
    """Return the cluster of a kubeconfig, or of this pod.

    Raises:
        UsageError: there is none, or the kubeconfig is wrong.
    """
    access = find_cluster(kubeconfig, context)
    if access is None:
        seen = "no cluster was found: no kubeconfig ($KUBECONFIG, ~/.kube/config), and this is no pod of a cluster"
        way_out = "try 'gpucheck run --simulate tutorial/06-plugin-undesired', or judge evidence with --from BUNDLE"
        msg = f"{seen}; {way_out}"
        raise UsageError(msg)
    return Gathered(connect(access), progress=progress, timeout_s=timeout_s, pod=pod)


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

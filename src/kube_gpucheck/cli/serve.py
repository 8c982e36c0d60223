"""`gpucheck serve`: a bundle, a scenario or a generated cluster behind a Kubernetes API on this host."""

import argparse
import contextlib
import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from kube_gpucheck.cli.signals import ENDING
from kube_gpucheck.cli.sources import Recorded, named_after
from kube_gpucheck.cli.streams import show
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.bundle import Bundle, open_bundle
from kube_gpucheck.simulate.faults import check_places, parse_fault
from kube_gpucheck.simulate.generate import generated_cluster, write_generated
from kube_gpucheck.simulate.script import open_script
from kube_gpucheck.simulate.server import EmbeddedCluster

_HIGHEST_PORT = 65535


def serve(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, SIGTERM or SIGHUP. Writes the kubeconfig once the server answers, and removes it at the end.

    Raises:
        UsageError: an option is wrong, or the kubeconfig is somebody else's file.
    """
    if not 0 <= options.port <= _HIGHEST_PORT:
        msg = f"--port {options.port}: expected 0 (any) to {_HIGHEST_PORT}"
        raise UsageError(msg)
    faults = [parse_fault(text) for text in options.fault]
    script = open_script(options.script) if options.script is not None else None
    _refuse_foreign(options.kubeconfig)
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="gpucheck.") as scratch, _until_signalled(ended):
        bundle = _bundle(options, Path(scratch) / "bundle")
        name = f"{options.nodes}-nodes" if options.origin is None else named_after(options.origin)
        with EmbeddedCluster(bundle, name=name, port=options.port, faults=faults, script=script) as cluster:
            check_places(faults, cluster.api.kinds)
            _place(options.kubeconfig, cluster.kubeconfig())
            try:
                file = shlex.quote(str(options.kubeconfig))
                label = " (simulated)" if bundle.manifest.simulated else ""
                show(f"{name}{label} at {cluster.url}\nnext: kubectl --kubeconfig {file} get pods -A\n")
                ended.wait()
            finally:
                options.kubeconfig.unlink(missing_ok=True)
    return 0


@contextlib.contextmanager
def _until_signalled(ended: threading.Event) -> Iterator[None]:
    """Let the signals that end the command end the serving instead."""
    heeded = [one for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, lambda *_: ended.set()) for one in heeded}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _bundle(options: argparse.Namespace, folder: Path) -> Bundle:
    """Return what is served: what is named, or a cluster that is generated into the folder.

    Raises:
        UsageError: neither is asked for, or both are.
    """
    if options.nodes is None:
        for name in ("gpus_per_node", "pods_per_node", "seed"):
            if getattr(options, name) is not None:
                msg = f"--{name.replace('_', '-')}: of a generated cluster; say how large it is with --nodes"
                raise UsageError(msg)
        if options.broken:
            msg = "--broken: of a generated cluster; say how large it is with --nodes"
            raise UsageError(msg)
        if options.origin is None:
            msg = (
                "nothing to serve: name a bundle or scenario ('gpucheck list scenarios'), or generate one with --nodes"
            )
            raise UsageError(msg)
        return Recorded(options.origin).gather(folder)
    if options.origin is not None:
        msg = f"'{options.origin}' and --nodes: serve one of them"
        raise UsageError(msg)
    given = {name: getattr(options, name) for name in ("gpus_per_node", "pods_per_node", "seed")}
    said = {name: value for name, value in given.items() if value is not None}
    write_generated(folder, generated_cluster(nodes=options.nodes, broken=options.broken, **said))
    return open_bundle(folder)


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a kubeconfig that no earlier `serve` wrote.

    Raises:
        UsageError: such a file is there.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"--kubeconfig {path}: {error.strerror or error}; name a file that can be written"
        raise UsageError(msg) from error
    if "current-context: simulated-" not in text:
        msg = f"--kubeconfig {path}: already there, and not of a simulated cluster; name another file"
        raise UsageError(msg)


def _place(path: Path, text: str) -> None:
    """Write the kubeconfig whole, readable by its owner alone.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except OSError as error:
        msg = f"--kubeconfig {path}: {error.strerror or error}; name a file that can be written"
        raise UsageError(msg) from error

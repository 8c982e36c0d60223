"""Runs pytest over the conformance checks, and gives back what they said, as objects."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kube_gpucheck import assets
from kube_gpucheck.errors import CheckDefinitionError, GpucheckError, UsageError
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import CheckInfo, CheckResult, Layer


class _Recorder:
    """Hands the evidence in, and hears what came of it."""

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self.selected: tuple[CheckInfo, ...] = ()
        self.results: list[CheckResult] = []
        self.refused: list[str] = []

    def pytest_gpucheck_evidence(self) -> Cluster | None:
        return self._cluster

    def pytest_gpucheck_selected(self, checks: Sequence[CheckInfo]) -> None:
        self.selected = tuple(checks)

    def pytest_gpucheck_judgement(self, result: CheckResult) -> None:
        self.results.append(result)

    def pytest_gpucheck_refused(self, reason: str) -> None:
        self.refused.append(reason)

    def pytest_exception_interact(self, node: Any, call: Any) -> None:  # noqa: ANN401  pytest's types are not imported at start
        """Keep why a module of checks could not be imported; pytest hangs the original on its own error."""
        if not hasattr(node, "runtest") and call.excinfo is not None:
            error = call.excinfo.value
            origin = error.__cause__ or error
            kind = type(origin).__name__
            self.refused.append(f"{node.path}: {origin if kind == 'DefinitionError' else f'{kind}: {origin}'}")


def judge(cluster: Cluster, *, nodes: tuple[str, ...] = (), extra: Path | None = None) -> tuple[CheckResult, ...]:
    """Return what every check says of the evidence, in order of layer and id; of these nodes alone, if named.

    `extra` is a folder of the user's own checks.

    Raises:
        CheckDefinitionError: a check is declared wrongly or cannot be imported.
        GpucheckError: pytest ended otherwise than its checks can explain.
    """
    recorder = _Recorder(cluster)
    _run(recorder, [f"--gpucheck-node={node}" for node in nodes], extra)
    if len(recorder.results) != len(recorder.selected):
        count = f"{len(recorder.selected)} checks were selected and {len(recorder.results)} answered"
        msg = f"{count}; this is a defect of gpucheck"
        raise GpucheckError(msg)
    return tuple(recorder.results)


def select(expression: str, layers: tuple[Layer, ...], extra: Path | None = None) -> frozenset[str]:
    """Return the ids of the checks that an expression (pytest's -k) and layers choose.

    Raises:
        CheckDefinitionError: a check is declared wrongly or cannot be imported.
        UsageError: none is chosen, or the expression is none.
    """
    recorder = _Recorder(_NO_EVIDENCE)
    options = [f"--gpucheck-layer={layer.value}" for layer in layers]
    said = " ".join([f"--layer {layer.value}" for layer in layers] + ([f"-k '{expression}'"] if expression else []))
    _run(recorder, ["--collect-only", *options, *(["-k", expression] if expression else [])], extra, said)
    return frozenset(info.id for info in recorder.selected)


def list_checks(extra: Path | None = None) -> tuple[CheckInfo, ...]:
    """Return every check that exists, in order of layer and id.

    Raises:
        CheckDefinitionError: a check is declared wrongly or cannot be imported.
    """
    recorder = _Recorder(_NO_EVIDENCE)
    _run(recorder, ["--collect-only"], extra)
    return recorder.selected


_NO_EVIDENCE: Any = object()
"""What stands for the evidence while checks are only listed; no check is called."""


def _run(recorder: _Recorder, options: list[str], extra: Path | None, said: str = "") -> None:
    import pytest  # noqa: PLC0415  0.2 s that --help and explain do not pay

    suite = assets.folder("conformance")
    if extra is not None and not extra.is_dir():
        msg = f"--checks {extra}: no such folder; name a folder with check_*.py files"
        raise UsageError(msg)
    if extra is not None and not any(extra.rglob("check_*.py")):
        msg = f"--checks {extra}: no check_*.py in it; a user's checks stand in files of that name"
        raise UsageError(msg)
    arguments = [
        *([str(suite)] if extra is None else [str(suite), str(extra)]),
        f"--rootdir={suite.parent}",
        f"--confcutdir={suite}",
        f"--config-file={suite / 'pytest.ini'}",
        "--noconftest",
        "--quiet",
        "--no-header",
        "--no-summary",
        "--capture=no",
        "-p",
        "no:faulthandler",
        "-p",
        "no:unraisableexception",  # it collects all garbage five times at the end
        *options,
    ]
    with _own_pytest():
        status = pytest.main(arguments, plugins=[recorder])
    if recorder.refused:
        raise CheckDefinitionError("\n".join(dict.fromkeys(recorder.refused)))
    match status:
        case pytest.ExitCode.OK | pytest.ExitCode.TESTS_FAILED:
            return
        case pytest.ExitCode.NO_TESTS_COLLECTED:
            msg = f"no check is selected by {said or 'anything'}; 'gpucheck list checks' shows ids and layers"
            raise UsageError(msg)
        case pytest.ExitCode.USAGE_ERROR:
            msg = f"{said}: not an expression; write ids or words joined with and, or, not ('PLG-005 or RTC')"
            raise UsageError(msg)
        case pytest.ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        case _:
            msg = f"pytest ended with {status}; this is a defect of gpucheck"
            raise GpucheckError(msg)


@contextlib.contextmanager
def _own_pytest() -> Iterator[None]:
    """Keep the caller's pytest settings out and pytest's own words off the caller's streams."""
    names = (
        "PYTEST_ADDOPTS",
        "PYTEST_PLUGINS",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
        "PYTEST_XDIST_WORKER",
        "PY_COLORS",
        "FORCE_COLOR",
    )
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        os.environ.update(before)

"""Waiting, round by round, for a cluster that converges or does not."""

import datetime
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube_gpucheck import diagnose
from kube_gpucheck.cli.sources import catalogue
from kube_gpucheck.cli.wait import until_final
from kube_gpucheck.diagnose.conclusion import Choice, conclude
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.bundle import open_bundle
from kube_gpucheck.model import Run, Severity, Verdict
from suite import LIBRARY, judge_all

STARTING = "recorded/plugin-image-pull-fails"


class Converging:
    """A source that shows another state at each look."""

    live = True

    def __init__(self, *states: str) -> None:
        self._states = iter(states)
        self.reused: list[str | None] = []
        self.within: list[float] = []

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:
        self.within.append(within_s)
        self.reused.append(None if reuse is None else reuse.name)
        LIBRARY.save(next(self._states), folder)
        return open_bundle(folder)


def judge(bundle: Bundle) -> tuple[Run, Cluster]:
    cluster = Cluster(bundle)
    results = judge_all(cluster)
    diagnosis = diagnose.diagnose(results, cluster, catalogue(), fail_on=Severity.MAJOR)
    now = datetime.datetime.now(datetime.timezone.utc)
    return conclude(results, cluster, diagnosis, Choice(), finished=now, tool_version="0"), cluster


def looks(limit_s: float) -> Iterator[float]:
    """Look each ten seconds, without waiting for them."""
    left = limit_s
    while left > 0:
        yield left
        left -= 10
    yield 0


def test_it_looks_until_all_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Converging(STARTING, STARTING, "complete")
    run = until_final(source, tmp_path, judge, limit_s=60, looks=looks)
    assert run.verdict is Verdict.CONFORMS
    assert source.reused == [None, "round-0000", "round-0001"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1][:40] for line in lines] == [
        " waiting (60 s left) for daemonset nvidi",
        " final after 3 rounds",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["round-0002"]


def test_it_stops_where_what_was_under_way_ended_badly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Converging(STARTING, "tutorial/06-plugin-undesired", "complete")
    run = until_final(source, tmp_path, judge, limit_s=60, looks=looks)
    assert (run.verdict, run.first_cause) == (Verdict.FAULTS, "nfd-label-missing")
    assert "final after 2 rounds: no waiting heals nfd-label-missing" in capsys.readouterr().err


def test_when_the_time_is_over_the_last_look_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = until_final(Converging(*[STARTING] * 9), tmp_path, judge, limit_s=20, looks=looks)
    assert run.verdict is Verdict.FAULTS
    assert "the time is over (20 s, no other look fits in), still under way: daemonset" in capsys.readouterr().err


class CutShort(Converging):
    """A source that loses everything in the looks after the first, for the time is over."""

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:
        if self.reused:
            threading.Event().wait(within_s)
        return super().gather(folder, reuse=reuse, within_s=within_s)


def test_a_look_that_the_time_cuts_short_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = CutShort(STARTING, "complete")
    run = until_final(source, tmp_path, judge, limit_s=1, looks=lambda _: iter((1.0, -0.9)))
    assert run.verdict is Verdict.FAULTS
    assert source.within == [10.0, pytest.approx(0.1)]
    assert "the time is over (1 s, no other look fits in), still under way: daemonset" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["round-0000"]

"""`--wait`: look again until the result is final, or the time is over."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kube_gpucheck.cli.sources import Source
from kube_gpucheck.cli.streams import note
from kube_gpucheck.collect.rounds import rounds
from kube_gpucheck.diagnose.outlook import outlook
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.model import Run

_SHOWN = 3


def until_final(
    source: Source,
    room: Path,
    judge: Callable[[Bundle], tuple[Run, Cluster]],
    *,
    limit_s: float,
    looks: Callable[[float], Iterator[float]] = rounds,
) -> Run:
    """Return the run of the last round. Writes to standard error what it waits for, and a folder a round.

    `looks` gives the rounds' times, as `rounds` does. Only the last round's folder is kept.
    """
    before: Path | None = None
    shown: tuple[str, ...] = ()
    for place, left_s in enumerate(looks(limit_s)):
        folder = room / f"round-{place:04d}"
        run, cluster = judge(source.gather(folder, reuse=before))
        if before is not None:
            shutil.rmtree(before)
        before = folder
        now = outlook(run, cluster)
        if now.final:
            note(f"final after {place + 1} round{'s' if place else ''}: {now.reason}")
            return run
        if left_s <= 0:
            note(f"the time is over ({limit_s:.0f} s), still under way: {_brief(now.waits_for)}")
            return run
        if now.waits_for != shown:
            note(f"waiting ({left_s:.0f} s left) for {_brief(now.waits_for)}")
            shown = now.waits_for
    raise AssertionError  # rounds gives a last one, whose time is over


def _brief(things: tuple[str, ...]) -> str:
    more = len(things) - _SHOWN
    return "; ".join(things[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")

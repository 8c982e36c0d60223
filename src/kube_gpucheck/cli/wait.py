"""`--wait`: look again until the result is final, or the time is over."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kube_gpucheck.cli.sources import Source
from kube_gpucheck.cli.streams import note
from kube_gpucheck.collect.rounds import rounds
from kube_gpucheck.diagnose.outlook import outlook
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.model import Run

_SHOWN: Final = 3
FIRST_LOOK_S: Final = 10.0
"""What the first look gets where the waiting is shorter: it has nothing before it that could be judged."""
LATE_S: Final = 1.0
"""How much later than the waiting's end a look may end."""


def until_final(
    source: Source,
    room: Path,
    judge: Callable[[Bundle], tuple[Run, Cluster]],
    *,
    limit_s: float,
    looks: Callable[[float], Iterator[float]] = rounds,
) -> Run:
    """Return the run of the last round. Writes to standard error what it waits for, and a folder a round.

    `looks` gives the rounds' times, as `rounds` does. Only the last whole round's folder is kept.
    """
    before: Path | None = None
    last: Run | None = None
    shown: tuple[str, ...] = ()
    for place, left_s in enumerate(looks(limit_s)):
        folder = room / f"round-{place:04d}"
        within_s = max(left_s + LATE_S, FIRST_LOOK_S if last is None else 0.0)
        began = time.monotonic()
        bundle = source.gather(folder, reuse=before, within_s=within_s)
        if last is not None and time.monotonic() - began >= within_s:
            shutil.rmtree(folder)  # cut short: the look before saw more
            break
        run, cluster = judge(bundle)
        if before is not None:
            shutil.rmtree(before)
        before, last = folder, run
        now = outlook(run, cluster)
        if now.final:
            note(f"final after {place + 1} round{'s' if place else ''}: {now.reason}")
            return run
        if now.waits_for != shown:
            note(f"waiting ({max(left_s, 0.0):.0f} s left) for {_brief(now.waits_for)}")
            shown = now.waits_for
    if last is None:
        raise AssertionError  # there is always a first look
    note(f"the time is over ({limit_s:.0f} s, no other look fits in), still under way: {_brief(shown)}")
    return last


def _brief(things: tuple[str, ...]) -> str:
    more = len(things) - _SHOWN
    return "; ".join(things[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")

"""How often to look again: at once, then in growing steps, so that the last look ends when the time is over."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

FIRST_PAUSE_S: Final = 3.0
"""A pod is seldom Ready sooner."""
LONGEST_PAUSE_S: Final = 15.0
"""A kubelet reports within 10 s; looking more seldom would only lose time."""
_GROWTH: Final = 1.5
_SPREAD: Final = 1.2
"""How much longer than the one before a look may take: the last one begins early enough to be whole."""


def rounds(
    limit_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] | None = None,
) -> Iterator[float]:
    """Yield the seconds that are left, at the start of each round. Pauses between rounds.

    The next round is taken to last as long as the one before: the last begins so that it ends with the time.
    """
    pause = pause or threading.Event().wait
    end = clock() + limit_s
    wait_s = FIRST_PAUSE_S
    while True:
        began = clock()
        yield end - began
        now = clock()
        spare_s = end - now - (now - began) * _SPREAD
        if spare_s <= 0:
            return
        pause(min(wait_s, spare_s))
        wait_s = min(wait_s * _GROWTH, LONGEST_PAUSE_S)

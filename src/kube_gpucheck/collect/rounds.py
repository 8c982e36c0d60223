"""How often to look again: at once, then in growing steps, until the time is over."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

FIRST_PAUSE_S: Final = 3.0
"""A pod is seldom Ready sooner."""
LONGEST_PAUSE_S: Final = 15.0
"""A kubelet reports within 10 s; looking more seldom would only lose time."""
_GROWTH: Final = 1.5


def rounds(
    limit_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] | None = None,
) -> Iterator[float]:
    """Yield the seconds that are left, at the start of each round; the last is 0 or less. Pauses between rounds."""
    pause = pause or threading.Event().wait
    end = clock() + limit_s
    wait_s = FIRST_PAUSE_S
    while True:
        left_s = end - clock()
        yield left_s
        if left_s <= 0:
            return
        pause(min(wait_s, max(left_s, 0.0)))
        wait_s = min(wait_s * _GROWTH, LONGEST_PAUSE_S)

"""How often a waiting run looks again."""

from kube_gpucheck.collect.rounds import FIRST_PAUSE_S, LONGEST_PAUSE_S, rounds


class Clock:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def test_it_looks_at_once_then_in_growing_steps_until_the_time_is_over() -> None:
    clock = Clock()
    left = list(rounds(60, clock=clock, pause=clock.pause))
    assert left[0] == 60
    assert left[-1] == 0
    assert clock.pauses[0] == FIRST_PAUSE_S
    assert max(clock.pauses) == LONGEST_PAUSE_S
    assert sum(clock.pauses) == 60


def test_the_last_look_begins_so_that_it_ends_with_the_time() -> None:
    clock = Clock()
    left = []
    for left_s in rounds(30, clock=clock, pause=clock.pause):
        left.append(left_s)
        clock.now += 5
    assert left == [30, 22, 12.5, 6]
    assert clock.now == 29


def test_without_time_it_looks_once() -> None:
    clock = Clock()
    assert list(rounds(0, clock=clock, pause=clock.pause)) == [0]
    assert clock.pauses == []

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


def test_it_looks_at_once_then_in_growing_steps_and_a_last_time_when_the_time_is_over() -> None:
    clock = Clock()
    left = list(rounds(60, clock=clock, pause=clock.pause))
    assert left[0] == 60
    assert left[-1] == 0
    assert clock.pauses[0] == FIRST_PAUSE_S
    assert max(clock.pauses) == LONGEST_PAUSE_S
    assert sum(clock.pauses) == 60


def test_without_time_it_looks_once() -> None:
    clock = Clock()
    assert list(rounds(0, clock=clock, pause=clock.pause)) == [0]
    assert clock.pauses == []

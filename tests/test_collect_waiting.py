"""The one policy of waiting: tries, pauses, the deadline, and what comes out of the last try."""

import pytest

from kube_gpucheck.collect.waiting import Deadline, PassingError, Patience


class Work:
    """Fails some times, and then gives its number of calls."""

    def __init__(self, failures: int, *, retry_after_s: float = 0.0, most_tries: int | None = None) -> None:
        self.calls = 0
        self._failures = failures
        self._retry_after_s = retry_after_s
        self._most_tries = most_tries

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            error = LookupError(f"try {self.calls}")
            raise PassingError(error, retry_after_s=self._retry_after_s, most_tries=self._most_tries)
        return self.calls


def patient(pauses: list[float], attempts: int = 4) -> Patience:
    return Patience(attempts=attempts, first_s=1.0, most_s=3.0, pause=pauses.append)


@pytest.mark.parametrize("failures", range(4))
def test_work_is_done_again_until_it_succeeds(failures: int) -> None:
    pauses: list[float] = []

    assert patient(pauses).call(Deadline(60.0), Work(failures)) == failures + 1
    assert len(pauses) == failures
    assert all(0.0 <= pause <= min(2.0**place, 3.0) for place, pause in enumerate(pauses))


@pytest.mark.parametrize(("most_tries", "calls"), [(None, 4), (2, 2), (9, 4)])
def test_the_last_failure_is_what_comes_out(most_tries: int | None, calls: int) -> None:
    work = Work(99, most_tries=most_tries)

    with pytest.raises(LookupError, match=f"try {calls}"):
        patient([]).call(Deadline(60.0), work)
    assert work.calls == calls


def test_another_failure_is_not_waited_for() -> None:
    def work() -> None:
        raise KeyError

    pauses: list[float] = []
    with pytest.raises(KeyError):
        patient(pauses).call(Deadline(60.0), work)
    assert pauses == []


def test_the_server_is_left_alone_as_long_as_it_asks() -> None:
    pauses: list[float] = []
    patient(pauses).call(Deadline(60.0), Work(2, retry_after_s=10.0))

    assert pauses == [10.0, 10.0]


@pytest.mark.parametrize("asked", [60.0, 3600.0])
def test_beyond_the_deadline_nothing_is_waited_for(asked: float) -> None:
    work = Work(2, retry_after_s=asked)
    pauses: list[float] = []

    with pytest.raises(LookupError, match="try 1"):
        patient(pauses).call(Deadline(60.0, clock=lambda: 5.0), work)
    assert pauses == []


def test_no_pause_is_longer_than_the_time_that_is_left() -> None:
    now = [0.0]
    pauses: list[float] = []

    def pause(length_s: float) -> None:
        pauses.append(length_s)
        now[0] += length_s

    work = Work(99)
    with pytest.raises(LookupError):
        Patience(attempts=1000, first_s=1.0, most_s=3.0, pause=pause).call(Deadline(5.0, clock=lambda: now[0]), work)
    assert sum(pauses) == pytest.approx(5.0)


def test_a_deadline_ends_and_stays_ended() -> None:
    now = [100.0]
    deadline = Deadline(2.0, clock=lambda: now[0])

    assert (deadline.left_s(), deadline.is_over) == (2.0, False)
    now[0] = 109.0
    assert (deadline.left_s(), deadline.is_over) == (0.0, True)

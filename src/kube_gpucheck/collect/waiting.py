"""How often a request is tried again, and how long is waited before: the one policy, with the one deadline.

Which failures are worth another try is the caller's knowledge.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
import tenacity

T = TypeVar("T")


class Deadline:
    """A moment after which nothing is waited for any more."""

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the time."""
        self.limit_s = limit_s
        self._clock = clock
        self._end = clock() + limit_s

    def left_s(self, *, grace_s: float = 0.0) -> float:
        """Return the seconds that are left, 0 when none are; `grace_s` later with that."""
        return max(self._end + grace_s - self._clock(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.left_s() <= 0


class PassingError(Exception):
    """A failure that may be gone the next time.

    `retry_after_s`: how long the server wants to be left alone. `most_tries`: after how many there is no sense in
    another, where that is fewer than usual.
    """

    def __init__(self, error: Exception, *, retry_after_s: float = 0.0, most_tries: int | None = None) -> None:
        """Keep what is raised when no try is left."""
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s
        self.most_tries = most_tries


class Patience(msgspec.Struct, frozen=True):
    """How many tries a request gets, and the pauses between them: they double, each shortened by chance.

    The chance (up to the whole pause) keeps many clients from coming back at once. `pause` waits.
    """

    attempts: int = 5
    first_s: float = 0.25
    most_s: float = 8.0
    pause: Callable[[float], None] = tenacity.nap.sleep

    def call(self, deadline: Deadline, work: Callable[[], T]) -> T:
        """Return what `work` returns, calling it again after each `PassingError` while tries and time are left.

        Where the server says how long to wait, at least that long is waited; beyond the deadline, not at all.

        Raises:
            Exception: what the last `PassingError` carries, or anything else that `work` raises.
        """
        backing_off = tenacity.wait_random_exponential(multiplier=self.first_s, max=self.most_s)

        def wait(state: tenacity.RetryCallState) -> float:
            return min(max(backing_off(state), _failure(state).retry_after_s), deadline.left_s())

        def stop(state: tenacity.RetryCallState) -> bool:
            failure = _failure(state)
            most = self.attempts if failure.most_tries is None else min(self.attempts, failure.most_tries)
            return state.attempt_number >= most or failure.retry_after_s >= deadline.left_s()

        retrying = tenacity.Retrying(
            sleep=self.pause, wait=wait, stop=stop, retry=tenacity.retry_if_exception_type(PassingError), reraise=True
        )
        try:
            return retrying(work)
        except PassingError as last:
            raise last.error from last.error.__cause__


def _failure(state: tenacity.RetryCallState) -> PassingError:
    """Return the failure of the last try; tenacity asks for a pause and an end only after one."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, PassingError) else PassingError(RuntimeError("nothing failed"))


PATIENT: Final = Patience()
"""What a live cluster gets: five tries, in about four seconds where the server says nothing."""

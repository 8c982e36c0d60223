"""Threads that nobody has to wait for."""

import subprocess
import sys
import threading
import time

import pytest

from kube_gpucheck.collect.api import RefusedError
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.model import MissingKind


def test_results_come_in_the_order_of_the_things() -> None:
    with Workers(4, Deadline(60)) as workers:
        assert list(workers.each(lambda number: number * 2, range(20))) == [number * 2 for number in range(20)]


def test_what_is_refused_is_a_result_of_its_thing_alone() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise RefusedError(MissingKind.FORBIDDEN, "no")
        return number

    with Workers(2, Deadline(60)) as workers:
        found = list(workers.each(work, range(3)))
    assert [one if isinstance(one, int) else one.reason for one in found] == [0, "no", 2]


def test_another_failure_is_raised_where_its_result_is_asked_for() -> None:
    with Workers(1, Deadline(60)) as workers, pytest.raises(TimeoutError, match="of the work"):
        workers.ask(lambda: _raise(TimeoutError("of the work")))


def _raise(error: Exception) -> None:
    raise error


def test_nothing_is_waited_for_beyond_the_deadline_not_even_by_turns() -> None:
    hanging = threading.Event()
    began = time.monotonic()
    with Workers(2, Deadline(0.2)) as workers:
        found = list(workers.each(lambda _: hanging.wait(30), range(50)))
    hanging.set()
    assert time.monotonic() - began < 5
    reasons = {one.reason for one in found if isinstance(one, RefusedError)}
    assert reasons == {"nothing had come when the 0.2 s of this collection were over"}
    assert len(found) == 50


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    program = (
        "import time; from kube_gpucheck.collect.workers import Workers; "
        "from kube_gpucheck.collect.waiting import Deadline; "
        "Workers(1, Deadline(60)).submit(lambda: time.sleep(60)); time.sleep(0.2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")

"""Threads that wait for answers, so that whoever asked can stop waiting: at the deadline, and at Ctrl-C.

Not `concurrent.futures.ThreadPoolExecutor`: Python joins its threads before the process ends, and one that waits for
a socket would hold it for as long as the server is silent. These are left behind.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import TYPE_CHECKING, Final, TypeVar

from kube_gpucheck.collect.api import RefusedError
from kube_gpucheck.collect.progress import SILENT, Progress
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.model import MissingKind

if TYPE_CHECKING:
    from typing_extensions import Self

S = TypeVar("S")
T = TypeVar("T")

GRACE_S: Final = 0.3
"""How long after the deadline an answer is still taken: a thread that meets the deadline itself says what it met."""
_LOOK_S: Final = 1.0
"""How often progress is told that nothing has come."""


class Workers:
    """Some threads, and the deadline of the collection that they work for. Use it as a context."""

    def __init__(self, count: int, deadline: Deadline, *, progress: Progress = SILENT) -> None:
        """Start nothing yet."""
        self._count = count
        self._deadline = deadline
        self._progress = progress
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._closed = False

    def __enter__(self) -> "Self":
        """Give the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let them go."""
        self.close()

    def close(self) -> None:
        """Let the threads end after what they are at; what has not begun is dropped. Waits for nothing."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Have something done, and return what will hold its result.

        A thread is started only where none is idle: each keeps the memory of the largest page that it has had.
        """
        future: Future[T] = Future()
        self._work.put(lambda: self._do(future, work))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
            thread = threading.Thread(target=self._serve, name=f"collect-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def wait(self, future: "Future[T]") -> T:
        """Return a result, waiting for it no longer than until the deadline.

        Raises:
            RefusedError: the work was refused, or its result has not come by then.
        """
        while True:
            left_s = self._deadline.left_s(grace_s=GRACE_S)
            try:
                return future.result(min(left_s, _LOOK_S))
            except NotYetError:
                if future.done():  # the work's own; from Python 3.11 on the two are one class
                    return future.result()
            if not self._deadline.left_s(grace_s=GRACE_S):
                future.cancel()
                reason = f"nothing had come when the {self._deadline.limit_s:g} s of this collection were over"
                raise RefusedError(MissingKind.TIMEOUT, reason)
            self._progress.wait()

    def ask(self, work: Callable[[], T]) -> T:
        """Have one thing done, and return its result.

        Raises:
            RefusedError: as `wait`.
        """
        return self.wait(self.submit(work))

    def each(self, work: Callable[[S], T], things: Sequence[S]) -> Iterator[T | RefusedError]:
        """Do something with each thing, several at a time; yield what came of it, in their order."""
        futures = deque(self.submit(lambda thing=thing: work(thing)) for thing in things)  # type: ignore[misc]  # bound now
        while futures:
            try:
                yield self.wait(futures.popleft())  # what was taken is let go: all logs together are large
            except RefusedError as refusal:
                yield refusal

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            if not self._closed:
                work()
            del work  # its answer, a page of 9 MB, would be held until there is other work
            self._idle.release()

    @staticmethod
    def _do(future: "Future[T]", work: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  whoever waits for it raises it
            future.set_exception(error)
        else:
            future.set_result(result)

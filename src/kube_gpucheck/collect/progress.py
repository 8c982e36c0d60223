"""Tells a person what is being read, how much has come, and of how many where the server says so.

A total is only ever the server's own (`remainingItemCount`); where it tells none, there is a count and no
estimate. A bar is for terminals; lines are for everything else.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TextIO

if TYPE_CHECKING:
    from typing_extensions import Self


class Progress(Protocol):
    """Who is told. Calls come from one thread."""

    def begin(self, what: str) -> None:
        """Say that something is read now: a kind, `logs`, `probes`."""

    def advance(self, done: int, total: int | None) -> None:
        """Say how much of it has come; `total` is None where nobody knows it."""

    def wait(self) -> None:
        """Say that nothing has come; called about once a second."""

    def end(self, said: str) -> None:
        """Say what came of it."""


class _Silent:
    """Tells nobody."""

    def begin(self, what: str) -> None:
        pass

    def advance(self, done: int, total: int | None) -> None:
        pass

    def wait(self) -> None:
        pass

    def end(self, said: str) -> None:
        pass


SILENT: Final[Progress] = _Silent()


class Lines:
    """A line for each thing that was read, and one every few seconds while it takes long."""

    EVERY_S: Final = 5.0

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to a stream."""
        self._stream = stream
        self._clock = clock
        self._what = ""
        self._last = clock()

    def begin(self, what: str) -> None:
        """Start the time of the next thing."""
        self._what = what
        self._last = self._clock()

    def advance(self, done: int, total: int | None) -> None:
        """Write a line if the last one is some seconds old."""
        if self._clock() - self._last >= self.EVERY_S:
            self._last = self._clock()
            self._write(f"{self._what}: {_count(done, total)} so far")

    def wait(self) -> None:
        """Write a line if the last one is some seconds old."""
        if self._clock() - self._last >= self.EVERY_S:
            self._last = self._clock()
            self._write(f"{self._what}: waiting")

    def end(self, said: str) -> None:
        """Write what came of it."""
        self._write(f"{self._what}: {said}")

    def _write(self, line: str) -> None:
        shown = "".join(one if one.isprintable() else "?" for one in line)  # some words are the server's
        self._stream.write(f"{shown}\n")
        self._stream.flush()


class Bar:
    """A bar on a terminal: what is read now, and how much of it has come. Use it as a context."""

    def __init__(self, stream: TextIO) -> None:
        """Draw nothing yet."""
        from rich.console import Console  # noqa: PLC0415  slow to import, and only for terminals
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415  likewise
        from rich.progress import Progress as RichProgress  # noqa: PLC0415  likewise

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, said="")

    def __enter__(self) -> "Self":
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe the bar."""
        self._bar.stop()

    def begin(self, what: str) -> None:
        """Start over for the next thing."""
        self._bar.reset(self._task, total=None, description=what, said="")

    def advance(self, done: int, total: int | None) -> None:
        """Show how much has come."""
        self._bar.update(self._task, completed=done, total=total, said=_count(done, total))

    def wait(self) -> None:
        """Show nothing new: the bar moves by itself."""

    def end(self, said: str) -> None:
        """Show what came of it, until the next thing begins."""
        self._bar.update(self._task, said=said)


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"

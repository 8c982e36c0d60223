"""Signals that end the command: it tidies up after all of them as after Ctrl-C, once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; what a CI system or `kill` sends; what is left of a terminal or an ssh session that was closed."""


@contextlib.contextmanager
def heeded() -> Iterator[list[str]]:
    """Raise `KeyboardInterrupt` where the command gets the first such signal, whose name is then in the list.

    Those behind it count for nothing: they would cut the tidying short, and leave evidence behind. One that the caller
    ignores (`nohup`) stays ignored.
    """
    heard: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        heard.append(signal.Signals(number).name)
        raise KeyboardInterrupt

    before = {one: signal.getsignal(one) for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, interrupt)
    try:
        yield heard
    finally:
        if not heard:  # else the process ends now
            for one, handler in before.items():
                signal.signal(one, handler or signal.SIG_DFL)

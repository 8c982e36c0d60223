"""Standard output, standard error and the files that were asked for."""

import io
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from kube_gpucheck.errors import UsageError

_ASCII: Final = {"✓": "ok", "✗": "FAULT", "·": "-", "…": "..."}


def prepare() -> None:
    """Let a stream that is closed swallow what is written, and one of few letters replace what it lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def width() -> int:
    """Return how many columns a report may take."""
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 160))


def show(text: str) -> None:
    """Print a report; a character that the terminal's encoding lacks is replaced, never a crash."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        "✓✗·…".encode(encoding)
    except UnicodeEncodeError:
        for mark, word in _ASCII.items():
            text = text.replace(mark, word)
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line beside the report, to standard error."""
    sys.stderr.write(f"gpucheck: {text}\n")
    sys.stderr.flush()


def write(option: str, path: Path, content: bytes) -> None:
    """Write a file that an option asks for.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        msg = f"{option} {path}: {error.strerror or error}; name a file that can be written"
        raise UsageError(msg) from error

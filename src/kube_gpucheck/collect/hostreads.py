"""The verbs by which a host is read: `file`, `list`, `link`, `stat`, `exec`, `nvml`, `cuda`. None raises.

What may block is done in a child (`hostworker`) that is given up when its time is over: a task that
sleeps uninterruptibly ignores SIGKILL, so it is never waited for. Knows nothing of what is read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import marshal
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from kube_gpucheck.collect import deadlines

if TYPE_CHECKING:
    from collections.abc import Iterator

    Read = dict[str, object]
    """One verbatim read, as `host.json` has it."""

PROGRAMS: Final = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin:/opt/bin:"
    "/usr/local/nvidia/bin:/usr/local/nvidia/toolkit:"  # images with the driver; the GPU Operator
    "/usr/lib/wsl/lib:/run/current-system/sw/bin:"  # WSL2; NixOS
    "/var/lib/rancher/rke2/bin"  # RKE2 brings crictl
)
"""Where a host's programs are looked for. The caller's own search path is not used."""
MAX_OUTPUT: Final = 4 << 20
"""The most bytes of one program's output that are kept."""
_CHUNK: Final = 1 << 16
_UNSTARTED: Final = "the reading child could not be started"
_WORKER: Final = "import sys; sys.path[:] = {path!r}; from kube_gpucheck.collect.hostworker import main; main()"
"""The child's program; it is given the path whole: neither the site's files nor the caller's variables count."""


class GoneError(Exception):
    """A child gave no answer; `why` is errno's name, or that of the signal that ended it."""

    def __init__(self, why: str) -> None:
        """Keep the name."""
        super().__init__(why)
        self.why = why


class UnstartedError(GoneError):
    """A child could not be started, or ended by itself before it had answered anything: `said` says so, in words."""

    def __init__(self, why: str, said: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.said = said


class Worker:
    """A child that answers requests, until it hangs or crashes. It ends with its parent."""

    def __init__(self, verb: str) -> None:
        """Start the child. `verb`: what it answers (`files`, `nvml`, `cuda`).

        Raises:
            UnstartedError: it cannot be started.
        """
        self._has_answered = False
        environment = clean_environment()
        if "LD_LIBRARY_PATH" in os.environ:  # the caller's own programs find NVML so
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        try:
            self._process = subprocess.Popen(  # noqa: S603  this very Python, with a module of this package
                worker_command(verb),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",  # nothing is imported from the folder of the caller
            )
        except OSError as error:
            why = errno.errorcode.get(error.errno or 0, "EIO")
            program = error.filename or sys.executable
            raise UnstartedError(why, f"{_UNSTARTED}: {program}: {error.strerror or error}") from error
        self._buffer = b""

    def ask(self, request: list[object]) -> None:
        """Send a request.

        Raises:
            GoneError: the child has ended.
        """
        try:
            os.write(self._descriptor(self._process.stdin), marshal.dumps(request))
        except OSError as error:
            raise self._ended() from error

    def answer(self, timeout_s: float) -> Read:
        """Return the next line of the answer.

        Raises:
            GoneError: ETIMEDOUT if none came in time, the signal's name if the child crashed, EPROTO if it is none.
        """
        until = time.monotonic() + timeout_s
        source = self._descriptor(self._process.stdout)
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not _is_readable(source, left):
                raise GoneError("ETIMEDOUT")
            chunk = os.read(source, _CHUNK)
            if not chunk:
                raise self._ended()
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._has_answered = True
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GoneError("EPROTO") from error  # a library has written into what is not its own
        return answer if isinstance(answer, dict) else {}

    def close(self) -> None:
        """End the child. One that does not die at once is left to the kernel."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        _end(self._process)

    def _ended(self) -> GoneError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(deadlines.REAP_S)
        status = self._process.returncode
        if not self._has_answered and status is not None and status > 0:
            said = f"{_UNSTARTED}: {sys.executable} ended with status {status} before it had read anything"
            return UnstartedError(_signal_name(status), said)
        return GoneError(_signal_name(status))

    @staticmethod
    def _descriptor(pipe: object) -> int:
        return pipe.fileno() if hasattr(pipe, "fileno") else -1


def worker_command(verb: str) -> list[str]:
    """Return how the child that answers a verb is started. Without the site's files it is there in half the time."""
    path = [os.path.abspath(one) for one in sys.path if one]  # noqa: PTH100  a zip archive too
    return [sys.executable or "python3", "-I", "-S", "-c", _WORKER.format(path=path), verb]


def _signal_name(status: int | None) -> str:
    """Return the name of the signal that ended a child, EPIPE if it ended by itself."""
    if status is None or status >= 0:
        return "EPIPE"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"SIG{-status}"


def _is_readable(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(1, int(timeout_s * 1000))))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(deadlines.REAP_S)


def clean_environment(programs: str = PROGRAMS) -> dict[str, str]:
    """Return the environment of every child: nothing of the caller's, messages in English, times in UTC."""
    return {"PATH": programs, "LC_ALL": "C.UTF-8", "LANGUAGE": "C", "TZ": "UTC", "HOME": "/nonexistent"}


class HostReads:
    """What has been read of one host, in order. Every read that is asked for here stands in `reads`, once.

    `root` is where the host's root is found. No read raises: an error is an answer.
    """

    def __init__(self, root: str, *, deadline_s: float = deadlines.HOST_S, programs: str = PROGRAMS) -> None:
        """Keep where to read; nothing is started yet."""
        self.root = root.rstrip("/") or "/"
        self.reads: dict[str, Read] = {}
        self._programs = programs
        self._until = time.monotonic() + deadline_s
        self._workers: dict[str, Worker] = {}
        self._unstarted: UnstartedError | None = None

    @property
    def unstarted(self) -> str:
        """Why no child could be started, "" if one was. Then an error of a read says nothing of what it reads."""
        return "" if self._unstarted is None else self._unstarted.said

    @property
    def left_s(self) -> float:
        """How long the whole may still take, in seconds."""
        return max(0.0, self._until - time.monotonic())

    def close(self) -> None:
        """End the children."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    # --- verbs whose answers are kept ----------------------------------------------------------------

    def file(self, path: str, *, keep: str | None = None) -> str | None:
        """Read a file, and return its text, None if it was not had. `keep`: the pattern of the lines that are kept."""
        key = "file:" + path
        if key not in self.reads:
            self.reads[key] = _filtered(self.peek("file", path), keep)
        return _text(self.reads[key])

    def link(self, path: str) -> str | None:
        """Read where a link points, None if that was not had."""
        return _text(self._kept("link", path))

    def listing(self, path: str, *, keep: str | None = None) -> tuple[str, ...]:
        """List a folder, and return the names in it; none if it was not had. `keep`: the pattern of wanted names."""
        entries = self._kept("list", path, keep).get("entries")
        return tuple(str(one["name"]) for one in entries) if isinstance(entries, list) else ()

    def stat(self, path: str) -> bool:
        """Look at a path, and tell whether something was seen there."""
        return "entries" in self._kept("stat", path)

    def command(self, line: str, *, keep: str | None = None, **how: object) -> str | None:
        """Run a program, and return what it printed, None if it could not be run to its end.

        `line` is the name of the read; `how` as in `run`. `keep`: the pattern of the lines that are kept.
        """
        key = "exec:" + line
        if key not in self.reads:
            read = self.run(line, **how)  # type: ignore[arg-type]  # as run says
            self.reads[key] = _filtered(read, keep if read.get("code") == 0 else None)
        return _text(self.reads[key])

    def note(self, key: str, read: Read) -> None:
        """Keep an answer that was had otherwise."""
        self.reads.setdefault(key, read)

    # --- the same, unkept ----------------------------------------------------------------------------

    def peek(self, verb: str, path: str = "", keep: str | None = None) -> Read:
        """Return what a verb gives, without keeping it: for finding out what there is to read."""
        if not self.left_s:
            return {"error": "ETIMEDOUT"}
        try:
            worker = self._worker("files")
            worker.ask([self.root, verb, path, keep])
            return worker.answer(min(deadlines.READ_S, self.left_s))
        except GoneError as gone:
            if isinstance(gone, UnstartedError):
                self._unstarted = gone
            self._give_up("files")
            return {"error": gone.why}

    def exists(self, path: str) -> bool:
        """Tell whether something stands at a path, or that cannot be told: what cannot be looked at may be there."""
        return "absent" not in self.peek("stat", path)

    def run(
        self,
        line: str,
        *,
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        timeout_s: float = deadlines.PROGRAM_S,
    ) -> Read:
        """Run a program with `options` behind its line, and return what it printed and its status.

        Its errors stand behind its output where its status is not 0. Absent if there is no such program.
        """
        words = line.split()
        program = shutil.which(words[0], path=self._programs)
        if program is None:
            return {"absent": True}
        if not self.left_s:
            return {"error": "ETIMEDOUT"}
        try:
            process = subprocess.Popen(  # noqa: S603  one of the programs that the plan names, found in PROGRAMS
                [program, *words[1:], *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**clean_environment(self._programs), **(environment or {})},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return {"error": errno.errorcode.get(error.errno or 0, "EIO")}
        try:
            return _finished(process, min(timeout_s, self.left_s))
        except BaseException:
            _end_group(process)  # a session of its own gets no Ctrl-C
            raise
        finally:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def prepare(self, verb: str) -> None:
        """Start the child that will answer for a library, so that it is ready when it is asked."""
        with contextlib.suppress(GoneError):
            self._worker(verb)

    def stream(self, verb: str, request: list[object]) -> Iterator[tuple[str, Read]]:
        """Yield each call of a library (`nvml`, `cuda`) that a request makes, with its answer, as they come.

        Raises:
            GoneError: the child hung or crashed; what was yielded before stands.
        """
        try:
            worker = self._worker(verb)
            worker.ask(request)
            first_s, next_s = _patience(verb)
            answer = worker.answer(min(first_s, self.left_s))
            while "done" not in answer:
                read = answer.get("read")
                yield str(answer.get("key")), read if isinstance(read, dict) else {"error": "EPROTO"}
                answer = worker.answer(min(next_s, self.left_s))
        except GoneError:
            self._give_up(verb)
            raise

    def _kept(self, verb: str, path: str, keep: str | None = None) -> Read:
        key = f"{verb}:{path}"
        if key not in self.reads:
            self.reads[key] = self.peek(verb, path, keep)
        return self.reads[key]

    def _worker(self, name: str) -> Worker:
        if self._unstarted is not None:
            raise self._unstarted  # the next one fares no better
        if name not in self._workers:
            self._workers[name] = Worker(name)
        return self._workers[name]

    def _give_up(self, name: str) -> None:
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()


def _patience(verb: str) -> tuple[float, float]:
    """Return how long a library's first answer to a request, and each further one, is waited for, in seconds."""
    if verb == "cuda":
        return deadlines.CUDA_S, deadlines.CUDA_S
    return deadlines.NVML_START_S, deadlines.NVML_CALL_S


def _filtered(read: Read, keep: str | None) -> Read:
    """Return a read with those lines of its text that a pattern lets through."""
    text = read.get("text")
    if keep is None or not isinstance(text, str):
        return read
    kept = re.compile(keep)
    lines = [one for one in text.splitlines(keepends=True) if kept.search(one)]
    return {**read, "text": "".join(lines), "filtered": keep}


def _text(read: Read) -> str | None:
    text = read.get("text")
    return text if isinstance(text, str) else None


def _finished(process: subprocess.Popen[bytes], timeout_s: float) -> Read:
    """Return what a program printed once it ends; it and whatever it started are killed when the time is over."""
    out, err = process.stdout, process.stderr
    if out is None or err is None:
        return {"error": "EIO"}
    until = time.monotonic() + timeout_s
    texts = {out.fileno(): b"", err.fileno(): b""}
    cut = False
    waiting = set(texts)
    poll = select.poll()
    for descriptor in texts:
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while waiting:
        left = until - time.monotonic()
        ready = poll.poll(max(1, int(left * 1000))) if left > 0 else []
        if not ready:
            _end_group(process)
            return {"error": "ETIMEDOUT"}
        for descriptor, _ in ready:
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                poll.unregister(descriptor)
                waiting.discard(descriptor)
            cut = cut or len(texts[descriptor]) + len(chunk) > MAX_OUTPUT
            texts[descriptor] = (texts[descriptor] + chunk)[-MAX_OUTPUT:]
    try:
        status = process.wait(max(deadlines.REAP_S, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end_group(process)
        return {"error": "ETIMEDOUT"}
    text = texts[out.fileno()] + (texts[err.fileno()] if status else b"")
    answer: Read = {"text": text.decode("utf-8", "replace"), "code": status}
    if cut:
        answer["truncated"] = True
    return answer


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    _end(process)

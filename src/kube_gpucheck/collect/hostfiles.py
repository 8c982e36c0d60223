"""Reads files, folders, links and the kernel's log of a host. Runs in the child (`hostworker`): any of it may block.

It decides nothing: which reads are made, and for how long they are waited for, is the parent's business (`hostreads`).
"""

# ruff: noqa: PTH115, PTH116 -- descriptors, entries and paths below another root: pathlib knows none of them
from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT: Final = 1 << 20
"""The most bytes of one file that are kept, from its end."""
MAX_LOG: Final = 4 << 20
"""The most bytes of the kernel's ring that are kept, from its end; it holds 128 KiB to 16 MiB."""
MAX_ENTRIES: Final = 8192
"""The most entries of one folder. A folder with more is an error, as a part of it proves no absence."""
MAX_LINKS: Final = 40
"""Links in one path, as the kernel allows (path_resolution(7))."""
_CHUNK: Final = 1 << 16
_RECORD: Final = 8192
"""A record of /dev/kmsg is at most this long (Linux, Documentation/ABI/testing/dev-kmsg: one read, one record)."""
_MAX_RECORDS: Final = 400_000
_KMSG: Final = (1, 11)
WITH_ARGUMENTS: Final = frozenset({"containerd", "crio", "dockerd", "cri-dockerd", "kubelet"})
"""Processes that are told where their configuration and their sockets lie."""
_ESCAPES: Final = {"\\x0a": "\n" + " " * 15, "\\x09": "\t", "\\x5c": "\\"}
"""What the kernel escapes, and `dmesg` does not leave so (Linux, Documentation/ABI/testing/dev-kmsg)."""
_ESCAPED: Final = re.compile(r"\\x(?:0a|09|5c)")
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "fifo",
}


def inside(root: str, path: str, *, follow: bool) -> str:
    """Return where a path of the host lies, its links resolved as if `root` were `/`: none leads out of it.

    `follow` tells whether a link at the very end is resolved too.

    Raises:
        OSError: ELOOP for links that go round.
    """
    if root == "/":
        return path
    parts = path.split("/")[::-1]
    here: list[str] = []
    links = 0
    while parts:
        part = parts.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            del here[-1:]
            continue
        here.append(part)
        if not follow and not any(parts):
            break
        try:
            target = os.readlink("/".join([root, *here]))
        except OSError:
            continue  # no link, or nothing there: whoever opens the path learns which
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        del here[0 if target.startswith("/") else -1 :]
        parts.extend(target.split("/")[::-1])
    return "/".join([root, *here])


def read_file(root: str, path: str) -> dict[str, object]:
    """Return a regular file's text, its end if it is longer than `MAX_TEXT`.

    Raises:
        OSError: it cannot be read; EISDIR for a folder, ENOTSUP for a device, socket or FIFO, which are not opened.
    """
    where = inside(root, path, follow=True)
    kind = os.stat(where).st_mode
    if not stat.S_ISREG(kind):
        raise OSError(errno.EISDIR if stat.S_ISDIR(kind) else errno.ENOTSUP, "no regular file", path)
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return _tail(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _tail(descriptor: int, size: int) -> dict[str, object]:
    """Return the end of what a descriptor gives; files of procfs and sysfs say that they are empty."""
    cut = size > MAX_TEXT
    if cut:
        os.lseek(descriptor, size - MAX_TEXT, os.SEEK_SET)
    text = b""
    total = 0
    while total < 4 * MAX_TEXT:
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            break
        total += len(chunk)
        text = (text + chunk)[-MAX_TEXT:]
    answer: dict[str, object] = {"text": text.decode("utf-8", "replace")}
    if cut or total > MAX_TEXT:
        answer["truncated"] = True
    return answer


def read_link(root: str, path: str) -> dict[str, object]:
    """Return a link's target as it is written; what is no link is absent.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return {"text": _printable(os.readlink(inside(root, path, follow=False)))}
    except OSError as error:
        if error.errno == errno.EINVAL:
            return {"absent": True}
        raise


def list_folder(root: str, path: str, *, keep: str | None) -> dict[str, object]:
    """Return a folder's entries in order of name; `keep` is the pattern of those that are wanted.

    Raises:
        OSError: it cannot be listed; EOVERFLOW if it has more than `MAX_ENTRIES` such entries.
    """
    wanted = re.compile(keep) if keep is not None else None
    entries: list[dict[str, object]] = []
    where = inside(root, path, follow=True)
    with os.scandir(where) as found:
        for one in found:
            if wanted is not None and wanted.search(one.name) is None:
                continue
            if len(entries) >= MAX_ENTRIES:
                raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW), path)
            entry = _entry(one.name, one.path)
            if entry is not None:
                entries.append(entry)
    entries.sort(key=lambda entry: str(entry["name"]))
    answer: dict[str, object] = {"entries": entries}
    if keep is not None:
        answer["filtered"] = keep
    return answer


def _entry(name: str, where: str) -> dict[str, object] | None:
    """Return one entry, None if it went away between being listed and being looked at."""
    try:
        status = os.lstat(where)
    except FileNotFoundError:
        return None
    entry = _described(name, status)
    if stat.S_ISLNK(status.st_mode):
        try:
            entry["target"] = _printable(os.readlink(where))
        except OSError:
            entry["target"] = ""
    return entry


def read_stat(root: str, path: str) -> dict[str, object]:
    """Return what stands at a path, the target for a link: a link that leads nowhere is absent.

    Raises:
        OSError: it cannot be looked at.
    """
    status = os.stat(inside(root, path, follow=True))
    return {"entries": [_described(posixpath.basename(path), status)]}


def read_where(root: str, path: str) -> dict[str, object]:
    """Return where a file of the host lies for this process, its links resolved.

    Raises:
        OSError: there is none, or it cannot be looked at.
    """
    where = inside(root, path, follow=True)
    os.stat(where)
    return {"text": _printable(where)}


def _described(name: str, status: os.stat_result) -> dict[str, object]:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "file")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
    entry = {
        "name": _printable(name),
        "type": kind,
        "mode": stat.filemode(status.st_mode),
        "modified": when,
    }  # type: dict[str, object]
    if kind == "file":
        entry["size"] = status.st_size
    if kind in {"char", "block"}:
        entry["major"] = os.major(status.st_rdev)
        entry["minor"] = os.minor(status.st_rdev)
    return entry


def _printable(name: str) -> str:
    """Return a name with bytes that are no UTF-8 replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def read_kmsg(root: str) -> dict[str, object]:
    """Return the kernel's ring as `dmesg` writes it, without waiting for more; nothing is taken out of it.

    Raises:
        OSError: /dev/kmsg cannot be opened, or is another device, as where a container hides it.
    """
    where = inside(root, "/dev/kmsg", follow=True)
    status = os.stat(where)
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != _KMSG:
        raise OSError(errno.ENOTSUP, "not the kernel's log", "/dev/kmsg")
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    kept: deque[str] = deque()
    size = 0
    cut = False
    try:
        for record in _records(descriptor):
            line = kmsg_line(record)
            kept.append(line)
            size += len(line) + 1
            while size > MAX_LOG:
                size -= len(kept.popleft()) + 1
                cut = True
    finally:
        os.close(descriptor)
    answer: dict[str, object] = {"text": "".join(line + "\n" for line in kept)}
    if cut:
        answer["truncated"] = True
    return answer


def _records(descriptor: int) -> Iterator[bytes]:
    for _ in range(_MAX_RECORDS):
        try:
            record = os.read(descriptor, _RECORD)
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue  # overwritten while it was read: the next read gives the oldest that is left
        if not record:
            return
        yield record


def kmsg_line(record: bytes) -> str:
    """Return a record of /dev/kmsg (`6,339,5140900,-;text`) as `dmesg` prints it, without its dictionary.

    A message of several lines is one record, its line ends escaped, and is printed as lines.
    """
    head, _, message = record.decode("utf-8", "replace").partition(";")
    fields = head.split(",")
    text = _ESCAPED.sub(lambda found: _ESCAPES[found.group()], message.split("\n", 1)[0])
    if len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004  priority, sequence, microseconds since boot
        seconds, micro = divmod(int(fields[2]), 1_000_000)
        return f"[{seconds:5d}.{micro:06d}] {text}"
    return text


def read_processes(root: str) -> dict[str, object]:
    """Return id and name of each process, of engines and kubelets start and arguments too: one line each, with tabs.

    The start is the time in whole seconds since the epoch, `-` where it cannot be told. Which of the arguments leave
    the collector is decided there.

    Raises:
        OSError: /proc cannot be listed.
    """
    top = inside(root, "/proc", follow=True)
    booted_at = _booted_at(top)
    lines = []
    with os.scandir(top) as found:
        pids = sorted(int(one.name) for one in found if one.name.isdigit())
    for pid in pids:
        try:
            words = [_raw(posixpath.join(top, str(pid), "comm")).strip()]
            if words[0] in WITH_ARGUMENTS:
                arguments = _raw(posixpath.join(top, str(pid), "cmdline")).split("\0")
                words += [_started(posixpath.join(top, str(pid), "stat"), booted_at), *arguments]
        except OSError:
            continue  # it has ended
        # a process may call itself anything, line ends included
        lines.append("\t".join([str(pid), *(" ".join(one.split()) for one in words if one)]))
    return {"text": "\n".join(lines)}


def _booted_at(top: str) -> float | None:
    """Return when the kernel started, in seconds since the epoch."""
    try:
        return time.time() - float(_raw(posixpath.join(top, "uptime")).split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _started(stat: str, booted_at: float | None) -> str:
    """Return when a process started, in whole seconds since the epoch. Source: proc(5), /proc/pid/stat, field 22."""
    try:
        ticks = int(_raw(stat).rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return "-"
    return "-" if booted_at is None else str(int(booted_at + ticks / os.sysconf("SC_CLK_TCK")))


def _raw(where: str) -> str:
    descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _CHUNK).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def answer(root: str, verb: str, path: str, keep: str | None) -> dict[str, object]:
    """Return what one read gives: what it found, that nothing is there, or errno's name."""
    try:
        if verb == "file":
            return read_file(root, path)
        if verb == "link":
            return read_link(root, path)
        if verb == "list":
            return list_folder(root, path, keep=keep)
        if verb == "stat":
            return read_stat(root, path)
        if verb == "where":
            return read_where(root, path)
        if verb == "kmsg":
            return read_kmsg(root)
        return read_processes(root)
    except (FileNotFoundError, NotADirectoryError):
        return {"absent": True}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, "EIO")}
    except ValueError:
        return {"error": "EINVAL"}  # a path with a null byte


def answers(request: list[object]) -> Iterator[dict[str, object]]:
    """Yield the one answer to a request: `[root, verb, path, pattern]`."""
    root, verb, path, keep = request
    yield answer(str(root), str(verb), str(path), None if keep is None else str(keep))

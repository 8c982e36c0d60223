"""The driver's user-space libraries on a host: which the loader takes, and of which version they are."""

import functools
import posixpath
import re
from typing import Final

import msgspec

from kube_gpucheck.evidence.host import Command, Host
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import GapError, attempt, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

WANTED: Final = ("libnvidia-ml.so.1", "libcuda.so.1")
"""NVML's and CUDA's driver libraries: the two that everything above loads."""
_CACHE_LINE: Final = re.compile(r"\s*(\S{1,200}) \(([^)]{0,80})\) => (\S{1,400})\s*")
_VERSIONED: Final = re.compile(r"lib[\w+.-]{1,80}?\.so\.(\d{3,4}(?:\.\d{1,4}){1,3})")
_LIBRARY_FOLDER: Final = re.compile(r"(?:^|/)lib(?:64)?(?:/[\w-]{1,40}-linux-gnu)?$")
_MAX_LINKS: Final = 8


class Library(msgspec.Struct, frozen=True):
    """A library as the loader finds it. `version`: of the file that its links end at, None if that was not read."""

    name: str
    path: str
    version: str | None = None


def _cached_paths(cache: Command, name: str) -> list[str]:
    """Return where the loader looks for a library by its cache, 64-bit before 32-bit, else in the cache's order."""
    paths = []
    for line in cache.text.splitlines():
        if name not in line:
            continue
        found = _CACHE_LINE.fullmatch(line)
        if found is not None and found.group(1) == name:
            paths.append((not _is_64_bit(found.group(2)), found.group(3)))
    return [path for _, path in sorted(paths, key=lambda path: path[0])]


def is_there(host: Host, path: str) -> bool:
    """Tell whether a library that the cache names still stands there; where nobody looked, the cache's word holds.

    Raises:
        GapError: it was looked for, and what was found could not be had.
    """
    for _ in range(_MAX_LINKS):
        target = _target(host, path)
        link = None if is_not_asked(target) else need(target)
        if link is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    entry = host.entry(path)
    return is_not_asked(entry) or need(entry) is not None


def tells_of(cache: Command, name: str) -> bool:
    """Tell whether absence of that name from the cache means anything: a filter may have hidden it."""
    try:
        return cache.filtered is None or re.search(cache.filtered, name, re.IGNORECASE) is not None
    except re.error:
        return False


def version_at(host: Host, path: str) -> Reading[str | None]:
    """Return the driver version in the name that a library's links end at.

    None where the last name carries none. Not asked where neither a link nor its folder was read.
    """
    for _ in range(_MAX_LINKS):
        named = _VERSIONED.fullmatch(posixpath.basename(path))
        if named is not None:
            return Seen(named.group(1))
        target = _target(host, path)
        if isinstance(target, Missing):
            return target
        if target.value is None:
            return Seen(None)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.value))
    return Seen(None)


def listed_library(host: Host, name: str) -> Reading[str | None]:
    """Return where a library stands in a folder that was listed, None if it stands in none of them.

    A link there that leads nowhere is none.
    """
    proven = False
    for key in host.keys("list:"):
        folder = key.removeprefix("list:")
        if _LIBRARY_FOLDER.search(folder) is None:
            continue
        listing = host.listing(folder)
        if isinstance(listing, Missing):
            return listing
        if listing.value is not None and listing.value.find(name) is not None:
            path = posixpath.join(folder, name)
            there = attempt(functools.partial(is_there, host, path))
            if isinstance(there, Missing):
                return there
            if there.value:
                return Seen(path)
        proven = proven or listing.value is None or listing.value.tells_of(name)
    if proven:
        return Seen(None)
    reason = f"no folder of libraries was read on {host.name}"
    return Missing(MissingKind.NOT_ASKED, reason, f"nodes/{host.name}/host.json", "--probe")


def _target(host: Host, path: str) -> Reading[str | None]:
    for spelling in _spellings(path):
        link = host.link(spelling)
        if isinstance(link, Seen) or link.kind is not MissingKind.NOT_ASKED:
            return link
    last: Missing | None = None
    for spelling in _spellings(path):
        listing = host.listing(posixpath.dirname(spelling))
        if isinstance(listing, Missing):
            if listing.kind is not MissingKind.NOT_ASKED:
                return listing
            last = listing
            continue
        entry = listing.value.find(posixpath.basename(spelling)) if listing.value else None
        return Seen(entry.target if entry else None)
    return last or Seen(None)


def _spellings(path: str) -> tuple[str, ...]:
    """Return a path and its other spelling on a merged-/usr system, where /lib is a link to /usr/lib."""
    if path.startswith("/usr/lib"):
        return path, path.removeprefix("/usr")
    return (path, f"/usr{path}") if path.startswith("/lib") else (path,)


def _is_64_bit(flags: str) -> bool:
    return any(word in flags for word in ("x86-64", "AArch64", "64bit"))


def loaded_libraries(host: Host) -> tuple[Library, ...]:
    """Return NVML's and CUDA's library as the loader finds them; those that are not installed are left out.

    From the loader's cache, else (not read, or no such program) from the folders that were listed. A cache may be older
    than the folders: what it names counts only if it was not seen to be gone.

    Raises:
        GapError: a source was asked for and is missing, or none was asked for.
    """
    found = []
    for name in WANTED:
        path = _find(host, name)
        if path is None:
            continue
        version = version_at(host, path)
        if isinstance(version, Missing) and version.kind is MissingKind.NOT_ASKED:
            found.append(Library(name, path))
        else:
            found.append(Library(name, path, need(version)))
    return tuple(found)


def _find(host: Host, name: str) -> str | None:
    cache = host.command("ldconfig -p")
    if isinstance(cache, Missing) and cache.kind is MissingKind.NOT_ASKED:
        return need(listed_library(host, name))
    command = need(cache)
    if command is None:
        return need(listed_library(host, name))
    paths = _cached_paths(command, name)
    if not paths and not tells_of(command, name):
        reason = f"'ldconfig -p' on {host.name} was read through the filter '{command.filtered}', which hides {name}"
        raise GapError(Missing(MissingKind.ERROR, reason, f"nodes/{host.name}/host.json#exec:ldconfig -p"))
    return next((path for path in paths if is_there(host, path)), None)

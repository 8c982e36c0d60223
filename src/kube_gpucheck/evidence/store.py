"""The files of a bundle: a folder, a `.tar.gz` opened by bounded extraction, or a mapping in memory.

Knows nothing of what the files mean. Everything here reads hostile input: a path that climbs out,
a link, an archive that unfolds into a disk full of zeros.
"""

import io
import os
import shutil
import stat
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from kube_gpucheck.errors import BundleError

MAX_FILE_BYTES: Final = 512 * 2**20
"""The largest file that is read as a whole. 40,000 pods of 5 KB are 204 MB, 5,000 nodes of 16 KB 79 MB."""
MAX_TOTAL_BYTES: Final = 2**31
"""The most that an archive may unfold into, and the largest file that is read piece by piece."""
_CHUNK: Final = 2**20
_BUFFER: Final = 2**18
"""Bytes that are read at once: a node is 12 to 18 KB, so that the default of 8 KiB costs two calls an item."""
MAX_MEMBERS: Final = 200_000
"""The most members that an archive may have."""


class Store(Protocol):
    """Where a bundle's files are. Paths are relative, with forward slashes."""

    name: str

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None if there is none.

        Raises:
            BundleError: the file is there and cannot be read.
        """

    def open(self, path: str) -> BinaryIO | None:
        """Open the file for reading piece by piece, None if there is none; the caller closes it.

        Raises:
            BundleError: the file is there and cannot be read.
        """

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order."""


def is_safe(path: str) -> bool:
    """Tell whether a relative path stays inside the bundle on every system."""
    parts = _parts(path)
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


class FolderStore:
    """A bundle in a folder. Links are refused: what they point to is not the bundle's."""

    def __init__(self, root: Path, *, name: str = "") -> None:
        """Remember the folder, and under what name the reader knows it if not its own."""
        self._root = root
        self._folders: dict[str, str] = {"": str(root)}
        self.name = name or str(root)

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None if there is none.

        Raises:
            BundleError: a link stands in the way, or the file is too large or unreadable.
        """
        stream = self._open(path, MAX_FILE_BYTES)
        if stream is None:
            return None
        try:
            with stream:
                return stream.read()
        except OSError as error:
            raise self._unreadable(path, error) from error

    def open(self, path: str) -> BinaryIO | None:
        """Open the file for reading piece by piece, None if there is none; the caller closes it.

        Raises:
            BundleError: a link stands in the way, or the file is too large or unreadable.
        """
        return self._open(path, MAX_TOTAL_BYTES)

    def _open(self, path: str, limit: int) -> BinaryIO | None:
        if not is_safe(path):
            msg = f"{self.name}: '{path}' leads out of the bundle; nothing outside it is read"
            raise BundleError(msg)
        *folders, name = _parts(path)
        try:
            here = f"{self._folder('/'.join(folders))}/{name}"
            mode = _looked_at(here)
            if not stat.S_ISREG(mode.st_mode):
                msg = f"{here}: not a file; a bundle holds files and folders only"
                raise BundleError(msg)
            if mode.st_size > limit:
                msg = f"{here}: {mode.st_size:,} bytes, at most {limit:,} are read; collect with a smaller tail"
                raise BundleError(msg)
            return open(here, "rb", buffering=_BUFFER)  # noqa: PTH123  paths of text: 10,000 logs; the caller closes it
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _folder(self, path: str) -> str:
        """Return where a folder of the bundle lies; each is looked at once.

        Raises:
            BundleError: a link stands in its place.
            OSError: it is not there.
        """
        if path not in self._folders:
            above, _, name = path.rpartition("/")
            here = f"{self._folder(above)}/{name}"
            _looked_at(here)
            self._folders[path] = here
        return self._folders[path]

    def _unreadable(self, path: str, error: OSError) -> BundleError:
        return BundleError(f"{self._root / path}: {error.strerror or error}; make it readable")

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order; links are yielded too, and refused when read."""
        top = len(str(self._root)) + 1
        for folder, names, files in os.walk(self._root):
            names.sort()
            inside = folder[top:].replace(os.sep, "/")
            for name in sorted(files):
                yield f"{inside}/{name}" if inside else name


def _looked_at(here: str) -> os.stat_result:
    """Return what stands at a path.

    Raises:
        BundleError: it is a link.
        OSError: it is not there, or cannot be looked at.
    """
    mode = os.lstat(here)
    if stat.S_ISLNK(mode.st_mode):
        msg = f"{here}: a link; a bundle holds files and folders only, so put the file itself there"
        raise BundleError(msg)
    return mode


class MemoryStore:
    """A bundle that was never on disk: what a scenario or an importer built."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keep the files."""
        self.name = name
        self._files = files

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None if there is none."""
        return self._files.get(path)

    def open(self, path: str) -> BinaryIO | None:
        """Open the file for reading piece by piece, None if there is none."""
        content = self._files.get(path)
        return None if content is None else io.BytesIO(content)

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order."""
        return iter(sorted(self._files))


def open_archive(path: Path) -> FolderStore:
    """Unfold a `.tar.gz` into a temporary folder, within bounds, its one top folder stripped if it has one.

    Creates the folder, which is removed when the store is let go, at the latest when Python ends.

    Raises:
        BundleError: the archive is damaged, too large, or holds a link or a path that climbs out.
    """
    scratch = Path(tempfile.mkdtemp(prefix="gpucheck."))
    try:
        _unfold(path, scratch)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        msg = f"{path}: not a whole .tar.gz ({error}); get the archive anew"
        raise BundleError(msg) from error
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    tops = list(scratch.iterdir())
    is_wrapped = len(tops) == 1 and tops[0].is_dir()
    store = FolderStore(tops[0] if is_wrapped else scratch, name=str(path))
    weakref.finalize(store, shutil.rmtree, scratch, ignore_errors=True)
    return store


def _unfold(path: Path, folder: Path) -> None:
    total = 0
    with tarfile.open(path, "r:gz") as archive:
        for count, member in enumerate(archive, start=1):
            if member.isdir():
                continue
            if count > MAX_MEMBERS:
                msg = f"{path}: more than {MAX_MEMBERS:,} members; this is no bundle"
                raise BundleError(msg)
            name = member.name.removeprefix("./")
            if not is_safe(name):
                msg = f"{path}: member '{name}' leads out of the bundle; nothing was unpacked, get the archive anew"
                raise BundleError(msg)
            if not member.isreg():
                msg = f"{path}: member '{name}' is a link or device; a bundle holds files and folders only"
                raise BundleError(msg)
            total += member.size
            if member.size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES:
                msg = (
                    f"{path}: member '{name}' has {member.size:,} bytes ({total:,} in all so far); "
                    f"at most {MAX_FILE_BYTES:,} a file and {MAX_TOTAL_BYTES:,} in all are unpacked"
                )
                raise BundleError(msg)
            content = archive.extractfile(member)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as written:
                if content is not None:
                    shutil.copyfileobj(content, written, _CHUNK)
        while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
            pass  # to its end, where gzip keeps length and checksum

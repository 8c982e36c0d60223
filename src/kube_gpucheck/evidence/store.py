"""The files of a bundle: a folder, a `.tar.gz` opened by bounded extraction, or a mapping in memory.

Knows nothing of what the files mean. Everything here reads hostile input: a path that climbs out,
a link, an archive that unfolds into a disk full of zeros.
"""

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from kube_gpucheck.errors import BundleError

MAX_FILE_BYTES: Final = 512 * 2**20
"""The largest file that is read. 5,000 full nodes are 84 MB (MEASURED: 16.8 KB a node)."""
MAX_TOTAL_BYTES: Final = 2**31
"""The most that an archive may unfold into."""
_CHUNK: Final = 2**20
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

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order."""


def is_safe(path: str) -> bool:
    """Tell whether a relative path stays inside the bundle on every system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


class FolderStore:
    """A bundle in a folder. Links are refused: what they point to is not the bundle's."""

    def __init__(self, root: Path) -> None:
        """Remember the folder."""
        self._root = root
        self.name = str(root)

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None if there is none.

        Raises:
            BundleError: a link stands in the way, or the file is too large or unreadable.
        """
        if not is_safe(path):
            msg = f"{self.name}: '{path}' leads out of the bundle; nothing outside it is read"
            raise BundleError(msg)
        here = self._root
        try:
            for part in PurePosixPath(path).parts:
                here = here / part
                mode = here.lstat()
                if stat.S_ISLNK(mode.st_mode):
                    msg = f"{here}: a link; a bundle holds files and folders only, so put the file itself there"
                    raise BundleError(msg)
            if not stat.S_ISREG(mode.st_mode):
                msg = f"{here}: not a file; a bundle holds files and folders only"
                raise BundleError(msg)
            if mode.st_size > MAX_FILE_BYTES:
                msg = (
                    f"{here}: {mode.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read; collect with a smaller tail"
                )
                raise BundleError(msg)
            return here.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            msg = f"{here}: {error.strerror or error}; make it readable"
            raise BundleError(msg) from error

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order; links are yielded too, and refused when read."""
        for folder, names, files in os.walk(self._root):
            names.sort()
            for name in sorted(files):
                yield (Path(folder) / name).relative_to(self._root).as_posix()


class MemoryStore:
    """A bundle that was never on disk: an unfolded archive, or what a scenario built."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        """Keep the files."""
        self.name = name
        self._files = files

    def read(self, path: str) -> bytes | None:
        """Return the file's content, or None if there is none."""
        return self._files.get(path)

    def paths(self) -> Iterator[str]:
        """Yield each file's path, in order."""
        return iter(sorted(self._files))


def open_archive(path: Path) -> MemoryStore:
    """Unfold a `.tar.gz` in memory, within bounds, its one top folder stripped if it has one.

    Raises:
        BundleError: the archive is damaged, too large, or holds a link or a path that climbs out.
    """
    files: dict[str, bytes] = {}
    total = 0
    try:
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
                files[name] = content.read() if content else b""
            while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
                pass  # to its end, where gzip keeps length and checksum
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        msg = f"{path}: not a whole .tar.gz ({error}); get the archive anew"
        raise BundleError(msg) from error
    tops = {name.split("/", 1)[0] for name in files}
    if "bundle.json" not in files and len(tops) == 1:
        top = tops.pop() + "/"
        files = {name.removeprefix(top): content for name, content in files.items()}
    return MemoryStore(str(path), files)

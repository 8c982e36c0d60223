"""Writes a bundle file by file, as it comes: lists an item a line, `bundle.json` last.

A folder without `bundle.json` is no bundle, so that one whose writing ended early is never read for one.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence.bundle import Manifest
from kube_gpucheck.evidence.store import is_safe

LIST_HEAD: Final = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n'
LIST_SEPARATOR: Final = b",\n"
LIST_TAIL: Final = b"]}\n"


class ListFile:
    """A Kubernetes list on its way to disk, one item a line. It counts only once it is finished."""

    def __init__(self, target: Path, *, hashed: bool) -> None:
        """Create the file, or empty it."""
        self._target = target
        self._file = target.open("wb")
        self._hash = hashlib.sha256() if hashed else None
        self.count = 0
        self._write(LIST_HEAD)

    def add(self, items: Sequence[bytes]) -> None:
        """Write items, each of which is JSON without a line break."""
        if items:
            if self.count:
                self._write(LIST_SEPARATOR)
            self._write(LIST_SEPARATOR.join(items))
            self.count += len(items)

    def finish(self) -> str | None:
        """Write the end, and return the file's sha256, None if nobody wanted it."""
        self._write((b"\n" if self.count else b"") + LIST_TAIL)
        self._file.close()
        return self._hash.hexdigest() if self._hash else None

    def discard(self) -> None:
        """Remove the file: there is no half list."""
        self._file.close()
        self._target.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        if self._hash:
            self._hash.update(content)


class BundleWriter:
    """A bundle on its way to disk. Without `hashed`, its files are not compared when they are read."""

    def __init__(self, folder: Path, *, hashed: bool = True) -> None:
        """Create the folder, if it is not there.

        Raises:
            BundleError: the folder holds something already, or cannot be made.
        """
        self.folder = folder
        self._hashed = hashed
        self._hashes: dict[str, str] = {}
        try:
            self._made = not folder.exists()
            if not self._made and (not folder.is_dir() or any(folder.iterdir())):
                msg = f"{folder}: already there and not empty; name another folder"
                raise BundleError(msg)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def put(self, path: str, content: bytes) -> None:
        """Write one file.

        Raises:
            BundleError: the path leads out of the bundle, or the file cannot be written.
        """
        try:
            self._target(path).write_bytes(content)
        except OSError as error:
            raise _unwritable(self.folder / path, error) from error
        if self._hashed:
            self._hashes[path] = hashlib.sha256(content).hexdigest()

    def open_list(self, path: str) -> ListFile:
        """Begin a list.

        Raises:
            BundleError: the path leads out of the bundle, or the file cannot be written.
        """
        try:
            return ListFile(self._target(path), hashed=self._hashed)
        except OSError as error:
            raise _unwritable(self.folder / path, error) from error

    def close_list(self, path: str, file: ListFile) -> None:
        """Finish a list: from now on it is part of the bundle."""
        found = file.finish()
        if found is not None:
            self._hashes[path] = found

    def take(self, path: str, source: Path) -> None:
        """Copy one file of another bundle.

        Raises:
            BundleError: the file cannot be read or written.
        """
        try:
            self.put(path, source.read_bytes())
        except OSError as error:
            raise _unwritable(source, error) from error

    def finish(self, manifest: Manifest) -> Manifest:
        """Write `bundle.json`, and return the manifest as it is there."""
        whole = msgspec.structs.replace(manifest, files=dict(sorted(self._hashes.items())))
        content = msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"
        try:
            (self.folder / "bundle.json").write_bytes(content)
        except OSError as error:
            raise _unwritable(self.folder / "bundle.json", error) from error
        return whole

    def abandon(self) -> None:
        """Remove everything that was written, and the folder if it was made for it."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self._made:
            self.folder.rmdir()

    def _target(self, path: str) -> Path:
        if not is_safe(path):
            msg = f"'{path}' leads out of the bundle; nothing is written there"
            raise BundleError(msg)
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _unwritable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: {error.strerror or error}; name a folder that can be written")

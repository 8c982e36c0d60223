"""Where evidence comes from, and where it is kept: bundles and scenarios on disk.

Clusters, live and simulated, are in `live.py`: who judges a bundle pays nothing for them.
"""

import contextlib
import functools
import math
import re
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Protocol

from kube_gpucheck import assets
from kube_gpucheck.diagnose import Catalogue, load_catalogue
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.bundle import Bundle, open_bundle
from kube_gpucheck.simulate.scenario import Library


class Source(Protocol):
    """Gives evidence."""

    live: bool
    """Whether another look may show something else."""

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:
        """Return the evidence as it is now; what is gathered is written into the folder, which must not be there.

        `reuse` is an earlier folder of the same source, from which is taken what does not change. What has not come
        `within_s` seconds is missing.
        """


class Recorded:
    """A bundle, a scenario, or a recipe's file, on disk."""

    live = False

    def __init__(self, origin: str) -> None:
        """Remember which.

        Raises:
            UsageError: it is neither.
        """
        self._origin = origin
        self._scenario = _is_scenario(origin)
        self._recipe = not self._scenario and is_recipe(origin)

    def gather(self, folder: Path, *, reuse: Path | None = None, within_s: float = math.inf) -> Bundle:  # noqa: ARG002  nothing is gathered twice
        """Return the bundle; a scenario or a recipe is built into the folder."""
        if self._recipe:
            library().save_recipe(Path(self._origin), folder)
        elif self._scenario:
            library().save(self._origin, folder)
        else:
            return open_bundle(Path(self._origin))
        return open_bundle(folder)


@contextlib.contextmanager
def room_for(wanted: Path | None, option: str) -> Iterator[Path]:
    """Give a folder to gather into, which is not there yet: the wanted one, or a temporary one.

    A wanted `.tar.gz` is packed at the end. Whatever was gathered stays there, even if judging fails.

    Raises:
        UsageError: the wanted place is taken, or cannot be written.
    """
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="gpucheck.") as scratch:
            yield Path(scratch)
        return
    packed = wanted.name.endswith((".tar.gz", ".tgz"))
    try:
        taken = wanted.exists() if packed or not wanted.is_dir() else any(wanted.iterdir())
        wanted.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{option} {wanted}: {error.strerror or error}; name a place that can be written"
        raise UsageError(msg) from error
    if taken:
        msg = f"{option} {wanted}: already there; name another"
        raise UsageError(msg)
    with tempfile.TemporaryDirectory(prefix=f".{wanted.name}.", dir=wanted.parent) as scratch:
        try:
            yield Path(scratch)
        finally:
            _keep(_latest(Path(scratch)), wanted, packed=packed)


def _latest(scratch: Path) -> Path | None:
    """Return the last whole bundle of a room; rounds are numbered."""
    whole = sorted(path.parent for path in scratch.glob("*/bundle.json"))
    return whole[-1] if whole else None


def _keep(folder: Path | None, wanted: Path, *, packed: bool) -> None:
    if folder is None:
        return
    if not packed:
        if wanted.is_dir():
            wanted.rmdir()
        folder.rename(wanted)
        return
    whole = folder.parent / wanted.name  # an archive whose packing is interrupted goes with the room
    with tarfile.open(whole, "x:gz", compresslevel=5) as archive:
        archive.add(folder, arcname=wanted.name.split(".", 1)[0])
    whole.rename(wanted)


def named_after(origin: str) -> str:
    """Return a name for what is served: the scenario's, or the path's last part, in letters that a context may have."""
    short = origin if not exists(origin) else Path(origin).name.removesuffix(".gz").removesuffix(".tar")
    if is_recipe(origin):
        short = Path(origin).stem
    return re.sub(r"[^A-Za-z0-9.-]+", "-", short).strip("-.") or "bundle"


def is_recipe(origin: str) -> bool:
    """Tell whether it is the path of a recipe's file."""
    path = Path(origin)
    return path.suffix in {".yaml", ".yml"} and path.is_file()


def _is_scenario(origin: str) -> bool:
    """Tell whether it is a scenario's name; a path that is there wins.

    Raises:
        UsageError: it is neither.
    """
    if exists(origin):
        return False
    if not library().has(origin):
        what = "neither a bundle's path nor a scenario, nor a recipe's file (.yaml)"
        msg = f"'{origin}' is {what}; 'gpucheck list scenarios' shows the scenarios"
        raise UsageError(msg)
    return True


def exists(path: str) -> bool:
    """Tell whether a path is there.

    Raises:
        UsageError: it cannot be looked at.
    """
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:
        msg = f"{path}: {getattr(error, 'strerror', None) or error}; name a path that can be read"
        raise UsageError(msg) from error


@functools.cache
def library() -> Library:
    """Return the scenarios that travel with gpucheck."""
    return Library(assets.folder("fixtures"))


def catalogue() -> Catalogue:
    """Return the causes."""
    folder = resources.files("kube_gpucheck") / "causes"
    return load_catalogue(
        {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    )

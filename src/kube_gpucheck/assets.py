"""Where the four folders that travel with the package are, installed or in a checkout."""

from pathlib import Path
from typing import Final

from kube_gpucheck.errors import GpucheckError

_FOLDERS: Final = frozenset({"conformance", "fixtures", "workloads", "reports"})


def folder(name: str) -> Path:
    """Return the path of conformance, fixtures, workloads or reports.

    Raises:
        GpucheckError: it is neither in the installed package nor in the checkout around it.
    """
    if name not in _FOLDERS:
        msg = f"'{name}' is not one of {', '.join(sorted(_FOLDERS))}"
        raise GpucheckError(msg)
    here = Path(__file__).resolve().parent
    for candidate in (here / "_suite" / name, here.parent.parent / name):
        if candidate.is_dir():
            return candidate
    msg = f"the folder '{name}' is missing from this installation; reinstall kube-gpucheck"
    raise GpucheckError(msg)

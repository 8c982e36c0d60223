"""Builds the driver's libraries that lie, of `fake_nvml/`: what tests of the collector read instead of a GPU."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCES: Final = Path(__file__).parent / "fake_nvml"
COMPILER: Final = shutil.which("cc")


def needs_compiler(test: object) -> object:
    """Mark a test that needs Debian's gcc: it is skipped where there is no C compiler."""
    return pytest.mark.gcc(pytest.mark.skipif(COMPILER is None, reason="no C compiler: install gcc")(test))


def compiled(source: str, target: Path) -> Path:
    """Compile one of the sources to a library, and return it."""
    subprocess.run(
        [COMPILER or "cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", target, SOURCES / source], check=True
    )
    return target

"""MIG devices, as the driver lists them."""

import re
from typing import Final

_MAX_LINE: Final = 4_000
_SMI_GPU: Final = re.compile(r"GPU (\d+):")
_SMI_MIG: Final = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+:")


def parse_mig(text: str) -> dict[int, tuple[str, ...]]:
    """Return the profiles of the MIG devices that `nvidia-smi -L` lists, by GPU index."""
    found: dict[int, list[str]] = {}
    index = None
    for line in text.splitlines():
        if gpu := _SMI_GPU.match(line):
            index = int(gpu[1])
        elif index is not None and (mig := _SMI_MIG.match(line[:_MAX_LINE])):
            found.setdefault(index, []).append(mig[1])
    return {gpu: tuple(profiles) for gpu, profiles in found.items()}

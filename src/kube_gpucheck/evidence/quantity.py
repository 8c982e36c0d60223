"""Kubernetes quantities: of countable resources as whole numbers, of others as they compare."""

import re
from typing import Final

_SUFFIXES: Final = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def whole(quantity: str | int) -> int:
    """Return a quantity of an extended resource as a number, 0 if it is none (they are whole by definition)."""
    text = str(quantity).strip()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix) and text.removesuffix(suffix).isdigit():
            return int(text.removesuffix(suffix)) * _SUFFIXES[suffix]
    return int(text) if text.isdigit() else 0


_AMOUNT: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def amount(quantity: str | int) -> float:
    """Return a quantity of any resource in its base unit (cores, bytes), 0 if it is none."""
    found = _AMOUNT.fullmatch(str(quantity).strip())
    if found is None:
        return 0.0
    return float(found[1]) * (0.001 if found[2] == "m" else _SUFFIXES.get(found[2] or "", 1))

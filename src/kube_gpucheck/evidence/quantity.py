"""Kubernetes quantities of countable resources."""

from typing import Final

_SUFFIXES: Final = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def whole(quantity: str | int) -> int:
    """Return a quantity of an extended resource as a number, 0 if it is none (they are whole by definition)."""
    text = str(quantity).strip()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix) and text.removesuffix(suffix).isdigit():
            return int(text.removesuffix(suffix)) * _SUFFIXES[suffix]
    return int(text) if text.isdigit() else 0

"""Which texts may be names of Kubernetes' things, and so parts of a bundle's paths."""

import re
from typing import Final

_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,62}(?:\.[a-z0-9][a-z0-9.-]{0,252})?")
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")

NEVER: Final = frozenset({"secrets"})
"""Kinds that are never read nor kept."""


def is_kind(name: str) -> bool:
    """Tell whether a text can be a kind's name, `<plural>[.<group>]`, and so a file's."""
    return _KIND.fullmatch(name) is not None


def is_name(name: str) -> bool:
    """Tell whether a text can be the name of a node, namespace, pod or container, and so part of a file's."""
    return _NAME.fullmatch(name) is not None

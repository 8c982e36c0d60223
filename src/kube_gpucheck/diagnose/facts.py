"""The registered predicates that a cause's signs may name: pure functions of a subject's surroundings.

Each answers a `Reading[bool]`: an unknown fact makes a candidate, never a first answer. None of them
holds a phrase that only one case contains.
"""

from collections.abc import Callable
from typing import Final

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.evidence.readings import attempt
from kube_gpucheck.model import Reading

Fact = Callable[[Context], bool]

_REGISTRY: Final[dict[str, Fact]] = {}


def fact(function: Fact) -> Fact:
    """Register a predicate under its own name."""
    _REGISTRY[function.__name__] = function
    return function


def names() -> frozenset[str]:
    """Return the names of all predicates."""
    return frozenset(_REGISTRY)


def ask(name: str, context: Context) -> Reading[bool]:
    """Return what a predicate says; missing where evidence that it needs is missing.

    Raises:
        KeyError: no predicate has that name; the catalogue's test forbids it.
    """
    function = _REGISTRY[name]
    return attempt(lambda: function(context))

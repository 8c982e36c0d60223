"""The registered predicates that a cause's signs may name: pure functions of a subject's surroundings.

Each answers a `Reading[bool]`: an unknown fact makes a candidate, never a first answer. None of them holds a phrase
that only one case contains. What is there is asked of any of the subject's nodes, what is not there of all of them.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.readings import GapError, attempt, need
from kube_gpucheck.model import Missing, MissingKind, Reading

T = TypeVar("T")
Fact = Callable[[Context], bool]

_REGISTRY: Final[dict[str, Fact]] = {}


def fact(function: Fact) -> Fact:
    """Register a predicate under its own name."""
    _REGISTRY[function.__name__] = function
    return function


def names() -> frozenset[str]:
    """Return the names of all predicates."""
    return frozenset(_REGISTRY)


def describe(name: str) -> str:
    """Return the first line of a predicate's docstring.

    Raises:
        KeyError: no predicate has that name.
    """
    return (_REGISTRY[name].__doc__ or "").strip().partition("\n")[0]


def ask(name: str, context: Context) -> Reading[bool]:
    """Return what a predicate says; missing where evidence that it needs is missing.

    Raises:
        KeyError: no predicate has that name; the catalogue's test forbids it.
    """
    function = _REGISTRY[name]
    return attempt(lambda: function(context))


def one_of(things: Iterable[T], predicate: Callable[[T], bool]) -> bool:
    """Tell whether a predicate holds for one of them; one that cannot be told makes the answer unknown unless it does.

    Raises:
        GapError: it holds for none of those that can be told, and another cannot be told.
    """
    gap: GapError | None = None
    for thing in things:
        try:
            if predicate(thing):
                return True
        except GapError as found:
            gap = gap or found
    if gap is not None:
        raise gap
    return False


def any_node(context: Context, predicate: Callable[[Node], bool]) -> bool:
    """Tell whether a predicate holds on one of the nodes that the subject concerns.

    Raises:
        GapError: it holds on none that can be told, and another cannot be told.
    """
    return one_of(context.nodes, predicate)


def all_nodes(context: Context, predicate: Callable[[Node], bool]) -> bool:
    """Tell whether a predicate holds on each of the nodes that the subject concerns; False where there are none.

    Raises:
        GapError: it holds on all that can be told, and another cannot be told.
    """
    return bool(context.nodes) and not any_node(context, lambda node: not predicate(node))


def asked(reading: Reading[T]) -> T | None:
    """Return the value of a reading, None where nobody asked for it.

    Raises:
        GapError: it was asked for and is missing.
    """
    if isinstance(reading, Missing) and reading.kind is MissingKind.NOT_ASKED:
        return None
    return need(reading)

"""How evidence is derived from evidence without losing the third state.

`need` opens a reading inside a derivation; a `derived` property turns what it raised back into
`Missing`, so that ignorance travels unchanged from the document to the check. Checks do not use
these two: they open readings with `judging.known`.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from kube_gpucheck.model import Missing, Reading, Seen

S = TypeVar("S")
T = TypeVar("T")


class GapError(Exception):
    """A derivation needed what could not be looked at. Never leaves a `derived` property."""

    def __init__(self, missing: Missing) -> None:
        """Keep the missing fact."""
        super().__init__(missing.reason)
        self.missing = missing


def need(reading: Reading[T]) -> T:
    """Return the value, or raise the gap that the enclosing `derived` property turns into `Missing`.

    Raises:
        GapError: the fact is missing.
    """
    if isinstance(reading, Missing):
        raise GapError(reading)
    return reading.value


def attempt(derivation: Callable[[], T]) -> Reading[T]:
    """Return what the derivation gives as seen, or the gap that it met as missing."""
    try:
        return Seen(derivation())
    except GapError as gap:
        return gap.missing


class derived(Generic[S, T]):  # noqa: N801  used as a decorator, like functools.cached_property
    """A property that is worked out once; it is `Missing` where a `need` in it was."""

    def __init__(self, function: Callable[[S], T]) -> None:
        """Keep the derivation and its docstring."""
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> "derived[S, T]": ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> Reading[T]: ...
    def __get__(self, instance: S | None, owner: type[Any]) -> "derived[S, T] | Reading[T]":
        """Return the reading; the second access finds it in the instance."""
        if instance is None:
            return self
        reading: Reading[T]
        try:
            reading = Seen(self._function(instance))
        except GapError as gap:
            reading = gap.missing
        vars(instance)[self._name] = reading
        return reading

"""Which of the catalogue's expressions each log matches: a log is read once, and searched once for all that ask."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from kube_gpucheck.diagnose.catalogue import Catalogue, LogSign
from kube_gpucheck.model import Missing, Reading, Seen

Place = tuple[str, ...]
"""Where a log stands: component, then namespace, pod, container and run, or node and unit."""
_NONE: Final[frozenset[str]] = frozenset()
_PARSER: Final[Any] = importlib.import_module("sre_parse" if sys.version_info < (3, 11) else "re._parser")
"""Python's own parser of expressions, which has no public name (Lib/re/_parser.py)."""


class Expression(msgspec.Struct, frozen=True):
    """A regular expression of the catalogue, which knows no case, with words that spare most searches.

    `words`: in lower case; whatever the expression matches holds one of them, or is not ASCII. Empty: none is known.
    """

    text: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Expression":
        """Compile an expression."""
        return cls(text, re.compile(text, re.IGNORECASE | re.MULTILINE), words_of(text))

    def is_in(self, text: str, lowered: str) -> bool:
        """Tell whether it matches anywhere in a text, which is also given in lower case."""
        if self.words and lowered.isascii() and not any(word in lowered for word in self.words):
            return False
        return self.pattern.search(text) is not None


class Journal:
    """What the logs of one run say to the log signs of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Sort the expressions by the component whose log they are looked for in; no log is read yet."""
        signs = (sign for cause in catalogue.causes for sign in (*cause.needs, *cause.against, *cause.hints))
        logs = (leaf.log for sign in signs for leaf in sign.leaves if leaf.log is not None)
        wanted: dict[str, dict[str, Expression]] = {}
        for log in logs:
            wanted.setdefault(log.component, {}).setdefault(log.re, Expression.of(log.re))
        self._wanted = wanted
        self._matched: dict[Place, Reading[frozenset[str]]] = {}

    def matched(self, place: Place, read: Callable[[], Reading[str]]) -> Reading[frozenset[str]]:
        """Return which expressions of a log's component it matches; `read` is called once for each place."""
        if place not in self._matched:
            log = read()
            self._matched[place] = log if isinstance(log, Missing) else Seen(self._search(place[0], log.value))
        return self._matched[place]

    def _search(self, component: str, text: str) -> frozenset[str]:
        lowered = text.lower()
        found = [one.text for one in self._wanted.get(component, {}).values() if one.is_in(text, lowered)]
        return frozenset(found) or _NONE


class Heard:
    """What all logs of one component say, as far as one subject is concerned."""

    def __init__(self, logs: Iterable[Reading[frozenset[str]]]) -> None:
        """Join what each of them matches."""
        matched: set[str] = set()
        self._missing: Missing | None = None
        for log in logs:
            if isinstance(log, Missing):
                self._missing = self._missing or log
            else:
                matched |= log.value
        self._matched = matched

    def says(self, sign: LogSign) -> Reading[bool]:
        """Return whether one of them matches; missing where none does and one could not be had."""
        if sign.re in self._matched:
            return Seen(value=True)
        return self._missing or Seen(value=False)


def words_of(expression: str) -> tuple[str, ...]:
    """Return words in lower case of which one stands in whatever ASCII text the expression matches; none if unknown.

    Read off the expression as Python parses it: of what must match in sequence the part whose shortest word is longest.
    """
    parsed: Iterable[tuple[Any, Any]] = _PARSER.parse(expression, re.IGNORECASE | re.MULTILINE)
    return _words(parsed)


def _words(sequence: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    best: tuple[str, ...] = ()
    run = ""
    for operation, value in (*sequence, (None, None)):
        name = str(operation)
        if name == "LITERAL":
            run += chr(value)
            continue
        best = _better(best, (run.lower(),) if run.isascii() else ())
        run = ""
        if name == "BRANCH":
            ways = [_words(way) for way in value[1]]
            best = _better(best, tuple(word for way in ways for word in way) if all(ways) else ())
        elif name == "SUBPATTERN":
            best = _better(best, _words(value[3]))
        elif name in {"MAX_REPEAT", "MIN_REPEAT"} and value[0] > 0:
            best = _better(best, _words(value[2]))
    return best


def _better(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return max(one, other, key=lambda words: min(map(len, words), default=0))

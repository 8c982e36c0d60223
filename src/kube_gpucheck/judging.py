"""The check author's tools: `check`, `known`, `fault` and `not_applicable`.

A check never returns a value and never raises by itself: it ends (pass), or one of these ends it.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from kube_gpucheck.model import CheckInfo, Layer, Missing, Reading, Severity, SubjectKind

T = TypeVar("T")

IDENTIFIER: Final = re.compile(r"[A-Z]{3}-\d{3}")


class DefinitionError(Exception):
    """A check is declared wrongly; the plugin turns it into a usage error that names the file."""


class Threshold(msgspec.Struct, frozen=True):
    """A limit that a check compares with. `source` is where the figure comes from."""

    id: str
    value: float
    unit: str
    source: str


class Ended(Exception):  # noqa: N818  a signal between a check and its runner, no error
    """Base of what ends a check early."""


class Unknown(Ended):
    """A reading was missing."""

    def __init__(self, missing: Missing, what: str) -> None:
        """Keep what was missing, in the reader's words."""
        super().__init__(missing.reason)
        self.missing = missing
        self.what = what


class Fault(Ended):
    """The requirement does not hold."""

    def __init__(
        self, *, seen: str, means: str, remedy: str, severity: Severity | None, nodes: tuple[str, ...]
    ) -> None:
        """Keep the three parts, and what the fault is about."""
        super().__init__(seen)
        self.seen = seen
        self.means = means
        self.remedy = remedy
        self.severity = severity
        self.nodes = nodes


class NotApplicable(Ended):
    """The requirement does not concern this subject."""


def known(reading: Reading[T], what: str) -> T:
    """Return the reading's value; end the check as unknown (or not asked) if it is missing.

    `what` is the fact in the reader's words, as a noun phrase.
    """
    if isinstance(reading, Missing):
        raise Unknown(reading, what)
    return reading.value


def fault(
    *, seen: str, means: str, remedy: str, severity: Severity | None = None, nodes: Iterable[str | None] = ()
) -> NoReturn:
    """End the check with a fault. `severity` may only lower the check's own.

    `nodes`: of a DaemonSet's or the cluster's fault, the nodes that it is about, as where pods are not well; what goes
    wrong on other nodes is then no consequence of it. None given: it is about all.
    """
    named = tuple(dict.fromkeys(node for node in nodes if node is not None))
    raise Fault(seen=seen, means=means, remedy=remedy, severity=severity, nodes=named)


def not_applicable(reason: str) -> NoReturn:
    """End the check: a fact of the subject says that the requirement does not concern it."""
    raise NotApplicable(reason)


class Check(msgspec.Struct, frozen=True):
    """A check function with what it declares."""

    info: CheckInfo
    function: Callable[[Any], None]
    among: Callable[[Any], Reading[bool]] | None = None
    none_means: Callable[[Any], None] | None = None


def check(
    identifier: str,
    *,
    layer: Layer,
    severity: Severity,
    after: tuple[str, ...] = (),
    among: Callable[[Any], Reading[bool]] | None = None,
    none_means: Callable[[Any], None] | None = None,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Declare a function as the check of one requirement.

    The function has one parameter whose annotation is the subject (`node: Node`), and a docstring
    whose first line is the requirement. It is called for every subject: the cluster; each GPU node; each
    GPU; each DaemonSet of the GPU stack; each pod. `among` leaves out subjects that the requirement is not
    about (one that it cannot tell is judged unknown). `none_means`, a function of the cluster, judges the
    cluster where the subjects were enumerated and there are none; without it that is not applicable.

    Raises:
        DefinitionError: the declaration breaks one of these rules.
    """

    def declare(function: Callable[[Any], None]) -> Callable[[Any], None]:
        where = f"{inspect.getsourcefile(function)}: {function.__name__}"
        if not IDENTIFIER.fullmatch(identifier):
            msg = f"{where}: '{identifier}' is no check id; write three capitals, a hyphen and three digits ('ABC-001')"
            raise DefinitionError(msg)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            msg = (
                f"{where} ({identifier}): a coroutine or generator, whose body would never run; write a plain function"
            )
            raise DefinitionError(msg)
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != 1:
            msg = f"{where} ({identifier}): {len(parameters)} parameters, expected one: its subject ('node: Node')"
            raise DefinitionError(msg)
        kind = _SUBJECTS.get(str(getattr(parameters[0].annotation, "__name__", parameters[0].annotation)))
        if kind is None:
            way_out = f"annotate it with one of {', '.join(_SUBJECTS)}"
            msg = f"{where} ({identifier}): parameter '{parameters[0].name}' has no subject's type; {way_out}"
            raise DefinitionError(msg)
        first, _, about = (inspect.getdoc(function) or "").partition("\n")
        title = first.strip().rstrip(".")
        if not title:
            msg = f"{where} ({identifier}): no docstring; its first line is the requirement that reports print"
            raise DefinitionError(msg)
        info = CheckInfo(identifier, title, layer, severity, kind, after, about.strip())
        function.__gpucheck__ = Check(info, function, among, none_means)  # type: ignore[attr-defined]  # the plugin looks for it
        return function

    return declare


_SUBJECTS: Final = {
    "Cluster": SubjectKind.CLUSTER,
    "Node": SubjectKind.NODE,
    "Gpu": SubjectKind.GPU,
    "DaemonSet": SubjectKind.DAEMONSET,
    "Pod": SubjectKind.POD,
    "Target": SubjectKind.TARGET,
}

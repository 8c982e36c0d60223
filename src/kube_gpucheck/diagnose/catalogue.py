"""The catalogue of causes: what each claims, needs and remedies. Its texts are handed in, never looked for.

A look-alike pair has a sign in one's `needs` and the other's `against`. A regular expression is a
sign of a mechanism, never a phrase of one case.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec
import yaml

from kube_gpucheck.errors import GpucheckError
from kube_gpucheck.model import Layer


class FindingSign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check had this outcome on a related subject."""

    check: str
    outcome: str = "fault"


class LogSign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A log line of a component, or of a unit of the node, matches."""

    component: str
    re: str


class EventSign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event, or a container's or pod's own status message, matches. `reason` empty matches any.

    With a `component` those of its pods on the subject's nodes; else those of the subject itself.
    """

    re: str
    reason: str = ""
    component: str = ""


class Sign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of four kinds, or `any`: signs of which one is enough; exactly one is set.

    `weight` (1 to 3) counts for hints only.
    """

    finding: FindingSign | None = None
    log: LogSign | None = None
    event: EventSign | None = None
    fact: str | None = None
    any: "tuple[Sign, ...] | None" = None
    weight: int = 1

    @property
    def leaves(self) -> tuple["Sign", ...]:
        """The signs of the four kinds that it is made of: itself, or those of which one is enough."""
        return (self,) if self.any is None else tuple(leaf for one in self.any for leaf in one.leaves)

    def __str__(self) -> str:
        """Return the sign in the reader's words."""
        if self.finding is not None:
            return f"{self.finding.check} is {self.finding.outcome}"
        if self.log is not None:
            return f"the log of {self.log.component} matches '{self.log.re}'"
        if self.event is not None:
            of = f" of {self.event.component}" if self.event.component else ""
            return f"an event{' ' + self.event.reason if self.event.reason else ''}{of} matches '{self.event.re}'"
        if self.any is not None:
            return " or ".join(str(one) for one in self.any)
        return (self.fact or "").replace("_", " ")


class Cause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mechanism: two failures share an id when the same remedy by the same mechanism mends both.

    `claims`: the checks whose fault it can be the first cause of. `remedy`: `default`, and one a
    distribution (`rke2`, `k3s`, …); each a list of steps. `interrupts`: what the remedy interrupts.
    `proves`: the check that proves the cure.
    """

    id: str
    title: str
    layer: str
    claims: tuple[str, ...]
    remedy: Mapping[str, tuple[str, ...]]
    proves: str
    scope: str = "node"
    needs: tuple[Sign, ...] = ()
    against: tuple[Sign, ...] = ()
    hints: tuple[Sign, ...] = ()
    interrupts: str = "nothing that runs"
    references: tuple[str, ...] = ()
    seen_in: tuple[str, ...] = ()

    @property
    def position(self) -> Layer:
        """Its layer; causes filed under scheduling belong to the device plugin's (DESIGN.md)."""
        return Layer.DEVICE_PLUGIN if self.layer == "scheduling" else Layer(self.layer)

    def steps(self, distribution: str) -> tuple[str, ...]:
        """Return the remedy for a distribution, the default one where it has none of its own."""
        return self.remedy.get(distribution) or self.remedy["default"]


class Catalogue:
    """All causes, by id and by the checks that they claim."""

    def __init__(self, causes: Iterable[Cause]) -> None:
        """Keep the causes in their order."""
        self.causes = tuple(causes)

    @cached_property
    def by_id(self) -> Mapping[str, Cause]:
        """Each cause by its id."""
        return {cause.id: cause for cause in self.causes}

    @cached_property
    def by_check(self) -> Mapping[str, tuple[Cause, ...]]:
        """The causes that claim a check."""
        table: dict[str, list[Cause]] = {}
        for cause in self.causes:
            for check in cause.claims:
                table.setdefault(check, []).append(cause)
        return {check: tuple(causes) for check, causes in table.items()}


def load_catalogue(texts: Mapping[str, bytes]) -> Catalogue:
    """Decode the catalogue's files, `<layer>.yaml` each.

    Raises:
        GpucheckError: a file is wrong, an id is used twice, or an expression does not compile; names file and field.
    """
    causes: dict[str, Cause] = {}
    for name, text in sorted(texts.items()):
        try:
            listed: list[dict[str, Any]] = yaml.load(text, Loader=_LOADER) or []  # noqa: S506  a safe loader either way
            found = msgspec.convert(listed, tuple[Cause, ...])
        except (yaml.YAMLError, msgspec.ValidationError) as error:
            msg = f"causes/{name}: {error}"
            raise GpucheckError(msg) from error
        for cause in found:
            if cause.id in causes:
                msg = f"causes/{name}: '{cause.id}' is used twice"
                raise GpucheckError(msg)
            for sign in (*cause.needs, *cause.against, *cause.hints):
                _verify(name, cause, sign)
                for leaf in sign.leaves:
                    _verify(name, cause, leaf)
            if "default" not in cause.remedy:
                msg = f"causes/{name}: '{cause.id}': remedy.default is missing"
                raise GpucheckError(msg)
            causes[cause.id] = cause
    return Catalogue(causes.values())


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _verify(name: str, cause: Cause, sign: Sign) -> None:
    kinds = [one for one in (sign.finding, sign.log, sign.event, sign.fact, sign.any) if one is not None]
    expression = (sign.log.re if sign.log else "") or (sign.event.re if sign.event else "")
    try:
        re.compile(expression)
    except re.error as error:
        msg = f"causes/{name}: '{cause.id}': '{expression}': {error}"
        raise GpucheckError(msg) from error
    if len(kinds) != 1:
        msg = f"causes/{name}: '{cause.id}': {len(kinds)} kinds, expected one of finding, log, event, fact, any"
        raise GpucheckError(msg)

"""What can be decided of the CEL expressions by which ResourceClaims and DeviceClasses choose devices.

Evaluated: terms joined by `&&` that compare `device.driver`, an attribute or a capacity with a literal; everything else
(`||`, functions, semantic versions) is undecided, never guessed. Source: Kubernetes documentation, "Dynamic Resource
Allocation"; k8s.io/api/resource/v1/types.go, CELDeviceSelector.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from kube_gpucheck.evidence.documents import DeviceSelector, DraAttribute, DraDeviceBody
from kube_gpucheck.evidence.quantity import amount

_LITERAL: Final = r"'[^'\\]*'|\"[^\"\\]*\"|-?\d{1,18}|true|false"
_PATH: Final = (
    r"device\.(?P<kind>attributes|capacity)\[(?P<quote>['\"])(?P<domain>[^'\"\\]+)(?P=quote)\]\.(?P<name>\w+)"
)
_WHAT: Final = rf"(?:(?P<driver>device\.driver)|{_PATH})"
_TERM: Final = re.compile(rf"{_WHAT}\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<literal>{_LITERAL})")
_TURNED: Final = re.compile(rf"(?P<literal>{_LITERAL})\s*(?P<operator>==|!=)\s*{_WHAT}")
_FLAG: Final = re.compile(rf"(?P<not>!?)\s*{_PATH}")
_QUANTITY: Final = re.compile(
    rf"{_PATH}\.(?:compareTo\(\s*quantity\(\s*(?P<of>{_LITERAL})\s*\)\s*\)\s*(?P<operator>==|!=|<=|>=|<|>)\s*0"
    rf"|(?P<method>isGreaterThan|isLessThan)\(\s*quantity\(\s*(?P<than>{_LITERAL})\s*\)\s*\))"
)
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_Value: TypeAlias = str | int | bool


class _Comparison(msgspec.Struct, frozen=True):
    """One term that can be decided: a device's driver, attribute or capacity against a literal."""

    kind: str
    key: tuple[str, str]
    compare: str
    value: _Value


def matches(selectors: Iterable[DeviceSelector], driver: str, body: DraDeviceBody) -> bool | None:
    """Tell whether a device is what all selectors ask for; None where none rules it out and one is undecided.

    An attribute that the device does not have rules it out: the scheduler's evaluation ends in an error there.
    """
    undecided = False
    for selector in selectors:
        if selector.cel is None:
            undecided = True
            continue
        for term in _terms(selector.cel.expression):
            held = None if term is None else _holds(term, driver, body)
            if held is False:
                return False
            undecided = undecided or held is None
    return None if undecided else True


def texts(selectors: Iterable[DeviceSelector]) -> tuple[str, ...]:
    """Return the expressions in one line each."""
    return tuple(" ".join(one.cel.expression.split()) for one in selectors if one.cel is not None)


@functools.lru_cache(maxsize=1024)
def _terms(expression: str) -> tuple[_Comparison | None, ...]:
    """Return the terms of an expression, None for each that is not decided; the whole is one where it has `||`."""
    bare = re.sub(r"'[^'\\]*'|\"[^\"\\]*\"", "''", expression)
    if "||" in bare or "?" in bare or "\\" in expression or "&&" in "".join(re.findall(_LITERAL, expression)):
        return (None,)
    return tuple(_term(part) for part in expression.split("&&"))


def _term(text: str) -> _Comparison | None:
    text = text.strip()
    while text.startswith("(") and text.endswith(")") and "(" not in text[1:-1]:
        text = text[1:-1].strip()
    found = _TERM.fullmatch(text) or _TURNED.fullmatch(text)
    if found is not None:
        kind = "driver" if found["driver"] else found["kind"]
        if kind == "capacity":
            return None  # a quantity is compared by its methods alone
        key = (found["domain"] or "", found["name"] or "")
        return _Comparison(kind, key, found["operator"], _value(found["literal"]))
    found = _QUANTITY.fullmatch(text)
    if found is not None and found["kind"] == "capacity":
        by_method = {"isGreaterThan": ">", "isLessThan": "<"}.get(found["method"] or "")
        limit = found["of"] or found["than"]
        return _Comparison("capacity", (found["domain"], found["name"]), by_method or found["operator"], limit[1:-1])
    found = _FLAG.fullmatch(text)
    if found is not None and found["kind"] == "attributes":
        return _Comparison("attributes", (found["domain"], found["name"]), "==", not found["not"])
    return None


def _value(literal: str) -> _Value:
    if literal in {"true", "false"}:
        return literal == "true"
    return literal[1:-1] if literal[0] in "'\"" else int(literal)


def _holds(term: _Comparison, driver: str, body: DraDeviceBody) -> bool | None:
    compare = _COMPARE[term.compare]
    if term.kind == "driver":
        return compare(driver, term.value) if isinstance(term.value, str) else None
    if term.kind == "capacity":
        found = _of(body.capacity, driver, term.key)
        return False if found is None else compare(amount(found.value), amount(str(term.value)))
    attribute: DraAttribute | None = _of(body.attributes, driver, term.key)
    if attribute is None:
        return False
    value = next((one for one in (attribute.text, attribute.number, attribute.flag) if one is not None), None)
    if value is None or type(value) is not type(term.value):
        return None
    return compare(value, term.value)


def _of(table: Mapping[str, Any] | None, driver: str, key: tuple[str, str]) -> Any:  # noqa: ANN401  either form of table
    """Return what a device has by a domain and a name; a name without a domain is of the driver's own."""
    domain, name = key
    found = (table or {}).get(f"{domain}/{name}")
    return found if found is not None or domain != driver else (table or {}).get(name)

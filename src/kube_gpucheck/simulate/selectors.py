"""Label and field selectors as the API server reads them, its refusals in its own words.

Source: k8s.io/apimachinery/pkg/labels/selector.go and pkg/fields/selector.go for the two grammars,
k8s.io/kubernetes/pkg/apis/{core,batch,resource}/v1/conversion.go for the fields of each kind, and
apimachinery/pkg/runtime/conversion.go for the fields of every other kind, all at 1.36.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.errors import GpucheckError
from kube_gpucheck.evidence.documents import Requirement
from kube_gpucheck.evidence.scheduling import holds
from kube_gpucheck.simulate.fields import number, reach, text


class SelectorError(GpucheckError):
    """A selector is refused; the message is the API server's, which answers it with 400 BadRequest."""


class LabelSelector(msgspec.Struct, frozen=True):
    """All requirements must hold; none selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether an object with these labels is selected."""
        return all(holds(one, labels) for one in self.requirements)


class FieldTerm(msgspec.Struct, frozen=True):
    """One field, as a text, that must be equal to a value or must not."""

    field: str
    value: str
    equal: bool


class FieldSelector(msgspec.Struct, frozen=True):
    """All terms must hold; none selects everything."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Tell whether an object is selected."""
        return all((field_text(document, one.field) == one.value) is one.equal for one in self.terms)


# --- labels ------------------------------------------------------------------------------------

_BLANKS: Final = " \t\r\n"
_SYMBOLS: Final = "=!(),><"
_TOKEN: Final = re.compile(rf"[{_BLANKS}]*([{_SYMBOLS}]|[^{_BLANKS}{_SYMBOLS}]+)")
_LONGEST_SYMBOLS: Final = ("==", "!=")
_OPERATORS: Final = {
    "in": "In",
    "=": "In",
    "==": "In",
    "!=": "NotIn",
    "notin": "NotIn",
    ">": "Gt",
    "<": "Lt",
}
_END: Final = ""
_OPERATORS_EXPECTED: Final = "in, notin, =, ==, !=, gt, lt"
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_LONGEST_NAME: Final = 63
_LONGEST_SUBDOMAIN: Final = 253


def parse_label_selector(selector: str) -> LabelSelector:
    """Return the selector that a text is.

    Raises:
        SelectorError: the API server would refuse it.
    """
    parser = _Labels(_words(selector.partition("\0")[0]))
    return LabelSelector(tuple(parser.requirements()))


def _words(selector: str) -> list[str]:
    """Return the words; `==` and `!=` are one each, and blanks part words and are none."""
    words: list[str] = []
    ends: list[int] = []
    for match in _TOKEN.finditer(selector):
        word = match[1]
        if words and ends[-1] == match.start(1) and words[-1] + word in _LONGEST_SYMBOLS:
            words[-1] += word
        else:
            words.append(word)
            ends.append(0)
        ends[-1] = match.end(1)
    return words


class _Labels:
    """Reads requirements from words, from left to right."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._place = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._next() != _END:
            if not (self._next() == "!" or _is_word(self._next())):
                raise SelectorError(f"found '{self._next()}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            word = self._take()
            if word == _END:
                break
            if word != ",":
                raise SelectorError(f"found '{word}', expected: ',' or 'end of string'")
            if not (self._next() == "!" or _is_word(self._next())):
                raise SelectorError(f"found '{self._next()}', expected: identifier after ','")
        return found

    def _next(self) -> str:
        return self._words[self._place] if self._place < len(self._words) else _END

    def _take(self) -> str:
        word = self._next()
        self._place += 1
        return word

    def _requirement(self) -> Requirement:
        word = self._take()
        absent = word == "!"
        if absent:
            word = self._take()
        if not _is_word(word):
            raise SelectorError(f"found '{word}', expected: identifier")
        key = word
        _check_key(key)
        if absent:
            return Requirement(key=key, operator="DoesNotExist")
        if self._next() in {_END, ","}:
            return Requirement(key=key, operator="Exists")
        word = self._take()
        if word not in _OPERATORS:
            raise SelectorError(f"found '{word}', expected: {_OPERATORS_EXPECTED}")
        operator = _OPERATORS[word]
        values = self._set() if word in {"in", "notin"} else (self._value(),)
        if operator in {"Gt", "Lt"} and not _INTEGER.fullmatch(values[0]):
            shown = f'values[0]: Invalid value: "{values[0]}"'
            raise SelectorError(f"{shown}: for 'Gt', 'Lt' operators, the value must be an integer")
        for place, value in enumerate(values):
            _check_value(key, value, place)
        return Requirement(key=key, operator=operator, values=values)

    def _value(self) -> str:
        if self._next() in {_END, ","}:
            return ""
        word = self._take()
        if not _is_word(word):
            raise SelectorError(f"found '{word}', expected: identifier")
        return word

    def _set(self) -> tuple[str, ...]:
        """Return the values between parentheses, sorted; between two commas stands the empty value."""
        word = self._take()
        if word != "(":
            raise SelectorError(f"found '{word}' expected: '('")
        if not (self._next() in {",", ")"} or _is_word(self._next())):
            raise SelectorError(f"found '{self._next()}', expected: ',', ')' or identifier")
        values: set[str] = set()
        value = ""
        while (word := self._take()) != ")":
            if word == ",":
                values.add(value)
                value = ""
            elif not _is_word(word):
                raise SelectorError(f"found '{word}', expected: ',', or identifier")
            else:
                value = word
                if self._next() not in {",", ")"}:
                    raise SelectorError(f"found '{self._next()}', expected: ',' or ')'")
        return tuple(sorted({*values, value}))


def _is_word(word: str) -> bool:
    return word != _END and word[0] not in _SYMBOLS


def _check_key(key: str) -> None:
    """Refuse a key that is no qualified name."""
    prefix, slash, name = key.rpartition("/")
    rule = (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    )
    wrong: list[str] = []
    if "/" in prefix:
        optional = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        wrong = ["a qualified name " + rule.removeprefix("name part ") + optional]
    else:
        if slash and not prefix:
            wrong.append("prefix part must be non-empty")
        elif slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= _LONGEST_SUBDOMAIN):
            wrong.append(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
                "'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
                "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            )
        if not name:
            wrong.append("name part must be non-empty")
        elif len(name) > _LONGEST_NAME:
            wrong.append(f"name part must be no more than {_LONGEST_NAME} bytes")
        if not _NAME.fullmatch(name):
            wrong.append(rule)
    if wrong:
        raise SelectorError(f'<nil>: Invalid value: "{key}": {"; ".join(wrong)}')


def _check_value(key: str, value: str, place: int) -> None:
    """Refuse a value that no label can have."""
    wrong: list[str] = []
    if len(value) > _LONGEST_NAME:
        wrong.append(f"must be no more than {_LONGEST_NAME} bytes")
    if value and not _NAME.fullmatch(value):
        wrong.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    if wrong:
        raise SelectorError(f'values[{place}][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')


# --- fields ------------------------------------------------------------------------------------

_FIELDS: Final[dict[str, frozenset[str]]] = {
    kind: frozenset(fields.split())
    for kind, fields in {
        "pods": (
            "metadata.name metadata.namespace spec.nodeName spec.restartPolicy spec.schedulerName "
            "spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs "
            "status.nominatedNodeName"
        ),
        "nodes": "metadata.name spec.unschedulable",
        "namespaces": "metadata.name status.phase",
        "services": "metadata.name metadata.namespace spec.clusterIP spec.type",
        "secrets": "metadata.name metadata.namespace type",
        "replicationcontrollers": "metadata.name metadata.namespace status.replicas",
        "events": (
            "metadata.name metadata.namespace involvedObject.kind involvedObject.namespace involvedObject.name "
            "involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath "
            "reason reportingComponent source type"
        ),
        "events.events.k8s.io": (
            "metadata.name metadata.namespace regarding.kind regarding.namespace regarding.name regarding.uid "
            "regarding.apiVersion regarding.resourceVersion regarding.fieldPath reason reportingController type"
        ),
        "jobs.batch": "metadata.name metadata.namespace status.successful",
        "resourceslices.resource.k8s.io": "metadata.name spec.nodeName spec.driver",
    }.items()
}
"""The fields that lists of a kind (`<plural>[.<group>]`) can be selected by."""
_FIELDS_OF_OTHERS: Final = frozenset({"metadata.name", "metadata.namespace"})
_OLD_NAMES: Final = {("pods", "spec.host"): "spec.nodeName"}
_FIELD_OPERATOR: Final = re.compile("!=|==|=")
_ESCAPED: Final = frozenset("\\,=")


def parse_field_selector(selector: str, *, kind: str) -> FieldSelector:
    r"""Return the selector that a text is, for lists of a kind (`<plural>[.<group>]`).

    In values `,`, `=` and `\` stand behind a backslash.

    Raises:
        SelectorError: the API server would refuse it.
    """
    terms: list[FieldTerm] = []
    for part in _field_parts(selector):
        operator = _FIELD_OPERATOR.search(part)
        if operator is None:
            raise SelectorError(f"invalid selector: '{selector}'; can't understand '{part}'")
        field = part[: operator.start()]
        field = _OLD_NAMES.get((kind, field), field)
        _check_field(field, kind)
        terms.append(FieldTerm(field, _unescaped(part[operator.end() :]), operator[0] != "!="))
    return FieldSelector(tuple(terms))


def _field_parts(selector: str) -> list[str]:
    """Return what stands between commas that no backslash precedes, without what is empty."""
    parts = [""]
    characters = iter(selector)
    for character in characters:
        if character == ",":
            parts.append("")
        else:
            parts[-1] += character + (next(characters, "") if character == "\\" else "")
    return [part for part in parts if part]


def _unescaped(value: str) -> str:
    plain: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if following not in _ESCAPED:
                raise SelectorError(f"invalid field selector: invalid escape sequence: {character}{following}")
            plain.append(following)
        elif character in _ESCAPED:
            raise SelectorError(f"invalid field selector: unescaped character in value: {character}")
        else:
            plain.append(character)
    return "".join(plain)


def _check_field(field: str, kind: str) -> None:
    known = _FIELDS.get(kind)
    if known is not None and field not in known:
        raise SelectorError(f"field label not supported: {field}")
    if known is None and field not in _FIELDS_OF_OTHERS:
        raise SelectorError(f'{field} is not a known field selector: only "metadata.name", "metadata.namespace"')


def field_text(document: Mapping[str, Any], field: str) -> str:
    """Return a field as the text that a selector compares; what the object does not say is the API's zero value."""
    match field:
        case "spec.unschedulable" | "spec.hostNetwork":
            return "true" if reach(document, field) is True else "false"
        case "status.successful":
            return str(number(document, "status.succeeded"))
        case "status.replicas":
            return str(number(document, field))
        case "source":
            return text(document, "source.component") or text(document, "reportingComponent")
        case "status.podIPs":
            return text(document, "status.podIP")
        case _:
            return text(document, field)

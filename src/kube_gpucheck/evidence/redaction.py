"""Replaces credentials in what is written to a bundle: tokens, passwords, private keys; names and addresses stay.

Knows what a credential looks like, and the names that people give to one. It cannot know every one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.items import UNREADABLE, CommonItem, Item, encode_item

MARK: Final = "[redacted]"
"""What stands where a credential stood."""

_NAMES: Final = r"(?:password|passwd|passphrase|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"

_NAMED: Final = re.compile(rf"{_NAMES}$|{_NAMES}[_-]?(?:id|value|data)?$", re.IGNORECASE)
"""A variable or option that holds a credential: its name ends so."""

_NOT_SECRET: Final = re.compile(r"(?:^|[_-])(?:file|path|dir|name|ttl|enabled?|expiration\w*)$", re.IGNORECASE)

_TEXTS: Final = (
    (re.compile(r"-----BEGIN ([A-Z ]{0,40})PRIVATE KEY-----[^-]*-----END [A-Z ]{0,40}PRIVATE KEY-----"), MARK),
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"), MARK),
    (re.compile(r"\b(bearer[ \t]{1,4})[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"\b(authorization: basic[ \t]{1,4})[A-Za-z0-9+/=]{8,}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"(?<![A-Za-z0-9])nvapi-[A-Za-z0-9_-]{20,}"), MARK),
    (re.compile(r"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"), MARK),
    (re.compile(r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{30,}"), MARK),
    (re.compile(r"(://[^\s/:@\"']{1,100}:)[^\s/@\"']{1,200}(@)"), rf"\1{MARK}\2"),
    (
        re.compile(rf"({_NAMES}=)(?!\[redacted\]|[\s\"',;&)}}\]])[^\s\"',;&)}}\]\\]+", re.IGNORECASE),
        rf"\1{MARK}",
    ),
    (re.compile(rf"({_NAMES}\"\s{{0,4}}:\s{{0,4}}\")(?!\[redacted\])[^\"\\]{{4,}}", re.IGNORECASE), rf"\1{MARK}"),
)


_SIGNS: Final = (
    "-----begin",
    "eyj",
    "bearer",
    "basic",
    "nvapi-",
    "akia",
    *(f"gh{one}_" for one in "pousr"),
    "@",
    "pass",
    "token",
    "secret",
    "key",
    "credential",
)
"""No pattern matches a text, in lower case, that holds none of these: a fast way past nearly every text."""
_SIGNS_IN_BYTES: Final = tuple(sign.encode() for sign in _SIGNS)
"""The same in JSON, in which Go escapes neither letters nor any of these signs (encoding/json, HTMLEscape)."""


class _Variable(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    value: str | None = None


class _Container(msgspec.Struct, frozen=True, gc=False):
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[_Variable, ...] | None = None


class _Containers(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    containers: tuple[_Container, ...] | None = None
    init_containers: tuple[_Container, ...] | None = None
    ephemeral_containers: tuple[_Container, ...] | None = None


class _Said(msgspec.Struct, frozen=True, gc=False):
    message: str = ""


class _States(msgspec.Struct, frozen=True, gc=False):
    waiting: _Said | None = None
    terminated: _Said | None = None


class _ContainerStatus(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    state: _States | None = None
    last_state: _States | None = None


class _Status(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    message: str = ""
    conditions: tuple[_Said, ...] | None = None
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    init_container_statuses: tuple[_ContainerStatus, ...] | None = None


_SPEC: Final = msgspec.json.Decoder(_Containers)
_STATUS: Final = msgspec.json.Decoder(_Status)
_LONG_LISTS: Final = frozenset(
    {
        "leases.coordination.k8s.io",
        "nodefeatures.nfd.k8s-sigs.io",
        "nodes",
        "pods",
        "resourceslices.resource.k8s.io",
    }
)
"""Kinds of which there is at least one a node: credentials are looked for where people write freely (environment,
arguments, annotations) and in what is said of failures. In every other kind each text is looked at."""
_MOST_REMEMBERED: Final = 20_000
_EMPTY: Final = msgspec.Raw(b"{}")


class Redactor:
    """Replaces credentials, and counts them by the bundle's file."""

    def __init__(self) -> None:
        """Start with nothing replaced."""
        self._found: dict[str, int] = {}
        self._clean: set[_Containers | _Status] = set()

    def counts(self) -> Mapping[str, str]:
        """Return how many credentials were replaced in each file of the bundle."""
        return {path: f"{count} credential{'s' if count > 1 else ''}" for path, count in sorted(self._found.items())}

    def content(self, path: str, content: bytes) -> bytes:
        """Return a file's content without credentials; one without any is returned byte for byte."""
        text = content.decode("utf-8", "surrogateescape")
        clean = self._text(path, text)
        return content if clean == text else clean.encode("utf-8", "surrogateescape")

    def item(self, path: str, kind: str, item: Item) -> bytes:
        """Return an object as JSON, without credentials; one without any is returned byte for byte."""
        line = encode_item(item)
        if kind in _LONG_LISTS and isinstance(item, CommonItem) and self._is_clean(item):
            return line
        return self.raw_item(path, line)

    def raw_item(self, path: str, line: bytes) -> bytes:
        """Return an object's JSON without credentials, whatever its form."""
        if not _may_hold(line):
            return line
        try:
            value = msgspec.json.decode(line)
        except UNREADABLE:
            return self.content(path, line)
        before = self._found.get(path, 0)
        clean = self.document(path, value)
        return line if self._found.get(path, 0) == before else msgspec.json.encode(clean)

    def _is_clean(self, item: CommonItem) -> bool:
        """Tell whether the places in which people write freely hold no credential."""
        annotations = bytes(item.metadata.get("annotations", _EMPTY))
        try:
            if _may_hold(annotations) and _holds(msgspec.json.decode(annotations)):
                return False
            if isinstance(item.spec, msgspec.Raw) and not self._is_known(_SPEC.decode(item.spec)):
                return False
            if isinstance(item.status, msgspec.Raw) and b'"message"' in bytes(item.status):
                return self._is_known(_STATUS.decode(item.status))
        except UNREADABLE:
            return False
        return True

    def _is_known(self, part: _Containers | _Status) -> bool:
        """Tell whether a part holds no credential; parts are often alike, so that one is looked at only once."""
        if part in self._clean:
            return True
        if _holds(msgspec.json.decode(msgspec.json.encode(part))):
            return False
        if len(self._clean) >= _MOST_REMEMBERED:
            self._clean.clear()
        self._clean.add(part)
        return True

    def document(self, path: str, value: Any) -> Any:  # noqa: ANN401  decoded JSON
        """Return a decoded document without credentials in variables, arguments, annotations and other texts."""
        match value:
            case str():
                return self._text(path, value)
            case list():
                return self._list(path, value)
            case dict():
                named = value.get("name")
                if (
                    isinstance(named, str)
                    and isinstance(value.get("value"), str)
                    and value["value"]
                    and self._secret(named)
                ):
                    self._count(path)
                    value = {**value, "value": MARK}
                return {key: self.document(path, one) for key, one in value.items()}
            case _:
                return value

    def _list(self, path: str, values: list[Any]) -> list[Any]:
        """Return a list without credentials; a text behind an option that names one is one (`--token x`)."""
        clean: list[Any] = []
        for place, value in enumerate(values):
            before = values[place - 1] if place else None
            option = isinstance(before, str) and before.startswith("-") and "=" not in before and self._secret(before)
            if option and isinstance(value, str) and value and not value.startswith("-"):
                self._count(path)
                clean.append(MARK)
            else:
                clean.append(self.document(path, value))
        return clean

    def _secret(self, name: str) -> bool:
        return len(name) < 200 and _NAMED.search(name) is not None and _NOT_SECRET.search(name) is None  # noqa: PLR2004  a variable's name is shorter

    def _text(self, path: str, text: str) -> str:
        low = text.lower()
        if not any(sign in low for sign in _SIGNS):
            return text
        for pattern, put in _TEXTS:
            text, count = pattern.subn(put, text)
            if count:
                self._count(path, count)
        return text

    def _count(self, path: str, count: int = 1) -> None:
        self._found[path] = self._found.get(path, 0) + count


def _may_hold(content: bytes) -> bool:
    """Tell whether JSON has any sign of a credential."""
    low = content.lower()
    for sign in _SIGNS_IN_BYTES:  # noqa: SIM110  a generator takes three times as long, for every object
        if sign in low:
            return True
    return False


def _holds(value: Any) -> bool:  # noqa: ANN401  decoded JSON
    """Tell whether a decoded document holds a credential."""
    redactor = Redactor()
    redactor.document("", value)
    return bool(redactor.counts())

"""Replaces credentials in what is imported: tokens, passwords, private keys; names and addresses stay.

Knows what a credential looks like, and the names that people give to one. It cannot know every one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

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


class Redactor:
    """Replaces credentials, and counts them by the bundle's file."""

    def __init__(self) -> None:
        """Start with nothing replaced."""
        self._found: dict[str, int] = {}

    def counts(self) -> Mapping[str, str]:
        """Return how many credentials were replaced in each file of the bundle."""
        return {path: f"{count} credential{'s' if count > 1 else ''}" for path, count in sorted(self._found.items())}

    def content(self, path: str, content: bytes) -> bytes:
        """Return a file's content without credentials; one without any is returned byte for byte."""
        text = content.decode("utf-8", "surrogateescape")
        clean = self._text(path, text)
        return content if clean == text else clean.encode("utf-8", "surrogateescape")

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
        for pattern, put in _TEXTS:
            text, count = pattern.subn(put, text)
            if count:
                self._count(path, count)
        return text

    def _count(self, path: str, count: int = 1) -> None:
        self._found[path] = self._found.get(path, 0) + count

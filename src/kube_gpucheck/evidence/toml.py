"""TOML as engines and toolkit write it: its tables, the line of each key, and the shapes that files must have.

Knows nothing of what the keys mean.
"""

import functools
import re
import sys
from collections.abc import Mapping
from typing import Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_TEXT: Final = 8 * 1024 * 1024
"""The longest configuration that is parsed; a real one has some kilobytes."""

_HEADER: Final = re.compile(r"\s*\[([^\[\]#]{1,400})\]\s*(?:#.*)?")


class ConfigurationError(ValueError):
    """A configuration cannot be read. Becomes `Missing`, or the reason why its reader refuses it."""


class UndecidedError(ConfigurationError):
    """What a configuration means to its reader depends on what is not known. Becomes `Missing`."""


@functools.lru_cache(maxsize=128)  # a fleet's nodes share their files: 1,000 nodes, 0.1 s instead of 2.5 s
def load_toml(path: str, text: str) -> Mapping[str, object]:
    """Return a TOML document as tables, which nobody may change: equal texts share them.

    Raises:
        ConfigurationError: it is no TOML.
        UndecidedError: it is longer than any real one, or only a strict reader refuses it.
    """
    if len(text) > MAX_TEXT:
        msg = f"{path}: {len(text)} characters, more than the {MAX_TEXT} that are read"
        raise UndecidedError(msg)
    try:
        data: dict[str, object] = tomllib.loads(text.removeprefix("\ufeff"))  # a byte order mark: engines pass over it
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{path}: {error}"
        twice = _table_in_two_spellings(text)
        if twice is not None:
            msg = f"{path}:{twice}: a table stands here once more in another spelling, which some readers take for one"
            raise UndecidedError(msg) from error
        raise ConfigurationError(msg) from error
    return data


def _table_in_two_spellings(text: str) -> int | None:
    """Return the line of a header whose table has one before it that is spelled otherwise, None if there is none."""
    headers: dict[tuple[str, ...], str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = _HEADER.fullmatch(line)
        try:
            key = () if found is None else _key_in(found[1])
        except tomllib.TOMLDecodeError:
            continue
        if found is not None and headers.setdefault(key, found[1]) != found[1]:
            return number
    return None


def line_of(text: str, key: tuple[str, ...]) -> int | None:
    """Return the line on which a key is written, counted from 1; of a key in an inline table, that of the table.

    None where neither it nor a table around it is written in that document, which must be one that parses.
    """
    lines = _lines_of(text)
    return next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), None)


@functools.lru_cache(maxsize=64)
def _lines_of(text: str) -> Mapping[tuple[str, ...], int]:
    """Return the line of each key and table. The values are passed over, so that only keys are parsed twice."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    place, line = len(text) - len(text.removeprefix("\ufeff")), 1
    while place < len(text):
        sign = text[place]
        if sign in " \t\r\n":
            place, line = place + 1, line + (sign == "\n")
        elif sign == "#":
            place = _end_of_line(text, place)
        elif sign == "[":
            end = _end_of_key(text, place, "]")
            table = _key_in(text[place:end].strip("[ \t"))
            for depth in range(1, len(table) + 1):
                found.setdefault(table[:depth], line)
            place = _end_of_line(text, end)
        else:
            end = _end_of_key(text, place, "=")
            key = (*table, *_key_in(text[place:end]))
            for depth in range(len(table) + 1, len(key) + 1):
                found.setdefault(key[:depth], line)
            place = _end_of_value(text, end + 1)
            line += text.count("\n", end, place)
    return found


def _key_in(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, quoted or bare, as TOML reads them."""
    parts: list[str] = []
    inner: object = tomllib.loads(f"{text} = 0")
    while isinstance(inner, dict):
        name, inner = next(iter(inner.items()))
        parts.append(name)
    return tuple(parts)


def _end_of_key(text: str, place: int, mark: str) -> int:
    """Return where the mark after a key stands, which may itself be in the key's quotes."""
    while text[place] != mark:
        place = _end_of_string(text, place) if text[place] in "\"'" else place + 1
    return place


def _end_of_value(text: str, place: int) -> int:
    """Return where the line of a value ends, which may lie below the one on which it begins."""
    depth = 0
    while place < len(text):
        sign = text[place]
        if sign in "\"'":
            place = _end_of_string(text, place)
        elif sign == "#":
            place = _end_of_line(text, place)
        elif sign == "\n" and depth == 0:
            break
        else:
            depth += (sign in "[{") - (sign in "]}")
            place += 1
    return place


def _end_of_string(text: str, place: int) -> int:
    quote = text[place]
    fence = quote * 3 if text.startswith(quote * 3, place) else quote
    place += len(fence)
    while not text.startswith(fence, place):
        place += 2 if quote == '"' and text[place] == "\\" else 1
    place += len(fence)
    while len(fence) == 3 and text.startswith(quote, place):  # noqa: PLR2004  a fence may follow quotes of the text
        place += 1
    return place


def _end_of_line(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def as_table(value: object, where: str) -> Mapping[str, object]:
    """Return a table, empty where there is none.

    Raises:
        ConfigurationError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        msg = f"{where}: {type(value).__name__}, expected a table"
        raise ConfigurationError(msg)
    return value


def strings(value: object, where: str) -> tuple[str, ...]:
    """Return a list of strings, empty where there is none.

    Raises:
        ConfigurationError: it is something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        msg = f"{where}: {type(value).__name__}, expected a list of strings"
        raise ConfigurationError(msg)
    return tuple(value)


def text_of(section: Mapping[str, object], key: str, path: str) -> str | None:
    """Return a key's text, None where it is not there or empty.

    Raises:
        ConfigurationError: it is something else.
    """
    value = section.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        msg = f"{path}: '{key}' is {value!r}, expected a string"
        raise ConfigurationError(msg)
    return value

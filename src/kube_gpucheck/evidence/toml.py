"""TOML as engines and toolkit write it, and the shapes that their files must have.

Knows nothing of what the keys mean.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_TEXT: Final = 8 * 1024 * 1024
"""The longest configuration that is parsed; a real one has some kilobytes."""


class ConfigurationError(ValueError):
    """A configuration cannot be read, or its meaning depends on what is not known. Becomes `Missing`."""


@functools.lru_cache(maxsize=128)  # a fleet's nodes share their files: 1,000 nodes, 0.1 s instead of 2.5 s
def load_toml(path: str, text: str) -> Mapping[str, object]:
    """Return a TOML document as tables, which nobody may change: equal texts share them.

    Raises:
        ConfigurationError: it is no TOML, or longer than any real one.
    """
    if len(text) > MAX_TEXT:
        msg = f"{path}: {len(text)} characters, more than the {MAX_TEXT} that are read"
        raise ConfigurationError(msg)
    try:
        data: dict[str, object] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{path}: {error}"
        raise ConfigurationError(msg) from error
    return data


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

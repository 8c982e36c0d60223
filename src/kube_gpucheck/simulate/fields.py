"""Fields of an object's decoded JSON, which may be anything: what has another type than it ought to is not there."""

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec


def reach(document: object, path: str) -> Any:  # noqa: ANN401  whatever stands there
    """Return what stands at a path of names (`status.phase`), None if nothing does."""
    found = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def text(document: object, path: str, default: str = "") -> str:
    """Return a text; the default if there is none or it is empty."""
    found = reach(document, path)
    return found if isinstance(found, str) and found else default


def number(document: object, path: str) -> int:
    """Return a whole number, 0 if there is none."""
    found = reach(document, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def entries(document: object, path: str) -> list[dict[str, Any]]:
    """Return the objects of a list, in order."""
    found = reach(document, path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def texts(document: object, path: str) -> list[str]:
    """Return the texts of a list, in order."""
    found = reach(document, path)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def pairs(document: object, path: str) -> dict[str, str]:
    """Return a mapping of texts to texts."""
    found = reach(document, path)
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def moment(document: object, path: str) -> datetime.datetime | None:
    """Return a time, None if there is none."""
    try:
        found = msgspec.convert(reach(document, path), datetime.datetime)
    except msgspec.ValidationError:
        return None
    return found if found.tzinfo is not None else None

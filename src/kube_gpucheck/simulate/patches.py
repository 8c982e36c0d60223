"""Patches of objects: JSON merge patch, JSON patch, and the strategic merge patch of kubectl for built-in kinds.

Sources: RFC 7386; RFC 6902; k8s.io/community contributors/devel/sig-api-machinery/strategic-merge-patch.md, and the
`patchMergeKey` tags in k8s.io/api at 1.36.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.answers import RefusedError, bad_request
from kube_gpucheck.simulate.scenario import merge

MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"

_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""By the field's name, the key by which a list's entries are one and the same. Every other list is replaced."""
_UNITED: Final = frozenset({"finalizers"})
"""Lists of plain values that are united."""
_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"


def patched(document: Mapping[str, Any], content_type: str, body: bytes) -> dict[str, Any]:
    """Return an object as a patch leaves it; the object itself stays.

    Raises:
        RefusedError: 400, the patch is none; 415, its form is not known; 422, it cannot be applied.
    """
    form = content_type.partition(";")[0].strip()
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"error decoding patch: {error}") from error
    result: Any
    match form:
        case "application/merge-patch+json" if isinstance(patch, dict):
            result = merge(copy.deepcopy(dict(document)), patch)
        case "application/strategic-merge-patch+json" if isinstance(patch, dict):
            result = _merged(copy.deepcopy(dict(document)), patch)
        case "application/json-patch+json" if isinstance(patch, list):
            result = copy.deepcopy(dict(document))
            for operation in patch:
                result = _operated(result, operation)
        case "application/merge-patch+json" | "application/strategic-merge-patch+json" | "application/json-patch+json":
            raise bad_request(f"error decoding patch: {type(patch).__name__} is no {form}")
        case _:
            known = f"{JSON_PATCH}, {MERGE}, {STRATEGIC}"
            raise RefusedError(
                415,
                "UnsupportedMediaType",
                f"the body of the request was in an unknown format - accepted media types include: {known}",
            )
    if not isinstance(result, dict):
        raise RefusedError(422, "Invalid", "the patch leaves no object")
    return result


# --- strategic ---------------------------------------------------------------------------------


def _merged(document: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    retained = patch.get(_RETAIN)
    if isinstance(retained, list):
        document = {key: value for key, value in document.items() if key in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            name = key.removeprefix(_DELETE_FROM)
            document[name] = [one for one in document.get(name) or () if one not in value]
        elif key.startswith("$"):
            continue  # the order of entries is kept as it is
        elif value is None:
            document.pop(key, None)
        elif isinstance(value, dict):
            old = document.get(key)
            document[key] = _merged(dict(old) if isinstance(old, dict) else {}, value)
        elif isinstance(value, list):
            document[key] = _merged_list(key, document.get(key), value)
        else:
            document[key] = value
    return document


def _merged_list(field: str, old: object, new: list[Any]) -> list[Any]:
    before = list(old) if isinstance(old, list) else []
    if field in _UNITED:
        return [*before, *(one for one in new if one not in before)]
    if any(isinstance(one, dict) and one.get(_PATCH) == "replace" for one in new):
        return [one for one in new if not (isinstance(one, dict) and _PATCH in one)]
    key = next((name for name in _MERGE_KEYS.get(field, ()) if any(_has(one, name) for one in (*new, *before))), None)
    if key is None or not all(_has(one, key) for one in (*before, *new)):
        return new
    for one in new:
        place = next((at for at, other in enumerate(before) if other[key] == one[key]), None)
        if one.get(_PATCH) == "delete":
            before = [other for other in before if other[key] != one[key]]
        elif place is None:
            before.append(_merged({}, one))
        else:
            before[place] = _merged(before[place], one)
    return before


def _has(entry: object, key: str) -> bool:
    return isinstance(entry, dict) and key in entry


# --- RFC 6902 ----------------------------------------------------------------------------------


def _operated(document: Any, operation: object) -> Any:  # noqa: ANN401  decoded JSON
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise bad_request(f"error decoding patch: {operation!r:.80} is no operation")
    path = operation["path"]
    match operation.get("op"):
        case "add":
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=True)
        case "replace":
            _take(document, path, remove=False)
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=False)
        case "remove":
            _take(document, path, remove=True)
            return document
        case "move" | "copy" as op:
            value = copy.deepcopy(_take(document, str(operation.get("from")), remove=op == "move"))
            return _put(document, path, value, insert=True)
        case "test":
            if _take(document, path, remove=False) != operation.get("value"):
                raise _unprocessable(f"testing value {path} failed")
            return document
        case other:
            raise bad_request(f"error decoding patch: there is no operation {other!r:.40}")


def _unprocessable(what: str) -> RefusedError:
    return RefusedError(422, "Invalid", f"the server rejected our request due to an error in our request: {what}")


def _parts(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise _unprocessable(f"'{path}' is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _holder(document: Any, parts: list[str]) -> Any:  # noqa: ANN401  decoded JSON
    for part in parts[:-1]:
        document = _at(document, part)
    return document


def _at(holder: Any, part: str) -> Any:  # noqa: ANN401  decoded JSON
    if isinstance(holder, dict) and part in holder:
        return holder[part]
    if isinstance(holder, list) and part.isdecimal() and int(part) < len(holder):
        return holder[int(part)]
    raise _unprocessable(f"there is nothing at '{part}'")


def _take(document: Any, path: str, *, remove: bool) -> Any:  # noqa: ANN401  decoded JSON
    parts = _parts(path)
    if not parts:
        return document
    holder = _holder(document, parts)
    value = _at(holder, parts[-1])
    if remove:
        del holder[int(parts[-1]) if isinstance(holder, list) else parts[-1]]
    return value


def _put(document: Any, path: str, value: Any, *, insert: bool) -> Any:  # noqa: ANN401  decoded JSON
    parts = _parts(path)
    if not parts:
        return value
    holder = _holder(document, parts)
    last = parts[-1]
    match holder:
        case dict():
            holder[last] = value
        case list() if last == "-" and insert:
            holder.append(value)
        case list() if last.isdecimal() and int(last) < len(holder) + insert:
            holder[int(last) : int(last) + (not insert)] = [value]
        case _:
            raise _unprocessable(f"nothing can be put at '{path}'")
    return document

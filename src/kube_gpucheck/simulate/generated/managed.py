"""Writes `metadata.managedFields` as a server-side field manager would: the paths of what it set.

Source: structured-merge-diff's fieldpath serialisation ("f:" a field, "k:" an associative list's key,
"v:" a set's value, "." the object itself).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = dict[str, Any]
_ATOMIC: Final = frozenset(
    {
        "affinity",
        "args",
        "command",
        "env",
        "images",
        "livenessProbe",
        "readinessProbe",
        "resources",
        "tolerations",
        "volumeMounts",
        "volumes",
    }
)
"""Not followed further: some are atomic upstream, the others would double a pod's size."""
_KEYS: Final = ("name", "type", "containerPort", "mountPath", "uid", "ip")


def owned(value: object, name: str = "") -> Json:
    """Return the field set of a value: every field in it, lists by their merge key where they have one."""
    if name in _ATOMIC:
        return {}
    if isinstance(value, Mapping):
        return {f"f:{key}": owned(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return _listed(value)
    return {}


def _listed(items: Iterable[object]) -> Json:
    found: Json = {}
    for item in items:
        if not isinstance(item, Mapping):
            continue
        key = next((name for name in _KEYS if name in item), None)
        if key is not None:
            found["k:" + json.dumps({key: item[key]}, separators=(",", ":"))] = {".": {}, **owned(item)}
    return found


def entry(manager: str, version: str, time: str, fields: Json, *, subresource: str = "") -> Json:
    """Return one entry of managedFields, an update."""
    found: Json = {
        "apiVersion": version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        "manager": manager,
        "operation": "Update",
        "time": time,
    }
    return {**found, "subresource": subresource} if subresource else found

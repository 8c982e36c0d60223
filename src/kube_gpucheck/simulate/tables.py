"""Lists as `Table` (meta.k8s.io/v1): the form in which `kubectl get` asks for them.

Source: Kubernetes documentation, "Kubernetes API Concepts: receiving resources as tables";
k8s.io/apiserver/pkg/endpoints/handlers/response.go at 1.36.
"""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.fields import reach, text
from kube_gpucheck.simulate.printers import printer_of

VERSIONS: Final = frozenset({"v1", "v1beta1"})
INCLUDES: Final = frozenset({"", "None", "Metadata", "Object"})
_ENDED: Final = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def table_version(accept: str) -> str | None:
    """Return the version of Table that an Accept header prefers, None if it prefers another form."""
    for offer in accept.split(","):
        kind, *rest = (part.strip() for part in offer.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        if kind not in {"application/json", "*/*", "application/*"}:
            continue
        if parameters.get("as") == "Table" and parameters.get("g") == "meta.k8s.io":
            if parameters.get("v") in VERSIONS:
                return parameters["v"]
        elif "as" not in parameters:
            return None
    return None


def content_type(version: str) -> str:
    """Return the content type of a Table."""
    return f"application/json;as=Table;g=meta.k8s.io;v={version}"


def table(
    kind: str,
    documents: Iterable[Mapping[str, Any]],
    *,
    now: datetime.datetime,
    version: str = "v1",
    include: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return objects of a kind (`<plural>[.<group>]`) as a Table.

    Args:
        kind: whose columns there are.
        documents: the objects, decoded.
        now: the time from which ages are counted.
        version: `v1` or `v1beta1`.
        include: what each row carries of its object: `None`, `Metadata` (also where it is empty) or `Object`.
        metadata: the list's own (`resourceVersion`, `continue`, `remainingItemCount`).
    """
    printer = printer_of(kind)
    group_version = f"meta.k8s.io/{version}"
    return {
        "kind": "Table",
        "apiVersion": group_version,
        "metadata": dict(metadata or {}),
        "columnDefinitions": msgspec.to_builtins(printer.columns),
        "rows": [
            {
                "cells": printer.cells(one, now),
                **_conditions(kind, one),
                "object": _carried(one, include, group_version),
            }
            for one in documents
        ],
    }


def _carried(document: Mapping[str, Any], include: str, group_version: str) -> Any:  # noqa: ANN401  an object or null
    match include:
        case "None":
            return None
        case "Object":
            return document
        case _:
            metadata = reach(document, "metadata")
            return {"kind": "PartialObjectMetadata", "apiVersion": group_version, "metadata": metadata or {}}


def _conditions(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    phase = text(document, "status.phase") if kind == "pods" else ""
    if phase not in _ENDED:
        return {}
    return {"conditions": [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDED[phase]}]}

"""What is taken out of every object before a bundle is written: a fixed list, the same for every source.

No check reads any of it: who wrote which field, a copy of the object as it was applied, and the names of
images beyond the GPU stack's on a node that lists more of them than kubelets do by themselves.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.items import UNREADABLE, Item

PRUNED: Final = (
    "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
    "metadata.managedFields",
    "status.images",
)
"""What `bundle.json` says of it, in every bundle, whether or not an object had any of it."""

MAX_NODE_IMAGES: Final = 50
"""A node's list of images that is longer is cut to the GPU stack's. Kubelets list 50 (`nodeStatusMaxImages`)."""

_MANAGED: Final = "managedFields"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_STACK_IMAGE: Final = re.compile(r"nvidia|cuda|gpu|dcgm|nfd|node-feature|cloud-native", re.IGNORECASE)

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode


def prune(kind: str, item: Item) -> None:
    """Take out of an object what the list names."""
    item.metadata.pop(_MANAGED, None)
    annotations = item.metadata.get("annotations")
    if annotations is not None and _LAST_APPLIED.encode() in bytes(annotations):
        item.metadata["annotations"] = _without_last_applied(annotations)
    if kind == "nodes" and isinstance(item.status, msgspec.Raw):
        item.status = _with_few_images(item.status)


def prune_object(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decoded object without what the list names."""
    pruned = dict(item)
    metadata = item.get("metadata")
    if isinstance(metadata, dict):
        pruned["metadata"] = kept = {key: value for key, value in metadata.items() if key != _MANAGED}
        annotations = kept.get("annotations")
        if isinstance(annotations, dict):
            kept["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    status = item.get("status")
    images = status.get("images") if isinstance(status, dict) else None
    if kind == "nodes" and isinstance(status, dict) and isinstance(images, list) and len(images) > MAX_NODE_IMAGES:
        stack = [image for image in images if _STACK_IMAGE.search(str(image))]
        pruned["status"] = {**status, "images": stack or images[:1]}
    return pruned


def _without_last_applied(raw: msgspec.Raw) -> msgspec.Raw:
    try:
        annotations = _MEMBERS.decode(raw)
    except UNREADABLE:
        return raw  # malformed: whoever reads the object says so
    annotations.pop(_LAST_APPLIED, None)
    return msgspec.Raw(_encode(annotations))


def _with_few_images(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a node's status with at least one of its images: that it lists any is a sign of life."""
    try:
        status = _MEMBERS.decode(raw)
        images = _LIST.decode(status.get("images", b"[]"))
    except UNREADABLE:
        return raw
    if len(images) <= MAX_NODE_IMAGES:
        return raw
    stack = [one for one in images if _STACK_IMAGE.search(bytes(one).decode("utf-8", "replace"))]
    status["images"] = msgspec.Raw(_encode(stack or images[:1]))
    return msgspec.Raw(_encode(status))

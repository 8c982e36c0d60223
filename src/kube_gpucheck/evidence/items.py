"""An object of the API in its raw parts, so that one part can be looked at or replaced without decoding the rest.

Nearly every object is metadata, spec and status; those are split in the same pass as the page that they came in.
Any other takes a second pass. Both are written again byte for byte, but for what was replaced.
"""

from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises on what is no JSON, or is of another form."""

_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


class CommonItem(
    msgspec.Struct,
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
    rename={"api_version": "apiVersion"},
):
    """An object of the common form. `metadata` is split once more."""

    metadata: dict[str, Raw]
    api_version: Raw | UnsetType = UNSET
    kind: Raw | UnsetType = UNSET
    spec: Raw | UnsetType = UNSET
    status: Raw | UnsetType = UNSET


class OtherItem:
    """An object of any other form."""

    def __init__(self, content: Raw) -> None:
        """Split an object.

        Raises:
            msgspec.MsgspecError: it is no object, or its metadata is none.
        """
        self.members = _MEMBERS.decode(content)
        self.metadata = _MEMBERS.decode(self.members.get("metadata", b"{}"))
        self.spec = self.members.get("spec", UNSET)
        self.status = self.members.get("status", UNSET)


Item: TypeAlias = CommonItem | OtherItem


def encode_item(item: Item) -> bytes:
    """Return the object as JSON."""
    if isinstance(item, CommonItem):
        return _encode(item)
    members = dict(item.members)
    for name in ("metadata", "spec", "status"):
        if name in members:
            members[name] = Raw(_encode(getattr(item, name)))
    return _encode(members)

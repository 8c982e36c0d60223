"""Kubernetes lists on disk: read item by item where each stands on a line of its own, else as a whole.

A list of a live cluster is hundreds of megabytes, so a collector writes one item a line (docs/bundle.md), and
what is kept of it here is where each item begins. Knows nothing of what the items mean.
"""

import hashlib
import io
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, Final, cast, overload

import msgspec

from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

_HEAD_END: Final = b'"items":[\n'
_TAIL: Final = b"]}\n"
_LONGEST_LINE: Final = 2**26
"""Bytes of one item at most. etcd refuses an object beyond 1.5 MiB (`--max-request-bytes`)."""
_BLOCK: Final = 2**20
_WRONG: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ListRecord(msgspec.Struct, frozen=True):
    """A Kubernetes list, its items still raw."""

    items: Sequence[msgspec.Raw]


class WholeList(msgspec.Struct, frozen=True):
    """A list that is decoded as a whole."""

    items: tuple[msgspec.Raw, ...]


class BadItem(msgspec.Struct, frozen=True):
    """An item of a list that could not be decoded: its name if it has one, and why."""

    name: str
    namespace: str | None
    reason: str


class Items(msgspec.Struct, frozen=True):
    """A decoded list: what could be read, and what could not."""

    good: tuple[Any, ...]
    bad: tuple[BadItem, ...] = ()


class LineItems(Sequence[msgspec.Raw]):
    """The items of a list that is written one item a line; each is read from the file when it is looked at."""

    def __init__(self, stream: BinaryIO, places: "array[int]", sha256: str) -> None:
        """Keep the open file, and where each item begins and the last one ends. Closes the file when let go."""
        self.sha256 = sha256
        """Of the whole file, in hexadecimal."""
        self._stream = stream
        self._places = places
        weakref.finalize(self, stream.close)

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._places) - 1

    @overload
    def __getitem__(self, place: int) -> msgspec.Raw: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[msgspec.Raw]: ...
    def __getitem__(self, place: int | slice) -> msgspec.Raw | Sequence[msgspec.Raw]:
        """Read one item; a file that was cut meanwhile gives text that is no JSON."""
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        self._stream.seek(self._places[place])
        return self._item(place, self._stream.read(self._places[place + 1] - self._places[place]))

    def __iter__(self) -> Iterator[msgspec.Raw]:
        """Read all items in order, many at once."""
        place, places = 0, self._places
        while place < len(self):
            begin = places[place]
            after = place + 1
            while after < len(self) and places[after + 1] - begin <= _BLOCK:
                after += 1
            self._stream.seek(begin)
            block = self._stream.read(places[after] - begin)
            for one in range(place, after):
                yield self._item(one, block[places[one] - begin : places[one + 1] - begin])
            place = after

    def _item(self, place: int, line: bytes) -> msgspec.Raw:
        return msgspec.Raw(line[: -1 if place + 1 == len(self) else -2])  # all but the last end in a comma


def read_lines(stream: BinaryIO) -> LineItems | None:
    """Return the items of an open file if it is written one item a line, None if it is not, or is cut.

    The first line ends with `"items":[`, the last one is `]}`, and every item between them is followed by a comma
    but for the last. That each item is JSON is not looked at.
    """
    head = stream.readline(_BLOCK)
    if not head.endswith(_HEAD_END) or not _is_object(head + _TAIL):
        return None
    digest = hashlib.sha256(head)
    places = array("Q")
    here = len(head)
    more = True
    for line in iter(partial(stream.readline, _LONGEST_LINE), b""):
        digest.update(line)
        places.append(here)
        if line == _TAIL:
            whole = (not more or len(places) == 1) and not stream.read(1)
            return LineItems(_unbuffered(stream), places, digest.hexdigest()) if whole else None
        if not more or not line.startswith(b"{") or not line.endswith(b"\n"):
            return None
        here += len(line)
        more = line.endswith(b",\n")
    return None


def _unbuffered(stream: BinaryIO) -> BinaryIO:
    """Return the file beneath a buffer, which would read much more than the one item that is asked for."""
    return cast("BinaryIO", stream.detach()) if isinstance(stream, io.BufferedReader) else stream


def _is_object(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=WholeList)
    except _WRONG:
        return False
    return True


def whole_reason(items: Sequence[msgspec.Raw]) -> str | None:
    """Return why a list is not JSON, None if every item is."""
    if not isinstance(items, LineItems):
        return None
    return next((reason for raw in items if (reason := _not_json(raw)) is not None), None)


def decode_items(
    reading: Reading[ListRecord | None],
    form: type[Any],
    source: str = "",
    keep: Callable[[Any, int], Any] = lambda document, _: document,
) -> "Reading[Items | None]":
    """Decode a list item by item; a malformed item is kept by name and reason, and loses no other.

    What is not JSON loses the whole list, whose file is `source`. `keep` says what is kept of a document that was
    decoded from the given place of the list.
    """
    if isinstance(reading, Missing):
        return reading
    if reading.value is None:
        return Seen(None)
    decode = msgspec.json.Decoder(form).decode
    good: list[Any] = []
    bad: list[BadItem] = []
    for place, raw in enumerate(reading.value.items):
        try:
            good.append(keep(decode(raw), place))
        except _WRONG as error:
            reason = None if isinstance(error, msgspec.ValidationError) else _not_json(raw)
            if reason is not None:
                return Missing(MissingKind.UNPARSABLE, f"{source}: item {place}: {reason}", source)
            bad.append(_bad_item(raw, place, str(error)))
    return Seen(Items(tuple(good), tuple(bad)))


def _not_json(raw: msgspec.Raw) -> str | None:
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except _WRONG as error:
        return str(error)
    return None


class _NameOnly(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str | None = None


class _ItemName(msgspec.Struct, frozen=True):
    metadata: _NameOnly = _NameOnly()


def _bad_item(raw: msgspec.Raw, place: int, reason: str) -> BadItem:
    try:
        named = msgspec.json.decode(raw, type=_ItemName).metadata
    except _WRONG:
        named = _NameOnly()
    return BadItem(named.name or f"item {place}", named.namespace, reason)

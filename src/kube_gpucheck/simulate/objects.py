"""The objects that an embedded cluster holds, as bytes, by kind, in the bundle's order, and how they change.

A page of a list is a slice of bytes: nothing is decoded to serve it. Names, namespaces and labels are read when
a selector, a name or a namespace is first asked for. A deleted object leaves a hole, so that a position in
a `continue` token stays where it is; what was created after the list began is not on its later pages.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.answers import RefusedError, no_such_object
from kube_gpucheck.simulate.resources import Resource

FIRST_VERSION: Final = 1_000_000_000_000_000
"""The resourceVersion of what the bundle holds, later than any real one; what changes gets a later one."""
REMEMBERED_CHANGES: Final = 10_000
"""How many changes a watch can still be told of; one that began before them is told that it is too old."""

_OPENING: Final = b'"items":['
_COMMA: Final = ord(",")
_BRACE: Final = ord("{")
_CLOSING_BRACE: Final = ord("}")


class Meta(msgspec.Struct, frozen=True):
    """What is read of an object's metadata to find it."""

    name: str = ""
    namespace: str | None = None
    labels: Mapping[str, str] | None = None


class _Named(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()


_NAMED: Final = msgspec.json.Decoder(_Named)


class Stored(msgspec.Struct):
    """One object: its JSON, the version since which it is there, and its metadata once that was read."""

    raw: bytes
    since: int = FIRST_VERSION
    known: Meta | None = None

    @property
    def meta(self) -> Meta:
        """Its metadata; an empty one of an object that cannot be decoded."""
        if self.known is None:
            try:
                self.known = _NAMED.decode(self.raw).metadata
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.known = Meta()
        return self.known


class Change(msgspec.Struct, frozen=True):
    """What a watch is told. `kind`: ADDED, MODIFIED or DELETED; `before`: the object as it was, if it was."""

    version: int
    name: str
    kind: str
    raw: bytes
    before: bytes | None = None


class Page(msgspec.Struct, frozen=True):
    """A part of a list. `position`: where the next page begins, None after the last. `left`: how many are behind it."""

    items: tuple[bytes, ...]
    position: int | None = None
    left: int | None = None


class NotAListError(ValueError):
    """A bundle's file is no Kubernetes list."""


def split_items(content: bytes) -> list[bytes]:
    """Return each item of a Kubernetes list as it stands.

    A list with one item a line, as a collector writes it, is cut at its lines; any other is decoded.

    Raises:
        NotAListError: it is no list.
    """
    lines = _lines_of(content)
    if lines is not None:
        return lines
    try:
        return [bytes(item) for item in msgspec.json.decode(content, type=_Items).items]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotAListError(str(error)) from error


def _lines_of(content: bytes) -> list[bytes] | None:
    """Return the items of a list that has one a line, None if it has not."""
    start = content.find(b"\n") + 1
    end = content.rfind(b"]}")
    whole = 0 < start <= end and content[end:].strip() == b"]}"
    if not (whole and content.endswith(_OPENING, 0, start - 1) and content.endswith(b"\n", 0, end)):
        return None
    items: list[bytes] = []
    while start < end:
        stop = content.index(b"\n", start, end)
        last = stop - 1 if stop + 1 < end else stop
        if (
            content[start] != _BRACE
            or content[last - 1] != _CLOSING_BRACE
            or (last < stop) != (content[last] == _COMMA)
        ):
            return None  # an item over several lines, or no JSON
        items.append(content[start:last])
        start = stop + 1
    return items


class _Items(msgspec.Struct, frozen=True):
    items: tuple[msgspec.Raw, ...]


class ObjectList:
    """The objects of one kind, in order."""

    def __init__(self, items: Iterable[bytes] = ()) -> None:
        """Keep the objects; none is decoded."""
        self._stored: list[Stored | None] = [Stored(raw) for raw in items]
        self._holes = 0
        self._indexing = threading.Lock()
        """Whoever is first to need it makes the index; the others wait for all of it."""
        self._places: dict[tuple[str | None, str], int] | None = None
        self._namespaces: dict[str | None, list[int]] = {}

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._stored) - self._holes

    def __iter__(self) -> Iterator[Stored]:
        """Yield each object, in order."""
        return (one for one in self._stored if one is not None)

    def first(self) -> bytes | None:
        """Return an object, None if there is none."""
        return next((one.raw for one in self), None)

    def get(self, namespace: str | None, name: str) -> Stored | None:
        """Return an object by name."""
        place = self._index().get((namespace, name))
        return None if place is None else self._stored[place]

    def put(self, stored: Stored) -> None:
        """Add an object, or put it in the place of the one of its name."""
        key = (stored.meta.namespace, stored.meta.name)
        index = self._index()
        place = index.get(key)
        if place is None:
            self._stored.append(stored)  # before the index names its place: others read meanwhile
            index[key] = len(self._stored) - 1
            self._namespaces.setdefault(key[0], []).append(len(self._stored) - 1)
        else:
            self._stored[place] = stored

    def remove(self, namespace: str | None, name: str) -> None:
        """Take out an object; its place stays empty."""
        place = self._index().pop((namespace, name))
        self._namespaces[namespace].remove(place)
        self._stored[place] = None
        self._holes += 1

    def page(
        self,
        *,
        namespace: str | None = None,
        start: int = 0,
        limit: int = 0,
        until: int | None = None,
        wanted: Callable[[Stored], bool] | None = None,
    ) -> Page:
        """Return the objects from a position on, at most `limit` (0: all).

        `until` is the version at which the list began: what came later is left out. `left` is not
        known where `wanted` selects, as upstream.
        """
        if namespace is None and wanted is None and not self._holes and until is None:
            end = len(self._stored) if not limit else min(len(self._stored), start + limit)
            left = len(self._stored) - end
            items = tuple(one.raw for one in self._stored[start:end] if one is not None)
            return Page(items, end, left) if left > 0 else Page(items)
        places = range(start, len(self._stored)) if namespace is None else self._places_in(namespace, start)
        return self._selected(places, limit, until, wanted)

    def _selected(
        self, places: Iterable[int], limit: int, until: int | None, wanted: Callable[[Stored], bool] | None
    ) -> Page:
        items: list[bytes] = []
        position: int | None = None
        left = 0
        for place in places:
            stored = self._stored[place]
            if stored is None or (until is not None and stored.since > until):
                continue
            if wanted is not None and not wanted(stored):
                continue
            if limit and len(items) == limit:
                position = place if position is None else position
                left += 1
                if wanted is not None:
                    break
                continue
            items.append(stored.raw)
        return Page(tuple(items), position, left if position is not None and wanted is None else None)

    def _places_in(self, namespace: str, start: int) -> Iterator[int]:
        self._index()
        return (place for place in self._namespaces.get(namespace, ()) if place >= start)

    def _index(self) -> dict[tuple[str | None, str], int]:
        with self._indexing:
            if self._places is None:
                places: dict[tuple[str | None, str], int] = {}
                for place, stored in enumerate(self._stored):
                    if stored is not None:
                        meta = stored.meta
                        places.setdefault((meta.namespace, meta.name), place)
                        self._namespaces.setdefault(meta.namespace, []).append(place)
                self._places = places
            return self._places


class Objects:
    """All objects of an embedded cluster, and the version that each change raises. May be used from several threads."""

    def __init__(self, now: str) -> None:
        """Start without objects. `now` is the creation time of what is made, RFC 3339."""
        self.now = now
        self.changed = threading.Condition(threading.RLock())
        """Guards everything here; notified of each change."""
        self.version = FIRST_VERSION
        self._lists: dict[str, ObjectList] = {}
        self._changes: list[Change] = []
        self._forgotten = FIRST_VERSION

    def load(self, kind: str, items: Iterable[bytes]) -> None:
        """Put a kind's objects in, as the bundle has them."""
        self._lists[kind] = ObjectList(items)

    def list_of(self, kind: str) -> ObjectList:
        """Return a kind's objects, in order; they may be empty."""
        with self.changed:
            return self._lists.setdefault(kind, ObjectList())

    def is_there(self, kind: str, namespace: str | None, name: str, *, uid: str) -> bool:
        """Tell whether an object is there, and is the one with this UID."""
        stored = self.list_of(kind).get(namespace, name)
        return stored is not None and uid.encode() in stored.raw

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of which there are, or were, objects."""
        return tuple(self._lists)

    def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return an object, decoded.

        Raises:
            RefusedError: 404, there is none.
        """
        stored = self.list_of(resource.name).get(namespace, name)
        if stored is None:
            raise no_such_object(resource.plural, resource.group, name)
        return decoded(stored.raw)

    def create(self, resource: Resource, namespace: str | None, document: dict[str, Any]) -> dict[str, Any]:
        """Add an object: gives it a name where it asks for one, a UID, a time and a version.

        Raises:
            RefusedError: 409, there is one of that name; 422, it has no name.
        """
        metadata = document.setdefault("metadata", {})
        with self.changed:
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = self._free_name(resource.name, namespace, str(metadata["generateName"]))
            name = metadata.get("name")
            if not isinstance(name, str) or not name:
                message = (
                    f'{resource.kind} "" is invalid: metadata.name: Required value: name or generateName is required'
                )
                raise RefusedError(422, "Invalid", message)
            metadata.pop("namespace", None)
            if namespace is not None:
                metadata["namespace"] = namespace
            if self.list_of(resource.name).get(namespace, name) is not None:
                details = {
                    "name": name,
                    **({"group": resource.group} if resource.group else {}),
                    "kind": resource.plural,
                }
                raise RefusedError(409, "AlreadyExists", f'{resource.name} "{name}" already exists', details=details)
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = self.now
            return self._keep(resource, document, "ADDED", None)

    def _free_name(self, kind: str, namespace: str | None, prefix: str) -> str:
        taken = self.list_of(kind)
        while True:
            name = f"{prefix}{uuid.uuid4().hex[:5]}"
            if taken.get(namespace, name) is None:
                return name

    def replace(self, resource: Resource, namespace: str | None, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Put an object in the place of the one of its name; what only the server sets stays.

        Raises:
            RefusedError: 404, there is none; 409, it was changed since the version that the caller read.
        """
        with self.changed:
            before = self.get(resource, namespace, name)
            metadata = document.setdefault("metadata", {})
            check_preconditions(
                resource, name, before, uid=metadata.get("uid"), version=metadata.get("resourceVersion")
            )
            old = before.get("metadata", {})
            metadata["name"] = name
            metadata.update({key: old[key] for key in ("uid", "creationTimestamp", "namespace") if key in old})
            stored = self.list_of(resource.name).get(namespace, name)
            return self._keep(resource, document, "MODIFIED", stored.raw if stored else None)

    def delete(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Take an object out, and return it as it was.

        Raises:
            RefusedError: 404, there is none.
        """
        with self.changed:
            document = self.get(resource, namespace, name)
            stored = self.list_of(resource.name).get(namespace, name)
            self.list_of(resource.name).remove(namespace, name)
            self.version += 1
            document.setdefault("metadata", {})["resourceVersion"] = str(self.version)
            before = stored.raw if stored else None
            self._tell(Change(self.version, resource.name, "DELETED", msgspec.json.encode(document), before))
            return document

    def _keep(self, resource: Resource, document: dict[str, Any], kind: str, before: bytes | None) -> dict[str, Any]:
        self.version += 1
        document.setdefault("kind", resource.kind)
        document["metadata"]["resourceVersion"] = str(self.version)
        raw = msgspec.json.encode(document)
        place = self.list_of(resource.name).get(document["metadata"].get("namespace"), document["metadata"]["name"])
        since = place.since if place is not None else self.version
        self.list_of(resource.name).put(Stored(raw, since))
        self._tell(Change(self.version, resource.name, kind, raw, before))
        return document

    def _tell(self, change: Change) -> None:
        self._changes.append(change)
        if len(self._changes) > REMEMBERED_CHANGES:
            self._forgotten = self._changes[0].version
            del self._changes[0]
        self.changed.notify_all()

    def changes_after(self, version: int, kind: str) -> tuple[Change, ...] | None:
        """Return the changes of a kind after a version, in order; None if some of them are forgotten."""
        with self.changed:
            if version < self._forgotten:
                return None
            return tuple(one for one in self._changes if one.version > version and one.name == kind)


def decoded(raw: bytes) -> dict[str, Any]:
    """Return an object's JSON decoded; of one that is none, an empty one."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def name_of(raw: bytes) -> str:
    """Return an object's name, "" if it has none."""
    return Stored(raw).meta.name


def check_preconditions(
    resource: Resource, name: str, document: Mapping[str, Any], *, uid: str | None, version: str | None
) -> None:
    """Refuse a change of an object that is another, or was changed since it was read.

    Source: k8s.io/apiserver/pkg/storage/interfaces.go, Preconditions.Check; pkg/registry/generic/registry/store.go.

    Raises:
        RefusedError: 409.
    """
    metadata = document.get("metadata", {})
    details = {"name": name, **({"group": resource.group} if resource.group else {}), "kind": resource.plural}
    prefix = f'Operation cannot be fulfilled on {resource.name} "{name}": '
    seen = metadata.get("uid", "")
    if uid and uid != seen:
        message = f"{prefix}Precondition failed: UID in precondition: {uid}, UID in object meta: {seen}"
        raise RefusedError(409, "Conflict", message, details=details)
    if version and metadata.get("resourceVersion") and version != metadata["resourceVersion"]:
        message = f"{prefix}the object has been modified; please apply your changes to the latest version and try again"
        raise RefusedError(409, "Conflict", message, details=details)

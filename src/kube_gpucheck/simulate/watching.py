"""Watches: changes of a kind's objects as they come, one JSON document a line.

Source: Kubernetes documentation, "Kubernetes API Concepts: efficient detection of changes";
k8s.io/apiserver/pkg/storage/cacher/{cacher,watch_cache,cache_watcher}.go at 1.36.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.answers import RefusedError, bad_request
from kube_gpucheck.simulate.objects import FIRST_VERSION, Change, Objects, Stored, decoded

BOOKMARK_S: Final = 60.0
"""How often a watch is told how far it is. Source: cacher.go, bookmarkFrequency."""
LONGEST_S: Final = 3600.0
"""When a watch ends that names no end; upstream ends it after 30 to 60 minutes. Source: `--min-request-timeout`."""
_GLANCE_S: Final = 0.5
"""How often it is looked whether the server has stopped."""
_TRUE: Final = frozenset({"1", "true", "True", "TRUE"})

Wanted = Callable[[Stored], bool]
Shape = Callable[[dict[str, Any]], Any]


class Watch(msgspec.Struct, frozen=True):
    """What a watch asks for.

    `since`: the version after which changes are told; None: first everything that is there. `timeout_s`: when
    it ends. `bookmarks`: tell how far it is. `initial`: first everything, and a bookmark where that ends.
    """

    kind: str
    namespace: str | None = None
    since: int | None = None
    timeout_s: float = LONGEST_S
    bookmarks: bool = False
    initial: bool = False


def watch_of(query: Mapping[str, str], kind: str, namespace: str | None) -> Watch:
    """Return what the parameters of a request ask for.

    Raises:
        RefusedError: 400, a number is none; 422, what cannot be had.
    """
    version = query.get("resourceVersion", "")
    initial = query.get("sendInitialEvents", "") in _TRUE
    if initial and query.get("resourceVersionMatch") != "NotOlderThan":
        raise _invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    timeout = _whole(query.get("timeoutSeconds", ""), "timeoutSeconds")
    since = _whole(version, "resourceVersion")
    return Watch(
        kind,
        namespace,
        since=since or None,
        timeout_s=float(timeout or LONGEST_S),
        bookmarks=query.get("allowWatchBookmarks", "") in _TRUE,
        initial=initial,
    )


def is_watch(query: Mapping[str, str]) -> bool:
    """Tell whether a list is asked for as a watch."""
    return query.get("watch", "") in _TRUE


def watched(
    objects: Objects,
    watch: Watch,
    *,
    wanted: Wanted | None = None,
    shape: Shape,
    stopped: Callable[[], bool] = lambda: False,
    bookmark_s: float = BOOKMARK_S,
) -> Iterator[bytes]:
    """Yield the events of a watch until its time is over or the server has stopped.

    Args:
        objects: what is watched.
        watch: what was asked for.
        wanted: the selectors, None if there are none.
        shape: gives an object, or what is told of it, the form that the client asked for.
        stopped: whether to end.
        bookmark_s: seconds between two bookmarks.
    """
    selected = _in_namespace(watch.namespace, wanted)
    with objects.changed:
        version = objects.version
        if watch.since is None or watch.initial:
            there = [one.raw for one in objects.list_of(watch.kind) if selected(one)]
        else:
            there, version = [], max(watch.since, FIRST_VERSION)
    yield from (_event("ADDED", raw, shape) for raw in there)
    if watch.initial:
        yield _bookmark(version, shape, ends_initial=True)
    end = time.monotonic() + watch.timeout_s
    following = time.monotonic() + bookmark_s
    while not stopped():
        with objects.changed:
            changes = objects.changes_after(version, watch.kind)
            if changes is None:
                yield _too_old(version, objects)
                return
            version = objects.version
            left = min(end, following) - time.monotonic()
            if not changes and left > 0:
                objects.changed.wait(min(left, _GLANCE_S))
                continue
        for change in changes:
            yield from _told(change, selected, shape)
        is_over = time.monotonic() >= end
        if watch.bookmarks and (is_over or time.monotonic() >= following):
            yield _bookmark(version, shape)
        if is_over:
            return
        if time.monotonic() >= following:
            following = time.monotonic() + bookmark_s


def _in_namespace(namespace: str | None, wanted: Wanted | None) -> Wanted:
    def selected(stored: Stored) -> bool:
        return (namespace is None or stored.meta.namespace == namespace) and (wanted is None or wanted(stored))

    return selected


def _told(change: Change, selected: Wanted, shape: Shape) -> Iterator[bytes]:
    """Yield what a watch with a selector is told: an object that no longer fits is deleted for it."""
    was = change.before is not None and selected(Stored(change.before))
    fits = change.kind != "DELETED" and selected(Stored(change.raw))
    if fits:
        yield _event("MODIFIED" if was else "ADDED", change.raw, shape)
    elif was and change.kind == "DELETED":
        yield _event("DELETED", change.raw, shape)
    elif was:
        document = decoded(change.before or b"")
        document.setdefault("metadata", {})["resourceVersion"] = str(change.version)
        yield _line("DELETED", shape(document))


def _event(kind: str, raw: bytes, shape: Shape) -> bytes:
    return _line(kind, shape(decoded(raw)))


def _line(kind: str, document: object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": document}) + b"\n"


def _bookmark(version: int, shape: Shape, *, ends_initial: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
    if ends_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return _line("BOOKMARK", shape({"metadata": metadata}))


def _too_old(version: int, objects: Objects) -> bytes:
    message = f"too old resource version: {version} ({objects.version})"
    return _line("ERROR", RefusedError(410, "Expired", message).document())


def _whole(number: str, name: str) -> int:
    if not number:
        return 0
    if not number.isascii() or not number.isdigit():
        raise bad_request(f'{name}: Invalid value: "{number}": strconv.ParseUint: invalid syntax')
    return int(number)


def _invalid(message: str) -> RefusedError:
    return RefusedError(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {message}')

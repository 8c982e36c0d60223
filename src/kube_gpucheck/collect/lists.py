"""Reads lists from the API into a bundle: page by page, pruned, without credentials, the next page on its way.

A list is written whole or not at all. What gpucheck itself made in the cluster is no evidence of the cluster.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from kube_gpucheck.collect.api import Api, Body, RefusedError, one_line, words_of
from kube_gpucheck.collect.progress import Progress
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.evidence.items import UNREADABLE, CommonItem, Item, OtherItem
from kube_gpucheck.evidence.pruning import prune
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.evidence.writing import BundleWriter, ListFile
from kube_gpucheck.model import MissingKind

PAGE_ITEMS: Final = 500
"""Objects a page, as kubectl asks for them: 8 MB of full nodes."""
AHEAD: Final = 2
"""How many kinds' first pages are on their way while one is worked on."""
MOST_RESTARTS: Final = 3
"""How often a list is begun anew because its pages have expired, before it is asked for in one piece."""
_JSON: Final = frozenset({"application/json", ""})
_BATCH: Final = 50
"""How many objects are written at once: a page is in memory already, and is not to be there twice."""
_EXPIRED: Final = 410
_HEAD_BYTES: Final = 4096
_OWN_LABEL: Final = "app.kubernetes.io/managed-by"
_OWN: Final = "gpucheck"


class ListRequest(msgspec.Struct, frozen=True):
    """A kind to read, and the paths at which it stands: one, or one a namespace."""

    kind: str
    paths: tuple[str, ...]


class _Metadata(
    msgspec.Struct, frozen=True, gc=False, rename={"next_page": "continue", "remaining": "remainingItemCount"}
):
    next_page: str = ""
    remaining: int | None = None


class _Head(msgspec.Struct, frozen=True, gc=False):
    metadata: _Metadata = _Metadata()


class _Page(msgspec.Struct, frozen=True, gc=False):
    items: list[CommonItem] | None
    metadata: _Metadata = _Metadata()


class _RawPage(msgspec.Struct, frozen=True, gc=False):
    items: list[msgspec.Raw] | None
    metadata: _Metadata = _Metadata()


_HEAD: Final = msgspec.json.Decoder(_Head)
_PAGE: Final = msgspec.json.Decoder(_Page)
_RAW_PAGE: Final = msgspec.json.Decoder(_RawPage)
_LABELS: Final = msgspec.json.Decoder(dict[str, Any])

Observer = Callable[[str, Item], None]
"""Who looks at each object as it passes, by its kind."""


class Lists:
    """Reads kinds into one bundle. Downloads have threads of their own; all work is the caller's thread's."""

    def __init__(
        self,
        api: Api,
        pool: Workers,
        writer: BundleWriter,
        *,
        redactor: Redactor,
        progress: Progress,
        observer: Observer,
    ) -> None:
        """Ask for nothing yet."""
        self._api = api
        self._pool = pool
        self._writer = writer
        self._redactor = redactor
        self._progress = progress
        self._observer = observer

    def read(self, requests: Sequence[ListRequest]) -> Iterator[tuple[ListRequest, RefusedError | None]]:
        """Write each kind's list, and yield it with None, or with why it could not be had whole."""
        first_pages: deque[Future[Body] | None] = deque()
        waiting = iter(requests)
        try:
            for request in requests:
                while len(first_pages) <= AHEAD and (coming := next(waiting, None)) is not None:
                    first_pages.append(self._ask(coming.paths[0]) if coming.paths else None)
                yield request, self._read_one(request, first_pages.popleft())
        finally:
            for future in filter(None, first_pages):
                future.cancel()

    def write_alone(self, kind: str, item: bytes) -> None:
        """Write a kind's list of one object that was read by its name."""
        page = _page_of(Body(b'{"items":[' + item + b"]}", ""))
        if page is None:
            return
        path = f"cluster/{kind}.json"
        file = self._writer.open_list(path)
        self._progress.begin(kind)
        self._write(kind, page, file)
        self._writer.close_list(path, file)
        self._progress.end(f"{file.count:,}")

    def _read_one(
        self, request: ListRequest, first: "Future[Body] | None", *, restarts: int = 0
    ) -> RefusedError | None:
        """Write one kind's list, beginning with a page that may be on its way already."""
        path = f"cluster/{request.kind}.json"
        self._progress.begin(request.kind)
        file = self._writer.open_list(path)
        try:
            for place in request.paths:
                self._read_path(request.kind, place, file, first or self._ask(place, whole=restarts == MOST_RESTARTS))
                first = None
        except RefusedError as refusal:
            file.discard()
            if refusal.status == _EXPIRED and restarts < MOST_RESTARTS:
                return self._read_one(request, None, restarts=restarts + 1)
            self._progress.end(f"{refusal.kind.value}: {refusal.reason}")
            return refusal
        except BaseException:
            file.discard()
            raise
        self._writer.close_list(path, file)
        self._progress.end(f"{file.count:,}")
        return None

    def _ask(self, path: str, token: str = "", *, whole: bool = False) -> "Future[Body]":
        """Ask for the page of a token, or for everything in one piece."""
        query = {} if whole else {"limit": str(PAGE_ITEMS)}
        if token:
            query["continue"] = token
        return self._pool.submit(lambda: self._api.read(path, query))

    def _read_path(self, kind: str, path: str, file: ListFile, coming: "Future[Body]") -> None:
        """Write the items of all pages at one path, each page being downloaded while the one before is written.

        An expired token (410) ends the pages. The token that such an answer carries goes on from another state of
        the cluster, and is not used: a list is of one moment. Source: k8s.io/apimachinery, ListOptions.continue.

        Raises:
            RefusedError: a page could not be had, or is no list.
        """
        token = ""
        while True:
            body = self._pool.wait(coming)
            ahead = _next_page(body.content)
            next_coming = self._ask(path, ahead) if ahead else None
            page = _page_of(body) or self._page_again(path, token)
            self._write(kind, page, file)
            if not page.metadata.next_page:
                return
            if page.metadata.next_page == token:
                reason = f"the server gave the same page of {kind} twice, and no next one"
                raise RefusedError(MissingKind.ERROR, reason)
            token = page.metadata.next_page
            coming = next_coming if next_coming and ahead == token else self._ask(path, token)
            del page, body

    def _page_again(self, path: str, token: str) -> "_Content":
        """Return a page that came garbled at first.

        Raises:
            RefusedError: it is garbled again.
        """
        body = self._pool.wait(self._ask(path, token))
        page = _page_of(body)
        if page is None:
            reason = words_of(body.content) or _what_is_wrong(body)
            raise RefusedError(MissingKind.UNPARSABLE, reason)
        return page

    def _write(self, kind: str, page: "_Content", file: ListFile) -> None:
        for start in range(0, len(page.items), _BATCH):
            lines = [self._line(kind, item) for item in page.items[start : start + _BATCH] if not _is_own(item)]
            file.add([msgspec.json.format(line, indent=-1) for line in lines] if page.has_breaks else lines)
        remaining = page.metadata.remaining
        self._progress.advance(file.count, None if remaining is None else file.count + remaining)

    def _line(self, kind: str, item: Item | msgspec.Raw) -> bytes:
        """Return an object as it is kept."""
        path = f"cluster/{kind}.json"
        if isinstance(item, msgspec.Raw):
            return self._redactor.raw_item(path, bytes(item))
        prune(kind, item)
        self._observer(kind, item)
        return self._redactor.item(path, kind, item)


class _Content(msgspec.Struct, gc=False):
    """A page: its items, those that are no objects raw, and whether line breaks stand in it."""

    items: Sequence[Item | msgspec.Raw]
    metadata: _Metadata
    has_breaks: bool


def _next_page(content: bytes) -> str:
    """Return the next page's token from the page's head, "" if it does not stand there.

    Servers write a list's metadata before its items, so that the next page can be asked for at once.
    """
    end = content.find(b'"items"', 0, _HEAD_BYTES)
    if end < 0:
        return ""
    try:
        return _HEAD.decode(content[:end].rstrip().rstrip(b",") + b"}").metadata.next_page
    except UNREADABLE:
        return ""


def _page_of(body: Body) -> _Content | None:
    """Return a page, None if the document is no list, or is said to be something else than JSON."""
    content = body.content
    if body.media_type not in _JSON:
        return None
    has_breaks = content.find(b"\n", 0, len(content) - 2) >= 0
    try:
        common = _PAGE.decode(content)
        return _Content(common.items or (), common.metadata, has_breaks)
    except msgspec.ValidationError:
        pass  # not of the common form: each object by itself
    except UNREADABLE:
        return None
    try:
        page = _RAW_PAGE.decode(content)
    except UNREADABLE:
        return None
    return _Content([_split(one) for one in page.items or ()], page.metadata, has_breaks)


def _split(item: msgspec.Raw) -> Item | msgspec.Raw:
    """Return an object in its parts, or as it is where it has none."""
    try:
        return OtherItem(item)
    except UNREADABLE:
        return item


def _is_own(item: Item | msgspec.Raw) -> bool:
    """Tell whether gpucheck made an object."""
    labels = None if isinstance(item, msgspec.Raw) else item.metadata.get("labels")
    if labels is None or _OWN.encode() not in bytes(labels):
        return False
    try:
        return bool(_LABELS.decode(labels).get(_OWN_LABEL) == _OWN)
    except UNREADABLE:
        return False


def _what_is_wrong(body: Body) -> str:
    if body.media_type not in _JSON:
        return f"the answer of {len(body.content):,} bytes is '{one_line(body.media_type)}', not application/json"
    try:
        msgspec.json.decode(body.content, type=msgspec.Raw)
        _PAGE.decode(body.content)
    except msgspec.ValidationError as error:
        return f"the answer is JSON and no list: {error}"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"the answer of {len(body.content):,} bytes is no JSON: {error}"
    return "the answer is no list"

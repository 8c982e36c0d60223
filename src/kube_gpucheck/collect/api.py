"""Reads documents from an API server: one request with its tries, and every failure as one kind of refusal.

Knows HTTP and Kubernetes' Status. What a document means is not known here.
"""

import datetime
import email.utils
import logging
import threading
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.connection import Answer, Connection, ConnectionFailedError, FailureKind
from kube_gpucheck.collect.waiting import PATIENT, Deadline, PassingError, Patience
from kube_gpucheck.model import MissingKind

_LOG: Final = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 512 * 2**20
"""The largest body that is read; a page of 500 objects of 1 MiB, etcd's limit for one, just passes."""
MAX_REASON: Final = 2000
"""The longest reason that is kept, in characters."""
_TRY_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_STALLED_TRIES: Final = 2
"""A server that said nothing for the whole of a request's time gets one more try, not the usual ones."""
_TOO_LONG_S: Final = 86_400.0


class RefusedError(Exception):
    """A document could not be had. `status`: HTTP's, None where no answer came. `failure`: why none came."""

    def __init__(
        self, kind: MissingKind, reason: str, *, status: int | None = None, failure: FailureKind | None = None
    ) -> None:
        """Keep why."""
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.status = status
        self.failure = failure


class Body(msgspec.Struct, frozen=True):
    """A document as it came. `media_type` without its parameters."""

    content: bytes
    media_type: str


class _Ask(msgspec.Struct, frozen=True):
    """One document that is asked for."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    timeout_s: float
    tail_bytes: int | None


class Status(msgspec.Struct, frozen=True):
    """Kubernetes' own words about a failure. Source: k8s.io/apimachinery/pkg/apis/meta/v1, Status."""

    kind: Literal["Status"]
    message: str = ""
    reason: str = ""


class Api:
    """One API server, for one collection. May be used from several threads."""

    def __init__(self, connection: Connection, *, deadline: Deadline, patience: Patience = PATIENT) -> None:
        """Ask nothing yet."""
        self.connection = connection
        self.deadline = deadline
        self.patience = patience
        self.clock: datetime.datetime | None = None
        """The server's clock at its first answer, None if it told none."""
        self._encoding = {} if _is_near(connection) else {"Accept-Encoding": "gzip"}
        self._locked_out: str | None = None
        self._lock = threading.Lock()

    def read(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        accept: str = "application/json",
        timeout_s: float = deadlines.LIST_S,
        tail_bytes: int | None = None,
    ) -> Body:
        """Return the document at a path. With `tail_bytes`, no more than its end is kept in memory.

        Tried again where that may help: the connection broke, the server is busy (429) or in trouble (5xx).
        A 401 is tried once more, for credentials may have been renewed; after that nothing is asked any more.

        Raises:
            RefusedError: there is no such document, it may not be read, or time or tries are used up.
        """
        headers = {"Accept": accept, **self._encoding}
        ask = _Ask(path, query or {}, headers, timeout_s, tail_bytes)
        try:
            return self.patience.call(self.deadline, lambda: self._once(ask))
        except RefusedError as refusal:
            _LOG.info("%s: %s", path, refusal.reason)
            raise

    def _once(self, ask: _Ask) -> Body:
        if self._locked_out is not None:
            raise RefusedError(MissingKind.FORBIDDEN, self._locked_out, status=_UNAUTHORIZED)
        try:
            answer = self._send(ask)
            if answer.status == _UNAUTHORIZED:
                answer.close()
                answer = self._send(ask)
            try:
                content = self._body(answer, ask.path, ask.tail_bytes if answer.status == _OK else None)
            finally:
                answer.close()
        except ConnectionFailedError as error:
            raise _unanswered(error) from error
        if answer.status != _OK:
            raise self._refusal(answer, content)
        return Body(content, answer.headers.get("content-type", "").partition(";")[0].strip().lower())

    def _send(self, ask: _Ask) -> Answer:
        left_s = self.deadline.left_s()
        if left_s <= 0:
            raise self._out_of_time(ask.path)
        timeout_s = min(ask.timeout_s, left_s)
        answer = self.connection.request(
            "GET", ask.path, query=ask.query, headers=ask.headers, timeout_s=timeout_s, deadline=self.deadline
        )
        _LOG.debug("GET %s %s: %s", ask.path, dict(ask.query), answer.status)
        with self._lock:
            if self.clock is None:
                self.clock = _moment(answer.headers.get("date", ""))
        return answer

    def _body(self, answer: Answer, path: str, tail_bytes: int | None) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in answer.chunks():
            chunks.append(chunk)
            size += len(chunk)
            if tail_bytes is not None:
                while size - len(chunks[0]) >= tail_bytes:
                    size -= len(chunks.pop(0))
            elif size > MAX_BODY_BYTES:
                reason = f"the answer is longer than {MAX_BODY_BYTES:,} bytes"
                raise RefusedError(MissingKind.ERROR, reason, status=answer.status)
            if self.deadline.is_over:
                raise self._out_of_time(path)
        return b"".join(chunks)

    def _out_of_time(self, path: str) -> RefusedError:
        reason = f"{path} had not come when the {self.deadline.limit_s:g} s of this collection were over"
        return RefusedError(MissingKind.TIMEOUT, reason)

    def _refusal(self, answer: Answer, content: bytes) -> Exception:
        status = answer.status
        reason = words_of(content) or f"the server answered {status} without saying why"
        if status == _UNAUTHORIZED:
            self._locked_out = reason
        kind = {401: MissingKind.FORBIDDEN, 403: MissingKind.FORBIDDEN, 504: MissingKind.TIMEOUT}
        refusal = RefusedError(kind.get(status, MissingKind.ERROR), reason, status=status)
        if status not in _TRY_AGAIN:
            return refusal
        return PassingError(refusal, retry_after_s=_retry_after_s(answer.headers))


def _is_near(connection: Connection) -> bool:
    """Tell whether packing answers would cost more time than their way: inside the cluster, and on this host.

    kube-apiserver packs answers of more than 128 KB where gzip is taken, at its lowest level (k8s.io/apiserver,
    handlers/responsewriters/writers.go): a tenth of the bytes, for about a second of work on 100 MB at both ends.
    """
    host = urlsplit(connection.server).hostname or ""
    return connection.context == "in-cluster" or host == "localhost" or host.startswith("127.") or host == "::1"


def words_of(content: bytes) -> str:
    """Return a Status's message on one line, bounded; "" where the document is none or says nothing."""
    try:
        status = msgspec.json.decode(content, type=Status)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return one_line(status.message or status.reason)


def one_line(text: str) -> str:
    """Return a text on one line, bounded."""
    return " ".join(text.split())[:MAX_REASON]


def _unanswered(error: ConnectionFailedError) -> Exception:
    kind = MissingKind.TIMEOUT if error.kind is FailureKind.TIMEOUT else MissingKind.ERROR
    refusal = RefusedError(kind, one_line(str(error)), failure=error.kind)
    refusal.__cause__ = error
    match error.kind:
        case FailureKind.RESET:
            return PassingError(refusal)
        case FailureKind.TIMEOUT:
            return PassingError(refusal, most_tries=_STALLED_TRIES)
        case _:
            return refusal


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Return how long the server asks to wait: a number of seconds, or a moment by its own clock (RFC 9110).

    0 where it does not say, or says it in no such form.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), _TOO_LONG_S)
    moment, now = _moment(value), _moment(headers.get("date", ""))
    if moment is None:
        return 0.0
    now = now or datetime.datetime.now(datetime.timezone.utc)
    return min(max((moment - now).total_seconds(), 0.0), _TOO_LONG_S)


def _moment(text: str) -> datetime.datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.timezone.utc)

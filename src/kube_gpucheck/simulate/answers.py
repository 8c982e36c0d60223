"""What the embedded API server is asked, and what it answers: plain data, and Status objects in upstream's words.

Source: k8s.io/apimachinery/pkg/api/errors/errors.go and pkg/apis/meta/v1/types.go at 1.36.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

JSON: Final = "application/json"
TEXT: Final = "text/plain"


class Request(msgspec.Struct, frozen=True):
    """One request. `query` holds the last value of each parameter; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Reply(msgspec.Struct, frozen=True):
    """One answer. `parts` are sent one behind the other; `stream` instead of them is sent as it comes, in chunks."""

    status: int = 200
    parts: tuple[bytes, ...] = ()
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    stream: Iterator[bytes] | None = None

    @property
    def body(self) -> bytes:
        """The parts as one."""
        return b"".join(self.parts)


class RefusedError(Exception):
    """A request is refused with a Status object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_s: int | None = None,
    ) -> None:
        """Keep what the Status says; `retry_s` becomes the header Retry-After."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_s = retry_s

    def reply(self) -> Reply:
        """Return the answer."""
        headers = {} if self.retry_s is None else {"Retry-After": str(self.retry_s)}
        return Reply(self.code, (msgspec.json.encode(self.document()), b"\n"), headers=headers)

    def document(self) -> dict[str, Any]:
        """Return the Status object."""
        document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            document["reason"] = self.reason
        if self.details is not None:
            document["details"] = self.details
        return {**document, "code": self.code}


def json_reply(document: Any, status: int = 200) -> Reply:  # noqa: ANN401  whatever is JSON
    """Return a document as an answer."""
    return Reply(status, (msgspec.json.encode(document), b"\n"))


def qualified(plural: str, group: str) -> str:
    """Return a resource as messages name it: `pods`, `daemonsets.apps`."""
    return f"{plural}.{group}" if group else plural


def no_such_object(plural: str, group: str, name: str) -> RefusedError:
    """Return 404 for an object that is not there."""
    details = {"name": name, **({"group": group} if group else {}), "kind": plural}
    return RefusedError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', details=details)


def no_such_resource() -> RefusedError:
    """Return 404 for a kind, group or version that is not served, or a path that is none."""
    return RefusedError(404, "NotFound", "the server could not find the requested resource", details={})


def bad_request(message: str) -> RefusedError:
    """Return 400."""
    return RefusedError(400, "BadRequest", message)


def method_not_allowed() -> RefusedError:
    """Return 405."""
    return RefusedError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
    )


def expired() -> RefusedError:
    """Return 410 for a `continue` token that is too old.

    Source: k8s.io/apiserver/pkg/storage/errors and etcd3/errors.go, `expired`.
    """
    return RefusedError(
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter.",
    )

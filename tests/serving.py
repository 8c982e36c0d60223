"""Asks embedded clusters over their socket, as a client does that knows nothing of them."""

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from bundle_builders import files
from kube_gpucheck.evidence.bundle import Bundle, memory_bundle
from kube_gpucheck.simulate.server import EmbeddedCluster


class Answer(msgspec.Struct, frozen=True):
    """What came. `headers` in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def names(self) -> list[str]:
        """The names of a list's objects, in order."""
        return [one["metadata"]["name"] for one in self.document["items"]]


def bundle_of(content: Mapping[str, bytes] | None = None, **changes: Any) -> Bundle:
    """Return the small bundle of `bundle_builders` with other or more files, `None` for one that is not there."""
    return memory_bundle("test", {**files(**changes), **(content or {})})


def ask(
    cluster: EmbeddedCluster,
    path: str,
    method: str = "GET",
    *,
    query: Mapping[str, Any] | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request over a connection of its own, and return the whole answer."""
    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=10)
    try:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        full = quote(path) + (f"?{urlencode(query)}" if query else "")
        connection.request(method, full, content, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def everything(cluster: EmbeddedCluster, path: str, limit: int, **query: Any) -> list[Any]:
    """Return the objects of all pages of a list."""
    found: list[Any] = []
    token = ""
    while True:
        answer = ask(cluster, path, query={"limit": limit, "continue": token, **query})
        assert answer.status == 200, answer.body
        found += answer.document["items"]
        token = answer.document["metadata"].get("continue", "")
        if not token:
            return found

"""An API server in memory, behind the collector's own idea of a connection: answers by path, in a row."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from kube_gpucheck.collect.api import Api
from kube_gpucheck.collect.connection import ConnectionFailedError, FailureKind
from kube_gpucheck.collect.waiting import Deadline, Patience
from kube_gpucheck.collect.workers import Workers

DATE = "Tue, 24 Nov 2026 00:13:31 GMT"


class Reply(msgspec.Struct):
    """An answer. `failure`: no answer comes; `breaks`: its body breaks off after the content."""

    status: int = 200
    content: bytes = b"{}"
    headers: Mapping[str, str] = MappingProxyType({"content-type": "application/json", "date": DATE})
    failure: FailureKind | None = None
    breaks: FailureKind | None = None


class FakeAnswer:
    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self.is_closed = False

    def chunks(self) -> Iterator[bytes]:
        content = self._reply.content
        yield from (content[start : start + 1000] for start in range(0, len(content), 1000))
        if self._reply.breaks:
            raise ConnectionFailedError(self._reply.breaks, "the body broke off")

    def close(self) -> None:
        self.is_closed = True


Route = Reply | Sequence[Reply] | Callable[[Mapping[str, str]], Reply]


class FakeServer:
    """Routes by path: one reply for ever, some in a row of which the last stays, or a function of the query."""

    server = "https://10.0.0.1:6443"
    context = "fake"

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = {path: self._follow(route) for path, route in routes.items()}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.headers: list[Mapping[str, str]] = []
        self.answers: list[FakeAnswer] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        deadline: Deadline | None = None,
    ) -> FakeAnswer:
        self.asked.append((path, query or {}))
        self.headers.append(headers or {})
        route = self._routes.get(path)
        reply = route(query or {}) if route else not_found()
        if reply.failure:
            raise ConnectionFailedError(reply.failure, f"{method} {path}: {reply.failure.value}")
        self.answers.append(FakeAnswer(reply))
        return self.answers[-1]

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    @staticmethod
    def _follow(route: Route) -> Callable[[Mapping[str, str]], Reply]:
        if isinstance(route, Reply):
            return lambda _: route
        if callable(route):
            return route
        row = itertools.chain(route, itertools.repeat(route[-1]))
        return lambda _: next(row)


def hasty(pauses: list[float] | None = None, *, attempts: int = 3) -> Patience:
    """Return a patience that notes its pauses and waits for none."""
    return Patience(attempts=attempts, pause=(pauses if pauses is not None else []).append)


def api_of(server: FakeServer, pauses: list[float] | None = None, *, limit_s: float = 60.0) -> Api:
    return Api(server, deadline=Deadline(limit_s), patience=hasty(pauses))


def workers(count: int = 2) -> Workers:
    return Workers(count, Deadline(60.0))


def document(value: Any) -> Reply:
    return Reply(content=msgspec.json.encode(value))


def status(code: int, message: str, **headers: str) -> Reply:
    content = msgspec.json.encode({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message})
    return Reply(code, content, {"content-type": "application/json", "date": DATE, **headers})


def not_found() -> Reply:
    return status(404, "the server could not find the requested resource")


def list_of(items: Sequence[Any], *, next_page: str = "", remaining: int | None = None) -> Reply:
    metadata: dict[str, Any] = {"resourceVersion": "7"}
    if next_page:
        metadata["continue"] = next_page
    if remaining is not None:
        metadata["remainingItemCount"] = remaining
    return document({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})


def discovery(**groups: Sequence[str]) -> dict[str, Route]:
    """Return the routes of aggregated discovery: the core with these kinds, and groups with theirs, all `v1`."""
    found = {name.replace("_", ".").replace("..", "-"): kinds for name, kinds in groups.items()}

    def items(named: Mapping[str, Sequence[str]]) -> Reply:
        return document(
            {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": "apidiscovery.k8s.io/v2",
                "items": [
                    {
                        "metadata": {"name": name} if name else {},
                        "versions": [
                            {
                                "version": "v1",
                                "freshness": "Current",
                                "resources": [{"resource": kind, "scope": "Namespaced"} for kind in kinds],
                            }
                        ],
                    }
                    for name, kinds in named.items()
                ],
            }
        )

    return {
        "/version": document({"gitVersion": "v1.36.2"}),
        "/api": items({"": found.pop("core", ())}),
        "/apis": items(found),
    }

"""Lists: pages, tokens that expire, what is pruned and replaced on the way, and no half list on disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_server import FakeServer, Reply, Route, api_of, document, list_of, status, workers
from kube_gpucheck.collect.api import RefusedError
from kube_gpucheck.collect.connection import FailureKind
from kube_gpucheck.collect.lists import PAGE_ITEMS, ListRequest, Lists
from kube_gpucheck.collect.progress import SILENT, Progress
from kube_gpucheck.evidence.items import Item
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.evidence.writing import BundleWriter
from kube_gpucheck.model import MissingKind

PODS = "/api/v1/pods"


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "a", **metadata}, "spec": {"containers": []}, "status": {}}


def read(
    tmp_path: Path,
    routes: Mapping[str, Route],
    *requests: ListRequest,
    progress: Progress = SILENT,
    seen: list[tuple[str, Item]] | None = None,
    redactor: Redactor | None = None,
) -> tuple[FakeServer, dict[str, RefusedError | None]]:
    server = FakeServer(routes)
    with workers(4) as pool:
        lists = Lists(
            api_of(server),
            pool,
            BundleWriter(tmp_path / "bundle"),
            redactor=redactor or Redactor(),
            progress=progress,
            observer=lambda kind, item: None if seen is None else seen.append((kind, item)),
        )
        asked = requests or (ListRequest("pods", (PODS,)),)
        return server, {request.kind: refusal for request, refusal in lists.read(asked)}


def written(tmp_path: Path, kind: str = "pods") -> list[Any]:
    lines = (tmp_path / "bundle" / "cluster" / f"{kind}.json").read_bytes().split(b"\n")
    assert lines[0] == b'{"apiVersion":"v1","kind":"List","metadata":{},"items":['
    assert lines[-2:] == [b"]}", b""]
    rest = lines[1:-2]
    assert all(line.endswith(b",") for line in rest[:-1])
    return [msgspec.json.decode(line.removesuffix(b",")) for line in rest]


def names(items: Sequence[Any]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


def paged(pages: Mapping[str, Reply]) -> Route:
    return lambda query: pages[query.get("continue", "")]


def test_all_pages_are_written_in_order(tmp_path: Path) -> None:
    pages = {
        "": list_of([pod("p1"), pod("p2")], next_page="t2", remaining=2),
        "t2": list_of([pod("p3")], next_page="t3", remaining=1),
        "t3": list_of([pod("p4")]),
    }
    server, refused = read(tmp_path, {PODS: paged(pages)})

    assert refused == {"pods": None}
    assert names(written(tmp_path)) == ["p1", "p2", "p3", "p4"]
    assert [query.get("limit") for _, query in server.asked] == [str(PAGE_ITEMS)] * 3


@pytest.mark.parametrize("items", [[], None])
def test_an_empty_list_is_a_list(tmp_path: Path, items: Any) -> None:
    _, refused = read(tmp_path, {PODS: list_of(items)})

    assert (refused, written(tmp_path)) == ({"pods": None}, [])


def test_a_token_that_expires_begins_the_list_anew(tmp_path: Path) -> None:
    rounds = iter([status(410, "expired"), list_of([pod("new2")])])
    first = iter([list_of([pod("old1")], next_page="t"), list_of([pod("new1")], next_page="t")])
    server, refused = read(tmp_path, {PODS: lambda query: next(rounds if "continue" in query else first)})

    assert refused == {"pods": None}
    assert names(written(tmp_path)) == ["new1", "new2"]
    assert [query.get("continue") for _, query in server.asked] == [None, "t", None, "t"]


def test_tokens_that_always_expire_end_in_one_request_for_everything(tmp_path: Path) -> None:
    def answer(query: Mapping[str, str]) -> Reply:
        if "continue" in query:
            return status(410, "expired")
        return list_of([pod("p1")], next_page="t") if "limit" in query else list_of([pod("p1"), pod("p2")])

    server, refused = read(tmp_path, {PODS: answer})

    assert (refused, names(written(tmp_path))) == ({"pods": None}, ["p1", "p2"])
    assert len(server.asked) == 7


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (status(403, "pods is forbidden"), MissingKind.FORBIDDEN),
        (status(500, "no"), MissingKind.ERROR),
        (status(504, "too slow"), MissingKind.TIMEOUT),
        (Reply(failure=FailureKind.RESET), MissingKind.ERROR),
        (Reply(content=b'{"metadata":{},"items":[{"meta'), MissingKind.UNPARSABLE),
    ],
)
def test_a_list_of_which_a_page_is_missing_is_missing(tmp_path: Path, reply: Reply, kind: MissingKind) -> None:
    pages = {"": list_of([pod("p1")], next_page="t"), "t": reply}
    _, refused = read(tmp_path, {PODS: paged(pages)})

    assert getattr(refused["pods"], "kind", None) is kind
    assert list((tmp_path / "bundle").rglob("*.json")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b'{"metadata":{}}',
        b'{"items":{}}',
        b'{"items":[1,2}',
        b'{"metadata":{"continue":5},"items":[]}',
        b"[" * 100_000,
        b'{"items":[' + b'{"metadata":' * 100_000,
        b"\xff\xfe\x00",
        b"<html>" + b"x" * 3_000_000,
    ],
)
def test_an_answer_that_is_no_list_is_asked_for_twice_and_unparsable(tmp_path: Path, content: bytes) -> None:
    server, refused = read(tmp_path, {PODS: Reply(content=content)})

    refusal = refused["pods"]
    assert refusal is not None
    assert refusal.kind is MissingKind.UNPARSABLE
    assert refusal.reason.startswith("the answer ")
    assert len(server.asked) == 2


def test_an_answer_that_was_garbled_once_is_read_the_second_time(tmp_path: Path) -> None:
    whole = list_of([pod("p1")])
    _, refused = read(tmp_path, {PODS: [Reply(content=whole.content[:-9]), whole]})

    assert (refused, names(written(tmp_path))) == ({"pods": None}, ["p1"])


def test_an_answer_of_another_type_is_no_list_even_if_it_looks_like_one(tmp_path: Path) -> None:
    reply = Reply(content=list_of([pod("p1")]).content, headers={"content-type": "text/html; charset=utf-8"})
    _, refused = read(tmp_path, {PODS: reply})

    assert "text/html" in getattr(refused["pods"], "reason", "")


def test_a_failure_in_the_place_of_a_list_is_told_in_its_words(tmp_path: Path) -> None:
    _, refused = read(tmp_path, {PODS: document({"kind": "Status", "message": "etcd is gone"})})

    refusal = refused["pods"]
    assert refusal is not None
    assert (refusal.kind, refusal.reason) == (MissingKind.UNPARSABLE, "etcd is gone")


def test_a_server_that_gives_one_page_for_ever_is_left(tmp_path: Path) -> None:
    server, refused = read(tmp_path, {PODS: list_of([pod("p1")], next_page="same")})

    assert "twice" in getattr(refused["pods"], "reason", "")
    assert len(server.asked) <= 3


def test_a_malformed_object_is_kept_and_costs_no_other(tmp_path: Path) -> None:
    odd: list[Any] = [
        5,
        "text",
        None,
        [],
        {"metadata": 7},
        {},
        {"metadata": {"name": "p", "managedFields": []}, "x": 1},
    ]
    _, refused = read(tmp_path, {PODS: list_of([pod("p1"), *odd])})

    assert refused == {"pods": None}
    assert written(tmp_path) == [pod("p1"), *odd[:-1], {"metadata": {"name": "p"}, "x": 1}]


def test_lines_in_an_object_become_one_line(tmp_path: Path) -> None:
    pretty = msgspec.json.format(list_of([pod("p1"), {**pod("p2"), "data": {"a": "x\ny"}}]).content, indent=2)
    _, refused = read(tmp_path, {PODS: Reply(content=pretty)})

    assert refused == {"pods": None}
    assert written(tmp_path) == [pod("p1"), {**pod("p2"), "data": {"a": "x\ny"}}]


def test_what_nobody_reads_is_taken_out_and_the_rest_is_kept(tmp_path: Path) -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    full = pod("p1", managedFields=[{"manager": "x"}], annotations={last: "{}", "a": "b"}, labels={"l": "m"})
    read(tmp_path, {PODS: list_of([{"kind": "Pod", "apiVersion": "v1", **full}])})

    assert written(tmp_path) == [
        {"kind": "Pod", "apiVersion": "v1", **pod("p1", annotations={"a": "b"}, labels={"l": "m"})}
    ]


def test_what_gpucheck_made_is_no_evidence(tmp_path: Path) -> None:
    seen: list[tuple[str, Item]] = []
    own = pod("probe", labels={"app.kubernetes.io/managed-by": "gpucheck"})
    named = pod("other", labels={"app.kubernetes.io/managed-by": "helm", "app": "gpucheck"})
    read(tmp_path, {PODS: list_of([own, named])}, seen=seen)

    assert names(written(tmp_path)) == ["other"]
    assert [kind for kind, _ in seen] == ["pods"]


def test_credentials_are_replaced_and_counted(tmp_path: Path) -> None:
    redactor = Redactor()
    secret = pod("p1")
    secret["spec"] = {"containers": [{"name": "c", "env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}]}
    clean = pod("p2")
    read(tmp_path, {PODS: list_of([secret, clean])}, redactor=redactor)

    assert b"hunter2" not in (tmp_path / "bundle/cluster/pods.json").read_bytes()
    assert written(tmp_path)[1] == clean
    assert redactor.counts() == {"cluster/pods.json": "1 credential"}


def test_an_object_of_20_megabytes_passes(tmp_path: Path) -> None:
    large = {"metadata": {"name": "large", "namespace": "a"}, "data": {"k": "v" * 20_000_000}}
    path = "/api/v1/configmaps"
    _, refused = read(tmp_path, {path: list_of([large])}, ListRequest("configmaps", (path,)))

    assert (refused, written(tmp_path, "configmaps")) == ({"configmaps": None}, [large])


def test_the_lists_of_several_namespaces_are_one_list(tmp_path: Path) -> None:
    places = ("/api/v1/namespaces/a/configmaps", "/api/v1/namespaces/b/configmaps")
    routes = {place: list_of([pod(place[19])]) for place in places}
    _, refused = read(tmp_path, routes, ListRequest("configmaps", places))

    assert (refused, names(written(tmp_path, "configmaps"))) == ({"configmaps": None}, ["a", "b"])


def test_one_namespace_that_is_missing_makes_the_whole_list_missing(tmp_path: Path) -> None:
    places = ("/api/v1/namespaces/a/configmaps", "/api/v1/namespaces/b/configmaps")
    routes = {places[0]: list_of([pod("a")]), places[1]: status(403, "no")}
    _, refused = read(tmp_path, routes, ListRequest("configmaps", places))

    assert getattr(refused["configmaps"], "reason", "") == "no"
    assert not (tmp_path / "bundle/cluster/configmaps.json").exists()


def test_many_kinds_come_in_order_and_one_that_fails_costs_no_other(tmp_path: Path) -> None:
    kinds = [f"kind{number}s" for number in range(20)]
    routes: dict[str, Route] = {f"/api/v1/{kind}": list_of([pod(kind)]) for kind in kinds}
    routes["/api/v1/kind7s"] = status(403, "no")
    _, refused = read(tmp_path, routes, *(ListRequest(kind, (f"/api/v1/{kind}",)) for kind in kinds))

    assert list(refused) == kinds
    assert [kind for kind in refused if refused[kind]] == ["kind7s"]
    assert names(written(tmp_path, "kind19s")) == ["kind19s"]


class Told:
    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    def begin(self, what: str) -> None:
        self.words.append(("begin", what))

    def advance(self, done: int, total: int | None) -> None:
        self.words.append((done, total))

    def wait(self) -> None:
        pass

    def end(self, said: str) -> None:
        self.words.append(("end", said))


def test_progress_is_told_with_the_servers_own_total(tmp_path: Path) -> None:
    told = Told()
    pages = {"": list_of([pod("p1")], next_page="t", remaining=1), "t": list_of([pod("p2")])}
    read(tmp_path, {PODS: paged(pages)}, progress=told)

    assert told.words == [("begin", "pods"), (1, 2), (2, None), ("end", "2")]


def test_progress_is_told_why_there_is_no_list(tmp_path: Path) -> None:
    told = Told()
    read(tmp_path, {PODS: status(403, "pods is forbidden")}, progress=told)

    assert told.words == [("begin", "pods"), ("end", "forbidden: pods is forbidden")]

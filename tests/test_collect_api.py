"""One request: its tries, its pauses, its deadline, and every failure as one refusal with the server's words."""

import datetime

import pytest

from fake_server import DATE, FakeServer, Reply, Route, api_of, document, status
from kube_gpucheck.collect.api import MAX_REASON, Api, RefusedError
from kube_gpucheck.collect.connection import FailureKind
from kube_gpucheck.collect.waiting import Deadline, Patience
from kube_gpucheck.model import MissingKind

NODES = "/api/v1/nodes"


def refusal_of(api: Api, path: str = NODES) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        api.read(path)
    return caught.value


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(code: int) -> None:
    server = FakeServer({NODES: [status(code, "busy"), status(code, "busy"), document({"a": 1})]})

    assert api_of(server).read(NODES).content == b'{"a":1}'
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        (400, MissingKind.ERROR, 1),
        (403, MissingKind.FORBIDDEN, 1),
        (404, MissingKind.ERROR, 1),
        (410, MissingKind.ERROR, 1),
        (429, MissingKind.ERROR, 3),
        (500, MissingKind.ERROR, 3),
        (503, MissingKind.ERROR, 3),
        (504, MissingKind.TIMEOUT, 3),
    ],
)
def test_a_refusal_has_the_servers_words_and_its_kind(code: int, kind: MissingKind, tries: int) -> None:
    server = FakeServer({NODES: status(code, "no,\n because  of it")})

    refusal = refusal_of(api_of(server))

    assert (refusal.kind, refusal.reason, refusal.status) == (kind, "no, because of it", code)
    assert len(server.asked) == tries


@pytest.mark.parametrize("content", [b"", b"<html>gone</html>", b"[]", b"{", b'{"kind":"Status"}', b"\xff\xfe" * 1000])
def test_a_refusal_without_words_is_said_in_ours(content: bytes) -> None:
    assert "answered 403 without saying why" in refusal_of(api_of(FakeServer({NODES: Reply(403, content)}))).reason


def test_a_long_reason_is_cut() -> None:
    assert len(refusal_of(api_of(FakeServer({NODES: status(403, "x" * 100_000)}))).reason) == MAX_REASON


@pytest.mark.parametrize(
    ("failure", "kind", "tries"),
    [
        (FailureKind.RESET, MissingKind.ERROR, 3),
        (FailureKind.TIMEOUT, MissingKind.TIMEOUT, 2),
        (FailureKind.UNREACHABLE, MissingKind.ERROR, 1),
        (FailureKind.TLS, MissingKind.ERROR, 1),
        (FailureKind.CREDENTIALS, MissingKind.ERROR, 1),
    ],
)
def test_no_answer_is_tried_again_where_that_may_help(failure: FailureKind, kind: MissingKind, tries: int) -> None:
    server = FakeServer({NODES: Reply(failure=failure)})

    refusal = refusal_of(api_of(server))

    assert (refusal.kind, refusal.failure, len(server.asked)) == (kind, failure, tries)
    assert failure.value in refusal.reason


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    server = FakeServer({NODES: [Reply(content=b'{"ite', breaks=FailureKind.RESET), document({"items": []})]})

    assert api_of(server).read(NODES).content == b'{"items":[]}'


def test_every_answer_is_given_back() -> None:
    server = FakeServer({NODES: [Reply(breaks=FailureKind.RESET), status(503, "busy"), document({})]})

    api_of(server).read(NODES)

    assert [answer.is_closed for answer in server.answers] == [True, True, True]


def later(seconds: int) -> str:
    moment = datetime.datetime(2026, 11, 24, 0, 13, 31, tzinfo=datetime.timezone.utc)
    return (moment + datetime.timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(("said", "least"), [("7", 7.0), (later(20), 20.0), (later(-5), 0.0), ("soon", 0.0), ("", 0.0)])
def test_a_pause_is_at_least_as_long_as_the_server_asks(said: str, least: float) -> None:
    pauses: list[float] = []
    server = FakeServer({NODES: [status(429, "slow down", **{"retry-after": said}), document({})]})

    api_of(server, pauses).read(NODES)

    assert len(pauses) == 1
    assert least <= pauses[0] <= least + 0.25


def test_a_server_that_wants_to_be_left_alone_beyond_the_deadline_is() -> None:
    pauses: list[float] = []
    server = FakeServer({NODES: status(429, "come back tomorrow", **{"retry-after": "86400"})})

    assert refusal_of(api_of(server, pauses)).reason == "come back tomorrow"
    assert (len(server.asked), pauses) == (1, [])


def test_nothing_is_asked_when_time_is_over() -> None:
    server = FakeServer({NODES: document({})})

    refusal = refusal_of(api_of(server, limit_s=0.0))

    assert (refusal.kind, server.asked) == (MissingKind.TIMEOUT, [])
    assert "0 s" in refusal.reason


def test_a_body_that_drips_ends_with_the_deadline() -> None:
    now = iter([0.0, 0.0, 1.0, 30.0, 61.0])
    server = FakeServer({NODES: Reply(content=b"x" * 10_000)})
    api = Api(server, deadline=Deadline(60.0, clock=lambda: next(now, 99.0)), patience=Patience(attempts=1))

    assert refusal_of(api).kind is MissingKind.TIMEOUT
    assert server.answers[0].is_closed


def test_credentials_that_are_refused_get_one_more_try() -> None:
    server = FakeServer({NODES: [status(401, "Unauthorized"), document({"a": 1})]})

    assert api_of(server).read(NODES).content == b'{"a":1}'


def test_after_two_401s_nothing_is_asked_any_more() -> None:
    server = FakeServer({NODES: status(401, "Unauthorized"), "/version": document({})})
    api = api_of(server)

    first, second = refusal_of(api), refusal_of(api, "/version")

    assert [(one.kind, one.reason, one.status) for one in (first, second)] == [
        (MissingKind.FORBIDDEN, "Unauthorized", 401),
        (MissingKind.FORBIDDEN, "Unauthorized", 401),
    ]
    assert server.paths() == [NODES, NODES]


def test_the_clock_is_the_first_answers() -> None:
    other = {"date": "Wed, 25 Nov 2026 00:00:00 GMT"}
    server = FakeServer({"/version": Reply(headers={"date": DATE}), NODES: Reply(headers=other)})
    api = api_of(server)

    api.read("/version")
    api.read(NODES)

    assert api.clock == datetime.datetime(2026, 11, 24, 0, 13, 31, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 2026 00:13:31 GMT", "0" * 10_000])
def test_a_server_without_a_clock_has_none(date: str) -> None:
    api = api_of(FakeServer({NODES: Reply(headers={"date": date})}))

    api.read(NODES)

    assert api.clock is None


def test_only_the_end_is_kept_where_no_more_is_wanted() -> None:
    content = bytes(place % 251 for place in range(100_000))
    body = api_of(FakeServer({NODES: Reply(content=content)})).read(NODES, tail_bytes=5_000)

    assert content.endswith(body.content)
    assert 5_000 <= len(body.content) <= 6_000


@pytest.mark.parametrize(
    ("server_name", "context", "packed"),
    [
        ("https://10.0.0.1:6443", "far", True),
        ("https://10.43.0.1:443", "in-cluster", False),
        ("http://127.0.0.1:8001", "near", False),
        ("https://[::1]:6443", "near", False),
        ("https://localhost:6443", "near", False),
    ],
)
def test_answers_are_packed_only_where_the_way_is_long(server_name: str, context: str, *, packed: bool) -> None:
    server = FakeServer({NODES: document({})})
    server.server, server.context = server_name, context

    api_of(server).read(NODES)

    assert (server.headers[0].get("Accept-Encoding") == "gzip") is packed


def test_pauses_grow_and_are_bounded() -> None:
    pauses: list[float] = []
    routes: dict[str, Route] = {NODES: status(503, "busy")}
    patience = Patience(attempts=12, first_s=1.0, most_s=4.0, pause=pauses.append)

    refusal_of(Api(FakeServer(routes), deadline=Deadline(1000.0), patience=patience))

    assert len(pauses) == 11
    assert all(0.0 <= pause <= min(2.0**place, 4.0) for place, pause in enumerate(pauses))

"""Faults on demand: how they are written, which requests meet them, and what a client then sees."""

import contextlib
import http.client
import json
import re
import socket
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.errors import UsageError
from kube_gpucheck.simulate.faults import Fault, FaultKind, Faults, check_places, parse_fault
from kube_gpucheck.simulate.routes import Asking
from kube_gpucheck.simulate.server import EmbeddedCluster
from serving import Answer, ask, bundle_of

PODS = Asking("GET", "/api/v1/namespaces/a/pods", "limit=500", "list", "", "pods", "a")
LOG = Asking("GET", "/api/v1/namespaces/a/pods/p/log", "container=c", "get", "", "pods/log", "a", "p")
DAEMONSETS = Asking("GET", "/apis/apps/v1/daemonsets", "limit=500&continue=x", "list", "apps", "daemonsets")
VERSION = Asking("GET", "/version", "")
DISCOVERY = {
    "version": "v1.31.4",
    "groups": [
        {"name": "", "versions": ["v1"], "resources": ["nodes", "pods"]},
        {"name": "nvidia.com", "versions": ["v1"], "resources": ["clusterpolicies"]},
    ],
}
CUSTOM = {"version": "", "groups": [{"name": "example.com", "versions": ["v1"], "resources": ["widgets"]}]}
FILES = {"cluster/discovery.json": json.dumps(DISCOVERY).encode()}
ASKED = {"api": ["discovery", "nodes", "pods"]}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("reset", Fault(FaultKind.RESET)),
        ("reset-in-body:pods*2", Fault(FaultKind.RESET_IN_BODY, "pods", times=2)),
        ("429=5:nodes+1*1", Fault(FaultKind.TOO_MANY, "nodes", times=1, after=1, value="5")),
        ("401+10", Fault(FaultKind.UNAUTHORIZED, after=10)),
        ("403:@kube-system", Fault(FaultKind.FORBIDDEN, "@kube-system")),
        ("403:pods/log@a", Fault(FaultKind.FORBIDDEN, "pods/log@a")),
        ("slow=0.5:daemonsets.apps", Fault(FaultKind.SLOW, "daemonsets.apps", value="0.5")),
        ("500:/api/v1/(nodes|pods)[?]limit", Fault(FaultKind.INTERNAL, "/api/v1/(nodes|pods)[?]limit")),
        ("vanish:nvidia.com+3", Fault(FaultKind.VANISH, "nvidia.com", after=3)),
        ("huge=0.1:nodes", Fault(FaultKind.HUGE, "nodes", value="0.1")),
    ],
)
def test_a_fault_is_written_in_one_word(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected KIND"),
        ("418", "there is no '418'"),
        ("reset=1", "takes no value"),
        ("slow=long", "no number of seconds"),
        ("huge=-1", "no number of MB"),
        ("429=x:pods", "'x' is no whole number of seconds (Retry-After); write it as in '429=5'"),
        ("503=1.5", "no whole number of seconds"),
        ("vanish", "which API group"),
        ("500:/([", "no regular expression"),
        ("500:No Kind", "is no place"),
        ("500:pods*x", "is no place"),
        ("RESET", "expected KIND"),
    ],
)
def test_what_is_no_fault_is_refused_with_a_way_out(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_fault(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reset:podz", "there is no kind 'podz'; did you mean 'pods'"),
        ("reset:daemonsets", "there is no kind 'daemonsets'; did you mean 'daemonsets.apps'; 'kubectl api-resources"),
        ("403:podz/log@a", "there is no kind 'podz'"),
        ("403:pods/lgo", "'lgo' is no subresource here; write log, proxy, status"),
        ("vanish:nvidia.con", "there is no API group 'nvidia.con'; did you mean 'nvidia.com'"),
    ],
)
def test_a_fault_that_no_request_can_meet_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        check_places([parse_fault(text)], {"pods", "daemonsets.apps", "clusterpolicies.nvidia.com"})


def test_a_fault_of_a_kind_that_is_known_or_served_is_taken() -> None:
    files = {"cluster/discovery.json": json.dumps(CUSTOM).encode()}
    with EmbeddedCluster(bundle_of(files, asked=ASKED), name="t") as cluster:
        kinds = cluster.api.kinds
    texts = ("reset", "403:@a", "500:/version", "reset:widgets.example.com", "403:jobs.batch@a", "vanish:example.com")
    check_places([parse_fault(text) for text in texts], kinds)


@given(st.text(max_size=60))
def test_any_text_is_a_fault_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(parse_fault(text).kind, FaultKind)


@pytest.mark.parametrize(
    ("where", "hit"),
    [
        ("", [PODS, LOG, DAEMONSETS, VERSION]),
        ("pods", [PODS]),
        ("pods/log", [LOG]),
        ("pods@a", [PODS]),
        ("pods@b", []),
        ("@a", [PODS, LOG]),
        ("daemonsets", []),
        ("daemonsets.apps", [DAEMONSETS]),
        ("/version", [VERSION]),
        ("/pods[?]limit", [PODS]),
    ],
)
def test_a_fault_is_met_by_the_requests_that_it_names(where: str, hit: list[Asking]) -> None:
    fault = Fault(FaultKind.INTERNAL, where)

    assert [one for one in (PODS, LOG, DAEMONSETS, VERSION) if fault.hits(one)] == hit


def test_expired_pages_are_those_after_the_first() -> None:
    assert [one for one in (PODS, DAEMONSETS) if Fault(FaultKind.EXPIRED).hits(one)] == [DAEMONSETS]


def test_a_fault_begins_after_some_requests_and_ends_after_some_more() -> None:
    faults = Faults([Fault(FaultKind.RESET, "pods", after=2, times=2)])

    assert [bool(faults.met(one)) for one in (PODS, VERSION, PODS, PODS, PODS, PODS)] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def faulty(*texts: str) -> EmbeddedCluster:
    """Return a small cluster with faults."""
    bundle = bundle_of(FILES, asked=ASKED)
    return EmbeddedCluster(bundle, name="faulty", faults=[parse_fault(text) for text in texts])


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("401", 401, "Unauthorized"),
        ("403", 403, "Forbidden"),
        ("500", 500, "InternalError"),
        ("503", 503, "ServiceUnavailable"),
        ("504", 504, "Timeout"),
    ],
)
def test_a_refusal_is_a_status_as_upstream_s(text: str, status: int, reason: str) -> None:
    with faulty(text) as cluster:
        answer = ask(cluster, "/api/v1/pods")

    assert (answer.status, answer.document["reason"], answer.document["code"]) == (status, reason, status)


def test_what_is_forbidden_is_said_in_upstream_s_words() -> None:
    with faulty("403") as cluster:
        listed = ask(cluster, "/apis/apps/v1/namespaces/a/daemonsets").document["message"]
        got = ask(cluster, "/api/v1/nodes/n").document["message"]

    assert listed == (
        'daemonsets.apps is forbidden: User "simulated" cannot list resource "daemonsets" in API group "apps" '
        'in the namespace "a"'
    )
    assert got == (
        'nodes "n" is forbidden: User "simulated" cannot get resource "nodes" in API group "" at the cluster scope'
    )


@pytest.mark.parametrize(("text", "after"), [("429", "1"), ("429=7", "7"), ("503=2", "2"), ("503", None)])
def test_the_server_says_when_to_come_back(text: str, after: str | None) -> None:
    with faulty(text) as cluster:
        assert ask(cluster, "/api/v1/pods").headers.get("retry-after") == after


@pytest.mark.parametrize(("text", "status"), [("502", 502), ("html", 200)])
def test_a_proxy_speaks_html(text: str, status: int) -> None:
    with faulty(text) as cluster:
        answer = ask(cluster, "/api/v1/pods")

    assert (answer.status, answer.headers["content-type"]) == (status, "text/html")


def test_a_connection_is_reset_before_the_answer() -> None:
    with faulty("reset") as cluster, pytest.raises(ConnectionResetError):
        ask(cluster, "/api/v1/pods")


def test_a_connection_is_reset_in_the_middle_of_the_body() -> None:
    with faulty("reset-in-body") as cluster:
        connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=10)
        connection.request("GET", "/api/v1/pods")
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()
        connection.close()


def test_a_truncated_answer_looks_whole_and_is_no_json() -> None:
    with faulty("truncated") as cluster:
        answer = ask(cluster, "/api/v1/pods")

    assert answer.status == 200
    assert int(answer.headers["content-length"]) == len(answer.body)
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


def test_a_slow_body_takes_its_time_and_is_whole() -> None:
    with faulty("slow=0.3:pods") as cluster:
        began = time.monotonic()
        answer = ask(cluster, "/api/v1/pods")

        assert time.monotonic() - began > 0.25
        assert answer.names == ["web"]


def test_a_body_that_stalls_ends_with_the_server() -> None:
    with faulty("stall") as cluster:
        connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=0.3)
        connection.request("GET", "/api/v1/pods")
        response = connection.getresponse()
        with pytest.raises(TimeoutError):
            response.read()
        connection.close()


@pytest.mark.parametrize("path", ["/api/v1/pods", "/api/v1/namespaces/default/pods/web"])
def test_one_object_is_huge_and_says_the_same_besides(path: str) -> None:
    def first(answer: Answer) -> dict[str, object]:
        document = answer.document
        item = document["items"][0] if "items" in document else document
        item["metadata"].pop("annotations", None)
        return dict(item)

    with faulty("huge=0.5*1") as cluster:
        huge, usual = ask(cluster, path), ask(cluster, path)

    assert len(huge.body) > 500_000 > len(usual.body)
    assert first(huge) == first(usual)


def test_a_group_vanishes_from_discovery_and_from_its_paths() -> None:
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    with faulty("vanish:nvidia.com+1") as cluster:
        before = ask(cluster, "/apis", headers=accept).document["items"]
        after = ask(cluster, "/apis", headers=accept).document["items"]
        gone = ask(cluster, "/apis/nvidia.com/v1/clusterpolicies")

    assert [len(before), len(after), gone.status] == [1, 0, 404]


def test_faults_are_met_one_after_the_other_on_one_connection() -> None:
    with faulty("500*1", "429*1", "truncated:pods*1") as cluster:
        connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=10)
        statuses = []
        for _ in range(4):
            connection.request("GET", "/api/v1/pods")
            response = connection.getresponse()
            statuses.append(response.status)
            response.read()
        connection.close()

    assert statuses == [500, 429, 200, 200]


def test_a_reset_leaves_no_socket_behind() -> None:
    with faulty("reset*1") as cluster:
        place = urlsplit(cluster.url)
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert ask(cluster, "/livez").body == b"ok"

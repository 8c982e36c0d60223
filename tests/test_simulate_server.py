"""The embedded cluster as a client meets it: paths, pages, selectors, discovery, connections."""

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import yaml

from bundle_builders import listed, node, pod
from kube_gpucheck.simulate.server import MAX_BODY_BYTES, EmbeddedCluster, TlsFiles
from serving import ask, bundle_of, everything
from suite import LIBRARY

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
DISCOVERY: dict[str, Any] = {
    "version": "v1.31.4+rke2r1",
    "groups": [
        {"name": "", "versions": ["v1"], "resources": ["nodes", "pods", "events", "namespaces"]},
        {"name": "apps", "versions": ["v1"], "resources": None},
        {"name": "resource.k8s.io", "versions": ["v1beta2", "v1beta1"], "resources": ["resourceslices"]},
        {"name": "example.com", "versions": ["v1"], "resources": ["gadgets", "policies"]},
    ],
}
ASKED = {"api": ["discovery", "nodes", "pods", "events", "namespaces", "daemonsets.apps", "gadgets.example.com"]}
GADGET = {"apiVersion": "example.com/v1", "kind": "GadGet", "metadata": {"name": "g", "namespace": "default"}}
FILES = {
    "cluster/discovery.json": json.dumps(DISCOVERY).encode(),
    "cluster/pods.json": listed(
        *({**pod(f"p{number}"), "spec": {"nodeName": f"n{number % 2}"}} for number in range(7))
    ),
    "cluster/namespaces.json": listed({"metadata": {"name": "default"}}),
    "cluster/gadgets.example.com.json": listed(GADGET),
}


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(bundle_of(FILES, asked=ASKED), name="test") as running:
        yield running


def reason_of(answer: Any) -> tuple[int, str, str]:
    document = answer.document
    assert document["kind"] == "Status"
    assert document["code"] == answer.status
    return answer.status, document.get("reason", ""), document["message"]


def test_the_server_answers_with_the_clock_of_the_bundle(cluster: EmbeddedCluster) -> None:
    assert ask(cluster, "/version").headers["date"] == "Thu, 01 Jan 2026 00:00:00 GMT"


def test_the_server_tells_the_version_that_the_bundle_tells(cluster: EmbeddedCluster) -> None:
    version = ask(cluster, "/version").document

    assert (version["gitVersion"], version["major"], version["minor"]) == ("v1.31.4+rke2r1", "1", "31")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_the_server_is_healthy(cluster: EmbeddedCluster, path: str) -> None:
    assert ask(cluster, path).body == b"ok"


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
def test_the_pages_of_a_list_are_the_list_in_the_bundle_s_order(cluster: EmbeddedCluster, limit: int) -> None:
    items = everything(cluster, "/api/v1/pods", limit)

    assert items == json.loads(FILES["cluster/pods.json"])["items"]


def test_a_page_tells_how_many_are_left_and_the_last_one_does_not(cluster: EmbeddedCluster) -> None:
    first = ask(cluster, "/api/v1/pods", query={"limit": 3}).document["metadata"]
    last = ask(cluster, "/api/v1/pods", query={"limit": 4, "continue": first["continue"]}).document["metadata"]

    assert first["remainingItemCount"] == 4
    assert set(last) == {"resourceVersion"}


def test_a_selected_page_does_not_tell_how_many_are_left(cluster: EmbeddedCluster) -> None:
    query = {"limit": 1, "fieldSelector": "spec.nodeName=n0"}
    metadata = ask(cluster, "/api/v1/pods", query=query).document["metadata"]

    assert "continue" in metadata
    assert "remainingItemCount" not in metadata


def test_what_is_created_or_deleted_between_two_pages_moves_no_object_to_another_page(cluster: EmbeddedCluster) -> None:
    first = ask(cluster, "/api/v1/pods", query={"limit": 3})
    token = first.document["metadata"]["continue"]
    ask(cluster, "/api/v1/namespaces/default/pods/p0", "DELETE", query={"gracePeriodSeconds": 0})
    ask(cluster, "/api/v1/namespaces/default/pods", "POST", body=pod("late"))
    rest = ask(cluster, "/api/v1/pods", query={"limit": 500, "continue": token})

    assert first.names == ["p0", "p1", "p2"]
    assert rest.names == ["p3", "p4", "p5", "p6"]
    assert ask(cluster, "/api/v1/pods").names == ["p1", "p2", "p3", "p4", "p5", "p6", "late"]


@pytest.mark.parametrize("text", ["x", "!!!", "MTAw", "Og", "LTU6LTU", "é"])
def test_a_token_that_is_none_is_refused(cluster: EmbeddedCluster, text: str) -> None:
    answer = ask(cluster, "/api/v1/pods", query={"continue": text})

    assert reason_of(answer)[:2] == (400, "BadRequest")


def test_a_limit_that_is_no_number_is_refused(cluster: EmbeddedCluster) -> None:
    assert reason_of(ask(cluster, "/api/v1/pods", query={"limit": "many"}))[:2] == (400, "BadRequest")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"fieldSelector": "spec.nodeName=n1"}, ["p1", "p3", "p5"]),
        ({"fieldSelector": "metadata.name=p4"}, ["p4"]),
        ({"fieldSelector": "spec.nodeName!=n1,metadata.name!=p0"}, ["p2", "p4", "p6"]),
        ({"labelSelector": "app=x"}, []),
        ({"labelSelector": "!app"}, [f"p{number}" for number in range(7)]),
    ],
)
def test_selectors_select(cluster: EmbeddedCluster, query: dict[str, str], names: list[str]) -> None:
    assert ask(cluster, "/api/v1/pods", query=query).names == names


def test_a_field_that_cannot_be_selected_by_is_refused_in_upstream_s_words(cluster: EmbeddedCluster) -> None:
    answer = ask(cluster, "/api/v1/pods", query={"fieldSelector": "spec.nodes=1"})

    assert reason_of(answer) == (400, "BadRequest", "field label not supported: spec.nodes")


def test_a_list_is_cut_to_a_namespace(cluster: EmbeddedCluster) -> None:
    assert len(ask(cluster, "/api/v1/namespaces/default/pods").names) == 7
    assert ask(cluster, "/api/v1/namespaces/elsewhere/pods").names == []


def test_an_object_is_given_by_name_with_its_kind(cluster: EmbeddedCluster) -> None:
    found = ask(cluster, "/api/v1/namespaces/default/pods/p3").document

    assert (found["kind"], found["apiVersion"], found["metadata"]["name"]) == ("Pod", "v1", "p3")


def test_an_object_that_is_not_there_is_said_so(cluster: EmbeddedCluster) -> None:
    answer = ask(cluster, "/api/v1/namespaces/default/pods/nobody")

    assert reason_of(answer) == (404, "NotFound", 'pods "nobody" not found')


@pytest.mark.parametrize(
    "path", ["/api/v1/widgets", "/apis/nvidia.com/v1/clusterpolicies", "/apis/resource.k8s.io/v1/resourceslices", "/x"]
)
def test_what_is_not_served_is_said_as_upstream_says_it(cluster: EmbeddedCluster, path: str) -> None:
    assert reason_of(ask(cluster, path)) == (404, "NotFound", "the server could not find the requested resource")


def test_secrets_are_never_given() -> None:
    with EmbeddedCluster(LIBRARY.build("recorded/healthy"), name="test") as cluster:
        assert reason_of(ask(cluster, "/api/v1/secrets"))[:2] == (403, "Forbidden")
        assert reason_of(ask(cluster, "/api/v1/namespaces/default/secrets/x"))[:2] == (403, "Forbidden")


@pytest.mark.parametrize(("accept", "version"), [(f"{V2},{V2BETA1}", "v2"), (f"{V2BETA1},application/json", "v2beta1")])
def test_aggregated_discovery_lists_what_the_bundle_knows(cluster: EmbeddedCluster, accept: str, version: str) -> None:
    core = ask(cluster, "/api", headers={"Accept": accept})
    groups = ask(cluster, "/apis", headers={"Accept": accept})

    assert groups.headers["content-type"].partition("v=")[2] == f"{version};as=APIGroupDiscoveryList"
    assert groups.document["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    found = {
        one["metadata"].get("name", ""): one["versions"] for one in core.document["items"] + groups.document["items"]
    }
    assert {name: [one["version"] for one in versions] for name, versions in found.items()} == {
        group["name"]: group["versions"] for group in DISCOVERY["groups"]
    }
    resources = {one["resource"]: one for one in found["example.com"][0]["resources"]}
    assert resources["gadgets"]["responseKind"]["kind"] == "GadGet"
    assert resources["gadgets"]["scope"] == "Namespaced"
    assert resources["policies"]["responseKind"]["kind"] == "Policy"
    assert found["example.com"][0]["freshness"] == "Current"


def test_a_group_of_which_only_the_name_is_known_is_not_said_to_be_current(cluster: EmbeddedCluster) -> None:
    groups = ask(cluster, "/apis", headers={"Accept": V2}).document["items"]
    apps = next(one["versions"][0] for one in groups if one["metadata"]["name"] == "apps")

    assert "freshness" not in apps
    assert "daemonsets" in {one["resource"] for one in apps["resources"]}


def test_old_clients_find_the_same_by_the_old_lists(cluster: EmbeddedCluster) -> None:
    assert ask(cluster, "/api").document["versions"] == ["v1"]
    groups = ask(cluster, "/apis").document["groups"]
    assert [one["name"] for one in groups] == ["apps", "resource.k8s.io", "example.com"]
    assert groups[1]["preferredVersion"]["groupVersion"] == "resource.k8s.io/v1beta2"
    assert [one["name"] for one in ask(cluster, "/api/v1").document["resources"]] == DISCOVERY["groups"][0]["resources"]
    assert ask(cluster, "/apis/example.com").document["name"] == "example.com"
    assert ask(cluster, "/apis/example.com/v2").status == 404


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b'{"items": 5}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_list_is_sent_as_it_is(content: bytes) -> None:
    with EmbeddedCluster(bundle_of({"cluster/pods.json": content}), name="test") as cluster:
        answer = ask(cluster, "/api/v1/pods")

        assert (answer.status, answer.body) == (200, content)


def test_items_that_are_no_objects_are_sent_and_cost_no_other() -> None:
    items = [1, None, {"metadata": 5}, {"metadata": {"name": 7}}, pod("web")]
    content = json.dumps({"items": items}).encode()
    with EmbeddedCluster(bundle_of({"cluster/pods.json": content}), name="test") as cluster:
        assert ask(cluster, "/api/v1/pods").document["items"] == items
        assert ask(cluster, "/api/v1/pods", query={"fieldSelector": "metadata.name=web"}).names == ["web"]
        assert ask(cluster, "/api/v1/namespaces/default/pods/web").status == 200


def test_a_list_of_one_item_a_line_is_the_same_list() -> None:
    items = [node("a"), node("b"), node("c")]
    lines = b",\n".join(json.dumps(one).encode() for one in items)
    whole = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n' + lines + b"\n]}\n"
    empty = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n]}\n'
    with EmbeddedCluster(bundle_of({"cluster/nodes.json": whole, "cluster/events.json": empty}), name="t") as cluster:
        assert ask(cluster, "/api/v1/nodes").document["items"] == items
        assert ask(cluster, "/api/v1/events").document["items"] == []


def test_one_connection_carries_many_requests(cluster: EmbeddedCluster) -> None:
    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=10)
    for _ in range(3):
        connection.request("GET", "/api/v1/nodes")
        assert len(json.loads(connection.getresponse().read())["items"]) == 1
    connection.close()


def test_a_head_request_gets_no_body(cluster: EmbeddedCluster) -> None:
    assert ask(cluster, "/api/v1/nodes", "HEAD").body == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"Content-Length: {MAX_BODY_BYTES + 1}", b"413"),
        ("Content-Length: many", b"400"),
        ("Content-Length: -5", b"400"),
        ("Transfer-Encoding: chunked", b"400"),
    ],
)
def test_a_body_that_is_too_large_or_of_no_known_length_is_refused(
    cluster: EmbeddedCluster, head: str, status: bytes
) -> None:
    place = urlsplit(cluster.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as connection:
        connection.sendall(f"POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] == status


def test_what_is_no_http_ends_the_connection_and_nothing_else(cluster: EmbeddedCluster) -> None:
    place = urlsplit(cluster.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\x00\x00\r\n\r\n")
        assert b"400" in connection.recv(1000)
    assert ask(cluster, "/livez").status == 200


def test_what_was_asked_is_remembered_as_access_rules_speak_of_it(cluster: EmbeddedCluster) -> None:
    ask(cluster, "/apis/apps/v1/namespaces/a/daemonsets", query={"limit": 1})
    ask(cluster, "/api/v1/namespaces/a/pods/p/log", query={"container": "c"})
    ask(cluster, "/api/v1/namespaces/a")
    ask(cluster, "/api/v1/nodes", query={"watch": "1", "timeoutSeconds": 1})
    ask(cluster, "/version")

    assert [(one.verb, one.group, one.resource, one.namespace, one.name) for one in cluster.requests] == [
        ("list", "apps", "daemonsets", "a", None),
        ("get", "", "pods/log", "a", "p"),
        ("get", "", "namespaces", None, "a"),
        ("watch", "", "nodes", None, None),
        ("", "", "", None, None),
    ]
    assert cluster.requests[0].query == "limit=1"


def test_leaving_ends_every_connection_and_frees_the_port() -> None:
    with EmbeddedCluster(bundle_of(), name="test") as cluster:
        place = urlsplit(cluster.url)
        idle = socket.create_connection((place.hostname or "", place.port or 0), timeout=10)
        watching = http.client.HTTPConnection(place.netloc, timeout=10)
        watching.request("GET", "/api/v1/pods?watch=1")
        response = watching.getresponse()
        assert b"ADDED" in response.readline()
    assert idle.recv(1) == b""
    assert b"ADDED" not in response.read()
    idle.close()
    watching.close()
    with EmbeddedCluster(bundle_of(), name="test", port=place.port or 0) as again:
        assert ask(again, "/livez").status == 200
    assert not [one for one in threading.enumerate() if one.name == "simulated-test"]


def test_many_clients_at_once_see_all_and_lose_nothing() -> None:
    pods = listed(*(pod(f"p{number}") for number in range(2000)))
    with EmbeddedCluster(bundle_of({"cluster/pods.json": pods}), name="test") as cluster:

        def work(number: int) -> list[int]:
            made = ask(cluster, "/api/v1/namespaces/default/pods", "POST", body=pod(f"made-{number}"))
            named = ask(cluster, f"/api/v1/namespaces/default/pods/p{number}")
            there = ask(cluster, f"/api/v1/namespaces/default/pods/made-{number}")
            return [made.status, named.status, there.status, len(ask(cluster, "/api/v1/pods").document["items"]) > 2000]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(work, range(40)))
        names = ask(cluster, "/api/v1/pods").names

    assert answers == [[201, 200, 200, True]] * 40
    assert len(names) == len(set(names)) == 2040


def test_a_taken_port_is_said_so() -> None:
    with EmbeddedCluster(bundle_of(), name="test") as cluster, pytest.raises(OSError, match="in use"):
        EmbeddedCluster(bundle_of(), name="test", port=urlsplit(cluster.url).port or 0)


def test_the_server_listens_on_loopback_alone(cluster: EmbeddedCluster) -> None:
    assert urlsplit(cluster.url).hostname == "127.0.0.1"


def test_the_kubeconfig_names_the_cluster_simulated(cluster: EmbeddedCluster) -> None:
    config = yaml.safe_load(cluster.kubeconfig())

    assert config["current-context"] == "simulated-test"
    assert config["clusters"][0]["cluster"] == {"server": cluster.url}


def test_the_server_speaks_tls_with_the_certificate_that_it_is_given(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(files.key)
    certificate.cert_chain_pems[0].write_to_path(files.certificate)
    authority.cert_pem.write_to_path(files.authority)
    with EmbeddedCluster(bundle_of(), name="test", tls=files) as cluster:
        config = yaml.safe_load(cluster.kubeconfig())["clusters"][0]["cluster"]
        trusting = ssl.create_default_context(cafile=config["certificate-authority"])
        connection = http.client.HTTPSConnection(urlsplit(cluster.url).netloc, timeout=10, context=trusting)
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"ok"
        connection.close()
        strange = http.client.HTTPSConnection(urlsplit(cluster.url).netloc, timeout=10)
        with pytest.raises(ssl.SSLCertVerificationError):
            strange.request("GET", "/livez")
        strange.close()

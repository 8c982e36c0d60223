"""What a server serves: from one aggregated document, or from the old ones; what cannot be told is unknown."""

import pytest

from fake_server import FakeServer, Reply, Route, api_of, discovery, document, status, workers
from kube_gpucheck.collect.discovery import Discovery, read_discovery, read_version
from kube_gpucheck.evidence.bundle import GroupRecord
from kube_gpucheck.model import MissingKind


def read(routes: dict[str, Route]) -> tuple[FakeServer, Discovery]:
    server = FakeServer(routes)
    with workers(2) as pool:
        return server, read_discovery(api_of(server), pool, "v1.36.2")


OLD: dict[str, Route] = {
    "/api": document({"kind": "APIVersions", "versions": ["v1"]}),
    "/apis": document(
        {
            "kind": "APIGroupList",
            "groups": [
                {
                    "name": "resource.k8s.io",
                    "versions": [{"version": "v1beta1"}, {"version": "v1"}],
                    "preferredVersion": {"version": "v1"},
                },
                {"name": "metrics.k8s.io", "versions": [{"version": "v1beta1"}]},
            ],
        }
    ),
    "/api/v1": document({"kind": "APIResourceList", "resources": [{"name": "pods"}, {"name": "pods/log"}]}),
    "/apis/resource.k8s.io/v1": document({"kind": "APIResourceList", "resources": [{"name": "resourceslices"}]}),
    "/apis/resource.k8s.io/v1beta1": document({"kind": "APIResourceList", "resources": [{"name": "deviceclasses"}]}),
    "/apis/metrics.k8s.io/v1beta1": status(503, "the server is currently unable to handle the request"),
}


def test_aggregated_discovery_takes_two_requests() -> None:
    server, found = read(discovery(core=["pods", "nodes"], apps=["daemonsets"]))

    assert server.paths() == ["/api", "/apis"]
    assert found.refusal is None
    assert found.record.groups == (
        GroupRecord("", ("v1",), ("pods", "nodes")),
        GroupRecord("apps", ("v1",), ("daemonsets",)),
    )
    assert found.paths("pods") == ("/api/v1/pods",)
    assert found.paths("daemonsets.apps") == ("/apis/apps/v1/daemonsets",)
    assert found.namespaced("daemonsets.apps", "a") == ("/apis/apps/v1/namespaces/a/daemonsets",)
    assert found.paths("jobs.batch") == found.paths("deployments.apps") == ()


def test_an_old_server_is_asked_group_by_group_and_one_that_is_gone_costs_no_other() -> None:
    _, found = read(OLD)

    assert found.record.groups == (
        GroupRecord("", ("v1",), ("pods",)),
        GroupRecord("resource.k8s.io", ("v1", "v1beta1"), ("resourceslices", "deviceclasses")),
        GroupRecord("metrics.k8s.io", ("v1beta1",), None),
    )
    assert found.paths("resourceslices.resource.k8s.io") == ("/apis/resource.k8s.io/v1/resourceslices",)
    assert found.paths("deviceclasses.resource.k8s.io") == ("/apis/resource.k8s.io/v1beta1/deviceclasses",)
    assert found.paths("nodes.metrics.k8s.io") == ("/apis/metrics.k8s.io/v1beta1/nodes",)


@pytest.mark.parametrize("freshness", [{"freshness": "Stale"}, {}])
def test_a_group_whose_list_may_be_old_is_unknown_and_tried(freshness: dict[str, str]) -> None:
    versions = [{"version": "v1", "resources": [{"resource": "things"}], **freshness}]
    group = {"metadata": {"name": "example.org"}, "versions": versions}
    routes = discovery(core=["pods"])
    routes["/apis"] = document({"kind": "APIGroupDiscoveryList", "items": [group]})
    _, found = read(routes)

    assert found.record.groups[-1] == GroupRecord("example.org", ("v1",), None)
    assert found.paths("others.example.org") == ("/apis/example.org/v1/others",)
    assert not found.tells("things.example.org")
    assert found.tells("pods")


def test_the_version_that_serves_a_kind_comes_first() -> None:
    versions = [
        {"version": "v1", "freshness": "Current", "resources": [{"resource": "other"}]},
        {"version": "v1beta2", "freshness": "Current", "resources": [{"resource": "things"}]},
        {"version": "v1beta1", "freshness": "Current", "resources": [{"resource": "things"}]},
    ]
    routes = discovery()
    routes["/apis"] = document(
        {"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "x.org"}, "versions": versions}]}
    )
    _, found = read(routes)

    assert found.paths("things.x.org") == ("/apis/x.org/v1beta2/things", "/apis/x.org/v1beta1/things")


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (status(403, "no"), MissingKind.FORBIDDEN, "no"),
        (status(504, "slow"), MissingKind.TIMEOUT, "slow"),
        (Reply(content=b""), MissingKind.UNPARSABLE, "/apis is no discovery document"),
        (Reply(content=b'{"kind":"PodList"}'), MissingKind.UNPARSABLE, "/apis is no discovery document"),
        (Reply(content=b"[" * 50_000), MissingKind.UNPARSABLE, "/apis is no discovery document"),
    ],
)
def test_a_discovery_that_cannot_be_had_leaves_the_usual_places(reply: Reply, kind: MissingKind, words: str) -> None:
    _, found = read({**discovery(core=["pods"]), "/apis": reply})

    assert found.refusal is not None
    assert found.refusal.kind is kind
    assert found.refusal.reason.startswith(words)
    assert found.paths("pods") == ("/api/v1/pods",)
    assert "/apis/apps/v1/daemonsets" in found.paths("daemonsets.apps")


def test_a_document_that_was_garbled_once_is_read_the_second_time() -> None:
    routes = discovery(core=["pods"])
    good = routes["/api"]
    assert isinstance(good, Reply)
    _, found = read({**routes, "/api": [Reply(content=good.content[:-4]), good]})

    assert found.refusal is None


@pytest.mark.parametrize(
    ("content", "version"), [(b'{"gitVersion":"v1.2.3"}', "v1.2.3"), (b"{}", ""), (b"<", ""), (b"", "")]
)
def test_a_server_that_says_no_version_has_none(content: bytes, version: str) -> None:
    assert read_version(api_of(FakeServer({"/version": Reply(content=content)})), workers()) == version

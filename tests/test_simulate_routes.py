"""Paths of the Kubernetes API: what each names, and what is served there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.evidence.bundle import DiscoveryRecord, GroupRecord
from kube_gpucheck.simulate.answers import Request
from kube_gpucheck.simulate.resources import KNOWN, Served, is_known, resource_of
from kube_gpucheck.simulate.routes import Target, asking_of, target_of


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("", "v1", "pods")),
        ("/api/v1/nodes/n", Target("", "v1", "nodes", None, "n")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/api/v1/namespaces/a", Target("", "v1", "namespaces", None, "a")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "namespaces", None, "a", "status")),
        ("/api/v1/namespaces/a/finalize", Target("", "v1", "namespaces", None, "a", "finalize")),
        ("/api/v1/namespaces/a/pods", Target("", "v1", "pods", "a")),
        ("/api/v1/namespaces/a/pods/p/log", Target("", "v1", "pods", "a", "p", "log")),
        ("/api/v1/namespaces/a/pods/p:9400/proxy/a/b", Target("", "v1", "pods", "a", "p:9400", "proxy", "a/b")),
        ("/apis/apps/v1/daemonsets", Target("apps", "v1", "daemonsets")),
        ("/apis/apps/v1/namespaces/a/daemonsets/d", Target("apps", "v1", "daemonsets", "a", "d")),
        ("/api/v1/namespaces/a%20b/pods", Target("", "v1", "pods", "a b")),
        ("/api", None),
        ("/api/v1", None),
        ("/api//pods", None),
        ("/apis/apps", None),
        ("/apis/apps/v1", None),
        ("/apis/apps/v1/", None),
        ("/version", None),
        ("", None),
    ],
)
def test_a_path_names_what_upstream_says_that_it_names(path: str, target: Target | None) -> None:
    assert target_of(path) == target


@given(
    st.lists(st.sampled_from(["api", "apis", "v1", "namespaces", "pods", "", "a", "log", "%2f", "..", "é"]), max_size=9)
)
def test_any_path_names_something_or_nothing(parts: list[str]) -> None:
    target = target_of("/" + "/".join(parts))

    assert target is None or target.plural


@pytest.mark.parametrize(
    ("method", "path", "query", "verb"),
    [
        ("GET", "/api/v1/pods", {}, "list"),
        ("GET", "/api/v1/pods", {"watch": "true"}, "watch"),
        ("GET", "/api/v1/namespaces/a/pods/p", {}, "get"),
        ("HEAD", "/api/v1/nodes/n", {}, "get"),
        ("POST", "/api/v1/namespaces/a/pods", {}, "create"),
        ("PUT", "/api/v1/nodes/n", {}, "update"),
        ("PATCH", "/api/v1/nodes/n", {}, "patch"),
        ("DELETE", "/api/v1/nodes/n", {}, "delete"),
        ("DELETE", "/api/v1/nodes", {}, "deletecollection"),
        ("GET", "/version", {}, ""),
        ("BREW", "/api/v1/nodes", {}, ""),
    ],
)
def test_a_request_is_told_by_the_verb_of_access_rules(
    method: str, path: str, query: dict[str, str], verb: str
) -> None:
    assert asking_of(Request(method, path, query), "").verb == verb


RECORD = DiscoveryRecord(
    "v1.31.4",
    (
        GroupRecord("", ("v1",), ("nodes", "pods")),
        GroupRecord("apps", ("v1",)),
        GroupRecord("example.com", ("v2", "v1"), ("gadgets",)),
    ),
)


@pytest.mark.parametrize(
    ("group", "version", "plural", "served"),
    [
        ("", "v1", "nodes", True),
        ("", "v1", "services", False),
        ("", "v2", "nodes", False),
        ("apps", "v1", "daemonsets", True),
        ("apps", "v1", "anything", True),
        ("apps", "v1beta1", "daemonsets", False),
        ("example.com", "v1", "gadgets", True),
        ("example.com", "v2", "gadgets", True),
        ("nvidia.com", "v1", "clusterpolicies", False),
    ],
)
def test_what_discovery_lists_is_served(group: str, version: str, plural: str, *, served: bool) -> None:
    assert (Served(RECORD, {}).find(group, version, plural) is not None) is served


def test_without_discovery_whatever_is_asked_for_is_served() -> None:
    assert Served(None, {}).find("example.com", "v7", "gadgets") is not None
    assert Served(None, {}).without("example.com").find("example.com", "v1", "gadgets") is None
    assert Served(None, {}).without("example.com").find("apps", "v1", "daemonsets") is not None


def test_a_group_of_unknown_kinds_shows_the_usual_ones_and_those_of_the_bundle() -> None:
    served = Served(RECORD, {"oddities.apps": None})

    names = [one.plural for one in served.kinds(RECORD.groups[1])]
    assert names == sorted(names)
    assert {"daemonsets", "deployments", "oddities"} <= set(names)


@pytest.mark.parametrize(
    ("name", "sample", "kind", "namespaced"),
    [
        ("pods", None, "Pod", True),
        ("nodes", b'{"kind": "Wrong", "metadata": {"namespace": "a"}}', "Node", False),
        ("gadgets.example.com", None, "Gadget", True),
        ("policies.example.com", b"", "Policy", True),
        ("gadgets.example.com", b'{"kind": "GadGet", "metadata": {"name": "g"}}', "GadGet", False),
        ("gadgets.example.com", b'{"kind": 5}', "Gadget", True),
        ("gadgets.example.com", b"\xff{", "Gadget", True),
    ],
)
def test_a_kind_is_known_by_the_table_or_by_one_of_its_objects(
    name: str, sample: bytes | None, kind: str, *, namespaced: bool
) -> None:
    found = resource_of(name, sample)

    assert (found.kind, found.namespaced, found.name) == (kind, namespaced, name)


def test_the_table_names_each_kind_once() -> None:
    names = [one.name for kinds in KNOWN.values() for one in kinds]

    assert len(names) == len(set(names))
    assert all(is_known(name) for name in names)
    assert not is_known("gadgets.example.com")

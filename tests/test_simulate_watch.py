"""Watches: what a client is told of changes, and when one ends."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bundle_builders import listed, pod
from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.objects import FIRST_VERSION, REMEMBERED_CHANGES, Objects, Stored
from kube_gpucheck.simulate.resources import resource_of
from kube_gpucheck.simulate.server import EmbeddedCluster
from kube_gpucheck.simulate.watching import Watch, is_watch, watch_of, watched
from serving import ask, bundle_of

PODS = resource_of("pods")
NODES = resource_of("nodes")
NOW = "2026-01-01T00:00:00Z"
AT_ONCE = 0.001


def of(*names: str) -> Objects:
    objects = Objects(NOW)
    objects.load("pods", [json.dumps(pod(name)).encode() for name in names])
    return objects


def labelled(name: str, **labels: str) -> dict[str, Any]:
    document = pod(name)
    document["metadata"]["labels"] = labels
    return document


def told(events: Iterator[bytes]) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in events]
    return [(one["type"], one["object"]["metadata"].get("name", "")) for one in found]


def watch(objects: Objects, wanted: Callable[[Stored], bool] | None = None, **asked: Any) -> list[tuple[str, str]]:
    asked = {"timeout_s": AT_ONCE, **asked}
    return told(watched(objects, Watch("pods", **asked), wanted=wanted, shape=lambda document: document))


def test_a_watch_without_a_version_begins_with_what_is_there() -> None:
    assert watch(of("a", "b")) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_watch_from_a_version_tells_only_what_came_after_it() -> None:
    objects = of("a")
    objects.create(PODS, "default", pod("b"))
    version = objects.version
    objects.create(PODS, "default", pod("c"))
    objects.replace(PODS, "default", "c", pod("c"))
    objects.delete(PODS, "default", "b")
    objects.load("nodes", [])
    objects.create(NODES, None, {"metadata": {"name": "n"}})

    assert watch(objects, since=version) == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "b")]


def test_a_watch_from_a_version_of_the_recorded_cluster_tells_all_that_changed_since() -> None:
    objects = of("a")
    objects.create(PODS, "default", pod("b"))

    assert watch(objects, since=837) == [("ADDED", "b")]


def test_a_selector_turns_changes_into_comings_and_goings() -> None:
    objects = of()
    for labels in ({"a": "1"}, {"a": "2"}, {}, {"a": "1"}):
        document = labelled("p", **labels)
        if "p" in [one.meta.name for one in objects.list_of("pods")]:
            objects.replace(PODS, "default", "p", document)
        else:
            objects.create(PODS, "default", document)
    objects.create(PODS, "default", pod("other"))
    objects.delete(PODS, "default", "p")

    seen = watch(objects, lambda one: "a" in (one.meta.labels or {}), since=FIRST_VERSION)

    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert {name for _, name in seen} == {"p"}


def test_a_watch_of_a_namespace_is_told_of_no_other() -> None:
    objects = of("a")
    objects.create(PODS, "other", {"metadata": {"name": "b"}})

    assert watch(objects, namespace="other") == [("ADDED", "b")]
    assert watch(objects, namespace="default", since=FIRST_VERSION) == []


def test_a_version_that_is_forgotten_is_too_old() -> None:
    objects = of("a")
    version = objects.version + 1
    for _ in range(REMEMBERED_CHANGES + 5):
        objects.replace(PODS, "default", "a", pod("a"))

    (line,) = watched(objects, Watch("pods", since=version), shape=lambda document: document)
    error = json.loads(line)

    assert error["type"] == "ERROR"
    assert (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")
    assert error["object"]["message"] == f"too old resource version: {version} ({objects.version})"


def test_a_watch_of_a_quiet_kind_outlives_the_changes_of_others() -> None:
    objects = of("a")
    objects.load("nodes", [])
    objects.create(NODES, None, {"metadata": {"name": "n"}})
    quiet = Watch("pods", since=objects.version, timeout_s=60, bookmarks=True)
    events = watched(objects, quiet, shape=lambda document: document, bookmark_s=0)
    for number in range(REMEMBERED_CHANGES + 10):
        objects.replace(NODES, None, "n", {"metadata": {"name": "n"}})
        if number % 1_000 == 0:
            assert json.loads(next(events))["type"] == "BOOKMARK"
    objects.create(PODS, "default", pod("b"))

    assert json.loads(next(events))["object"]["metadata"]["name"] == "b"


def test_a_bookmark_says_how_far_a_watch_is() -> None:
    objects = of("a")
    objects.load("nodes", [])
    objects.create(NODES, None, {"metadata": {"name": "n"}})
    events = watched(
        objects,
        Watch("pods", since=FIRST_VERSION, timeout_s=AT_ONCE, bookmarks=True),
        shape=lambda document: {"kind": "Pod", **document},
    )

    assert [json.loads(line) for line in events] == [
        {
            "type": "BOOKMARK",
            "object": {
                "kind": "Pod",
                "metadata": {"resourceVersion": str(objects.version), "creationTimestamp": None},
            },
        }
    ]


def test_bookmarks_come_only_to_those_who_take_them() -> None:
    assert watch(of(), since=FIRST_VERSION) == []


def test_initial_events_end_with_a_bookmark_that_says_so() -> None:
    lines = list(watched(of("a"), Watch("pods", timeout_s=AT_ONCE, initial=True), shape=lambda document: document))

    assert [json.loads(line)["type"] for line in lines] == ["ADDED", "BOOKMARK"]
    assert json.loads(lines[1])["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_ends_when_the_server_stops() -> None:
    stopped = threading.Event()
    objects = of()
    ended = threading.Event()

    def read() -> None:
        list(watched(objects, Watch("pods"), shape=lambda document: document, stopped=stopped.is_set))
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    stopped.set()
    with objects.changed:
        objects.changed.notify_all()

    assert ended.wait(timeout=10)


def test_a_change_reaches_a_watch_that_waits() -> None:
    objects = of()
    events = watched(objects, Watch("pods", timeout_s=60), shape=lambda document: document)
    maker = threading.Timer(0.01, lambda: objects.create(PODS, "default", pod("late")))
    maker.start()

    assert json.loads(next(events))["object"]["metadata"]["name"] == "late"


def test_parameters_say_what_is_watched() -> None:
    query = {"resourceVersion": "12", "timeoutSeconds": "7", "allowWatchBookmarks": "true"}

    assert watch_of(query, "pods", "n") == Watch("pods", "n", since=12, timeout_s=7, bookmarks=True)
    assert watch_of({"resourceVersion": "0"}, "pods", None) == Watch("pods")
    assert [is_watch({"watch": text}) for text in ("1", "true", "0", "")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"resourceVersion": "abc"}, 400),
        ({"resourceVersion": "-1"}, 400),
        ({"timeoutSeconds": "1.5"}, 400),
        ({"timeoutSeconds": "٣"}, 400),
        ({"sendInitialEvents": "true"}, 422),
    ],
)
def test_wrong_parameters_are_refused(query: dict[str, str], code: int) -> None:
    with pytest.raises(RefusedError) as refusal:
        watch_of(query, "pods", None)

    assert refusal.value.code == code


def test_a_watch_comes_over_the_wire_line_by_line_as_a_table_if_that_is_preferred() -> None:
    with EmbeddedCluster(bundle_of({"cluster/pods.json": listed(pod("a"))}), name="t") as cluster:
        query = {"watch": "1", "timeoutSeconds": "1", "labelSelector": "!x"}
        plain = ask(cluster, "/api/v1/pods", query=query)
        as_table = ask(
            cluster, "/api/v1/pods", query=query, headers={"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
        )

    (event,) = [json.loads(line) for line in plain.body.splitlines()]
    (row,) = json.loads(as_table.body)["object"]["rows"]

    assert (event["type"], event["object"]["kind"], event["object"]["apiVersion"]) == ("ADDED", "Pod", "v1")
    assert row["cells"][0] == "a"

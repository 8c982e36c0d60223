"""Lists on disk: one item a line is read item by item, anything else as a whole, and half a list is none."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bundle_builders
from kube_gpucheck.evidence import Bundle, Cluster, open_bundle
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.lists import LineItems, ListRecord
from kube_gpucheck.model import Missing, MissingKind, Seen

HEAD = b'{"apiVersion":"v1","kind":"List","metadata":{},"items":[\n'
TAIL = b"]}\n"
PATH = "cluster/pods.json"


def by_line(*items: dict[str, Any]) -> bytes:
    """Write a list as a collector does: one item a line."""
    lines = b",\n".join(json.dumps(one).encode() for one in items)
    return HEAD + lines + (b"\n" if items else b"") + TAIL


def pods(count: int) -> list[dict[str, Any]]:
    return [bundle_builders.pod(f"pod-{number}") for number in range(count)]


def bundle_of(content: bytes, **manifest: Any) -> Bundle:
    return memory_bundle("b", {**bundle_builders.files(**manifest), PATH: content})


def items_of(bundle: Bundle) -> ListRecord:
    reading = bundle.kind("pods")
    assert isinstance(reading, Seen)
    assert reading.value is not None
    return reading.value


def test_a_list_by_line_holds_what_the_same_list_in_one_line_holds() -> None:
    three = pods(3)
    lines, whole = (
        items_of(bundle_of(content)) for content in (by_line(*three), json.dumps({"items": three}).encode())
    )
    assert isinstance(lines.items, LineItems)
    assert [json.loads(bytes(one)) for one in lines.items] == [json.loads(bytes(one)) for one in whole.items] == three


def test_any_item_of_a_list_by_line_can_be_read_again(tmp_path: Path) -> None:
    folder = bundle_builders.write(tmp_path / "b", {**bundle_builders.files(), PATH: by_line(*pods(5))})
    items = items_of(open_bundle(folder)).items
    assert [json.loads(bytes(items[place]))["metadata"]["name"] for place in (4, 0, 2)] == ["pod-4", "pod-0", "pod-2"]
    assert len(items) == 5


def test_an_empty_list_by_line_is_seen_and_empty() -> None:
    assert list(items_of(bundle_of(by_line())).items) == []


def cut(content: bytes) -> bytes:
    return content[:-1]


def without_tail(content: bytes) -> bytes:
    return content.removesuffix(TAIL)


def cut_in_an_item(content: bytes) -> bytes:
    return content[: len(content) - 200]


def with_more_after(content: bytes) -> bytes:
    return content + b"{}\n"


def without_a_comma(content: bytes) -> bytes:
    return content.replace(b",\n", b"\n", 1)


def with_a_comma_too_many(content: bytes) -> bytes:
    return content.removesuffix(b"\n" + TAIL) + b",\n" + TAIL


def with_a_line_that_is_no_json(content: bytes) -> bytes:
    return content.replace(b'"pod-1"', b'"pod-1', 1)


@pytest.mark.parametrize(
    "damage",
    [
        without_tail,
        cut_in_an_item,
        with_more_after,
        without_a_comma,
        with_a_comma_too_many,
        with_a_line_that_is_no_json,
    ],
)
def test_a_damaged_list_is_unparsable_as_a_whole(damage: Callable[[bytes], bytes]) -> None:
    bundle = bundle_of(damage(by_line(*pods(3))))
    found = (bundle.kind("pods"), Cluster(bundle).objects("pods"))
    assert [one.kind for one in found if isinstance(one, Missing)] == [MissingKind.UNPARSABLE] * 2


def test_a_last_line_feed_may_lack() -> None:
    assert len(items_of(bundle_of(cut(by_line(*pods(3))))).items) == 3


def test_a_list_by_line_that_was_edited_since_is_not_believed() -> None:
    content = by_line(*pods(3))
    files = {PATH: hashlib.sha256(content).hexdigest()}
    assert isinstance(bundle_of(content, files=files).kind("pods"), Seen)
    reading = bundle_of(content.replace(b"pod-1", b"pod-9"), files=files).kind("pods")
    assert isinstance(reading, Missing)
    assert "sha256" in reading.reason


def test_one_malformed_item_of_a_list_by_line_loses_no_other() -> None:
    broken = bundle_builders.pod("broken")
    del broken["status"]["phase"]
    items = Cluster(bundle_of(by_line(*pods(2), broken))).items("pods")
    assert isinstance(items, Seen)
    assert items.value is not None
    assert ([one.name for one in items.value.good], [one.name for one in items.value.bad]) == (
        ["pod-0", "pod-1"],
        ["broken"],
    )


def test_a_pod_that_was_let_go_is_read_again_and_is_the_same() -> None:
    cluster = Cluster(bundle_of(by_line(*pods(2))))
    views = cluster.pods
    assert isinstance(views, Seen)
    pod = views.value[1]
    before = (pod.object, pod.containers, pod.statuses)
    pod.let_go()
    assert (pod.object, pod.containers, pod.statuses) == before
    assert pod.object is not before[0]


def test_thousands_of_pods_are_not_all_held_at_once() -> None:
    cluster = Cluster(bundle_of(by_line(*pods(1500))))
    views = cluster.pods
    assert isinstance(views, Seen)
    first = views.value[0].object
    assert all(isinstance(pod.object, Seen) for pod in views.value)
    assert views.value[0].object is not first


def test_a_file_that_is_cut_while_it_is_judged_makes_a_pod_missing(tmp_path: Path) -> None:
    folder = bundle_builders.write(tmp_path / "b", {**bundle_builders.files(), PATH: by_line(*pods(3))})
    views = Cluster(open_bundle(folder)).pods
    assert isinstance(views, Seen)
    with (folder / PATH).open("r+b") as file:
        file.truncate(len(HEAD) + 20)
    reading = views.value[2].object
    assert isinstance(reading, Missing)
    assert "changed while it was judged" in reading.reason


def test_a_line_without_end_is_no_list_by_line() -> None:
    reading = bundle_of(HEAD + b'{"a":' + b"[" * 1_000_000).kind("pods")
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE

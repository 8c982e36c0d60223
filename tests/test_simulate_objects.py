"""The objects of an embedded cluster: lists as bytes, places that stay, versions, changes, preconditions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.objects import (
    FIRST_VERSION,
    REMEMBERED_CHANGES,
    NotAListError,
    ObjectList,
    Objects,
    Stored,
    check_preconditions,
    split_items,
)
from kube_gpucheck.simulate.resources import resource_of

PODS = resource_of("pods")
NODES = resource_of("nodes")


def raw(name: str, namespace: str | None = "a", **labels: str) -> bytes:
    return json.dumps({"metadata": {"name": name, "namespace": namespace, "labels": labels}}).encode()


def names(items: tuple[bytes, ...]) -> list[str]:
    return [json.loads(one)["metadata"]["name"] for one in items]


JSON_OBJECTS = st.lists(
    st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3), max_size=5
)


@given(JSON_OBJECTS, st.sampled_from(["lines", "plain", "indented", "opened"]))
def test_the_items_of_a_list_are_found_however_it_is_written(items: list[dict[str, Any]], form: str) -> None:
    match form:
        case "lines":
            lines = ",\n".join(json.dumps(one) for one in items)
            content = f'{{"kind":"List","items":[\n{lines}\n]}}\n' if items else '{"kind":"List","items":[\n]}\n'
        case "plain":
            content = json.dumps({"items": items})
        case "indented":
            content = json.dumps({"kind": "List", "items": items}, indent=1)
        case _:
            whole = json.dumps(items, indent=1)
            content = '{"items":' + whole + "}"

    assert [json.loads(one) for one in split_items(content.encode())] == items


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{",
        b"[]",
        b"null",
        b'{"items": 1}',
        b"\xff",
        b'{"items":[\n',
        b'{"items":[\n{"a":1}\n{',
        b'{"items":[\n{"a":"]}"},\n{"b":"\n',
        b'{"items":[\n{"a":1},\n]}\nmore',
        b'{"items":[\n{"a":1},\n]}\n',
        b'{"items":[\n{"a":1}\n{"b":1}\n]}\n',
        b"[" * 9999,
    ],
)
def test_what_is_no_list_is_said_so(content: bytes) -> None:
    with pytest.raises(NotAListError):
        split_items(content)


@given(st.integers(0, 30), st.integers(1, 12), st.sets(st.integers(0, 29)))
def test_pages_give_each_object_that_stays_once(count: int, limit: int, deleted: set[int]) -> None:
    objects = ObjectList(raw(f"p{number}") for number in range(count))
    found: list[str] = []
    position: int | None = 0
    while position is not None:
        page = objects.page(start=position, limit=limit)
        found += names(page.items)
        position = page.position
        for number in sorted(deleted):  # what goes while the list is read moves nothing
            if number < count:
                objects.remove("a", f"p{number}")
        deleted = set()

    assert len(found) == len(set(found))
    assert {f"p{number}" for number in range(count)} - set(found) <= {f"p{number}" for number in range(30)}
    assert all(objects.get("a", f"p{number}") is None or f"p{number}" in found for number in range(count))


def test_a_page_of_a_namespace_or_a_selector_is_cut_alike() -> None:
    objects = ObjectList(raw(f"p{number}", "a" if number % 2 else "b") for number in range(9))

    first = objects.page(namespace="b", limit=2)
    second = objects.page(namespace="b", start=first.position or 0, limit=2)
    last = objects.page(namespace="b", start=second.position or 0, limit=2)
    assert [names(one.items) for one in (first, second, last)] == [["p0", "p2"], ["p4", "p6"], ["p8"]]
    assert (first.left, last.position) == (3, None)
    chosen = objects.page(wanted=lambda one: one.meta.name > "p5", limit=2)
    assert (names(chosen.items), chosen.left) == (["p6", "p7"], None)


def test_an_object_that_cannot_be_decoded_has_no_name_and_costs_nobody() -> None:
    objects = ObjectList([b"1", b'{"metadata": 5}', b'{"metadata": {"name": 1}}', raw("p")])

    assert [one.meta.name for one in objects] == ["", "", "", "p"]
    assert objects.get("a", "p") is not None
    assert len(objects) == 4


def test_what_is_created_has_an_identity_and_a_later_version() -> None:
    objects = Objects("2026-01-01T00:00:00Z")
    objects.load("pods", [raw("old")])

    made = objects.create(PODS, "a", {"metadata": {"generateName": "new-"}})["metadata"]

    assert made["name"].startswith("new-")
    assert len(made["name"]) > len("new-")
    assert (made["namespace"], made["creationTimestamp"]) == ("a", "2026-01-01T00:00:00Z")
    assert int(made["resourceVersion"]) > FIRST_VERSION
    assert made["uid"]
    assert names(objects.list_of("pods").page().items) == ["old", made["name"]]


@pytest.mark.parametrize(
    ("metadata", "code"), [({"name": "p"}, 409), ({}, 422), ({"name": ""}, 422), ({"name": 5}, 422)]
)
def test_what_cannot_be_created_is_refused(metadata: dict[str, Any], code: int) -> None:
    objects = Objects("now")
    objects.load("pods", [raw("p")])

    with pytest.raises(RefusedError) as refused:
        objects.create(PODS, "a", {"metadata": metadata})
    assert refused.value.code == code


def test_a_change_is_told_with_what_was_before() -> None:
    objects = Objects("now")
    objects.load("pods", [raw("p", x="1")])
    objects.replace(PODS, "a", "p", {"metadata": {"labels": {"x": "2"}}})
    objects.create(NODES, None, {"metadata": {"name": "n"}})
    objects.delete(PODS, "a", "p")

    changes = objects.changes_after(FIRST_VERSION, "pods") or ()
    assert [(one.kind, one.version) for one in changes] == [
        ("MODIFIED", FIRST_VERSION + 1),
        ("DELETED", FIRST_VERSION + 3),
    ]
    assert changes[0].before == raw("p", x="1")
    assert objects.changes_after(FIRST_VERSION + 1, "pods") == changes[1:]
    assert objects.list_of("pods").get("a", "p") is None


def test_changes_that_are_forgotten_are_said_to_be() -> None:
    objects = Objects("now")
    objects.create(NODES, None, {"metadata": {"name": "n"}})
    for _ in range(REMEMBERED_CHANGES + 1):
        objects.replace(NODES, None, "n", {"metadata": {}})

    assert objects.changes_after(FIRST_VERSION, "nodes") is None
    assert objects.changes_after(objects.version - 1, "nodes") != ()


@pytest.mark.parametrize(
    ("uid", "version", "words"),
    [
        ("other", None, "Precondition failed: UID in precondition: other, UID in object meta: u"),
        (None, "6", "the object has been modified; please apply your changes to the latest version and try again"),
    ],
)
def test_an_object_that_is_another_or_was_changed_is_a_conflict(
    uid: str | None, version: str | None, words: str
) -> None:
    there = {"metadata": {"uid": "u", "resourceVersion": "7"}}

    with pytest.raises(RefusedError) as refused:
        check_preconditions(PODS, "p", there, uid=uid, version=version)
    assert (refused.value.code, refused.value.reason) == (409, "Conflict")
    assert refused.value.message == f'Operation cannot be fulfilled on pods "p": {words}'
    check_preconditions(PODS, "p", there, uid="u", version="7")
    check_preconditions(PODS, "p", there, uid=None, version=None)


def test_a_name_is_read_once() -> None:
    stored = Stored(raw("p"))

    assert stored.meta is stored.meta

"""Patches: JSON merge patch, JSON patch, and kubectl's strategic merge patch, each refused where it is none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.patches import JSON_PATCH, MERGE, STRATEGIC, patched

POD = {
    "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}, "finalizers": ["x"]},
    "spec": {
        "containers": [{"name": "one", "image": "i1", "env": [{"name": "E", "value": "1"}]}, {"name": "two"}],
        "tolerations": [{"key": "t"}],
    },
}


def after(form: str, patch: object, document: dict[str, Any] = POD) -> dict[str, Any]:
    return patched(document, form, json.dumps(patch).encode())


def test_a_merge_patch_merges_objects_and_replaces_lists() -> None:
    result = after(MERGE, {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": {"containers": [{"name": "three"}]}})

    assert result["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert result["spec"]["containers"] == [{"name": "three"}]


def test_a_strategic_patch_merges_entries_of_one_name_and_leaves_the_others() -> None:
    env = [{"name": "F", "value": "2"}]
    result = after(STRATEGIC, {"spec": {"containers": [{"name": "one", "image": "i2", "env": env}, {"name": "new"}]}})

    assert result["spec"]["containers"] == [
        {"name": "one", "image": "i2", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
        {"name": "two"},
        {"name": "new"},
    ]


@pytest.mark.parametrize(
    ("patch", "path", "value"),
    [
        ({"spec": {"containers": [{"name": "two", "$patch": "delete"}]}}, ("spec", "containers"), ["one"]),
        ({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}, ("spec", "containers"), ["z"]),
        ({"spec": {"$setElementOrder/containers": [{"name": "two"}]}}, ("spec", "containers"), ["one", "two"]),
    ],
)
def test_a_strategic_patch_takes_directives(patch: object, path: tuple[str, str], value: list[str]) -> None:
    result = after(STRATEGIC, patch)

    assert [one["name"] for one in result[path[0]][path[1]]] == value


def test_a_strategic_patch_unites_finalizers_and_replaces_lists_without_a_key() -> None:
    result = after(STRATEGIC, {"metadata": {"finalizers": ["y", "x"]}, "spec": {"tolerations": [{"key": "u"}]}})

    assert result["metadata"]["finalizers"] == ["x", "y"]
    assert result["spec"]["tolerations"] == [{"key": "u"}]
    gone = after(STRATEGIC, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}})
    assert gone["metadata"]["finalizers"] == []
    kept = after(STRATEGIC, {"metadata": {"$retainKeys": ["name"], "labels": {"z": "1"}}})
    assert kept["metadata"] == {"name": "p", "labels": {"z": "1"}}
    assert after(STRATEGIC, {"spec": {"$patch": "replace", "a": 1}})["spec"] == {"a": 1}


@pytest.mark.parametrize(
    ("operations", "labels"),
    [
        ([{"op": "add", "path": "/metadata/labels/c", "value": "3"}], {"a": "1", "b": "2", "c": "3"}),
        ([{"op": "remove", "path": "/metadata/labels/a"}], {"b": "2"}),
        ([{"op": "replace", "path": "/metadata/labels/a", "value": "9"}], {"a": "9", "b": "2"}),
        ([{"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/z"}], {"b": "2", "z": "1"}),
        ([{"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/b"}], {"a": "1", "b": "1"}),
        ([{"op": "add", "path": "/metadata/labels/x~1y~0", "value": "1"}], {"a": "1", "b": "2", "x/y~": "1"}),
        ([{"op": "test", "path": "/metadata/labels/a", "value": "1"}], {"a": "1", "b": "2"}),
    ],
)
def test_a_json_patch_does_what_rfc_6902_says(operations: object, labels: dict[str, str]) -> None:
    assert after(JSON_PATCH, operations)["metadata"]["labels"] == labels


def test_a_json_patch_inserts_appends_replaces_and_removes_in_lists() -> None:
    document = {"l": [1, 2]}

    assert after(JSON_PATCH, [{"op": "add", "path": "/l/1", "value": 9}], document) == {"l": [1, 9, 2]}
    assert after(JSON_PATCH, [{"op": "add", "path": "/l/-", "value": 9}], document) == {"l": [1, 2, 9]}
    assert after(JSON_PATCH, [{"op": "replace", "path": "/l/0", "value": 9}], document) == {"l": [9, 2]}
    assert after(JSON_PATCH, [{"op": "remove", "path": "/l/0"}], document) == {"l": [2]}
    assert document == {"l": [1, 2]}


@pytest.mark.parametrize(
    ("form", "body", "code"),
    [
        (MERGE, b"", 400),
        (MERGE, b"[]", 400),
        (MERGE, b"{", 400),
        (JSON_PATCH, b"{}", 400),
        (JSON_PATCH, b"[1]", 400),
        (JSON_PATCH, b'[{"op": "dance", "path": "/a"}]', 400),
        (JSON_PATCH, b'[{"op": "remove", "path": "/nothing/here"}]', 422),
        (JSON_PATCH, b'[{"op": "remove", "path": "no pointer"}]', 422),
        (JSON_PATCH, b'[{"op": "add", "path": "/spec/containers/9", "value": 1}]', 422),
        (JSON_PATCH, b'[{"op": "test", "path": "/metadata/name", "value": "q"}]', 422),
        (JSON_PATCH, b'[{"op": "replace", "path": "", "value": 1}]', 422),
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
    ],
)
def test_what_is_no_patch_is_refused(form: str, body: bytes, code: int) -> None:
    with pytest.raises(RefusedError) as refused:
        patched(POD, form, body)

    assert refused.value.code == code


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "spec", "containers", "name", "env", "$patch", "finalizers"]), inner)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "spec", "containers", "metadata"]), JSONS)


@given(OBJECTS, OBJECTS)
def test_any_strategic_patch_of_any_object_gives_an_object(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = json.dumps(old)

    assert isinstance(after(STRATEGIC, new, old), dict)
    assert json.dumps(old) == before


@given(OBJECTS)
def test_a_patch_applied_twice_changes_nothing_more(patch: dict[str, Any]) -> None:
    once = after(MERGE, patch)

    assert after(MERGE, patch, once) == once

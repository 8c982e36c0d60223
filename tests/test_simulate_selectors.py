"""Selectors: the grammar that the API server reads, and its words where it refuses one."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.evidence.documents import Requirement
from kube_gpucheck.simulate.selectors import (
    FieldTerm,
    SelectorError,
    field_text,
    parse_field_selector,
    parse_label_selector,
)

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9_.]{0,8}[a-z0-9])?", fullmatch=True)
KEYS = st.one_of(NAMES, st.builds("{}.io/{}".format, st.from_regex(r"[a-z]{1,8}", fullmatch=True), NAMES))
LABELS = st.dictionaries(KEYS, NAMES, max_size=4)


def meant(text: str) -> list[tuple[str, str, tuple[str, ...] | None]]:
    return [(one.key, one.operator, one.values) for one in parse_label_selector(text).requirements]


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("", []),
        ("  ", []),
        ("a=b", [("a", "In", ("b",))]),
        ("a==b", [("a", "In", ("b",))]),
        ("a = b", [("a", "In", ("b",))]),
        ("a=", [("a", "In", ("",))]),
        ("a!=b", [("a", "NotIn", ("b",))]),
        ("a", [("a", "Exists", None)]),
        ("!a", [("a", "DoesNotExist", None)]),
        ("! a,b", [("a", "DoesNotExist", None), ("b", "Exists", None)]),
        ("a in (x, y)", [("a", "In", ("x", "y"))]),
        ("a notin(y,x)", [("a", "NotIn", ("x", "y"))]),
        ("a in ()", [("a", "In", ("",))]),
        ("a in (x,)", [("a", "In", ("", "x"))]),
        ("a in (,)", [("a", "In", ("",))]),
        ("in in (in,notin)", [("in", "In", ("in", "notin"))]),
        ("a>5,b<6", [("a", "Gt", ("5",)), ("b", "Lt", ("6",))]),
        ("nvidia.com/gpu.present=true,x", [("nvidia.com/gpu.present", "In", ("true",)), ("x", "Exists", None)]),
        ("a=b,", None),
    ],
)
def test_a_label_selector_means_what_it_means_upstream(text: str, requirements: Any) -> None:
    if requirements is None:
        with pytest.raises(SelectorError, match="expected: identifier after ','"):
            parse_label_selector(text)
    else:
        assert meant(text) == requirements


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"),
        ("a in (x,!", "unable to parse requirement: found '!', expected: ',', or identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "a>b",
            (
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, "
                "the value must be an integer"
            ),
        ),
        ("/a", 'unable to parse requirement: <nil>: Invalid value: "/a": prefix part must be non-empty'),
        (
            f"{'k' * 64}=b",
            f'unable to parse requirement: <nil>: Invalid value: "{"k" * 64}": name part must be no more than 63 bytes',
        ),
        (
            f"a={'v' * 64}",
            f'unable to parse requirement: values[0][a]: Invalid value: "{"v" * 64}": must be no more than 63 bytes',
        ),
    ],
)
def test_a_wrong_label_selector_is_refused_in_upstream_s_words(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as refusal:
        parse_label_selector(text)

    assert str(refusal.value) == message


@pytest.mark.parametrize("text", ["ä=b", "a=ö", "A/B/c", "-a", "x.io/"])
def test_what_no_label_can_be_is_refused(text: str) -> None:
    with pytest.raises(SelectorError, match="Invalid value"):
        parse_label_selector(text)


@given(text=st.text(max_size=40))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    for parse in (parse_label_selector, lambda one: parse_field_selector(one, kind="pods")):
        with contextlib.suppress(SelectorError):
            parse(text)


def test_a_huge_selector_is_read_in_a_moment() -> None:
    many = ",".join(f"k{number} in ({','.join(f'v{value}' for value in range(50))})" for number in range(2_000))

    assert len(parse_label_selector(many).requirements) == 2_000


@given(labels=LABELS, key=KEYS, value=NAMES)
def test_each_operator_selects_what_it_says(labels: dict[str, str], key: str, value: str) -> None:
    selected = {text: parse_label_selector(text).matches(labels) for text in (key, f"!{key}", f"{key}={value}")}

    assert selected[key] is (key in labels)
    assert selected[f"!{key}"] is (key not in labels)
    assert selected[f"{key}={value}"] is (labels.get(key) == value)
    assert parse_label_selector(f"{key}!={value}").matches(labels) is (labels.get(key) != value)
    assert parse_label_selector(f"{key} notin ({value})").matches(labels) is (labels.get(key) != value)


@given(labels=LABELS)
def test_a_selector_of_all_labels_of_an_object_selects_it(labels: dict[str, str]) -> None:
    assert parse_label_selector(",".join(f"{key}={value}" for key, value in labels.items())).matches(labels)


def test_requirements_are_those_that_the_scheduler_s_rules_know() -> None:
    assert parse_label_selector("a in (b)").requirements == (Requirement("a", "In", ("b",)),)


POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"nodeName": "gpu-0", "restartPolicy": "Never"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("metadata.name=p", True),
        ("metadata.name==p,metadata.namespace!=other", True),
        ("status.phase!=Running", False),
        ("spec.nodeName=", False),
        ("spec.host=gpu-0", True),
        ("spec.hostNetwork=false", True),
        ("status.podIP=", True),
        (r"metadata.name=p\,q", False),
        (",metadata.name=p,,", True),
    ],
)
def test_a_field_selector_selects_by_the_text_of_fields(text: str, fits: bool) -> None:  # noqa: FBT001  a table's column
    assert parse_field_selector(text, kind="pods").matches(POD) is fits


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("pods", "spec.foo=1", "field label not supported: spec.foo"),
        ("nodes", "spec.nodeName=1", "field label not supported: spec.nodeName"),
        (
            "daemonsets.apps",
            "spec.x=1",
            'spec.x is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("pods", "metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("pods", r"metadata.name=a\b", r"invalid field selector: invalid escape sequence: \b"),
        ("pods", "metadata.name=a=b", "invalid field selector: unescaped character in value: ="),
    ],
)
def test_a_wrong_field_selector_is_refused_in_upstream_s_words(kind: str, text: str, message: str) -> None:
    with pytest.raises(SelectorError) as refusal:
        parse_field_selector(text, kind=kind)

    assert str(refusal.value) == message


@given(value=st.text(max_size=20))
def test_an_escaped_value_is_the_value(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")

    assert parse_field_selector(f"metadata.name={escaped}", kind="pods").terms == (
        FieldTerm("metadata.name", value, equal=True),
    )


@pytest.mark.parametrize(
    ("document", "field", "text"),
    [
        ({"spec": {"unschedulable": True}}, "spec.unschedulable", "true"),
        ({}, "spec.unschedulable", "false"),
        ({"source": {"component": "kubelet"}, "reportingComponent": "x"}, "source", "kubelet"),
        ({"reportingComponent": "x"}, "source", "x"),
        ({"status": {"succeeded": 3}}, "status.successful", "3"),
        ({"status": "nonsense"}, "status.phase", ""),
        ({"metadata": {"name": 5}}, "metadata.name", ""),
    ],
)
def test_a_field_is_compared_as_the_api_server_writes_it(document: Any, field: str, text: str) -> None:
    assert field_text(document, field) == text

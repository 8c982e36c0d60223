"""The scheduler's rules, as Kubernetes documents and codes them, on one node."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundle_builders
from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.documents import LabelSelector, NodeSelectorTerm, PodSpec, Requirement, Taint, Toleration
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.scheduling import (
    Rejection,
    daemon_tolerations,
    holds,
    reject,
    selection,
    selects,
    term_holds,
    tolerated,
    untolerated,
)
from kube_gpucheck.simulate.selectors import parse_label_selector

GPU_TAINT = Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule")


def node(*, labels: dict[str, str] | None = None, **spec: Any) -> Node:
    """Return the one node of a small cluster."""
    files = bundle_builders.files()
    made = {**bundle_builders.node("gpu-0"), "spec": spec}
    made["metadata"] = {"name": "gpu-0", "labels": labels or {}}
    files["cluster/nodes.json"] = bundle_builders.listed(made)
    return need(Cluster(memory_bundle("b", files)).nodes)[0]


def template(**fields: Any) -> PodSpec:
    """Return a pod's specification, as the API writes it."""
    return msgspec.json.decode(json.dumps({"containers": [{"name": "main"}], **fields}), type=PodSpec)


def requiring(*terms: dict[str, Any]) -> PodSpec:
    """Return a pod that requires one of these node selector terms."""
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return template(affinity={"nodeAffinity": required})


def why(spec: PodSpec, on: Node, **options: bool) -> Rejection | None:
    """Return why a DaemonSet's pod may not run there."""
    return reject(spec, on, tolerations=daemon_tolerations(spec), **options)


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    """Return one match expression."""
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("operator", "values", "label", "expected"),
    [
        ("In", ("true", "yes"), "true", True),
        ("In", ("true",), "false", False),
        ("In", ("true",), None, False),
        ("In", (), "true", False),
        ("NotIn", ("true",), "false", True),
        ("NotIn", ("true",), None, True),
        ("NotIn", ("true",), "true", False),
        ("NotIn", (), "true", False),
        ("Exists", (), "", True),
        ("Exists", (), None, False),
        ("Exists", ("true",), "true", False),
        ("DoesNotExist", (), None, True),
        ("DoesNotExist", (), "", False),
        ("Gt", ("4",), "8", True),
        ("Gt", ("8",), "8", False),
        ("Gt", ("4",), None, False),
        ("Gt", ("4", "5"), "8", False),
        ("Lt", ("8",), "4", True),
        ("Lt", ("-1",), "-2", True),
        ("Lt", ("8",), "8_0", False),
        ("Lt", ("8",), " 4", False),
        ("Lt", ("eight",), "4", False),
        ("Gt", ("1",), "9223372036854775808", False),
        ("Gt", ("1",), "\u0662", False),
        ("Like", ("true",), "true", False),
        ("in", ("true",), "true", False),
    ],
)
def test_an_operator_holds_as_kubernetes_says(
    operator: str, values: tuple[str, ...], label: str | None, *, expected: bool
) -> None:
    labels = {} if label is None else {"k": label}
    assert holds(Requirement("k", operator, values), labels) is expected


def test_an_empty_term_matches_no_node() -> None:
    assert not term_holds(NodeSelectorTerm(), {"k": "v"}, "gpu-0")


def test_an_affinity_without_terms_matches_no_node() -> None:
    rejection = why(requiring(), node())
    assert rejection is not None
    assert rejection.rule == "affinity"


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ("gpu-0",), True),
        ("In", ("gpu-1",), False),
        ("In", ("gpu-0", "gpu-1"), False),
        ("NotIn", ("gpu-1",), True),
        ("Exists", (), False),
    ],
)
def test_match_fields_know_the_name_alone(operator: str, values: tuple[str, ...], *, expected: bool) -> None:
    term = NodeSelectorTerm(match_fields=(Requirement("metadata.name", operator, values),))
    assert term_holds(term, {}, "gpu-0") is expected
    assert not term_holds(NodeSelectorTerm(match_fields=(Requirement("spec.x", "NotIn", ("y",)),)), {}, "gpu-0")


def test_terms_are_alternatives_and_their_requirements_are_not() -> None:
    spec = requiring(
        {"matchExpressions": [expression("a", "Exists"), expression("b", "In", "1")]},
        {"matchExpressions": [expression("c", "Exists")]},
    )
    assert why(spec, node(labels={"c": ""})) is None
    assert why(spec, node(labels={"a": "", "b": "1"})) is None
    assert str(why(spec, node(labels={"a": "", "b": "2"}))) == (
        "affinity needs a and b=1 or c; the node has a=, b=2, no c"
    )


def test_a_node_selector_names_what_the_node_has_instead() -> None:
    spec = template(nodeSelector={"nvidia.com/gpu.deploy.device-plugin": "true"})
    assert str(why(spec, node(labels={"nvidia.com/gpu.deploy.device-plugin": ""}))) == (
        "nodeSelector needs nvidia.com/gpu.deploy.device-plugin=true; the node has nvidia.com/gpu.deploy.device-plugin="
    )
    assert why(spec, node(labels={"nvidia.com/gpu.deploy.device-plugin": "true"})) is None


def test_a_template_that_names_another_node_is_not_for_this_one() -> None:
    assert str(why(template(nodeName="gpu-1"), node())) == "nodeName needs gpu-1; the node has gpu-0"
    assert why(template(nodeName="gpu-0"), node()) is None


def test_preferences_exclude_no_node() -> None:
    term = {"weight": 1, "preference": {"matchExpressions": [expression("a", "Exists")]}}
    spec = template(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})
    assert why(spec, node()) is None


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        (Toleration(operator="Exists"), GPU_TAINT, True),
        (Toleration(operator="Exists", effect="NoExecute"), GPU_TAINT, False),
        (Toleration(key="nvidia.com/gpu", operator="Exists"), GPU_TAINT, True),
        (Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"), GPU_TAINT, True),
        (Toleration(key="nvidia.com/gpu", value="present"), GPU_TAINT, True),
        (Toleration(key="nvidia.com/gpu", operator="", value="present"), GPU_TAINT, True),
        (Toleration(key="nvidia.com/gpu", value="true"), GPU_TAINT, False),
        (Toleration(key="nvidia.com/gpu"), Taint(key="nvidia.com/gpu", effect="NoSchedule"), True),
        (Toleration(key="nvidia.com/gpu"), GPU_TAINT, False),
        (Toleration(value="present"), GPU_TAINT, False),
        (Toleration(key="gpu", operator="Exists"), GPU_TAINT, False),
        (Toleration(key="n", operator="Gt", value="3"), Taint("n", "NoSchedule", "4"), True),
        (Toleration(key="n", operator="Lt", value="3"), Taint("n", "NoSchedule", "4"), False),
        (Toleration(key="n", operator="Gt", value="x"), Taint("n", "NoSchedule", "4"), False),
        (Toleration(key="nvidia.com/gpu", operator="Any"), GPU_TAINT, False),
    ],
)
def test_a_toleration_matches_as_kubernetes_says(toleration: Toleration, taint: Taint, *, expected: bool) -> None:
    assert tolerated(taint, (toleration,)) is expected


def test_a_preference_to_stay_away_keeps_nobody_away() -> None:
    assert why(template(), node(taints=[{"key": "k", "effect": "PreferNoSchedule"}])) is None
    assert why(template(), node(taints=[{"key": "k", "effect": "NoExecute"}])) is not None


def test_nfds_worker_tolerates_the_taint_with_one_value_alone() -> None:
    spec = template(tolerations=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])
    there = node(taints=[{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}])
    assert str(why(spec, there)) == "taint nvidia.com/gpu=true:NoSchedule is not tolerated"


def test_a_cordon_keeps_pods_away_and_daemonsets_not() -> None:
    cordoned = node(unschedulable=True)
    assert str(reject(template(), cordoned, tolerations=())) == "the node is cordoned"
    assert why(template(), cordoned) is None
    assert why(template(), node(taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])) is None


def test_a_node_that_is_not_ready_keeps_daemonsets_away_only_as_long_as_that() -> None:
    there = node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    assert why(template(), there) is not None
    assert why(template(), there, conditions=False) is None
    assert why(template(), there, taints=False) is None


def test_only_pods_of_the_hosts_network_tolerate_that_it_is_not_there() -> None:
    there = node(taints=[{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}])
    assert why(template(), there) is not None
    assert why(template(hostNetwork=True), there) is None


def test_every_untolerated_taint_is_named() -> None:
    taints = (GPU_TAINT, Taint("team", "NoExecute", "ml"), Taint("soft", "PreferNoSchedule"))
    assert untolerated(template(), taints) == taints[:2]


def test_a_selection_names_each_key_once() -> None:
    spec = template(
        nodeSelector={"a": "1"},
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [expression("b", "Exists"), expression("a", "Exists")]},
                        {"matchFields": [expression("metadata.name", "In", "x")]},
                    ]
                }
            }
        },
    )
    assert selection(spec) == ("a", "b")
    assert selection(template()) == ()


def test_a_label_selector_knows_no_comparison() -> None:
    assert selects(LabelSelector(), {})
    assert selects(LabelSelector(match_labels={"a": "1"}), {"a": "1", "b": "2"})
    assert not selects(LabelSelector(match_expressions=(Requirement("a", "Gt", ("0",)),)), {"a": "1"})


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "true", "false", "1", "2", "10", "-3", "x"])
LABELS = st.dictionaries(KEYS, VALUES)
OPERATORS = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Nonsense"])
REQUIREMENTS = st.builds(Requirement, KEYS, OPERATORS, st.lists(VALUES, max_size=3).map(tuple))
TERMS = st.builds(NodeSelectorTerm, st.lists(REQUIREMENTS, max_size=3).map(tuple))


@given(st.lists(VALUES, min_size=1, max_size=3).map(tuple), LABELS, KEYS)
def test_in_and_not_in_are_opposites_where_they_are_valid(
    values: tuple[str, ...], labels: dict[str, str], key: str
) -> None:
    assert holds(Requirement(key, "In", values), labels) != holds(Requirement(key, "NotIn", values), labels)


@given(LABELS, KEYS)
def test_exists_and_does_not_exist_are_opposites(labels: dict[str, str], key: str) -> None:
    assert holds(Requirement(key, "Exists"), labels) != holds(Requirement(key, "DoesNotExist"), labels)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_numbers_compare_as_numbers(left: int, right: int) -> None:
    labels = {"k": str(left)}
    assert holds(Requirement("k", "Gt", (str(right),)), labels) is (left > right)
    assert holds(Requirement("k", "Lt", (str(right),)), labels) is (left < right)


@given(REQUIREMENTS, LABELS, st.text(max_size=5))
def test_other_labels_change_nothing(requirement: Requirement, labels: dict[str, str], value: str) -> None:
    assert holds(requirement, labels) is holds(requirement, {**labels, "unrelated": value})


@given(TERMS, LABELS)
def test_a_term_holds_where_each_of_its_requirements_does(term: NodeSelectorTerm, labels: dict[str, str]) -> None:
    expressions = term.match_expressions or ()
    assert term_holds(term, labels, "n") is (bool(expressions) and all(holds(one, labels) for one in expressions))


@given(TERMS, REQUIREMENTS, LABELS)
def test_one_more_requirement_never_lets_more_nodes_in(
    term: NodeSelectorTerm, more: Requirement, labels: dict[str, str]
) -> None:
    narrower = NodeSelectorTerm((*(term.match_expressions or ()), more))
    if term.match_expressions and term_holds(narrower, labels, "n"):
        assert term_holds(term, labels, "n")


@given(st.lists(TERMS, max_size=3), TERMS, LABELS)
def test_one_more_term_never_shuts_a_node_out(
    terms: list[NodeSelectorTerm], more: NodeSelectorTerm, labels: dict[str, str]
) -> None:
    there = node(labels=labels)
    few, many = (
        requiring(*(json.loads(msgspec.json.encode(term)) for term in chosen)) for chosen in (terms, [*terms, more])
    )
    if why(few, there) is None:
        assert why(many, there) is None


TAINTS = st.builds(Taint, KEYS, st.sampled_from(["NoSchedule", "NoExecute", "PreferNoSchedule"]), VALUES)
TOLERATIONS = st.builds(
    Toleration,
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "Equal", "Exists", "Gt", "Lt", "Nonsense"]),
    VALUES,
    st.sampled_from(["", "NoSchedule", "NoExecute"]),
)


@given(TAINTS, st.lists(TOLERATIONS, max_size=3), TOLERATIONS)
def test_one_more_toleration_never_takes_one_away(taint: Taint, few: list[Toleration], more: Toleration) -> None:
    if tolerated(taint, tuple(few)):
        assert tolerated(taint, (*few, more))


@given(TAINTS)
def test_exists_without_key_and_effect_tolerates_all(taint: Taint) -> None:
    assert tolerated(taint, (Toleration(operator="Exists"),))


PODS = {
    "frontend": {"environment": "production", "tier": "frontend"},
    "backend": {"environment": "qa", "tier": "backend", "partition": "customerA"},
    "bare": {"component": "redis"},
    "cache": {"component": "redis", "tier": "cache", "environment": "dev"},
}
"""Labels of the kind that the Kubernetes documentation's page "Labels and Selectors" speaks of."""


@pytest.mark.parametrize(
    ("words", "selector", "chosen"),
    [  # the examples of that page, in the words of `kubectl -l` and as an object has them
        ("environment = production", {"matchLabels": {"environment": "production"}}, {"frontend"}),
        ("tier != frontend", [("tier", "NotIn", "frontend")], {"backend", "bare", "cache"}),
        (
            "environment=production,tier!=frontend",
            [("environment", "In", "production"), ("tier", "NotIn", "frontend")],
            set(),
        ),
        ("environment in (production, qa)", [("environment", "In", "production", "qa")], {"frontend", "backend"}),
        ("tier notin (frontend, backend)", [("tier", "NotIn", "frontend", "backend")], {"bare", "cache"}),
        ("partition", [("partition", "Exists")], {"backend"}),
        ("!partition", [("partition", "DoesNotExist")], {"frontend", "bare", "cache"}),
        (
            "partition,environment notin (qa)",
            [("partition", "Exists"), ("environment", "NotIn", "qa")],
            set(),
        ),
        (
            "component=redis,tier in (cache),environment notin (dev)",
            {
                "matchLabels": {"component": "redis"},
                "matchExpressions": [("tier", "In", "cache"), ("environment", "NotIn", "dev")],
            },
            set(),
        ),
        ("", {}, set(PODS)),
    ],
)
def test_the_documentations_selectors_choose_as_it_says(words: str, selector: Any, chosen: set[str]) -> None:
    form = selector if isinstance(selector, dict) else {"matchExpressions": selector}
    rows = form.get("matchExpressions", [])
    found = LabelSelector(form.get("matchLabels"), tuple(Requirement(row[0], row[1], row[2:] or None) for row in rows))

    assert {name for name, labels in PODS.items() if selects(found, labels)} == chosen
    assert {name for name, labels in PODS.items() if parse_label_selector(words).matches(labels)} == chosen


WRITTEN_KEYS = st.sampled_from(["a", "b", "nvidia.com/gpu.present"])
WRITTEN_VALUES = st.sampled_from(["", "x", "true", "8"])


@given(
    st.lists(
        st.tuples(
            WRITTEN_KEYS,
            st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
            st.lists(WRITTEN_VALUES, min_size=1),
        )
    ),
    st.dictionaries(WRITTEN_KEYS, WRITTEN_VALUES),
)
def test_both_ways_to_write_a_selector_choose_alike(
    rows: list[tuple[str, str, list[str]]], labels: dict[str, str]
) -> None:
    forms = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}
    words = ",".join(forms[operator].format(key, ",".join(values)) for key, operator, values in rows)
    requirements = (
        Requirement(key, operator, tuple(values) if operator in {"In", "NotIn"} else None)
        for key, operator, values in rows
    )

    assert parse_label_selector(words).matches(labels) is selects(LabelSelector(None, tuple(requirements)), labels)

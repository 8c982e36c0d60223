"""How findings become causes: consequences, choice, order. DESIGN.md, "Diagnosis", is the specification."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import yaml

import bundle_builders
from kube_gpucheck.diagnose import diagnose, load_catalogue
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.model import (
    THE_CLUSTER,
    CheckInfo,
    CheckResult,
    Diagnosis,
    Finding,
    Judgement,
    Layer,
    Outcome,
    Severity,
    Subject,
    SubjectKind,
)

ONE: Final = Subject(SubjectKind.NODE, "gpu-1", node="gpu-1")
TWO: Final = Subject(SubjectKind.NODE, "gpu-2", node="gpu-2")
PLUGIN: Final = Subject(SubjectKind.DAEMONSET, "plugin", namespace="gpu")
DRIVER: Final = CheckInfo("DRV-003", "the module is loaded", Layer.DRIVER, Severity.CRITICAL, SubjectKind.NODE)
RUNTIME: Final = CheckInfo("RTM-003", "a handler", Layer.RUNTIME, Severity.CRITICAL, SubjectKind.NODE, ("DRV-003",))
PODS: Final = CheckInfo(
    "PLG-003", "all pods are Ready", Layer.DEVICE_PLUGIN, Severity.CRITICAL, SubjectKind.DAEMONSET, ("RTM-003",)
)
LEFT_OVER: Final = CheckInfo("PLG-006", "even", Layer.DEVICE_PLUGIN, Severity.MAJOR, SubjectKind.NODE)
AFTER_LEFT_OVER: Final = CheckInfo(
    "RTC-002", "handlers", Layer.RUNTIME_CLASS, Severity.MAJOR, SubjectKind.NODE, ("PLG-006",)
)
EXPORTER: Final = CheckInfo("TEL-001", "exporter", Layer.TELEMETRY, Severity.MAJOR, SubjectKind.DAEMONSET, ("DRV-003",))


def cluster(*names: str, missing: Iterable[Mapping[str, Any]] = (), cordoned: str = "") -> Cluster:
    files = bundle_builders.files(missing=list(missing))
    nodes = [{**bundle_builders.node(name), "spec": {"unschedulable": name == cordoned}} for name in names]
    files["cluster/nodes.json"] = bundle_builders.listed(*nodes)
    files["cluster/daemonsets.apps.json"] = bundle_builders.listed(
        {
            "metadata": {
                "name": "plugin",
                "namespace": "gpu",
                "uid": "1",
                "labels": {"app.kubernetes.io/instance": "nvdp"},
            },
            "spec": {
                "template": {
                    "spec": {"containers": [{"name": "nvidia-device-plugin-ctr", "image": "k8s-device-plugin"}]}
                }
            },
            "status": {
                "desiredNumberScheduled": 1,
                "currentNumberScheduled": 1,
                "numberReady": 0,
                "numberMisscheduled": 0,
            },
        }
    )
    return Cluster(memory_bundle("test", files))


def fault(info: CheckInfo, subject: Subject, severity: Severity | None = None) -> Judgement:
    return Judgement(info.id, subject, Outcome.FAULT, severity or info.severity, seen="s", means="m", remedy="r")


def on_nodes(judgement: Judgement, *nodes: str) -> Judgement:
    return msgspec.structs.replace(judgement, nodes=nodes)


def result(info: CheckInfo, *others: Judgement, passed: Iterable[Subject] = ()) -> CheckResult:
    return CheckResult(info, tuple(passed), others)


def cause(identifier: str, claims: list[str], **fields: Any) -> dict[str, Any]:
    needs = [{"finding": {"check": claims[0]}}]
    basic = {"id": identifier, "title": identifier, "layer": "driver", "needs": needs, "proves": claims[0]}
    return {**basic, "claims": claims, "remedy": {"default": ["do"]}, **fields}


def diagnosed(
    where: Cluster, results: Iterable[CheckResult], *causes: Mapping[str, Any], fail_on: Severity = Severity.MAJOR
) -> Diagnosis:
    catalogue = load_catalogue({"driver.yaml": yaml.safe_dump([dict(one) for one in causes]).encode()})
    return diagnose(results, where, catalogue, fail_on=fail_on)


def finding(diagnosis: Diagnosis, check: str, subject: Subject) -> Finding:
    return next(one for one in diagnosis.findings if one.check.id == check and one.judgement.subject == subject)


def test_a_fault_after_a_fault_on_a_related_subject_is_its_consequence_and_has_its_cause() -> None:
    found = diagnosed(
        cluster("gpu-1"),
        [result(DRIVER, fault(DRIVER, ONE)), result(RUNTIME, fault(RUNTIME, ONE)), result(PODS, fault(PODS, PLUGIN))],
        cause("no-driver", ["DRV-003"]),
    )
    assert [one.id for one in found.causes] == ["no-driver"]
    assert found.causes[0].explains == ("DRV-003", "RTM-003", "PLG-003")
    assert finding(found, "PLG-003", PLUGIN).consequence_of == ("RTM-003",)
    assert not finding(found, "PLG-003", PLUGIN).is_root


def test_a_fault_on_an_unrelated_subject_explains_nothing() -> None:
    found = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(DRIVER, fault(DRIVER, ONE), passed=[TWO]), result(RUNTIME, fault(RUNTIME, TWO), passed=[ONE])],
        cause("no-driver", ["DRV-003"]),
    )
    assert finding(found, "RTM-003", TWO).is_root
    assert finding(found, "RTM-003", TWO).cause is None


def test_a_fault_whose_related_subjects_fault_only_in_part_is_shown_as_a_root_as_well() -> None:
    found = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(RUNTIME, fault(RUNTIME, ONE), passed=[TWO]), result(PODS, fault(PODS, PLUGIN))],
        cause("no-handler", ["RTM-003"]),
    )
    partly = finding(found, "PLG-003", PLUGIN)
    assert partly.partly
    assert partly.is_root
    assert partly.cause == "no-handler"


def test_an_unknown_prerequisite_explains_nothing() -> None:
    unknown = Judgement("DRV-003", ONE, Outcome.UNKNOWN, Severity.CRITICAL, reason="not read")
    found = diagnosed(cluster("gpu-1"), [result(DRIVER, unknown), result(RUNTIME, fault(RUNTIME, ONE))])
    assert finding(found, "RTM-003", ONE).is_root


def test_a_fault_that_was_made_milder_explains_nothing_graver() -> None:
    results = [
        result(LEFT_OVER, fault(LEFT_OVER, ONE, Severity.MINOR)),
        result(AFTER_LEFT_OVER, fault(AFTER_LEFT_OVER, ONE)),
    ]
    assert finding(diagnosed(cluster("gpu-1"), results), "RTC-002", ONE).is_root


def test_a_fault_that_was_made_milder_explains_what_is_as_mild() -> None:
    results = [
        result(LEFT_OVER, fault(LEFT_OVER, ONE, Severity.MINOR)),
        result(AFTER_LEFT_OVER, fault(AFTER_LEFT_OVER, ONE, Severity.MINOR)),
    ]
    assert not finding(diagnosed(cluster("gpu-1"), results), "RTC-002", ONE).is_root


def test_that_there_is_no_subject_is_nobodys_consequence_and_only_a_cause_of_the_clusters_explains_it() -> None:
    found = diagnosed(
        cluster("gpu-1"),
        [result(DRIVER, fault(DRIVER, ONE)), result(EXPORTER, fault(EXPORTER, THE_CLUSTER, Severity.MINOR))],
        cause("no-driver", ["DRV-003", "TEL-001"]),
        cause("not-installed", ["TEL-001"], scope="cluster"),
    )
    assert finding(found, "TEL-001", THE_CLUSTER).is_root
    assert finding(found, "TEL-001", THE_CLUSTER).cause == "not-installed"


def test_all_signs_that_a_cause_needs_must_speak() -> None:
    needs = [{"finding": {"check": "DRV-003"}}, {"finding": {"check": "RTM-003"}}]
    found = diagnosed(cluster("gpu-1"), [result(DRIVER, fault(DRIVER, ONE))], cause("both", ["DRV-003"], needs=needs))
    assert found.causes == ()
    assert [one.check.id for one in found.unexplained] == ["DRV-003"]


def test_one_of_several_signs_is_enough_where_any_is_said() -> None:
    needs = [{"any": [{"finding": {"check": "RTM-003"}}, {"finding": {"check": "DRV-003"}}]}]
    found = diagnosed(cluster("gpu-1"), [result(DRIVER, fault(DRIVER, ONE))], cause("either", ["DRV-003"], needs=needs))
    assert [one.id for one in found.causes] == ["either"]
    assert found.causes[0].signs_for == ("RTM-003 is fault or DRV-003 is fault",)


def test_a_sign_against_a_cause_takes_it_away() -> None:
    against = [{"finding": {"check": "RTM-003", "outcome": "pass"}}]
    found = diagnosed(
        cluster("gpu-1"),
        [result(DRIVER, fault(DRIVER, ONE)), result(RUNTIME, passed=[ONE])],
        cause("wrong", ["DRV-003"], against=against),
        cause("right", ["DRV-003"]),
    )
    assert [one.id for one in found.causes] == ["right"]


def test_a_cause_whose_need_is_unknown_is_a_candidate_and_never_an_answer() -> None:
    needs = [{"finding": {"check": "DRV-003"}}, {"event": {"re": "nouveau"}}]
    files = cluster("gpu-1", missing=[{"evidence": "api/events", "kind": "forbidden", "reason": "no"}])
    blind = Cluster(memory_bundle("test", _without_events(files)))
    found = diagnosed(
        blind,
        [result(DRIVER, fault(DRIVER, ONE))],
        cause("specific", ["DRV-003"], needs=needs),
        cause("plain", ["DRV-003"]),
    )
    assert [one.id for one in found.causes] == ["plain"]
    assert [one.id for one in found.candidates] == ["specific"]


def test_a_cause_for_which_no_sign_speaks_is_no_candidate() -> None:
    files = cluster("gpu-1", missing=[{"evidence": "api/events", "kind": "forbidden", "reason": "no"}])
    blind = Cluster(memory_bundle("test", _without_events(files)))
    silent = cause("silent", ["DRV-003"], needs=[{"event": {"re": "nouveau"}}])
    assert diagnosed(blind, [result(DRIVER, fault(DRIVER, ONE))], silent).candidates == ()


def test_of_causes_that_fit_the_one_with_more_signs_is_chosen() -> None:
    hints = [{"finding": {"check": "DRV-003"}, "weight": 2}]
    found = diagnosed(
        cluster("gpu-1"),
        [result(DRIVER, fault(DRIVER, ONE))],
        cause("a-plain-one", ["DRV-003"]),
        cause("b-specific-one", ["DRV-003"], hints=hints),
    )
    assert [one.id for one in found.causes] == ["b-specific-one"]


def test_causes_are_ordered_by_severity_against_the_limit_first() -> None:
    results = [
        result(LEFT_OVER, fault(LEFT_OVER, ONE)),
        result(DRIVER, fault(DRIVER, TWO, Severity.MINOR)),
    ]
    found = diagnosed(cluster("gpu-1", "gpu-2"), results, cause("a", ["DRV-003"]), cause("b", ["PLG-006"]))
    assert [one.id for one in found.causes] == ["b", "a"]


def test_then_by_the_share_of_gpu_nodes_that_they_block() -> None:
    results = [
        result(DRIVER, fault(DRIVER, ONE)),
        result(RUNTIME, fault(RUNTIME, TWO), fault(RUNTIME, Subject(SubjectKind.NODE, "gpu-3", node="gpu-3"))),
    ]
    found = diagnosed(cluster("gpu-1", "gpu-2", "gpu-3"), results, cause("a", ["DRV-003"]), cause("b", ["RTM-003"]))
    assert [(one.id, one.gpu_nodes) for one in found.causes] == [("b", ("gpu-2", "gpu-3")), ("a", ("gpu-1",))]


def test_then_by_the_layer_of_the_first_root() -> None:
    results = [result(DRIVER, fault(DRIVER, ONE)), result(RUNTIME, fault(RUNTIME, TWO))]
    found = diagnosed(cluster("gpu-1", "gpu-2"), results, cause("z", ["DRV-003"]), cause("a", ["RTM-003"]))
    assert [one.id for one in found.causes] == ["z", "a"]


def test_then_by_how_specifically_they_fit_and_last_by_id() -> None:
    other = CheckInfo("DRV-001", "bound", Layer.DRIVER, Severity.CRITICAL, SubjectKind.NODE)
    results = [result(DRIVER, fault(DRIVER, ONE)), result(other, fault(other, TWO))]
    hints = [{"finding": {"check": "DRV-001"}}]
    specific = diagnosed(
        cluster("gpu-1", "gpu-2"), results, cause("a", ["DRV-003"]), cause("b", ["DRV-001"], hints=hints)
    )
    alike = diagnosed(cluster("gpu-1", "gpu-2"), results, cause("b", ["DRV-003"]), cause("a", ["DRV-001"]))
    assert [one.id for one in specific.causes] == ["b", "a"]
    assert [one.id for one in alike.causes] == ["a", "b"]


def test_how_many_findings_a_cause_explains_never_decides() -> None:
    chain = [
        CheckInfo(f"RTM-{number:03}", "r", Layer.RUNTIME, Severity.CRITICAL, SubjectKind.NODE, ("RTM-003",))
        for number in range(10, 20)
    ]
    runtime = CheckInfo("RTM-003", "a handler", Layer.RUNTIME, Severity.CRITICAL, SubjectKind.NODE)
    results = [result(DRIVER, fault(DRIVER, ONE)), result(runtime, fault(runtime, TWO))]
    results += [result(one, fault(one, TWO)) for one in chain]
    found = diagnosed(cluster("gpu-1", "gpu-2"), results, cause("few", ["DRV-003"]), cause("many", ["RTM-003"]))
    assert [one.id for one in found.causes] == ["few", "many"]


def test_nodes_with_one_cause_are_one_entry_and_nodes_with_two_are_two() -> None:
    same = diagnosed(
        cluster("gpu-1", "gpu-2"), [result(DRIVER, fault(DRIVER, ONE), fault(DRIVER, TWO))], cause("a", ["DRV-003"])
    )
    assert [one.subjects for one in same.causes] == [(ONE, TWO)]
    other = CheckInfo("DRV-001", "bound", Layer.DRIVER, Severity.CRITICAL, SubjectKind.NODE)
    two = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(DRIVER, fault(DRIVER, ONE)), result(other, fault(other, TWO))],
        cause("a", ["DRV-003"]),
        cause("b", ["DRV-001"]),
    )
    assert [one.subjects for one in two.causes] == [(ONE,), (TWO,)]


def test_a_cause_on_subjects_of_several_kinds_is_one_entry() -> None:
    found = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(RUNTIME, fault(RUNTIME, ONE), passed=[TWO]), result(PODS, fault(PODS, PLUGIN))],
        cause("no-handler", ["RTM-003", "PLG-003"]),
    )
    assert [one.subjects for one in found.causes] == [(ONE, PLUGIN)]


def _without_events(where: Cluster) -> dict[str, bytes]:
    files = bundle_builders.files(missing=[{"evidence": "api/events", "kind": "forbidden", "reason": "no"}])
    files["cluster/nodes.json"] = bundle_builders.listed(
        *(bundle_builders.node(node.name) for node in getattr(where.nodes, "value", ()))
    )
    files.pop("cluster/events.json")
    assert json.loads(files["bundle.json"])["missing"]
    return files


def test_a_remedy_names_the_node_and_the_release_where_there_is_one_of_each() -> None:
    remedy = {"default": ["kubectl drain NODE", "helm upgrade RELEASE chart -n NAMESPACE"]}
    one = diagnosed(cluster("gpu-1"), [result(DRIVER, fault(DRIVER, ONE))], cause("a", ["DRV-003"], remedy=remedy))
    two = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(DRIVER, fault(DRIVER, ONE), fault(DRIVER, TWO))],
        cause("a", ["DRV-003"], remedy=remedy),
    )
    assert one.causes[0].remedy == ("kubectl drain gpu-1", "helm upgrade nvdp chart -n gpu")
    assert two.causes[0].remedy == ("kubectl drain NODE", "helm upgrade nvdp chart -n gpu")


def test_a_remedy_names_the_rules_that_were_missing_and_no_step_about_rules_stands_without_any() -> None:
    remedy = {"default": ["add RULES", "collect again"]}
    causes = cause("a", ["DRV-003"], remedy=remedy)
    refused = [
        {"evidence": f"api/{kind}", "kind": "forbidden", "reason": "no", "source": ""} for kind in ("pods", "events")
    ]
    some = diagnosed(cluster("gpu-1", missing=refused), [result(DRIVER, fault(DRIVER, ONE))], causes)
    none = diagnosed(cluster("gpu-1"), [result(DRIVER, fault(DRIVER, ONE))], causes)
    rules = '[{apiGroups: [""], resources: ["events", "pods"], verbs: ["list"]}]'
    assert some.causes[0].remedy == (f"add {rules}", "collect again")
    assert none.causes[0].remedy == ("collect again",)


def test_a_daemonset_that_fares_badly_on_other_nodes_explains_nothing_here() -> None:
    capacity = CheckInfo("PLG-005", "capacity", Layer.DEVICE_PLUGIN, Severity.CRITICAL, SubjectKind.NODE, ("PLG-003",))
    found = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [
            result(PODS, on_nodes(fault(PODS, PLUGIN), "gpu-1")),
            result(capacity, fault(capacity, ONE), fault(capacity, TWO)),
        ],
        cause("no-pod", ["PLG-003"]),
    )
    assert finding(found, "PLG-005", ONE).cause == "no-pod"
    assert finding(found, "PLG-005", TWO).is_root
    assert finding(found, "PLG-005", TWO).cause is None


def test_each_node_on_which_a_daemonset_fares_badly_has_the_cause_that_is_there() -> None:
    registered = CheckInfo(
        "PLG-004", "registered", Layer.DEVICE_PLUGIN, Severity.CRITICAL, SubjectKind.NODE, ("PLG-003",)
    )
    found = diagnosed(
        cluster("gpu-1", "gpu-2", cordoned="gpu-2"),
        [
            result(PODS, on_nodes(fault(PODS, PLUGIN), "gpu-1", "gpu-2")),
            result(registered, fault(registered, ONE), fault(registered, TWO)),
        ],
        cause("cordoned", ["PLG-003"], needs=[{"fact": "node_is_cordoned"}]),
        cause("free", ["PLG-003"], against=[{"fact": "node_is_cordoned"}]),
    )
    assert {key: finding(found, "PLG-004", key).cause for key in (ONE, TWO)} == {ONE: "free", TWO: "cordoned"}
    assert {one.id: one.gpu_nodes for one in found.causes} == {"free": ("gpu-1",), "cordoned": ("gpu-2",)}


def test_a_daemonset_is_explained_in_part_by_what_is_wrong_on_some_of_its_nodes() -> None:
    found = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [
            result(RUNTIME, fault(RUNTIME, ONE), passed=[TWO]),
            result(PODS, on_nodes(fault(PODS, PLUGIN), "gpu-1", "gpu-2")),
        ],
        cause("no-handler", ["RTM-003"]),
    )
    whole = diagnosed(
        cluster("gpu-1", "gpu-2"),
        [result(RUNTIME, fault(RUNTIME, ONE), passed=[TWO]), result(PODS, on_nodes(fault(PODS, PLUGIN), "gpu-1"))],
        cause("no-handler", ["RTM-003"]),
    )
    assert finding(found, "PLG-003", PLUGIN).partly
    assert not finding(whole, "PLG-003", PLUGIN).is_root


def test_the_cure_of_a_host_alone_is_proven_on_the_host() -> None:
    files = bundle_builders.files(asked={"host": {"gpu-1": ["exec:uname -a"]}})
    alone = Cluster(memory_bundle("test", files))
    faulty = [result(DRIVER, fault(DRIVER, ONE))]
    found = [diagnosed(where, faulty, cause("a", ["DRV-003"])).causes[0].then for where in (alone, cluster("gpu-1"))]
    assert found == ["gpucheck run --host -k DRV-003 --wait 5m", "gpucheck run -k DRV-003 --wait 5m"]


def test_a_check_that_passes_before_the_cure_does_not_prove_it() -> None:
    named = cause("a", ["DRV-003", "RTM-003"], proves="RTM-003")
    before = [result(DRIVER, fault(DRIVER, ONE)), result(RUNTIME, passed=[ONE])]
    faulty = [result(DRIVER, fault(DRIVER, ONE)), result(RUNTIME, fault(RUNTIME, ONE))]

    found = [diagnosed(cluster("gpu-1"), results, named).causes[0].then for results in (before, faulty)]

    assert found == ["gpucheck run -k DRV-003 --wait 5m", "gpucheck run -k RTM-003 --wait 5m"]


def test_what_the_user_said_of_the_cluster_is_said_again() -> None:
    said = {"kubeconfig": "my clusters/a", "context": "prod", "expect-gpu-nodes": "2", "fail-on": "major"}
    where = Cluster(cluster("gpu-1").bundle.with_options(said))

    found = diagnosed(where, [result(DRIVER, fault(DRIVER, ONE))], cause("a", ["DRV-003"])).causes[0].then

    assert found == (
        "gpucheck run --kubeconfig 'my clusters/a' --context prod --expect-gpu-nodes 2 -k DRV-003 --wait 5m"
    )

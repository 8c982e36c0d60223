"""The builder of scenarios: every field of a recipe, and what is said of a recipe that is wrong."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import suite
from kube_gpucheck.errors import ScenarioError
from kube_gpucheck.evidence.bundle import Bundle, open_bundle
from kube_gpucheck.evidence.lists import ListRecord
from kube_gpucheck.model import Missing, MissingKind, Seen
from kube_gpucheck.simulate.scenario import Library, merge

NODE = "gpu-0"
BASE: dict[str, Any] = {
    "bundle.json": {
        "format": 1,
        "tool": "tests",
        "run": {"id": "base", "started": "2026-01-01T00:00:00Z", "gathered_at": "2026-01-01T00:00:05Z"},
        "provenance": "recorded",
        "asked": {
            "api": ["nodes", "pods", "events", "discovery", "leases.coordination.k8s.io"],
            "logs": ["default/web/main"],
            "host": {NODE: ["file:/etc/hostname", "exec:dmesg", "log:kubelet"]},
        },
        "missing": [
            {"evidence": "api/events", "kind": "forbidden", "reason": "events is forbidden", "source": "api/events"},
            {"evidence": "host/exec:dmesg", "kind": "timeout", "reason": "too slow", "node": NODE},
        ],
    },
    "cluster/nodes.json": {
        "kind": "List",
        "items": [
            {
                "metadata": {"name": NODE, "labels": {"a": "1", "b": "2"}},
                "status": {
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": "True",
                            "lastHeartbeatTime": "2026-01-01T00:00:02Z",
                            "lastTransitionTime": "2025-12-31T00:00:00Z",
                        },
                        {
                            "type": "NetworkUnavailable",
                            "status": "False",
                            "lastHeartbeatTime": "2025-12-31T00:00:00Z",
                            "lastTransitionTime": "2025-12-31T00:00:00Z",
                        },
                    ],
                    "nodeInfo": {},
                },
            }
        ],
    },
    "cluster/leases.coordination.k8s.io.json": {
        "items": [
            {"metadata": {"name": NODE, "namespace": "kube-node-lease"}, "spec": {"renewTime": "2026-01-01T00:00:04Z"}},
            {"metadata": {"name": "never", "namespace": "kube-node-lease"}},
        ]
    },
    "cluster/pods.json": {
        "items": [{"metadata": {"name": "web", "namespace": one}, "spec": {}} for one in ("default", "other")]
    },
    "cluster/discovery.json": {"version": "v1.30.0", "groups": [{"name": "", "versions": ["v1"], "resources": None}]},
    f"nodes/{NODE}/host.json": {"format": 1, "boot_id": "first", "reads": {"file:/etc/hostname": {"text": NODE}}},
}
LOGS = {"cluster/logs/default_web_main.log": "old\n", f"nodes/{NODE}/logs/kubelet.log": "old\n"}

Make = Callable[..., Library]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return what writes recipes, and files beside them, above one small bundle."""
    bundle = tmp_path / "bundles" / "base"
    for path, content in BASE.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_text(json.dumps(content))
    for path, text in LOGS.items():
        (bundle / path).parent.mkdir(parents=True, exist_ok=True)
        (bundle / path).write_text(text)

    def write(recipe: str, **more: str) -> Library:
        scenarios = tmp_path / "scenarios"
        scenarios.mkdir(exist_ok=True)
        (scenarios / "one.yaml").write_text(recipe)
        for name, text in more.items():
            path = scenarios / name.replace("__", "/").replace("_yaml", ".yaml").replace("_txt", ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Library(tmp_path)

    return write


def items(bundle: Bundle, kind: str) -> list[dict[str, Any]]:
    reading = bundle.kind(kind)
    assert isinstance(reading, Seen)
    assert isinstance(reading.value, ListRecord)
    return [json.loads(bytes(item)) for item in reading.value.items]


def names(bundle: Bundle, kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in items(bundle, kind)]


def missing(reading: object) -> MissingKind:
    assert isinstance(reading, Missing)
    return reading.kind


def read_of(bundle: Bundle, key: str) -> dict[str, Any]:
    assert isinstance(bundle.host_read(NODE, key), Seen)
    content = bundle.store.read(f"nodes/{NODE}/host.json")
    assert content is not None
    found: dict[str, Any] = json.loads(content)["reads"][key]
    return found


def error_of(library: Library, name: str = "one") -> str:
    with pytest.raises(ScenarioError) as caught:
        library.build(name)
    return str(caught.value)


# --- what a recipe can say -----------------------------------------------------------------------------------


def test_a_recipe_of_a_base_alone_builds_the_base_under_its_own_name(make: Make) -> None:
    manifest = make("from: base\nabout: nothing is changed\n").build("one").manifest
    assert (manifest.run.id, manifest.run.source, manifest.provenance) == ("scenario-one", "scenario one", "hand-made")
    assert (manifest.modelled_on, manifest.run.gathered_at.second) == ("base", 5)


def test_a_bundle_is_built_as_it_stands(make: Make) -> None:
    assert make("from: base").build("base").manifest.run.id == "base"


def test_at_moves_the_run_and_keeps_its_length(make: Make) -> None:
    run = make("from: base\nat: 2026-02-03T04:05:06Z\n").build("one").manifest.run
    assert run.gathered_at == datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    assert run.gathered_at - run.started == datetime.timedelta(seconds=5)


def test_alive_moves_leases_and_renewed_heartbeats_with_at(make: Make) -> None:
    bundle = make("from: base\nat: 2026-01-01T01:00:05Z\nalive: true\n").build("one")
    first, second = items(bundle, "nodes")[0]["status"]["conditions"]
    assert first["lastHeartbeatTime"] == "2026-01-01T01:00:02Z"
    assert first["lastTransitionTime"] == second["lastHeartbeatTime"] == "2025-12-31T00:00:00Z"
    assert items(bundle, "leases.coordination.k8s.io")[0]["spec"]["renewTime"] == "2026-01-01T01:00:04Z"


def test_without_alive_time_passes_and_nothing_beats(make: Make) -> None:
    bundle = make("from: base\nat: 2026-01-01T01:00:05Z\n").build("one")
    assert items(bundle, "leases.coordination.k8s.io")[0]["spec"]["renewTime"] == "2026-01-01T00:00:04Z"


def test_provenance_model_and_what_is_not_real_are_recorded(make: Make) -> None:
    recipe = "from: base\nprovenance: generated\nmodelled_on: a laptop\nnot_real: [names, names, times]\n"
    manifest = make(recipe).build("one").manifest
    assert (manifest.provenance, manifest.modelled_on, manifest.not_real) == (
        "generated",
        "a laptop",
        ("names", "times"),
    )


def test_options_are_the_runs(make: Make) -> None:
    run = make('from: base\noptions: {expect-gpu-nodes: "2"}\n').build("one").manifest.run
    assert run.options == {"expect-gpu-nodes": "2"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ('"some\\ntext"', {"text": "some\ntext"}),
        ("{text: no such thing, code: 1}", {"text": "no such thing", "code": 1}),
        ("{from: read.txt, code: 0, filtered: nvidia}", {"text": "beside", "code": 0, "filtered": "nvidia"}),
        ("{from: read.txt}", {"text": "beside"}),
        ("{code: 0, value: [6, 1]}", {"code": 0, "value": [6, 1]}),
        ("{absent: true}", {"absent": True}),
        (
            "{entries: [{name: nvidia0, type: char, mode: crw-rw-rw-, major: 195, minor: 0}]}",
            {"entries": [{"name": "nvidia0", "type": "char", "mode": "crw-rw-rw-", "major": 195, "minor": 0}]},
        ),
    ],
)
def test_host_sets_a_read_and_asks_for_it(make: Make, given: str, read: dict[str, Any]) -> None:
    recipe = f'from: base\nhost: {{{NODE}: {{"exec:thing": {given}}}}}\n'
    bundle = make(recipe, read_txt="beside").build("one")
    assert read_of(bundle, "exec:thing") == read
    assert "exec:thing" in bundle.host_keys(NODE)


def test_a_read_that_ended_in_an_error_is_missing(make: Make) -> None:
    bundle = make(f'from: base\nhost: {{{NODE}: {{"file:/x": {{error: EACCES}}}}}}\n').build("one")
    assert missing(bundle.host_read(NODE, "file:/x")) is MissingKind.FORBIDDEN


def test_a_read_of_nothing_is_taken_away_and_stays_asked(make: Make) -> None:
    bundle = make(f'from: base\nhost: {{{NODE}: {{"file:/etc/hostname": null}}}}\n').build("one")
    assert missing(bundle.host_read(NODE, "file:/etc/hostname")) is MissingKind.ERROR


def test_a_read_that_is_set_is_no_longer_missing(make: Make) -> None:
    bundle = make(f'from: base\nhost: {{{NODE}: {{"exec:dmesg": "a line"}}}}\n').build("one")
    assert read_of(bundle, "exec:dmesg") == {"text": "a line"}


def test_host_sets_the_boot_id_of_the_evidence(make: Make) -> None:
    bundle = make(f"from: base\nhost: {{{NODE}: {{boot_id: second}}}}\n").build("one")
    assert bundle.host_boot_id(NODE) == "second"


def test_a_patch_merges_and_removes(make: Make) -> None:
    recipe = (
        f"from: base\npatch: [{{kind: nodes, name: {NODE}, merge: {{metadata: {{labels: {{a: null, c: '3'}}}}}}}}]\n"
    )
    assert items(make(recipe).build("one"), "nodes")[0]["metadata"]["labels"] == {"b": "2", "c": "3"}


def test_a_patch_finds_its_object_by_namespace(make: Make) -> None:
    recipe = "from: base\npatch: [{kind: pods, name: web, namespace: other, merge: {spec: {nodeName: n}}}]\n"
    assert [item["spec"] for item in items(make(recipe).build("one"), "pods")] == [{}, {"nodeName": "n"}]


def test_add_takes_an_object_and_files_of_several(make: Make) -> None:
    recipe = "from: base\nadd: {pods: [{metadata: {name: in-place}}, objects/two.yaml]}\n"
    two = "metadata: {name: first}\n---\nmetadata: {name: second}\n"
    assert names(make(recipe, objects__two_yaml=two).build("one"), "pods") == [
        "web",
        "web",
        "in-place",
        "first",
        "second",
    ]


def test_add_replaces_an_object_of_that_name_and_namespace(make: Make) -> None:
    recipe = "from: base\nadd: {pods: [{metadata: {name: web, namespace: other}, spec: {nodeName: n}}]}\n"
    assert [item["spec"] for item in items(make(recipe).build("one"), "pods")] == [{}, {"nodeName": "n"}]


def test_add_of_a_new_kind_asks_for_it(make: Make) -> None:
    bundle = make("from: base\nadd: {daemonsets.apps: [{metadata: {name: x}}]}\n").build("one")
    assert "daemonsets.apps" in bundle.manifest.asked.api


def test_add_of_a_kind_that_was_missing_makes_it_seen(make: Make) -> None:
    bundle = make("from: base\nadd: {events: [{metadata: {name: e}}]}\n").build("one")
    assert names(bundle, "events") == ["e"]
    assert [one.evidence for one in bundle.manifest.missing] == ["host/exec:dmesg"]


def test_add_writes_logs_of_containers_and_nodes(make: Make) -> None:
    recipe = f"""from: base
add:
  logs: {{default/web/main: "new", default/web/main/previous: {{from: log.txt}}}}
  node_logs: {{{NODE}/containerd: "started"}}
"""
    bundle = make(recipe, log_txt="before").build("one")
    assert bundle.log("default", "web", "main") == Seen("new")
    assert bundle.log("default", "web", "main", previous=True) == Seen("before")
    assert bundle.node_log(NODE, "containerd") == Seen("started")
    assert "log:containerd" in bundle.host_keys(NODE)


def test_what_is_deleted_was_looked_for_and_is_not_there(make: Make) -> None:
    bundle = make("from: base\ndelete: [{kind: pods, name: web, namespace: other}]\n").build("one")
    assert [item["metadata"]["namespace"] for item in items(bundle, "pods")] == ["default"]


def test_delete_of_a_star_empties_a_kind(make: Make) -> None:
    assert names(make('from: base\ndelete: [{kind: pods, name: "*"}]\n').build("one"), "pods") == []


def test_a_deleted_log_is_asked_for_no_longer(make: Make) -> None:
    bundle = make("from: base\ndelete: [{kind: logs, name: default/web/main}]\n").build("one")
    assert missing(bundle.log("default", "web", "main")) is MissingKind.NOT_ASKED


@pytest.mark.parametrize(
    ("entry", "look"),
    [
        ("{evidence: api/pods, kind: forbidden}", lambda bundle: bundle.kind("pods")),
        ("{evidence: api/discovery, kind: forbidden}", lambda bundle: bundle.discovery()),
        ("{evidence: logs/default/web/main, kind: forbidden}", lambda bundle: bundle.log("default", "web", "main")),
        (
            f"{{evidence: host, node: {NODE}, kind: forbidden}}",
            lambda bundle: bundle.host_read(NODE, "file:/etc/hostname"),
        ),
        (
            f'{{evidence: "host/file:/etc/hostname", node: {NODE}, kind: forbidden}}',
            lambda bundle: bundle.host_read(NODE, "file:/etc/hostname"),
        ),
        (
            f'{{evidence: "host/log:kubelet", node: {NODE}, kind: forbidden}}',
            lambda bundle: bundle.node_log(NODE, "kubelet"),
        ),
        (
            "{evidence: workload/vectoradd/gpu-0, kind: forbidden}",
            lambda bundle: bundle.workload("vectoradd", NODE, dict),
        ),
    ],
)
def test_what_is_missing_was_asked_for_and_could_not_be_had(
    make: Make, entry: str, look: Callable[[Bundle], object]
) -> None:
    assert missing(look(make(f"from: base\nmissing: [{entry}]\n").build("one"))) is MissingKind.FORBIDDEN


def test_a_missing_reason_is_told_in_its_words(make: Make) -> None:
    library = make("from: base\nmissing: [{evidence: api/pods, kind: timeout, reason: no answer}]\n")
    assert library.build("one").kind("pods") == Missing(MissingKind.TIMEOUT, "no answer", "api/pods")


def test_asked_adds_what_was_asked_for_and_did_not_come(make: Make) -> None:
    recipe = f'from: base\nasked: {{api: [services], logs: [a/b/c], host: {{{NODE}: ["file:/y"]}}, telemetry: [t]}}\n'
    bundle = make(recipe).build("one")
    found = (bundle.kind("services"), bundle.log("a", "b", "c"), bundle.host_read(NODE, "file:/y"))
    assert [missing(one) for one in found] == [MissingKind.ERROR] * 3
    assert bundle.manifest.asked.telemetry == ("t",)


def test_discovery_gains_and_loses_groups_and_has_another_version(make: Make) -> None:
    recipe = 'from: base\ndiscovery: {version: v9, remove: [""], add: [{name: apps, versions: [v1], resources: [x]}]}\n'
    reading = make(recipe).build("one").discovery()
    assert isinstance(reading, Seen)
    assert (reading.value.version, [group.name for group in reading.value.groups]) == ("v9", ["apps"])


def test_workloads_are_asked_for_and_there(make: Make) -> None:
    bundle = make(f"from: base\nworkloads: {{vectoradd/{NODE}: {{ran: true}}}}\n").build("one")
    assert bundle.workload("vectoradd", NODE, dict) == Seen({"ran": True})


def test_a_chain_starts_from_what_the_one_before_built(make: Make) -> None:
    two = "from: one\ndelete: [{kind: pods, name: added}]\nadd: {pods: [{metadata: {name: last}}]}\n"
    library = make("from: base\nadd: {pods: [{metadata: {name: added}}]}\n", two_yaml=two)
    assert names(library.build("two"), "pods") == ["web", "web", "last"]


def test_a_scenario_is_saved_as_the_bundle_that_it_builds(make: Make, tmp_path: Path) -> None:
    library = make("from: base\nadd: {pods: [{metadata: {name: added}}]}\n")
    library.save("one", tmp_path / "saved")
    saved, built = open_bundle(tmp_path / "saved"), library.build("one")
    assert {path: saved.store.read(path) for path in saved.store.paths()} == {
        path: built.store.read(path) for path in built.store.paths()
    }


@pytest.mark.parametrize(
    "name", [one for one in suite.LIBRARY.scenarios() if one.startswith(("tutorial/", "complete", "healthy/"))]
)
def test_a_chain_builds_the_same_bundle_twice(name: str) -> None:
    first, second = suite.LIBRARY.build(name), suite.LIBRARY.build(name)
    assert list(first.store.paths()) == list(second.store.paths())
    assert all(first.store.read(path) == second.store.read(path) for path in first.store.paths())


def test_scenarios_and_bundles_are_listed_by_name(make: Make) -> None:
    library = make("from: base\nabout: a line\n", tutorial__two_yaml="from: one", objects__pod_yaml="x: 1")
    assert (library.scenarios(), library.bundles(), library.about("one")) == (
        ("one", "tutorial/two"),
        ("base",),
        "a line",
    )
    assert (library.has("one"), library.has("base"), library.has("../base")) == (True, True, False)


# --- what is wrong with a recipe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("", "`object`"),
        ("just text", "`object`"),
        ("about: no base", "from"),
        ("from: base\nfrom_: x\n", "from_"),
        ("from: base\nabout: [a]\n", "$.about"),
        ("from: base\n  about: x: y\n", "line 2"),
        ("from: base\nat: 2026-01-01\n", "$.at"),
        ("from: base\nat: 2026-01-01T00:00:00\n", "$.at"),
        ("from: base\nalive: true\n", "alive: "),
        ("from: base\npatch: [{kind: nodes, name: gpu-0}]\n", "$.patch[0]"),
        ("from: base\npatch: [{kind: nodes, name: gpu-0, merge: text}]\n", "$.patch[0].merge"),
        (
            "from: base\npatch: [{kind: nodes, name: gpu-9, merge: {}}]\n",
            "patch[0]: the base has no nodes 'gpu-9'; there it has gpu-0",
        ),
        ("from: base\npatch: [{kind: pods, name: web, merge: {}}]\n", "patch[0]: 2 objects are pods 'web'"),
        ("from: base\npatch: [{kind: ../x, name: web, merge: {}}]\n", "patch[0]: '../x' is no kind"),
        ("from: base\ndelete: [{kind: pods, name: gone}]\n", "delete[0]: the base has no pods 'gone'; there it has "),
        ("from: base\ndelete: [{kind: logs, name: a/b/c}]\n", "delete[0]: the base has no log 'a/b/c'; it has "),
        ("from: base\ndelete: [{kind: logs, name: a/b}]\n", "delete[0]: 'a/b' is no log"),
        ("from: base\nadd: {pods: {metadata: {name: x}}}\n", "add.pods: expected a list"),
        ("from: base\nadd: {pods: [5]}\n", "add.pods: expected an object or a file's name, got int"),
        (
            "from: base\nadd: {pods: [{kind: Pod}]}\n",
            "add.pods[0]: the object has no metadata.name, only kind; give it one",
        ),
        ("from: base\nadd: {pods: [{metadata: {name: 5}}]}\n", "add.pods[0]: the object has no metadata.name"),
        ("from: base\nadd: {pods: [gone.yaml]}\n", "add.pods: 'gone.yaml': No such file"),
        ("from: base\nadd: {pods: [broken.txt]}\n", "add.pods: 'broken.txt' is not YAML"),
        ("from: base\nadd: {../pods: []}\n", "add.../pods: '../pods' is no kind"),
        ("from: base\nadd: {logs: [a]}\n", "add.logs: expected names with their texts"),
        ("from: base\nadd: {logs: {a/b: x}}\n", "add.logs: 'a/b' is no log"),
        ("from: base\nadd: {logs: {a/b/c: 5}}\n", "add.logs: expected a text, or 'from'"),
        ("from: base\nadd: {logs: {a/b/c: {from: 5}}}\n", "add.logs: expected a text, or 'from'"),
        ("from: base\nadd: {logs: {a/../c: x}}\n", None),
        ("from: base\nadd: {node_logs: {gpu-0: x}}\n", "add.node_logs: 'gpu-0' is no node's log"),
        ("from: base\nadd: {node_logs: {../x: y}}\n", "add.node_logs: 'nodes/../logs/x.log' leads out"),
        ('from: base\nhost: {gpu-0: {"hostname": x}}\n', "host.gpu-0.'hostname': no read"),
        ('from: base\nhost: {gpu-0: {"file:/x": {txt: y}}}\n', "host.gpu-0.'file:/x': a read has no 'txt'"),
        (
            'from: base\nhost: {gpu-0: {"file:/x": {truncated: true}}}\n',
            "host.gpu-0.'file:/x': a read without an answer",
        ),
        ('from: base\nhost: {gpu-0: {"file:/x": {text: 5}}}\n', "host.gpu-0.'file:/x': Expected `str"),
        ('from: base\nhost: {gpu-0: {"list:/x": {entries: [5]}}}\n', "host.gpu-0.'list:/x': Expected"),
        (
            'from: base\nhost: {gpu-0: {"file:/x": {from: gone.txt}}}\n',
            "host.gpu-0.'file:/x': 'gone.txt': No such file",
        ),
        ('from: base\nhost: {gpu-0: {"file:/x": 5}}\n', "$.host"),
        ("from: base\nhost: {gpu-0: {boot_id: {text: x}}}\n", "host.gpu-0.'boot_id': expected a text"),
        ('from: base\nhost: {../x: {"file:/x": y}}\n', "host.../x: the base has no node '../x'; it has gpu-0"),
        ("from: base\nmissing: [{evidence: api/pods, kind: gone}]\n", "$.missing[0].kind"),
        ("from: base\nmissing: [{evidence: api/pods, kind: not-asked}]\n", "missing: 'api/pods'"),
        ("from: base\nmissing: [{evidence: pods, kind: error}]\n", "missing: 'pods': expected api/"),
        ("from: base\nmissing: [{evidence: api/, kind: error}]\n", "missing: 'api/': expected api/"),
        ('from: base\nmissing: [{evidence: "host/exec:dmesg", kind: error}]\n', "missing: 'host/exec:dmesg': expected"),
        ("from: base\nmissing: [{evidence: logs/a, kind: error}]\n", "missing: 'a' is no log"),
        ("from: base\ndiscovery: {remove: [x.y]}\n", "discovery.remove: the base serves no group 'x.y'"),
        ("from: base\nworkloads: {../../x: {}}\n", "workloads: 'workloads/../../x.json' leads out"),
        ("from: base\noptions: {expect-gpu-nodes: 2}\n", "$.options"),
        ("from: base\nprovenance: live\n", "provenance: 'live': a recipe is never that of a real cluster"),
        ("from: base\nprovenance: recorded\n", "write hand-made or generated, or leave it out"),
        ('from: base\nhost: {gpu-9: {"file:/x": y}}\n', "host.gpu-9: the base has no node 'gpu-9'; it has gpu-0"),
        ('from: base\nhost: {gpu-0: {"file:/x": {error: NOPE}}}\n', "'NOPE' is no errno's name; write one such as"),
        (
            'from: base\nhost: {gpu-0: {"file:/x": {text: a, absent: true}}}\n',
            "host.gpu-0.'file:/x': absent and text: a read has one answer; give one of them",
        ),
        ("from: base\nadd: {secrets: [{metadata: {name: a}}]}\n", "add.secrets: 'secrets': gpucheck reads no Secret"),
        ("from: base\nasked: {api: [secrets]}\n", "asked.api: 'secrets': gpucheck reads no Secret"),
        ("from: base\nabout: a\nabout: b\n", "the key 'about' is given twice; keep one of them"),
        (
            "from: base\npatch: [{kind: node, name: gpu-0, merge: {}}]\n",
            "patch[0]: the base has no node 'gpu-0', nor any other; it has nodes, ",
        ),
        (
            "from: base\ndelete: [{kind: pods, name: web, namespace: nosuch}]\n",
            "delete[0]: the base has no pods 'web' in namespace 'nosuch'; it has ",
        ),
        (
            "from: base\nadd: {pods: [objects/no.yaml]}\n",
            "'objects/no.yaml': No such file or directory; files are looked",
        ),
        ("from: base\nadd: {pods: [../no.yaml]}\n", "'../no.yaml' leads out of the recipe's folder; put it below "),
    ],
)
def test_a_bad_recipe_is_told_in_one_line_with_its_file_and_field(make: Make, recipe: str, told: str | None) -> None:
    library = make(recipe, broken_txt="a: [b\n")
    if told is None:
        assert all(".." not in path.split("/") for path in library.build("one").store.paths())
        return
    message = error_of(library)
    assert "one.yaml" in message
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "objects/../../secret.txt", "a\\b"])
def test_a_file_beside_a_recipe_never_lies_above_it(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    recipe = f"from: base\nhost: {{{NODE}: {{'file:/x': {{from: '{name}'}}}}}}\n"
    assert f"'{name}' leads out of the recipe's folder" in error_of(make(recipe))


@pytest.mark.parametrize("name", ["no-such", "../one", "/etc", "one.yaml", ""])
def test_an_unknown_name_is_told_with_where_the_known_ones_are(make: Make, name: str) -> None:
    message = error_of(make("from: base"), name)
    assert f"'{name}'" in message
    assert "gpucheck list scenarios" in message


def test_an_unknown_base_is_told_with_the_recipe_that_names_it(make: Make) -> None:
    assert "no scenario or bundle is called 'nowhere' (named by 'from' in 'one')" in error_of(make("from: nowhere"))


def test_a_loop_of_bases_is_told_with_its_members(make: Make) -> None:
    assert "one from two from one" in error_of(make("from: two", two_yaml="from: one"))


def test_a_base_that_cannot_be_changed_is_told(make: Make, tmp_path: Path) -> None:
    library = make("from: base\nadd: {pods: [{metadata: {name: x}}]}\n")
    (tmp_path / "bundles" / "base" / "cluster" / "pods.json").write_text('{"items": 5}')
    assert "add.pods: the base's cluster/pods.json is no list of objects" in error_of(library)
    (tmp_path / "bundles" / "base" / "cluster" / "pods.json").write_text("no JSON")
    assert "cluster/pods.json: the base's file cannot be changed" in error_of(library)


# --- RFC 7386 ------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=2), JSON, max_size=4)


@given(target=JSON, patch=JSON)
def test_a_merge_patch_is_that_of_rfc_7386(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    assert merge(target, patch) == by_the_book(target, patch)
    assert json.dumps([target, patch]) == before


@given(target=JSON, patch=OBJECTS)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: dict[str, Any]) -> None:
    once = merge(target, patch)
    assert merge(once, patch) == once


@given(target=JSON, patch=OBJECTS)
def test_a_merged_object_has_no_key_that_the_patch_removes(target: Any, patch: dict[str, Any]) -> None:
    assert not {key for key, value in patch.items() if value is None} & set(merge(target, patch))


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7386_hold(target: Any, patch: Any, result: Any) -> None:
    """Appendix A of the RFC, whole."""
    assert merge(target, patch) == result


def by_the_book(target: Any, patch: Any) -> Any:
    """MergePatch as RFC 7386, section 2, writes it, on a copy."""
    if not isinstance(patch, dict):
        return patch
    result = json.loads(json.dumps(target)) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            if name in result:
                del result[name]
        else:
            result[name] = by_the_book(result.get(name), value)
    return result

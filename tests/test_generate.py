"""Generated clusters: what comes out is a cluster, and what was broken in it is found where it was broken."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

import expectations
import suite
from kube_gpucheck.errors import BundleError, ScenarioError
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.bundle import encode_manifest, memory_bundle, open_bundle
from kube_gpucheck.judging import known
from kube_gpucheck.model import Diagnosis, Outcome, Severity
from kube_gpucheck.simulate.generate import generated_cluster, generated_files, write_generated
from kube_gpucheck.simulate.generated.faults import FAULTS, GPU
from kube_gpucheck.simulate.generated.plan import GeneratedCluster
from kube_gpucheck.simulate.scenario import Library

SMALL = GeneratedCluster(nodes=8, cpu_nodes=1)
WITH_HOSTS = GeneratedCluster(nodes=6, cpu_nodes=1, host="healthy/eight-gpus")
EVERY = GeneratedCluster(nodes=30, cpu_nodes=2, broken=dict.fromkeys(FAULTS, 0.03))


def bundle_of(spec: GeneratedCluster) -> Bundle:
    manifest, files = generated_files(spec, suite.LIBRARY.build(spec.host) if spec.host else None)
    return memory_bundle("generated", {**files, "bundle.json": encode_manifest(manifest, files)})


def items(spec: GeneratedCluster, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(generated_files(spec)[1][f"cluster/{kind}.json"])["items"]
    return found


def diagnosis_of(spec: GeneratedCluster) -> Diagnosis:
    cluster = Cluster(bundle_of(spec))
    return expectations.diagnosis_of(suite.judge_all(cluster), cluster)


def named(diagnosis: Diagnosis, *, cause: str | None, check: str = "") -> set[str | None]:
    """Return the nodes that a cause explains a finding of, or that a check faults on without a cause."""
    found = (
        one.judgement.subject.node
        for one in diagnosis.findings
        if one.judgement.outcome is Outcome.FAULT and one.cause == cause and (cause or one.check.id == check)
    )
    return {node for node in found if node}


def test_equal_specifications_give_equal_bytes() -> None:
    assert generated_files(SMALL) == generated_files(SMALL)


def test_another_seed_gives_another_cluster() -> None:
    other = GeneratedCluster(nodes=8, cpu_nodes=1, seed=2)
    assert items(other, "nodes") != items(SMALL, "nodes")


def test_a_folder_holds_what_memory_holds(tmp_path: Path) -> None:
    write_generated(tmp_path / "made", EVERY)
    store = open_bundle(tmp_path / "made").store
    files = {path: store.read(path) for path in store.paths() if path != "bundle.json"}
    assert files == generated_files(EVERY)[1]


def test_a_list_has_one_item_a_line() -> None:
    for path, content in generated_files(SMALL)[1].items():
        if path.startswith("cluster/") and path.endswith(".json") and "discovery.json" not in path:
            first, *lines, last = content.decode().splitlines()
            assert (first, last) == ('{"apiVersion":"v1","kind":"List","metadata":{},"items":[', "]}")
            assert [json.loads(line.removesuffix(",")) for line in lines] == json.loads(content)["items"]


def test_a_node_is_as_large_as_real_ones() -> None:
    for node in items(GeneratedCluster(nodes=40), "nodes"):
        assert 105 <= len(node["metadata"]["labels"]) <= 130
        assert 30 <= len(node["status"]["images"]) <= 50
        assert 16_000 <= len(json.dumps(node, separators=(",", ":"))) <= 20_000


def test_pods_stand_in_the_order_of_the_api_with_names_of_their_own() -> None:
    metadata = [pod["metadata"] for pod in items(EVERY, "pods")]
    keys = [(one["namespace"], one["ownerReferences"][0]["name"], one["name"]) for one in metadata]
    kinds = [one["ownerReferences"][0]["kind"] for one in metadata]
    daemons = [key for key, kind in zip(keys, kinds, strict=True) if kind == "DaemonSet"]
    assert daemons == sorted(daemons)
    assert [namespace for namespace, _, _ in keys] == sorted(namespace for namespace, _, _ in keys)
    assert len({(namespace, name) for namespace, _, name in keys}) == len(keys)


def test_every_node_has_as_many_pods_as_asked_for() -> None:
    spec = GeneratedCluster(nodes=40, cpu_nodes=4, pods_per_node=11)
    counts = Counter(pod["spec"]["nodeName"] for pod in items(spec, "pods"))
    singles = Counter({"cpu-00000": 1, "cpu-00001": 1})
    assert counts - singles == Counter({node["metadata"]["name"]: 11 for node in items(spec, "nodes")})


def test_no_node_gives_more_gpus_than_it_has() -> None:
    held: Counter[str] = Counter()
    for pod in items(EVERY, "pods"):
        for container in pod["spec"]["containers"]:
            held[pod["spec"]["nodeName"]] += int(container["resources"].get("limits", {}).get(GPU, 0))
    assert max(held.values()) == EVERY.gpus_per_node
    for node in items(EVERY, "nodes"):
        assert held[node["metadata"]["name"]] <= int(node["status"]["allocatable"].get(GPU, 0))


def test_daemonsets_count_the_pods_that_are_there() -> None:
    ready: Counter[str] = Counter()
    for pod in items(SMALL, "pods"):
        (owner,) = pod["metadata"]["ownerReferences"]
        ready[owner["name"]] += owner["kind"] == "DaemonSet"
    for one in items(SMALL, "daemonsets.apps"):
        assert one["status"]["numberReady"] == one["status"]["desiredNumberScheduled"] == ready[one["metadata"]["name"]]


@pytest.mark.parametrize("spec", [SMALL, GeneratedCluster(nodes=1), GeneratedCluster(12, 4, 6, 3, logs=2), WITH_HOSTS])
def test_a_healthy_cluster_has_no_finding(spec: GeneratedCluster) -> None:
    results = suite.judge_all(Cluster(bundle_of(spec)))
    wrong = {one for result in results for one in result.others if one.outcome in {Outcome.FAULT, Outcome.UNKNOWN}}
    assert wrong == set()
    assert sum(result.count(Outcome.PASS) for result in results) > 0


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_what_is_broken_is_found_on_exactly_the_broken_nodes(kind: str) -> None:
    spec = GeneratedCluster(nodes=12, cpu_nodes=1, broken={kind: 0.2})
    fault, diagnosis = FAULTS[kind], diagnosis_of(spec)
    assert named(diagnosis, cause=fault.cause, check=fault.check) == set(spec.broken_nodes()[kind])
    assert [one.id for one in diagnosis.causes] == ([fault.cause] if fault.cause else [])


def test_causes_are_kept_apart_where_everything_is_broken_at_once() -> None:
    diagnosis, where = diagnosis_of(EVERY), EVERY.broken_nodes()
    for kind, fault in FAULTS.items():
        assert named(diagnosis, cause=fault.cause, check=fault.check) >= set(where[kind]), kind
    assert {one.id for one in diagnosis.causes} == {one.cause for one in FAULTS.values() if one.cause}


@pytest.mark.parametrize("kind", sorted(kind for kind, fault in FAULTS.items() if fault.cause_with_host))
def test_what_is_broken_is_found_with_the_reads_of_the_nodes(kind: str) -> None:
    spec = msgspec.structs.replace(WITH_HOSTS, broken={kind: 0.2})
    diagnosis, cause = diagnosis_of(spec), FAULTS[kind].cause_with_host
    assert named(diagnosis, cause=cause) == set(spec.broken_nodes()[kind])
    assert [one.id for one in diagnosis.causes] == [cause]


def test_each_node_has_reads_under_its_own_name_and_boot() -> None:
    bundle = bundle_of(WITH_HOSTS)
    nodes = known(Cluster(bundle).gpu_nodes, "the GPU nodes")
    boots = {json.loads(bundle.store.read(f"nodes/{node.name}/host.json") or b"")["boot_id"] for node in nodes}
    assert boots == {known(node.object, "the node").status.node_info.boot_id for node in nodes}
    assert len(boots) == 5


def test_a_kind_that_contradicts_the_reads_is_refused() -> None:
    with pytest.raises(ScenarioError, match="gpu-lost contradicts the reads of a healthy host; with a host, expected"):
        bundle_of(msgspec.structs.replace(WITH_HOSTS, broken={"gpu-lost": 0.2}))


@pytest.mark.parametrize(
    ("host", "message"),
    [("recorded/healthy", "has 1 GPUs, expected 8"), ("generated/healthy", "has reads of 0 nodes, expected one")],
)
def test_a_host_of_another_kind_is_refused(host: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        bundle_of(msgspec.structs.replace(WITH_HOSTS, host=host))


def test_causes_of_nodes_are_kept_apart() -> None:
    kinds = ("not-ready", "gpu-lost", "gpu-unhealthy", "cordoned")
    spec = GeneratedCluster(nodes=30, cpu_nodes=2, broken=dict.fromkeys(kinds, 0.06))
    diagnosis = diagnosis_of(spec)
    found = {kind: named(diagnosis, cause=FAULTS[kind].cause) for kind in kinds}
    assert found == {kind: set(names) for kind, names in spec.broken_nodes().items()}


def test_shares_befall_that_many_nodes_and_none_twice() -> None:
    spec = GeneratedCluster(nodes=200, cpu_nodes=0, broken={"not-ready": 0.1, "cordoned": 0.001})
    found = spec.broken_nodes()
    assert {kind: len(names) for kind, names in found.items()} == {"not-ready": 20, "cordoned": 1}
    assert not set(found["not-ready"]) & set(found["cordoned"])


def test_memory_does_not_grow_with_the_nodes(tmp_path: Path) -> None:
    def peak(nodes: int) -> int:
        program = [sys.executable, "-c", PEAK, str(tmp_path / str(nodes)), str(nodes)]
        return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)

    # Of 70 KB a node on disk. A buffer of 1 MB may still wait for the garbage collector, whatever the number of nodes.
    assert peak(600) - peak(60) < 540 * 10_000


PEAK = """
import sys, tracemalloc
from pathlib import Path
from kube_gpucheck.simulate.generate import GeneratedCluster, write_generated
write_generated(Path(sys.argv[1] + "-before"), GeneratedCluster(nodes=1))
tracemalloc.start()
write_generated(Path(sys.argv[1]), GeneratedCluster(nodes=int(sys.argv[2])))
print(tracemalloc.get_traced_memory()[1])
"""
"""Prints the most bytes held while a cluster is written: in a process of its own, whose garbage is nobody else's."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": 0}, "generate: nodes is 0, expected 1 to 20,000"),
        ({"nodes": 4, "cpu_nodes": 4}, "generate: cpu_nodes is 4, expected 0 to 3"),
        ({"nodes": 4, "gpus_per_node": 99}, "generate: gpus_per_node is 99, expected 1 to 16"),
        ({"nodes": 4, "pods_per_node": 5}, "generate: pods_per_node is 5, expected 6 to 250"),
        (
            {"nodes": 4, "broken": ["tired=0.1"]},
            "generate: nothing is broken as 'tired'; expected one of capac",
        ),
        (
            {"nodes": 4, "broken": ["not-ready=2"]},
            "generate: broken not-ready is 2.0, expected a share of",
        ),
        ({"nodes": 4, "broken": ["not-ready=nan"]}, "generate: broken not-ready is nan, expected a share"),
        ({"nodes": 4, "broken": ["not-ready"]}, "broken 'not-ready': expected KIND=SHARE, as in not-ready=0.01"),
        (
            {"nodes": 4, "broken": ["not-ready=0.9", "cordoned=0.9"]},
            "generate: 8 nodes are to be broken, and 4 have a GPU; ask for smaller shares",
        ),
    ],
)
def test_what_no_cluster_can_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        generated_cluster(**change)
    assert message in str(caught.value)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(BundleError, match="not empty; name a folder that is not there yet"):
        write_generated(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def library(folder: Path, recipe: str) -> Library:
    (folder / "scenarios").mkdir()
    (folder / "scenarios" / "made.yaml").write_text(recipe)
    (folder / "scenarios" / "later.yaml").write_text(
        "from: made\ndelete: [{kind: nodes, name: gpu-00000}]\nabout: one node less\n"
    )
    return Library(folder)


def test_a_recipe_generates_and_another_starts_from_it(tmp_path: Path) -> None:
    found = library(tmp_path, "about: small\ngenerate: {nodes: 3, cpu_nodes: 0, broken: {cordoned: 0.3}}\n")
    made, later = found.build("made"), found.build("later")
    assert (made.manifest.provenance, made.manifest.modelled_on) == ("generated", None)
    assert (later.manifest.provenance, later.manifest.modelled_on) == ("hand-made", "made")
    assert [len(nodes.value) for nodes in (Cluster(made).nodes, Cluster(later).nodes) if hasattr(nodes, "value")] == [
        3,
        2,
    ]


def test_a_large_recipe_is_saved_and_never_held(tmp_path: Path) -> None:
    found = library(tmp_path, "generate: {nodes: 501, cpu_nodes: 0}\n")
    with pytest.raises(ScenarioError, match="501 nodes, at most 500 are built in memory"):
        found.build("made")
    found.save("made", tmp_path / "saved")
    assert open_bundle(tmp_path / "saved").manifest.provenance == "generated"


@pytest.mark.parametrize("recipe", ["about: neither\n", "from: later\ngenerate: {nodes: 3}\n"])
def test_a_recipe_has_one_beginning(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(ScenarioError, match="give one of the two"):
        library(tmp_path, recipe).build("made")


def test_lesser_faults_are_faults_of_their_severity() -> None:
    cordoned = diagnosis_of(GeneratedCluster(nodes=4, cpu_nodes=0, broken={"cordoned": 0.5}))
    assert [(one.id, one.severity) for one in cordoned.causes] == [("node-cordoned", Severity.MINOR)]

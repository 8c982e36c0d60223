"""The whole collection: what is read where nobody says what, what ends it, and what one tenant may have."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_server import FakeServer, Reply, Route, discovery, document, hasty, list_of, not_found, status
from kube_gpucheck.collect.cluster import KINDS, collect
from kube_gpucheck.collect.connection import FailureKind
from kube_gpucheck.errors import BundleError, GpucheckError, UsageError
from kube_gpucheck.evidence.bundle import Asked, Manifest, RunRecord, open_bundle
from kube_gpucheck.evidence.nodereport import REPORT_FORMAT, NodeReport, encode_report
from kube_gpucheck.evidence.pruning import PRUNED
from kube_gpucheck.model import Missing, MissingEvidence, MissingKind, Seen

NOW = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
RUN = RunRecord("r", NOW, NOW)
PLUGIN = "nvcr.io/nvidia/k8s-device-plugin:v0.17.0"
PROBES = "/api/v1/namespaces/gpucheck/pods"


def thing(name: str, namespace: str = "a", **parts: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, **parts}


def plugin_pod(name: str = "p") -> dict[str, Any]:
    status = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}
    return thing(
        name,
        spec={"containers": [{"name": "c", "image": PLUGIN}], "nodeName": "n1"},
        status={"phase": "Running", "containerStatuses": [status]},
    )


def routes(**changes: Route) -> dict[str, Route]:
    """Return a small cluster: nodes, a plugin's pod with its log, its namespace's ConfigMaps."""
    found: dict[str, Route] = {
        **discovery(core=["nodes", "pods", "configmaps", "events", "namespaces", "limitranges"], apps=["daemonsets"]),
        "/api/v1/nodes": list_of([{"metadata": {"name": "n1"}, "spec": {}, "status": {}}]),
        "/api/v1/pods": list_of([plugin_pod()]),
        "/api/v1/events": list_of([]),
        "/api/v1/namespaces": list_of([thing("a")]),
        "/api/v1/limitranges": list_of([]),
        "/apis/apps/v1/daemonsets": list_of([]),
        "/api/v1/namespaces/a/configmaps": list_of([{**thing("m"), "data": {"k": "v"}}]),
        "/api/v1/namespaces/a/pods/p/log": Reply(content=b"starting\n"),
        PROBES: list_of([]),
    }
    return {**found, **{path.replace("__", "/"): route for path, route in changes.items()}}


def gather(server: FakeServer, folder: Path, **options: Any) -> Manifest:
    return collect(server, folder, run=RUN, tool="tests", **{"patience": hasty(), **options})


def missing(manifest: Manifest) -> dict[str, MissingEvidence]:
    return {one.evidence: one for one in manifest.missing}


def test_where_nobody_says_what_a_cluster_is_read_as_checks_need_it(tmp_path: Path) -> None:
    server = FakeServer(routes())
    manifest = gather(server, tmp_path / "b")

    assert manifest.asked == Asked(api=("discovery", *KINDS, "configmaps"), logs=("a/p/c",))
    assert manifest.missing == ()
    assert manifest.pruned == PRUNED
    assert manifest.run.gathered_at == datetime.datetime(2026, 11, 24, 0, 13, 31, tzinfo=datetime.timezone.utc)
    bundle = open_bundle(tmp_path / "b")
    assert bundle.manifest == manifest
    assert sorted(bundle.store.paths()) == [
        "bundle.json",
        "cluster/configmaps.json",
        "cluster/daemonsets.apps.json",
        "cluster/discovery.json",
        "cluster/events.json",
        "cluster/limitranges.json",
        "cluster/logs/a_p_c.log",
        "cluster/namespaces.json",
        "cluster/nodes.json",
        "cluster/pods.json",
    ]
    assert bundle.log("a", "p", "c") == Seen("starting\n")
    assert bundle.kind("clusterpolicies.nvidia.com") == Seen(None)
    assert not any("secrets" in path for path in server.paths())


def test_exactly_what_was_asked_for_is_read(tmp_path: Path) -> None:
    ask = Asked(api=("discovery", "nodes", "things.example.org"), logs=("a/p/c",))
    server = FakeServer(routes())
    manifest = gather(server, tmp_path / "b", ask=ask)

    assert manifest.asked == ask
    assert manifest.missing == ()
    assert server.paths() == ["/version", "/api", "/apis", "/api/v1/nodes", "/api/v1/namespaces/a/pods/p/log"]


def test_a_whole_kind_is_read_where_it_was_asked_for(tmp_path: Path) -> None:
    server = FakeServer(routes(__api__v1__configmaps=list_of([thing("m"), thing("other", "z")])))
    gather(server, tmp_path / "b", ask=Asked(api=("discovery", "configmaps")))

    assert "/api/v1/configmaps" in server.paths()


@pytest.mark.parametrize("kind", ["secrets", "secrets.example.org", "../pods", "Pods", ""])
def test_secrets_and_what_is_no_kind_are_refused_before_anything_is_asked(tmp_path: Path, kind: str) -> None:
    server = FakeServer({})

    with pytest.raises(UsageError):
        gather(server, tmp_path / "b", ask=Asked(api=(kind,)))
    assert (server.asked, (tmp_path / "b").exists()) == ([], False)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (status(403, "events is forbidden"), (MissingKind.FORBIDDEN, "events is forbidden")),
        (status(504, "slow"), (MissingKind.TIMEOUT, "slow")),
        (status(500, "no"), (MissingKind.ERROR, "no")),
        (status(400, "no"), (MissingKind.ERROR, "no")),
        (Reply(failure=FailureKind.UNREACHABLE), (MissingKind.ERROR, "GET /api/v1/events: unreachable")),
        (not_found(), (MissingKind.ERROR, "the server could not find the requested resource")),
    ],
)
def test_a_kind_that_cannot_be_read_is_missing_and_the_rest_is_there(
    tmp_path: Path, reply: Reply, words: tuple[MissingKind, str]
) -> None:
    manifest = gather(FakeServer(routes(__api__v1__events=reply)), tmp_path / "b")

    assert manifest.missing == (MissingEvidence("api/events", *words, "api/events"),)
    assert isinstance(open_bundle(tmp_path / "b").kind("pods"), Seen)
    assert isinstance(open_bundle(tmp_path / "b").kind("events"), Missing)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"/version": Reply(failure=FailureKind.UNREACHABLE)}, "see that the address is right"),
        ({"/version": Reply(failure=FailureKind.TIMEOUT)}, "see that the address is reached"),
        ({"/version": Reply(failure=FailureKind.TLS)}, "certificate-authority-data"),
        ({"/version": Reply(failure=FailureKind.CREDENTIALS)}, "GET /version: credentials"),
        ({"/version": Reply(failure=FailureKind.RESET)}, "try again"),
        ({"/version": status(401, "Unauthorized")}, "does not know who asks: Unauthorized"),
        ({"/api/v1/nodes": status(401, "Unauthorized")}, "does not know who asks: Unauthorized"),
        ({"/api/v1/nodes": status(403, "nodes is forbidden: x")}, "nodes may not be read: nodes is forbidden: x; docs"),
    ],
)
def test_what_leaves_nothing_to_judge_ends_the_collection_and_leaves_no_bundle(
    tmp_path: Path, changes: Mapping[str, Route], words: str
) -> None:
    with pytest.raises(GpucheckError) as caught:
        gather(FakeServer({**routes(), **changes}), tmp_path / "b")

    assert words in str(caught.value)
    assert "https://10.0.0.1:6443 (context 'fake')" in str(caught.value)
    assert not isinstance(caught.value, UsageError)
    assert not (tmp_path / "b").exists()


def test_nodes_that_are_forbidden_are_missing_where_they_were_asked_for_by_name(tmp_path: Path) -> None:
    changed = routes(__api__v1__nodes=status(403, "nodes is forbidden"))
    manifest = gather(FakeServer(changed), tmp_path / "b", ask=Asked(api=("discovery", "nodes")))

    assert missing(manifest)["api/nodes"].kind is MissingKind.FORBIDDEN


def test_credentials_that_end_in_the_middle_end_the_questions(tmp_path: Path) -> None:
    server = FakeServer(routes(__api__v1__pods=status(401, "Unauthorized")))
    manifest = gather(server, tmp_path / "b")

    assert all(one.reason.endswith("Unauthorized") for one in manifest.missing)
    assert {"api/pods", "api/configmaps"} <= set(missing(manifest))
    assert {one.kind for one in manifest.missing} == {MissingKind.FORBIDDEN}
    assert len(server.asked) < 12


def test_a_discovery_that_is_forbidden_is_missing_and_lists_are_tried_at_their_usual_places(tmp_path: Path) -> None:
    refused = status(403, "forbidden")
    server = FakeServer({**routes(), "/version": refused, "/api": refused, "/apis": refused})
    manifest = gather(server, tmp_path / "b")

    assert missing(manifest)["api/discovery"].reason == "forbidden"
    bundle = open_bundle(tmp_path / "b")
    assert isinstance(bundle.kind("pods"), Seen)
    assert isinstance(bundle.kind("daemonsets.apps"), Seen)
    assert isinstance(bundle.kind("clusterpolicies.nvidia.com"), Missing)


def test_a_log_that_cannot_be_read_is_missing_in_the_servers_words(tmp_path: Path) -> None:
    changed = routes(__api__v1__namespaces__a__pods__p__log=status(400, "waiting to start"))
    manifest = gather(FakeServer(changed), tmp_path / "b")

    one = MissingEvidence("logs/a/p/c", MissingKind.ERROR, "waiting to start", "logs/a/p/c")
    assert manifest.missing == (one,)


def test_a_log_under_no_proper_name_is_missing_and_never_asked_for(tmp_path: Path) -> None:
    server = FakeServer(routes())
    manifest = gather(server, tmp_path / "b", ask=Asked(logs=("a/../../nodes/x",)))

    assert [one.evidence for one in manifest.missing] == ["logs/a/../../nodes/x"]
    assert not any("log" in path for path in server.paths())


def test_credentials_in_logs_are_replaced_and_counted(tmp_path: Path) -> None:
    changed = routes(__api__v1__namespaces__a__pods__p__log=Reply(content=b"password=hunter2 ok\n"))
    manifest = gather(FakeServer(changed), tmp_path / "b")

    assert manifest.redacted == {"cluster/logs/a_p_c.log": "1 credential"}
    assert open_bundle(tmp_path / "b").log("a", "p", "c") == Seen("password=[redacted] ok\n")


def probe_pod(node: str) -> dict[str, Any]:
    return thing(f"gpucheck-probe-{node}", "gpucheck", spec={"nodeName": node})


def block(node: str, **parts: Any) -> Reply:
    return Reply(content=encode_report(NodeReport(REPORT_FORMAT, node, **parts)).encode())


def probed() -> dict[str, Route]:
    lost = MissingEvidence("host/file:/x", MissingKind.FORBIDDEN, "EACCES", "host/file:/x", "n1")
    host = b'{"format":1,"reads":{"file:/y":{"text":"yes"}}}'
    keys = ("file:/x", "file:/y", "log:kubelet")
    return {
        **routes(),
        PROBES: list_of([probe_pod("n1"), probe_pod("n2")]),
        f"{PROBES}/gpucheck-probe-n1/log": block(
            "n1",
            asked=keys,
            host=msgspec.Raw(host),
            logs={"kubelet": "hi"},
            workloads={"vectoradd": msgspec.Raw(b"{}")},
            missing=(lost,),
        ),
        f"{PROBES}/gpucheck-probe-n2/log": Reply(content=b"nothing yet"),
    }


def test_what_probes_report_is_the_nodes_evidence_and_a_silent_one_is_missing(tmp_path: Path) -> None:
    manifest = gather(FakeServer(probed()), tmp_path / "b")

    keys = ("file:/x", "file:/y", "log:kubelet")
    assert manifest.asked.host == {"n1": keys, "n2": keys}
    assert manifest.asked.workload == ("vectoradd/n1",)
    bundle = open_bundle(tmp_path / "b")
    read = bundle.host_read("n1", "file:/y")
    assert isinstance(read, Seen)
    assert read.value.text == "yes"
    assert bundle.node_log("n1", "kubelet") == Seen("hi")
    lost, silent = bundle.host_read("n1", "file:/x"), bundle.host_read("n2", "file:/y")
    assert isinstance(lost, Missing)
    assert lost.reason == "EACCES"
    assert isinstance(silent, Missing)
    assert (silent.kind, "no block of evidence" in silent.reason) == (MissingKind.UNPARSABLE, True)


def test_a_node_that_was_asked_for_and_has_no_probe_is_missing(tmp_path: Path) -> None:
    ask = Asked(host={"n1": ("file:/y",), "n9": ("file:/y",)})
    manifest = gather(FakeServer(probed()), tmp_path / "b", ask=ask)

    assert manifest.asked == ask
    assert [(one.evidence, one.node) for one in manifest.missing if one.node != "n1"] == [("host", "n9")]
    assert not (tmp_path / "b/nodes/n2").exists()


def test_where_workloads_are_not_known_configmaps_are_missing_and_not_none(tmp_path: Path) -> None:
    manifest = gather(FakeServer(routes(__api__v1__pods=status(403, "no"))), tmp_path / "b")

    assert missing(manifest)["api/configmaps"].reason == "which namespaces hold the stack is not known: no"


def test_what_no_controller_changes_is_taken_from_the_look_before(tmp_path: Path) -> None:
    gather(FakeServer(routes()), tmp_path / "first")
    server = FakeServer(routes())
    manifest = gather(server, tmp_path / "second", reuse=tmp_path / "first")

    assert "/api/v1/namespaces" not in server.paths()
    assert "/api/v1/limitranges" not in server.paths()
    assert "/api/v1/pods" in server.paths()
    assert isinstance(open_bundle(tmp_path / "second").kind("namespaces"), Seen)
    assert manifest.asked.api == ("discovery", *KINDS, "configmaps")
    assert "cluster/namespaces.json" in manifest.files


def test_a_folder_that_holds_something_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    server = FakeServer(routes())

    with pytest.raises(BundleError):
        gather(server, tmp_path)
    assert (server.asked, (tmp_path / "x").read_text()) == ([], "mine")


def test_time_that_is_over_leaves_what_came_and_says_so_of_the_rest(tmp_path: Path) -> None:
    manifest = gather(FakeServer(routes()), tmp_path / "b", ask=Asked(api=("nodes", "pods")), timeout_s=0.2)
    assert manifest.missing == ()

    with pytest.raises(GpucheckError, match="0 s of this collection"):
        gather(FakeServer(routes()), tmp_path / "c", timeout_s=0.0)


def tenant(**changes: Route) -> dict[str, Route]:
    """Return the same cluster for somebody who may read namespace `a` alone."""
    found = routes()
    for path in found:
        if not path.startswith(("/version", "/api/v1/namespaces/a/")) and path not in {"/api", "/apis"}:
            found[path] = status(403, f"{path.rpartition('/')[2]} is forbidden")
    found["/api/v1/namespaces/a/pods"] = list_of([plugin_pod()])
    found["/api/v1/namespaces/a/pods/p"] = document(plugin_pod())
    found["/api/v1/namespaces/a/events"] = list_of([thing("e", type="Warning")])
    return {**found, **changes}


def test_a_tenant_reads_one_namespace_and_is_told_what_the_rest_needs(tmp_path: Path) -> None:
    manifest = gather(FakeServer(tenant()), tmp_path / "b", pod=("a", "p"))

    lost = missing(manifest)
    assert {one.kind for one in lost.values()} == {MissingKind.FORBIDDEN}
    assert {"api/nodes", "api/pods", "api/events", "api/namespaces"} <= set(lost)
    bundle = open_bundle(tmp_path / "b")
    assert isinstance(bundle.kind("nodes"), Missing)
    for kind in ("pods", "events", "configmaps"):
        assert isinstance(bundle.kind(kind), Missing), kind
        assert isinstance(bundle.kind(kind, part=True), Seen), kind
    assert bundle.log("a", "p", "c") == Seen("starting\n")


def test_a_tenant_who_may_only_get_the_pod_has_the_pod(tmp_path: Path) -> None:
    changed = tenant(**{"/api/v1/namespaces/a/pods": status(403, "no")})
    gather(FakeServer(changed), tmp_path / "b", pod=("a", "p"))

    reading = open_bundle(tmp_path / "b").kind("pods", part=True)
    assert isinstance(reading, Seen)
    assert b'"name":"p"' in (tmp_path / "b/cluster/pods.json").read_bytes()


@pytest.mark.parametrize(
    ("pod", "changes", "error", "words"),
    [
        (("a", "gone"), {}, UsageError, "pod 'a/gone': the server could not find"),
        (("a", "../x"), {}, UsageError, "is no pod's name"),
        (
            ("a", "p"),
            {"/api/v1/namespaces/a/pods/p": status(403, "no")},
            GpucheckError,
            "pod 'a/p' may not be read: no",
        ),
    ],
)
def test_a_pod_that_cannot_be_read_ends_the_collection(
    tmp_path: Path, pod: tuple[str, str], changes: Mapping[str, Route], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match="pod") as caught:
        gather(FakeServer(tenant(**changes)), tmp_path / "b", pod=pod)

    assert words in str(caught.value)
    assert not (tmp_path / "b").exists()

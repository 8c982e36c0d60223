"""A bundle played back: what was missing fails as it did, what nobody asked for is not known, nodes report by pods."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bundle_builders import listed, pod
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.nodereport import decode_report
from kube_gpucheck.model import MissingEvidence, MissingKind
from kube_gpucheck.simulate.server import EmbeddedCluster
from serving import Answer, ask, bundle_of

PROBE = "/api/v1/namespaces/gpucheck/pods/gpucheck-probe-"
LOG = "/api/v1/namespaces/default/pods/web/log"
HOST = json.dumps({"format": 1, "reads": {"file:/x": {"text": "1"}}}).encode()


def lost(evidence: str, kind: str, node: str | None = None) -> dict[str, Any]:
    """Return an entry of `missing`."""
    return {"evidence": evidence, "kind": kind, "reason": f"the {kind} words", "source": evidence, "node": node}


def said(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.document.get("reason", ""), answer.document["message"]


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [("forbidden", 403, "Forbidden"), ("timeout", 504, "Timeout"), ("error", 500, "InternalError")],
)
def test_a_missing_kind_fails_as_it_did_in_its_own_words(kind: str, status: int, reason: str) -> None:
    bundle = bundle_of(missing=[lost("api/pods", kind)])
    with EmbeddedCluster(bundle, name="test") as cluster:
        for path in ("/api/v1/pods", "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/web"):
            assert said(ask(cluster, path)) == (status, reason, f"the {kind} words")


def test_an_unparsable_kind_is_an_answer_that_is_no_list() -> None:
    with EmbeddedCluster(bundle_of(missing=[lost("api/pods", "unparsable")]), name="test") as cluster:
        answer = ask(cluster, "/api/v1/pods")

    assert (answer.status, answer.document) == (200, None)


def test_a_kind_that_nobody_asked_for_is_not_said_to_be_empty() -> None:
    with EmbeddedCluster(bundle_of(), name="test") as cluster:
        answer = ask(cluster, "/api/v1/services")

    assert said(answer) == (
        403,
        "Forbidden",
        "services is forbidden: the bundle that is played back never asked for it",
    )


def test_a_kind_that_was_asked_for_and_is_not_there_is_an_error_of_the_server() -> None:
    asked = {"api": ["services"]}
    with EmbeddedCluster(bundle_of(asked=asked), name="test") as cluster:
        answer = ask(cluster, "/api/v1/services")

    assert said(answer)[::2] == (500, "cluster/services.json was asked for and is not in the bundle")


def test_probes_report_where_the_list_of_pods_is_gone() -> None:
    bundle = bundle_of({"nodes/n1/host.json": HOST}, asked={"api": ["pods"], "host": {"n1": ["file:/x"]}})
    files = {path: bundle.store.read(path) or b"" for path in bundle.store.paths() if path != "cluster/pods.json"}
    with EmbeddedCluster(memory_bundle("test", files), name="test") as cluster:
        assert said(ask(cluster, "/api/v1/pods"))[0] == 500
        assert decode_report(ask(cluster, f"{PROBE}n1/log").body.decode()).node == "n1"


@pytest.mark.parametrize("path", ["/version", "/api", "/apis", "/api/v1"])
def test_missing_discovery_fails_as_it_did_and_lists_do_not(path: str) -> None:
    asked = {"api": ["discovery", "nodes"]}
    with EmbeddedCluster(bundle_of(asked=asked, missing=[lost("api/discovery", "timeout")]), name="test") as cluster:
        assert said(ask(cluster, path)) == (504, "Timeout", "the timeout words")
        assert ask(cluster, "/api/v1/nodes").names == ["gpu-0"]
        assert ask(cluster, "/apis/apps/v1/daemonsets").names == []


@pytest.mark.parametrize("path", ["/version", "/apis"])
def test_discovery_that_nobody_asked_for_is_not_invented(path: str) -> None:
    with EmbeddedCluster(bundle_of(), name="test") as cluster:
        assert said(ask(cluster, path))[:2] == (403, "Forbidden")


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [("forbidden", 403, "Forbidden"), ("timeout", 504, "Timeout"), ("error", 400, "BadRequest")],
)
def test_a_missing_log_fails_as_it_did(kind: str, status: int, reason: str) -> None:
    bundle = bundle_of(missing=[lost("logs/default/web/main", kind), lost("logs/default/web/main/previous", kind)])
    with EmbeddedCluster(bundle, name="test") as cluster:
        assert said(ask(cluster, LOG)) == (status, reason, f"the {kind} words")
        assert said(ask(cluster, LOG, query={"previous": "true"})) == (status, reason, f"the {kind} words")


def test_what_a_kubelet_says_in_a_logs_place_comes_as_a_log() -> None:
    words = "unable to retrieve container logs for containerd://5aa4"
    missing = [{**lost("logs/default/web/main", "error"), "reason": words}]
    with EmbeddedCluster(bundle_of(missing=missing), name="test") as cluster:
        answer = ask(cluster, LOG)

    assert (answer.status, answer.body.decode()) == (200, words)


@pytest.fixture
def logging() -> Iterator[EmbeddedCluster]:
    two = {**pod("two"), "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}}
    content = {
        "cluster/pods.json": listed(pod(), two),
        "cluster/logs/default_web_main.log": b"one\ntwo\nthree\n",
        "cluster/logs/default_web_main.previous.log": b"before\n",
        "cluster/logs/default_gone_main.log": b"of a pod that is gone\n",
    }
    with EmbeddedCluster(bundle_of(content), name="test") as running:
        yield running


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "one\ntwo\nthree\n"),
        ({"container": "main"}, "one\ntwo\nthree\n"),
        ({"previous": "true"}, "before\n"),
        ({"tailLines": "2"}, "two\nthree\n"),
        ({"tailLines": "0"}, ""),
        ({"tailLines": "99"}, "one\ntwo\nthree\n"),
        ({"limitBytes": "5"}, "one\nt"),
        ({"tailLines": "1", "limitBytes": "2"}, "th"),
        ({"sinceSeconds": "1", "timestamps": "false", "follow": "true"}, "one\ntwo\nthree\n"),
    ],
)
def test_the_part_of_a_log_comes_that_is_asked_for(logging: EmbeddedCluster, query: dict[str, str], text: str) -> None:
    assert ask(logging, LOG, query=query).body.decode() == text


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        (LOG, {"container": "x"}, 400, "container x is not valid for pod web"),
        (LOG, {"tailLines": "few"}, 400, 'strconv.ParseInt: parsing "few": invalid syntax'),
        (LOG.replace("web", "nobody"), {}, 404, 'pods "nobody" not found'),
        (
            LOG.replace("web", "two"),
            {},
            400,
            "a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [i]",
        ),
        (
            LOG.replace("web", "two"),
            {"container": "a"},
            403,
            "the log of default/two/a is forbidden: the bundle that is played back never asked for it",
        ),
    ],
)
def test_a_log_that_cannot_be_had_is_refused_in_upstream_s_words(
    logging: EmbeddedCluster, path: str, query: dict[str, str], status: int, message: str
) -> None:
    assert said(ask(logging, path, query=query))[::2] == (status, message)


@pytest.mark.parametrize("query", [{"tailLines": "-1"}, {"limitBytes": "0"}, {"limitBytes": "-3"}])
def test_a_part_that_is_none_is_invalid(logging: EmbeddedCluster, query: dict[str, str]) -> None:
    assert said(ask(logging, LOG, query=query))[:2] == (422, "Invalid")


def test_the_log_of_a_pod_that_is_gone_is_still_there(logging: EmbeddedCluster) -> None:
    answer = ask(logging, LOG.replace("web", "gone"), query={"container": "main"})

    assert answer.body == b"of a pod that is gone\n"


def test_a_node_s_evidence_is_the_log_of_its_probe() -> None:
    content = {
        "nodes/n1/host.json": HOST,
        "nodes/n1/logs/kubelet.log": b"I1 started \xff\n",
        "workloads/vectoradd/n1.json": b'{"nonce": 1}',
    }
    asked = {"api": ["pods"], "host": {"n1": ["file:/x", "log:kubelet"]}, "workload": ["vectoradd/n1"]}
    missing = [lost("host/file:/y", "timeout", "n1"), lost("host/file:/z", "timeout", "n2")]
    with EmbeddedCluster(bundle_of(content, asked=asked, missing=missing), name="test") as cluster:
        report = decode_report(ask(cluster, f"{PROBE}n1/log").body.decode())
        listing = ask(cluster, "/api/v1/namespaces/gpucheck/pods").document["items"]

    assert report.node == "n1"
    assert report.asked == ("file:/x", "log:kubelet")
    assert bytes(report.host) == HOST
    assert report.logs == {"kubelet": "I1 started \N{REPLACEMENT CHARACTER}\n"}
    assert {name: bytes(raw) for name, raw in report.workloads.items()} == {"vectoradd": b'{"nonce": 1}'}
    assert report.missing == (
        MissingEvidence("host/file:/y", MissingKind.TIMEOUT, "the timeout words", "host/file:/y", "n1"),
    )
    assert [(one["metadata"]["name"], one["spec"]["nodeName"]) for one in listing] == [
        ("gpucheck-probe-n1", "n1"),
    ]


def test_a_node_of_which_nothing_could_be_read_has_a_probe_whose_log_fails() -> None:
    bundle = bundle_of(asked={"api": [], "host": {"n1": ["file:/x"]}}, missing=[lost("host", "timeout", "n1")])
    with EmbeddedCluster(bundle, name="test") as cluster:
        assert said(ask(cluster, f"{PROBE}n1/log")) == (504, "Timeout", "the timeout words")


def test_a_node_whose_reads_are_lost_and_whose_logs_are_not_reports_both() -> None:
    asked = {"api": [], "host": {"n1": ["file:/x", "log:kubelet"]}}
    content = {"nodes/n1/logs/kubelet.log": b"text\n"}
    with EmbeddedCluster(
        bundle_of(content, asked=asked, missing=[lost("host", "error", "n1")]), name="test"
    ) as cluster:
        report = decode_report(ask(cluster, f"{PROBE}n1/log").body.decode())

    assert (bytes(report.host), report.logs) == (b"null", {"kubelet": "text\n"})
    assert [one.evidence for one in report.missing] == ["host"]


def test_reads_that_were_asked_for_and_are_not_there_are_missing() -> None:
    with EmbeddedCluster(bundle_of(asked={"api": [], "host": {"n1": ["file:/x"]}}), name="test") as cluster:
        report = decode_report(ask(cluster, f"{PROBE}n1/log").body.decode())

    assert [(one.evidence, one.kind, one.node) for one in report.missing] == [("host", MissingKind.ERROR, "n1")]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_reads_that_are_damaged_are_an_error_of_the_log_and_of_nothing_else(content: bytes) -> None:
    bundle = bundle_of({"nodes/n1/host.json": content}, asked={"api": ["nodes"], "host": {"n1": ["file:/x"]}})
    with EmbeddedCluster(bundle, name="test") as cluster:
        answer = ask(cluster, f"{PROBE}n1/log")
        assert answer.status in {200, 500}
        assert ask(cluster, "/api/v1/nodes").names == ["gpu-0"]


def test_probes_are_found_where_pods_are_forbidden() -> None:
    asked = {"api": ["pods", "namespaces"], "host": {"n1": ["file:/x"]}}
    missing = [lost("api/pods", "forbidden"), lost("api/namespaces", "forbidden")]
    with EmbeddedCluster(bundle_of(asked=asked, missing=missing), name="test") as cluster:
        query = {"labelSelector": "app.kubernetes.io/managed-by=gpucheck,app.kubernetes.io/component=probe"}
        assert ask(cluster, "/api/v1/namespaces/gpucheck/pods", query=query).names == ["gpucheck-probe-n1"]
        assert ask(cluster, "/api/v1/pods", query=query).status == 403
        assert ask(cluster, "/api/v1/namespaces/gpucheck").document["kind"] == "Namespace"


def test_a_cluster_without_node_evidence_has_no_probe_and_no_namespace_of_it() -> None:
    asked = {"api": ["pods", "namespaces"]}
    content = {"cluster/namespaces.json": listed({"metadata": {"name": "default"}})}
    with EmbeddedCluster(bundle_of(content, asked=asked), name="test") as cluster:
        assert ask(cluster, "/api/v1/namespaces").names == ["default"]
        assert ask(cluster, "/api/v1/namespaces/gpucheck/pods").names == []
        assert ask(cluster, f"{PROBE}n1/log").status == 404


def test_an_exporter_answers_through_the_proxy() -> None:
    with EmbeddedCluster(bundle_of({"telemetry/gpu_exporter_9400.prom": b"up 1\n"}), name="test") as cluster:
        assert ask(cluster, "/api/v1/namespaces/gpu/pods/exporter:9400/proxy/metrics").body == b"up 1\n"
        assert said(ask(cluster, "/api/v1/namespaces/gpu/services/exporter/proxy/"))[:2] == (503, "ServiceUnavailable")

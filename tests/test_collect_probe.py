"""What probes on the nodes report: found by label, decoded once, split into the bundle's files."""

import msgspec
import pytest

from fake_server import FakeServer, Reply, api_of, list_of, status, workers
from kube_gpucheck.collect.api import RefusedError
from kube_gpucheck.collect.probe import SELECTOR, files_of, find_probes, read_reports
from kube_gpucheck.evidence.nodereport import REPORT_FORMAT, NodeReport, encode_report
from kube_gpucheck.model import MissingKind

PODS = "/api/v1/namespaces/gpucheck/pods"


def probe(node: str) -> dict[str, object]:
    return {"metadata": {"name": f"gpucheck-probe-{node}"}, "spec": {"nodeName": node}}


def report(node: str = "n1") -> NodeReport:
    return NodeReport(
        REPORT_FORMAT,
        node,
        asked=("file:/proc/modules", "log:kubelet"),
        host=msgspec.Raw(b'{"format":1,"reads":{}}'),
        logs={"kubelet": "hello\n", "../../etc/passwd": "no"},
        workloads={"vectoradd": msgspec.Raw(b'{"ok":true}'), "../x": msgspec.Raw(b"1")},
    )


def read(reply: Reply) -> NodeReport | RefusedError:
    server = FakeServer({f"{PODS}/gpucheck-probe-n1/log": reply})
    with workers(2) as pool:
        [(node, answer)] = read_reports(api_of(server), pool, {"n1": "gpucheck-probe-n1"})
    assert node == "n1"
    assert server.asked == [(f"{PODS}/gpucheck-probe-n1/log", {"container": "probe"})]
    return answer


def test_probes_are_found_by_their_labels_on_every_page() -> None:
    pages = {
        "": list_of([probe("n2"), probe("n3")], next_page="t"),
        "t": list_of([probe("n1"), {"metadata": {"name": "x"}}]),
    }
    server = FakeServer({PODS: lambda query: pages[query.get("continue", "")]})

    assert find_probes(api_of(server), workers()) == {f"n{number}": f"gpucheck-probe-n{number}" for number in (1, 2, 3)}
    assert server.asked[0][1]["labelSelector"] == SELECTOR


@pytest.mark.parametrize("reply", [Reply(content=b"<"), status(403, "no"), list_of([5])])
def test_probes_that_cannot_be_listed_are_told_so(reply: Reply) -> None:
    with pytest.raises(RefusedError):
        find_probes(api_of(FakeServer({PODS: reply})), workers())


def test_a_pod_of_no_proper_node_is_passed_by() -> None:
    assert find_probes(api_of(FakeServer({PODS: list_of([probe("../n"), probe("")])})), workers()) == {}


def test_a_report_becomes_the_bundles_files_under_proper_names_only() -> None:
    answer = read(Reply(content=b"noise\n" + encode_report(report()).encode() + b"more\n"))

    assert isinstance(answer, NodeReport)
    assert dict(files_of(answer)) == {
        "nodes/n1/host.json": b'{"format":1,"reads":{}}',
        "nodes/n1/logs/kubelet.log": b"hello\n",
        "workloads/vectoradd/n1.json": b'{"ok":true}',
    }


def test_a_report_without_reads_has_no_host_file() -> None:
    assert dict(files_of(NodeReport(REPORT_FORMAT, "n1"))) == {}


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (status(400, "waiting to start"), MissingKind.ERROR, "waiting to start"),
        (Reply(content=b""), MissingKind.UNPARSABLE, "no block of evidence"),
        (Reply(content=encode_report(report()).encode()[:-40]), MissingKind.UNPARSABLE, "has no end"),
        (Reply(content=encode_report(report("n2")).encode()), MissingKind.UNPARSABLE, "reports of 'n2'"),
        (Reply(content=b"\xff" * 100_000), MissingKind.UNPARSABLE, "no block of evidence"),
    ],
)
def test_a_report_that_cannot_be_had_is_told_why(reply: Reply, kind: MissingKind, words: str) -> None:
    answer = read(reply)

    assert isinstance(answer, RefusedError)
    assert answer.kind is kind
    assert words in answer.reason

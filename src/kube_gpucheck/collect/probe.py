"""Reads what gpucheck's own pods on the nodes report, and splits it into a bundle's files.

A probe's pod runs on one node; its log is one block (`evidence/block.py`) that holds a report
(`evidence/nodereport.py`). Pods that belong to no node, or have not started, are not asked.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kube_gpucheck.collect.api import Api, RefusedError
from kube_gpucheck.collect.logs import read_log
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.evidence.block import BlockError
from kube_gpucheck.evidence.names import is_name
from kube_gpucheck.evidence.nodereport import NodeReport, decode_report
from kube_gpucheck.model import MissingKind

NAMESPACE: Final = "gpucheck"
CONTAINER: Final = "probe"
SELECTOR: Final = "app.kubernetes.io/managed-by=gpucheck,app.kubernetes.io/component=probe"
_UNIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,100}")
_BATCH: Final = 16
_PAGE: Final = "500"


class _Metadata(msgspec.Struct, frozen=True):
    name: str


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


class _More(msgspec.Struct, frozen=True, rename={"next_page": "continue"}):
    next_page: str = ""


class _Pods(msgspec.Struct, frozen=True):
    items: tuple[_Pod, ...] | None = None
    metadata: _More = _More()


def find_probes(api: Api, pool: Workers) -> Mapping[str, str]:
    """Return the probe's pods by their node, in order of the nodes.

    Raises:
        RefusedError: they cannot be listed.
    """
    found: dict[str, str] = {}
    query = {"labelSelector": SELECTOR, "limit": _PAGE}
    while True:
        asked = dict(query)
        body = pool.ask(lambda asked=asked: api.read(f"/api/v1/namespaces/{NAMESPACE}/pods", asked))  # type: ignore[misc]  # bound now
        try:
            page = msgspec.json.decode(body.content, type=_Pods)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            reason = f"the probe's pods: the answer is no list of pods: {error}"
            raise RefusedError(MissingKind.UNPARSABLE, reason) from error
        for pod in page.items or ():
            if is_name(pod.spec.node_name) and is_name(pod.metadata.name):
                found[pod.spec.node_name] = pod.metadata.name
        if not page.metadata.next_page or page.metadata.next_page == query.get("continue"):
            return dict(sorted(found.items()))
        query["continue"] = page.metadata.next_page


def read_reports(api: Api, pool: Workers, probes: Mapping[str, str]) -> Iterator[tuple[str, NodeReport | RefusedError]]:
    """Yield each node with its report, or with why there is none."""
    nodes = list(probes)
    for start in range(0, len(nodes), _BATCH):
        batch = nodes[start : start + _BATCH]
        yield from zip(batch, pool.each(lambda node: _report(api, node, probes[node]), batch), strict=True)


def files_of(report: NodeReport) -> Iterator[tuple[str, bytes]]:
    """Yield a report's files: paths in the bundle, and their content. What has no proper name is left out."""
    node = report.node
    if bytes(report.host) != b"null":
        yield f"nodes/{node}/host.json", bytes(report.host)
    for unit, text in report.logs.items():
        if _UNIT.fullmatch(unit):
            yield f"nodes/{node}/logs/{unit}.log", text.encode("utf-8", "replace")
    for name, measured in report.workloads.items():
        if is_name(name):
            yield f"workloads/{name}/{node}.json", bytes(measured)


def _report(api: Api, node: str, pod: str) -> NodeReport | RefusedError:
    try:
        content = read_log(api, f"{NAMESPACE}/{pod}/{CONTAINER}", tail_bytes=None)
        report = decode_report(content.decode("utf-8", "replace"))
    except RefusedError as refusal:
        return refusal
    except BlockError as error:
        return RefusedError(MissingKind.UNPARSABLE, f"the log of pod '{NAMESPACE}/{pod}': {error}")
    if report.node != node:
        reason = f"pod '{NAMESPACE}/{pod}' runs on node '{node}' and reports of '{report.node}'"
        return RefusedError(MissingKind.UNPARSABLE, reason)
    return report

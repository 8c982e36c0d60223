"""What a program on one node reports: its verbatim reads, its services' logs, what a workload measured.

It travels as the payload of a block (`block.py`) in a pod's log. Nothing is parsed further here.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.block import BlockError, decode_block, encode_block
from kube_gpucheck.model import MissingEvidence

REPORT_FORMAT: Final = 1


class NodeReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """One node's report.

    `asked`: what was asked of the node, `<verb>:<argument>` and `log:<unit>`, whether or not an answer
    came. `host`: `host.json` as it is (a
    `HostRecord`), `null` if the reads as a whole failed; `missing` then says why. `logs`: by unit.
    `workloads`: each workload's measurement, as it is.
    """

    format: int
    node: str
    asked: tuple[str, ...] = ()
    host: msgspec.Raw = msgspec.Raw(b"null")
    logs: Mapping[str, str] = {}
    workloads: Mapping[str, msgspec.Raw] = {}
    missing: tuple[MissingEvidence, ...] = ()


def encode_report(report: NodeReport) -> str:
    """Return the report as a block of text."""
    return encode_block(msgspec.json.encode(report))


def decode_report(text: str) -> NodeReport:
    """Return the report in a pod's log.

    Raises:
        BlockError: there is no whole block, or what it holds is no report of this format.
    """
    try:
        report = msgspec.json.decode(decode_block(text), type=NodeReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the block holds no node report: {error}"
        raise BlockError(msg) from error
    if report.format != REPORT_FORMAT:
        msg = f"the node report has format {report.format}, this gpucheck reads {REPORT_FORMAT}; use one version"
        raise BlockError(msg)
    return report

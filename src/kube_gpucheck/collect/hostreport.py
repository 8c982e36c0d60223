"""Prints one host's report as a block of text: the program that runs on a node.

    python -m kube_gpucheck.collect.hostreport --root /host --node NAME

Its output is the payload of `evidence/nodereport.py` in the form of `evidence/block.py`, or, with
`--json`, the payload alone. Exit status 0 whatever was read: an error is evidence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Final

from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.host import read_host
from kube_gpucheck.evidence.block import encode_block

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT_FORMAT: Final = 1


def report(node: str, root: str, *, full: bool, deadline_s: float) -> dict[str, object]:
    """Return a node's report, as `evidence/nodereport.py` reads it."""
    found = read_host(root, full=full, deadline_s=deadline_s)
    missing = [{**one, "node": node} for one in found["missing"]]  # type: ignore[attr-defined]  # a list of objects
    return {"format": REPORT_FORMAT, "node": node, **found, "missing": missing}


def main(words: Sequence[str] | None = None) -> int:
    """Read the host and print its report."""
    parser = argparse.ArgumentParser(description="Read this host and print what was read as one block of text.")
    parser.add_argument("--root", default="/", help="where the host's root is found (/host in a pod)")
    parser.add_argument("--node", default=os.environ.get("NODE_NAME") or os.uname().nodename, help="the node's name")
    parser.add_argument("--full", action="store_true", help="make NVML's slow queries too")
    parser.add_argument("--timeout", type=float, default=deadlines.HOST_S, help="seconds for the whole")
    parser.add_argument("--json", action="store_true", help="print the report itself")
    asked = parser.parse_args(words)
    payload = json.dumps(report(asked.node, asked.root, full=asked.full, deadline_s=asked.timeout), sort_keys=False)
    sys.stdout.write(payload + "\n" if asked.json else encode_block(payload.encode("ascii")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measures gpucheck's start, and one recording, as whole processes, each beside a peer in the same run.

    python benchmarks/measure.py [--runs 5]

Prints one line a figure: median wall time, peak memory, and the ratio to its peer. The peer of a
command is the bare interpreter; that of judging is reading and decoding the same files with the
standard library's json. Large clusters: benchmarks/scale.py. docs/performance.md keeps the results.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from processes import cost_of, median

HERE = Path(__file__).resolve().parent
RECORDING = HERE.parent / "fixtures" / "bundles" / "recorded" / "healthy"
DECODE_ALL = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.json"):
    json.loads(path.read_bytes())
for path in pathlib.Path(sys.argv[1]).rglob("*.log"):
    path.read_text(errors="replace")
"""


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    gpucheck = [sys.executable, "-m", "kube_gpucheck"]
    print(f"| figure | median of {options.runs} (s) | peak (MiB) | peer | ratio to the peer |")
    print("| --- | --- | --- | --- | --- |")

    def report(figure: str, command: Sequence[str], *, peer_name: str, peer: Sequence[str], runs: int) -> None:
        cost = median([cost_of(command) for _ in range(runs)])
        base = median([cost_of(peer) for _ in range(runs)]).wall_s
        ratio = cost.wall_s / base
        print(
            f"| {figure} | {cost.wall_s:.3f} | {cost.peak_mib:.0f} | {peer_name} {base:.3f} s | {ratio:.1f} |",
            flush=True,
        )

    bare = [sys.executable, "-c", "pass"]
    report("`gpucheck --help`", [*gpucheck, "--help"], peer_name="bare interpreter", peer=bare, runs=options.runs)
    report(
        "`gpucheck list checks`",
        [*gpucheck, "list", "checks"],
        peer_name="bare interpreter",
        peer=bare,
        runs=options.runs,
    )
    decode = [sys.executable, "-c", DECODE_ALL]
    one = [*gpucheck, "run", "--from", str(RECORDING)]
    report(
        "one recording, end to end",
        one,
        peer_name="json of the same files",
        peer=[*decode, str(RECORDING)],
        runs=options.runs,
    )


if __name__ == "__main__":
    main()

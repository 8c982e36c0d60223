"""Measures gpucheck as a user feels it: whole processes, each beside a peer in the same run.

    python benchmarks/measure.py [--nodes 1000] [--runs 5]

Prints one line a figure: median wall time, peak memory, and the ratio to its peer. The peer of a
command is the bare interpreter; that of judging is reading and decoding the same files with the
standard library's json. Run it on a quiet machine; docs/performance.md keeps the results.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDING = HERE.parent / "fixtures" / "bundles" / "recorded" / "healthy"
DECODE_ALL = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.json"):
    json.loads(path.read_bytes())
for path in pathlib.Path(sys.argv[1]).rglob("*.log"):
    path.read_text(errors="replace")
"""


def timed(command: Sequence[str], runs: int) -> tuple[float, float]:
    """Return the median wall time in seconds, and the peak memory in MiB, of a command's own processes."""
    walls: list[float] = []
    peak = 0
    for _ in range(runs):
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(child.pid, 0)
        walls.append(time.perf_counter() - began)
        peak = max(peak, usage.ru_maxrss)
        if os.waitstatus_to_exitcode(status) not in {0, 1, 4}:
            error = child.stderr.read().decode() if child.stderr else ""
            raise SystemExit(f"{' '.join(command)}: {error}")
    return statistics.median(walls), peak / 1024


def generate(folder: Path, nodes: int) -> None:
    """Write a bundle of many nodes, each a renamed copy of the recorded healthy one. Creates the folder."""
    manifest = json.loads((RECORDING / "bundle.json").read_text())
    lists = {path.name: json.loads(path.read_text()) for path in (RECORDING / "cluster").glob("*.json")}
    logs = {path.name: path.read_bytes() for path in (RECORDING / "cluster" / "logs").iterdir()}
    (name,) = manifest["asked"]["host"]
    host = (RECORDING / "nodes" / name / "host.json").read_bytes()
    unit_logs = {path.name: path.read_bytes() for path in (RECORDING / "nodes" / name / "logs").iterdir()}
    (folder / "cluster" / "logs").mkdir(parents=True)
    made: dict[str, list[dict[str, Any]]] = {key: [] for key in lists if key != "discovery.json"}
    asked_logs: list[str] = []
    for number in range(nodes):
        suffix = f"-{number:05d}"
        for key, items in made.items():
            for item in lists[key].get("items", []):
                whole = key in {
                    "nodes.json",
                    "pods.json",
                    "leases.coordination.k8s.io.json",
                    "nodefeatures.nfd.k8s-sigs.io.json",
                }
                if whole or number == 0:
                    items.append(renamed(item, name, suffix, pods=whole))
        for file, content in logs.items():
            namespace, pod, rest = file.split("_", 2)
            (folder / "cluster" / "logs" / f"{namespace}_{pod}{suffix}_{rest}").write_bytes(content)
            asked_logs.append(
                f"{namespace}/{pod}{suffix}/{rest.removesuffix('.log').replace('.previous', '/previous')}"
            )
        target = folder / "nodes" / f"{name}{suffix}"
        (target / "logs").mkdir(parents=True)
        (target / "host.json").write_bytes(host)
        for file, content in unit_logs.items():
            (target / "logs" / file).write_bytes(content)
    for key, items in made.items():
        (folder / "cluster" / key).write_text(json.dumps({**lists[key], "items": items}))
    for item in made["daemonsets.apps.json"]:
        status: dict[str, Any] = item["status"]
        item["status"] = {key: nodes if isinstance(value, int) and value else value for key, value in status.items()}
    (folder / "cluster" / "daemonsets.apps.json").write_text(
        json.dumps({**lists["daemonsets.apps.json"], "items": made["daemonsets.apps.json"]})
    )
    shutil.copy(RECORDING / "cluster" / "discovery.json", folder / "cluster")
    reads = manifest["asked"]["host"][name]
    manifest["asked"] = {
        **manifest["asked"],
        "logs": asked_logs,
        "host": {f"{name}-{number:05d}": reads for number in range(nodes)},
    }
    manifest.update(provenance="generated", modelled_on="recorded/healthy", files={})
    (folder / "bundle.json").write_text(json.dumps(manifest))


def renamed(item: dict[str, Any], node: str, suffix: str, *, pods: bool) -> dict[str, Any]:
    """Return a copy of an object for another node; pods get names and identities of their own."""
    text = json.dumps(item).replace(f'"{node}"', f'"{node}{suffix}"').replace(f'-{node}"', f'-{node}{suffix}"')
    copy: dict[str, Any] = json.loads(text)
    metadata = copy["metadata"]
    if pods and copy.get("kind") == "Pod":
        metadata["name"] = f"{metadata['name']}{suffix}"
    if pods:
        metadata["uid"] = f"{metadata.get('uid', '')}{suffix}"
    return copy


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    gpucheck = [sys.executable, "-m", "kube_gpucheck"]
    print(f"| figure | median of {options.runs} (s) | peak (MiB) | peer | ratio to the peer |")
    print("| --- | --- | --- | --- | --- |")

    def report(figure: str, command: Sequence[str], *, peer_name: str, peer: Sequence[str], runs: int) -> None:
        wall, peak = timed(command, runs)
        base, _ = timed(peer, runs)
        print(f"| {figure} | {wall:.3f} | {peak:.0f} | {peer_name} {base:.3f} s | {wall / base:.1f} |", flush=True)

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
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generated"
        generate(folder, options.nodes)
        many = [
            *gpucheck,
            "run",
            "--from",
            str(folder),
            "--junit",
            f"{scratch}/junit.xml",
            "--json",
            f"{scratch}/report.json",
        ]
        figure = f"{options.nodes:,} generated nodes, judged, with JUnit and JSON"
        report(figure, many, peer_name="json of the same files", peer=[*decode, str(folder)], runs=min(options.runs, 3))


if __name__ == "__main__":
    main()

"""Measures gpucheck on a generated cluster of 5,000 nodes behind the embedded cluster, each figure beside its peer.

    python benchmarks/scale.py [--nodes 5000] [--runs 3] [--scratch FOLDER] [--only collect,judge,run,growth,hosts]

Prints a table in Markdown: median wall time, CPU and peak memory of whole processes, the ratio to the
peer of the same round, and the goal. The server is a process of its own; what it spent is reported
apart. docs/performance.md keeps the results.
"""

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from processes import Cost, cost_of, median, spent_by

HERE = Path(__file__).resolve().parent
GPUCHECK = (sys.executable, "-m", "kube_gpucheck")
GENERATE = """
import sys
from pathlib import Path
from kube_gpucheck.simulate.generate import generated_cluster, write_generated
write_generated(Path(sys.argv[1]), generated_cluster(nodes=int(sys.argv[2]), broken=sys.argv[3:]))
"""
GENERATE_WITH_HOSTS = """
import sys
from pathlib import Path
from kube_gpucheck.simulate.generate import GeneratedCluster, write_generated
from kube_gpucheck.simulate.scenario import Library
host = Library(Path(sys.argv[3])).build("healthy/eight-gpus")
write_generated(Path(sys.argv[1]), GeneratedCluster(nodes=int(sys.argv[2]), cpu_nodes=0, logs=0), host)
"""
FIXTURES = HERE.parent / "fixtures"
BROKEN = ("not-ready=0.002", "gpu-lost=0.002", "image-pull=0.001", "cordoned=0.002")
KINDS = "nodes,pods,daemonsets,events"
START_S = 120
WALL_TO_KUBECTL, MEMORY_TO_KUBECTL, WALL_TO_DOWNLOAD = 0.5, 0.25, 1.5
JUDGING_S, RUN_S, RUN_MIB, GROWTH = 3, 8, 250, 5.2
"""The goals."""
STEPS = ("collect", "judge", "run", "growth", "hosts")


class Bench:
    """One generated cluster, its server, and what is measured against it."""

    def __init__(self, nodes: int, runs: int, scratch: Path) -> None:
        """Remember the sizes; `generate` writes the bundle."""
        self.nodes, self.runs = nodes, runs
        self.scratch = scratch
        self.bundle = scratch / "generated"
        self.collected = scratch / "collected"
        self.kubeconfig = scratch / "kubeconfig"
        self._environment = {
            **os.environ,
            "HOME": str(scratch),
            "KUBECACHEDIR": str(scratch / "cache"),
            "NO_PROXY": "*",
        }

    def generate(self) -> Cost:
        """Write the bundle, and return what that cost."""
        return cost_of((sys.executable, "-c", GENERATE, str(self.bundle), str(self.nodes), *BROKEN))

    @contextlib.contextmanager
    def served(self) -> Iterator[int]:
        """Serve the bundle in a process of its own, and give its id."""
        command = (*GPUCHECK, "serve", str(self.bundle), "--kubeconfig", str(self.kubeconfig))
        self.kubeconfig.unlink(missing_ok=True)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self._environment) as server:
            try:
                until = time.monotonic() + START_S
                while not self.kubeconfig.exists():
                    if server.poll() is not None or time.monotonic() > until:
                        raise SystemExit(f"{' '.join(command)}: it did not answer within {START_S} s")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        server.wait(0.05)
                yield server.pid
            finally:
                server.send_signal(signal.SIGINT)
                server.wait()

    def cost(self, command: Sequence[str]) -> Cost:
        """Run a command once; what an earlier run of it left is removed."""
        if command == self.collect:
            shutil.rmtree(self.collected, ignore_errors=True)
        return cost_of(command, environment=self._environment)

    def rounds(self, commands: Mapping[str, Sequence[str]]) -> dict[str, Cost]:
        """Run each command once a round, so that they share the machine's load, and return the medians."""
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(self.runs):
            for name, command in commands.items():
                costs[name].append(self.cost(command))
        return {name: median(found) for name, found in costs.items()}

    @property
    def collect(self) -> Sequence[str]:
        """The collector."""
        return (*GPUCHECK, "collect", "-q", "--kubeconfig", str(self.kubeconfig), "-o", str(self.collected))

    @property
    def kubectl(self) -> Sequence[str]:
        """The peer of the collector."""
        beside = Path(sys.executable).with_name("kubectl")
        program = str(beside) if beside.exists() else "kubectl"
        return (program, "--kubeconfig", str(self.kubeconfig), "get", KINDS, "-A", "-o", "json")

    @property
    def download(self) -> Sequence[str]:
        """The floor of the collector: the same pages and logs, not looked at."""
        return (sys.executable, str(HERE / "download.py"), str(self.collected), str(self.kubeconfig))

    @property
    def judge(self) -> Sequence[str]:
        """Judging and diagnosing what lies on disk."""
        return (*GPUCHECK, "run", "--from", str(self.collected))

    @property
    def run(self) -> Sequence[str]:
        """Everything: collecting, judging, and three reports."""
        reports = ("--junit", str(self.scratch / "junit.xml"), "--json", str(self.scratch / "report.json"))
        return (*GPUCHECK, "run", "-q", "--kubeconfig", str(self.kubeconfig), *reports)


class Table:
    """Prints figures as they come."""

    def __init__(self) -> None:
        """Print the head."""
        print("| figure | wall (s) | CPU (s) | peak (MiB) | ratio | goal | met |")
        print("| --- | --- | --- | --- | --- | --- | --- |")

    def row(self, figure: str, cost: Cost, *, goal: str = "", met: bool | None = None) -> None:
        """Print one figure."""
        said = "" if met is None else "yes" if met else "**no**"
        print(
            f"| {figure} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {cost.peak_mib:.0f} | | {goal} | {said} |", flush=True
        )

    def ratio(self, figure: str, value: float, goal: float) -> None:
        """Print what a figure is of its peer's."""
        print(f"| {figure} | | | | {value:.2f} | ≤ {goal} | {'yes' if value <= goal else '**no**'} |", flush=True)


def collecting(bench: Bench, table: Table, server: int) -> None:
    """Compare the collector with kubectl and with the bare download."""
    found = bench.rounds({"kubectl": bench.kubectl, "download": bench.download, "collect": bench.collect})
    collect, kubectl, download = found["collect"], found["kubectl"], found["download"]
    table.row(f"`kubectl get {KINDS} -A -o json`", kubectl)
    table.row("bare download of what the collector reads", download)
    table.row("`gpucheck collect`", collect)
    table.ratio("… its wall time to kubectl's", collect.wall_s / kubectl.wall_s, WALL_TO_KUBECTL)
    table.ratio("… its memory to kubectl's", collect.peak_mib / kubectl.peak_mib, MEMORY_TO_KUBECTL)
    table.ratio("… its wall time to the bare download's", collect.wall_s / download.wall_s, WALL_TO_DOWNLOAD)
    before = spent_by(server)
    bench.cost(bench.collect)
    after = spent_by(server)
    table.row("the server, during one collect", Cost(0, after.cpu_s - before.cpu_s, after.peak_mib))


def judging(bench: Bench, table: Table) -> Cost:
    """Measure judging and diagnosing what lies on disk."""
    found = bench.rounds({"judge": bench.judge})["judge"]
    table.row("judging and diagnosing, from disk", found, goal=f"≤ {JUDGING_S} s", met=found.wall_s <= JUDGING_S)
    return found


def running(bench: Bench, table: Table) -> Cost:
    """Measure the whole run."""
    found = bench.rounds({"run": bench.run})["run"]
    met = found.wall_s <= RUN_S and found.peak_mib <= RUN_MIB
    table.row("`gpucheck run` with terminal, JUnit and JSON", found, goal=f"≤ {RUN_S} s, {RUN_MIB} MiB", met=met)
    return found


def judging_hosts(bench: Bench, table: Table) -> None:
    """Measure judging with all reads of the nodes: each check of nodes and GPUs is called for each."""
    command = (sys.executable, "-c", GENERATE_WITH_HOSTS, str(bench.bundle), str(bench.nodes), str(FIXTURES))
    table.row(f"generating {bench.nodes:,} nodes with the reads of eight GPUs each", cost_of(command))
    found = bench.rounds({"judge": (*GPUCHECK, "run", "--from", str(bench.bundle))})["judge"]
    table.row("judging and diagnosing them, from disk", found)


def measured(bench: Bench, table: Table, steps: Sequence[str]) -> dict[str, Cost]:
    """Measure one size of cluster, and return what growth is taken of."""
    table.row(f"generating {bench.nodes:,} nodes", bench.generate())
    found: dict[str, Cost] = {}
    with bench.served() as server:
        table.row("the embedded server, once it answers", spent_by(server))
        bench.cost(bench.collect)
        if "collect" in steps:
            collecting(bench, table, server)
        if "judge" in steps:
            found["judging"] = judging(bench, table)
        if "run" in steps:
            found["run"] = running(bench, table)
    return found


def main() -> None:
    """Measure, and print the machine, its load and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="an empty folder to work in; a temporary one if not given")
    parser.add_argument("--only", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    options = parser.parse_args()
    steps = options.only.split(",")
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), CPython {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the start\n"
    )
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        table = Table()
        large: dict[str, Cost] = {}
        if set(steps) - {"hosts"}:
            large = measured(Bench(options.nodes, options.runs, Path(scratch) / "large"), table, steps)
        if "growth" in steps:
            small = measured(Bench(options.nodes // 5, options.runs, Path(scratch) / "small"), table, steps)
            for name, cost in large.items():
                figure = f"growth of {name}, {options.nodes // 5:,} to {options.nodes:,} nodes"
                table.ratio(figure, cost.wall_s / small[name].wall_s, GROWTH)
        if "hosts" in steps:
            judging_hosts(Bench(options.nodes // 5, options.runs, Path(scratch) / "hosts"), table)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()

"""Measures the sweep of NVML that `gpucheck run --host` makes, beside `nvidia-smi -q -x` in the same run.

    python benchmarks/host.py [--runs 9]            on a host with a GPU and its driver
    python benchmarks/host.py --calls               every call of the sweep with its duration
    python benchmarks/host.py --fake [--gpus 8]     against the library that lies: what one GPU and eight cost us

The sweep is the collector's own child: it is started, asked of the host and of each GPU, and read to the end. "From its
start" counts the interpreter and the package; "once ready" counts from the first question, for the collector starts the
child while it reads files. `--fake` needs a C compiler. docs/performance.md keeps the results.
"""

import argparse
import json
import marshal
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from processes import Cost, cost_of, median, spent_by

from kube_gpucheck.collect import hostnvml, hostplaces
from kube_gpucheck.collect.hostreads import clean_environment, worker_command

LIBRARIES: Final = tuple(f"{folder}/{hostplaces.NVML_LIBRARY}" for folder in hostplaces.HOST_LIBRARIES)
FAKE: Final = Path(__file__).resolve().parent.parent / "tests" / "fake_nvml" / "nvml.c"


class Sweep:
    """One sweep in a child of its own.

    `ready_s`: from the first question to the last answer. `each_s`: of it, each GPU's part.
    """

    def __init__(self, candidates: Sequence[str], *, loader: bool) -> None:
        """Make it. `loader`: the library that the loader finds comes before the candidates."""
        began = time.perf_counter()
        environment = clean_environment()
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        command = worker_command("nvml")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
            self._child = child
            list(self._ask(["nothing", None]))  # the interpreter and the package are there once it answers
            asked = time.perf_counter()
            start = dict(self._ask(["start", list(candidates), loader, list(hostnvml.SYSTEM)]))
            self.gpus = (start.get("nvmlDeviceGetCount_v2") or {}).get("value") or 0
            self.answers = {**start}
            self.each_s = []
            for index in range(self.gpus):
                before = time.perf_counter()
                self.answers |= dict(self._ask(["gpu", index]))
                self.each_s.append(time.perf_counter() - before)
            ended = time.perf_counter()
            spent = spent_by(child.pid)
            self.cost = Cost(ended - began, spent.cpu_s, spent.peak_mib)
            self.ready_s = ended - asked
            if child.stdin is not None:
                child.stdin.close()
        if start.get("nvmlInit_v2", {}).get("code") != 0:
            raise SystemExit(f"NVML does not start: {start.get('nvmlInit_v2')}")

    def _ask(self, request: list[Any]) -> Iterator[tuple[str, Any]]:
        if self._child.stdin is None or self._child.stdout is None:
            return
        self._child.stdin.write(marshal.dumps(request))
        self._child.stdin.flush()
        for line in self._child.stdout:
            answer = json.loads(line)
            if "done" in answer:
                return
            yield answer["key"], answer["read"]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--gpus", type=int, default=8)
    options = parser.parse_args()
    if options.calls:
        list_calls()
    elif options.fake:
        compare_numbers(options.runs, options.gpus)
    else:
        compare_with_nvidia_smi(options.runs)


def compare_with_nvidia_smi(runs: int) -> None:
    """Print what the sweep costs, and nvidia-smi, each once a round."""
    program = shutil.which("nvidia-smi", path=clean_environment()["PATH"])
    if program is None:
        raise SystemExit("there is no nvidia-smi here; --fake needs none")
    command = [program, "-q", "-x"]
    Sweep(LIBRARIES, loader=True)  # files are in memory from here on
    cost_of(command)
    sweeps, peers = [], []
    for _ in range(runs):
        sweeps.append(Sweep(LIBRARIES, loader=True))
        peers.append(cost_of(command))
    mine, peer = median([one.cost for one in sweeps]), median(peers)
    ready_s = statistics.median(one.ready_s for one in sweeps)
    slowest_ms, slowest = max(
        (float(read.get("ms", 0)), key) for one in sweeps for key, read in one.answers.items() if read
    )
    size = max(len(json.dumps(one.answers, separators=(",", ":"))) for one in sweeps) / max(sweeps[0].gpus, 1)
    print(f"{sweeps[0].gpus} GPU, {runs} rounds, medians; of memory the largest\n")
    print("| figure | wall (s) | CPU (s) | peak (MiB) | ratio of wall | ratio of memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| `nvidia-smi -q -x` | {peer.wall_s:.4f} | {peer.cpu_s:.4f} | {peer.peak_mib:.1f} | | |")
    ratio, memory = mine.wall_s / peer.wall_s, mine.peak_mib / peer.peak_mib
    print(
        f"| the sweep, from its start | {mine.wall_s:.4f} | {mine.cpu_s:.4f} | {mine.peak_mib:.1f} | {ratio:.2f} "
        f"| {memory:.2f} |"
    )
    print(f"| the sweep, once ready | {ready_s:.4f} | | | {ready_s / peer.wall_s:.2f} | |")
    each = [statistics.median(times) for times in zip(*(one.each_s for one in sweeps), strict=True)]
    print(f"\nslowest call: {slowest} {slowest_ms:.2f} ms; {size / 1024:.1f} KiB of answers a GPU")
    print(f"of it start {ready_s - sum(each):.4f} s, GPUs {', '.join(f'{one:.4f}' for one in each)} s")
    if len(each) > 1:
        alone = ready_s - sum(each) + each[0]
        print(f"{len(each)} GPUs cost {ready_s / alone:.2f} times one, once ready")


def list_calls() -> None:
    """Print every call of the sweep with its duration, the slowest first."""
    hostnvml.TOLD_MS = 0.0  # type: ignore[misc]  # every duration is wanted here, and this process ends soon
    began = time.perf_counter()
    answers = list(hostnvml.answers(["start", list(LIBRARIES), True, list(hostnvml.SYSTEM)]))
    started = {str(one["key"]): one["read"] for one in answers if "key" in one}
    if started["nvmlInit_v2"].get("code") != 0:  # type: ignore[attr-defined]  # an answer's read
        raise SystemExit(f"NVML does not start: {started['nvmlInit_v2']}")
    for index in range(started["nvmlDeviceGetCount_v2"]["value"]):  # type: ignore[index]  # as above
        answers += hostnvml.answers(["gpu", index])
        answers += hostnvml.answers(["full", index])
    print(f"{len(answers)} answers in {time.perf_counter() - began:.4f} s")
    for ms, key, how in sorted((_row(one) for one in answers if one.get("read")), reverse=True):
        print(f"{ms:9.3f} ms  {how:>5}  {key}")


def _row(answer: dict[str, Any]) -> tuple[float, str, str]:
    read = answer["read"]
    return float(read.get("ms", 0)), str(answer["key"]), str(read.get("code", read.get("error")))


def compare_numbers(runs: int, gpus: int) -> None:
    """Print what one GPU of the fake library costs, and several."""
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "libnvidia-ml.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, FAKE], check=True)  # noqa: S607  any compiler
        behaviour = library.with_name(f"{library.name}.behaviour")
        figures = {}
        for number in (1, gpus):
            behaviour.write_text(f"gpus {number}\n", encoding="ascii")
            sweeps = [Sweep([str(library)], loader=False) for _ in range(runs)]
            whole = median([one.cost for one in sweeps])
            figures[number] = (whole, statistics.median(one.ready_s for one in sweeps))
    print("| GPUs | from its start (s) | once ready (s) | peak (MiB) |\n| --- | --- | --- | --- |")
    for number, (whole, ready_s) in figures.items():
        print(f"| {number} | {whole.wall_s:.4f} | {ready_s:.4f} | {whole.peak_mib:.1f} |")
    one, many = figures[1], figures[gpus]
    print(f"\n{gpus} cost {many[0].wall_s / one[0].wall_s:.2f} times one, {many[1] / one[1]:.2f} times once ready")


if __name__ == "__main__":
    main()

"""Runs whole processes and says what each cost, as a user feels it: wall time, CPU and peak memory."""

import dataclasses
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a process cost: seconds of wall time and of CPU (its own and its children's), peak memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def cost_of(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, its output thrown away, and return what it cost.

    Raises:
        SystemExit: it ended with a status other than 0, 1 or 4, which are verdicts of gpucheck.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as child:
        error = child.stderr.read() if child.stderr else b""
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in {0, 1, 4}:
        raise SystemExit(f"{' '.join(command)}: status {child.returncode}: {error.decode(errors='replace')[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure; of memory the largest."""
    return Cost(
        statistics.median(one.wall_s for one in costs),
        statistics.median(one.cpu_s for one in costs),
        max(one.peak_mib for one in costs),
    )


def spent_by(pid: int) -> Cost:
    """Return the CPU and the peak memory of a process that still runs. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return Cost(0, ticks / os.sysconf("SC_CLK_TCK"), peak / 1024)

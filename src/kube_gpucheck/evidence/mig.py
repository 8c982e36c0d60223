"""MIG devices, as the driver lists them."""

import re
from typing import Final

from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.model import Missing, MissingKind

_PARTITION: Final = "nvmlDeviceGetMigDeviceHandleByIndex"
_MAX_PARTITIONS: Final = 64
_MAX_LINE: Final = 4_000
_SMI_GPU: Final = re.compile(r"GPU (\d+):")
_SMI_MIG: Final = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+:")


def mig_profiles(host: Host, gpu: GpuIdentity) -> tuple[str, ...]:
    """Return the profiles of a GPU's MIG devices, as NVML names them, else as `nvidia-smi -L` lists them.

    Raises:
        GapError: neither was asked for, or one that was is missing or malformed.
    """
    if gpu.index is None:
        return ()
    first = host.nvml(f"{_PARTITION}({gpu.index},0)")
    if is_not_asked(first):
        listed = need(host.command("nvidia-smi -L"))
        return () if listed is None else parse_mig(listed.text).get(gpu.index, ())
    found = []
    for place in range(_MAX_PARTITIONS):
        answer = host.nvml(f"{_PARTITION}({gpu.index},{place})")
        if is_not_asked(answer):
            break
        if need(answer).code == 0:
            found.append(_profile(host, f"{_PARTITION}({gpu.index},{place})", need(answer).value))
    return tuple(found)


def _profile(host: Host, call: str, value: object) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    _, mark, profile = name.rpartition(" MIG ") if isinstance(name, str) else ("", "", "")
    if not mark or not profile.strip():
        reason = f"{call} on {host.name} has the value {value!r:.60}"
        raise GapError(Missing(MissingKind.UNPARSABLE, reason, f"nodes/{host.name}/host.json#nvml:{call}"))
    return profile.strip()


def parse_mig(text: str) -> dict[int, tuple[str, ...]]:
    """Return the profiles of the MIG devices that `nvidia-smi -L` lists, by GPU index."""
    found: dict[int, list[str]] = {}
    index = None
    for line in text.splitlines():
        if gpu := _SMI_GPU.match(line):
            index = int(gpu[1])
        elif index is not None and (mig := _SMI_MIG.match(line[:_MAX_LINE])):
            found.setdefault(index, []).append(mig[1])
    return {gpu: tuple(profiles) for gpu, profiles in found.items()}

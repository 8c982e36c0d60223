"""What NVML answered on a host: whether it starts, which GPUs it lists, and what each says of itself."""

import re
from collections.abc import Iterator
from typing import Final

from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.host import Command, Host, NvmlAnswer
from kube_gpucheck.evidence.readings import GapError, need
from kube_gpucheck.evidence.tables import nvml_code
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

_SPELLINGS: Final = ("_v3", "_v2", "")
"""A query's versions, the newest first. Source: nvml.h, which maps each plain name to its newest version."""
_MAX_GPUS: Final = 1024
_SMI_LINE: Final = re.compile(r"GPU (\d{1,4}): .{1,200}? \(UUID: (GPU-[0-9a-fA-F-]{8,40})\)\s*")
_SMI_WORDS: Final = (
    ("Driver/library version mismatch", 18),
    ("couldn't communicate with the NVIDIA driver", 9),
    ("Driver Not Loaded", 9),
    ("couldn't find libnvidia-ml", 12),
    ("Insufficient Permissions", 4),
    ("Unknown Error", 999),
    ("GPU is lost", 15),
)
"""How nvidia-smi puts a code into words. Source: nvmlErrorString, and nvidia-smi's own two sentences (9, 12)."""


def is_not_asked(reading: Reading[object]) -> bool:
    """Tell whether a reading is missing because nobody asked, so that another source may speak instead."""
    return isinstance(reading, Missing) and reading.kind is MissingKind.NOT_ASKED


def init_code(host: Host) -> int:
    """Return the code by which NVML started, 0 for success; from nvmlInit, else from how `nvidia-smi -L` ended.

    Raises:
        GapError: neither was asked for, or the one that was is missing or says nothing.
    """
    for call in ("nvmlInit_v2", "nvmlInit", "nvmlInitWithFlags"):
        answer = host.nvml(call)
        if not is_not_asked(answer):
            return need(answer).code
    listed = host.command("nvidia-smi -L")
    if is_not_asked(listed):
        return need(host.nvml("nvmlInit_v2")).code
    return _code_of(need(listed), f"nodes/{host.name}/host.json#exec:nvidia-smi -L")


def _code_of(command: Command | None, source: str) -> int:
    if command is None:
        raise GapError(
            Missing(MissingKind.ERROR, "nvidia-smi is not installed, so it does not tell whether NVML starts", source)
        )
    if any(_SMI_LINE.fullmatch(line) for line in command.text.splitlines()):
        return 0
    for words, code in _SMI_WORDS:
        if words in command.text:
            return code
    if command.text.strip() == "No devices found.":
        return 0
    raise GapError(Missing(MissingKind.UNPARSABLE, f"'nvidia-smi -L' printed '{command.text.strip()[:80]}'", source))


def query(host: Host, call: str, arguments: str) -> Reading[NvmlAnswer]:
    """Return what a query answered, by whichever of its versions was asked."""
    first: Missing | None = None
    for version in _SPELLINGS:
        answer = host.nvml(f"{call}{version}({arguments})" if arguments else f"{call}{version}")
        if isinstance(answer, Seen) or answer.kind is not MissingKind.NOT_ASKED:
            return answer
        first = answer
    return first if first is not None else host.nvml(call)


def gpus(host: Host) -> tuple[GpuIdentity, ...]:
    """Return the GPUs that NVML lists, in its order; none where it does not start.

    Raises:
        GapError: neither NVML nor `nvidia-smi -L` was asked for, or an answer is missing or malformed.
    """
    answer = query(host, "nvmlDeviceGetCount", "")
    if is_not_asked(answer):
        return tuple(_listed_by_smi(host))
    if init_code(host) != 0:
        return ()
    counted = need(answer)
    if counted.code != 0:
        raise GapError(_unanswered(host, "nvmlDeviceGetCount_v2", counted.code))
    if type(counted.value) is not int or not 0 <= counted.value <= _MAX_GPUS:
        raise GapError(_malformed(host, "nvmlDeviceGetCount_v2", counted.value))
    return tuple(GpuIdentity(_address(host, index), index, _uuid(host, index)) for index in range(counted.value))


def _listed_by_smi(host: Host) -> Iterator[GpuIdentity]:
    listed = host.command("nvidia-smi -L")
    if is_not_asked(listed):
        need(query(host, "nvmlDeviceGetCount", ""))
    command = need(listed)
    if _code_of(command, f"nodes/{host.name}/host.json#exec:nvidia-smi -L") != 0 or command is None:
        return
    for line in command.text.splitlines():
        found = _SMI_LINE.fullmatch(line)
        if found is not None:
            yield GpuIdentity(None, int(found.group(1)), found.group(2))


def _address(host: Host, index: int) -> str | None:
    """Return a GPU's PCI address as the kernel writes it, None if it does not say (as when it is lost)."""
    answer = query(host, "nvmlDeviceGetPciInfo", str(index))
    if is_not_asked(answer) or need(answer).code != 0:
        return None
    value = need(answer).value
    bus_id = value.get("busId") if isinstance(value, dict) else value
    if not isinstance(bus_id, str):
        raise GapError(_malformed(host, f"nvmlDeviceGetPciInfo({index})", value))
    address = kernel_address(bus_id)
    if address is None:
        raise GapError(_malformed(host, f"nvmlDeviceGetPciInfo({index})", value))
    return address


def _uuid(host: Host, index: int) -> str | None:
    answer = query(host, "nvmlDeviceGetUUID", str(index))
    if is_not_asked(answer) or need(answer).code != 0:
        return None
    value = need(answer).value
    if not isinstance(value, str):
        raise GapError(_malformed(host, f"nvmlDeviceGetUUID({index})", value))
    return value


_BUS_ID: Final = re.compile(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")


def kernel_address(bus_id: str) -> str | None:
    """Return NVML's eight-digit, upper-case bus id (`00000000:3B:00.0`) as the kernel spells it, None if it is none."""
    found = _BUS_ID.fullmatch(bus_id)
    if found is None:
        return None
    domain, bus, device, function = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}.{function}".lower()


def _unanswered(host: Host, call: str, code: int) -> Missing:
    return Missing(
        MissingKind.ERROR,
        f"{call} on {host.name} answered {nvml_code(code)}",
        f"nodes/{host.name}/host.json#nvml:{call}",
    )


def _malformed(host: Host, call: str, value: object) -> Missing:
    reason = f"{call} on {host.name} has the value {value!r:.60}"
    return Missing(MissingKind.UNPARSABLE, reason, f"nodes/{host.name}/host.json#nvml:{call}")

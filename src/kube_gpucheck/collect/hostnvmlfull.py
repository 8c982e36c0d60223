"""Everything else that NVML tells of a GPU, by every getter that `pynvml` knows; opt-in, for some take long.

Getters change nothing. Those that want more than a device are left out, but for a few that are named here. Without
`pynvml` nothing is asked.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NAMED: Final = (
    "nvmlDeviceValidateInforom",  # reads the whole InfoROM for its checksum: 70 ms on an H200
    "nvmlDeviceGetPcieThroughput(NVML_PCIE_UTIL_TX_BYTES)",  # counts for 20 ms (nvml.h)
    "nvmlDeviceGetPcieThroughput(NVML_PCIE_UTIL_RX_BYTES)",
    "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetClockInfo(NVML_CLOCK_MEM)",
    "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_MEM)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_GPU_MAX)",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS)",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)",
)
"""Queries with arguments of their own."""
_SUCCESS: Final = 0
_MAX_ITEMS: Final = 256
_MAX_TEXT: Final = 512
_MAX_DEPTH: Final = 4


def answers(library: ctypes.CDLL, index: int, *, without: Collection[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each call by name and what it gave, without those that were made already."""
    try:
        import pynvml  # noqa: PLC0415  nothing else needs it
    except ImportError:
        return
    pynvml.nvmlLib = library  # it loads one by itself, and by name alone, where none is set
    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError:
        return
    getters = [name for name in dir(pynvml) if name.startswith("nvmlDeviceGet") and name not in without]
    for call in (*NAMED, *getters):
        name, _, words = call.partition("(")
        constants = [getattr(pynvml, word, None) for word in words.rstrip(")").split(",") if word]
        read = None if None in constants else _made(pynvml, getattr(pynvml, name, None), device, *constants)
        if read is not None:
            yield f"{name}({','.join((str(index), *([words.rstrip(')')] if words else ())))})", read


def _made(pynvml: Any, function: Any, *arguments: object) -> dict[str, object] | None:  # noqa: ANN401  it has no types
    """Make a call, and return its code and value; None for a getter that wants more, or cannot take in what it got."""
    began = time.perf_counter()
    answer: dict[str, object] = {"code": _SUCCESS}
    try:
        value = function(*arguments)
    except pynvml.NVMLError as error:
        answer = {"code": int(error.value)}
    except _refusals(pynvml):
        return None
    else:
        answer["value"] = plain(value)
    return {**answer, "ms": round((time.perf_counter() - began) * 1000, 2)}


def _refusals(pynvml: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401  as above
    """Return what pynvml raises instead of a code of NVML's: for want of arguments, or of this version of a query."""
    mismatch = getattr(pynvml, "NVMLLibraryMismatchError", TypeError)
    return (TypeError, ValueError, AttributeError, ctypes.ArgumentError, mismatch)


def plain(value: object, depth: int = 0) -> object:
    """Return an answer of `pynvml` as JSON has it: structures as objects, bounded in length and depth."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value[:_MAX_TEXT].decode("utf-8", "replace")
    if isinstance(value, str):
        return value[:_MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(value, ctypes.Array) and value._type_ in {ctypes.c_uint8, ctypes.c_char}:
        return bytes(bytearray(value)).hex()
    if isinstance(value, (list, tuple, ctypes.Array)):
        return [plain(one, depth + 1) for one in list(value)[:_MAX_ITEMS]]
    if isinstance(value, ctypes.Structure):
        names = [one[0] for one in value._fields_]
        return {name: plain(getattr(value, name), depth + 1) for name in names if name != "version"}
    if hasattr(value, "__dict__"):
        return {name: plain(one, depth + 1) for name, one in vars(value).items()}
    return None

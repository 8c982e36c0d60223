"""Which NVML calls are made of each GPU, and in which order. Runs in the child (`hostworker`).

The names of calls and constants are NVML's own (nvml.h). None changes a setting; none of the default sweep takes longer
than a few milliseconds, but for those by which NVML opens a GPU. What else NVML tells is asked for with all of it
(`hostnvmlfull`). Nothing here tells a good answer from a bad one.
"""

from __future__ import annotations

import ctypes
import os
import time

from kube_gpucheck.collect import hostnvmlcalls as nvml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

SYSTEM: Final = (
    "nvmlDeviceGetCount_v2",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetConfComputeState",
)
"""Calls without a device; they are made whether or not NVML starts, and answer with a code where it does not."""

SLOWDOWN: Final = "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)"
DEVICE: Final = (
    # Identity.
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetInforomImageVersion",
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetGspFirmwareVersion",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetGridLicensableFeatures",
    # PCI.
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetPcieReplayCounter",
    # Memory, ECC and its repair.
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    # State.
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetAccountingMode",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetDefaultApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)",
    SLOWDOWN,
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_MEM_MAX)",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetGpuFabricInfoV",
)
"""Queries of the default sweep; constants in parentheses are the arguments behind the device."""

MARGIN: Final = "nvmlDeviceGetMarginTemperature"
MARGIN_LIMIT: Final = "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT"
"""What stands for the temperature's threshold where a GPU has none: degrees below its own limit (Ada and later)."""

FIELDS: Final = (
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "NVML_FI_DEV_MEMORY_TEMP",
    "NVML_FI_DEV_PCIE_REPLAY_COUNTER",  # a second look, some time after the query of the same counter
    "NVML_FI_DEV_C2C_LINK_COUNT",
    "NVML_FI_DEV_NVLINK_LINK_COUNT",
    "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT",
    "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
)
"""Field values, all asked for in one call. One that NVML then left untold is asked for alone."""

LINK_FIELD: Final = "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS"
"""Asked of each NVLink from Blackwell on, where the totals above are not kept (nvml.h, fields 46 to 59 and 214)."""
LINK_TOTAL: Final = "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"

PARTITION: Final = {
    "uuid": "nvmlDeviceGetUUID",
    "name": "nvmlDeviceGetName",  # ends in the profile: "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    "attributes": "nvmlDeviceGetAttributes_v2",
}
"""What a MIG device is asked."""
LINKS: Final = 36
"""More NVLinks than any GPU has: 18 on Hopper and Blackwell."""
MAX_GPUS: Final = 1024
TOLD_MS: Final = 1.0
"""Calls that took less than this many milliseconds do not say so: most take 0.02, and a read has few bytes."""
_MOST_PARTS: Final = 64
_NAME: Final = "libnvidia-ml.so.1"


def calls(index: int) -> tuple[str, ...]:
    """Return the calls that are made of any GPU, in order, as they stand in a read's name."""
    first_link = f"nvmlDeviceGetNvLinkState({index},0)"
    return (*(_named(one, index) for one in DEVICE), *(_field(one, index) for one in FIELDS), first_link)


def _named(call: str, index: int) -> str:
    name, _, arguments = call.partition("(")
    return f"{name}({index}{',' if arguments else ''}{arguments.rstrip(')')})"


def _field(name: str, index: int, link: int | None = None) -> str:
    return f"nvmlDeviceGetFieldValues({index},{name}{'' if link is None else f',{link}'})"


class Library:
    """NVML, and the GPU that is open."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        """Keep the library; it is not started yet."""
        self.loaded = loaded
        self._device: object = None

    def start(self) -> dict[str, object]:
        """Start it."""
        function = getattr(self.loaded, "nvmlInit_v2", None)
        return _timed(lambda: (nvml.FUNCTION_NOT_FOUND if function is None else int(function()), None))

    def system(self, call: str) -> dict[str, object]:
        """Make a call without a device."""
        return _timed(lambda: nvml.ask(self.loaded, call))

    def open(self, index: int) -> dict[str, object]:
        """Get hold of a GPU; a code where the driver does not give it."""
        return self._opened("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))

    def device(self, call: str) -> dict[str, object]:
        """Make a query of the device that is open."""
        name, _, words = call.partition("(")
        constants = [ctypes.c_uint(nvml.CONSTANTS[word]) for word in words.rstrip(")").split(",") if word]
        return _timed(lambda: nvml.ask(self.loaded, name, self._device, *constants))

    def link(self, number: int) -> dict[str, object]:
        """Tell whether an NVLink is active."""
        return _timed(lambda: nvml.ask(self.loaded, "nvmlDeviceGetNvLinkState", self._device, ctypes.c_uint(number)))

    def fields(self, names: tuple[str, ...] = FIELDS) -> dict[str, dict[str, object]]:
        """Return field values by name, each with its own code."""
        found = dict(zip(names, self._values([(name, 0) for name in names])))  # noqa: B905  Python 3.8 has no `strict`
        for name, read in found.items():
            if len(names) > 1 and read.get("code") == nvml.SUCCESS and "value" not in read:
                found[name] = self._values([(name, 0)])[0]
        return found

    def link_fields(self, links: list[int]) -> dict[int, dict[str, object]]:
        """Return `LINK_FIELD` of each of these NVLinks."""
        return dict(zip(links, self._values([(LINK_FIELD, link) for link in links]))) if links else {}  # noqa: B905  as above

    def _values(self, wanted: list[tuple[str, int]]) -> list[dict[str, object]]:
        """Return the answers to pairs of field and scope."""
        held: list[dict[str, object]] = []

        def get() -> tuple[int, object]:
            code, found = nvml.values(self.loaded, self._device, wanted)
            held.extend(found)
            return code, None

        answer = _timed(get)
        if not held:
            return [dict(answer) for _ in wanted]
        took = {"ms": answer["ms"]} if "ms" in answer else {}
        return [{**read, **took} for read in held]

    def partitions(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield the place and the answer of each MIG device that there can be: its UUID, name and share of the GPU."""
        most = self.device("nvmlDeviceGetMaxMigDeviceCount").get("value")
        whole = self._device
        for place in range(min(most, _MOST_PARTS) if isinstance(most, int) else 0):
            self._device = whole
            opened = self._opened("nvmlDeviceGetMigDeviceHandleByIndex", whole, ctypes.c_uint(place))
            if opened.get("code") == nvml.SUCCESS:
                opened["value"] = {name: self.device(call).get("value") for name, call in PARTITION.items()}
            yield place, opened
        self._device = whole

    def _opened(self, name: str, *arguments: object) -> dict[str, object]:
        held: list[object] = []

        def get() -> tuple[int, object]:
            code, found = nvml.handle(self.loaded, name, *arguments)
            held.append(found)
            return code, None

        answer = _timed(get)
        if answer["code"] == nvml.SUCCESS:
            self._device = held[0]
        return answer


def _timed(call: Callable[[], tuple[int, object]]) -> dict[str, object]:
    """Make a call, and return its code, its value, and from `TOLD_MS` on how long it took, in milliseconds, as `ms`."""
    began = time.perf_counter()
    code, value = call()
    took_ms = round((time.perf_counter() - began) * 1000, 2)
    answer: dict[str, object] = {"code": code}
    if took_ms >= TOLD_MS:
        answer["ms"] = took_ms
    if value is not None:
        answer["value"] = value
    return answer


_libraries: list[Library] = []


def answers(request: list[object]) -> Iterator[dict[str, object]]:
    """Yield what one request gives: `{"key", "read"}` for each call as it is answered, then `{"done": true}`.

    Requests: `["start", candidates, loader, calls]`, `["gpu", index]`, `["full", index]`. One library lives as long as
    the child.
    """
    if request[0] == "start":
        yield from _start(request)
    elif _libraries and isinstance(request[1], int):
        yield from (_full if request[0] == "full" else _gpu)(_libraries[0], request[1])
    yield {"done": True}


def _start(request: list[object]) -> Iterator[dict[str, object]]:
    candidates = [str(one) for one in request[1]] if isinstance(request[1], (list, tuple)) else []
    found = load(candidates, loader=bool(request[2]))
    system = [str(one) for one in request[3]] if isinstance(request[3], (list, tuple)) else []
    if isinstance(found, str):
        for call in ("nvmlInit_v2", *system):
            yield {"key": call, "read": {"code": nvml.LIBRARY_NOT_FOUND, "value": found}}
        return
    library = Library(found)
    _libraries[:] = [library]
    yield {"key": "nvmlInit_v2", "read": library.start()}
    for call in system:
        yield {"key": call, "read": library.system(call)}


def load(candidates: list[str], *, loader: bool) -> ctypes.CDLL | str:
    """Load NVML as the loader finds it if `loader`, else the first candidate there is; or say why there is none."""
    words = f"no {_NAME} where drivers put it"
    for name in ([_NAME] if loader else []) + [one for one in candidates if os.path.exists(one)]:  # noqa: PTH110  pathlib takes 10 ms to load
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            words = str(error)
    return words[:512]


def _gpu(library: Library, index: int) -> Iterator[dict[str, object]]:
    opened = library.open(index)
    yield {"key": f"nvmlDeviceGetHandleByIndex_v2({index})", "read": opened}
    if opened["code"] != nvml.SUCCESS:
        # NVML has no device to ask: whatever is asked of this GPU answers so
        for call in calls(index):
            yield {"key": call, "read": {"code": opened["code"]}}
        return
    found = {}
    for call in DEVICE:
        found[call] = library.device(call)
        yield {"key": _named(call, index), "read": found[call]}
    if found[SLOWDOWN]["code"] != nvml.SUCCESS:
        yield {"key": _named(MARGIN, index), "read": library.device(MARGIN)}
        yield {"key": _field(MARGIN_LIMIT, index), "read": library.fields((MARGIN_LIMIT,))[MARGIN_LIMIT]}
    fields = library.fields()
    for name, read in fields.items():
        yield {"key": _field(name, index), "read": read}
    yield from _links(library, index, fields)
    if found["nvmlDeviceGetMigMode"].get("value") in ([1, 0], [1, 1]):
        for place, read in library.partitions():
            yield {"key": f"nvmlDeviceGetMigDeviceHandleByIndex({index},{place})", "read": read}


def _links(library: Library, index: int, fields: dict[str, dict[str, object]]) -> Iterator[dict[str, object]]:
    """Yield the state of each NVLink, as many as the GPU says; where it does not, until one is refused."""
    count = fields["NVML_FI_DEV_NVLINK_LINK_COUNT"].get("value")
    told = count if isinstance(count, int) and 0 < count <= LINKS else None
    active = []
    for number in range(told or LINKS):
        read = library.link(number)
        if told is None and number and read["code"] in {nvml.INVALID_ARGUMENT, nvml.NOT_SUPPORTED}:
            break
        yield {"key": f"nvmlDeviceGetNvLinkState({index},{number})", "read": read}
        if read.get("value") == 1:
            active.append(number)
        if told is None and read["code"] != nvml.SUCCESS:
            break
    if fields[LINK_TOTAL]["code"] != nvml.SUCCESS:
        for number, read in library.link_fields(active).items():
            yield {"key": _field(LINK_FIELD, index, number), "read": read}


def _full(library: Library, index: int) -> Iterator[dict[str, object]]:
    from kube_gpucheck.collect import hostnvmlfull  # noqa: PLC0415  it loads what the default sweep does without

    made = {name.partition("(")[0] for name in calls(index)}
    for key, read in hostnvmlfull.answers(library.loaded, index, without=made):
        yield {"key": key, "read": read}

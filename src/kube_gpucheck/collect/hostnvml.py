"""Which NVML calls are made of each GPU, and how their answers become JSON. Runs in the child (`hostworker`).

The names of calls and constants are NVML's own (nvml.h). None changes a setting, and none of the
default sweep takes longer than a few milliseconds: those that do stand in `SLOW`. `pynvml` gives the
structures; nothing here tells a good answer from a bad one.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSTEM: Final = (
    "nvmlDeviceGetCount_v2",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetConfComputeState",
)
"""Calls without a device; they are made whether or not NVML starts, and answer with a code where it does not."""

DEVICE: Final = (
    # Identity.
    "nvmlDeviceGetName",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetIndex",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetModuleId",
    "nvmlDeviceGetBrand",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetInforomImageVersion",
    "nvmlDeviceGetInforomVersion(NVML_INFOROM_OEM)",
    "nvmlDeviceGetInforomVersion(NVML_INFOROM_ECC)",
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetGspFirmwareVersion",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetGridLicensableFeatures",
    # PCI.
    "nvmlDeviceGetCurrPcieLinkGeneration",
    "nvmlDeviceGetCurrPcieLinkWidth",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetGpuMaxPcieLinkGeneration",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetNumaNodeId",
    # Memory, ECC and its repair.
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_CORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_VOLATILE_ECC)",
    "nvmlDeviceGetTotalEccErrors(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_AGGREGATE_ECC)",
    "nvmlDeviceGetMemoryErrorCounter(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_VOLATILE_ECC,NVML_MEMORY_LOCATION_SRAM)",
    "nvmlDeviceGetMemoryErrorCounter(NVML_MEMORY_ERROR_TYPE_UNCORRECTED,NVML_AGGREGATE_ECC,NVML_MEMORY_LOCATION_SRAM)",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS)",
    "nvmlDeviceGetRetiredPages(NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR)",
    "nvmlDeviceGetRepairStatus",
    # State.
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetAccountingMode",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_SM)",
    "nvmlDeviceGetApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetDefaultApplicationsClock(NVML_CLOCK_SM)",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_MEM_MAX)",
    "nvmlDeviceGetTemperatureThreshold(NVML_TEMPERATURE_THRESHOLD_GPU_MAX)",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
    "nvmlDeviceGetGpuFabricInfoV",
)
"""Queries of the default sweep; a constant in parentheses is the argument behind the device."""

SLOW: Final = (
    "nvmlDeviceValidateInforom",  # reads the whole InfoROM for its checksum: 70 ms on an H200
    "nvmlDeviceGetPcieThroughput(NVML_PCIE_UTIL_TX_BYTES)",  # counts for 20 ms (nvml.h)
    "nvmlDeviceGetPcieThroughput(NVML_PCIE_UTIL_RX_BYTES)",
    "nvmlDeviceGetClockInfo(NVML_CLOCK_MEM)",
    "nvmlDeviceGetMaxClockInfo(NVML_CLOCK_MEM)",
)
"""Queries of the full sweep alone."""

FIELDS: Final = (
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "NVML_FI_DEV_MEMORY_TEMP",
    "NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT",
    "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT",
    "NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT",
    "NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT",
    "NVML_FI_DEV_PCIE_REPLAY_COUNTER",  # a second look, some time after the query of the same counter
    "NVML_FI_DEV_C2C_LINK_COUNT",
    "NVML_FI_DEV_NVLINK_LINK_COUNT",
    "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT",
    "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL",
    "NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL",
)
"""Field values, all asked for in one call; the TLIMITs are degrees below the card's own limit (nvml.h)."""

LINK_FIELD: Final = "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS"
"""Asked of each NVLink from Blackwell on, where the totals above are not kept (nvml.h, fields 46 to 59 and 214)."""
LINK_TOTAL: Final = "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"

STRUCTURES: Final = {
    "nvmlDeviceGetSramEccErrorStatus": ("c_nvmlEccSramErrorStatus_v1_t",),
    "nvmlDeviceGetGpuFabricInfoV": ("c_nvmlGpuFabricInfo_v3_t", "c_nvmlGpuFabricInfo_v2_t"),
}
"""Queries that fill a structure of the caller's, its versions from the newest."""

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
SUCCESS: Final = 0
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
OTHER_VERSION: Final = 25
"""NVML's return codes. Source: nvml.h, nvmlReturn_t."""
NO_PACKAGE: Final = "ENOPKG"
"""`pynvml` is not there: nothing is known of NVML, which is another thing than NVML not being there."""
_MAX_ITEMS: Final = 256
_MAX_TEXT: Final = 512
_MAX_DEPTH: Final = 4
_FIELD_TYPES: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of a field's union by nvmlValueType_t."""


def calls(index: int, *, full: bool) -> tuple[str, ...]:
    """Return the calls that are made of one GPU, in order, as they stand in a read's name."""
    named = (*DEVICE, *(SLOW if full else ()))
    queries = [_named(one, index) for one in named]
    links = [f"nvmlDeviceGetNvLinkState({index},0)"]
    return (*queries, *(_field(one, index) for one in FIELDS), *links)


def _named(call: str, index: int) -> str:
    name, _, arguments = call.partition("(")
    return f"{name}({index}{',' if arguments else ''}{arguments.rstrip(')')})"


def _field(name: str, index: int, link: int | None = None) -> str:
    return f"nvmlDeviceGetFieldValues({index},{name}{'' if link is None else f',{link}'})"


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


def _counted(value: object) -> object:
    """Return a structure of licensable features without the empty places of its array."""
    if isinstance(value, dict) and "licensableFeaturesCount" in value:
        count, features = value["licensableFeaturesCount"], value.get("gridLicensableFeatures")
        if isinstance(count, int) and isinstance(features, list):
            return {**value, "gridLicensableFeatures": features[:count]}
    return value


class Library:
    """NVML as `pynvml` reaches it, and what it has been asked to answer."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401  pynvml has no types
        """Keep the module; nothing is loaded yet."""
        self._nvml = module
        self._handle: object = None
        # pynvml raises it instead of NVML's own code where the library has no such version of a query
        self._mismatch = getattr(module, "NVMLLibraryMismatchError", module.NVMLError)

    def start(self, candidates: list[str], *, loader: bool) -> dict[str, object]:
        """Load the library and start it: as the loader finds it if `loader`, else the first candidate that is there."""
        names = (["libnvidia-ml.so.1"] if loader else []) + [one for one in candidates if os.path.exists(one)]  # noqa: PTH110
        words = "no libnvidia-ml.so.1 where drivers put it"
        for name in names:
            try:
                loaded = ctypes.CDLL(name)
            except OSError as error:
                words = str(error)
                continue
            self._nvml.nvmlLib = loaded  # pynvml loads one by itself, and by name alone, where none is set
            return self._made("nvmlInit")
        return {"code": LIBRARY_NOT_FOUND, "value": words[:_MAX_TEXT]}

    def system(self, call: str) -> dict[str, object]:
        """Make a call without a device. `pynvml` names some of them without their version."""
        known = call if hasattr(self._nvml, call) else call.rstrip("0123456789").replace("_v", "")
        return self._made(known)

    def open(self, index: int) -> dict[str, object]:
        """Get hold of a GPU; a code where the driver does not give it."""

        def get() -> None:
            self._handle = self._nvml.nvmlDeviceGetHandleByIndex(index)

        return self._timed(get)

    def device(self, call: str) -> dict[str, object] | None:
        """Make a query of the GPU that is open, None if this `pynvml` does not know it."""
        name, _, words = call.partition("(")
        constants = [getattr(self._nvml, word, None) for word in words.rstrip(")").split(",") if word]
        if not hasattr(self._nvml, name) or None in constants:
            return None
        if name in STRUCTURES:
            return self._filled(name)
        return self._made(name, self._handle, *constants)

    def _filled(self, name: str) -> dict[str, object] | None:
        answer: dict[str, object] | None = None
        for version in STRUCTURES[name]:
            form = getattr(self._nvml, version, None)
            if form is None:
                continue
            filled = form()
            answer = self._made(name, self._handle, ctypes.byref(filled))
            if answer.get("code") == SUCCESS:
                answer["value"] = plain(filled)
            if answer.get("code") != OTHER_VERSION:
                break
        return answer

    def link(self, number: int) -> dict[str, object]:
        """Tell whether an NVLink is active."""
        return self._made("nvmlDeviceGetNvLinkState", self._handle, number)

    def fields(self) -> dict[str, dict[str, object]]:
        """Return the field values by name, each with its own code, without those that this `pynvml` does not know."""
        numbers = {name: getattr(self._nvml, name, None) for name in FIELDS}
        known = {name: number for name, number in numbers.items() if number is not None}
        return dict(zip(known, self._values(list(known.values()))))  # noqa: B905  Python 3.8 has no `strict`

    def link_fields(self, links: list[int]) -> dict[int, dict[str, object]]:
        """Return `LINK_FIELD` of each of these NVLinks; none if this `pynvml` does not know it."""
        number = getattr(self._nvml, LINK_FIELD, None)
        if number is None or not links:
            return {}
        return dict(zip(links, self._values([(number, link) for link in links])))  # noqa: B905  as above

    def _values(self, wanted: list[object]) -> list[dict[str, object]]:
        """Return the answers to field numbers, or to pairs of number and scope."""
        held: list[list[object]] = []

        def get() -> None:
            held.append(list(self._nvml.nvmlDeviceGetFieldValues(self._handle, wanted)))

        answer = self._timed(get)
        if not held:
            return [dict(answer) for _ in wanted]
        duration = {"ms": answer["ms"]} if "ms" in answer else {}
        return [_field_read(value, duration) for value in held[0]]

    def partitions(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield the place and the answer of each MIG device that there can be: its UUID, name and share of the GPU."""
        mode = self.device("nvmlDeviceGetMigMode")
        most = self.device("nvmlDeviceGetMaxMigDeviceCount")
        now = (mode or {}).get("value")
        count = (most or {}).get("value")
        if not isinstance(now, list) or now[:1] != [1] or not isinstance(count, int):
            return
        whole = self._handle
        for place in range(min(count, _MAX_ITEMS)):
            self._handle = whole
            held: list[object] = []
            opened = self._timed(functools.partial(self._partition, place, held))
            if not held:
                yield place, opened
                continue
            self._handle = held[0]
            told = {name: self.device(call) or {} for name, call in PARTITION.items()}
            yield place, {**opened, "value": {name: one.get("value") for name, one in told.items()}}
        self._handle = whole

    def _partition(self, place: int, held: list[object]) -> None:
        held.append(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._handle, place))

    def _made(self, name: str, *arguments: object) -> dict[str, object]:
        held: list[object] = []
        answer = self._timed(lambda: held.append(getattr(self._nvml, name)(*arguments)))
        if held and held[0] is not None:
            answer["value"] = _counted(plain(held[0]))
        return answer

    def _timed(self, call: Callable[[], object]) -> dict[str, object]:
        """Make a call, and return its code, and from `TOLD_MS` on how long it took, in milliseconds, as `ms`."""
        began = time.perf_counter()
        answer: dict[str, object] = {"code": SUCCESS}
        try:
            call()
        except self._nvml.NVMLError as error:
            answer = {"code": int(error.value)}
        except self._mismatch:
            answer = {"code": FUNCTION_NOT_FOUND}
        except (ValueError, TypeError, AttributeError, ctypes.ArgumentError):
            answer = {"error": "EPROTO"}  # a structure or a text that this pynvml cannot take in
        took_ms = round((time.perf_counter() - began) * 1000, 2)
        return {**answer, "ms": took_ms} if took_ms >= TOLD_MS else answer


def _field_read(value: Any, duration: dict[str, object]) -> dict[str, object]:  # noqa: ANN401  a structure of pynvml's
    answer: dict[str, object] = {"code": int(value.nvmlReturn)}
    if value.nvmlReturn == SUCCESS and 0 <= value.valueType < len(_FIELD_TYPES):
        answer["value"] = plain(getattr(value.value, _FIELD_TYPES[value.valueType]))
    return {**answer, **duration}


_libraries: list[Library] = []


def answers(request: list[object]) -> Iterator[dict[str, object]]:
    """Yield what one request gives: `{"key", "read"}` for each call as it is answered, then `{"done": true}`.

    `read` is null for a query that this `pynvml` does not know: it is not made.

    Requests: `["start", candidates, loader, calls]`, `["gpu", index, full]`. One library lives as long as the child.
    """
    if request[0] == "start":
        yield from _start(request)
    elif _libraries and isinstance(request[1], int):
        yield from _gpu(_libraries[0], request[1], full=bool(request[2]))
    yield {"done": True}


def package() -> Any:  # noqa: ANN401  a module
    """Return `pynvml`, None if it is not there. Loads it, which takes longer than most of what is then asked."""
    try:
        import pynvml  # noqa: PLC0415  the collector itself, which imports this module, does not need it
    except ImportError:
        return None
    return pynvml


def _start(request: list[object]) -> Iterator[dict[str, object]]:
    module = package()
    if module is None:
        for call in ("nvmlInit_v2", *SYSTEM):
            yield {"key": call, "read": {"error": NO_PACKAGE}}
        return
    library = Library(module)
    _libraries[:] = [library]
    candidates = request[1] if isinstance(request[1], list) else []
    yield {"key": "nvmlInit_v2", "read": library.start([str(one) for one in candidates], loader=bool(request[2]))}
    for call in request[3] if isinstance(request[3], (list, tuple)) else ():
        yield {"key": call, "read": library.system(call)}


def _gpu(library: Library, index: int, *, full: bool) -> Iterator[dict[str, object]]:
    opened = library.open(index)
    yield {"key": f"nvmlDeviceGetHandleByIndex_v2({index})", "read": opened}
    if opened.get("code") != SUCCESS:
        # NVML has no device to ask: whatever is asked of this GPU answers so
        for call in calls(index, full=full):
            yield {"key": call, "read": {name: value for name, value in opened.items() if name != "ms"}}
        return
    for call in (*DEVICE, *(SLOW if full else ())):
        yield {"key": _named(call, index), "read": library.device(call)}
    fields = library.fields()
    for name, read in fields.items():
        yield {"key": _field(name, index), "read": read}
    yield from _links(library, index, fields)
    for place, read in library.partitions():
        yield {"key": f"nvmlDeviceGetMigDeviceHandleByIndex({index},{place})", "read": read}


def _links(library: Library, index: int, fields: dict[str, dict[str, object]]) -> Iterator[dict[str, object]]:
    """Yield the state of each NVLink, as many as the GPU says; where it does not, until one is refused."""
    count = fields.get("NVML_FI_DEV_NVLINK_LINK_COUNT", {}).get("value")
    told = count if isinstance(count, int) and 0 < count <= LINKS else None
    active = []
    for number in range(told or LINKS):
        read = library.link(number)
        if told is None and number and read.get("code") in {INVALID_ARGUMENT, NOT_SUPPORTED}:
            break
        yield {"key": f"nvmlDeviceGetNvLinkState({index},{number})", "read": read}
        if read.get("value") == 1:
            active.append(number)
        if told is None and read.get("code") != SUCCESS:
            break
    if fields.get(LINK_TOTAL, {}).get("code") != SUCCESS:
        for number, read in library.link_fields(active).items():
            yield {"key": _field(LINK_FIELD, index, number), "read": read}

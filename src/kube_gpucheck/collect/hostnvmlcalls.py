"""How NVML's functions are called: signatures, structures and constants of nvml.h, as far as `hostnvml` asks.

`pynvml` has all of nvml.h, and takes longer to load than the whole sweep may take, and 6 MB (docs/performance.md). The
tests hold this part against it. Source: nvml.h as in NVIDIA/go-nvml 2f9e261fe40a gen/nvml/nvml.h. Text is told as it
is, structures as objects by their fields' names; nothing here tells a good answer from a bad one.
"""

from __future__ import annotations

from ctypes import (
    Array,
    Structure,
    Union,
    byref,
    c_char,
    c_double,
    c_int,
    c_longlong,
    c_ubyte,
    c_uint,
    c_ulonglong,
    c_ushort,
    c_void_p,
    create_string_buffer,
    sizeof,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from typing import Any, Final

    Call = Callable[..., int]
    """A function of the library that is given everything but where its answer goes."""
    Form = Callable[[Call], "tuple[int, object]"]
    """Makes a call, and returns its code and what it told."""

SUCCESS: Final = 0
INVALID_ARGUMENT: Final = 2
NOT_SUPPORTED: Final = 3
INSUFFICIENT_SIZE: Final = 7
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
OTHER_VERSION: Final = 25
"""Return codes: enum nvmlReturn_t."""

CONSTANTS: Final = {
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "NVML_VOLATILE_ECC": 0,
    "NVML_AGGREGATE_ECC": 1,
    "NVML_CLOCK_SM": 1,
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN": 1,
    "NVML_TEMPERATURE_THRESHOLD_MEM_MAX": 2,
}
"""Arguments behind the device, by name."""

FIELDS: Final = {
    "NVML_FI_DEV_MEMORY_TEMP": 82,
    "NVML_FI_DEV_NVLINK_LINK_COUNT": 91,
    "NVML_FI_DEV_PCIE_REPLAY_COUNTER": 94,
    "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": 38,
    "NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": 45,
    "NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": 52,
    "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": 59,
    "NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT": 147,
    "NVML_FI_DEV_C2C_LINK_COUNT": 170,
    "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT": 194,
    "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS": 214,
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": 230,
}
"""Field values by name."""

UNTOLD: Final = 0xFFFF
"""What stands for the code of a field before NVML is asked: on an H200 (driver 580) it leaves some as they were."""
_DOUBLE: Final = 0
_NONE: Final = (1 << 64) - 1
"""NVML_VALUE_NOT_AVAILABLE."""
_MAX_TEXT: Final = 512
_MOST_ITEMS: Final = 256


class PciInfo(Structure):
    """nvmlPciInfo_t."""

    _fields_ = (
        ("busIdLegacy", c_char * 16),
        ("domain", c_uint),
        ("bus", c_uint),
        ("device", c_uint),
        ("pciDeviceId", c_uint),
        ("pciSubSystemId", c_uint),
        ("busId", c_char * 32),
    )


class Memory(Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class ConfidentialState(Structure):
    """nvmlConfComputeSystemState_t."""

    _fields_ = (("environment", c_uint), ("ccFeature", c_uint), ("devToolsMode", c_uint))


class RemapperHistogram(Structure):
    """nvmlRowRemapperHistogramValues_t."""

    _fields_ = tuple((name, c_uint) for name in ("max", "high", "partial", "low", "none"))


class SramErrors(Structure):
    """nvmlEccSramErrorStatus_v1_t."""

    _fields_ = (
        ("version", c_uint),
        *(
            (name, c_ulonglong)
            for name in (
                "aggregateUncParity",
                "aggregateUncSecDed",
                "aggregateCor",
                "volatileUncParity",
                "volatileUncSecDed",
                "volatileCor",
                "aggregateUncBucketL2",
                "aggregateUncBucketSm",
                "aggregateUncBucketPcie",
                "aggregateUncBucketMcu",
                "aggregateUncBucketOther",
            )
        ),
        ("bThresholdExceeded", c_uint),
    )


class FabricInfo2(Structure):
    """nvmlGpuFabricInfo_v2_t."""

    _fields_ = (
        ("version", c_uint),
        ("clusterUuid", c_ubyte * 16),
        ("status", c_uint),
        ("cliqueId", c_uint),
        ("state", c_uint),
        ("healthMask", c_uint),
    )


class FabricInfo3(Structure):
    """nvmlGpuFabricInfo_v3_t."""

    _fields_ = (*FabricInfo2._fields_, ("healthSummary", c_ubyte))


class MarginTemperature(Structure):
    """nvmlMarginTemperature_v1_t."""

    _fields_ = (("version", c_uint), ("marginTemperature", c_int))


class ProcessInfo(Structure):
    """nvmlProcessInfo_t, which the second and third version of the lists of processes have in common."""

    _fields_ = (
        ("pid", c_uint),
        ("usedGpuMemory", c_ulonglong),
        ("gpuInstanceId", c_uint),
        ("computeInstanceId", c_uint),
    )


class LicenceExpiry(Structure):
    """nvmlGridLicenseExpiry_t."""

    _fields_ = (
        ("year", c_uint),
        *((name, c_ushort) for name in ("month", "day", "hour", "min", "sec")),
        ("status", c_ubyte),
    )


class LicensableFeature(Structure):
    """nvmlGridLicensableFeature_t."""

    _fields_ = (
        ("featureCode", c_uint),
        ("featureState", c_uint),
        ("licenseInfo", c_char * 128),
        ("productName", c_char * 128),
        ("featureEnabled", c_uint),
        ("licenseExpiry", LicenceExpiry),
    )


class LicensableFeatures(Structure):
    """nvmlGridLicensableFeatures_t."""

    _fields_ = (
        ("isGridLicenseSupported", c_int),
        ("licensableFeaturesCount", c_uint),
        ("gridLicensableFeatures", LicensableFeature * 3),
    )


class PartAttributes(Structure):
    """nvmlDeviceAttributes_t."""

    _fields_ = (
        *(
            (name, c_uint)
            for name in (
                "multiprocessorCount",
                "sharedCopyEngineCount",
                "sharedDecoderCount",
                "sharedEncoderCount",
                "sharedJpegCount",
                "sharedOfaCount",
                "gpuInstanceSliceCount",
                "computeInstanceSliceCount",
            )
        ),
        ("memorySizeMB", c_ulonglong),
    )


class _Value(Union):
    """nvmlValue_t; its members stand in the order of nvmlValueType_t."""

    _fields_ = (
        ("dVal", c_double),
        ("uiVal", c_uint),
        ("ulVal", c_ulonglong),
        ("ullVal", c_ulonglong),
        ("sllVal", c_longlong),
        ("siVal", c_int),
        ("usVal", c_ushort),
    )


class FieldValue(Structure):
    """nvmlFieldValue_t."""

    _fields_ = (
        ("fieldId", c_uint),
        ("scopeId", c_uint),
        ("timestamp", c_longlong),
        ("latencyUsec", c_longlong),
        ("valueType", c_uint),
        ("nvmlReturn", c_uint),
        ("value", _Value),
    )


VERSIONS: Final = {SramErrors: 1, FabricInfo2: 2, FabricInfo3: 3, MarginTemperature: 1}
"""The number of each structure that says which version of itself it is: NVML_STRUCT_VERSION of nvml.h."""


def text(size: int, *, sized: bool = True) -> Form:
    """Return the form of a call that fills a buffer with text; `sized` if it is told how long the buffer is."""

    def make(call: Call) -> tuple[int, object]:
        buffer = create_string_buffer(size)
        code = call(buffer, c_uint(size)) if sized else call(buffer)
        return code, plain(buffer.value)

    return make


def numbers(*kinds: type[ctypes._SimpleCData[Any]]) -> Form:
    """Return the form of a call that fills one number, or several, which are told as a list."""

    def make(call: Call) -> tuple[int, object]:
        found = [kind() for kind in kinds]
        code = call(*(byref(one) for one in found))
        told = [one.value for one in found]
        return code, told if len(told) > 1 else told[0]

    return make


def structure(*kinds: type[Structure]) -> Form:
    """Return the form of a call that fills a structure; of several versions the first that the library knows."""

    def make(call: Call) -> tuple[int, object]:
        code, told = OTHER_VERSION, None
        for kind in kinds:
            filled = kind()
            if kind in VERSIONS:
                setattr(filled, "version", sizeof(kind) | VERSIONS[kind] << 24)  # noqa: B010  not every kind has one
            code, told = call(byref(filled)), filled
            if code != OTHER_VERSION:
                break
        return code, plain(told)

    return make


def margin(call: Call) -> tuple[int, object]:
    """Make the call for the margin to the GPU's own limit, in °C."""
    code, told = structure(MarginTemperature)(call)
    return code, told["marginTemperature"] if isinstance(told, dict) else None


def features(call: Call) -> tuple[int, object]:
    """Make the call for licensable features, and leave out the empty places of its array."""
    code, told = structure(LicensableFeatures)(call)
    if isinstance(told, dict):
        told["gridLicensableFeatures"] = told["gridLicensableFeatures"][: told["licensableFeaturesCount"]]
    return code, told


def processes(call: Call) -> tuple[int, object]:
    """Make the call for a list of processes: first for their number, then for them, with room for some more."""
    count = c_uint(0)
    code = call(byref(count), None)
    if code != INSUFFICIENT_SIZE:
        return code, []
    count.value = min(count.value * 2 + 5, 1 << 16)
    found = (ProcessInfo * count.value)()
    code = call(byref(count), found)
    told = [plain(one) for one in found[: min(count.value, _MOST_ITEMS)]]
    return code, [{name: None if value == _NONE else value for name, value in one.items()} for one in told]  # type: ignore[attr-defined]  # a structure's fields


_NUMBER: Final = numbers(c_uint)
_LARGE: Final = numbers(c_ulonglong)

QUERIES: Final[dict[str, tuple[Form, tuple[str, ...]]]] = {
    "nvmlDeviceGetCount_v2": (_NUMBER, ()),
    "nvmlSystemGetDriverVersion": (text(80), ()),
    "nvmlSystemGetNVMLVersion": (text(80), ()),
    "nvmlSystemGetCudaDriverVersion_v2": (numbers(c_int), ()),
    "nvmlSystemGetConfComputeState": (structure(ConfidentialState), ()),
    "nvmlDeviceGetName": (text(96), ()),
    "nvmlDeviceGetUUID": (text(96), ()),
    "nvmlDeviceGetPciInfo": (structure(PciInfo), ("nvmlDeviceGetPciInfo_v3",)),
    "nvmlDeviceGetMinorNumber": (_NUMBER, ()),
    "nvmlDeviceGetSerial": (text(30), ()),
    "nvmlDeviceGetArchitecture": (_NUMBER, ()),
    "nvmlDeviceGetCudaComputeCapability": (numbers(c_int, c_int), ()),
    "nvmlDeviceGetVbiosVersion": (text(32), ()),
    "nvmlDeviceGetInforomImageVersion": (text(16), ()),
    "nvmlDeviceGetGspFirmwareMode": (numbers(c_uint, c_uint), ()),
    "nvmlDeviceGetGspFirmwareVersion": (text(64, sized=False), ()),
    "nvmlDeviceGetVirtualizationMode": (_NUMBER, ()),
    "nvmlDeviceGetGridLicensableFeatures": (features, ("nvmlDeviceGetGridLicensableFeatures_v4",)),
    "nvmlDeviceGetCurrPcieLinkGeneration": (_NUMBER, ()),
    "nvmlDeviceGetCurrPcieLinkWidth": (_NUMBER, ()),
    "nvmlDeviceGetMaxPcieLinkGeneration": (_NUMBER, ()),
    "nvmlDeviceGetMaxPcieLinkWidth": (_NUMBER, ()),
    "nvmlDeviceGetPcieReplayCounter": (_NUMBER, ()),
    "nvmlDeviceGetMemoryInfo": (structure(Memory), ()),
    "nvmlDeviceGetEccMode": (numbers(c_uint, c_uint), ()),
    "nvmlDeviceGetTotalEccErrors": (_LARGE, ()),
    "nvmlDeviceGetSramEccErrorStatus": (structure(SramErrors), ()),
    "nvmlDeviceGetRemappedRows": (numbers(c_uint, c_uint, c_uint, c_uint), ()),
    "nvmlDeviceGetRowRemapperHistogram": (structure(RemapperHistogram), ()),
    "nvmlDeviceGetRetiredPagesPendingStatus": (_NUMBER, ()),
    "nvmlDeviceGetMigMode": (numbers(c_uint, c_uint), ()),
    "nvmlDeviceGetMaxMigDeviceCount": (_NUMBER, ()),
    "nvmlDeviceGetAttributes_v2": (structure(PartAttributes), ()),
    "nvmlDeviceGetComputeMode": (_NUMBER, ()),
    "nvmlDeviceGetPersistenceMode": (_NUMBER, ()),
    "nvmlDeviceGetAccountingMode": (_NUMBER, ()),
    "nvmlDeviceGetCurrentClocksEventReasons": (
        _LARGE,
        (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ),  # the latter before 535
    ),
    "nvmlDeviceGetClockInfo": (_NUMBER, ()),
    "nvmlDeviceGetApplicationsClock": (_NUMBER, ()),
    "nvmlDeviceGetDefaultApplicationsClock": (_NUMBER, ()),
    "nvmlDeviceGetPowerUsage": (_NUMBER, ()),
    "nvmlDeviceGetPowerManagementLimit": (_NUMBER, ()),
    "nvmlDeviceGetPowerManagementDefaultLimit": (_NUMBER, ()),
    "nvmlDeviceGetEnforcedPowerLimit": (_NUMBER, ()),
    "nvmlDeviceGetTemperature": (_NUMBER, ()),
    "nvmlDeviceGetTemperatureThreshold": (_NUMBER, ()),
    "nvmlDeviceGetMarginTemperature": (margin, ()),
    "nvmlDeviceGetComputeRunningProcesses": (
        processes,
        ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
    ),
    "nvmlDeviceGetGraphicsRunningProcesses": (
        processes,
        ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
    ),
    "nvmlDeviceGetMPSComputeRunningProcesses": (
        processes,
        ("nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2"),
    ),
    "nvmlDeviceGetGpuFabricInfoV": (structure(FabricInfo3, FabricInfo2), ()),
    "nvmlDeviceGetNvLinkState": (_NUMBER, ()),
}
"""Each query's form, and the functions that answer it, the newest first, where they have other names."""


def ask(library: ctypes.CDLL, query: str, *arguments: object) -> tuple[int, object]:
    """Make a query, and return its code and what it told, None unless it succeeded."""
    form, names = QUERIES[query]
    for name in names or (query,):
        function = getattr(library, name, None)
        if function is not None:
            code, told = form(lambda *out: int(function(*arguments, *out)))  # noqa: B023  it is made at once
            return code, told if code == SUCCESS else None
    return FUNCTION_NOT_FOUND, None


def handle(library: ctypes.CDLL, name: str, *arguments: object) -> tuple[int, object]:
    """Get hold of a device by a function that gives one."""
    function = getattr(library, name, None)
    if function is None:
        return FUNCTION_NOT_FOUND, None
    found = c_void_p()
    return int(function(*arguments, byref(found))), found


def values(library: ctypes.CDLL, device: object, wanted: list[tuple[str, int]]) -> tuple[int, list[dict[str, object]]]:
    """Return the code of one call for several fields, and the answer to each, which has a code of its own.

    `wanted`: name and scope of each. A field that NVML left as it was has `code` alone, success and no value.
    """
    function = getattr(library, "nvmlDeviceGetFieldValues", None)
    if function is None:
        return FUNCTION_NOT_FOUND, []
    found = (FieldValue * len(wanted))()
    for entry, (name, scope) in zip(found, wanted):  # noqa: B905  Python 3.8 has no `strict`
        entry.fieldId, entry.scopeId, entry.nvmlReturn = FIELDS[name], scope, UNTOLD
    code = int(function(device, c_int(len(wanted)), found))
    return code, [_value_of(entry) for entry in found] if code == SUCCESS else []


def _value_of(entry: FieldValue) -> dict[str, object]:
    """Return one field's answer. None of `FIELDS` is a double, which is type 0: it stands where nothing was told."""
    if entry.nvmlReturn == UNTOLD or (entry.nvmlReturn == SUCCESS and entry.valueType == _DOUBLE):
        return {"code": SUCCESS}
    answer: dict[str, object] = {"code": int(entry.nvmlReturn)}
    if entry.nvmlReturn == SUCCESS and entry.valueType < len(_Value._fields_):
        answer["value"] = getattr(entry.value, _Value._fields_[entry.valueType][0])
    return answer


def plain(value: Any) -> object:  # noqa: ANN401  whatever ctypes gives
    """Return what a call filled as lists, texts, numbers and objects by name; bytes of an identifier in hexadecimal."""
    if isinstance(value, bytes):
        return value[:_MAX_TEXT].decode("utf-8", "replace")
    if isinstance(value, Structure):
        names = [str(one[0]) for one in value._fields_]
        return {name: plain(getattr(value, name)) for name in names if name != "version"}
    if isinstance(value, Array):
        return bytes(value).hex() if value._type_ is c_ubyte else [plain(one) for one in value]
    return value

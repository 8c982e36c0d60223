"""The health of one GPU as NVML tells it: memory errors, links, fabric, clocks, temperatures, settings, licence.

Every reading is None where this GPU, or this version of the driver, does not offer the query. Limits are the GPU's own.
Judges nothing. Source of what values mean: nvml.h, as in NVIDIA/go-nvml 2f9e261fe40a gen/nvml/nvml.h.
"""

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.model import Missing, MissingKind

if TYPE_CHECKING:
    from kube_gpucheck.evidence.driver import Driver

Member = TypeVar("Member", bound=enum.Enum)


class Sram(msgspec.Struct, frozen=True):
    """Uncorrectable errors of a GPU's caches and registers since the driver loaded. Source: nvmlEccSramErrorStatus_t.

    `exceeded`: the GPU itself counts more, over its whole life, than its field diagnostics let pass.
    """

    errors: int
    exceeded: bool


class Remap(msgspec.Struct, frozen=True):
    """Rows of memory that were put out of use. Source: nvmlDeviceGetRemappedRows."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


class PcieLink(msgspec.Struct, frozen=True):
    """A PCIe link now, and the most that GPU and slot both support. Source: nvmlDeviceGetCurr/MaxPcieLink…."""

    generation: int
    width: int
    max_generation: int
    max_width: int

    def __str__(self) -> str:
        """Return it as `gen 4 x8 of gen 5 x16`."""
        return f"gen {self.generation} x{self.width} of gen {self.max_generation} x{self.max_width}"


class FabricState(enum.Enum):
    """How far a GPU's registration with its NVLink fabric has come. Source: NVML_GPU_FABRIC_STATE_*."""

    NOT_SUPPORTED = 0
    NOT_STARTED = 1
    IN_PROGRESS = 2
    COMPLETED = 3


class Fabric(msgspec.Struct, frozen=True):
    """A GPU's NVLink fabric. `status`: an NVML code, meaningful once completed. `troubles`: what its mask calls bad.

    `domain`: the cluster's UUID, in hexadecimal, which only the NVLink domain of a whole rack has; else empty.
    """

    state: FabricState
    status: int
    troubles: tuple[str, ...]
    domain: str = ""


class SlowDown(enum.IntFlag):
    """Why clocks are held down by hardware or heat. Source: nvmlClocksEventReasons."""

    HW_SLOWDOWN = 0x8
    SW_THERMAL = 0x20
    HW_THERMAL = 0x40
    POWER_BRAKE = 0x80


SLOW_DOWNS: Final = {
    SlowDown.HW_SLOWDOWN: "hardware slowdown",
    SlowDown.SW_THERMAL: "software thermal slowdown",
    SlowDown.HW_THERMAL: "hardware thermal slowdown",
    SlowDown.POWER_BRAKE: "power brake",
}
IDLE: Final = 0x1


class Heat(msgspec.Struct, frozen=True):
    """A temperature, and the one from which the GPU slows itself down, in °C.

    `relative`: both count degrees below the GPU's own limit instead (T.Limit), so that less is hotter.
    """

    part: str
    now_c: int
    limit_c: int
    relative: bool = False

    @property
    def too_hot(self) -> bool:
        """Tell whether the limit is reached."""
        return self.now_c <= self.limit_c if self.relative else self.now_c >= self.limit_c

    def __str__(self) -> str:
        """Return it with its limit."""
        if self.relative:
            return f"{self.part} at a margin of {self.now_c} °C, slows down at {self.limit_c} °C"
        return f"{self.part} {self.now_c} °C, slows down at {self.limit_c} °C"


class Draw(msgspec.Struct, frozen=True):
    """The power that a GPU draws and the limit that holds it, in W, rounded down."""

    now_w: int
    limit_w: int

    def __str__(self) -> str:
        """Return it as `412 of 700 W`."""
        return f"{self.now_w} of {self.limit_w} W"


class Setting(msgspec.Struct, frozen=True):
    """Something that an administrator can set: its value now and the default. `unit` is that of both."""

    name: str
    now: int
    default: int
    unit: str


class ComputeMode(enum.Enum):
    """Who may use a GPU at a time. Source: nvmlComputeMode_t."""

    DEFAULT = 0
    EXCLUSIVE_THREAD = 1
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


class Recovery(enum.Enum):
    """What a GPU asks for. Source: nvmlDeviceGpuRecoveryAction_t."""

    NONE = 0
    GPU_RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX_DOMAIN = 5


class Licence(msgspec.Struct, frozen=True):
    """A feature of vGPU software that needs a licence."""

    product: str
    enabled: bool
    licensed: bool


class Health:
    """What one GPU says of itself."""

    def __init__(self, driver: "Driver", identity: GpuIdentity) -> None:
        """Keep whom to ask."""
        self._driver = driver
        self._gpu = identity

    # --- memory ------------------------------------------------------------------------------------

    @derived
    def ecc_is_on(self) -> bool | None:
        """Whether ECC is on now. Source: nvmlDeviceGetEccMode, first."""
        mode = self._list("nvmlDeviceGetEccMode", length=2)
        return None if mode is None else bool(mode[0])

    @derived
    def uncorrected(self) -> int | None:
        """Uncorrectable memory errors since the driver loaded. Source: nvmlDeviceGetTotalEccErrors, volatile."""
        return self._number("nvmlDeviceGetTotalEccErrors", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", "NVML_VOLATILE_ECC")

    @derived
    def uncorrected_ever(self) -> int | None:
        """Uncorrectable memory errors over the GPU's life. Source: nvmlDeviceGetTotalEccErrors, aggregate."""
        return self._number("nvmlDeviceGetTotalEccErrors", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", "NVML_AGGREGATE_ECC")

    @derived
    def sram(self) -> Sram | None:
        """What SRAM says of itself. Source: nvmlDeviceGetSramEccErrorStatus."""
        told = self._object("nvmlDeviceGetSramEccErrorStatus")
        if told is None:
            return None
        errors = _whole(told.get("volatileUncParity")) + _whole(told.get("volatileUncSecDed"))
        return Sram(errors, bool(told.get("bThresholdExceeded")))

    @derived
    def remap(self) -> Remap | None:
        """What became of rows with errors. Source: nvmlDeviceGetRemappedRows (Ampere and later, MIG off)."""
        rows = self._list("nvmlDeviceGetRemappedRows", length=4)
        return None if rows is None else Remap(rows[0], rows[1], bool(rows[2]), bool(rows[3]))

    @derived
    def banks_without_spares(self) -> int | None:
        """How many banks of memory have no spare row left. Source: nvmlDeviceGetRowRemapperHistogram, none."""
        told = self._object("nvmlDeviceGetRowRemapperHistogram")
        return None if told is None else _whole(told.get("none"))

    @derived
    def retirement_is_pending(self) -> bool | None:
        """Whether a page waits for a reset to be retired. Source: nvmlDeviceGetRetiredPagesPendingStatus (to Volta)."""
        pending = self._number("nvmlDeviceGetRetiredPagesPendingStatus")
        return None if pending is None else bool(pending)

    # --- links -------------------------------------------------------------------------------------

    @derived
    def is_of_a_machine(self) -> bool:
        """Whether the GPU is the hardware's own, and not what a virtual machine is shown. Not told counts as its own.

        Source: nvmlDeviceGetVirtualizationMode, 0.
        """
        return not self._number("nvmlDeviceGetVirtualizationMode")

    @derived
    def is_vgpu(self) -> bool | None:
        """Whether this is a share of a GPU, in a virtual machine. Source: nvmlDeviceGetVirtualizationMode, 2."""
        mode = self._number("nvmlDeviceGetVirtualizationMode")
        return None if mode is None else mode == _VGPU

    @derived
    def has_c2c(self) -> bool:
        """Whether the GPU reaches its CPU by NVLink-C2C, as in GH200. Source: NVML_FI_DEV_C2C_LINK_COUNT."""
        return bool(self._field("NVML_FI_DEV_C2C_LINK_COUNT"))

    @derived
    def pcie(self) -> PcieLink | None:
        """The PCIe link. Source: nvmlDeviceGetCurrPcieLinkGeneration and its siblings."""
        calls = ("CurrPcieLinkGeneration", "CurrPcieLinkWidth", "MaxPcieLinkGeneration", "MaxPcieLinkWidth")
        numbers = [self._number(f"nvmlDeviceGet{one}") for one in calls]
        told = [one for one in numbers if one is not None]
        return PcieLink(*told) if len(told) == len(calls) else None

    @derived
    def replays(self) -> int | None:
        """How often the PCIe link sent again since the driver loaded. Source: nvmlDeviceGetPcieReplayCounter."""
        return self._number("nvmlDeviceGetPcieReplayCounter")

    @derived
    def later_replays(self) -> int | None:
        """The same counter, read some time later in the sweep. Source: NVML_FI_DEV_PCIE_REPLAY_COUNTER."""
        return self._field("NVML_FI_DEV_PCIE_REPLAY_COUNTER")

    @derived
    def is_idle(self) -> bool | None:
        """Whether nothing runs on the GPU, by its clocks. Source: nvmlDeviceGetCurrentClocksEventReasons, bit 0."""
        reasons = self._reasons()
        return None if reasons is None else bool(reasons & IDLE)

    @derived
    def nvlinks(self) -> tuple[bool, ...] | None:
        """Whether each NVLink is active, in order of number; None for a GPU that has none.

        Source: nvmlDeviceGetNvLinkState, for as many as were asked.
        """
        first = need(self._driver.answer(self._gpu, "nvmlDeviceGetNvLinkState", "0"))
        if first is None:
            return None
        found = [bool(first)]
        for number in range(1, MOST_LINKS):
            state = self._driver.answer(self._gpu, "nvmlDeviceGetNvLinkState", str(number))
            if is_not_asked(state):
                break
            found.append(bool(need(state)))
        return tuple(found)

    @derived
    def links_to_switches(self) -> int | None:
        """How many NVLinks lead to an NVSwitch. Source: NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT."""
        return self._field("NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT")

    @derived
    def link_errors(self) -> dict[str, int]:
        """Errors of all NVLinks together since the driver loaded, by kind; kinds that are not kept are left out.

        Source: NVML_FI_DEV_NVLINK_{REPLAY,RECOVERY,CRC_FLIT,CRC_DATA}_ERROR_COUNT_TOTAL (before Blackwell).
        """
        kinds = {kind: self._field(f"NVML_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL") for kind in LINK_ERRORS}
        return {kind: count for kind, count in kinds.items() if count is not None}

    @derived
    def links_declared_down(self) -> tuple[int, ...]:
        """NVLinks that failed to come back, by number.

        Source: NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS of each link, where it was asked (Blackwell on).
        """
        found = []
        for number in range(MOST_LINKS):
            count = self._driver.answer(
                self._gpu,
                _FIELDS,
                "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS",
                str(number),
            )
            if not is_not_asked(count) and need(count):
                found.append(number)
        return tuple(found)

    @derived
    def fabric(self) -> Fabric | None:
        """The NVLink fabric. Source: nvmlDeviceGetGpuFabricInfoV."""
        told = self._object("nvmlDeviceGetGpuFabricInfoV")
        if told is None:
            return None
        state = _member(FabricState, told.get("state"))
        if state is None:
            raise self._odd("nvmlDeviceGetGpuFabricInfoV", told)
        mask, summary = _whole(told.get("healthMask")), _whole(told.get("healthSummary"))
        domain = str(told.get("clusterUuid", "")).replace("-", "")
        in_rack = state is FabricState.COMPLETED and bool(domain.strip("0"))
        return Fabric(state, _whole(told.get("status")), _troubles(mask, summary), domain if in_rack else "")

    @derived
    def is_in_rack_domain(self) -> bool:
        """Whether the GPU is part of an NVLink domain of several nodes, as in GB200 NVL72: its fabric has a UUID."""
        fabric = self.fabric
        if isinstance(fabric, Missing) and fabric.kind is MissingKind.NOT_ASKED:
            return False
        told = need(fabric)
        return told is not None and told.domain != ""

    # --- clocks, heat, power -----------------------------------------------------------------------

    @derived
    def slow_downs(self) -> SlowDown | None:
        """The reasons of hardware and heat that hold the clocks down now; empty where none does."""
        reasons = self._reasons()
        return None if reasons is None else SlowDown(reasons & sum(SLOW_DOWNS))

    def _reasons(self) -> int | None:
        return self._number("nvmlDeviceGetCurrentClocksEventReasons")

    @derived
    def heats(self) -> tuple[Heat, ...]:
        """The GPU's and its memory's temperature with the card's own limits, as far as both are told.

        Source: nvmlDeviceGetTemperature and …Threshold; where there is no threshold (Ada and later may have none),
        nvmlDeviceGetMarginTemperature and NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT; NVML_FI_DEV_MEMORY_TEMP.
        """
        found = []
        now = self._number("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU")
        limit = self._number("nvmlDeviceGetTemperatureThreshold", "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN")
        if now is not None and limit:
            found.append(Heat("GPU", now, limit))
        else:
            margin, slows = (
                self._number("nvmlDeviceGetMarginTemperature"),
                self._field("NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT"),
            )
            if margin is not None and slows is not None:
                found.append(Heat("GPU", margin, slows, relative=True))
        memory = self._field("NVML_FI_DEV_MEMORY_TEMP")
        if memory:
            most = self._number("nvmlDeviceGetTemperatureThreshold", "NVML_TEMPERATURE_THRESHOLD_MEM_MAX")
            if most:
                found.append(Heat("memory", memory, most))
        return tuple(found)

    @derived
    def draw(self) -> Draw | None:
        """The power drawn. Source: nvmlDeviceGetPowerUsage, nvmlDeviceGetEnforcedPowerLimit, both in mW."""
        now = self._number("nvmlDeviceGetPowerUsage")
        limit = None if now is None else self._number("nvmlDeviceGetEnforcedPowerLimit")
        return None if now is None or limit is None else Draw(now // 1000, limit // 1000)

    @derived
    def clock_mhz(self) -> int | None:
        """The clock of the streaming multiprocessors now. Source: nvmlDeviceGetClockInfo, NVML_CLOCK_SM."""
        return self._number("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM")

    @derived
    def settings(self) -> tuple[Setting, ...]:
        """Power limit (mW) and application clock (MHz) with their defaults, as far as both are told.

        Source: nvmlDeviceGetPowerManagementLimit, nvmlDeviceGetApplicationsClock of the SMs, and their defaults.
        """
        found = []
        power = self._number("nvmlDeviceGetPowerManagementLimit")
        default_power = None if power is None else self._number("nvmlDeviceGetPowerManagementDefaultLimit")
        if power is not None and default_power is not None:
            found.append(Setting("power limit", power // 1000, default_power // 1000, "W"))
        clock = self._number("nvmlDeviceGetApplicationsClock", "NVML_CLOCK_SM")
        default_clock = (
            None if clock is None else self._number("nvmlDeviceGetDefaultApplicationsClock", "NVML_CLOCK_SM")
        )
        if clock is not None and default_clock is not None:
            found.append(Setting("application clock", clock, default_clock, "MHz"))
        return tuple(found)

    # --- what it is set to, and asks for ------------------------------------------------------------

    @derived
    def persistence_is_on(self) -> bool | None:
        """Whether the driver stays loaded without a client. Source: nvmlDeviceGetPersistenceMode."""
        mode = self._number("nvmlDeviceGetPersistenceMode")
        return None if mode is None else bool(mode)

    @derived
    def compute_mode(self) -> ComputeMode | None:
        """Who may use the GPU at a time. Source: nvmlDeviceGetComputeMode."""
        return self._closed("nvmlDeviceGetComputeMode", ComputeMode, self._number("nvmlDeviceGetComputeMode"))

    @derived
    def mps_clients(self) -> int | None:
        """How many programs MPS serves on the GPU now. Source: nvmlDeviceGetMPSComputeRunningProcesses."""
        call = "nvmlDeviceGetMPSComputeRunningProcesses"
        processes = need(self._driver.answer(self._gpu, call))
        if processes is not None and not isinstance(processes, list):
            raise self._odd(call, processes)
        return None if processes is None else len(processes)

    @derived
    def recovery(self) -> Recovery | None:
        """What the GPU asks for. Source: NVML_FI_DEV_GET_GPU_RECOVERY_ACTION (driver 570 and later)."""
        name = "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION"
        return self._closed(_FIELDS, Recovery, self._field(name), name)

    @derived
    def licences(self) -> tuple[Licence, ...] | None:
        """Features that need a licence, None where none does. Source: nvmlDeviceGetGridLicensableFeatures."""
        told = self._object("nvmlDeviceGetGridLicensableFeatures")
        if told is None or not told.get("isGridLicenseSupported"):
            return None
        features = told.get("gridLicensableFeatures")
        if not isinstance(features, list):
            raise self._odd("nvmlDeviceGetGridLicensableFeatures", told)
        return tuple(
            Licence(str(one.get("productName", "")), bool(one.get("featureEnabled")), bool(one.get("featureState")))
            for one in features
            if isinstance(one, dict)
        )

    @derived
    def product(self) -> str | None:
        """The product's name. Source: nvmlDeviceGetName."""
        return self._text("nvmlDeviceGetName")

    @derived
    def vbios(self) -> str | None:
        """The version of the video BIOS. Source: nvmlDeviceGetVbiosVersion."""
        return self._text("nvmlDeviceGetVbiosVersion")

    @derived
    def inforom_is_damaged(self) -> bool | None:
        """Whether NVML calls the InfoROM corrupted; None for a GPU without one.

        Source: nvmlDeviceValidateInforom where it was asked (it takes long), else nvmlDeviceGetInforomImageVersion.
        """
        call = _IMAGE if is_not_asked(self._driver.query(self._gpu, _CHECKSUM)) else _CHECKSUM
        answer = need(self._driver.query(self._gpu, call))
        if answer.code == _CORRUPTED_INFOROM:
            return True
        need(self._driver.answer(self._gpu, call))  # another code than that the query is not offered stops here
        return False if answer.code == 0 else None

    # --- answers in the form that they should have ---------------------------------------------------

    def _number(self, call: str, *arguments: str) -> int | None:
        value = need(self._driver.answer(self._gpu, call, *arguments))
        if value is not None and type(value) is not int:
            raise self._odd(call, value, *arguments)
        return value

    def _field(self, name: str) -> int | None:
        """Return a field's value, None too where NVML left it as it was: a double, which none of these fields is."""
        value = need(self._driver.answer(self._gpu, _FIELDS, name))
        return None if type(value) is float else self._number(_FIELDS, name)

    def _text(self, call: str) -> str | None:
        value = need(self._driver.answer(self._gpu, call))
        if value is not None and not isinstance(value, str):
            raise self._odd(call, value)
        return value

    def _list(self, call: str, *, length: int) -> list[int] | None:
        value = need(self._driver.answer(self._gpu, call))
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < length or not all(isinstance(one, int) for one in value):
            raise self._odd(call, value)
        return value

    def _object(self, call: str) -> Mapping[str, Any] | None:
        value = need(self._driver.answer(self._gpu, call))
        if value is not None and not isinstance(value, dict):
            raise self._odd(call, value)
        return value

    def _closed(self, call: str, kind: type[Member], value: int | None, *arguments: str) -> Member | None:
        if value is None:
            return None
        member = _member(kind, value)
        if member is None:
            raise self._odd(call, value, *arguments)
        return member

    def _odd(self, call: str, value: object, *arguments: str) -> GapError:
        return GapError(self._driver.odd(call, self._gpu, value, *arguments))


MOST_LINKS: Final = 36
"""More NVLinks than any GPU has."""
LINK_ERRORS: Final = ("REPLAY", "RECOVERY", "CRC_FLIT", "CRC_DATA")
_VGPU: Final = 2
_FIELDS: Final = "nvmlDeviceGetFieldValues"
_CORRUPTED_INFOROM: Final = 14
_CHECKSUM: Final = "nvmlDeviceValidateInforom"
_IMAGE: Final = "nvmlDeviceGetInforomImageVersion"
_MASK: Final = (
    (0, 0x3, {1: "bandwidth is degraded"}),
    (2, 0x3, {1: "a route is being recovered"}),
    (4, 0x3, {1: "a route is unhealthy"}),
    (6, 0x3, {1: "recovery from an access timeout is under way"}),
    (
        8,
        0xF,
        {
            2: "the configuration is wrong: system GUID",
            3: "the configuration is wrong: chassis serial number",
            4: "the configuration is wrong: no partition",
            5: "the configuration is wrong: too few NVLinks",
            6: "the configuration is wrong: incompatible GPU firmware",
            7: "the configuration is wrong: invalid location",
            8: "the configuration is wrong: invalid state of the GPU",
        },
    ),
)
"""Fields of the health mask: shift, width, and the values that are bad. Source: NVML_GPU_FABRIC_HEALTH_MASK_*."""
_SUMMARY: Final = {2: "its health is summed up as unhealthy", 3: "its capacity is limited"}


def _troubles(mask: int, summary: int) -> tuple[str, ...]:
    found = [bad[value] for shift, width, bad in _MASK if (value := mask >> shift & width) in bad]
    return tuple(found) or ((_SUMMARY[summary],) if summary in _SUMMARY else ())


def _whole(value: object) -> int:
    return value if type(value) is int else 0


def _member(kind: type[Member], value: object) -> Member | None:
    return next((one for one in kind if one.value == value), None)

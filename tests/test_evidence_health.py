"""What NVML says of one GPU, decoded: health, settings, links; and what else the driver's layer reads of a host."""

import datetime
from typing import Any

import pytest

from kube_gpucheck.evidence.driver import Driver
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.health import (
    ComputeMode,
    Draw,
    Fabric,
    FabricState,
    Health,
    Heat,
    Licence,
    PcieLink,
    Recovery,
    Remap,
    Setting,
    SlowDown,
    Sram,
)
from kube_gpucheck.evidence.mig import parse_mig
from kube_gpucheck.evidence.services import FABRIC_MANAGER, IMEX, PERSISTENCED, Unit
from kube_gpucheck.evidence.tables import branches, cuda_code
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen
from test_evidence_driver import driver_of, nvml

GPU = GpuIdentity("0000:01:00.0", 0)
FIELD = "nvmlDeviceGetFieldValues({},{})"


def driver_with(*lost: str, **answers: Any) -> Driver:
    """Return a driver whose one GPU answers these: `nvmlDeviceGetEccMode=[1, 1]`; a `Code` is answered as such."""
    reads = nvml("0000:01:00.0")
    for call, value in answers.items():
        reads[f"nvml:{spelled(call)}"] = (
            {"code": value.number} if isinstance(value, Code) else {"code": 0, "value": value}
        )
    return driver_of(reads, *(f"nvml:{spelled(one)}" for one in lost))


def spelled(call: str) -> str:
    """Return a call as reads name it: `nvmlDeviceGetX__ARGUMENT` as `nvmlDeviceGetX(0,ARGUMENT)`, or a field."""
    if call.startswith("NVML_FI_"):
        return f"nvmlDeviceGetFieldValues(0,{call.replace('__', ',')})"
    name, *arguments = call.split("__")
    return f"{name}({','.join(('0', *arguments))})"


class Code:
    """An answer that is a code alone."""

    def __init__(self, number: int) -> None:
        self.number = number


def health_with(*lost: str, **answers: Any) -> Health:
    return driver_with(*lost, **answers).health(GPU)


RULES: list[tuple[str, dict[str, Any], object]] = [
    ("ecc_is_on", {"nvmlDeviceGetEccMode": [1, 0]}, True),
    ("uncorrected", {"nvmlDeviceGetTotalEccErrors__NVML_MEMORY_ERROR_TYPE_UNCORRECTED__NVML_VOLATILE_ECC": 3}, 3),
    (
        "sram",
        {"nvmlDeviceGetSramEccErrorStatus": {"volatileUncParity": 1, "volatileUncSecDed": 2, "bThresholdExceeded": 1}},
        Sram(3, exceeded=True),
    ),
    ("remap", {"nvmlDeviceGetRemappedRows": [5, 1, 1, 0]}, Remap(5, 1, pending=True, failed=False)),
    ("banks_without_spares", {"nvmlDeviceGetRowRemapperHistogram": {"max": 1, "none": 2}}, 2),
    ("retirement_is_pending", {"nvmlDeviceGetRetiredPagesPendingStatus": 1}, True),
    ("is_of_a_machine", {"nvmlDeviceGetVirtualizationMode": 0}, True),
    ("is_of_a_machine", {"nvmlDeviceGetVirtualizationMode": 1}, False),
    ("is_vgpu", {"nvmlDeviceGetVirtualizationMode": 2}, True),
    ("has_c2c", {"NVML_FI_DEV_C2C_LINK_COUNT": 5}, True),
    (
        "pcie",
        {
            "nvmlDeviceGetCurrPcieLinkGeneration": 4,
            "nvmlDeviceGetCurrPcieLinkWidth": 8,
            "nvmlDeviceGetMaxPcieLinkGeneration": 5,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
        },
        PcieLink(4, 8, 5, 16),
    ),
    ("nvlinks", {f"nvmlDeviceGetNvLinkState__{link}": int(link != 2) for link in range(4)}, (True, True, False, True)),
    ("link_errors", {"NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": 7}, None),
    (
        "slow_downs",
        {"nvmlDeviceGetCurrentClocksEventReasons": 0x1 | 0x8 | 0x40},
        SlowDown.HW_SLOWDOWN | SlowDown.HW_THERMAL,
    ),
    ("slow_downs", {"nvmlDeviceGetCurrentClocksEventReasons": 0x4}, SlowDown(0)),
    ("persistence_is_on", {"nvmlDeviceGetPersistenceMode": 0}, False),
    ("compute_mode", {"nvmlDeviceGetComputeMode": 3}, ComputeMode.EXCLUSIVE_PROCESS),
    ("mps_clients", {"nvmlDeviceGetMPSComputeRunningProcesses": [{}, {}]}, 2),
    ("recovery", {"NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": 4}, Recovery.DRAIN_AND_RESET),
    ("product", {"nvmlDeviceGetName": "NVIDIA H200"}, "NVIDIA H200"),
]


@pytest.mark.parametrize(("reading", "answers", "value"), RULES)
def test_an_answer_is_decoded(reading: str, answers: dict[str, Any], value: object) -> None:
    found = getattr(health_with(**answers), reading)
    if value is not None:
        assert found == Seen(value)


OPTIONAL = [rule for rule in RULES if rule[0] not in {"is_of_a_machine", "has_c2c", "link_errors"}]


@pytest.mark.parametrize("code", [3, 13, 25, 26])
@pytest.mark.parametrize(("reading", "answers", "value"), OPTIONAL)
def test_what_gpu_or_driver_do_not_offer_is_none(
    reading: str, answers: dict[str, Any], value: object, code: int
) -> None:
    assert getattr(health_with(**dict.fromkeys(answers, Code(code))), reading) == Seen(None)


@pytest.mark.parametrize(("reading", "answers", "value"), RULES)
def test_what_was_asked_and_did_not_come_is_missing(reading: str, answers: dict[str, Any], value: object) -> None:
    found = getattr(health_with(*answers), reading)
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.TIMEOUT


@pytest.mark.parametrize(("reading", "answers", "value"), [rule for rule in RULES if rule[0] != "link_errors"])
def test_a_value_of_another_form_is_unparsable(reading: str, answers: dict[str, Any], value: object) -> None:
    found = getattr(health_with(**dict.fromkeys(answers, {"odd": "\x1b[31m"} if reading != "sram" else 5)), reading)
    if reading in {"nvlinks", "banks_without_spares"}:
        return  # any number of links; an object without the wanted member has none
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.UNPARSABLE


def test_a_query_that_is_refused_for_want_of_rights_is_forbidden() -> None:
    found = health_with(nvmlDeviceGetComputeMode=Code(4)).compute_mode
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.FORBIDDEN


def test_a_field_that_the_library_does_not_know_is_not_offered_and_another_call_s_argument_is_an_error() -> None:
    assert health_with(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION=Code(2)).recovery == Seen(None)
    assert isinstance(health_with(nvmlDeviceGetComputeMode=Code(2)).compute_mode, Missing)


def test_a_field_that_nvml_left_as_it_was_is_not_told() -> None:
    """A success with the type of a double, 0.0: recorded/host-healthy has five of them."""
    health = health_with(NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT=0.0, NVML_FI_DEV_GET_GPU_RECOVERY_ACTION=0)

    assert health.links_to_switches == Seen(None)
    assert health.recovery == Seen(Recovery.NONE)


def test_a_mode_that_nvml_does_not_have_is_unparsable() -> None:
    found = health_with(nvmlDeviceGetComputeMode=9).compute_mode
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.UNPARSABLE


def test_errors_of_links_are_told_by_kind_without_those_that_are_not_kept() -> None:
    fields = {f"NVML_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL": Code(3) for kind in ("REPLAY", "CRC_FLIT", "CRC_DATA")}
    assert health_with(NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL=2, **fields).link_errors == Seen({"RECOVERY": 2})


def test_links_that_failed_to_come_back_are_told_by_number() -> None:
    name = "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS"
    assert health_with(**{f"{name}__0": 0, f"{name}__5": 1}).links_declared_down == Seen((5,))
    assert health_with().links_declared_down == Seen(())


@pytest.mark.parametrize(
    ("value", "fabric"),
    [
        ({"state": 3, "status": 0, "healthMask": 0b10_0001_10_10_10_10}, Fabric(FabricState.COMPLETED, 0, ())),
        ({"state": 0, "status": 0}, Fabric(FabricState.NOT_SUPPORTED, 0, ())),
        ({"state": 2, "status": 0}, Fabric(FabricState.IN_PROGRESS, 0, ())),
        (
            {"state": 3, "status": 0, "healthMask": 0b0101_10_10_10_01},
            Fabric(FabricState.COMPLETED, 0, ("bandwidth is degraded", "the configuration is wrong: too few NVLinks")),
        ),
        (
            {"state": 3, "status": 999, "healthMask": 0, "healthSummary": 2},
            Fabric(FabricState.COMPLETED, 999, ("its health is summed up as unhealthy",)),
        ),
    ],
)
def test_the_fabric_s_health_mask_is_put_into_words(value: dict[str, int], fabric: Fabric) -> None:
    assert health_with(nvmlDeviceGetGpuFabricInfoV=value).fabric == Seen(fabric)


def test_a_fabric_in_a_state_that_nvml_does_not_have_is_unparsable() -> None:
    found = health_with(nvmlDeviceGetGpuFabricInfoV={"state": 9}).fabric
    assert isinstance(found, Missing)


TEMPERATURE = "nvmlDeviceGetTemperature__NVML_TEMPERATURE_GPU"
SLOWDOWN = "nvmlDeviceGetTemperatureThreshold__NVML_TEMPERATURE_THRESHOLD_SLOWDOWN"
MEMORY_MOST = "nvmlDeviceGetTemperatureThreshold__NVML_TEMPERATURE_THRESHOLD_MEM_MAX"


def test_temperatures_stand_beside_the_card_s_own_limits() -> None:
    hot = health_with(**{TEMPERATURE: 90, SLOWDOWN: 89, "NVML_FI_DEV_MEMORY_TEMP": 94, MEMORY_MOST: 95}).heats
    assert hot == Seen((Heat("GPU", 90, 89), Heat("memory", 94, 95)))
    assert [one.too_hot for one in hot.value] == [True, False]


def test_where_there_is_no_threshold_the_margin_to_it_counts() -> None:
    told = {"nvmlDeviceGetMarginTemperature": -3, "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT": -2}
    hot = health_with(**{TEMPERATURE: 90, SLOWDOWN: Code(3), "NVML_FI_DEV_MEMORY_TEMP": Code(3)}, **told).heats
    assert hot == Seen((Heat("GPU", -3, -2, relative=True),))
    assert hot.value[0].too_hot


def test_power_stands_beside_the_limit_that_holds_it() -> None:
    health = health_with(nvmlDeviceGetPowerUsage=412_900, nvmlDeviceGetEnforcedPowerLimit=700_000)

    assert health.draw == Seen(Draw(412, 700))
    assert health_with(nvmlDeviceGetPowerUsage=Code(3)).draw == Seen(None)


def test_settings_stand_beside_their_defaults() -> None:
    clock = "nvmlDeviceGetApplicationsClock__NVML_CLOCK_SM"
    told = {
        "nvmlDeviceGetPowerManagementLimit": 500_000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
        clock: Code(26),
    }
    assert health_with(**told).settings == Seen((Setting("power limit", 500, 700, "W"),))


def test_licences_are_told_of_a_guest_alone() -> None:
    feature = {"productName": "NVIDIA Virtual Compute Server", "featureEnabled": 1, "featureState": 0}
    call = "nvmlDeviceGetGridLicensableFeatures"
    guest = {"isGridLicenseSupported": 1, "gridLicensableFeatures": [feature]}
    assert health_with(**{call: guest}).licences == Seen(
        (Licence("NVIDIA Virtual Compute Server", enabled=True, licensed=False),)
    )
    assert health_with(**{call: {"isGridLicenseSupported": 0}}).licences == Seen(None)
    assert isinstance(health_with(**{call: {"isGridLicenseSupported": 1}}).licences, Missing)


# --- MIG -------------------------------------------------------------------------------------------


def test_mig_devices_are_counted_by_gpu() -> None:
    text = (
        "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb     Device  0: (UUID: MIG-1)\n"
        "  MIG 3g.20gb    Device  1: (UUID: MIG-2)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"
    )
    assert parse_mig(text) == {0: ("1g.5gb", "3g.20gb")}
    assert parse_mig("No devices found.\n") == {}


def partitions(*names: str | None) -> dict[str, Any]:
    return {
        f"nvmlDeviceGetMigDeviceHandleByIndex__{place}": Code(6) if name is None else {"uuid": "MIG-1", "name": name}
        for place, name in enumerate(names)
    }


def test_mig_devices_are_named_by_their_profile() -> None:
    there = partitions("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, "NVIDIA A100-SXM4-40GB MIG 1g.10gb+me")
    assert driver_with(nvmlDeviceGetMigMode=[1, 1], **there).mig_profiles(GPU) == Seen(("1g.5gb", "1g.10gb+me"))
    assert driver_with(nvmlDeviceGetMigMode=[1, 1], **partitions(None)).mig_profiles(GPU) == Seen(())
    assert driver_with(nvmlDeviceGetMigMode=[0, 0]).mig_profiles(GPU) == Seen(())


def test_a_mig_device_without_a_profile_in_its_name_is_unparsable() -> None:
    found = driver_with(nvmlDeviceGetMigMode=[1, 1], **partitions("NVIDIA A100")).mig_profiles(GPU)
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.UNPARSABLE


def test_where_nvml_was_not_asked_for_mig_devices_nvidia_smi_tells_them() -> None:
    reads = nvml("0000:01:00.0") | {"nvml:nvmlDeviceGetMigMode(0)": {"code": 0, "value": [1, 1]}}
    listed = "GPU 0: NVIDIA A100 (UUID: GPU-00)\n  MIG 1g.5gb     Device  0: (UUID: MIG-1)\n"
    assert driver_of({**reads, "exec:nvidia-smi -L": listed}).mig_profiles(GPU) == Seen(("1g.5gb",))
    assert isinstance(driver_of(reads).mig_profiles(GPU), Missing)


# --- CUDA, services, branches ----------------------------------------------------------------------


def test_cuda_s_code_is_told_and_a_libcuda_that_is_not_there() -> None:
    driver = driver_of({"cuda:cuInit": {"code": 802, "ms": 9}, "cuda:cuDeviceGetCount": {"code": 3}})
    assert driver.cuda_init_code == Seen(802)
    assert driver.cuda_devices == Seen(None)
    assert driver_of({"cuda:cuDeviceGetCount": {"code": 0, "value": 8}}).cuda_devices == Seen(8)
    assert driver_of({"cuda:cuInit": {"absent": True}}).cuda_init_code == Seen(None)
    assert isinstance(driver_of({"cuda:cuInit": {"error": "SIGSEGV"}}).cuda_init_code, Missing)
    assert isinstance(driver_of({"cuda:cuInit": {"value": 0}}).cuda_init_code, Missing)


def unit(state: str, load: str = "loaded") -> dict[str, Any]:
    return {"text": f"Id=x.service\nLoadState={load}\nActiveState={state}\n", "code": 0}


PS = "exec:ps -e -o pid=,comm="


def test_a_service_runs_as_a_unit_or_as_a_process_in_a_container() -> None:
    def runs(name: str, **reads: Any) -> Reading[bool]:
        shown = {"exec:systemctl show " + name: reads["unit"]} if "unit" in reads else {}
        return driver_of({**shown, **({PS: reads["ps"]} if "ps" in reads else {})}).services.is_running(name)

    assert runs(FABRIC_MANAGER, unit=unit("active")) == Seen(value=True)
    assert runs(FABRIC_MANAGER, unit=unit("inactive"), ps=" 812 nv-fabricmanage\n") == Seen(value=True)
    assert runs(FABRIC_MANAGER, unit=unit("failed"), ps="812 nvidia-persiste\n") == Seen(value=False)
    assert runs(PERSISTENCED, ps="812 nvidia-persiste\n") == Seen(value=True)
    assert runs(IMEX, unit={"absent": True}, ps="812 nvidia-imex\n") == Seen(value=True)
    assert isinstance(runs(IMEX, unit=unit("inactive")), Missing)
    assert isinstance(runs(IMEX, unit={"error": "ETIMEDOUT"}, ps=""), Missing)


def test_what_systemd_says_of_a_service_is_read_where_systemd_answers() -> None:
    def told(read: dict[str, Any]) -> Reading[Unit | None]:
        return driver_of({f"exec:systemctl show {IMEX}": read}).services.unit(IMEX)

    assert told(unit("failed")) == Seen(Unit(installed=True, state="failed"))
    assert told(unit("inactive", "not-found")) == Seen(Unit(installed=False, state="inactive"))
    assert told({"text": "System has not been booted with systemd", "code": 1}) == Seen(None)
    assert isinstance(told({"text": "Id=x\n", "code": 0}), Missing)


def test_the_fabric_manager_s_version_is_read_from_its_own_words() -> None:
    key = "exec:nv-fabricmanager --version"
    said = driver_of({key: "\n\tFabric Manager version is : 535.161.08\n\n"}).services
    assert said.fabric_manager_version == Seen("535.161.08")
    assert driver_of({key: {"absent": True}}).services.fabric_manager_version == Seen(None)
    assert isinstance(driver_of({key: "what?"}).services.fabric_manager_version, Missing)


def test_a_branch_s_end_and_the_bulletin_that_a_version_does_not_meet_are_found_by_date() -> None:
    table = branches()
    day = datetime.date(2025, 11, 1)
    ends = table.of(525)
    assert ends is not None
    assert ends.ends == datetime.date(2023, 12, 1)
    assert table.of(999) is None
    affecting = table.holes("535.261.03", day)
    assert affecting is not None
    assert affecting.id == 5703
    assert table.holes("535.274.02", day) is None
    assert table.holes("535.54.03", datetime.date(2023, 7, 1)) is None
    assert table.holes("9.1", day) is None


def test_a_code_of_cuda_s_that_the_table_lacks_is_said_to_be_unknown() -> None:
    assert cuda_code(802).name == "SYSTEM_NOT_READY"
    assert cuda_code(12345).name == "?"

# ruff: noqa: SLF001 -- ctypes' own names
import ctypes
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pynvml
import pytest

from fake_driver import compiled, needs_compiler
from kube_gpucheck.collect import deadlines, hostnvml, hostnvmlcalls, hostnvmlfull
from kube_gpucheck.collect.host import read_host
from kube_gpucheck.evidence import nvml
from kube_gpucheck.evidence.host import Host
from test_collect_host import bundle_of, reads_of

LIBRARY: Final = "usr/lib64/libnvidia-ml.so.1"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("nvml.c", tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1")


@pytest.fixture
def report_of(library: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that reads a host whose library behaves as the rules say."""

    def read(*rules: str, full: bool = False) -> Any:
        target = tmp_path / LIBRARY
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
        (tmp_path / "etc/containerd").mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/containerd/config.toml").touch()
        target.with_name(f"{target.name}.behaviour").write_text("\n".join(rules) + "\n")
        return read_host(str(tmp_path), full=full)

    return read


def of_gpu(report: Any, index: int) -> dict[str, Any]:
    return {key: read for key, read in reads_of(report).items() if key.startswith("nvml:") and f"({index}" in key}


def how(read: dict[str, Any]) -> object:
    return read.get("error", read.get("code"))


# --- through a library -----------------------------------------------------------------------------


@needs_compiler
def test_each_gpu_that_the_library_lists_is_asked(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 2")

    gpus = nvml.gpus(Host(bundle_of(report), "here"))
    assert [(one.address, one.index) for one in gpus] == [("0000:01:00.0", 0), ("0000:02:00.0", 1)]
    assert reads_of(report)["nvml:nvmlDeviceGetUUID(1)"]["value"].endswith("-000000000001")
    assert reads_of(report)["nvml:nvmlDeviceGetNvLinkState(1,3)"] == {"code": 0, "value": 1}
    assert "nvml:nvmlDeviceGetNvLinkState(1,4)" not in reads_of(report)


@needs_compiler
@pytest.mark.parametrize("code", [1, 3, 4, 15, 16, 18, 999])
def test_the_code_of_any_call_is_kept(report_of: Callable[..., Any], code: int) -> None:
    report = report_of(f"nvmlDeviceGetMigMode code {code}", "nvmlSystemGetDriverVersion code 4", "gpus 1")

    assert reads_of(report)["nvml:nvmlDeviceGetMigMode(0)"]["code"] == code
    assert reads_of(report)["nvml:nvmlSystemGetDriverVersion"]["code"] == 4
    assert reads_of(report)["nvml:nvmlDeviceGetName(0)"]["value"] == "NVIDIA Fake"
    assert reads_of(report)["nvml:nvmlSystemGetConfComputeState"]["value"] == {
        "environment": 0,
        "ccFeature": 0,
        "devToolsMode": 0,
    }


@needs_compiler
@pytest.mark.parametrize("code", [9, 18, 999])
def test_where_nvml_does_not_start_its_code_says_why_and_no_gpu_is_asked(
    report_of: Callable[..., Any], code: int
) -> None:
    report = report_of(f"nvmlInit_v2 code {code}", f"nvmlDeviceGetCount_v2 code {code}")

    assert nvml.init_code(Host(bundle_of(report), "here")) == code
    assert of_gpu(report, 0) == {}


@needs_compiler
def test_a_gpu_that_nvml_does_not_give_answers_every_query_so(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 2", "nvmlDeviceGetHandleByIndex_v2@0 code 15")

    assert {how(read) for read in of_gpu(report, 0).values()} == {15}
    assert how(of_gpu(report, 1)["nvml:nvmlDeviceGetUUID(1)"]) == 0


@needs_compiler
def test_gpus_lost_in_the_middle_leave_what_was_read_before(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 2", "lost 20")

    assert how(of_gpu(report, 0)["nvml:nvmlDeviceGetUUID(0)"]) == 0
    assert how(of_gpu(report, 1)["nvml:nvmlDeviceGetUUID(1)"]) == 15


@needs_compiler
def test_a_crash_costs_the_rest_of_one_gpu_alone(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 3", "nvmlDeviceGetComputeMode@1 crash")

    broken = of_gpu(report, 1)
    assert how(broken["nvml:nvmlDeviceGetUUID(1)"]) == 0
    assert broken["nvml:nvmlDeviceGetComputeMode(1)"] == {"error": "SIGSEGV"}
    assert broken["nvml:nvmlDeviceGetPowerUsage(1)"] == {"error": "ECANCELED"}
    for whole in (0, 2):
        assert "ECANCELED" not in {how(read) for read in of_gpu(report, whole).values()}
        assert how(of_gpu(report, whole)[f"nvml:nvmlDeviceGetPowerUsage({whole})"]) == 0
    assert set(reads_of(report)) <= set(report["asked"])


@needs_compiler
def test_a_hang_is_given_up_and_costs_the_rest_of_one_gpu_alone(
    report_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "NVML_CALL_S", 0.5)

    report = report_of("gpus 2", "nvmlDeviceGetPersistenceMode@0 hang")

    assert of_gpu(report, 0)["nvml:nvmlDeviceGetPersistenceMode(0)"] == {"error": "ETIMEDOUT"}
    assert of_gpu(report, 0)["nvml:nvmlDeviceGetPowerUsage(0)"] == {"error": "ECANCELED"}
    assert how(of_gpu(report, 1)["nvml:nvmlDeviceGetPowerUsage(1)"]) == 0
    assert reads_of(report)["list:/etc/cdi"] == {"absent": True}


@needs_compiler
@pytest.mark.parametrize(("rule", "error"), [("nvmlInit_v2 crash", "SIGSEGV"), ("nvmlInit_v2 hang", "ETIMEDOUT")])
def test_a_library_that_dies_when_it_starts_leaves_the_rest_of_the_host_whole(
    report_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, rule: str, error: str
) -> None:
    monkeypatch.setattr(deadlines, "NVML_START_S", 1.0)

    report = report_of(rule)

    reads = reads_of(report)
    assert reads["nvml:nvmlInit_v2"] == {"error": error}
    assert reads["nvml:nvmlDeviceGetCount_v2"] == {"error": "ECANCELED"}
    assert reads["list:/etc/cdi"] == {"absent": True}


@needs_compiler
def test_a_hang_between_start_and_the_first_gpu_costs_no_gpu(
    report_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "NVML_CALL_S", 0.5)

    report = report_of("nvmlSystemGetNVMLVersion hang")

    assert reads_of(report)["nvml:nvmlSystemGetNVMLVersion"] == {"error": "ETIMEDOUT"}
    assert how(of_gpu(report, 0)["nvml:nvmlDeviceGetUUID(0)"]) == 0


@needs_compiler
def test_what_is_slow_is_asked_only_where_all_is_asked_for(report_of: Callable[..., Any]) -> None:
    default, full = reads_of(report_of("gpus 1")), reads_of(report_of("gpus 1", full=True))
    more = {key for key in full if key.startswith("nvml:")} - set(default)

    assert {"nvml:nvmlDeviceValidateInforom(0)", "nvml:nvmlDeviceGetBrand(0)"} <= more
    assert how(full["nvml:nvmlDeviceValidateInforom(0)"]) == 0
    assert full["nvml:nvmlDeviceGetBrand(0)"]["value"] == 14
    assert full["nvml:nvmlDeviceGetBoardId(0)"]["code"] == hostnvmlcalls.FUNCTION_NOT_FOUND


@needs_compiler
def test_a_gpu_takes_at_most_eight_kilobytes(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 8", "name " + "N" * 60)

    for index in range(8):
        assert len(json.dumps(of_gpu(report, index), separators=(",", ":"))) <= 8 * 1024


@needs_compiler
def test_text_that_is_no_utf_8_is_told_as_far_as_it_is(report_of: Callable[..., Any], tmp_path: Path) -> None:
    report_of("gpus 1")
    (tmp_path / f"{LIBRARY}.behaviour").write_bytes(b"name \xff\xfe\n")

    reads = reads_of(read_host(str(tmp_path)))

    assert reads["nvml:nvmlDeviceGetName(0)"] == {"code": 0, "value": "\ufffd\ufffd"}
    assert how(reads["nvml:nvmlDeviceGetUUID(0)"]) == 0


def test_without_a_library_the_code_says_so_in_the_loader_s_words(tmp_path: Path) -> None:
    assert reads_of(read_host(str(tmp_path)))["nvml:nvmlInit_v2"] == {
        "code": hostnvmlcalls.LIBRARY_NOT_FOUND,
        "value": "no libnvidia-ml.so.1 where drivers put it",
    }


def test_a_file_that_is_no_library_is_as_none_with_the_loader_s_words(tmp_path: Path) -> None:
    target = tmp_path / LIBRARY
    target.parent.mkdir(parents=True)
    target.write_text("not an ELF file")

    read = reads_of(read_host(str(tmp_path)))["nvml:nvmlInit_v2"]

    assert read["code"] == hostnvmlcalls.LIBRARY_NOT_FOUND
    assert "libnvidia-ml.so.1" in read["value"]


@needs_compiler
def test_links_are_told_as_many_as_there_are_and_each_by_itself(report_of: Callable[..., Any]) -> None:
    reads = reads_of(report_of("gpus 2", "nvlinks 18", "down@1 5"))
    states = [reads[f"nvml:nvmlDeviceGetNvLinkState(1,{link})"]["value"] for link in range(18)]

    assert states == [0 if link == 5 else 1 for link in range(18)]
    assert "nvml:nvmlDeviceGetNvLinkState(1,18)" not in reads


@needs_compiler
def test_where_there_is_no_nvlink_one_answer_says_so(report_of: Callable[..., Any]) -> None:
    links = {key: read for key, read in of_gpu(report_of("nvlinks 0"), 0).items() if "NvLinkState" in key}

    assert links == {"nvml:nvmlDeviceGetNvLinkState(0,0)": {"code": 3}}


@needs_compiler
def test_links_are_asked_whether_they_came_back_where_no_total_is_kept(report_of: Callable[..., Any]) -> None:
    reads = reads_of(report_of("field 59 code 3", "field 214 value 2"))

    assert reads["nvml:nvmlDeviceGetFieldValues(0,NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,3)"] == {
        "code": 0,
        "value": 2,
    }


@needs_compiler
def test_mig_devices_are_told_of_with_their_places(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 2", "parts@1 2")
    parts = {key: read for key, read in of_gpu(report, 1).items() if "MigDeviceHandle" in key}

    assert len(parts) == 7
    assert parts["nvml:nvmlDeviceGetMigDeviceHandleByIndex(1,1)"]["value"]["uuid"] == (
        "MIG-00000000-0000-0000-0002-000000000001"
    )
    assert parts["nvml:nvmlDeviceGetMigDeviceHandleByIndex(1,0)"]["value"]["attributes"]["multiprocessorCount"] == 16
    assert parts["nvml:nvmlDeviceGetMigDeviceHandleByIndex(1,2)"] == {"code": 6}
    assert reads_of(report)["nvml:nvmlDeviceGetComputeMode(1)"]["value"] == 0
    assert [key for key in of_gpu(report, 0) if "MigDevice" in key] == []


@needs_compiler
@pytest.mark.parametrize("rule", ["field 147 untold", "field@0 147 untold"])
def test_a_field_that_was_left_untold_among_others_is_asked_for_alone(report_of: Callable[..., Any], rule: str) -> None:
    key = "nvml:nvmlDeviceGetFieldValues(0,NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT)"

    assert reads_of(report_of(rule, "field 147 value 18"))[key] == {"code": 0, "value": 18}


@needs_compiler
def test_a_gpu_without_a_threshold_is_asked_for_its_margin(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 2", "nvmlDeviceGetTemperatureThreshold@1 code 3", "field 194 value 4294967294")

    assert reads_of(report)["nvml:nvmlDeviceGetMarginTemperature(1)"] == {"code": 0, "value": 47}
    assert "nvml:nvmlDeviceGetFieldValues(1,NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT)" in reads_of(report)
    assert "nvml:nvmlDeviceGetMarginTemperature(0)" not in reads_of(report)


@needs_compiler
def test_a_function_that_the_library_does_not_have_is_not_found(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))

    assert hostnvmlcalls.handle(loaded, "nvmlDeviceGetHandleByIndex_v9", 0)[0] == hostnvmlcalls.FUNCTION_NOT_FOUND
    assert hostnvmlcalls.values(ctypes.CDLL(None), None, [])[0] == hostnvmlcalls.FUNCTION_NOT_FOUND
    assert hostnvmlcalls.ask(ctypes.CDLL(None), "nvmlDeviceGetName")[0] == hostnvmlcalls.FUNCTION_NOT_FOUND


# --- in this process -------------------------------------------------------------------------------


STRUCTURES: Final = {
    hostnvmlcalls.PciInfo: pynvml.nvmlPciInfo_t,
    hostnvmlcalls.Memory: pynvml.c_nvmlMemory_t,
    hostnvmlcalls.ConfidentialState: pynvml.c_nvmlConfComputeSystemState_t,
    hostnvmlcalls.RemapperHistogram: pynvml.c_nvmlRowRemapperHistogramValues,
    hostnvmlcalls.SramErrors: pynvml.c_nvmlEccSramErrorStatus_v1_t,
    hostnvmlcalls.FabricInfo2: pynvml.c_nvmlGpuFabricInfo_v2_t,
    hostnvmlcalls.FabricInfo3: pynvml.c_nvmlGpuFabricInfo_v3_t,
    hostnvmlcalls.MarginTemperature: pynvml.c_nvmlMarginTemperature_v1_t,
    hostnvmlcalls.ProcessInfo: pynvml.c_nvmlProcessInfo_v3_t,
    hostnvmlcalls.LicensableFeatures: pynvml.c_nvmlGridLicensableFeatures_v4_t,
    hostnvmlcalls.LicensableFeature: pynvml.c_nvmlGridLicensableFeature_v4_t,
    hostnvmlcalls.PartAttributes: pynvml.c_nvmlDeviceAttributes,
    hostnvmlcalls.FieldValue: pynvml.c_nvmlFieldValue_t,
}


@pytest.mark.parametrize("mine", STRUCTURES, ids=lambda one: str(one.__name__))
def test_structures_are_laid_out_as_nvidia_s_own_package_has_them(mine: type[ctypes.Structure]) -> None:
    theirs = STRUCTURES[mine]
    names = [str(one[0]) for one in mine._fields_]

    assert names == [str(one[0]) for one in theirs._fields_]
    assert [getattr(mine, name).offset for name in names] == [getattr(theirs, name).offset for name in names]
    assert ctypes.sizeof(mine) == ctypes.sizeof(theirs)


def test_constants_and_versions_are_those_of_nvidia_s_own_package() -> None:
    named = {**hostnvmlcalls.CONSTANTS, **hostnvmlcalls.FIELDS}

    assert named == {name: getattr(pynvml, name) for name in named}
    assert {ctypes.sizeof(kind) | number << 24 for kind, number in hostnvmlcalls.VERSIONS.items()} == {
        pynvml.nvmlEccSramErrorStatus_v1,
        pynvml.nvmlGpuFabricInfo_v2,
        pynvml.nvmlGpuFabricInfo_v3,
        pynvml.nvmlMarginTemperature_v1,
    }


def test_every_query_of_the_sweep_has_a_form() -> None:
    made = {call.partition("(")[0] for call in (*hostnvml.SYSTEM, *hostnvml.DEVICE, hostnvml.MARGIN)}

    assert made | {"nvmlDeviceGetNvLinkState", *hostnvml.PARTITION.values(), "nvmlDeviceGetMaxMigDeviceCount"} == set(
        hostnvmlcalls.QUERIES
    )


def test_a_structure_is_asked_for_in_an_older_version_where_the_newer_is_not_known() -> None:
    versions = []

    def fill(out: Any) -> int:
        versions.append(out._obj.version >> 24)
        out._obj.clusterUuid[15] = 0xAB
        return 0 if len(versions) > 1 else hostnvmlcalls.OTHER_VERSION

    code, told = hostnvmlcalls.structure(hostnvmlcalls.FabricInfo3, hostnvmlcalls.FabricInfo2)(fill)

    assert (code, versions) == (0, [3, 2])
    assert isinstance(told, dict)
    assert told["clusterUuid"] == "0" * 30 + "ab"


def test_processes_are_listed_with_what_is_known_of_them() -> None:
    def fill(count: Any, found: Any) -> int:
        count._obj.value = 1
        if found is None:
            return hostnvmlcalls.INSUFFICIENT_SIZE
        found[0].pid, found[0].usedGpuMemory = 4242, (1 << 64) - 1
        return 0

    assert hostnvmlcalls.processes(fill) == (
        0,
        [{"pid": 4242, "usedGpuMemory": None, "gpuInstanceId": 0, "computeInstanceId": 0}],
    )


def test_licensable_features_are_told_without_the_empty_places() -> None:
    def fill(out: Any) -> int:
        out._obj.licensableFeaturesCount = 1
        out._obj.gridLicensableFeatures[0].productName = b"NVIDIA RTX Virtual Workstation"
        return 0

    _, told = hostnvmlcalls.features(fill)

    assert isinstance(told, dict)
    assert [one["productName"] for one in told["gridLicensableFeatures"]] == ["NVIDIA RTX Virtual Workstation"]


def test_without_pynvml_no_more_than_the_default_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert list(hostnvmlfull.answers(ctypes.CDLL(None), 0, without=())) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"\xff" * 9999, "\ufffd" * 512),
        ("\ud800", "?"),
        ([1] * 9999, [1] * 256),
        ([[[[[1]]]]], [[[[None]]]]),
        (object(), None),
        ((1, None, True, 0.5), [1, None, True, 0.5]),
    ],
)
def test_whatever_pynvml_gives_becomes_bounded_json(value: object, told: object) -> None:
    assert hostnvmlfull.plain(value) == told
    json.dumps(hostnvmlfull.plain(value))


def test_the_calls_that_are_made_have_the_names_that_reads_have() -> None:
    names = hostnvml.calls(3)

    assert len(names) == len(set(names))
    assert "nvmlDeviceGetTemperature(3,NVML_TEMPERATURE_GPU)" in names
    assert "nvmlDeviceGetFieldValues(3,NVML_FI_DEV_MEMORY_TEMP)" in names

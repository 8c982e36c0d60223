# ruff: noqa: N802, N815, SLF001 -- pynvml's and ctypes' own names
import ctypes
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from fake_driver import compiled, needs_compiler
from kube_gpucheck.collect import deadlines, hostnvml
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


@needs_compiler
@pytest.mark.parametrize("code", [9, 18, 999])
def test_where_nvml_does_not_start_its_code_says_why_and_no_gpu_is_asked(
    report_of: Callable[..., Any], code: int
) -> None:
    report = report_of(f"nvmlInitWithFlags code {code}", f"nvmlDeviceGetCount_v2 code {code}")

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
@pytest.mark.parametrize(
    ("rule", "error"), [("nvmlInitWithFlags crash", "SIGSEGV"), ("nvmlInitWithFlags hang", "ETIMEDOUT")]
)
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
def test_the_slow_queries_are_made_only_when_all_is_asked_for(report_of: Callable[..., Any]) -> None:
    key = "nvml:nvmlDeviceValidateInforom(0)"

    assert key not in reads_of(report_of("gpus 1"))
    assert how(reads_of(report_of("gpus 1", full=True))[key]) == 0


@needs_compiler
def test_a_gpu_takes_at_most_eight_kilobytes(report_of: Callable[..., Any]) -> None:
    report = report_of("gpus 8", "name " + "N" * 60)

    for index in range(8):
        assert len(json.dumps(of_gpu(report, index), separators=(",", ":"))) <= 8 * 1024


@needs_compiler
def test_text_that_is_no_utf_8_costs_one_answer(report_of: Callable[..., Any], tmp_path: Path) -> None:
    report_of("gpus 1")
    (tmp_path / f"{LIBRARY}.behaviour").write_bytes(b"name \xff\xfe\n")

    reads = reads_of(read_host(str(tmp_path)))

    assert reads["nvml:nvmlDeviceGetName(0)"] == {"error": "EPROTO"}
    assert how(reads["nvml:nvmlDeviceGetUUID(0)"]) == 0


def test_without_a_library_the_code_says_so_in_the_loader_s_words(tmp_path: Path) -> None:
    assert reads_of(read_host(str(tmp_path)))["nvml:nvmlInit_v2"] == {
        "code": hostnvml.LIBRARY_NOT_FOUND,
        "value": "no libnvidia-ml.so.1 where drivers put it",
    }


def test_a_file_that_is_no_library_is_as_none_with_the_loader_s_words(tmp_path: Path) -> None:
    target = tmp_path / LIBRARY
    target.parent.mkdir(parents=True)
    target.write_text("not an ELF file")

    read = reads_of(read_host(str(tmp_path)))["nvml:nvmlInit_v2"]

    assert read["code"] == hostnvml.LIBRARY_NOT_FOUND
    assert "libnvidia-ml.so.1" in read["value"]


# --- in this process -------------------------------------------------------------------------------


def test_without_pynvml_nothing_is_known_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    told = list(hostnvml.answers(["start", [], False, hostnvml.SYSTEM]))

    assert told[0] == {"key": "nvmlInit_v2", "read": {"error": "ENOPKG"}}
    assert told[-1] == {"done": True}


class FakeError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class FakeMismatchError(Exception):
    pass


class FakeFabric(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint), ("clusterUuid", ctypes.c_uint8 * 2), ("state", ctypes.c_uint8))


class FakeField:
    """One value of a field, as pynvml gives it."""

    def __init__(self, code: int, kind: int) -> None:
        self.nvmlReturn = code
        self.valueType = kind
        self.value = self
        self.uiVal = 7
        self.sllVal = -7


class FakePynvml:
    """As much of pynvml as these tests ask: a GPU in MIG mode, and a library that is older than the package."""

    NVMLError = FakeError
    NVMLLibraryMismatchError = FakeMismatchError
    NVML_FI_DEV_MEMORY_TEMP = 1
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 2
    NVML_FI_DEV_NVLINK_LINK_COUNT = 3
    c_nvmlGpuFabricInfo_v3_t = FakeFabric
    c_nvmlGpuFabricInfo_v2_t = FakeFabric

    def __init__(self) -> None:
        self.fabric_calls = 0

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"gpu {index}"

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"name of " + handle.encode()

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return f"uuid of {handle}"

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:
        return 1, 1

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, place: int) -> str:
        if place == 1:
            raise FakeError(6)
        return f"{handle} part {place}"

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> None:
        raise FakeMismatchError

    def nvmlDeviceGetSerial(self, handle: str) -> str:
        raise TypeError(handle)

    def nvmlDeviceGetGpuFabricInfoV(self, handle: str, filled: Any) -> None:
        self.fabric_calls += 1
        if self.fabric_calls == 1:
            raise FakeError(hostnvml.OTHER_VERSION)
        filled._obj.clusterUuid[1] = 0xAB
        filled._obj.state = 3

    def nvmlDeviceGetFieldValues(self, handle: str, numbers: list[int]) -> Iterator[FakeField]:
        return iter([FakeField(3, 1), FakeField(0, 1), FakeField(0, 4)])


@pytest.fixture
def fake() -> hostnvml.Library:
    found = hostnvml.Library(FakePynvml())
    found.open(0)
    return found


def answer(read: dict[str, object] | None) -> dict[str, object] | None:
    return None if read is None else {name: value for name, value in read.items() if name != "ms"}


def test_mig_devices_are_told_of_with_their_places(fake: hostnvml.Library) -> None:
    parts = {place: answer(read) for place, read in fake.partitions()}

    assert parts == {
        0: {"code": 0, "value": {"uuid": "uuid of gpu 0 part 0", "name": "name of gpu 0 part 0", "attributes": None}},
        1: {"code": 6},
        2: {"code": 0, "value": {"uuid": "uuid of gpu 0 part 2", "name": "name of gpu 0 part 2", "attributes": None}},
    }
    assert answer(fake.device("nvmlDeviceGetUUID")) == {"code": 0, "value": "uuid of gpu 0"}


def test_a_query_that_the_library_has_in_another_version_is_not_found(fake: hostnvml.Library) -> None:
    assert answer(fake.device("nvmlDeviceGetGraphicsRunningProcesses")) == {"code": hostnvml.FUNCTION_NOT_FOUND}


def test_a_query_that_this_pynvml_does_not_know_is_not_asked(fake: hostnvml.Library) -> None:
    assert fake.device("nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)") is None
    assert fake.device("nvmlDeviceGetSramEccErrorStatus") is None


def test_an_answer_that_pynvml_cannot_take_in_is_an_error(fake: hostnvml.Library) -> None:
    assert answer(fake.device("nvmlDeviceGetSerial")) == {"error": "EPROTO"}


def test_a_structure_is_asked_for_in_an_older_version_where_the_newer_is_not_known(fake: hostnvml.Library) -> None:
    assert answer(fake.device("nvmlDeviceGetGpuFabricInfoV")) == {
        "code": 0,
        "value": {"clusterUuid": "00ab", "state": 3},
    }


def test_each_field_has_its_own_code_and_the_value_of_its_type(fake: hostnvml.Library) -> None:
    assert {name: answer(read) for name, read in fake.fields().items()} == {
        "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": {"code": 3},
        "NVML_FI_DEV_MEMORY_TEMP": {"code": 0, "value": 7},
        "NVML_FI_DEV_NVLINK_LINK_COUNT": {"code": 0, "value": -7},
    }


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
    assert hostnvml.plain(value) == told
    json.dumps(hostnvml.plain(value))


def test_the_calls_that_are_made_have_the_names_that_reads_have() -> None:
    names = hostnvml.calls(3, full=True)

    assert len(names) == len(set(names))
    assert "nvmlDeviceGetTemperature(3,NVML_TEMPERATURE_GPU)" in names
    assert "nvmlDeviceGetFieldValues(3,NVML_FI_DEV_MEMORY_TEMP)" in names
    assert set(hostnvml.calls(3, full=False)) < set(names)

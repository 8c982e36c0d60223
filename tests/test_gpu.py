"""What the collector reads of a real GPU, against what nvidia-smi says of it: `pytest -m gpu tests/test_gpu.py`."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pynvml
import pytest

from kube_gpucheck.cli import main
from kube_gpucheck.collect import hostnvmlfull
from kube_gpucheck.collect.host import read_host
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import Seen
from test_collect_host import bundle_of, reads_of

pytestmark = pytest.mark.gpu

NOT_OFFERED = {3, 13, 25, 26}
"""NVML's codes for what this GPU or this driver does not have: NOT_SUPPORTED, FUNCTION_NOT_FOUND, …"""
ASKED = {
    "index": "index",
    "uuid": "uuid",
    "name": "name",
    "vbios": "vbios_version",
    "memory": "memory.total",
    "mig": "mig.mode.current",
}


def is_unknown_field(key: str, read: Mapping[str, Any]) -> bool:
    """Tell whether a field value is one that this driver does not know: INVALID_ARGUMENT."""
    return "GetFieldValues" in key and read.get("code") == 2


@pytest.fixture(scope="module")
def report() -> Any:
    return read_host()


@pytest.fixture(scope="module")
def told() -> list[dict[str, str]]:
    """Return what nvidia-smi says, a dictionary a GPU."""
    program = shutil.which("nvidia-smi")
    assert program is not None
    command = [program, f"--query-gpu={','.join(ASKED.values())}", "--format=csv,noheader,nounits"]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [dict(zip(ASKED, (field.strip() for field in row.split(",")), strict=True)) for row in rows]


def test_identity_and_memory_are_those_that_nvidia_smi_tells(report: Any, told: list[dict[str, str]]) -> None:
    reads = reads_of(report)

    assert reads["nvml:nvmlDeviceGetCount_v2"]["value"] == len(told)
    for gpu in told:
        index = gpu["index"]
        calls = ("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetVbiosVersion")
        assert [reads[f"nvml:{call}({index})"]["value"] for call in calls] == [gpu["uuid"], gpu["name"], gpu["vbios"]]
        assert reads[f"nvml:nvmlDeviceGetMemoryInfo({index})"]["value"]["total"] // 2**20 == int(gpu["memory"])


def test_every_query_is_answered_or_not_offered(report: Any) -> None:
    reads = {key: read for key, read in reads_of(report).items() if key.startswith("nvml:")}
    offered = {key: read for key, read in reads.items() if read.get("code") not in NOT_OFFERED}

    assert {
        key: read for key, read in offered.items() if read.get("code") != 0 and not is_unknown_field(key, read)
    } == {}
    assert len(offered) > len(reads) / 2


STABLE = (
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetPciInfo",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetInforomImageVersion",
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetGspFirmwareVersion",
    "nvmlDeviceGetVirtualizationMode",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRowRemapperHistogram",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetComputeRunningProcesses",
)
"""Queries whose answers do not change from one moment to the next."""


def test_what_is_read_is_what_nvidia_s_own_package_reads(report: Any) -> None:
    reads = reads_of(report)
    pynvml.nvmlInit()
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        for name in STABLE:
            read = reads[f"nvml:{name}({index})"]
            told = {"code": read["code"], **({"value": read["value"]} if "value" in read else {})}
            try:
                expected = {"code": 0, "value": hostnvmlfull.plain(getattr(pynvml, name)(device))}
            except pynvml.NVMLError as error:
                expected = {"code": error.value}
            assert (name, told) == (name, expected)


def test_each_field_is_told_as_it_is_when_it_is_asked_alone(report: Any) -> None:
    """Asked together, NVML leaves some as they were and calls it success (driver 580 on an H200)."""
    reads = reads_of(report)
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    for name in ("NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", "NVML_FI_DEV_C2C_LINK_COUNT", "NVML_FI_DEV_NVLINK_LINK_COUNT"):
        (alone,) = pynvml.nvmlDeviceGetFieldValues(device, [getattr(pynvml, name)])
        read = reads[f"nvml:nvmlDeviceGetFieldValues(0,{name})"]

        assert (name, read["code"]) == (name, alone.nvmlReturn)
        if alone.nvmlReturn == 0 and alone.valueType != 0:
            assert (name, read["value"]) == (name, alone.value.uiVal)


def test_cuda_starts_and_counts_the_gpus(report: Any, told: list[dict[str, str]]) -> None:
    reads = reads_of(report)

    assert reads["cuda:cuInit"]["code"] == 0
    if all(gpu["mig"] != "Enabled" for gpu in told):
        assert reads["cuda:cuDeviceGetCount"]["value"] == len(told)


def test_nothing_that_was_asked_of_nvml_or_cuda_is_missing(report: Any) -> None:
    assert [one for one in report["missing"] if one["evidence"].startswith(("host/nvml:", "host/cuda:"))] == []


def test_the_evidence_joins_bus_and_nvml(report: Any, told: list[dict[str, str]]) -> None:
    nodes = Cluster(bundle_of(report)).nodes
    assert isinstance(nodes, Seen)
    gpus = nodes.value[0].driver.gpus

    assert isinstance(gpus, Seen)
    assert {gpu.uuid for gpu in gpus.value} == {gpu["uuid"] for gpu in told}
    assert all(gpu.address is not None and gpu.index is not None for gpu in gpus.value)


def test_the_bundle_is_judged_as_the_host_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "bundle"
    live = main(["run", "--host", "--json", "-", "--bundle", str(recording), "-q"])
    seen = json.loads(capfd.readouterr().out)
    again = main(["run", "--from", str(recording), "--json", "-", "-q"])
    recorded = json.loads(capfd.readouterr().out)

    assert (again, recorded["checks"]) == (live, seen["checks"])

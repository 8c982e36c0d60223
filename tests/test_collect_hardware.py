"""Hosts with several GPUs, whose NVML is a library that lies: read by the collector, and judged. No GPU is needed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import suite
from expectations import diagnosis_of
from fake_driver import compiled, needs_compiler
from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.host import read_host
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import CheckResult, Outcome
from test_collect_host import bundle_of

LIBRARY: Final = "usr/lib64/libnvidia-ml.so.1"
VERSION: Final = "580.00.01"
ABOUT_GPUS: Final = frozenset(
    f"DRV-{number:03}" for number in (1, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 25, 27)
)
"""The checks that judge GPUs by what bus, NVML and the kernel's log say."""
H200: Final = ("0x2335", "NVIDIA H200")
L40S: Final = ("0x26b9", "NVIDIA L40S")

Read = Callable[..., Cluster]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("nvml.c", tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1")


@pytest.fixture
def read(library: Path, tmp_path: Path) -> Read:
    """Return a function that reads a host with these GPUs on its bus, whose library behaves as the rules say."""

    def make(*rules: str, gpus: int = 1, product: tuple[str, str] = H200, switches: int = 0, log: str = "") -> Cluster:
        for place in range(gpus):
            function(tmp_path, address(place), product[0], "0x030200", "nvidia")
        for place in range(switches):
            function(tmp_path, f"0000:{0xC0 + place:02x}:00.0", "0x22a3", "0x068000", "nvidia-nvswitch")
        banner = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build\n"
        write(tmp_path / "proc/driver/nvidia/version", banner)
        write(tmp_path / "proc/modules", "".join(f"{one} 1 0 - Live 0x0\n" for one in ("nvidia_uvm", "nvidia")))
        write(tmp_path / "proc/uptime", "7200.00 1.00\n")
        write(tmp_path / "var/log/kern.log", f"gpu-0 kernel: [    0.0] Linux version 6.8.0\n{log}")
        target = tmp_path / LIBRARY
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
        # the rule that comes last holds: those of the test come after what it is about
        told = (f"gpus {gpus}", f"name {product[1]}", *rules)
        target.with_name(f"{target.name}.behaviour").write_text("\n".join(told) + "\n")
        return Cluster(bundle_of(read_host(str(tmp_path))))

    return make


def address(place: int) -> str:
    """Return where the library says that a GPU stands."""
    return f"0000:{place + 1:02x}:00.0"


def function(root: Path, where: str, device: str, kind: str, driver: str) -> None:
    """Make a function of the PCI bus, bound to a driver."""
    folder = root / "sys/bus/pci/devices" / where
    for name, text in (("vendor", "0x10de"), ("device", device), ("class", kind)):
        write(folder / name, f"{text}\n")
    (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def judged(cluster: Cluster) -> tuple[CheckResult, ...]:
    """Return what the checks about GPUs say."""
    return tuple(result for result in suite.judge_all(cluster) if result.info.id in ABOUT_GPUS)


def findings(cluster: Cluster) -> dict[str, list[str]]:
    """Return the faults and unknowns of the checks about GPUs: the names of their subjects, by check."""
    found: dict[str, list[str]] = {}
    for result in judged(cluster):
        for one in result.others:
            if one.outcome in {Outcome.FAULT, Outcome.UNKNOWN}:
                found.setdefault(result.info.id, []).append(one.subject.name)
    return found


def cause(cluster: Cluster) -> str | None:
    """Return the first cause that the diagnosis names of what the checks about GPUs say."""
    causes = diagnosis_of(judged(cluster), cluster).causes
    return next((one.id for one in causes), None)


@needs_compiler
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_healthy_gpus_with_nvlinks_have_no_finding(read: Read, gpus: int) -> None:
    assert findings(read("nvlinks 18", gpus=gpus)) == {}


@needs_compiler
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_healthy_gpus_on_pcie_alone_have_no_finding(read: Read, gpus: int) -> None:
    assert findings(read("nvlinks 0", gpus=gpus, product=L40S)) == {}


@needs_compiler
def test_one_link_that_is_down_is_its_gpu_s_fault(read: Read) -> None:
    cluster = read("nvlinks 18", "down@5 11", gpus=8)

    assert findings(cluster) == {"DRV-013": [address(5)]}
    assert cause(cluster) == "nvlink-fabric-error"


@needs_compiler
def test_a_gpu_that_the_bus_has_and_nvml_has_not_is_named(read: Read) -> None:
    cluster = read("nvlinks 0", "gpus 7", gpus=8)

    assert findings(cluster)["DRV-006"] == ["here"]
    assert cause(cluster) == "gpu-fell-off-bus"


@needs_compiler
def test_a_gpu_of_another_product_is_told(read: Read) -> None:
    assert findings(read("nvlinks 0", "name@3 NVIDIA H100 80GB HBM3", gpus=4)) == {"DRV-020": ["here"]}


@needs_compiler
def test_a_gpu_that_is_lost_while_it_is_read_costs_the_others_nothing(read: Read) -> None:
    cluster = read("nvlinks 0", "lost@1 90", gpus=4)
    found = findings(cluster)

    assert found["DRV-023"] == [address(1)]
    assert {name for names in found.values() for name in names} <= {address(1), "here"}
    assert cause(cluster) == "gpu-fell-off-bus"


@needs_compiler
def test_a_gpu_that_hangs_costs_the_others_nothing(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "NVML_CALL_S", 0.3)
    found = findings(read("nvlinks 0", "nvmlDeviceGetRemappedRows@2 hang", gpus=4))

    assert found["DRV-010"] == [address(2)]
    assert {name for names in found.values() for name in names} <= {address(2), "here"}


@needs_compiler
def test_a_fabric_that_is_not_set_up_is_told_of_every_gpu(read: Read) -> None:
    cluster = read("nvlinks 18", "nvmlDeviceGetGpuFabricInfoV value 1", "field 147 value 18", gpus=8, switches=4)

    assert findings(cluster)["DRV-014"] == [address(place) for place in range(8)]
    assert cause(cluster) == "fabric-manager-not-running"


@needs_compiler
def test_an_xid_is_the_fault_of_the_gpu_at_its_address(read: Read) -> None:
    log = "gpu-0 kernel: [ 412.5] NVRM: Xid (PCI:0000:03:00): 48, pid=4711, name=python3, An uncorrectable\n"
    cluster = read("nvlinks 0", "nvmlDeviceGetTotalEccErrors@2 value 2", gpus=4, log=log)

    assert findings(cluster) == {"DRV-009": [address(2)], "DRV-011": [address(2)]}
    assert cause(cluster) == "uncorrectable-ecc-error"

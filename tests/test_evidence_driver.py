"""The driver layer's evidence: what is read from a host, by which source, and what its absence means."""

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import Asked, Manifest, RunRecord, encode_manifest, memory_bundle
from kube_gpucheck.evidence.driver import Driver, Hindrance, Obstacle
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.libraries import Library
from kube_gpucheck.evidence.modules import DkmsBuild, Flavour, ModuleFile
from kube_gpucheck.evidence.nvml import kernel_address
from kube_gpucheck.evidence.tables import generation_of_device, generation_of_nvml, nvml_code, xids
from kube_gpucheck.model import Missing, MissingEvidence, MissingKind, Reading, Seen

BUS = "/sys/bus/pci/devices"
WHEN = datetime.datetime(2026, 11, 24, tzinfo=datetime.timezone.utc)
MODULES = "nvidia_uvm 1830912 0 - Live 0x0\nnvidia 14299136 99 nvidia_uvm, Live 0x0 (O)\n"
BANNER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.78.01  Mon Dec 26 05:58:42 UTC 2022\n"
OPEN_BANNER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (root@b)\n"


def driver_of(reads: Mapping[str, Any], *lost: str) -> Driver:
    """Return the driver section of a host with these reads; those in `lost` were asked for and are gone."""
    asked = {key: {"text": value} if isinstance(value, str) else value for key, value in reads.items()}
    files = {"nodes/h/host.json": msgspec.json.encode({"format": 1, "reads": asked})}
    manifest = Manifest(
        format=1,
        tool="test",
        run=RunRecord(id="r", started=WHEN, gathered_at=WHEN),
        provenance="hand-made",
        asked=Asked(host={"h": (*asked, *lost)}),
        missing=tuple(MissingEvidence(f"host/{key}", MissingKind.TIMEOUT, "too late", node="h") for key in lost),
    )
    nodes = Cluster(memory_bundle("b", {**files, "bundle.json": encode_manifest(manifest, files)})).nodes
    assert isinstance(nodes, Seen)
    return nodes.value[0].driver


def functions(*given: tuple[str, str, str, str | None]) -> dict[str, Any]:
    """Return the reads of PCI functions: (address, class, device id, bound driver or None)."""
    reads: dict[str, Any] = {f"list:{BUS}": {"entries": [{"name": one[0]} for one in given]}}
    for address, kind, device, driver in given:
        reads |= {f"file:{BUS}/{address}/vendor": "0x10de\n", f"file:{BUS}/{address}/class": f"{kind}\n"}
        reads[f"file:{BUS}/{address}/device"] = f"{device}\n"
        reads[f"link:{BUS}/{address}/driver"] = (
            {"absent": True} if driver is None else f"../../bus/pci/drivers/{driver}"
        )
    return reads


def nvml(*addresses: str | None) -> dict[str, Any]:
    """Return the reads of an NVML that lists these addresses; None is a GPU that is lost."""
    reads: dict[str, Any] = {"nvml:nvmlInit_v2": {"code": 0}}
    reads["nvml:nvmlDeviceGetCount_v2"] = {"code": 0, "value": len(addresses)}
    for index, address in enumerate(addresses):
        lost = {"code": 15}
        info = {"code": 0, "value": {"busId": f"0000{address}".upper()}} if address else lost
        reads[f"nvml:nvmlDeviceGetPciInfo_v3({index})"] = info
        reads[f"nvml:nvmlDeviceGetUUID({index})"] = {"code": 0, "value": f"GPU-0000000{index}"} if address else lost
    return reads


def kind(reading: Reading[Any]) -> MissingKind | None:
    return reading.kind if isinstance(reading, Missing) else None


ONE = functions(("0000:02:00.0", "0x030200", "0x2335", "nvidia"))
TWO = functions(("0000:02:00.0", "0x030200", "0x2335", "nvidia"), ("0000:3b:00.0", "0x030000", "0x2335", "nvidia"))


def test_gpus_are_joined_by_pci_address_whatever_its_spelling() -> None:
    driver = driver_of({**TWO, **nvml("0000:3b:00.0", "0000:02:00.0")})

    assert driver.gpus == Seen(
        (GpuIdentity("0000:02:00.0", 1, "GPU-00000001"), GpuIdentity("0000:3b:00.0", 0, "GPU-00000000"))
    )


def test_a_gpu_that_nvml_does_not_list_stays_a_gpu_and_has_its_uuid_from_proc() -> None:
    driver = driver_of(
        {
            **TWO,
            **nvml("0000:02:00.0"),
            "file:/proc/driver/nvidia/gpus/0000:3b:00.0/information": "Model: \t\t H200\nGPU UUID: \t GPU-abc\n",
        }
    )

    assert driver.gpus == Seen(
        (GpuIdentity("0000:02:00.0", 0, "GPU-00000000"), GpuIdentity("0000:3b:00.0", None, "GPU-abc"))
    )


def test_a_lost_gpu_is_one_gpu_and_not_two() -> None:
    driver = driver_of({**TWO, **nvml("0000:02:00.0", None)})

    assert driver.gpus == Seen((GpuIdentity("0000:02:00.0", 0, "GPU-00000000"), GpuIdentity("0000:3b:00.0", 1, None)))


def test_audio_functions_switches_and_other_vendors_are_no_gpus() -> None:
    reads = functions(("0000:02:00.1", "0x040300", "0x10f7", None), ("0000:03:00.0", "0x068000", "0x22a3", None))
    reads[f"list:{BUS}"]["entries"].append({"name": "0000:00:02.0"})
    reads[f"file:{BUS}/0000:00:02.0/vendor"] = "0x8086\n"

    assert driver_of(reads).gpus == Seen(())


def test_a_source_that_was_not_asked_is_passed_over() -> None:
    assert driver_of(ONE).gpus == Seen((GpuIdentity("0000:02:00.0"),))
    assert driver_of(nvml("0000:02:00.0")).gpus == Seen((GpuIdentity("0000:02:00.0", 0, "GPU-00000000"),))


def test_nvidia_smi_is_asked_where_nothing_else_was() -> None:
    text = "GPU 0: NVIDIA GeForce MX150 (UUID: GPU-79f86b06-6094-d569-a6a8-f86582989599)\n"

    assert driver_of({"exec:nvidia-smi -L": text}).gpus == Seen(
        (GpuIdentity(None, 0, "GPU-79f86b06-6094-d569-a6a8-f86582989599"),)
    )


@pytest.mark.parametrize("lost", [f"list:{BUS}", "nvml:nvmlDeviceGetCount_v2", "nvml:nvmlInit_v2"])
def test_a_source_that_was_asked_and_is_gone_is_never_passed_over(lost: str) -> None:
    reads = {key: value for key, value in {**ONE, **nvml("0000:02:00.0")}.items() if key != lost}

    assert kind(driver_of(reads, lost).gpus) is MissingKind.TIMEOUT


def test_gpus_of_a_host_where_nothing_was_asked_are_not_asked() -> None:
    assert kind(driver_of({"file:/etc/os-release": "ID=ubuntu\n"}).gpus) is MissingKind.NOT_ASKED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"file:{BUS}/0000:02:00.0/vendor", "rubbish"),
        (f"file:{BUS}/0000:02:00.0/class", ""),
        ("nvml:nvmlDeviceGetCount_v2", {"code": 0, "value": "many"}),
        ("nvml:nvmlDeviceGetCount_v2", {"code": 0, "value": 10**9}),
        ("nvml:nvmlDeviceGetPciInfo_v3(0)", {"code": 0, "value": {"busId": "?"}}),
        ("nvml:nvmlDeviceGetPciInfo_v3(0)", {"code": 0, "value": [1]}),
        ("nvml:nvmlDeviceGetUUID(0)", {"code": 0, "value": 7}),
    ],
)
def test_an_answer_that_cannot_be_read_is_unparsable(key: str, value: Any) -> None:
    assert kind(driver_of({**ONE, **nvml("0000:02:00.0"), key: value}).gpus) is MissingKind.UNPARSABLE


def test_an_nvml_that_does_not_start_lists_no_gpu() -> None:
    driver = driver_of({**ONE, "nvml:nvmlInit_v2": {"code": 18}, "nvml:nvmlDeviceGetCount_v2": {"code": 1}})

    assert driver.nvml_gpus == Seen(())
    assert driver.gpus == Seen((GpuIdentity("0000:02:00.0"),))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.159\n", 18),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n", 12),
        ("Failed to initialize NVML: Unknown Error\n", 999),
        ("No devices found.\n", 0),
    ],
)
def test_nvidia_smi_tells_how_nvml_started(text: str, code: int) -> None:
    assert driver_of({"exec:nvidia-smi -L": text}).nvml_init_code == Seen(code)


@pytest.mark.parametrize("text", ["", "\x00\x01", "Segmentation fault"])
def test_what_nvidia_smi_says_otherwise_tells_nothing(text: str) -> None:
    assert kind(driver_of({"exec:nvidia-smi -L": text}).nvml_init_code) is MissingKind.UNPARSABLE


def test_a_query_is_found_by_whichever_version_was_asked() -> None:
    driver = driver_of({**nvml("0000:02:00.0"), "nvml:nvmlDeviceGetMigMode(0)": {"code": 0, "value": [1, 0]}})

    assert driver.mig_mode(GpuIdentity("0000:02:00.0", 0)) == Seen((True, False))


def test_a_query_that_the_gpu_does_not_support_is_an_answer() -> None:
    driver = driver_of({**nvml("0000:02:00.0"), "nvml:nvmlDeviceGetMigMode(0)": {"code": 3}})

    assert driver.mig_mode(GpuIdentity("0000:02:00.0", 0)) == Seen(None)


def test_a_gpu_cannot_be_asked_where_nvml_does_not_start_or_does_not_list_it() -> None:
    stopped = driver_of({**ONE, "nvml:nvmlInit_v2": {"code": 9}})
    unlisted = driver_of({**TWO, **nvml("0000:02:00.0")})

    assert kind(stopped.mig_mode(GpuIdentity("0000:02:00.0"))) is MissingKind.ERROR
    assert kind(unlisted.mig_mode(GpuIdentity("0000:3b:00.0"))) is MissingKind.ERROR


@pytest.mark.parametrize("value", [None, [], [1], ["a", "b"], "off"])
def test_a_malformed_mig_mode_is_no_mode(value: Any) -> None:
    driver = driver_of({**nvml("0000:02:00.0"), "nvml:nvmlDeviceGetMigMode(0)": {"code": 0, "value": value}})

    assert driver.mig_mode(GpuIdentity("0000:02:00.0", 0)) != Seen((False, False))


def test_processes_are_counted_where_their_ids_are_not_told() -> None:
    value = [{"pid": 4242, "usedGpuMemory": 1}, "<pynvml.nvmlFriendlyObject object at 0x7fa2>"]
    driver = driver_of(
        {**nvml("0000:02:00.0"), "nvml:nvmlDeviceGetComputeRunningProcesses_v3(0)": {"code": 0, "value": value}}
    )

    assert driver.processes(GpuIdentity("0000:02:00.0", 0)) == Seen((4242, None))


def test_a_complete_list_of_modules_proves_that_nouveau_is_absent() -> None:
    assert driver_of({"file:/proc/modules": MODULES}).nouveau_loaded == Seen(value=False)
    assert driver_of({"file:/proc/modules": "nouveau 1 1 - Live 0x0\n"}).nouveau_loaded == Seen(value=True)


def test_a_filtered_list_of_modules_proves_nothing_about_what_it_hides() -> None:
    driver = driver_of({"file:/proc/modules": {"text": MODULES, "filtered": "nvidia"}})

    assert driver.nvidia_loaded == Seen(value=True)
    assert kind(driver.nouveau_loaded) is MissingKind.ERROR


def test_a_filtered_list_with_its_total_is_whole() -> None:
    whole = {"text": f"{MODULES}2 /proc/modules\n", "filtered": "nvidia"}
    part = {"text": f"{MODULES}81 /proc/modules\n", "filtered": "nvidia"}

    assert driver_of({"file:/proc/modules": whole}).nouveau_loaded == Seen(value=False)
    assert kind(driver_of({"file:/proc/modules": part}).nouveau_loaded) is MissingKind.ERROR


def test_a_text_that_is_no_list_of_modules_is_unparsable() -> None:
    assert kind(driver_of({"file:/proc/modules": "<html>404</html>\n"}).nvidia_loaded) is MissingKind.UNPARSABLE


def test_version_and_flavour_stand_in_the_modules_banner() -> None:
    closed, opened = (driver_of({"file:/proc/driver/nvidia/version": one}) for one in (BANNER, OPEN_BANNER))

    assert (closed.module_version, closed.module_flavour) == (Seen("525.78.01"), Seen(Flavour.PROPRIETARY))
    assert (opened.module_version, opened.module_flavour) == (Seen("580.159.04"), Seen(Flavour.OPEN))


def test_no_banner_is_no_module_and_a_strange_one_is_unparsable() -> None:
    assert driver_of({"file:/proc/driver/nvidia/version": {"absent": True}}).module_version == Seen(None)
    assert kind(driver_of({"file:/proc/driver/nvidia/version": "?"}).module_version) is MissingKind.UNPARSABLE


def test_modinfo_tells_the_module_on_disk_and_its_flavour() -> None:
    text = "filename:       /lib/modules/5.15.0-46-generic/updates/dkms/nvidia.ko\nversion:        525.78.01\n"
    driver = driver_of({"exec:modinfo nvidia": f"{text}license:        NVIDIA\n"})

    path = "/lib/modules/5.15.0-46-generic/updates/dkms/nvidia.ko"
    assert driver.installed_module == Seen(ModuleFile(path, "525.78.01", Flavour.PROPRIETARY))


@pytest.mark.parametrize(("modified", "later"), [("2026-11-23T23:30:00Z", True), ("2026-11-20T10:00:00Z", False)])
def test_a_module_is_newer_than_the_boot_or_older(modified: str, *, later: bool) -> None:
    folder = "/lib/modules/5.15.0-46-generic/updates/dkms"
    driver = driver_of(
        {
            "exec:uname -a": "Linux h 5.15.0-46-generic #49 SMP x86_64 GNU/Linux\n",
            "file:/proc/uptime": "86400.00 1.00\n",
            f"list:{folder}": {"entries": [{"name": "nvidia.ko", "modified": modified}]},
        }
    )

    assert driver.module_on_disk_for_running_kernel == Seen(value=True)
    assert driver.module_installed_after_boot == Seen(later)


def test_a_time_without_a_year_dates_nothing() -> None:
    folder = "/lib/modules/5.15.0-46-generic/updates/dkms"
    driver = driver_of(
        {
            "exec:uname -a": "Linux h 5.15.0-46-generic\n",
            "file:/proc/uptime": "86400.00\n",
            f"list:{folder}": {"entries": [{"name": "nvidia.ko.zst", "modified": "Nov 24 00:32"}]},
        }
    )

    assert kind(driver.module_installed_after_boot) is MissingKind.UNPARSABLE


def test_a_folder_that_never_holds_dkms_modules_does_not_prove_that_there_is_none() -> None:
    reads = {
        "exec:uname -a": "Linux h 5.15.0-46-generic\n",
        "list:/lib/modules/5.15.0-46-generic/kernel/drivers/video": {"entries": []},
    }

    assert kind(driver_of(reads).installed_module) is MissingKind.NOT_ASKED


@pytest.mark.parametrize(
    "text",
    [
        "nvidia/525.78.01, 5.15.0-46-generic, x86_64: installed\nnvidia/525.78.01: added\nzfs/2.1: added\n",
        "nvidia, 525.78.01, 5.15.0-46-generic, x86_64: installed\nnvidia, 525.78.01: added\n",
    ],
)
def test_dkms_status_is_read_in_both_spellings(text: str) -> None:
    assert driver_of({"exec:dkms status": text}).dkms_builds == Seen(
        (DkmsBuild("525.78.01", "5.15.0-46-generic", "installed"), DkmsBuild("525.78.01", None, "added"))
    )


NOT_LOADED = {"file:/proc/modules": "ext4 1 1 - Live 0x0\n", "exec:uname -a": "Linux h 6.8.0-40-generic\n"}
ON_DISK = {"exec:modinfo nvidia": "filename:       /lib/modules/6.8.0-40-generic/nvidia.ko\n"}
NOT_ON_DISK = {"exec:modinfo nvidia": {"text": "modinfo: ERROR: Module nvidia not found.\n", "code": 1}}


@pytest.mark.parametrize(
    ("reads", "obstacle"),
    [
        (ON_DISK, Obstacle.NOT_LOADED),
        ({}, Obstacle.UNTOLD),
        ({**NOT_ON_DISK, "exec:ldconfig -p": "\tlibc.so.6 (libc6,x86-64) => /lib/libc.so.6\n"}, Obstacle.NOT_INSTALLED),
        ({**NOT_ON_DISK, "exec:dkms status": "nvidia/550.54.15, 6.5.0-1, x86_64: installed\n"}, Obstacle.NOT_BUILT),
        ({**ON_DISK, "file:/proc/modules": "nouveau 1 1 - Live 0x0\n"}, Obstacle.NOUVEAU),
        ({**ON_DISK, "file:/proc/cmdline": "quiet module_blacklist=nvidia\n"}, Obstacle.BLACKLISTED),
        (
            {**ON_DISK, "exec:dmesg": "[0.0] Linux version 6.8\n[9.5] Loading of unsigned module is rejected\n"},
            Obstacle.SECURE_BOOT,
        ),
        (
            {**ON_DISK, "exec:dmesg": 'audit: avc:  denied  { module_load } for pid=9 comm="modprobe"\n'},
            Obstacle.SELINUX,
        ),
    ],
)
def test_why_the_module_is_not_loaded_is_told_apart(reads: dict[str, Any], obstacle: Obstacle) -> None:
    assert driver_of({**NOT_LOADED, **reads}).hindrance.obstacle is obstacle


def test_an_obstacle_comes_with_the_facts_that_show_it() -> None:
    assert driver_of({**NOT_LOADED, **ON_DISK}).hindrance == Hindrance(
        Obstacle.NOT_LOADED, ("/lib/modules/6.8.0-40-generic/nvidia.ko is on disk",)
    )


CACHE = (
    "\tlibnvidia-ml.so.1 (libc6) => /usr/lib/i386-linux-gnu/libnvidia-ml.so.1\n"
    "\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1\n"
    "\tlibcuda.so.1 (libc6,x86-64, OS ABI: Linux 2.3.99) => /lib/x86_64-linux-gnu/libcuda.so.1\n"
)


def test_versions_of_libraries_stand_in_the_names_that_their_links_end_at() -> None:
    driver = driver_of(
        {
            "exec:ldconfig -p": CACHE,
            "link:/lib/x86_64-linux-gnu/libnvidia-ml.so.1": "libnvidia-ml.so.525.78.01",
            "list:/usr/lib/x86_64-linux-gnu": {"entries": [{"name": "libcuda.so.1", "target": "libcuda.so.525.85.12"}]},
        }
    )

    assert driver.libraries_present == Seen(value=True)
    assert driver.library_versions == Seen({"libnvidia-ml.so.1": "525.78.01", "libcuda.so.1": "525.85.12"})


def test_what_the_loader_s_cache_names_and_is_gone_is_not_installed() -> None:
    folder = {"entries": [{"name": "libcuda.so.1", "target": "libcuda.so.525.85.12"}, {"name": "libcuda.so.525.85.12"}]}
    elsewhere = {"link:/usr/lib64/libnvidia-ml.so.1": "/opt/own/libnvidia-ml.so.1", "list:/opt/own": {"entries": []}}
    cache = "".join(f"{name} (libc6,x86-64) => /usr/lib64/{name}\n" for name in ("libnvidia-ml.so.1", "libcuda.so.1"))
    reads = {"exec:ldconfig -p": cache, "list:/usr/lib64": folder, **elsewhere}

    assert driver_of(reads).libraries == Seen((Library("libcuda.so.1", "/usr/lib64/libcuda.so.1", "525.85.12"),))
    assert kind(driver_of(reads, "list:/opt/own").libraries) is MissingKind.TIMEOUT


def test_a_link_in_a_folder_that_leads_nowhere_is_no_library() -> None:
    folder = {"entries": [{"name": "libnvidia-ml.so.1", "target": "/opt/driver/libnvidia-ml.so.1"}]}

    assert driver_of({"list:/usr/lib64": folder, "list:/opt/driver": {"absent": True}}).libraries == Seen(())


def test_libraries_whose_links_were_not_read_have_no_version() -> None:
    assert kind(driver_of({"exec:ldconfig -p": CACHE}).library_versions) is MissingKind.NOT_ASKED


def test_a_loop_of_links_ends_without_a_version() -> None:
    folder = {"entries": [{"name": "libnvidia-ml.so.1", "target": "libnvidia-ml.so.1"}]}

    assert kind(driver_of({"list:/usr/lib64": folder}).library_versions) is MissingKind.NOT_ASKED
    assert driver_of({"list:/usr/lib64": folder}).libraries_present == Seen(value=True)


def test_a_filter_that_hides_a_library_proves_nothing() -> None:
    driver = driver_of({"exec:ldconfig -p": {"text": "", "filtered": "cuda"}})

    assert kind(driver.libraries_present) is MissingKind.ERROR


def test_xids_go_to_the_gpu_of_their_address_and_those_of_no_gpu_to_the_first() -> None:
    log = (
        "[    0.0] Linux version 6.8\n"
        "[   10.5] NVRM: Xid (PCI:0000:3b:00): 48, x\n"
        "[   11.5] NVRM: Xid (PCI:0000:af:00): 79, y\n"
        "[   12.5] NVRM: Xid (PCI:0000:02:00): 13, z\n"
    )
    driver = driver_of({**TWO, "exec:dmesg": log})

    def codes(address: str) -> list[int]:
        found = driver.xids(GpuIdentity(address))
        assert isinstance(found, Seen)
        return [xid.code for xid in found.value]

    assert codes("0000:02:00.0") == [79, 13]
    assert codes("0000:3b:00.0") == [48]


def test_a_gpu_that_fell_off_the_bus_without_an_xid_has_xid_79() -> None:
    log = "[    0.0] Linux version 6.8\n[   10.5] NVRM: GPU at PCI:0000:02:00 has fallen off the bus.\n"
    found = driver_of({**ONE, "exec:dmesg": log}).xids(GpuIdentity("0000:02:00.0"))

    assert isinstance(found, Seen)
    assert [xid.code for xid in found.value] == [79]


@pytest.mark.parametrize(("gpus", "codes"), [("ONE", [119]), ("TWO", [])])
def test_a_gsp_that_stopped_answering_has_xid_119_where_there_is_no_doubt_which(gpus: str, codes: list[int]) -> None:
    said = "NVRM: GPU0 sanity check failed 0x62 waiting for RPC response from GSP."
    log = f"[    0.0] Linux version 6.8\n[   10.5] {said}\n"
    found = driver_of({**{"ONE": ONE, "TWO": TWO}[gpus], "exec:dmesg": log}).xids(GpuIdentity("0000:02:00.0"))

    assert isinstance(found, Seen)
    assert [xid.code for xid in found.value] == codes


def test_what_an_nvswitch_calls_fatal_is_told_apart() -> None:
    lines = ("24007, Non-fatal, Link 30 x", "20034, Fatal, Link 30 LTSSM Fault Up")
    log = "".join(f"[ 9.5] nvidia-nvswitch0: SXid (PCI:0000:85:00.0): {line}\n" for line in lines)
    errors = driver_of({**ONE, "exec:dmesg": log}).switch_errors

    assert isinstance(errors, Seen)
    assert [one.code for one in errors.value] == [20034]


def test_a_log_that_dmesg_may_not_read_is_forbidden() -> None:
    text = "dmesg: read kernel buffer failed: Operation not permitted\n"

    assert kind(driver_of({"exec:dmesg": {"text": text, "code": 1}}).kernel_log) is MissingKind.FORBIDDEN


def test_the_frontends_major_stands_for_nvidias_in_older_drivers() -> None:
    text = "Character devices:\n  1 mem\n195 nvidia-frontend\n508 nvidia-uvm\n\nBlock devices:\n  8 sd\n"

    assert driver_of({"file:/proc/devices": text}).majors == Seen(
        {"mem": 1, "nvidia-frontend": 195, "nvidia-uvm": 508, "nvidia": 195}
    )


def test_a_list_of_devices_that_is_empty_is_unparsable_but_one_that_was_filtered_is_not() -> None:
    assert kind(driver_of({"file:/proc/devices": ""}).majors) is MissingKind.UNPARSABLE
    assert driver_of({"file:/proc/devices": {"text": "", "filtered": "nvidia"}}).majors == Seen({})


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x1D10, "Pascal"),
        (0x1DB6, "Volta"),
        (0x1EB8, "Turing"),
        (0x20B0, "Ampere"),
        (0x2684, "Ada"),
        (0x2335, "Hopper"),
        (0x2342, "GH200"),
        (0x2901, "Blackwell"),
        (0x17FD, "Maxwell"),
        (0x0FC6, "Kepler"),
    ],
)
def test_a_generation_is_told_from_the_pci_device(device: int, name: str) -> None:
    found = generation_of_device(device)

    assert found is not None
    assert found.name == name


def test_a_generation_is_told_from_nvml_where_the_bus_was_not_read() -> None:
    assert [generation_of_nvml(9, name) for name in ("NVIDIA GH200 480GB", "NVIDIA H100 PCIe")] == [
        generation_of_device(0x2342),
        generation_of_device(0x2331),
    ]
    assert generation_of_nvml(99, "") is None


def test_every_xid_has_an_action_that_is_a_sentence() -> None:
    table = xids()

    assert {one.action for one in table.codes} <= table.actions.keys()
    assert {one.then for one in table.codes if one.then} <= table.actions.keys()
    assert len({one.code for one in table.codes}) == len(table.codes)


def test_an_nvml_code_that_nobody_knows_is_said_to_be_unknown() -> None:
    assert nvml_code(18).name == "LIB_RM_VERSION_MISMATCH"
    assert nvml_code(4711).name == "?"


@pytest.mark.parametrize(("text", "address"), [("00000000:3B:00.0", "0000:3b:00.0"), ("3B:00.0", None), ("", None)])
def test_nvmls_bus_id_is_brought_into_the_kernels_spelling(text: str, address: str | None) -> None:
    assert kernel_address(text) == address

import json

import pytest

from kube_gpucheck.evidence import dumps
from kube_gpucheck.evidence.bundle import Entry, Read

PCI = "/sys/bus/pci/devices"


def test_a_device_has_major_and_minor_number() -> None:
    line = "crw-rw-rw- 1 root root 195, 255 Nov 24 00:11 /dev/nvidiactl"

    assert dumps.ls_entry(line) == Entry(
        "/dev/nvidiactl", "char", "crw-rw-rw-", major=195, minor=255, modified="Nov 24 00:11"
    )


def test_a_link_has_its_target() -> None:
    line = "lrwxrwxrwx  1 root root    12 Jan  1  1970 libcuda.so -> libcuda.so.1"

    assert dumps.ls_entry(line) == Entry(
        "libcuda.so", "link", "lrwxrwxrwx", size=12, target="libcuda.so.1", modified="Jan 1 1970"
    )


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("srwxr-xr-x 1 root root    0 Nov 24 00:13 nvidia-gpu.sock", "socket"),
        ("drwxr-x--- 9 root root 4096 Nov 24 00:13 x", "dir"),
        ("-rw-r--r--. 1 root root 19 Aug  9 18:25 x", "file"),
        ("brw-rw---- 1 root disk 254, 0 2026-11-24 00:11 vda", "block"),
        ("prw------- 1 root root 0 2026-11-24 00:11:31.000000000 +0000 pipe", "fifo"),
    ],
)
def test_each_type_and_form_of_date_is_read(line: str, kind: str) -> None:
    entry = dumps.ls_entry(line)

    assert entry is not None
    assert entry.type == kind


def test_a_name_may_hold_blanks() -> None:
    entry = dumps.ls_entry("-rw-r--r-- 1 root root 1 Nov 24 00:11 two  words")

    assert entry is not None
    assert entry.name == "two  words"


@pytest.mark.parametrize(
    "line", ["", "total 12", "-rwxr-xr-x 1 root ro", "x" * 100_000, "-" * 100_000, "-rw " * 20_000]
)
def test_what_is_no_line_of_ls_is_no_entry(line: str) -> None:
    assert dumps.ls_entry(line) is None


def test_folders_and_those_that_are_not_there_are_told_apart() -> None:
    text = (
        "ls: cannot access '/etc/cdi': No such file or directory\n"
        "ls: cannot open directory '/srv/x': Permission denied\n"
        "/var/run/cdi:\ntotal 8\n"
        "drwxr-xr-x 2 root root 4096 Nov 24 00:12 .\n"
        "drwxr-xr-x 9 root root 4096 Nov 24 00:12 ..\n"
    )

    dump = dumps.listing_dump(text, globs={})

    assert dump.reads == {
        "list:/etc/cdi": Read(absent=True),
        "list:/srv/x": Read(error="EACCES"),
        "list:/var/run/cdi": Read(entries=()),
    }
    assert dump.whole


def test_a_folder_whose_line_is_cut_off_is_unread_and_not_shorter() -> None:
    text = "/etc/cdi:\ntotal 4\n-rw-r--r-- 1 root root 16698 Nov 24 00:14 a.yaml\n-rw-r--r-- 1 ro"

    dump = dumps.listing_dump(text, globs={})

    assert dump.reads == {}
    assert dump.unread == {"list:/etc/cdi": "a line is no line of ls -l: '-rw-r--r-- 1 ro'"}
    assert not dump.whole


def test_a_glob_proves_absence_only_of_what_it_lets_through() -> None:
    text = "crw-rw-rw- 1 root root 195,   0 Nov 24 00:11 /dev/nvidia0\n\n/dev/nvidia-caps:\ntotal 0\n"

    read = dumps.listing_dump(text, globs={"/dev": "^nvidia"}).reads["list:/dev"]

    assert read.filtered == "^nvidia"
    assert [(entry.name, entry.type) for entry in read.entries or ()] == [("nvidia0", "char"), ("nvidia-caps", "dir")]


def test_a_glob_that_met_nothing_is_an_empty_listing() -> None:
    text = "ls: cannot access '/dev/nvidia*': No such file or directory\n"

    assert dumps.listing_dump(text, globs={"/dev": "^nvidia"}).reads == {
        "list:/dev": Read(entries=(), filtered="^nvidia")
    }


def test_a_folder_that_the_dump_does_not_show_is_not_listed() -> None:
    text = "-rwxr-xr-x 1 root root 1 Nov 24 00:11 /opt/bin/nvidia-smi\n"

    dump = dumps.listing_dump(text, globs={"/usr/bin": "^nvidia-"})

    assert "list:/usr/bin" not in dump.reads
    assert dump.reads["list:/opt/bin"].filtered == r"^(?:nvidia\-smi)$"


def test_a_listing_without_a_header_behind_another_is_passed_over() -> None:
    named, nameless = ("-rw-r--r-- 1 root root 1 Nov 24 00:11 x", "-rw-r--r-- 1 root root 1 Nov 24 00:11 y")
    text = f"/a:\ntotal 0\n{named}\ntotal 36\n{nameless}\n/usr/lib\n"

    dump = dumps.listing_dump(text, globs={})

    assert [entry.name for entry in dump.reads["list:/a"].entries or ()] == ["x"]
    assert not dump.whole


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("cat: /proc/driver/nvidia/version: No such file or directory\n", Read(absent=True)),
        ("cat: '/x y': Permission denied\n", Read(error="EACCES")),
        ("/usr/bin/cat: /x: Input/output error\n", Read(error="EIO")),
        ("Model: cat: x\n", Read(text="Model: cat: x\n")),
    ],
)
def test_an_error_in_place_of_a_file_is_no_text(text: str, read: Read) -> None:
    assert dumps.text_read(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("bash: line 1: nvidia-smi: command not found\n", Read(absent=True)),
        ("sh: 1: nvidia-smi: not found\n", Read(absent=True)),
        ("sh: nvidia-smi: not found", Read(absent=True)),
        ("bash: /usr/bin/nvidia-smi: No such file or directory\n", Read(absent=True)),
        ("dmesg: read kernel buffer failed: Operation not permitted\n", Read(error="EPERM")),
        ("No devices were found\n", Read(text="No devices were found\n")),
    ],
)
def test_a_program_that_was_not_found_is_absent(text: str, read: Read) -> None:
    assert dumps.command_read(text) == read


def test_modules_are_whole_only_if_the_count_says_so() -> None:
    line = "nvidia 14299136 - - Live 0xffffffffc0400000 (O)\n"

    assert dumps.modules_dump(f"{line}1 /proc/modules\n").reads == {"file:/proc/modules": Read(text=line)}
    for text in (f"{line}61 /proc/modules\n", line):
        assert dumps.modules_dump(text).reads == {"file:/proc/modules": Read(text=line, filtered="nvidia")}


def test_no_module_of_nvidia_among_many_is_seen_as_such() -> None:
    assert dumps.modules_dump("59 /proc/modules\n").reads == {"file:/proc/modules": Read(text="", filtered="nvidia")}


def test_garbage_is_no_list_of_modules() -> None:
    dump = dumps.modules_dump("nvidia\n")

    assert dump.reads == {}
    assert list(dump.unread) == ["file:/proc/modules"]


def test_pci_functions_have_their_identifiers_and_driver() -> None:
    text = "0000:00:00.0 0x8086 0x0d57 0x060000 \n0000:00:06.0 0x10de 0x2335 0x030200 nvidia\n"

    reads = dumps.pci_ids_dump(text).reads

    assert reads[f"file:{PCI}/0000:00:06.0/vendor"] == Read(text="0x10de\n")
    assert reads[f"file:{PCI}/0000:00:06.0/class"] == Read(text="0x030200\n")
    assert reads[f"link:{PCI}/0000:00:06.0/driver"] == Read(text="../../../bus/pci/drivers/nvidia")
    assert reads[f"link:{PCI}/0000:00:00.0/driver"] == Read(absent=True)
    assert reads[f"list:{PCI}"].entries == (Entry("0000:00:00.0", "link"), Entry("0000:00:06.0", "link"))


def test_a_pci_line_that_is_cut_off_says_nothing_of_the_driver() -> None:
    dump = dumps.pci_ids_dump("0000:00:06.0 0x10de 0x23\n")

    assert dump.reads.keys() == {f"file:{PCI}/0000:00:06.0/vendor", f"list:{PCI}"}
    assert set(dump.unread) == {
        f"file:{PCI}/0000:00:06.0/device",
        f"file:{PCI}/0000:00:06.0/class",
        f"link:{PCI}/0000:00:06.0/driver",
    }


@pytest.mark.parametrize("text", ["0000:00:0", "lspci: not found", "\N{REPLACEMENT CHARACTER}"])
def test_what_is_no_pci_address_makes_the_listing_unread(text: str) -> None:
    for parse in (dumps.pci_addresses_dump, dumps.pci_ids_dump):
        dump = parse(text)

        assert f"list:{PCI}" not in dump.reads
        assert f"list:{PCI}" in dump.unread


def test_sysfs_files_of_a_function_are_read_from_name_and_value() -> None:
    text = (
        f"== {PCI}/0000:00:06.0\nvendor=0x10de\ncurrent_link_speed=32.0 GT/s PCIe\n"
        f"boot_vga=cat: '{PCI}/0000:00:06.0/boot_vga': No such file or directory\n"
        "driver=../../../bus/pci/drivers/nvidia\niommu_group=\nari_enabled class config \n"
        "0x0000104002000000 0x0000104002ffffff 0x000000000014220c\n"
    )
    here = f"{PCI}/0000:00:06.0"

    assert dumps.pci_files_dump(text).reads == {
        f"file:{here}/vendor": Read(text="0x10de\n"),
        f"file:{here}/current_link_speed": Read(text="32.0 GT/s PCIe\n"),
        f"file:{here}/boot_vga": Read(absent=True),
        f"link:{here}/driver": Read(text="../../../bus/pci/drivers/nvidia"),
        f"link:{here}/iommu_group": Read(absent=True),
        f"file:{here}/resource": Read(text="0x0000104002000000 0x0000104002ffffff 0x000000000014220c\n"),
    }


def test_several_files_in_one_dump_are_told_apart() -> None:
    text = "== /a/information\nModel: \t NVIDIA H200\n== /a/power\ncat: /a/power: Permission denied\n"

    assert dumps.files_dump(text).reads == {
        "file:/a/information": Read(text="Model: \t NVIDIA H200\n"),
        "file:/a/power": Read(error="EACCES"),
    }


def test_a_file_of_a_dump_that_is_too_long_is_left_out() -> None:
    dump = dumps.files_dump("== /a\n" + "x\n" * 20_000 + "== /b\ny\n")

    assert dump.reads == {"file:/b": Read(text="y\n")}
    assert not dump.whole


def test_the_loaded_modules_version_stands_behind_its_folders_names() -> None:
    text = (
        "== /sys/bus/pci/drivers/nvidia\n0000:00:06.0\nbind\n== /sys/module/nvidia\nversion\n580.159.04\n06B987C9\n"
        "cat: /sys/module/nvidia/refcnt: No such file or directory\n"
    )

    reads = dumps.module_dump(text).reads

    assert reads["file:/sys/module/nvidia/version"] == Read(text="580.159.04\n")
    assert reads["list:/sys/bus/pci/drivers/nvidia"].entries == (Entry("0000:00:06.0", "link"), Entry("bind", "file"))


def test_a_module_that_is_not_loaded_is_absent() -> None:
    text = (
        "== /sys/bus/pci/drivers/nvidia\nls: cannot access '/sys/bus/pci/drivers/nvidia': No such file or directory\n"
        "== /sys/module/nvidia\nls: cannot access '/sys/module/nvidia': No such file or directory\n"
    )

    assert dumps.module_dump(text).reads == {
        "list:/sys/bus/pci/drivers/nvidia": Read(absent=True),
        "file:/sys/module/nvidia/version": Read(absent=True),
    }


@pytest.mark.parametrize("text", ["", "== /sys/module/nvidia\n", "garbage"])
def test_an_empty_listing_of_sysfs_was_not_read(text: str) -> None:
    dump = dumps.module_dump(text)

    assert dump.reads == {}
    assert set(dump.unread) == {"list:/sys/bus/pci/drivers/nvidia", "file:/sys/module/nvidia/version"}


def test_each_programs_version_is_its_own() -> None:
    text = (
        "containerd github.com/containerd/containerd 1.6.20\nrunc version 1.1.5\nspec: 1.0.2\n"
        "bash: line 1: nvidia-ctk: command not found\n"
        "NVIDIA Container Runtime version 1.20.0\nspec: 1.3.0\n\nrunc version 1.1.5\nspec: 1.0.2\n"
    )

    assert dumps.versions_dump(text).reads == {
        "exec:containerd --version": Read(text="containerd github.com/containerd/containerd 1.6.20\n"),
        "exec:runc --version": Read(text="runc version 1.1.5\nspec: 1.0.2\n"),
        "exec:nvidia-ctk --version": Read(absent=True),
        "exec:nvidia-container-runtime --version": Read(
            text="NVIDIA Container Runtime version 1.20.0\nspec: 1.3.0\n\nrunc version 1.1.5\nspec: 1.0.2\n"
        ),
    }


def test_nvml_answers_have_a_code_or_a_value() -> None:
    sweep = {
        "nvmlInit": {"value": None},
        "system": {"nvmlSystemGetDriverVersion": {"value": "580.159.04"}, "nvmlDeviceGetCount": {"value": 1}},
        "devices": [
            {
                "index": 0,
                "getters": {
                    "nvmlDeviceGetUUID": {"value": "GPU-1"},
                    "nvmlDeviceGetTemperature(NVML_TEMPERATURE_GPU)": {"value": 38},
                    "nvmlDeviceGetNumaNodeId": {"error": 3, "error_name": "NVML_ERROR_NOT_SUPPORTED"},
                    "nvmlDeviceGetMigMode": {"skipped": "needs x"},
                    "nvmlDeviceGetComputeMode": {"python_error": "TypeError"},
                    "nvmlDeviceGetName": {"us": 1},
                },
                "field_values": {"NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": {"nvmlReturn": 0, "value": 0}},
            }
        ],
    }

    dump = dumps.nvml_dump(json.dumps(sweep))

    assert dump.reads == {
        "nvml:nvmlInit_v2": Read(code=0),
        "nvml:nvmlSystemGetDriverVersion": Read(code=0, value="580.159.04"),
        "nvml:nvmlDeviceGetCount_v2": Read(code=0, value=1),
        "nvml:nvmlDeviceGetUUID(0)": Read(code=0, value="GPU-1"),
        "nvml:nvmlDeviceGetTemperature(0,NVML_TEMPERATURE_GPU)": Read(code=0, value=38),
        "nvml:nvmlDeviceGetNumaNodeId(0)": Read(code=3),
        "nvml:nvmlDeviceGetFieldValues(0,NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)": Read(code=0, value=0),
    }
    assert dump.unread == {"nvml:nvmlDeviceGetName(0)": "neither a value nor a code in the sweep"}


@pytest.mark.parametrize("text", ['{"nvmlInit": {"va', "[]", "null", "[" * 100_000, '{"devices": 7, "system": []}'])
def test_a_sweep_of_nvml_that_is_no_such_thing_leaves_its_first_calls_unread(text: str) -> None:
    dump = dumps.nvml_dump(text)

    assert dump.reads == {}
    assert set(dump.unread) == {
        "nvml:nvmlInit_v2",
        "nvml:nvmlDeviceGetCount_v2",
        "nvml:nvmlSystemGetDriverVersion",
    }


def test_the_files_of_the_drivers_folder_in_proc_are_listed() -> None:
    text = "/proc/driver/nvidia/gpus/0000:00:06.0/power\n/proc/driver/nvidia/version\n/proc/driver/nvidia-caps/x\n"

    assert dumps.tree_dump(text).reads == {
        "list:/proc/driver/nvidia": Read(entries=(Entry("gpus", "dir"), Entry("version", "file"))),
        "list:/proc/driver/nvidia/gpus": Read(entries=(Entry("0000:00:06.0", "dir"),)),
    }


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "ls: " * 200_000,
        "== /x\n" * 50_000,
        "cat: '" + "': " * 2_000_00,
        "- " * 500_000,
        "0" * 1_000_000,
    ],
)
def test_huge_garbage_is_read_in_linear_time(text: str) -> None:
    parsers = (
        lambda one: dumps.listing_dump(one, globs={"/dev": "^nvidia"}),
        dumps.files_dump,
        dumps.pci_addresses_dump,
        dumps.pci_ids_dump,
        dumps.pci_files_dump,
        dumps.modules_dump,
        dumps.module_dump,
        dumps.tree_dump,
        dumps.versions_dump,
        dumps.nvml_dump,
        dumps.whole_command("dmesg"),
        dumps.whole_file("/x"),
    )

    assert [parse(text).reads is not None for parse in parsers] == [True] * len(parsers)

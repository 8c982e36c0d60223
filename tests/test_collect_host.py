import datetime
import json
import os
import select
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kube_gpucheck.collect import deadlines, hostfiles, hostnvmlcalls, hostreport, hostworker
from kube_gpucheck.collect.host import read_host
from kube_gpucheck.collect.hostplaces import DRIVER_UNITS
from kube_gpucheck.collect.hostreads import HostReads
from kube_gpucheck.evidence.block import decode_block
from kube_gpucheck.evidence.bundle import Bundle, HostRecord, memory_bundle
from kube_gpucheck.evidence.engine import DAEMON_FILE, KUBELET_CONFIGURATIONS, KUBELET_DROP_INS, PROCESSES
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.kernel_log import parse_kernel_log
from kube_gpucheck.evidence.nodereport import decode_report

CONTAINERD = 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml", "near.toml"]\n'
HANDLER = '[x.options]\n  BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"\n'


def tree(root: Path, files: Mapping[str, str | bytes]) -> str:
    """Write files below a root and return it."""
    for path, content in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(root)


def program(folder: Path, name: str, script: str) -> str:
    """Write an executable script, and return the search path that finds it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def reads_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    reads: dict[str, dict[str, Any]] = report["host"]["reads"]
    return reads


def bundle_of(report: Mapping[str, Any]) -> Bundle:
    """Return the bundle that holds a report of the node `here`."""
    manifest = {
        "format": 1,
        "tool": "tests",
        "run": {"id": "test", "started": "2026-01-01T00:00:00Z", "gathered_at": "2026-01-01T00:00:00Z"},
        "provenance": "live",
        "asked": {"host": {"here": report["asked"]}},
        "missing": [{**one, "node": "here"} for one in report["missing"]],
    }
    logs = {f"nodes/here/logs/{unit}.log": text.encode() for unit, text in report["logs"].items()}
    host = json.dumps(report["host"]).encode()
    return memory_bundle("test", {"bundle.json": json.dumps(manifest).encode(), "nodes/here/host.json": host, **logs})


# --- the whole -------------------------------------------------------------------------------------


def test_a_host_with_nothing_on_it_gives_answers_and_no_error(tmp_path: Path) -> None:
    reads = reads_of(read_host(str(tmp_path)))

    errors = {key: read["error"] for key, read in reads.items() if "error" in read}
    assert errors == {}
    assert reads["file:/proc/driver/nvidia/version"] == {"absent": True}
    assert reads["list:/sys/bus/pci/devices"] == {"absent": True}


def test_this_host_is_read_whole_and_every_answer_is_of_one_form() -> None:
    report: Any = read_host()

    record = msgspec.convert(report["host"], HostRecord)
    assert (record.format, record.root, record.uid) == (1, "/", os.getuid())
    forms = [{"text", "entries", "code", "absent", "error"} & one.keys() for one in reads_of(report).values()]
    assert all(len(form) == 1 or form == {"text", "code"} for form in forms)


def test_all_that_was_asked_was_answered_or_is_told_as_missing(tmp_path: Path) -> None:
    report: Any = read_host(tree(tmp_path, {"/var/log/kern.log": "Jan 1 host kernel: [    0.1] NVRM: x\n"}))

    kept = {*reads_of(report), *(f"log:{unit}" for unit in report["logs"])}
    lost = {one["evidence"].removeprefix("host/") for one in report["missing"]}
    assert set(report["asked"]) == kept | lost
    assert len(report["asked"]) == len(set(report["asked"]))


def test_below_another_root_no_command_is_asked_for_but_what_the_kernel_itself_tells(tmp_path: Path) -> None:
    commands = {key for key in reads_of(read_host(str(tmp_path))) if key.startswith("exec:")}

    assert commands <= {"exec:uname -a", "exec:ps -e -o pid=,comm="}


def test_when_the_time_is_over_the_rest_has_timed_out(tmp_path: Path) -> None:
    reads = reads_of(read_host(tree(tmp_path, {"/etc/os-release": "ID=x\n"}), deadline_s=0))

    assert reads["file:/etc/os-release"] == {"error": "ETIMEDOUT"}
    assert reads["nvml:nvmlInit_v2"] == {"error": "ETIMEDOUT"}


def test_the_program_prints_a_block_that_the_collector_of_probes_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(tmp_path, {"/etc/os-release": "ID=flatcar\n"})

    assert hostreport.main(["--root", root, "--node", "gpu-0"]) == 0

    report = decode_report(capsys.readouterr().out)
    host = msgspec.json.decode(report.host, type=HostRecord)
    assert report.node == "gpu-0"
    assert host.reads["file:/etc/os-release"].text == "ID=flatcar\n"
    assert [one.node for one in report.missing] == ["gpu-0"] * len(report.missing)


def test_the_report_itself_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostreport.main(["--root", str(tmp_path), "--node", "gpu-0", "--json"])
    plain = json.loads(capsys.readouterr().out)
    hostreport.main(["--root", str(tmp_path), "--node", "gpu-0"])
    block = json.loads(decode_block(capsys.readouterr().out))

    assert plain.keys() == block.keys() == {"format", "node", "asked", "host", "logs", "missing"}


def test_no_secret_is_read(tmp_path: Path) -> None:
    secrets = (
        "/etc/shadow",
        "/etc/rancher/rke2/config.yaml",
        "/etc/kubernetes/admin.conf",
        "/var/lib/kubelet/kubeconfig",
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
        "/var/lib/kubelet/device-plugins/other",
        "/root/.kube/config",
    )
    root = tree(tmp_path, dict.fromkeys(secrets, "a-secret-word"))

    assert "a-secret-word" not in json.dumps(read_host(root))


def test_where_nothing_runs_containers_nothing_of_it_is_asked_for(tmp_path: Path) -> None:
    workstation = reads_of(read_host(str(tmp_path)))
    node = reads_of(read_host(tree(tmp_path, {"/usr/bin/containerd": ""})))

    of_containers = {"file:/etc/containerd/config.toml", "list:/etc/cdi", "list:/usr/bin"}
    assert of_containers.isdisjoint(workstation)
    assert of_containers <= node.keys()


# --- layouts ---------------------------------------------------------------------------------------

PLAIN = "/etc/containerd/config.toml"
RKE2 = "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"
K3S = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
K0S = "/etc/k0s/containerd.toml"
MICROK8S = "/var/snap/microk8s/current/args/containerd.toml"


@pytest.mark.parametrize("main", [PLAIN, RKE2, K3S, K0S, MICROK8S])
def test_the_engine_s_own_configuration_is_read_and_no_other_distribution_s(tmp_path: Path, main: str) -> None:
    reads = reads_of(read_host(tree(tmp_path, {main: "version = 2\n"})))

    files = {key.removeprefix("file:") for key in reads if key.startswith("file:")}
    assert {one for one in files if one.endswith(("config.toml", "containerd.toml"))} - {
        "/etc/nvidia-container-runtime/config.toml"
    } == {main}
    assert reads[f"file:{main}"] == {"text": "version = 2\n"}
    assert reads[f"stat:{main}"]["entries"][0]["modified"].endswith("Z")


def test_a_template_beside_the_configuration_is_read(tmp_path: Path) -> None:
    template = f"{RKE2}.tmpl"

    reads = reads_of(read_host(tree(tmp_path, {RKE2: "", template: '{{ template "base" . }}'})))

    assert reads[f"file:{template}"] == {"text": '{{ template "base" . }}'}


def test_cri_o_is_read_where_it_is_and_containerd_is_not_asked_for(tmp_path: Path) -> None:
    files = {"/etc/crio/crio.conf": "[crio]\n", "/etc/crio/crio.conf.d/99-nvidia.conf": "[crio.runtime]\n"}

    reads = reads_of(read_host(tree(tmp_path, files)))

    assert reads["file:/etc/crio/crio.conf.d/99-nvidia.conf"] == {"text": "[crio.runtime]\n"}
    assert f"file:{PLAIN}" not in reads


def test_what_tells_which_engine_the_kubelet_uses_is_read_and_nothing_else_of_its_files(tmp_path: Path) -> None:
    kubelet = (
        "cgroupDriver: systemd\nstaticPodURLHeader:\n  Word: [a-secret-word]\ncontainerRuntimeEndpoint: unix:///x\n"
    )
    files = {
        "/usr/bin/kubelet": "",
        DAEMON_FILE: '{"runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}}',
        KUBELET_CONFIGURATIONS[0]: kubelet,
        f"{KUBELET_DROP_INS[1]}/00-defaults.conf": kubelet,
        f"{KUBELET_DROP_INS[1]}/notes.txt": "a-secret-word",
        "/sys/fs/cgroup/cgroup.controllers": "cpu\n",
        "/sys/fs/selinux/booleans/container_use_devices": "1 1",
    }

    report = read_host(tree(tmp_path, files))

    reads = reads_of(report)
    assert "nvidia-container-runtime" in reads[f"file:{DAEMON_FILE}"]["text"]
    assert reads[f"stat:{DAEMON_FILE}"]["entries"][0]["type"] == "file"
    assert reads["stat:/usr/bin/nvidia-container-runtime"] == {"absent": True}
    assert reads[f"file:{KUBELET_CONFIGURATIONS[0]}"]["text"] == (
        "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///x\n"
    )
    assert reads[f"file:{KUBELET_CONFIGURATIONS[1]}"] == {"absent": True}
    assert reads[f"file:{KUBELET_DROP_INS[1]}/00-defaults.conf"] == reads[f"file:{KUBELET_CONFIGURATIONS[0]}"]
    assert f"list:{KUBELET_DROP_INS[0]}" not in reads
    assert reads["stat:/sys/fs/cgroup/cgroup.controllers"]["entries"][0]["name"] == "cgroup.controllers"
    assert reads["file:/sys/fs/selinux/booleans/container_use_devices"] == {"text": "1 1"}
    assert reads["stat:/var/run/nri/nri.sock"] == {"absent": True}
    assert "a-secret-word" not in json.dumps(report)


def test_an_import_that_is_not_there_and_a_folder_in_a_file_s_place_are_seen_to_be_so(tmp_path: Path) -> None:
    root = tree(tmp_path, {PLAIN: 'imports = ["/etc/gone.toml", "/etc/odd[1].toml"]\n', f"{K0S}/x": ""})

    reads = reads_of(read_host(root))

    assert reads["file:/etc/gone.toml"] == {"absent": True}
    assert reads["file:/etc/odd[1].toml"] == {"absent": True}
    assert reads[f"file:{K0S}"] == {"error": "EISDIR"}
    assert reads[f"stat:{K0S}"]["entries"][0]["type"] == "dir"


def test_imports_are_followed_and_one_that_goes_round_ends(tmp_path: Path) -> None:
    files = {
        PLAIN: CONTAINERD,
        "/etc/containerd/conf.d/99-nvidia.toml": f'imports = ["{PLAIN}"]\n{HANDLER}',
        "/etc/containerd/conf.d/note.txt": "",
        "/etc/containerd/near.toml": "version = 2\n",
    }

    reads = reads_of(read_host(tree(tmp_path, files)))

    assert "BinaryName" in reads["file:/etc/containerd/conf.d/99-nvidia.toml"]["text"]
    assert reads["file:/etc/containerd/near.toml"] == {"text": "version = 2\n"}
    assert "file:/etc/containerd/conf.d/note.txt" not in reads


def test_programs_that_a_handler_names_are_looked_for(tmp_path: Path) -> None:
    files = {PLAIN: HANDLER + 'BinaryName = "crun-vm"\n', "/usr/bin/crun-vm": ""}

    reads = reads_of(read_host(tree(tmp_path, files)))

    assert reads["stat:/usr/local/nvidia/toolkit/nvidia-container-runtime"] == {"absent": True}
    assert reads["stat:/usr/bin/crun-vm"]["entries"][0]["type"] == "file"


def test_what_a_cdi_specification_names_is_looked_for_and_another_vendor_s_is_not_read(tmp_path: Path) -> None:
    specification = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- deviceNodes:\n  - path: /dev/nvidia0\n"
    files = {
        PLAIN: "",
        "/etc/cdi/gpus.yaml": specification,
        "/etc/cdi/other.yaml": "kind: example.com/fpga\nenv: a-token\n",
    }

    reads = reads_of(read_host(tree(tmp_path, files)))

    assert reads["file:/etc/cdi/gpus.yaml"] == {"text": specification}
    assert reads["stat:/dev/nvidia0"] == {"absent": True}
    assert "file:/etc/cdi/other.yaml" not in reads


def test_the_driver_of_a_driver_container_is_found_below_its_root(tmp_path: Path) -> None:
    library = "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.580.1"

    host = Host(bundle_of(read_host(tree(tmp_path, {library: ""}))), "here")

    found: Any = host.entry(library)
    absent: Any = host.entry("/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    assert found.value.type == "file"
    assert absent.value is None


def test_the_kubelet_s_sockets_and_record_are_read(tmp_path: Path) -> None:
    folder = "/var/snap/microk8s/common/var/lib/kubelet/device-plugins"

    reads = reads_of(read_host(tree(tmp_path, {f"{folder}/kubelet_internal_checkpoint": "{}"})))

    assert reads[f"file:{folder}/kubelet_internal_checkpoint"] == {"text": "{}"}
    assert "list:/var/lib/kubelet/device-plugins" not in reads


def test_nvidia_s_functions_on_the_bus_are_read_and_the_port_above_them(tmp_path: Path) -> None:
    devices = tmp_path / "sys/devices/pci0000:00/0000:00:01.0"
    gpu = "0000:01:00.0"
    tree(devices, {"vendor": "0x8086\n", "max_link_width": "16\n", f"{gpu}/vendor": "0x10de\n", f"{gpu}/class": "0x03"})
    bus = tmp_path / "sys/bus/pci/devices"
    bus.mkdir(parents=True)
    (bus / gpu).symlink_to(f"../../../devices/pci0000:00/0000:00:01.0/{gpu}")
    (bus / "0000:00:01.0").symlink_to("../../../devices/pci0000:00/0000:00:01.0")

    reads = reads_of(read_host(str(tmp_path)))

    assert reads[f"file:/sys/bus/pci/devices/{gpu}/class"] == {"text": "0x03"}
    assert reads[f"link:/sys/bus/pci/devices/{gpu}/driver"] == {"absent": True}
    assert reads["file:/sys/bus/pci/devices/0000:00:01.0/max_link_width"] == {"text": "16\n"}
    assert "file:/sys/bus/pci/devices/0000:00:01.0/class" not in reads


# --- logs ------------------------------------------------------------------------------------------


def test_logs_that_are_files_are_read_where_no_program_can_be_run(tmp_path: Path) -> None:
    files = {
        "/var/log/kern.log": "Jan 1 00:00:00 gpu-0 kernel: [    2.5] NVRM: Xid (PCI:0000:01:00): 79, gone\nother\n",
        "/var/lib/rancher/rke2/agent/containerd/containerd.log": "level=error\n",
        "/var/lib/rancher/rke2/agent/logs/kubelet.log": "E0101\n",
    }

    report: Any = read_host(tree(tmp_path, files))

    assert report["logs"]["containerd"] == "level=error\n"
    assert report["logs"]["kubelet"] == "E0101\n"
    assert [one.code for one in parse_kernel_log(report["logs"]["kernel"]).xids] == [79]
    assert "other" not in report["logs"]["kernel"]


def test_a_kernel_log_that_nothing_gives_is_missing_with_what_was_tried(tmp_path: Path) -> None:
    report: Any = read_host(str(tmp_path))

    reading = bundle_of(report).node_log("here", "kernel")
    assert str(reading.reason) == "/dev/kmsg: not there"  # type: ignore[union-attr]  # Missing


def test_a_service_s_journal_that_may_not_be_read_is_missing_and_one_that_may_is_kept(tmp_path: Path) -> None:
    unit = 'for unit in "$@"; do case $unit in show|-*) ;; *) printf "Id=$unit\\nLoadState=loaded\\n\\n" ;; esac; done'
    program(tmp_path / "bin", "systemctl", unit)
    programs = program(
        tmp_path / "bin",
        "journalctl",
        'case "$*" in *kubelet*) echo E0101;; *) echo insufficient permissions; exit 1; esac',
    )

    report: Any = read_host("/", programs=programs)

    assert report["logs"]["kubelet"] == "E0101\n"
    lost = [one for one in report["missing"] if one["evidence"] == "host/log:containerd"]
    assert [(one["kind"], one["reason"]) for one in lost] == [("forbidden", "journalctl: insufficient permissions")]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (b"6,339,5140900,-;NVRM: loading\n SUBSYSTEM=pci\n DEVICE=+pci:0000\n", "[    5.140900] NVRM: loading"),
        (b"4,1,0,c;", "[    0.000000] "),
        (b"30,12,123456789012,-,caller=T1;a;b", "[123456.789012] a;b"),
        (b"no record at all", ""),
        (b"4,1,2500000,-;NVRM: a\\x0aNVRM:\\x09b \\x5cx0a", "[    2.500000] NVRM: a\n               NVRM:\tb \\x0a"),
        (b"6,1,5,-;\xff\xfe", "[    0.000005] \ufffd\ufffd"),
    ],
)
def test_a_record_of_the_kernel_s_ring_is_a_line_of_dmesg(record: bytes, line: str) -> None:
    assert hostfiles.kmsg_line(record) == line


def test_the_collector_travels_as_a_zip_archive_with_the_standard_library_alone(tmp_path: Path) -> None:
    library = Path(str(hostreport.__file__)).parents[1]
    archive = tmp_path / "probe.pyz"
    with zipfile.ZipFile(archive, "w") as made:
        for path in (library / "collect").glob("host*.py"):
            made.write(path, f"kube_gpucheck/collect/{path.name}")
        for name in ("collect/deadlines.py", "evidence/block.py"):
            made.write(library / name, f"kube_gpucheck/{name}")
        for name in ("kube_gpucheck", "kube_gpucheck/collect", "kube_gpucheck/evidence"):
            made.writestr(f"{name}/__init__.py", "")
        made.writestr("__main__.py", "import sys; from kube_gpucheck.collect.hostreport import main; sys.exit(main())")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")

    program = [sys.executable, "-I", "-S", str(archive), "--root", str(tmp_path), "--node", "gpu-0"]
    block = subprocess.run(program, check=True, capture_output=True, text=True, cwd="/").stdout

    report = json.loads(decode_block(block))
    assert reads_of(report)["file:/etc/os-release"] == {"text": "ID=debian\n"}
    assert reads_of(report)["nvml:nvmlInit_v2"]["code"] == hostnvmlcalls.LIBRARY_NOT_FOUND
    assert reads_of(report)["cuda:cuInit"] == {"absent": True}


# --- verbs -----------------------------------------------------------------------------------------


def test_no_link_leads_out_of_the_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not the host's")
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/absolute").symlink_to(outside)
    (root / "etc/climbing").symlink_to("../../../../../../../outside")
    (root / "etc/folder").symlink_to(tmp_path)
    (root / "etc/round").symlink_to("round")
    (root / "etc/own").symlink_to("/etc/real")
    (root / "etc/real").write_text("the host's")

    def file(path: str) -> dict[str, object]:
        return hostfiles.answer(str(root), "file", path, None)

    assert file("/etc/absolute") == {"absent": True}
    assert file("/etc/climbing") == {"absent": True}
    assert file("/etc/folder/outside") == {"absent": True}
    assert file("/../outside") == {"absent": True}
    assert file("/etc/round") == {"error": "ELOOP"}
    assert file("/etc/own") == {"text": "the host's"}
    assert hostfiles.answer(str(root), "link", "/etc/own", None) == {"text": "/etc/real"}
    assert hostfiles.answer(str(root), "link", "/etc/real", None) == {"absent": True}
    assert hostfiles.answer(str(root), "stat", "/etc/absolute", None) == {"absent": True}


def test_a_pipe_a_device_and_a_folder_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    assert hostfiles.answer(str(tmp_path), "file", "/pipe", None) == {"error": "ENOTSUP"}
    assert hostfiles.answer(str(tmp_path), "file", "/folder", None) == {"error": "EISDIR"}
    assert hostfiles.answer("/", "file", "/dev/zero", None) == {"error": "ENOTSUP"}


def test_of_a_huge_file_the_end_is_kept(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"the end")

    read: Any = hostfiles.answer(str(tmp_path), "file", "/huge", None)

    assert read["truncated"] is True
    assert read["text"].endswith("the end")
    assert len(read["text"]) <= hostfiles.MAX_TEXT


def test_hostile_bytes_become_text_that_json_carries(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\x00\xed\xa0\x80\x1b[31m\n")
    folder = os.fsencode(tmp_path / "folder")
    os.mkdir(folder)  # noqa: PTH102  pathlib takes no bytes
    os.symlink(b"\xfe", folder + b"/\xff")  # noqa: PTH211  as above

    text = json.dumps([hostfiles.answer(str(tmp_path), *one, None) for one in (("file", "/file"), ("list", "/folder"))])

    read = msgspec.json.decode(text)
    assert read[0]["text"].startswith("\ufffd\0")
    assert (read[1]["entries"][0]["name"], read[1]["entries"][0]["target"]) == ("\ufffd", "\ufffd")
    assert hostfiles.answer(str(tmp_path), "file", "/a\0b", None) == {"error": "EINVAL"}


def test_a_listing_says_what_it_lets_through_and_one_that_is_too_long_is_no_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (tmp_path / f"libnvidia{number}").touch()
    (tmp_path / "libc.so").touch()

    read: Any = hostfiles.answer(str(tmp_path), "list", "/", "nvidia")
    assert read["filtered"] == "nvidia"
    assert [one["name"] for one in read["entries"]] == [f"libnvidia{number}" for number in range(5)]

    monkeypatch.setattr(hostfiles, "MAX_ENTRIES", 5)
    assert hostfiles.answer(str(tmp_path), "list", "/", None) == {"error": "EOVERFLOW"}


def test_an_entry_tells_type_mode_numbers_and_time() -> None:
    read: Any = hostfiles.answer("/", "stat", "/dev/null", None)

    entry = read["entries"][0]
    assert (entry["name"], entry["type"], entry["major"], entry["minor"]) == ("null", "char", 1, 3)
    assert entry["mode"].startswith("crw")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_an_error_and_not_absent(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)

    assert hostfiles.answer(str(tmp_path), "list", "/closed", None) == {"error": "EACCES"}


@pytest.mark.parametrize(
    ("python", "said"),
    [("closed/python3", "closed/python3: Permission denied"), ("ends/python3", "ends/python3 ended with status 7")],
)
def test_where_no_child_can_be_started_its_reads_are_missing_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str, said: str
) -> None:
    for name, mode in (("closed", 0o644), ("ends", 0o755)):
        program = tmp_path / name / "python3"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\nexit 7\n")
        program.chmod(mode)
    monkeypatch.setattr(sys, "executable", str(tmp_path / python))
    found: Any = read_host(tree(tmp_path, {"/etc/os-release": "ID=x\n"}), deadline_s=20)

    reasons = {one["reason"] for one in found["missing"]}
    assert len(reasons) == 1
    assert f"the reading child could not be started: {tmp_path}/{said}" in reasons.pop()
    lost = {one["evidence"].partition("/")[2] for one in found["missing"]}
    assert {"list:/dev"} <= lost <= set(found["asked"])
    assert not lost & set(found["host"]["reads"])
    assert not [read for read in found["host"]["reads"].values() if "error" in read]


def test_a_read_that_takes_too_long_is_given_up_and_the_next_has_a_child_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = HostReads(tree(tmp_path, {"/etc/os-release": "ID=x\n"}))
    monkeypatch.setattr(deadlines, "READ_S", 1e-6)
    assert reads.file("/etc/hostname") is None
    monkeypatch.undo()

    assert reads.file("/etc/os-release") == "ID=x\n"
    assert reads.reads["file:/etc/hostname"] == {"error": "ETIMEDOUT"}
    reads.close()


def test_processes_are_told_by_id_and_name_and_arguments_of_engines_alone() -> None:
    read: Any = hostfiles.answer("/", "processes", "", None)

    mine = next(line for line in read["text"].splitlines() if line.startswith(f"{os.getpid()}\t"))
    assert len(mine.split("\t")) == 2


def test_an_engine_s_own_arguments_tell_where_its_configuration_lies(tmp_path: Path) -> None:
    files = {
        "/proc/7/comm": "containerd\n",
        "/proc/7/cmdline": "containerd\0-c\0/srv/rke2/agent/etc/containerd/config.toml\0",
        "/proc/8/comm": "kubelet\n",
        "/proc/8/cmdline": "kubelet\0--root-dir=/srv/kubelet\0--token=a-secret-word\0",
        "/proc/9/comm": "nv queue\tof\na thing\n",
        "/proc/9/cmdline": "",
        "/srv/rke2/agent/etc/containerd/config.toml": "version = 3\n",
        "/srv/kubelet/device-plugins/kubelet.sock": "",
    }

    report: Any = read_host(tree(tmp_path, files))

    reads = reads_of(report)
    assert reads["file:/srv/rke2/agent/etc/containerd/config.toml"] == {"text": "version = 3\n"}
    assert reads["list:/srv/kubelet/device-plugins"]["entries"][0]["name"] == "kubelet.sock"
    assert reads["exec:ps -e -o pid=,comm="]["text"] == "7 containerd\n8 kubelet\n"
    assert "a-secret-word" not in json.dumps(report)


def test_of_every_engine_that_runs_paths_and_sockets_are_told_and_no_other_argument(tmp_path: Path) -> None:
    lines = (
        ("containerd", "/usr/bin/containerd\0"),
        ("containerd", "/srv/bin/containerd\0-c\0/srv/config.toml\0-a\0/run/k3s/c.sock\0--log-level\0debug\0"),
        ("dockerd", "/usr/bin/dockerd\0-H\0fd://\0--cluster-store-opt=a-secret-word\0"),
        ("kubelet", "/usr/bin/kubelet\0--container-runtime-endpoint=unix:///run/k3s/c.sock\0--token=a-secret-word\0"),
        ("bash", "bash\0--config=/a-secret-word\0"),
    )
    files = {"/srv/config.toml": "version = 2\n"}
    for number, (name, words) in enumerate(lines, 10):
        files |= {f"/proc/{number}/comm": f"{name}\n", f"/proc/{number}/cmdline": words}

    report = read_host(tree(tmp_path, files))

    reads = reads_of(report)
    assert reads[f"exec:{PROCESSES}"]["text"].splitlines() == [
        "/usr/bin/containerd",
        "/srv/bin/containerd -c=/srv/config.toml -a=/run/k3s/c.sock",
        "/usr/bin/dockerd",
        "/usr/bin/kubelet --container-runtime-endpoint=unix:///run/k3s/c.sock",
    ]
    assert reads["file:/srv/config.toml"] == {"text": "version = 2\n"}
    assert "a-secret-word" not in json.dumps(report)


def test_when_an_engine_was_started_is_told_as_ps_tells_it(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    files = {
        "/proc/uptime": "1000.00 900.00\n",
        "/proc/7/comm": "containerd\n",
        "/proc/7/cmdline": "/usr/bin/containerd\0",
        "/proc/7/stat": f"7 (a) b) S {' '.join(['0'] * 18)} {400 * ticks} 0 0\n",
        "/proc/8/comm": "kubelet\n",
        "/proc/8/cmdline": "/usr/bin/kubelet\0",
    }

    reads = reads_of(read_host(tree(tmp_path, files)))

    (line,) = reads["exec:TZ=UTC ps -e -o lstart=,comm="]["text"].splitlines()
    written, name = line[:24], line[25:]
    started = datetime.datetime.strptime(written, "%a %b %d %H:%M:%S %Y").replace(tzinfo=datetime.timezone.utc)
    ago = datetime.datetime.now(datetime.timezone.utc) - started
    assert name == "containerd"
    assert datetime.timedelta(seconds=599) < ago < datetime.timedelta(seconds=700)


def test_a_process_of_any_name_makes_no_node_of_a_workstation(tmp_path: Path) -> None:
    reads = reads_of(read_host(tree(tmp_path, {"/proc/9/comm": "nv queue\tof\n", "/proc/9/cmdline": "x\0y"})))

    assert "list:/etc/cdi" not in reads


def test_the_kernel_s_ring_is_read_or_refused_and_never_waited_for() -> None:
    read = hostfiles.answer("/", "kmsg", "", None)

    assert "text" in read or read.get("error") in {"EPERM", "EACCES", "ENOTSUP"} or "absent" in read


# --- commands --------------------------------------------------------------------------------------


def run(programs: str, line: str, *, timeout_s: float = 10) -> dict[str, object]:
    return HostReads("/", programs=programs).run(line, timeout_s=timeout_s)


def test_a_command_gives_its_output_and_status_and_its_errors_where_it_failed(tmp_path: Path) -> None:
    programs = program(tmp_path / "bin", "works", "echo out; echo warning >&2")
    program(tmp_path / "bin", "fails", "echo out; echo why >&2; exit 3")

    assert run(programs, "works") == {"text": "out\n", "code": 0}
    assert run(programs, "fails") == {"text": "out\nwhy\n", "code": 3}
    assert run(programs, "is-not-there --version") == {"absent": True}


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    programs = program(tmp_path / "bin", "hangs", f"(sleep 60; touch {tmp_path}/late) & echo $! > {tmp_path}/pid; wait")

    assert run(programs, "hangs", timeout_s=1) == {"error": "ETIMEDOUT"}

    try:
        child = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended == [child]


def test_a_command_that_prints_without_end_is_bounded(tmp_path: Path) -> None:
    programs = program(tmp_path / "bin", "floods", "head -c 9000000 /dev/zero | tr '\\0' x; echo end")

    read: Any = run(programs, "floods")

    assert read["truncated"] is True
    assert read["text"].endswith("xend\n")
    assert len(read["text"]) <= 4 << 20


def test_a_command_sees_nothing_of_the_caller_s_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/a/secret/place")
    programs = program(tmp_path / "bin", "shows", "env")

    text = str(run(programs, "shows")["text"])

    assert "KUBECONFIG" not in text
    assert "LC_ALL=C.UTF-8" in text
    assert "TZ=UTC" in text


def test_units_that_are_not_there_are_not_told_of(tmp_path: Path) -> None:
    blocks = (
        'for unit in "$@"; do case $unit in show|-*) ;; '
        'rke2-agent.service) printf "Id=$unit\\nLoadState=loaded\\nActiveState=active\\n\\n" ;; '
        '*) printf "Id=$unit\\nLoadState=not-found\\nActiveState=inactive\\n\\n" ;; esac; done'
    )
    programs = program(tmp_path / "bin", "systemctl", blocks)

    reads = reads_of(read_host("/", programs=programs))

    shown = {key.rpartition(" ")[2]: read for key, read in reads.items() if key.startswith("exec:systemctl")}
    text = "Id=rke2-agent.service\nLoadState=loaded\nActiveState=active\n"
    assert shown.pop("rke2-agent") == {"text": text, "code": 0}
    assert shown.keys() == {*DRIVER_UNITS}
    assert {"not-found" in one["text"] for one in shown.values()} == {True}


def test_where_no_systemd_runs_what_it_said_stands_for_the_driver_s_own_services(tmp_path: Path) -> None:
    programs = program(tmp_path / "bin", "systemctl", "echo System has not been booted with systemd; exit 1")

    reads = reads_of(read_host("/", programs=programs))

    answer = {"text": "System has not been booted with systemd\n", "code": 1}
    assert reads["exec:systemctl show nvidia-persistenced"] == answer
    assert "exec:systemctl show kubelet" not in reads


def test_the_output_of_ldconfig_is_what_it_says_of_the_driver(tmp_path: Path) -> None:
    lines = "libnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/libnvidia-ml.so.1\\nlibc.so.6 (libc6) => /lib/libc.so.6\\n"
    programs = program(tmp_path / "bin", "ldconfig", f"printf '{lines}'")

    reads = reads_of(read_host("/", programs=programs))

    assert "libc.so.6" not in reads["exec:ldconfig -p"]["text"]
    assert reads["exec:ldconfig -p"]["filtered"]
    assert "link:/usr/lib/libnvidia-ml.so.1" in reads


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        {"code": 0, "value": [1, -2, 0.5, False, None, "NVIDIA H200"]},
        {'"\\': 'quote " and \\, end\n\x00\x7f', "wide": "\u00e9 \U0001f5a5"},
        [],
        {},
    ],
)
def test_what_a_library_s_child_writes_is_json(value: object) -> None:
    assert json.loads(hostworker.encoded(value)) == value

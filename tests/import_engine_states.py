"""Imports the states of one real containerd, recorded beside a GPU, into fixtures/bundles/recorded.

Run by hand: `python tests/import_engine_states.py STATES HOST`, with the library on the path. STATES holds a folder a
state (`1-NAME`, with `etc-containerd`, `dump.toml`, `containerd.log`, `at`, perhaps `etc-cdi`) and `versions.txt`; HOST
is a bundle of the same machine, made by `gpucheck collect --host`. Not a test.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from import_recordings import RECORDED, write_page
from kube_gpucheck.evidence.bundle import (
    BUNDLE_FORMAT,
    HOST_FORMAT,
    Asked,
    Entry,
    HostRecord,
    Manifest,
    Read,
    RunRecord,
    open_bundle,
    write_bundle,
)

NODE: Final = "gpu-node-0"
NAMES: Final = {
    "1-toolkit-not-configured": "engine-not-configured",
    "2-configured-not-restarted": "engine-not-restarted",
    "3-restarted": "engine-configured",
    "4-cdi": "engine-and-cdi",
    "5-drop-in-took-runc-away": "engine-drop-in-took-runc-away",
}
NOT_REAL: Final = (
    "names of host and folders, UUID and serial number of the GPU are replaced, the kernel release's suffix is changed",
    "bus, kernel module, device nodes, libraries and NVML were read once, two minutes before, in the same boot",
    "the entries of /usr/bin are what the recording unpacked there, without times and modes",
    "neither processes nor services nor the engine's own answer were read",
    "no kubelet runs: the engine was started by hand, with its folders elsewhere and its socket in the usual place",
)
PROGRAMS: Final = (
    ("containerd --version", r"containerd github\.com.*"),
    ("runc --version", r"runc version (?:.*\n)+?libseccomp: .*"),
    ("nvidia-ctk --version", r"NVIDIA Container Toolkit CLI version .*\ncommit: .*"),
    ("nvidia-container-runtime --version", r"NVIDIA Container Runtime version (?:.*\n)+?libseccomp: .*"),
)
UNPACKED: Final = ("containerd", "ctr", "nvidia-cdi-hook", "nvidia-container-runtime", "nvidia-ctk", "runc")
DRIVER: Final = re.compile(
    r"file:/(?:etc/os-release|sys/fs/selinux/enforce|proc/(?:modules|devices|driver/nvidia/(?:version|params|gpus/.*))|sys/module/nvidia/version|"
    r"sys/bus/pci/devices/[^/]+/(?:vendor|class|device))|link:/sys/bus/pci/devices/[^/]+/driver|"
    r"list:/(?:sys/bus/pci/devices|dev|dev/nvidia-caps|dev/char|proc/driver/nvidia/gpus)|"
    r"(?:link|list):/usr/local/nvidia/lib64.*|exec:(?:uname -a|ldconfig -p)|"
    r"nvml:nvml(?:Init_v2|DeviceGetCount_v2|SystemGet(?:Driver|NVML)Version|"
    r"DeviceGet(?:Name|UUID|PciInfo|MinorNumber|Index|MemoryInfo|MigMode)\(0\))"
)
"""What is taken of the host's bundle: what tells of GPU and driver, and the loader's cache."""


def main(states: Path, host: Path) -> int:
    """Write one bundle a state, and the page that lists all recordings. Replaces what is there."""
    bundle = open_bundle(host)
    (own,) = bundle.hosts
    document = msgspec.json.decode((host / "nodes" / own / "host.json").read_bytes(), type=HostRecord)
    driver = {key: read for key, read in document.reads.items() if DRIVER.fullmatch(key)}
    versions = (states / "versions.txt").read_text(encoding="utf-8")
    secrets = replaced(versions, document.reads)
    for folder, name in NAMES.items():
        state = states / folder
        reads = {**driver, **versions_of(versions), **state_of(state)}
        log = (state / "containerd.log").read_text(encoding="utf-8")
        target = RECORDED / name
        shutil.rmtree(target, ignore_errors=True)
        write_bundle(target, *scrubbed(name, reads, log, (state / "at").read_text(encoding="utf-8").strip(), secrets))
        print(target)
    write_page()
    return 0


def replaced(versions: str, reads: Mapping[str, Read]) -> dict[str, str]:
    """Return what must not be in a recording, and what stands in its place."""
    uname = versions.split()
    (uuid,) = set(re.findall(r"GPU-[0-9a-f-]{36}", versions))
    serial = str(reads["nvml:nvmlDeviceGetSerial(0)"].value)
    release = uname[2]
    return {
        uuid: "GPU-5ca1ab1e-0000-4000-8000-000000000000",
        serial: "0000000000000",
        release: release.partition("-")[0] + "-generic",
        f"Linux {uname[1]} ": f"Linux {NODE} ",
    }


def versions_of(text: str) -> dict[str, Read]:
    """Return what the programs printed of their versions."""
    found = {}
    for line, pattern in PROGRAMS:
        said = re.search(rf"^{pattern}$", text, re.MULTILINE)
        if said is None:
            msg = f"versions.txt has no '{line}'"
            raise ValueError(msg)
        found[f"exec:{line}"] = Read(text=said[0] + "\n", code=0)
    return found


def state_of(state: Path) -> dict[str, Read]:
    """Return the reads that a state's copies answer: the folders were copied whole, so what is not there is absent."""
    main = (state / "etc-containerd/config.toml").read_text(encoding="utf-8")
    programs = tuple(Entry(name) for name in UNPACKED)
    reads: dict[str, Read] = {
        "exec:containerd config dump": Read(text=(state / "dump.toml").read_text(encoding="utf-8"), code=0),
        "list:/usr/bin": Read(entries=programs, filtered=r"^nvidia-c|^containerd$|^runc$"),
        "file:/etc/nvidia-container-runtime/config.toml": Read(absent=True),
        "file:/etc/containerd/config.toml": Read(text=main),
    }
    for path in ("etc/containerd/conf.d", "etc/containerd/config.d", "etc/cdi", "var/run/cdi"):
        first, *rest = path.rsplit("/", 1) if path.startswith("etc/containerd") else (path,)
        copy = state.joinpath(first.replace("/", "-"), *rest)
        files = sorted(copy.iterdir()) if copy.is_dir() else []
        entries = tuple(Entry(one.name, size=one.stat().st_size) for one in files)
        reads[f"list:/{path}"] = Read(entries=entries) if files else Read(absent=True)
        reads |= {f"file:/{path}/{one.name}": Read(text=one.read_text(encoding="utf-8")) for one in files}
    return reads


def scrubbed(
    name: str, reads: Mapping[str, Read], log: str, at: str, secrets: Mapping[str, str]
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the bundle of a state, without what must not be in it."""
    record = HostRecord(HOST_FORMAT, reads, read_at=at)
    files = {
        f"nodes/{NODE}/host.json": msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n",
        f"nodes/{NODE}/logs/containerd.log": log.encode(),
    }
    for path, content in files.items():
        text = re.sub(r"/tmp/tmp\.\w+", "/srv/containerd", content.decode())  # noqa: S108  a path in a recorded log
        for secret, instead in secrets.items():
            text = text.replace(secret, instead)
        files[path] = text.encode()
    run = msgspec.convert(
        {
            "id": name,
            "started": at,
            "gathered_at": at,
            "profile": "troubleshoot",
            "options": {},
            "source": f"the recording {name}",
        },
        RunRecord,
    )
    asked = Asked(host={NODE: (*reads, "log:containerd")})
    manifest = Manifest(
        format=BUNDLE_FORMAT, tool="gpucheck import", run=run, provenance="recorded", asked=asked, not_real=NOT_REAL
    )
    return manifest, files


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

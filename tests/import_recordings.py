"""Imports every state of a folder of recordings into fixtures/bundles/recorded, with what is not real in them.

Run by hand: `python tests/import_recordings.py FOLDER`, with the library on the path. Not a test.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Final

import msgspec

from kube_gpucheck.evidence.bundle import Bundle, open_bundle, write_bundle
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.imports.recording import import_recording, recognise
from kube_gpucheck.model import Missing

RECORDED: Final = Path(__file__).resolve().parents[1] / "fixtures" / "bundles" / "recorded"

NOT_REAL_CLUSTER: Final = (
    "Node Feature Discovery does not run: its CRDs are real and GFD wrote a real NodeFeature, a script set the labels",
    "container images were made locally under the upstream names",
    "no libnvidia-container is installed: the toolkit's mode auto means jit-cdi, and no CDI specification is healthy",
    "containerd 1.6's CRI has no CDI support; the cgroup driver is cgroupfs",
    "node name and addresses are replaced, the kernel release's suffix is changed",
)
NOT_REAL_HOST: Final = ("the host's name is replaced, the kernel release's suffix is changed",)
NOT_REAL_OF: Final = {
    "driver-library-version-mismatch": ("the user-space libraries are copies with another version patched in",),
}

HEAD: Final = """# Recorded bundles

Real components on nodes with one NVIDIA H200 (two where the name says so) and driver 580.159.04 (open kernel
modules); each fault was made on purpose. `bundle.json` says of each what is not real. A dash: the state's own
evidence does not tell it.
Those named `host-…` are of `gpucheck run --host` on a virtual machine without Kubernetes, those named `engine-…` of
`gpucheck collect --host` on such a machine with Debian's containerd 1.6.20 and the NVIDIA Container Toolkit 1.20.0,
written by `tests/record_hosts.py`; the others by `tests/import_recordings.py`.

| state | driver | GPU | Kubernetes | recorded (UTC) |
| --- | --- | --- | --- | --- |
"""


def main(folder: Path) -> int:
    """Write one bundle a state, and the page that lists them. Replaces what is there."""
    for state in sorted(path for path in folder.iterdir() if path.is_dir() and recognise(path)):
        notes = NOT_REAL_CLUSTER if (state / "objects.json").exists() else NOT_REAL_HOST
        manifest, files = import_recording(state, not_real=notes + NOT_REAL_OF.get(state.name, ()))
        target = RECORDED / state.name
        shutil.rmtree(target, ignore_errors=True)
        write_bundle(target, manifest, files)
        print(target)
    write_page()
    return 0


def write_page() -> None:
    """Write the page that lists all recordings."""
    rows = [row(one.name, open_bundle(one)) for one in sorted(RECORDED.iterdir()) if one.is_dir()]
    (RECORDED / "README.md").write_text(HEAD + "".join(rows), encoding="utf-8")


def row(name: str, bundle: Bundle) -> str:
    """Return a state's line: what its own evidence tells, and a dash for what it does not."""
    discovery = bundle.discovery()
    nodes = bundle.kind("nodes")
    version = "–" if isinstance(discovery, Missing) else discovery.value.version
    labels = "" if isinstance(nodes, Missing) else msgspec.json.encode(nodes.value).decode()
    host = Host(bundle, bundle.hosts[0])
    driver = host.file("/sys/module/nvidia/version")
    gpu = host.nvml("nvmlDeviceGetName(0)")
    labelled = {
        key: re.search(rf'"nvidia\.com/{re.escape(key)}": ?"([^"]+)"', labels)
        for key in ("cuda.driver-version.full", "gpu.product")
    }
    found = labelled["cuda.driver-version.full"]
    module = (found[1] if found else "–") if isinstance(driver, Missing) else str(driver.value).strip()
    found = labelled["gpu.product"]
    product = (found[1] if found else "–") if isinstance(gpu, Missing) else str(gpu.value.value)
    return f"| {name} | {module} | {product} | {version} | {bundle.gathered_at:%Y-%m-%d %H:%M:%S} |\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Imports every state of a folder of recordings into fixtures/bundles/recorded, with what is not real in them.

Run by hand: `python tests/import_recordings.py FOLDER`, with the library on the path. Not a test.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from kube_gpucheck.evidence.bundle import Bundle, memory_bundle, encode_manifest, write_bundle
from kube_gpucheck.imports.recording import import_recording, recognise

RECORDED: Final = Path(__file__).resolve().parents[1] / "fixtures" / "bundles" / "recorded"

NOT_REAL_CLUSTER: Final = (
    "Node Feature Discovery: its CRDs are real and GFD wrote a real NodeFeature; a script copied the labels to the node "
    "and set feature.node.kubernetes.io/pci-10de.present",
    "container images were made locally under the upstream names",
    "no libnvidia-container is installed: the toolkit's mode auto means jit-cdi, and zero CDI specifications are healthy",
    "containerd 1.6's CRI has no CDI support; the cgroup driver is cgroupfs",
    "node name and addresses are replaced, the kernel release's suffix is changed",
)
NOT_REAL_HOST: Final = ("the host's name is replaced, the kernel release's suffix is changed",)
NOT_REAL_OF: Final = {
    "driver-library-version-mismatch": ("the user-space libraries are copies with another version string patched in",),
}


def main(folder: Path) -> int:
    """Write one bundle a state, and a page that lists them. Replaces what is there."""
    rows = []
    for state in sorted(path for path in folder.iterdir() if path.is_dir() and recognise(path)):
        notes = NOT_REAL_CLUSTER if (state / "objects.json").exists() else NOT_REAL_HOST
        manifest, files = import_recording(state, not_real=notes + NOT_REAL_OF.get(state.name, ()))
        target = RECORDED / state.name
        shutil.rmtree(target, ignore_errors=True)
        write_bundle(target, manifest, files)
        rows.append(
            _row(state.name, memory_bundle(state.name, {**files, "bundle.json": encode_manifest(manifest, files)}))
        )
        print(target)
    text = "# Recorded bundles\n\nImported by `tests/import_recordings.py`; one fault each, made on purpose. `bundle.json` says what is not real.\n\n"
    table = "| state | driver | GPU | Kubernetes | recorded |\n| --- | --- | --- | --- | --- |\n"
    (RECORDED / "README.md").write_text(text + table + "".join(rows), encoding="utf-8")
    return 0


def _row(name: str, bundle: Bundle) -> str:
    discovery = bundle.discovery()
    version = getattr(getattr(discovery, "value", None), "version", None) or "none"
    return f"| {name} | 580.159.04 (open) | H200 | {version} | {bundle.gathered_at:%Y-%m-%d %H:%M:%S} UTC |\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

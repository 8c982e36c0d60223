"""Makes recordings of the bundles that `gpucheck run --host --bundle` wrote, without what names machine or GPU.

Run by hand: `python tests/record_hosts.py NOT_REAL NAME=BUNDLE…`, with the library on the path: NAME is the recording's
below fixtures/bundles/recorded, NOT_REAL what nobody should take for real, in words. Not a test.
"""

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from import_recordings import RECORDED, write_page
from kube_gpucheck.evidence.bundle import BUNDLE_FORMAT, Manifest, write_bundle
from kube_gpucheck.evidence.store import open_archive

NODE: Final = "gpu-node-0"
BOOT_ID: Final = "00000000-0000-4000-8000-000000000001"
KEPT: Final = re.compile(r"nvidia|nvrm|\[10de:|Linux version|module", re.IGNORECASE)
"""Lines of the kernel's log that are kept: its beginning, and what the driver and the module loader say."""
NOT_REAL: Final = (
    "the host's name, boot id, UUIDs and serial numbers are replaced, the kernel release's suffix is changed",
    "the kernel's command line is replaced, and of its log only the lines about the driver and modules are kept",
)


def main(not_real: str, *recordings: str) -> int:
    """Write one bundle a recording, and the page that lists them all. Replaces what is there."""
    for recording in recordings:
        name, _, source = recording.partition("=")
        store = open_archive(Path(source))
        files = {path: store.read(path) or b"" for path in store.paths()}
        target = RECORDED / name
        shutil.rmtree(target, ignore_errors=True)
        write_bundle(target, *recorded(name, files, not_real=not_real))
        print(target)
    write_page()
    return 0


def recorded(name: str, files: Mapping[str, bytes], *, not_real: str) -> tuple[Manifest, dict[str, bytes]]:
    """Return a bundle's manifest and files as a recording's."""
    manifest = msgspec.json.decode(files["bundle.json"], type=Manifest)
    if manifest.format != BUNDLE_FORMAT or len(manifest.asked.host) != 1:
        raise SystemExit(f"{name}: not the bundle of one host")
    host = next(iter(manifest.asked.host))
    report = json.loads(files[f"nodes/{host}/host.json"])
    names = replacements(report, host)
    report["boot_id"] = BOOT_ID
    report["reads"]["file:/proc/cmdline"] = {"text": "quiet\n"}
    clean: dict[str, bytes] = {}
    for path, content in files.items():
        if path == "bundle.json":
            continue
        text = content.decode() if not path.endswith("/host.json") else json.dumps(report, indent=1) + "\n"
        if path.endswith("/logs/kernel.log"):
            text = "".join(line for line in text.splitlines(keepends=True) if KEPT.search(line))
        clean[renamed(path, names)] = renamed(text, names).encode()
    asked = renamed(msgspec.json.encode(manifest.asked).decode(), names)
    missing = renamed(msgspec.json.encode(manifest.missing).decode(), names)
    run = msgspec.structs.replace(manifest.run, id=name, source=f"the recording {name}")
    return (
        msgspec.structs.replace(
            manifest,
            run=run,
            provenance="recorded",
            not_real=(*NOT_REAL, not_real),
            asked=msgspec.json.decode(asked, type=type(manifest.asked)),
            missing=msgspec.json.decode(missing, type=type(manifest.missing)),
            files={},
        ),
        clean,
    )


def replacements(report: Mapping[str, object], host: str) -> dict[str, str]:
    """Return what is replaced, as expressions, by what."""
    text = json.dumps(report)
    release = re.search(r"\bLinux \S+ (\d+\.\d+\.\d+)(-[\w.-]+)? #", text)
    found = {
        rf"(?<=nodes/){re.escape(host)}\b": NODE,
        rf"(?<=\"){re.escape(host)}(?=\":)": NODE,
        rf"(?<=\"node\":\"){re.escape(host)}(?=\")": NODE,
        rf"(?<=Linux ){re.escape(host)}(?= )": NODE,
    }
    if release and release[2]:
        found[re.escape(release[1] + release[2])] = f"{release[1]}-generic"
    for number, uuid in enumerate(dict.fromkeys(re.findall(r"(?:GPU|MIG)-[0-9a-f-]{36}", text)), 1):
        found[re.escape(uuid)] = f"{uuid[:4]}00000000-0000-4000-8000-{number:012d}"
    for number, serial in enumerate(
        dict.fromkeys(re.findall(r'nvmlDeviceGetSerial\(\d+\)": {[^}]*"value": "(\d+)"', text)), 1
    ):
        found[rf"\b{serial}\b"] = f"{1650000000000 + number}"
    found[r"(?<=Linux version )(\S+) \([^)\s]*@[^)\s]*\)"] = r"\1"
    return found


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with everything replaced."""
    for pattern, put in names.items():
        text = re.sub(pattern, put, text)
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *sys.argv[2:]))

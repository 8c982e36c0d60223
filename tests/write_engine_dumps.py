"""Records what containerd prints of the corpus: `python tests/write_engine_dumps.py PROGRAM…`.

For releases that no package brings: build them from their source, and name the programs. What stands in
tests/data/containerd_printed.yaml of other releases stays. Each configuration is `containerd config dump`'s, read as
gpucheck reads it; of 2.x, whose dump is not what its daemon runs with (docs/containerd.md), it is a daemon's own word,
started in folders of its own, which needs root. A release that refuses one has its last word on standard error.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

import engine_configurations as engines
from kube_gpucheck.evidence import containerd
from kube_gpucheck.evidence.engine import release_in


def printed_by(program: str, release: tuple[int, ...]) -> dict[str, Any]:
    """Return what one program makes of each configuration of the corpus."""
    found: dict[str, Any] = {}
    for case in engines.corpus():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            main = engines.write(case, place / "etc")
            if release >= (2, 0):
                found[case.name] = engines.loaded(program, main, place)
                continue
            text, error = engines.dump(program, main)
            found[case.name] = {"refused": error} if text is None else engines.meaning(containerd.dumped(text), release)
    return found


def main(programs: list[str]) -> None:
    """Write what the programs print into the file."""
    content = yaml.safe_load(engines.PRINTED.read_text(encoding="utf-8")) if engines.PRINTED.exists() else {}
    for program in programs:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        release = release_in(said)
        if release is None:
            sys.exit(f"{program} --version: no release in '{said.strip()}'")
        content[".".join(map(str, release))] = printed_by(program, release)
    head = "# What releases of containerd make of tests/data/containerd.yaml; written by write_engine_dumps.py.\n"
    body = yaml.safe_dump(content, sort_keys=True, width=118, default_flow_style=None)
    engines.PRINTED.write_text(head + body, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

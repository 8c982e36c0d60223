"""What the evidence makes of a real containerd: what it loads, what it refuses, and what it says of it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import suite
from bundle_builders import memory_node
from engine_configurations import PLACE, dump, program
from expectations import CAUSES
from kube_gpucheck.diagnose import load_catalogue
from kube_gpucheck.evidence import Node, containerd
from kube_gpucheck.evidence.configuration import Handler
from kube_gpucheck.evidence.engine import release_in
from kube_gpucheck.model import Judgement, Outcome, Seen, Severity

PROGRAM: Final = program()
pytestmark = [
    pytest.mark.containerd,
    pytest.mark.skipif(PROGRAM is None, reason="no containerd: install Debian's packages containerd and runc"),
]
RUNC: Final = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
NVIDIA: Final = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
    BinaryName = "/usr/bin/nvidia-container-runtime"
"""


class Containerd:
    """A containerd with root, state and socket of its own."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet."""
        self.folder = folder
        self.main = folder / "etc" / "config.toml"
        self.socket = folder / "c.sock"
        self.log = ""
        self._running: subprocess.Popen[str] | None = None

    def write(self, text: str, name: str = "config.toml") -> None:
        """Write one file of its configuration; `/R/` is its folder."""
        path = self.main.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("/R/", f"{self.main.parent}/"), encoding="utf-8")

    def start(self) -> None:
        """Start it, and wait until it has booted or given up. What it says is added to the log."""
        assert PROGRAM is not None
        places = ["--root", str(self.folder / "root"), "--state", str(self.folder / "state")]
        command = [PROGRAM, "--config", str(self.main), *places, "--address", str(self.socket)]
        self._running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/")
        assert self._running.stderr is not None
        for line in self._running.stderr:
            self.log += line
            if "successfully booted" in line:
                return
        self._running.wait(timeout=30)

    def stop(self) -> None:
        """End it."""
        if self._running is not None:
            self._running.terminate()
            self._running.communicate(timeout=30)
            self._running = None

    def node(self) -> Node:
        """Return a node whose host was read as this engine and its files are now."""
        assert PROGRAM is not None
        printed, error = dump(PROGRAM, self.main)
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        reads: dict[str, Any] = {
            "exec:containerd config dump": {"text": printed or error, "code": 0 if printed else 1},
            "log:containerd": {"text": ""},
        }
        for path in sorted(self.main.parent.rglob("*.toml")):
            text = path.read_text(encoding="utf-8").replace(str(self.main.parent), PLACE)
            reads[f"file:{PLACE}/{path.relative_to(self.main.parent)}"] = {"text": text}
            for named in re.findall(r'"(/[^"*]+\.toml)"', text):
                reads.setdefault(f"file:{named}", {"absent": True})
        below = self.main.parent / "conf.d"
        entries = [{"name": one.name, "type": "file"} for one in sorted(below.glob("*"))]
        reads[f"list:{PLACE}/conf.d"] = {"entries": entries} if entries else {"absent": True}
        release = release_in(said)
        assert release is not None
        engine = f"containerd://{'.'.join(map(str, release))}"
        return memory_node(reads, engine=engine, logs={"containerd": self.log})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Containerd]:
    """Return a containerd that is ended with the test."""
    found = Containerd(tmp_path)
    yield found
    found.stop()


def judged(check: str, node: Node) -> Judgement | None:
    """Return what one check says of the node, None if it passes."""
    (chosen,) = (one for one in suite.all_checks() if one.info.id == check)
    result = suite.judge_one(chosen, node.cluster.bundle)
    assert len(result.passed) + len(result.others) == 1
    return next(iter(result.others), None)


def test_a_file_that_is_written_after_the_start_is_configured_and_not_loaded(engine: Containerd) -> None:
    engine.write('version = 2\nimports = ["/R/conf.d/*.toml"]\n' + RUNC)
    engine.start()
    engine.write("version = 2\n" + RUNC + NVIDIA, "conf.d/99-nvidia.toml")

    found = judged("RTM-005", engine.node())

    assert found is not None
    assert found.outcome is Outcome.FAULT
    assert found.seen == (
        f"{PLACE}/conf.d/99-nvidia.toml has handler 'nvidia'; the running engine has not (what the engine's log says "
        "of its last start)"
    )
    engine.stop()
    engine.start()
    assert judged("RTM-005", engine.node()) is None


def test_another_program_in_the_file_than_in_the_running_engine_is_told_apart(engine: Containerd) -> None:
    engine.write("version = 2\n" + RUNC + NVIDIA.replace("/usr/bin/", "/usr/local/nvidia/toolkit/"))
    engine.start()
    engine.write("version = 2\n" + RUNC + NVIDIA)

    found = judged("RTM-005", engine.node())

    assert found is not None
    assert found.seen.startswith(
        "handler 'nvidia' calls /usr/bin/nvidia-container-runtime in the configuration and "
        "/usr/local/nvidia/toolkit/nvidia-container-runtime in the running engine"
    )


def test_the_engines_log_says_which_handlers_it_started_with(engine: Containerd) -> None:
    engine.write("version = 2\n" + RUNC + NVIDIA.replace('time"', 'time"\n    SystemdCgroup = true'))
    engine.start()

    nvidia = Handler("nvidia", "/usr/bin/nvidia-container-runtime", "io.containerd.runc.v2", systemd_cgroup=True)
    assert containerd.started_with(engine.log) == (nvidia, Handler("runc", None, "io.containerd.runc.v2"))


def test_a_drop_in_that_takes_runc_away_keeps_the_cri_plugin_from_loading(engine: Containerd) -> None:
    engine.write('version = 2\nimports = ["/R/conf.d/*.toml"]\n' + RUNC)
    engine.write("version = 2\n" + NVIDIA, "conf.d/99-nvidia.toml")
    engine.start()

    runtime = engine.node().runtime

    assert isinstance(runtime.configuration, Seen)
    assert runtime.configuration.value.find("runc") is None
    assert runtime.import_dropped_default == Seen(value=True)
    assert isinstance(runtime.engine.complaint, Seen)
    assert "no corresponding runtime configured" in (runtime.engine.complaint.value or "")
    assert (runtime.engine.complaint.value or "").endswith('default_runtime_name = "runc"')


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('version = 2\n[plugins."io.containerd.grpc.v1.cri"\n', 2),
        ('version = 2\n\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a]\nruntime_type = 5\n', 4),
        ('version = 2\ndisabled_plugins = ["cri"]\n', 2),
        ('version = 2\nimports = ["/R/gone.toml"]\n', None),
    ],
)
def test_what_keeps_the_engine_from_starting_is_named(engine: Containerd, text: str, line: int | None) -> None:
    engine.write(text)
    engine.start()
    node = engine.node()

    assert "successfully booted" not in engine.log
    assert isinstance(node.runtime.refusal, Seen)
    assert re.search(rf":{line}\b|line {line}\b|gone\.toml", node.runtime.refusal.value or "")
    found = judged("RTM-017", node)
    assert found is not None
    assert found.severity is Severity.CRITICAL
    assert (node.runtime.refusal.value or "?") in found.means


def test_a_handler_whose_program_is_missing_fails_as_the_catalogue_says(engine: Containerd) -> None:
    engine.write("version = 2\n" + RUNC)
    engine.start()
    rootfs = engine.folder / "rootfs"
    rootfs.mkdir()

    command = ["ctr", "--address", str(engine.socket), "run", "--rm", "--rootfs"]
    done = subprocess.run(
        [*command, "--runc-binary", "/usr/bin/nvidia-container-runtime", str(rootfs), "test", "/bin/true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    catalogue = load_catalogue({path.name: path.read_bytes() for path in sorted(CAUSES.glob("*.yaml"))})
    (cause,) = (one for one in catalogue.causes if one.id == "runtime-binary-missing")
    patterns = [leaf.event.re for sign in cause.needs for leaf in sign.leaves if leaf.event is not None]
    assert done.returncode != 0
    assert patterns
    assert all(re.search(pattern, done.stderr) for pattern in patterns), done.stderr

"""The commands that speak to a cluster, through their front door and a real socket."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import suite
from kube_gpucheck import cli
from kube_gpucheck.cli.live import Gathered, ThisHost, of_this_place
from kube_gpucheck.collect.progress import SILENT
from kube_gpucheck.errors import UsageError
from kube_gpucheck.simulate.server import EmbeddedCluster

UNDESIRED = "tutorial/06-plugin-undesired"


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's home, and no cluster but the one that a test names."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of a simulated cluster that is served while the test runs."""
    with EmbeddedCluster(suite.LIBRARY.build(UNDESIRED), name="stage-06") as cluster:
        path = tmp_path / "kubeconfig"
        path.write_text(cluster.kubeconfig())
        yield path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of one command."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def found_here(kubeconfig: Path | None = None, *, sign: str | None, host: bool = False) -> Gathered | ThisHost:
    """Return what is judged with nothing else said, on a host where `sign` says that a GPU is there."""
    return of_this_place(
        kubeconfig, None, progress=SILENT, timeout_s=60, pod=None, host=host, look_for_gpu=lambda: sign
    )


def test_without_a_cluster_and_a_gpu_it_says_what_else_can_be_judged() -> None:
    with pytest.raises(UsageError) as refused:
        found_here(sign=None)
    said_here = str(refused.value)
    assert "no cluster was found" in said_here
    assert "no NVIDIA GPU on this host" in said_here
    assert "--simulate" in said_here
    assert "--from" in said_here


def test_one_pod_is_looked_for_in_a_cluster_alone(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "run", "--pod", "team-a/train-0")
    assert (status, out) == (2, "")
    assert "no cluster was found" in err
    assert "GPU" not in err


def test_without_a_cluster_the_host_of_a_gpu_is_judged_alone(capsys: pytest.CaptureFixture[str]) -> None:
    source = found_here(sign="an NVIDIA GPU at 0000:01:00.0")
    assert isinstance(source, ThisHost)
    assert capsys.readouterr().err == (
        "gpucheck: no cluster was found, and an NVIDIA GPU at 0000:01:00.0: this host is judged alone\n"
    )


def test_a_cluster_and_the_host_of_a_gpu_are_judged_together(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    source = found_here(sign="an NVIDIA GPU at 0000:01:00.0")
    assert "both are judged" in capsys.readouterr().err

    bundle = source.gather(tmp_path / "both")

    assert bundle.manifest.asked.api
    assert len(set(bundle.hosts) - {"dxlab-nb-00"}) == 1  # beside the node that the scenario has


def test_a_cluster_that_is_named_is_judged_without_this_host_unless_it_is_asked_for(kubeconfig: Path) -> None:
    named = found_here(kubeconfig, sign="an NVIDIA GPU at 0000:01:00.0")
    both = found_here(kubeconfig, sign=None, host=True)
    assert isinstance(named, Gathered)
    assert isinstance(both, Gathered)
    assert not named.reads_host
    assert both.reads_host


def test_this_host_is_judged_whatever_is_on_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    status, out, err = said(capsys, "run", "--host", "--bundle", str(kept))
    assert status in {0, 1, 4}
    assert out.startswith("gpucheck · host ")
    assert "this host: " in err
    assert json.loads((kept / "bundle.json").read_text())["provenance"] == "live"
    assert [path.name for path in kept.glob("nodes/*/host.json")] == ["host.json"]


def test_collecting_this_host_gives_what_a_run_judges(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "host.tar.gz"
    status, out, _ = said(capsys, "collect", "--host", "-o", str(target), "-q")
    assert status == 0
    assert f"gpucheck run --from {target}" in out
    assert said(capsys, "run", "--from", str(target), "-q")[0] in {0, 1, 4}


@pytest.mark.parametrize("other", [("--from", "complete"), ("--simulate", "complete"), ("--pod", "a/b")])
def test_this_host_and_another_place_are_not_judged_in_one_run(
    capsys: pytest.CaptureFixture[str], other: tuple[str, str]
) -> None:
    status, _, err = said(capsys, "run", "--host", *other)
    assert status == 2
    assert "--host" in err
    assert other[0] in err


def test_the_cluster_of_a_kubeconfig_is_judged(capsys: pytest.CaptureFixture[str], kubeconfig: Path) -> None:
    status, out, err = said(capsys, "run", "--kubeconfig", str(kubeconfig))
    assert status == 1
    assert " 1  nfd-label-missing " in out
    assert "nodes: 1\n" in err


def test_the_kubeconfig_of_the_environment_is_found(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    status, out, err = said(capsys, "run", "--quiet")
    assert (status, err) == (1, "")
    assert "nfd-label-missing" in out


def test_a_context_that_is_not_there_is_refused_with_those_that_are(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path
) -> None:
    status, _, err = said(capsys, "run", "--kubeconfig", str(kubeconfig), "--context", "other")
    assert status == 2
    assert "other" in err
    assert "simulated-stage-06" in err


def test_a_server_that_does_not_answer_ends_the_run_with_status_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with EmbeddedCluster(suite.LIBRARY.build("complete"), name="gone") as cluster:
        text = cluster.kubeconfig()
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    status, out, err = said(capsys, "run", "--kubeconfig", str(path), "--timeout", "2s")
    assert (status, out) == (3, "")
    assert "127.0.0.1" in err
    assert "simulated-gone" in err


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    said_here = said(capsys, "run", *arguments, "--json", "-", "--quiet")
    found: dict[str, object] = json.loads(said_here[1])
    found.pop("run")
    return found


@pytest.mark.parametrize("name", [UNDESIRED, "complete", "recorded/no-runtimeclass"])
def test_a_simulated_run_says_what_judging_the_bundle_says(capsys: pytest.CaptureFixture[str], name: str) -> None:
    origin = str(suite.FIXTURES / "bundles" / name) if name.startswith("recorded") else name
    assert report(capsys, "--simulate", origin) == report(capsys, "--from", origin)


def test_a_simulated_run_is_labelled_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "run", "--simulate", "complete")
    assert "(simulated)" in out.splitlines()[0]


def test_the_evidence_of_a_run_can_be_kept_and_judged_again(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    live = report(capsys, "--kubeconfig", str(kubeconfig), "--bundle", str(kept))
    assert json.loads((kept / "bundle.json").read_text())["provenance"] == "live"
    assert report(capsys, "--from", str(kept)) == live
    status, _, err = said(capsys, "run", "--kubeconfig", str(kubeconfig), "--bundle", str(kept))
    assert status == 2
    assert "already there" in err


@pytest.mark.parametrize("name", ["evidence", "evidence.tar.gz"])
def test_collecting_only_gathers(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    status, out, _ = said(capsys, "collect", "--kubeconfig", str(kubeconfig), "-o", str(target))
    assert status == 0
    assert f"gpucheck run --from {target}" in out
    assert target.is_file() is name.endswith(".tar.gz")
    assert said(capsys, "run", "--from", str(target), "-q")[0] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_archive_has_one_folder_at_its_top(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, tmp_path: Path
) -> None:
    target = tmp_path / "evidence.tar.gz"
    said(capsys, "collect", "--kubeconfig", str(kubeconfig), "-o", str(target), "-q")
    with tarfile.open(target) as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == {"evidence"}


def test_what_cannot_be_written_is_found_before_anything_is_collected(
    capsys: pytest.CaptureFixture[str], kubeconfig: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        status, _, err = said(capsys, "collect", "--kubeconfig", str(kubeconfig), "-o", str(target))
        assert status == 2
        assert "nodes: 1" not in err


def test_waiting_ends_at_once_where_no_waiting_heals(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "run", "--simulate", UNDESIRED, "--wait", "10m", "-q")
    assert status == 1
    assert "nfd-label-missing" in out
    assert "final after 1 round: no waiting heals nfd-label-missing (dxlab-nb-00: " in err


def test_waiting_ends_at_once_where_all_passes(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, "run", "--simulate", "complete", "--wait", "10m", "-q")
    assert status == 0
    assert "final after 1 round: everything that was asked for passes" in err


def test_waiting_says_what_it_waits_for_and_ends_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    origin = str(suite.FIXTURES / "bundles" / "recorded" / "plugin-image-pull-fails")
    status, _, err = said(capsys, "run", "--simulate", origin, "--wait", "1s", "-q")
    assert status == 1
    assert "waiting (1 s left) for daemonset nvidia-device-plugin/nvidia-device-plugin: it was created" in err
    assert "the time is over (1 s, no other look fits in), still under way: daemonset" in err


class Served:
    """A `gpucheck serve` in a process of its own, which has written its kubeconfig."""

    def __init__(self, kubeconfig: Path, process: "subprocess.Popen[str]", first: str) -> None:
        self.kubeconfig = kubeconfig
        self.first = first
        self._process = process

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """End it, and return its exit status and what it said to standard error."""
        self._process.send_signal(how)
        _, err = self._process.communicate(timeout=30)
        return self._process.returncode, err


@contextlib.contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    """Serve while the context lasts, or until the test ends it."""
    kubeconfig = folder / "served.kubeconfig"
    command = [sys.executable, "-m", "kube_gpucheck", "serve", *arguments, "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(60, process.kill)
        killer.start()
        assert process.stdout is not None
        try:
            yield Served(kubeconfig, process, process.stdout.readline())
        finally:
            killer.cancel()
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_serving_ends_with_a_signal_and_takes_its_kubeconfig_away(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path, UNDESIRED) as served:
        assert served.first.startswith("tutorial-06-plugin-undesired (simulated) at http://127.0.0.1:")
        assert served.kubeconfig.stat().st_mode & 0o077 == 0
        assert cli.main(["run", "--kubeconfig", str(served.kubeconfig), "-q"]) == 1
        assert served.end(how) == (0, "")
    assert not served.kubeconfig.exists()


class Begun:
    """A `gpucheck` in a process of its own, with a temporary folder of its own, that has said something."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        environment = {**os.environ, "TMPDIR": str(self.scratch)}
        # whoever starts the tests in the background has Ctrl-C ignored, and so have their children
        heeding = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
        command = [sys.executable, "-c", f"{heeding}; from kube_gpucheck.cli import main; sys.exit(main())", *arguments]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self._process.stderr.readline()

    def end(self, how: signal.Signals) -> tuple[int, str, float]:
        """Send a signal twice; return exit status, last words, and the seconds that they took."""
        began = time.monotonic()
        self._process.send_signal(how)
        threading.Event().wait(0.02)
        self._process.send_signal(how)
        try:
            _, err = self._process.communicate(timeout=20)
        finally:
            self._process.kill()
        return self._process.returncode, err, time.monotonic() - began


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (signal.SIGINT, "gpucheck: interrupted"),
        (signal.SIGTERM, "gpucheck: interrupted (SIGTERM)"),
        (signal.SIGHUP, "gpucheck: interrupted (SIGHUP)"),
    ],
)
@pytest.mark.parametrize("kept", [(), ("--bundle", "b.tar.gz"), ("--bundle", "b")])
def test_a_signal_ends_a_run_at_once_and_leaves_no_evidence_behind(
    tmp_path: Path, how: signal.Signals, words: str, kept: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with serving(tmp_path, "complete", "--fault", "stall:pods") as served:
        option = [*kept[:1], *(str(out / name) for name in kept[1:])]
        run = Begun(tmp_path, "run", "--kubeconfig", str(served.kubeconfig), *option)
        status, err, seconds = run.end(how)
    assert (status, err.splitlines()[-1]) == (3, words)
    assert "Traceback" not in err
    assert seconds < 10  # the server is silent for 60
    assert list(out.iterdir()) == []
    assert list(run.scratch.iterdir()) == []


def test_a_generated_cluster_is_served_and_its_broken_node_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, "--nodes", "6", "--broken", "not-ready=0.2") as served:
        status, out, _ = said(capsys, "run", "--kubeconfig", str(served.kubeconfig), "-q")
    assert status == 1
    assert "node-not-ready" in out


def test_a_fault_on_demand_is_met_and_overcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, UNDESIRED, "--fault", "503:pods*1") as served:
        status, out, _ = said(capsys, "run", "--kubeconfig", str(served.kubeconfig), "-q")
    assert status == 1
    assert "nfd-label-missing" in out


def test_the_timeout_holds_where_a_body_comes_in_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, "complete", "--fault", "slow=30:pods") as served:
        began = time.monotonic()
        status, out, _ = said(capsys, "run", "--kubeconfig", str(served.kubeconfig), "-q", "--timeout", "2s")
    assert time.monotonic() - began < 15
    assert status == 4
    assert "nothing had come when the 2 s of this collection were over" in out


def test_a_kubeconfig_of_somebody_else_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "config"
    mine.write_text("current-context: production\n")
    status, _, err = said(capsys, "serve", "complete", "--kubeconfig", str(mine))
    assert status == 2
    assert "not of a simulated cluster" in err
    assert mine.read_text() == "current-context: production\n"


def test_kubectl_runs_it_as_a_plugin() -> None:
    scripts = Path(sys.executable).parent
    if shutil.which("kubectl", path=str(scripts)) is None or not (scripts / "kubectl-gpucheck").exists():
        pytest.skip("no kubectl beside this Python")
    environment = {**os.environ, "PATH": str(scripts)}
    command = ["kubectl", "gpucheck", "run", "--simulate", "complete", "--quiet"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("option", ["--from", "--simulate"])
def test_a_recipe_s_file_stands_where_a_scenario_s_name_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text('from: complete\ndelete: [{kind: runtimeclasses.node.k8s.io, name: "*"}]\n')
    status, out, _ = said(capsys, "run", option, str(recipe), "-q")
    assert status == 1
    assert "(simulated)" in out


def test_a_wrong_recipe_is_told_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.yml"
    recipe.write_text("from: no/such\n")
    status, _, err = said(capsys, "run", "--from", str(recipe))
    assert status == 2
    assert "no scenario or bundle is called 'no/such' (named by 'from' in 'mine')" in err

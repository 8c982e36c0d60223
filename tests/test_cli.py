"""The command through its front door: what it prints, writes and returns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bundle_builders
import suite
from kube_gpucheck import cli

USER_CHECK = '''
"""A user's check."""
from kube_gpucheck.evidence import {kind}
from kube_gpucheck.judging import check, fault
from kube_gpucheck.model import Layer, Severity


@check("{identifier}", layer=Layer.CLUSTER, severity=Severity.MAJOR)
def check_mine({parameters}) -> None:
    """Mine holds."""
    {body}
'''


def user_check(
    folder: Path, body: str = "pass", *, identifier: str = "USR-001", parameters: str = "node: Node", kind: str = "Node"
) -> Path:
    """Write a user's check into a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "check_mine.py").write_text(
        USER_CHECK.format(body=body, identifier=identifier, parameters=parameters, kind=kind)
    )
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_builders.write(tmp_path / "bundle", bundle_builders.files())


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of one command."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--from", "complete", "--simulate", "complete"], "one run judges one source"),
        (["run", "--from", "complete", "--wait", "5m"], "--wait with --from"),
        (["run", "--simulate", "complete", "--wait", "soon"], "--wait soon: not a duration"),
        (["run", "--simulate", "complete", "--timeout", "0s"], "--timeout 0s: not a duration"),
        (["run", "--simulate", "complete", "--pod", "train"], "--pod train: write it as NAMESPACE/NAME"),
        (
            ["run", "--from", "complete", "--pod", "nvidia-device-plugin/nvdp-nvidia-device-plugin-6xkzn"],
            "a pod of the GPU stack (device plugin), which is judged with its DaemonSet or Deployment; leave --pod out",
        ),
        (["run", "--simulate", "complete", "--pod", "no/such"], "pod 'no/such': pods \"such\" not found"),
        (["run", "--from", "no/such"], "neither a bundle's path nor a scenario"),
        (["run", "--simulate", "no/such"], "neither a bundle's path nor a scenario"),
        (["run", "--probe"], "--probe is not there yet"),
        (["run", "--html=x", "--from", "x"], "--html is not there yet"),
        (["cleanup"], "'cleanup' is not there yet"),
        (["serve", "--kubeconfig", "x"], "nothing to serve"),
        (["serve", "no/such", "--kubeconfig", "x"], "neither a bundle's path nor a scenario"),
        (["serve", "complete", "--kubeconfig", "x", "--fault", "nonsense"], "nonsense"),
        (["serve", "complete", "--kubeconfig", "x", "--port", "99999"], "--port 99999: expected 0 (any) to 65535"),
        (["serve", "complete", "--kubeconfig", "x", "--seed", "2"], "say how large it is with --nodes"),
        (["serve", "complete", "--kubeconfig", "x", "--nodes", "2"], "serve one of them"),
        (["serve", "--kubeconfig", "x", "--nodes", "2", "--broken", "x=1"], "x"),
        (["run", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["show", "runtime", "no-such", "--from", "complete"], "show runtime no-such: no such node in the evidence"),
        (["show", "pod", "x", "--from", "complete"], "invalid choice: 'pod'"),
        (["explain", "XYZ-999"], "'XYZ-999' is no check, cause, layer or code (xid 79)"),
        (["list", "nonsense"], "invalid choice: 'nonsense'"),
        (["import", "/no/such", "-o", "x"], "no such folder"),
    ],
)
def test_wrong_usage_is_named_with_a_way_out(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    status, out, err = said(capsys, *arguments)
    assert (status, out) == (2, "")
    assert expected in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layer", "drivers"], "--layer drivers: expected one of cluster, driver"),
        (["--fail-on", "fatal"], "--fail-on fatal: expected one of critical, major, minor, info"),
        (["-k", "and and"], "-k 'and and': not an expression"),
        (["-k", "nosuchcheck"], "no check is selected by -k 'nosuchcheck'"),
        (["-k", ""], "-k '': empty"),
        (["--node", ""], "--node '': empty"),
        (["--node", "gpu-9"], "--node gpu-9: no such node in the evidence; there are gpu-0"),
        (["--checks", "/no/such"], "no such folder"),
        (["--expect-gpu-nodes", "-1"], "expected 0 or more"),
        (["--junit", "/no/such/folder/x.xml"], "name a file that can be written"),
    ],
)
def test_a_wrong_option_of_run_is_named_with_a_way_out(
    capsys: pytest.CaptureFixture[str], bundle: Path, arguments: list[str], expected: str
) -> None:
    status, _, err = said(capsys, "run", "--from", str(bundle), *arguments)
    assert status == 2
    assert expected in err


def test_a_users_check_is_judged_beside_ours(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    checks = user_check(tmp_path / "mine", 'fault(seen="seven", means="six", remedy="five")')
    status, out, _ = said(capsys, "run", "--from", str(bundle), "--checks", str(checks), "-k", "USR-001", "--json", "-")
    report = json.loads(out)
    assert (status, report["findings"][0]["seen"], report["findings"][0]["subject"]["name"]) == (1, "seven", "gpu-0")


def test_a_users_check_that_raises_is_our_error_and_never_a_pass(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    checks = user_check(tmp_path / "mine", "raise KeyError(node.name)")
    status = cli.main(["run", "--from", str(bundle), "--checks", str(checks), "-k", "USR-001"])
    out = capsys.readouterr().out
    assert status == 3
    assert "KeyError: 'gpu-0'" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"parameters": "node: Node, other: Node"}, "2 parameters, expected one"),
        ({"parameters": "node: int"}, "has no subject's type"),
        ({"identifier": "RTC-001"}, "takes the id RTC-001"),
        ({"identifier": "mine"}, "'mine' is no check id"),
        ({"body": "pass\nimport nothing_of_that_name"}, "ModuleNotFoundError"),
        ({"body": "(("}, "SyntaxError"),
    ],
)
def test_a_users_check_that_is_declared_wrongly_is_refused(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path, change: dict[str, str], expected: str
) -> None:
    checks = user_check(tmp_path / "mine", **change)
    status, _, err = said(capsys, "run", "--from", str(bundle), "--checks", str(checks))
    assert status == 2
    assert expected in err
    assert "check_mine.py" in err


def test_a_hostile_surrounding_changes_nothing(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    before = set(tmp_path.rglob("*"))
    status, _, err = said(capsys, "run", "--from", str(bundle), "-k", "RTC-001", "--json", "-")
    assert (status, err) == (0, "")
    assert set(tmp_path.rglob("*")) == before


def test_a_narrowed_run_names_the_cause_that_the_whole_run_names(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "run", "--from", "tutorial/06-plugin-undesired", "-k", "PLG-003", "--json", "-")
    report = json.loads(out)
    found = (status, report["first_cause"], [check["id"] for check in report["checks"]])
    assert found == (1, "nfd-label-missing", ["PLG-003"])


def test_a_narrowed_run_says_what_it_was_narrowed_to(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "run", "--from", "tutorial/06-plugin-undesired", "--layer", "driver", "-q")
    assert "(judged: layer driver)" in out


def test_a_host_alone_is_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "run", "--from", str(suite.FIXTURES / "bundles" / "recorded" / "bare-host"), "-q")
    assert "no cluster was looked at" in " ".join(out.split())


@pytest.mark.parametrize("damage", [b"{", b'{"items": [5]}', b"\xff", b"[]"])
def test_an_unreadable_list_of_nodes_is_told_in_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: bytes
) -> None:
    folder = bundle_builders.write(tmp_path / "b", {**bundle_builders.files(), "cluster/nodes.json": damage})
    assert said(capsys, "run", "--from", str(folder))[0] == 4


@pytest.mark.parametrize("body", ["yield", "return False", "raise SystemExit(0)", "import pytest; pytest.skip('no')"])
def test_a_users_check_that_does_not_judge_is_never_a_pass(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path, body: str
) -> None:
    checks = user_check(tmp_path / "mine", body)
    status = cli.main(["run", "--from", str(bundle), "--checks", str(checks), "-k", "USR-001"])
    capsys.readouterr()
    assert status in {2, 3}


def test_a_folder_without_checks_is_refused(capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    status, _, err = said(capsys, "run", "--from", str(bundle), "--checks", str(tmp_path / "mine"))
    assert (status, "no check_*.py" in err) == (2, True)


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full", "| head -1"])
def test_an_output_that_cannot_be_written_is_told_in_a_line(redirection: str) -> None:
    line = f"{sys.executable} -m kube_gpucheck run --from complete {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr


def test_letters_that_the_terminal_lacks_become_words(bundle: Path) -> None:
    line = [sys.executable, "-m", "kube_gpucheck", "run", "--from", "complete"]
    done = subprocess.run(line, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout.count(b"?") == 0
    assert re.search(rb" ok (\d+) of \1 pass", done.stdout)


def test_the_json_report_says_the_exit_status(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    status, out, _ = said(capsys, "run", "--from", str(bundle), "--json", "-")
    assert json.loads(out)["exit_code"] == status


def test_an_empty_bundle_is_no_pass(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = bundle_builders.write(
        tmp_path / "empty", {"bundle.json": bundle_builders.files(asked={"api": ["nodes", "pods"]})["bundle.json"]}
    )
    assert said(capsys, "run", "--from", str(folder), "--allow-unknown")[0] == 4


def test_everything_missing_is_unknown_check_by_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = bundle_builders.write(tmp_path / "gone", {"bundle.json": bundle_builders.files()["bundle.json"]})
    _, out, _ = said(capsys, "run", "--from", str(folder), "--json", "-")
    assert [check["id"] for check in json.loads(out)["checks"] if check["pass"] or check["fault"]] == []


def test_a_recording_is_not_written_into(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = said(capsys, "import", str(tmp_path), "-o", str(tmp_path / "bundle"))
    assert (status, "inside the recording" in err) == (2, True)


def test_a_file_is_no_recording(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(b"x")
    status, _, err = said(capsys, "import", str(tmp_path / "archive.tar.gz"), "-o", str(tmp_path / "bundle"))
    assert (status, "a file; unpack it first" in err) == (2, True)


def test_a_broken_pipe_is_no_traceback(bundle: Path) -> None:
    line = f"{sys.executable} -m kube_gpucheck list checks | true"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False, cwd=bundle)
    assert b"Traceback" not in done.stderr

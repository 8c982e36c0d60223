"""What the README shows is what the commands print, and what it promises is there."""

import re
import shlex

import pytest

import suite
from kube_gpucheck import cli

README = (suite.FIXTURES.parent / "README.md").read_text()
STAGES = re.findall(r"^\| `gpucheck run --from (tutorial/[\w-]+)` \|.*\| (\S+) \|$", README, re.MULTILINE)


def test_the_output_that_it_shows_is_the_real_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command, _, shown = README.split("```text\n", 1)[1].split("```", 1)[0].partition("\n")
    assert cli.main(shlex.split(command.removeprefix("$ gpucheck "))) == 1
    assert capsys.readouterr().out.strip() == shown.strip()


@pytest.mark.parametrize(("stage", "cause"), STAGES)
def test_each_stage_of_the_walk_through_names_the_cause_that_it_lists(
    capsys: pytest.CaptureFixture[str], stage: str, cause: str
) -> None:
    status = cli.main(["run", "--from", stage, "--quiet"])
    out = capsys.readouterr().out
    if cause == "conforms":
        assert status == 0
    else:
        assert status == 1
        assert f" 1  {cause.strip('`')} " in out


def test_every_stage_is_listed() -> None:
    listed = [stage for stage, _ in STAGES]
    assert listed == [name for name in suite.LIBRARY.scenarios() if name.startswith("tutorial/")]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_what_it_links_to_is_there(link: str) -> None:
    assert (suite.FIXTURES.parent / link).exists()


def test_the_check_that_it_shows_can_be_declared() -> None:
    code = README.split("```python\n", 1)[1].split("```", 1)[0]
    names: dict[str, object] = {}
    exec(compile(code, __file__, "exec"), names)  # noqa: S102  our own README
    assert hasattr(names["check_node_has_an_owner"], "__gpucheck__")

"""Our effective configuration against containerd's own: on a corpus, release by release, and on random merges.

The installed program is asked at each test; of releases that no package brings, what they printed is on record.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import engine_configurations as engines
import suite
from engine_configurations import Case
from kube_gpucheck.evidence import Cluster, containerd
from kube_gpucheck.evidence.configuration import Configuration
from kube_gpucheck.evidence.engine import release_in
from kube_gpucheck.evidence.runtime import DUMP
from kube_gpucheck.model import Missing, Seen

PROGRAM: Final = engines.program()
CORPUS: Final = engines.corpus()
PRINTED: Final[dict[str, dict[str, Any]]] = yaml.safe_load(engines.PRINTED.read_text(encoding="utf-8"))
STATES: Final = tuple(name for name in suite.LIBRARY.bundles() if name.startswith("recorded/engine-"))
SEEDS: Final = 500
CHUNK: Final = 25

needs_containerd = [
    pytest.mark.containerd,
    pytest.mark.skipif(PROGRAM is None, reason="no containerd: install Debian's packages containerd and runc"),
]


def judged(case: Case, program: str, release: str) -> list[str]:
    """Return what differs between our reading of a case and the program's, empty if nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        printed, error = engines.dump(program, engines.write(case, Path(folder) / "etc"))
    runtime = engines.node_of(case, release).runtime
    if printed is None:
        refused = isinstance(runtime.refusal, Seen) and runtime.refusal.value
        return [] if refused else [f"containerd refuses it ({error}), we say {runtime.refusal}"]
    if isinstance(runtime.files, Missing):
        return [runtime.files.reason]
    found = engines.differences(case, runtime.files.value, printed, engines.defaults(program))
    return found if runtime.refusal == Seen(None) else [*found, f"we refuse it: {runtime.refusal}"]


def recorded(name: str) -> tuple[str, Configuration]:
    """Return what the engine of a recorded state printed, and what we make of its files."""
    node = Cluster(suite.LIBRARY.build(name)).node_of("gpu-node-0")
    assert node is not None
    printed, files = node.host.command(DUMP), node.runtime.files
    assert isinstance(printed, Seen)
    assert printed.value is not None
    assert isinstance(files, Seen)
    return printed.value.text, files.value


@pytest.fixture(scope="module")
def installed() -> tuple[str, str]:
    """Return the installed program, and its release as a node reports it."""
    assert PROGRAM is not None
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    release = release_in(said)
    assert release is not None
    assert release < (2, 0), "the comparison of whole documents knows the dump of 1.x"
    return PROGRAM, ".".join(map(str, release))


class TestInstalledProgram:
    """Whole documents, key by key, against `containerd config dump` of the program that is installed."""

    pytestmark = needs_containerd

    @pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
    def test_our_effective_configuration_is_what_containerd_prints(
        self, case: Case, installed: tuple[str, str]
    ) -> None:
        found = judged(case, *installed)

        assert found if case.unread else not found

    @pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
    def test_random_files_are_merged_as_containerd_merges_them(self, first: int, installed: tuple[str, str]) -> None:
        wrong = {seed: judged(engines.random_case(seed), *installed) for seed in range(first, first + CHUNK)}

        assert {seed: found for seed, found in wrong.items() if found} == {}

    @pytest.mark.parametrize("name", STATES)
    def test_our_effective_configuration_is_what_a_recorded_engine_of_this_release_printed(
        self, name: str, installed: tuple[str, str]
    ) -> None:
        printed, files = recorded(name)

        assert engines.differences(Case(name, {}), files, printed, engines.defaults(installed[0])) == []

    def test_its_dump_read_back_is_what_we_make_of_the_files(self, installed: tuple[str, str], tmp_path: Path) -> None:
        case = next(one for one in CORPUS if one.name == "rke2-1.24")
        printed, _ = engines.dump(installed[0], engines.write(case, tmp_path))
        files = engines.node_of(case, installed[1]).runtime.files

        assert printed is not None
        assert isinstance(files, Seen)
        assert engines.meaning(containerd.dumped(printed), (1, 6)) == engines.meaning(files.value, (1, 6))


@pytest.mark.parametrize("name", STATES)
def test_our_effective_configuration_means_what_a_recorded_engine_printed(name: str) -> None:
    printed, files = recorded(name)

    assert engines.meaning(containerd.dumped(printed), (1, 6)) == engines.meaning(files, (1, 6))


@pytest.mark.parametrize("release", sorted(PRINTED))
@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_our_effective_configuration_is_what_a_release_was_seen_to_run_with(case: Case, release: str) -> None:
    theirs = PRINTED[release][case.name]
    runtime = engines.node_of(case, release).runtime

    if case.unread:
        assert isinstance(runtime.files, Missing)
    elif "refused" in theirs:
        assert isinstance(runtime.refusal, Seen)
        assert runtime.refusal.value, f"{release} says: {theirs['refused']}"
    elif "failed" in theirs:
        assert isinstance(runtime.files, Seen)
        assert runtime.files.value.find(runtime.files.value.default) is None, f"{release} says: {theirs['failed']}"
    else:
        assert isinstance(runtime.files, Seen)
        assert engines.meaning(runtime.files.value, tuple(map(int, release.split(".")))) == theirs
        assert runtime.refusal == Seen(None)


def test_a_refusal_names_file_and_line() -> None:
    unnamed = {
        case.name: refusal.value
        for case in CORPUS
        if isinstance(refusal := engines.node_of(case, "1.6.20").runtime.refusal, Seen) and refusal.value
        if engines.PLACE not in refusal.value or not (":" in refusal.value or "there is no such" in refusal.value)
    }

    assert unnamed == {}


def test_six_states_of_a_real_engine_are_on_record() -> None:
    assert len(STATES) == 6


def test_the_corpus_is_what_was_asked_for() -> None:
    layouts = [case for case in CORPUS if not case.unread]

    assert len(layouts) >= 25
    assert len({case.name for case in CORPUS}) == len(CORPUS)
    assert all(set(cases) == {case.name for case in CORPUS} for cases in PRINTED.values())

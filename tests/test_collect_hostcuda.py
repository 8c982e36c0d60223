import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from fake_driver import compiled, needs_compiler
from kube_gpucheck.collect import deadlines, hostcuda
from kube_gpucheck.collect.host import read_host
from test_collect_host import reads_of

LIBRARY: Final = "usr/lib64/libcuda.so.1"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("cuda.c", tmp_path_factory.mktemp("cuda") / "libcuda.so.1")


@pytest.fixture
def cuda_of(library: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that reads a host whose libcuda behaves as the rules say, and gives what CUDA answered."""

    def read(*rules: str) -> dict[str, Any]:
        target = tmp_path / LIBRARY
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
        target.with_name(f"{target.name}.behaviour").write_text("\n".join(rules) + "\n")
        return cuda_reads(tmp_path)

    return read


def cuda_reads(root: Path) -> dict[str, Any]:
    reads = reads_of(read_host(str(root)))
    return {key.removeprefix("cuda:"): read for key, read in reads.items() if key.startswith("cuda:")}


@needs_compiler
def test_cuda_is_asked_whether_it_starts(cuda_of: Callable[..., dict[str, Any]]) -> None:
    answers = cuda_of()

    assert tuple(answers) == hostcuda.CALLS
    assert {one["code"] for one in answers.values()} == {0}
    assert answers["cuDriverGetVersion"]["value"] == 13000
    assert answers["cuDeviceGetCount"]["value"] == 1
    assert answers["cuInit"]["ms"] >= 0


@needs_compiler
@pytest.mark.parametrize("code", [100, 802, 803, 999])
def test_the_code_by_which_cuda_does_not_start_is_kept(cuda_of: Callable[..., dict[str, Any]], code: int) -> None:
    answers = cuda_of(f"cuInit code {code}", "cuDeviceGetCount code 3")

    assert answers["cuInit"]["code"] == code
    assert answers["cuDeviceGetCount"]["code"] == 3
    assert "value" not in answers["cuDeviceGetCount"]


@needs_compiler
@pytest.mark.parametrize(("rule", "error"), [("cuInit crash", "SIGSEGV"), ("cuInit hang", "ETIMEDOUT")])
def test_a_libcuda_that_dies_costs_its_own_answers_alone(
    cuda_of: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, rule: str, error: str
) -> None:
    monkeypatch.setattr(deadlines, "CUDA_S", 0.5)

    answers = cuda_of(rule)

    assert answers["cuDriverGetVersion"]["code"] == 0
    assert answers["cuInit"] == {"error": error}
    assert answers["cuDeviceGetCount"] == {"error": "ECANCELED"}


def test_without_libcuda_it_is_absent(tmp_path: Path) -> None:
    assert cuda_reads(tmp_path) == {key: {"absent": True} for key in hostcuda.CALLS}


def test_a_libcuda_that_is_no_library_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / LIBRARY
    target.parent.mkdir(parents=True)
    target.write_text("not an ELF file")

    assert cuda_reads(tmp_path) == {key: {"error": "ELIBBAD"} for key in hostcuda.CALLS}

"""The hooks by which evidence reaches the checks and results reach the listeners, inside pytest.

pytest ignores implementations whose name does not begin with `pytest_`, hence the names.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from kube_gpucheck.model import CheckInfo, CheckResult


@pytest.hookspec(firstresult=True)
def pytest_gpucheck_evidence() -> Any:  # noqa: ANN401  evidence.Cluster: hooks may import the model alone
    """Return the evidence (`kube_gpucheck.evidence.Cluster`) that the checks judge."""


@pytest.hookspec
def pytest_gpucheck_selected(checks: Sequence[CheckInfo]) -> None:
    """Hear which checks will be judged, in order."""


@pytest.hookspec
def pytest_gpucheck_judgement(result: CheckResult) -> None:
    """Hear what one check said of all its subjects."""


@pytest.hookspec
def pytest_gpucheck_refused(reason: str) -> None:
    """Hear why the run cannot begin: a check's declaration, or evidence that cannot be opened."""

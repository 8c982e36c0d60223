"""The four folders are found, installed or in a checkout, and nothing else is."""

import pytest

from kube_gpucheck import assets
from kube_gpucheck.errors import GpucheckError


@pytest.mark.parametrize("name", ["conformance", "fixtures", "workloads", "reports"])
def test_each_folder_is_found(name: str) -> None:
    assert assets.folder(name).is_dir()


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(GpucheckError, match="is not one of"):
        assets.folder("docs")

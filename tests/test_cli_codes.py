"""`gpucheck explain` of the driver's codes."""

import re

import pytest

from kube_gpucheck.cli import main
from kube_gpucheck.evidence.tables import labels, xids


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["explain", *words])
    out, err = capsys.readouterr()
    return status, " ".join(out.split()), err


def test_an_xid_is_a_page_that_can_be_acted_on(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "xid", "79")

    assert status == 0
    assert out.startswith("XID 79 GPU_HAS_FALLEN_OFF_THE_BUS the GPU no longer answers on PCIe")
    assert "do: 1. drain the node and power-cycle it 2. keep the output of 'nvidia-bug-report.sh'" in out
    assert "causes that it can betray: gpu-fell-off-bus" in out
    assert "then: gpucheck run -k DRV-011" in out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("31", "weight (DRV-011) minor alone: a faulty program causes it on a sound GPU"),
        ("31", "the device plugin ignores it"),
        ("63", "asks for a reset at the next chance"),
        ("63", "do: 1. drain the node and reset the GPU"),
        ("106", "none: it asks for nothing"),
        ("119", "gsp-firmware-timeout"),
        ("74", "nvlink-fabric-error"),
        ("48", "uncorrectable-ecc-error"),
    ],
)
def test_what_an_xid_weighs_and_betrays_is_told(capsys: pytest.CaptureFixture[str], code: str, words: str) -> None:
    assert words in said(capsys, "XID", code)[1]


def test_every_xid_of_the_catalogue_has_a_page_with_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [str(one.code) for one in xids().codes]
    status, out, _ = said(capsys, *(word for code in codes for word in ("xid", code)))

    assert status == 0
    assert out.count("do: 1. ") == len(codes) > 100


def test_codes_of_nvml_and_cuda_are_pages_among_others(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "nvml", "15", "DRV-023", "cuda", "802", "nvml", "0")

    assert status == 0
    assert "NVML 15 NVML_ERROR_GPU_IS_LOST" in out
    assert "of a GPU it cannot be used" in out
    assert "then: gpucheck run -k 'DRV-005 or DRV-023'" in out
    assert "DRV-023 The GPU answers every query that NVML was asked of it." in out
    assert "CUDA 802 CUDA_ERROR_SYSTEM_NOT_READY" in out
    assert "NVML 0 NVML_SUCCESS" in out


def test_a_label_is_a_page_whatever_its_profile_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("nvidia.com/mig-1g.10gb.me.count=7", "cuda.driver.major", "pci-0302_10de.present")
    status, out, _ = said(capsys, *(word for key in keys for word in ("label", key)))

    assert status == 0
    assert "LABEL feature.node.kubernetes.io/pci-0302_10de.present a PCI function of NVIDIA's of this class" in out
    assert "LABEL nvidia.com/mig-1g.10gb.me.count=7 number of MIG devices of this profile" in out
    assert "written by GPU Feature Discovery" in out
    assert "deprecated, in place of it nvidia.com/cuda.driver-version.major" in out
    assert "do: 1. kubectl get nodes -L nvidia.com/cuda.driver.major" in out


def test_every_label_of_the_table_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [one.key.replace("<profile>", "1g.5gb").replace("<class>", "0302") for one in labels()]
    keys = [re.sub("<[a-z]+>", "dcgm", key) for key in keys]
    status, out, _ = said(capsys, *(word for key in keys for word in ("label", key)))

    assert status == 0
    assert out.count("LABEL ") == len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["label", "gpu.produkt"], "label gpu.produkt: no label of the GPU stack is called so"),
        (["label", "product"], "like it: nvidia.com/gpu.product"),
        (["label"], "label: no label of the GPU stack is called so"),
        (["xid", "7"], "xid 7: NVIDIA's catalogue does not use it"),
        (["xid"], "xid: expected a number behind 'xid'; write it as 'gpucheck explain xid 79'"),
        (["nvml", "lost"], "nvml lost: expected a number behind 'nvml'"),
        (["nvml", "4444"], "nvml 4444: a code that nvml.h does not have"),
        (["cuda", "1e3"], "cuda 1e3: expected a number behind 'cuda'"),
    ],
)
def test_a_code_that_is_none_is_named_with_a_way_out(
    capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    status, out, err = said(capsys, *words)

    assert (status, out) == (2, "")
    assert complaint in err

"""What stands at a path, what a filter may have hidden, and what was never looked for."""

import json
from typing import Any

import pytest

import bundle_builders
from kube_gpucheck.evidence.bundle import Entry, Read, memory_bundle
from kube_gpucheck.evidence.host import Command, Host, NvmlAnswer
from kube_gpucheck.model import Missing, MissingKind, Seen


def host(reads: dict[str, dict[str, Any]], *, asked: tuple[str, ...] = ()) -> Host:
    """Return a host with these reads, and with others that were asked for and are not there."""
    files = bundle_builders.files(asked={"host": {"n": [*reads, *asked]}})
    files["nodes/n/host.json"] = json.dumps({"format": 1, "reads": reads}).encode()
    return Host(memory_bundle("b", files), "n")


USR_BIN = {"entries": [{"name": "nvidia-ctk", "mode": "-rwxr-xr-x"}], "filtered": "nvidia"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/nvidia-ctk", Seen(Entry("nvidia-ctk", mode="-rwxr-xr-x"))),
        ("/usr/bin/nvidia-container-cli", Seen(None)),
        ("/usr/bin/nvidia/deeper/still", Seen(None)),
    ],
)
def test_a_listing_tells_what_stands_at_a_path(path: str, expected: object) -> None:
    assert host({"list:/usr/bin": USR_BIN}).entry(path) == expected


@pytest.mark.parametrize("path", ["/usr/bin/crun", "/opt/nvidia"])
def test_what_a_filter_hides_or_nobody_listed_is_not_absent(path: str) -> None:
    reading = host({"list:/usr/bin": USR_BIN}).entry(path)
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.NOT_ASKED


def test_a_folder_that_is_absent_holds_nothing() -> None:
    assert host({"list:/etc/cdi": {"absent": True}}).entry("/etc/cdi/nvidia.yaml") == Seen(None)


def test_a_listing_that_is_gone_tells_nothing() -> None:
    reading = host({}, asked=("list:/usr/bin",)).entry("/usr/bin/nvidia-ctk")
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.ERROR


@pytest.mark.parametrize(
    ("error", "kind"),
    [("EACCES", MissingKind.FORBIDDEN), ("ETIMEDOUT", MissingKind.TIMEOUT), ("EIO", MissingKind.ERROR)],
)
def test_an_errno_becomes_a_missing_fact_of_its_kind(error: str, kind: MissingKind) -> None:
    reading = host({"file:/dev/kmsg": {"error": error}}).file("/dev/kmsg")
    assert isinstance(reading, Missing)
    assert (reading.kind, error in reading.reason) == (kind, True)


def test_a_read_without_content_is_unparsable() -> None:
    reading = host({"file:/etc/os-release": {}}).file("/etc/os-release")
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


def test_commands_links_and_nvml_calls_come_back_as_they_were() -> None:
    reads: dict[str, dict[str, Any]] = {
        "exec:dmesg": {"text": "x", "code": 0, "filtered": "NVRM"},
        "link:/sys/driver": {"text": "../nvidia"},
        "nvml:nvmlInit_v2": {"code": 9},
        "exec:crictl info": {"absent": True},
    }
    seen = host(reads)
    assert seen.command("dmesg") == Seen(Command("x", 0, "NVRM"))
    assert seen.link("/sys/driver") == Seen("../nvidia")
    assert seen.nvml("nvmlInit_v2") == Seen(NvmlAnswer(9))
    assert seen.command("crictl info") == Seen(None)


def test_a_read_is_frozen_and_small_on_disk() -> None:
    assert Read(text="x") == Read(text="x")

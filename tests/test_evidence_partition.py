"""What the MIG manager's log and configuration tell, in every form and damaged."""

import datetime

import pytest

from kube_gpucheck.evidence.partition import parse_attempt, parse_layouts

FAILED = """\
time="2026-11-24T00:13:13Z" level=info msg="Updating to MIG config: all-1g.5gb"
time="2026-11-24T00:13:13Z" level=fatal msg="Assertion failure: selected configuration not currently applied"
time="2026-11-24T00:13:14Z" level=debug msg="    Mode change pending: true"
time="2026-11-24T00:13:15Z" level=fatal msg="Error applying MIG configuration with hooks: error resetting all GPUs: x"
time="2026-11-24T00:13:16Z" level=error msg="Error: failed to apply MIG configuration: exit status 1"
time="2026-11-24T00:13:17Z" level=info msg="Waiting for change to 'nvidia.com/mig.config' label"
"""


def test_the_reason_is_neither_what_every_change_writes_nor_what_repeats_it() -> None:
    attempt = parse_attempt(FAILED)

    assert attempt.config == "all-1g.5gb"
    assert attempt.problem == "Error applying MIG configuration with hooks: error resetting all GPUs: x"
    assert (attempt.is_over, attempt.pends, attempt.client) == (True, True, False)
    assert attempt.last == datetime.datetime(2026, 11, 24, 0, 13, 17, tzinfo=datetime.timezone.utc)


def test_only_the_last_change_counts() -> None:
    attempt = parse_attempt(
        FAILED + 'time="2026-11-24T00:20:00Z" level=info msg="Updating to MIG config: all-disabled"\n'
    )

    assert (attempt.config, attempt.is_over, attempt.problem) == ("all-disabled", False, None)


def test_a_client_is_named_ahead_of_what_follows_from_it() -> None:
    text = 'level=fatal msg="x"\ntime="2026-11-24T00:13:14Z" level=error msg="\\nGPU 0: In use by another client\\n"\n'

    assert parse_attempt(text).problem == "GPU 0: In use by another client"


@pytest.mark.parametrize("text", ["", "\n\n", "time=", 'time="9999-99-99T99:99:99Z" level=info msg="x"', "\0" * 5000])
def test_a_log_that_tells_nothing_tells_of_no_change(text: str) -> None:
    attempt = parse_attempt(text)

    assert (attempt.config, attempt.is_over, attempt.last, attempt.problem) == (None, False, None, None)


def test_a_layout_is_read_with_its_filters_and_places() -> None:
    text = """\
version: v1
mig-configs:
  all-disabled: [{devices: all, mig-enabled: false}]
  half:
    - {device-filter: "0x20b010de", devices: [0, 2], mig-enabled: true, mig-devices: {1g.5gb: 7, 2g.10gb: 0}}
"""
    layouts = parse_layouts(text)

    assert layouts is not None
    assert list(layouts) == ["all-disabled", "half"]
    assert (layouts["half"][0].filters, layouts["half"][0].places) == (("0x20B010DE",), (0, 2))
    assert layouts["half"][0].devices == {"1g.5gb": 7, "2g.10gb": 0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1",
        "mig-configs: 3",
        "mig-configs: {x: 3}",
        "mig-configs: {x: [3]}",
        "mig-configs: {x: [{devices: some}]}",
        "mig-configs: {x: [{devices: all, mig-devices: {a: b}}]}",
        "x" * 1_200_000,
    ],
)
def test_what_is_no_configuration_of_mig_parted_is_none(text: str) -> None:
    assert parse_layouts(text) is None

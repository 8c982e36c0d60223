"""`gpucheck show runtime NODE`: the handlers and settings of a node, each with the line that made it."""

import pytest

import suite
from bundle_builders import memory_node
from kube_gpucheck import cli
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.runtime_sheet import runtime_sheet
from kube_gpucheck.model import Sheet, SheetTable
from kube_gpucheck.report.sheet import render

MAIN = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/99-nvidia.toml"


def sheet_of(name: str, node: str = "gpu-node-0") -> Sheet:
    found = Cluster(suite.LIBRARY.build(name)).node_of(node)
    assert found is not None
    return runtime_sheet(found)


def table(sheet: Sheet, word: str) -> SheetTable:
    return next(one for one in sheet.tables if word in one.heading)


def test_each_handler_has_the_line_that_set_it() -> None:
    handlers = table(sheet_of("checks/RTM-007-fault"), "handlers")

    assert handlers.rows == (
        ("nvidia", "/usr/bin/nvidia-container-runtime", "io.containerd.runc.v2", "cgroupfs", f"{DROP_IN}:19"),
        ("runc*", "-", "io.containerd.runc.v2", "cgroupfs", f"{DROP_IN}:26"),
    )


def test_a_setting_that_lost_has_the_line_that_took_its_place_and_what_holds() -> None:
    undone = table(sheet_of("checks/RTM-007-fault"), "do not count")

    assert undone.rows[-1] == (
        'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options.BinaryName',
        '"/usr/local/nvidia/toolkit/nvidia-container-runtime"',
        f"{MAIN}:8",
        f"{DROP_IN}:5",
        '"/usr/bin/nvidia-container-runtime"',
    )


def test_what_could_not_be_read_says_so_in_its_sources_words() -> None:
    facts = dict(sheet_of("checks/RTM-017-fault-no-toml").facts)

    assert facts["would start with them"] == f"no: {DROP_IN}: Invalid value (at line 4, column 18)"
    assert facts["default handler"] == f"unknown: {DROP_IN}: Invalid value (at line 4, column 18)"


def test_an_engine_that_starts_without_what_kubernetes_talks_to_is_said_to_do_so() -> None:
    facts = dict(sheet_of("mechanisms/containerd-import-replaces-cri-section--runc-gone").facts)

    assert facts["would start with them"] == (
        "yes, but not the plugin that the kubelet talks to: there is no handler 'runc'"
    )


def test_a_node_whose_host_was_not_read_has_no_table_and_says_why() -> None:
    node = memory_node({}, engine="containerd://1.7.27")

    handlers = table(runtime_sheet(node), "handlers")

    assert (handlers.rows, handlers.empty) == ((), f"not read: 'file:{MAIN}' was not read")


def test_a_registrys_credentials_are_not_shown() -> None:
    text = """version = 2
[plugins."io.containerd.grpc.v1.cri".registry.configs."r".auth]
  password = "hunter2"
[plugins."io.containerd.grpc.v1.cri"]
  enable_selinux = true
"""
    shown = render(runtime_sheet(memory_node({f"file:{MAIN}": {"text": text}}, engine="containerd://1.7.27")))

    assert "enable_selinux" in shown
    assert "hunter2" not in shown


def test_a_sheet_is_text_that_no_terminal_obeys_and_no_line_of_it_is_wrapped() -> None:
    rows = (("a\x1b[31m", "b" * 300),)
    text = render(Sheet("title\n", (("name", "one\ntwo"),), (SheetTable("rows", ("x", "y"), rows, "none"),)))

    assert text == f"title\n\nname  one two\n\nrows:\n  x  y\n  a  {'b' * 300}\n"


def test_an_empty_table_says_what_that_means() -> None:
    assert render(Sheet("t", (("n", "v"),), (SheetTable("rows", ("x",), (), "none"),))).endswith("\nrows: none\n")


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["show", "runtime", "dxlab-nb-00", "--from", "tutorial/07-discovery"])

    shown = capsys.readouterr().out
    assert status == 0
    assert shown.startswith("container runtime of node dxlab-nb-00 (simulated), as read at 2023-01-27T08:16:00Z\n")
    assert "/var/lib/rancher/rke2/agent/etc/containerd/config.toml:24" in shown

"""What a CDI specification says, and what an error about CDI says."""

import itertools
from typing import Any

import pytest

from bundle_builders import memory_node
from kube_gpucheck.evidence import Node, cdi
from kube_gpucheck.evidence.cdi import Named, parse
from kube_gpucheck.model import Missing, MissingKind, Seen

SPECIFICATION = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - name: "0"
    containerEdits:
      deviceNodes: [{path: /dev/nvidia0, hostPath: /run/nvidia/driver/dev/nvidia0}]
  - name: all
containerEdits:
  deviceNodes: [{path: /dev/nvidiactl}]
  mounts: [{hostPath: /usr/lib/libcuda.so.1, containerPath: /usr/lib/libcuda.so.1}]
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook}]
"""


def test_a_specification_names_devices_and_what_it_takes_from_the_host() -> None:
    found = parse("/etc/cdi/nvidia.yaml", SPECIFICATION)

    assert found.defines == ("nvidia.com/gpu=0", "nvidia.com/gpu=all")
    assert found.names == (
        Named("device node", "/dev/nvidiactl"),
        Named("device node", "/run/nvidia/driver/dev/nvidia0"),
        Named("hook", "/usr/bin/nvidia-cdi-hook"),
        Named("mount", "/usr/lib/libcuda.so.1"),
    )


def test_a_specification_in_json_is_read_as_one_in_yaml() -> None:
    text = '{"cdiVersion": "0.5.0", "kind": "k8s.device-plugin.nvidia.com/gpu", "devices": [{"name": "GPU-1"}]}'

    found = parse("/var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json", text)

    assert found.defines == ("k8s.device-plugin.nvidia.com/gpu=GPU-1",)
    assert found.is_nvidia


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "kind: nvidia.com/gpu",
        "cdiVersion: 0.5.0\nkind: nvidia",
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: 0}]",
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name",
        "a: !!python/object:os.system [x]",
        "[" * 5000,
        "x" * (4 * 1024 * 1024 + 1),
        "\x00",
        "&a [*a]",
        "kind: nvidia.com/gpu\ncdiVersion: 0.5.0\ndevices: {}",
    ],
)
def test_a_specification_that_cannot_be_read_says_why_and_defines_nothing(text: str) -> None:
    found = parse("/etc/cdi/nvidia.yaml", text)

    assert found.problem
    assert found.defines == ()


@pytest.mark.parametrize(
    ("kind", "is_nvidia"),
    [
        ("nvidia.com/gpu", True),
        ("management.nvidia.com/gpu", True),
        ("k8s.gpu.nvidia.com/claim", True),
        ("intel.com/gpu", False),
        ("notnvidia.com/gpu", False),
    ],
)
def test_a_kind_is_nvidias_by_its_vendor(kind: str, *, is_nvidia: bool) -> None:
    assert parse("/etc/cdi/a.yaml", f"cdiVersion: 0.5.0\nkind: {kind}\ndevices: []").is_nvidia is is_nvidia


def test_the_devices_that_nobody_defines_are_taken_from_the_error() -> None:
    error = (
        "OCI runtime create failed: failed to inject CDI devices: unresolvable CDI devices "
        "management.nvidia.com/gpu=0,\n            management.nvidia.com/gpu=1: unknown"
    )

    assert cdi.unresolved(error) == ("management.nvidia.com/gpu=0", "management.nvidia.com/gpu=1")
    assert cdi.unresolved("failed to pull image") == ()
    assert cdi.unresolved("unresolvable CDI devices " * 50_000) == ()


def test_the_paths_that_are_gone_are_taken_from_the_error() -> None:
    error = (
        'failed to inject devices: failed to stat CDI host device "/dev/nvidia7": no such file or directory: unknown'
    )
    hook = "error running createContainer hook: fork/exec /usr/bin/nvidia-ctk: no such file or directory: unknown"

    assert cdi.gone(error) == {"/dev/nvidia7"}
    assert "/usr/bin/nvidia-ctk" in cdi.gone(hook)
    assert cdi.gone('back-off restarting failed container "/bin/app"') == frozenset()


FULL = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: GPU-1}]\n"
"""A specification of one device."""


def node_with(reads: dict[str, Any]) -> Node:
    listed: dict[str, Any] = {"list:/etc/cdi": {"entries": []}, "list:/var/run/cdi": {"entries": []}}
    return memory_node({**listed, **reads}, engine="containerd://2.1.0")


@pytest.mark.parametrize("text", ["\ufeff" + FULL, FULL.replace("\n", "\r\n"), FULL + "# end"])
def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(text: str) -> None:
    assert parse("/etc/cdi/nvidia.yaml", text).defines == ("nvidia.com/gpu=GPU-1",)


def test_yaml_that_grows_without_end_is_refused_and_not_grown() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in itertools.pairwise("abcdefghijk")
    )

    assert parse("/etc/cdi/nvidia.yaml", bomb).problem


def test_another_vendors_file_is_none_of_ours_and_an_empty_one_of_ours_is_named() -> None:
    node = node_with(
        {
            "list:/etc/cdi": {
                "entries": [{"name": "intel.yaml", "type": "file"}, {"name": "nvidia.yaml", "type": "file"}]
            },
            "file:/etc/cdi/intel.yaml": {"text": "cdiVersion: 0.5.0\nkind: intel.com/gpu\ndevices: [{name: a}]\n"},
            "file:/etc/cdi/nvidia.yaml": {"text": ""},
        }
    )

    found = node.runtime.cdi.specifications
    assert isinstance(found, Seen)
    assert [(one.path, bool(one.problem)) for one in found.value] == [("/etc/cdi/nvidia.yaml", True)]


def test_a_specification_that_may_not_be_read_is_missing_and_says_why() -> None:
    node = node_with(
        {
            "list:/etc/cdi": {"entries": [{"name": "nvidia.yaml", "type": "file"}]},
            "file:/etc/cdi/nvidia.yaml": {"error": "EACCES"},
        }
    )

    found = node.runtime.cdi.specifications
    assert isinstance(found, Missing)
    assert (found.kind, found.reason) == (MissingKind.FORBIDDEN, "'file:/etc/cdi/nvidia.yaml' on gpu-0: EACCES")


@pytest.mark.parametrize(
    ("said", "searched"),
    [
        ("", ("/etc/cdi", "/var/run/cdi")),
        ('spec-dirs = ["/run/cdi/"]', ("/var/run/cdi",)),
        ('spec-dirs = ["/opt/cdi", "/etc/cdi"]', ("/opt/cdi", "/etc/cdi")),
    ],
)
def test_the_toolkit_says_where_its_runtime_looks_for_specifications(said: str, searched: tuple[str, ...]) -> None:
    config = f'[nvidia-container-runtime]\nmode = "cdi"\n[nvidia-container-runtime.modes.cdi]\n{said}\n'
    node = node_with(
        {
            "file:/etc/nvidia-container-runtime/config.toml": {"text": config},
            "list:/usr/bin": {"entries": [{"name": "nvidia-container-runtime", "type": "file", "mode": "-rwxr-xr-x"}]},
        }
    )

    assert node.runtime.cdi.searched == Seen(searched)

"""What a CDI specification says, and what an error about CDI says."""

import pytest

from kube_gpucheck.evidence import cdi
from kube_gpucheck.evidence.cdi import Named, parse

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

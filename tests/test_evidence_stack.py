"""Components are recognised by what their containers run, whoever installed them and under whatever name."""

from typing import Any

import msgspec
import pytest

from kube_gpucheck.evidence import Component
from kube_gpucheck.evidence.documents import Container, EnvironmentVariable, PodSpec
from kube_gpucheck.evidence.stack import component_of, kept_off, parse_version, recognise, repository_of, version_of

PLUGIN = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"
PRIVATE = "registry.local:5000/mirror/k8s-device-plugin@sha256:0123456789abcdef"
OPERATOR = "nvcr.io/nvidia/gpu-operator:v26.7.0"
NFD = "registry.k8s.io/nfd/node-feature-discovery:v0.19.0"


def container(image: str, *, name: str = "main", **fields: Any) -> Container:
    """Return a container; command and args as lists."""
    return msgspec.convert({"name": name, "image": image, **fields}, Container)


def run(*command: str) -> dict[str, Any]:
    return {"command": list(command)}


def shell(script: str) -> dict[str, Any]:
    """Return the operator's way: a shell for a command, the script for its argument."""
    return {"command": ["/bin/sh", "-c"], "args": [script]}


@pytest.mark.parametrize(
    ("image", "fields", "expected"),
    [
        # charts and static manifests
        (PLUGIN, run("nvidia-device-plugin"), Component.DEVICE_PLUGIN),
        (PLUGIN, {}, Component.DEVICE_PLUGIN),
        (PLUGIN, {"args": ["--fail-on-init-error=false"]}, Component.DEVICE_PLUGIN),
        (PRIVATE, run("/usr/bin/nvidia-device-plugin", "--mig-strategy=mixed"), Component.DEVICE_PLUGIN),
        (PRIVATE, {}, Component.DEVICE_PLUGIN),
        ("myrepo/eks-nvidia-device-plugin:1", {}, Component.DEVICE_PLUGIN),
        (PLUGIN, run("gpu-feature-discovery"), Component.GFD),
        ("nvcr.io/nvidia/gpu-feature-discovery:v0.8.2-ubi8", {}, Component.GFD),
        (PLUGIN, run("mps-control-daemon"), Component.MPS_CONTROL_DAEMON),
        (PLUGIN, run("config-manager"), None),
        ("projecthami/hami:v2.4", run("nvidia-device-plugin", "--v=4"), Component.DEVICE_PLUGIN),
        (
            "gke.gcr.io/nvidia-gpu-device-plugin@sha256:00",
            run("/usr/bin/nvidia-gpu-device-plugin", "-logtostderr"),
            Component.PROVIDER_DEVICE_PLUGIN,
        ),
        ("rocm/k8s-device-plugin:1.31", {}, None),
        ("docker.io/rocm/k8s-device-plugin", {"name": "amdgpu-dp-cntr"}, None),
        # NFD
        (NFD, run("nfd-worker"), Component.NFD_WORKER),
        (NFD, {"command": ["nfd-master"], "args": ["-enable-leader-election"]}, Component.NFD_MASTER),
        (NFD, run("nfd-gc"), Component.NFD_GC),
        (NFD, run("nfd-topology-updater"), None),
        # dcgm-exporter
        (
            "nvcr.io/nvidia/k8s/dcgm-exporter:3.1.3-3.1.2-ubuntu20.04",
            {"args": ["-f", "/etc/dcgm-exporter/dcp-metrics-included.csv"]},
            Component.DCGM_EXPORTER,
        ),
        ("harbor/x/nvidia-dcgm-exporter:4", {}, Component.DCGM_EXPORTER),
        (
            "nvcr.io/nvidia/k8s/dcgm-exporter:4",
            run("/usr/local/dcgm/dcgm-exporter-entrypoint.sh"),
            Component.DCGM_EXPORTER,
        ),
        ("nvcr.io/nvidia/cloud-native/dcgm:4.6.0", {"args": ["-n", "-b", "ALL"]}, Component.DCGM),
        ("x/y:1", run("nv-hostengine", "-n"), Component.DCGM),
        # the operator's operands
        (
            PLUGIN,
            {**shell("[[ -f /x ]] && . /x; exec nvidia-device-plugin;"), "name": "nvidia-device-plugin"},
            Component.DEVICE_PLUGIN,
        ),
        (PLUGIN, {**shell("/bin/entrypoint.sh"), "name": "nvidia-device-plugin"}, Component.DEVICE_PLUGIN),
        (
            PLUGIN,
            {"command": ["bash", "-c"], "args": ["/bin/entrypoint.sh"], "name": "mps-control-daemon-ctr"},
            Component.MPS_CONTROL_DAEMON,
        ),
        (
            "nvcr.io/nvidia/k8s/container-toolkit:v1.20.0",
            {**shell("/bin/entrypoint.sh"), "name": "nvidia-container-toolkit-ctr"},
            Component.TOOLKIT,
        ),
        (
            "nvcr.io/nvidia/driver:580",
            {"command": ["nvidia-driver"], "args": ["init"], "name": "nvidia-driver-ctr"},
            Component.DRIVER,
        ),
        (
            "nvcr.io/nvidia/vgpu-manager:1",
            {"command": ["nvidia-driver"], "args": ["init"], "name": "nvidia-vgpu-manager-ctr"},
            None,
        ),
        (
            OPERATOR,
            {
                **run("sh", "-c", "echo all validations are successful; while true; do sleep 86400; done"),
                "name": "nvidia-operator-validator",
            },
            Component.VALIDATOR,
        ),
        (OPERATOR, {**run("nvidia-validator"), "name": "nvidia-node-status-exporter"}, Component.NODE_STATUS_EXPORTER),
        (
            "nvcr.io/nvidia/cloud-native/k8s-mig-manager:v0.15.0",
            {**shell("/bin/entrypoint.sh"), "name": "nvidia-mig-manager"},
            Component.MIG_MANAGER,
        ),
        (OPERATOR, run("gpu-operator"), Component.OPERATOR),
        ("nvcr.io/nvidia/cloud-native/k8s-driver-manager:v0.12.0", run("driver-manager"), None),
        # DRA
        (
            "nvcr.io/nvidia/k8s-dra-driver-gpu:v25.12.0",
            {"command": ["bash", "-c"], "args": ["# comment\nset -e\ngpu-kubelet-plugin -v 6\n"], "name": "gpus"},
            Component.DRA_KUBELET_PLUGIN,
        ),
        (
            "nvcr.io/nvidia/dra-driver-nvidia-gpu:v0.5.0",
            run("compute-domain-kubelet-plugin"),
            Component.DRA_KUBELET_PLUGIN,
        ),
        ("nvcr.io/nvidia/dra-driver-nvidia-gpu:v0.5.0", run("compute-domain-daemon"), None),
        ("nvcr.io/nvidia/dra-driver-nvidia-gpu:v0.5.0", run("compute-domain-controller"), None),
        # people's own workloads
        ("bitnami/kubectl:1.30", run("kubectl", "rollout", "status", "daemonset", "dcgm-exporter"), None),
        ("nvcr.io/nvidia/cuda:12.4", run("sh", "-c", "echo nvidia-device-plugin"), None),
        ("prom/node-exporter:v1", {"args": ["--path=/mnt/gpu-operator"]}, None),
        ("", {}, None),
    ],
)
def test_a_container_is_what_it_runs(image: str, fields: dict[str, Any], expected: Component | None) -> None:
    assert component_of(container(image, **fields)) is expected


def test_a_sidecar_that_comes_first_does_not_hide_the_component() -> None:
    sidecar = container(PLUGIN, name="gpu-feature-discovery-sidecar", **run("config-manager"))
    main = container(PLUGIN, name="gpu-feature-discovery-ctr", **run("gpu-feature-discovery"))
    assert recognise(PodSpec((sidecar, main))) is Component.GFD
    assert [Component.GFD.is_main(one) for one in (sidecar, main)] == [False, True]


def test_init_containers_do_not_make_a_component() -> None:
    init = container(OPERATOR, name="driver-validation", **run("nvidia-validator"))
    assert recognise(PodSpec((container("busybox"),), init_containers=(init,))) is None


def test_the_validators_metrics_mode_is_the_node_status_exporter() -> None:
    validator = container(OPERATOR, **run("nvidia-validator"))
    exporter = msgspec.structs.replace(validator, env=(EnvironmentVariable("COMPONENT", "metrics"),))
    assert [component_of(one) for one in (validator, exporter)] == [
        Component.VALIDATOR,
        Component.NODE_STATUS_EXPORTER,
    ]


def test_a_huge_script_is_read_and_means_nothing() -> None:
    assert component_of(container("x", **run("sh", "-c", "a;" * 200_000))) is None


@pytest.mark.parametrize(
    ("image", "repository", "version"),
    [
        (PLUGIN, "nvcr.io/nvidia/k8s-device-plugin", (0, 20, 0)),
        (PRIVATE, "registry.local:5000/mirror/k8s-device-plugin", None),
        ("a:5000/b", "a:5000/b", None),
        ("dcgm-exporter:3.1.3-3.1.2-ubuntu20.04", "dcgm-exporter", (3, 1, 3)),
        ("x:v0.17.4-ubi9@sha256:00", "x", (0, 17, 4)),
        ("x:570.26", "x", (570, 26, 0)),
        ("x:latest", "x", None),
        ("x:v1", "x", None),
        ("", "", None),
    ],
)
def test_a_tag_tells_the_version(image: str, repository: str, version: tuple[int, int, int] | None) -> None:
    assert repository_of(image) == repository
    assert version_of(image) == version


def test_no_version_is_made_up() -> None:
    assert [parse_version(text) for text in ("", "v", "1", "one.two", "9" * 50, "1.2.3.4")] == [
        None,
        None,
        None,
        None,
        None,
        (1, 2, 3),
    ]


KEYS = ("nvidia.com/gpu.deploy.device-plugin",)


@pytest.mark.parametrize(
    ("labels", "keys", "expected"),
    [
        ({}, KEYS, None),
        ({"nvidia.com/gpu.deploy.device-plugin": ""}, KEYS, None),
        ({"nvidia.com/gpu.deploy.device-plugin": "false"}, KEYS, "label nvidia.com/gpu.deploy.device-plugin=false"),
        ({"nvidia.com/gpu.deploy.operands": "false"}, KEYS, "label nvidia.com/gpu.deploy.operands=false"),
        ({"nvidia.com/gpu.workload.config": "vm-vgpu"}, KEYS, "label nvidia.com/gpu.workload.config=vm-vgpu"),
        ({"nvidia.com/gpu.workload.config": "container"}, KEYS, None),
        ({"nvidia.com/gpu.deploy.operands": "false"}, ("nvidia.com/gpu.present",), None),
        ({"nvidia.com/gpu.deploy.operands": "false"}, (), None),
    ],
)
def test_only_a_word_of_the_operators_keeps_its_operands_off(
    labels: dict[str, str], keys: tuple[str, ...], expected: str | None
) -> None:
    assert kept_off(labels, keys) == expected


def test_what_belongs_on_each_gpu_node_is_told() -> None:
    assert {one for one in Component if one.belongs_on_gpu_nodes} == {
        Component.DEVICE_PLUGIN,
        Component.PROVIDER_DEVICE_PLUGIN,
        Component.GFD,
        Component.NFD_WORKER,
        Component.DCGM_EXPORTER,
        Component.DCGM,
        Component.DRA_KUBELET_PLUGIN,
    }


FOLDER = {"name": "p", "hostPath": {"path": "/var/lib/k0s/kubelet/device-plugins/"}}
MOUNT = {"name": "p", "mountPath": "/var/lib/kubelet/device-plugins"}


@pytest.mark.parametrize(
    ("made", "volumes", "expected"),
    [
        # HAMi, whose plugin's program is called as NVIDIA's, renamed and from another registry
        (
            {"image": "r.example/x:1", "command": ["nvidia-device-plugin", "--disable-core-limit=false"]},
            [FOLDER],
            "other",
        ),
        (
            {
                "image": "projecthami/hami:v2.9.0",
                "command": ["nvidia-device-plugin"],
                "env": [{"name": "HOOK_PATH", "value": "/x"}],
            },
            [FOLDER],
            "other",
        ),
        # volcano's vGPU plugin, gpushare, and one of an unknown make
        ({"image": "projecthami/volcano-vgpu-device-plugin:v1.12.0", "volumeMounts": [MOUNT]}, [FOLDER], "other"),
        (
            {"image": "r.example/gpushare-plugin:2", "command": ["gpushare-device-plugin-v2"], "volumeMounts": [MOUNT]},
            [FOLDER],
            "other",
        ),
        (
            {
                "image": "r.example/x:1",
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
                "volumeMounts": [MOUNT],
            },
            [FOLDER],
            "other",
        ),
        # NVIDIA's own, wherever its image comes from
        (
            {"image": "mcr.microsoft.com/oss/v2/nvidia/k8s-device-plugin:v0.17.0", "volumeMounts": [MOUNT]},
            [FOLDER],
            "plugin",
        ),
        (
            {"image": "r.example/mirror/x:1", "command": ["nvidia-device-plugin"], "volumeMounts": [MOUNT]},
            [FOLDER],
            "plugin",
        ),
        # plugins for other things, and programs that look into the folder
        ({"image": "rocm/k8s-device-plugin", "volumeMounts": [MOUNT]}, [FOLDER], None),
        ({"image": "r.example/mirror/intel-gpu-plugin:0.30", "volumeMounts": [MOUNT]}, [FOLDER], None),
        (
            {"image": "nvcr.io/nvidia/cloud-native/k8s-rdma-shared-dev-plugin:1", "volumeMounts": [MOUNT]},
            [FOLDER],
            None,
        ),
        ({"image": "nvcr.io/nvidia/kubevirt-gpu-device-plugin:v1.2", "volumeMounts": [MOUNT]}, [FOLDER], None),
        ({"image": "r.example/backup:1", "volumeMounts": [MOUNT]}, [FOLDER], None),
        ({"image": "r.example/gpu-app:1", "volumeMounts": [MOUNT]}, [{"name": "p", "emptyDir": {}}], None),
    ],
)
def test_a_device_plugin_is_told_by_what_it_is(
    made: dict[str, Any], volumes: list[dict[str, Any]], expected: str | None
) -> None:
    spec = msgspec.convert({"containers": [{"name": "c", **made}], "volumes": volumes}, type=PodSpec)

    known = {"other": Component.OTHER_DEVICE_PLUGIN, "plugin": Component.DEVICE_PLUGIN}
    assert recognise(spec) is (known[expected] if expected else None)

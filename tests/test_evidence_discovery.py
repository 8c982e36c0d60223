"""Feature discovery, telemetry and the operator: what their objects, labels and logs say."""

import datetime
import json
from typing import Any

import pytest

import bundle_builders
import suite
from kube_gpucheck.evidence import Cluster, DaemonSet, Node, Pod
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.discovery import expected_labels, product_label, publishes_by_object
from kube_gpucheck.evidence.documents import ServicePort
from kube_gpucheck.evidence.operator import Policy
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.rollout import Plight, Rollout, brief, last_complaint, one_line, restarting, trouble
from kube_gpucheck.evidence.telemetry import listen_port, target_port
from kube_gpucheck.model import Missing, MissingKind, Outcome, Seen

GFD_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


def daemonset(
    image: str = GFD_IMAGE,
    *,
    name: str = "gfd",
    command: tuple[str, ...] = ("gpu-feature-discovery",),
    **container: Any,
) -> dict[str, Any]:
    """Return a DaemonSet of one container that wants one pod, as the API writes it."""
    main = {"name": "main", "image": image, "command": list(command), **container}
    return {
        "metadata": {"name": name, "namespace": "gpu", "uid": f"uid-{name}"},
        "spec": {"template": {"spec": {"containers": [main]}}},
        "status": {"desiredNumberScheduled": 1, "currentNumberScheduled": 1, "numberReady": 1, "numberMisscheduled": 0},
    }


def pod_of(owner: str = "gfd", *, node: str = "gpu-0", ready: bool = True, **status: Any) -> dict[str, Any]:
    """Return a pod of that DaemonSet."""
    main = {"name": "main", "ready": ready, "restartCount": 0, "imageID": "x", "state": {"running": {}}, **status}
    return {
        "metadata": {
            "name": f"{owner}-x",
            "namespace": "gpu",
            "ownerReferences": [{"kind": "DaemonSet", "name": owner, "uid": f"uid-{owner}", "controller": True}],
        },
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [main],
        },
    }


KINDS = {
    "nodes": "nodes",
    "pods": "pods",
    "daemonsets": "daemonsets.apps",
    "node_features": "nodefeatures.nfd.k8s-sigs.io",
    "policies": "clusterpolicies.nvidia.com",
}


def cluster(*, logs: dict[str, str] | None = None, host: dict[str, Any] | None = None, **lists: Any) -> Cluster:
    """Return a cluster of one GPU node with these lists, by the names of `KINDS`, logs and host reads."""
    asked = {
        "api": [*bundle_builders.MANIFEST["asked"]["api"], *(KINDS[name] for name in lists)],
        "logs": list(logs or ()),
        "host": {"gpu-0": list(host)} if host is not None else {},
    }
    files = bundle_builders.files(asked=asked)
    for name, items in lists.items():
        files[f"cluster/{KINDS[name]}.json"] = bundle_builders.listed(*items)
    for name, text in (logs or {}).items():
        files[f"cluster/logs/{name.replace('/', '_')}.log"] = text.encode()
    if host is not None:
        files["nodes/gpu-0/host.json"] = json.dumps({"format": 1, "reads": host}).encode()
    return Cluster(memory_bundle("b", files))


def only(made: Cluster) -> DaemonSet:
    """Return the cluster's one DaemonSet."""
    (found,) = need(made.daemonsets)
    return found


def first_pod(made: Cluster) -> Pod:
    return need(made.pods)[0]


def gpu_node(made: Cluster) -> Node:
    return need(made.gpu_nodes)[0]


# --- which labels a GFD writes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "there", "not_there"),
    [
        (None, "gpu.product", "mig.capable"),
        ((0, 7, 0), "mig.capable", "mps.capable"),
        ((0, 8, 2), "gpu.memory", "cuda.driver-version.full"),
        ((0, 15, 0), "mps.capable", "gpu.mode"),
        ((0, 17, 4), "gpu.memory", "gpu.clique"),
        ((0, 20, 0), "gpu.mode", "gpu.memory"),
    ],
)
def test_each_gfd_writes_the_labels_of_its_version(
    version: tuple[int, int, int] | None, there: str, not_there: str
) -> None:
    keys = expected_labels(version)
    assert f"nvidia.com/{there}" in keys
    assert f"nvidia.com/{not_there}" not in keys


def test_a_product_is_written_as_gfd_does() -> None:
    assert [product_label(name) for name in ("NVIDIA H200", "Quadro P400  (x)", "", "A100-SXM4-40GB")] == [
        "NVIDIA-H200",
        "Quadro-P400-x",
        "",
        "A100-SXM4-40GB",
    ]


# --- how it publishes them ---------------------------------------------------------------------

PRINTED = '{{\n "flags": {{\n  "useNodeFeatureAPI": {value},\n }}\n}}'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"image": "x/k8s-device-plugin:v0.18.1"}, False),
        ({"image": "nvcr.io/nvidia/gpu-feature-discovery:v0.8.2"}, False),
        ({"args": ["--use-node-feature-api=false"]}, False),
        ({"args": ["--use-node-feature-api"], "image": "x/k8s-device-plugin:v0.17.0"}, True),
        ({"args": ["--use-node-feature-api", "--oneshot"], "image": "x/k8s-device-plugin:v0.17.0"}, True),
        ({"env": [{"name": "GFD_USE_NODE_FEATURE_API", "value": "FALSE"}]}, False),
        ({"env": [{"name": "USE_NODE_FEATURE_API", "value": "1"}], "image": "x/k8s-device-plugin:v0.17.0"}, True),
        ({"image": "x/node-feature-discovery:v0.19.0", "command": ("nfd-worker",)}, True),
        ({"image": "x/node-feature-discovery:v0.11.0", "command": ("nfd-worker",)}, False),
        (
            {
                "image": "x/node-feature-discovery:v0.16.0",
                "command": ("nfd-worker",),
                "args": ["-feature-gates=NodeFeatureAPI=false"],
            },
            False,
        ),
        (
            {
                "image": "x/node-feature-discovery:v0.14.0",
                "command": ("nfd-worker",),
                "args": ["-enable-nodefeature-api"],
            },
            True,
        ),
    ],
)
def test_options_and_version_tell_whether_node_features_are_written(changes: dict[str, Any], *, expected: bool) -> None:
    assert publishes_by_object(only(cluster(daemonsets=[daemonset(**changes)]))) == Seen(expected)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), ("null", False)])
def test_with_a_configuration_file_the_log_tells_it(value: str, *, expected: bool) -> None:
    given = daemonset(
        image="x/k8s-device-plugin@sha256:00", env=[{"name": "CONFIG_FILE", "value": "/config/config.yaml"}]
    )
    log = {"gpu/gfd-x/main": PRINTED.format(value=value)}
    assert publishes_by_object(only(cluster(daemonsets=[given], pods=[pod_of()], logs=log))) == Seen(expected)


def test_an_image_without_version_and_log_leaves_it_unknown() -> None:
    reading = publishes_by_object(only(cluster(daemonsets=[daemonset(image="x/k8s-device-plugin:latest")])))
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


KLOG = "E0101 00:00:00.000000       1 main.go:127]"

# --- who uses the labels, and the objects ------------------------------------------------------


def test_pods_are_asked_only_where_no_daemonset_selects_by_a_label() -> None:
    template = daemonset()
    assert need(cluster(daemonsets=[template]).features.user) is None
    template["spec"]["template"]["spec"]["nodeSelector"] = {"nvidia.com/gpu.present": "true"}
    assert need(cluster(daemonsets=[template]).features.user) == "DaemonSet gpu/gfd by nvidia.com/gpu.present"
    workload = bundle_builders.pod()
    workload["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert need(cluster(pods=[workload]).features.user) == "pod default/web by nvidia.com/gpu.product"


def test_a_malformed_node_feature_leaves_all_of_them_unknown() -> None:
    good = {"metadata": {"name": "a"}, "spec": {}}
    reading = cluster(node_features=[good, {"metadata": {"name": 7}}]).features.node_features
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


def test_a_node_feature_is_found_by_name_or_by_owner() -> None:
    labels = {"nfd.node.kubernetes.io/node-name": "gpu-0"}
    owned = {
        "metadata": {
            "name": "other",
            "labels": labels,
            "ownerReferences": [{"kind": "DaemonSet", "name": "gfd", "uid": "uid-gfd"}],
        }
    }
    for item, found in (
        ({"metadata": {"name": "nvidia-features-for-gpu-0", "labels": labels}}, True),
        (owned, True),
        ({"metadata": {"name": "gpu-0", "labels": labels}}, False),
        ({"metadata": {"name": "nvidia-features-for-gpu-0"}}, False),
    ):
        made = cluster(daemonsets=[daemonset()], node_features=[item])
        assert (need(made.features.published(only(made), gpu_node(made))) is not None) is found


@pytest.mark.parametrize(
    ("log", "absent"),
    [
        (f"{KLOG} failed to create NodeFeature object: the server could not find the requested resource", True),
        ('no matches for kind "NodeFeature" in version "nfd.k8s-sigs.io/v1alpha1"', True),
        ('nodefeatures.nfd.k8s-sigs.io is forbidden: User "x" cannot create resource "nodefeatures"', False),
        ("the server could not find the requested resource (get pods)", None),
        ("", None),
        ("I0101 00:00:00.000000 1 output.go:151] created NodeFeature object", None),
    ],
)
def test_only_words_about_node_features_are_a_refusal(log: str, *, absent: bool | None) -> None:
    made = cluster(daemonsets=[daemonset()], pods=[pod_of()], logs={"gpu/gfd-x/main": log})
    refusal = need(made.features.refusal(only(made), first_pod(made)))
    assert (None if refusal is None else refusal.is_absent) is absent


def test_a_lost_log_of_a_container_that_ran_is_a_gap_and_of_one_that_never_ran_is_not() -> None:
    for state, kind in (({"running": {}}, Missing), ({"waiting": {"reason": "ContainerCreating"}}, Seen)):
        made = cluster(daemonsets=[daemonset()], pods=[pod_of(ready=False, state=state)])
        assert isinstance(made.features.refusal(only(made), first_pod(made)), kind)


# --- labels against NVML -----------------------------------------------------------------------


def nvml(names: tuple[str, ...] = ("NVIDIA H200",), **answers: Any) -> dict[str, Any]:
    """Return the answers of NVML on a host with these GPUs; `answers` replace calls by name."""
    calls: dict[str, Any] = {
        "nvmlInit_v2": None,
        "nvmlDeviceGetCount_v2": len(names),
        "nvmlSystemGetDriverVersion": "580.159.04",
        "nvmlSystemGetCudaDriverVersion_v2": 13000,
    }
    for index, name in enumerate(names):
        calls[f"nvmlDeviceGetName({index})"] = name
        calls[f"nvmlDeviceGetMemoryInfo({index})"] = {"total": 143771 * 2**20 + 1}
        calls[f"nvmlDeviceGetCudaComputeCapability({index})"] = [9, 0]
    return {f"nvml:{call}": {"code": 0, "value": value} for call, value in {**calls, **answers}.items()}


LABELS = {
    "cuda.driver.major": "580",
    "cuda.driver.minor": "159",
    "cuda.driver.rev": "04",
    "cuda.runtime.major": "13",
    "cuda.runtime.minor": "0",
    "gpu.product": "NVIDIA-H200",
    "gpu.count": "1",
    "gpu.memory": "143771",
    "gpu.compute.major": "9",
    "gpu.compute.minor": "0",
}


def disagreements(host: dict[str, Any], **changes: str | None) -> Any:
    """Return what labels with these changes say otherwise than that host."""
    labels = {**LABELS, **{key.replace("__", "."): value for key, value in changes.items()}}
    one = bundle_builders.node()
    one["metadata"]["labels"] = {f"nvidia.com/{key}": value for key, value in labels.items() if value is not None}
    made = cluster(nodes=[one], host=host)
    return made.features.disagreements(gpu_node(made))


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        (nvml(), {}),
        (nvml(), {"gpu__product": "NVIDIA-H200-SHARED"}),
        (nvml(), {"gpu__memory": None}),
        (nvml(), {"cuda__driver-version.full": "580.159.04", "cuda__driver__major": "1"}),
        (
            nvml(nvmlSystemGetDriverVersion="570.26"),
            {"cuda__driver__major": "570", "cuda__driver__minor": "26", "cuda__driver__rev": ""},
        ),
        (nvml(), {"gpu__product": "NVIDIA-H200-MIG-1g.18gb", "gpu__count": "7", "gpu__memory": "16384"}),
        (nvml(("NVIDIA H200", "NVIDIA T4")), {}),
        (nvml(nvmlSystemGetCudaDriverVersion_v2=12080), {"cuda__runtime__major": "12", "cuda__runtime__minor": "8"}),
    ],
)
def test_true_labels_are_not_contradicted(host: dict[str, Any], changes: dict[str, str | None]) -> None:
    assert disagreements(host, **changes) == Seen(())


def test_a_memory_that_nvml_does_not_tell_contradicts_nothing() -> None:
    host = {**nvml(), "nvml:nvmlDeviceGetMemoryInfo(0)": {"code": 3}}
    assert disagreements(host) == Seen(())


@pytest.mark.parametrize(
    ("host", "changes", "said"),
    [
        (nvml(("NVIDIA T4",)), {}, "label nvidia.com/gpu.product=NVIDIA-H200, NVML lists NVIDIA T4"),
        (nvml(()), {}, "label nvidia.com/gpu.product=NVIDIA-H200, NVML lists no GPU"),
        (nvml(), {"gpu__count": "8"}, "label nvidia.com/gpu.count=8, NVML lists 1 NVIDIA-H200"),
        (nvml(), {"gpu__memory": "143773"}, "label nvidia.com/gpu.memory=143773, NVML 143771 MiB"),
        (nvml(), {"gpu__compute__minor": "1"}, "labels say compute capability 9.1, NVML 9.0"),
        (nvml(), {"cuda__runtime__minor": "2"}, "labels say CUDA 13.2, NVML 13.0"),
        (nvml(), {"cuda__driver__rev": ""}, "labels say driver 580.159, NVML 580.159.04"),
    ],
)
def test_false_labels_are_named_with_what_nvml_says(
    host: dict[str, Any], changes: dict[str, str | None], said: str
) -> None:
    assert disagreements(host, **changes) == Seen((said,))


@pytest.mark.parametrize(
    "answers",
    [
        {"nvmlSystemGetDriverVersion": None},
        {"nvmlSystemGetCudaDriverVersion_v2": "13.0"},
        {"nvmlDeviceGetCount_v2": -1},
        {"nvmlDeviceGetName(0)": 7},
        {"nvmlDeviceGetMemoryInfo(0)": {"free": 1}},
        {"nvmlDeviceGetCudaComputeCapability(0)": [9]},
        {"nvmlDeviceGetCudaComputeCapability(0)": {"major": "9", "minor": "0"}},
    ],
)
def test_an_answer_of_another_shape_is_no_agreement(answers: dict[str, Any]) -> None:
    reading = disagreements(nvml(**answers))
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


# --- what a log and a pod say ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("\n \n", None),
        ("all is well", "all is well"),
        (f"{KLOG} failed to create resource manager", "failed to create resource manager"),
        ("Error: first\nlast words", "Error: first"),
        ("fatal: one\nI0101 00:00:00.000000 1 main.go:1] Error is only told here", "fatal: one"),
        ('level=error msg="cannot"\nlevel=info msg="Error of others"', 'level=error msg="cannot"'),
        ("\x00\ufffd", "\x00\ufffd"),
    ],
)
def test_the_last_complaint_of_a_log_is_found(text: str, expected: str | None) -> None:
    assert last_complaint(text) == expected


def test_a_huge_log_is_read_from_its_end() -> None:
    assert last_complaint("x" * 5_000_000 + "\npanic: out\n") == "panic: out"
    assert len(one_line("y" * 5_000_000) or "") == 4000


def test_a_long_text_keeps_its_head_and_its_end() -> None:
    text = brief("head " + "x" * 1000 + " end")
    assert (len(text), text.startswith("head "), text.endswith(" end")) == (240, True, True)
    assert brief("short") == "short"


CRASH = {"exitCode": 1, "reason": "Error", "finishedAt": "2025-12-31T23:59:00Z"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"restartCount": 2, "lastState": {"terminated": CRASH}}, True),
        ({"restartCount": 1, "lastState": {"terminated": CRASH}}, False),
        ({"restartCount": 2, "lastState": {"terminated": {**CRASH, "exitCode": 0}}}, False),
        ({"restartCount": 2, "lastState": {"terminated": {**CRASH, "finishedAt": "2025-12-31T23:00:00Z"}}}, False),
        ({"restartCount": 9}, False),
    ],
)
def test_what_ended_badly_twice_a_short_while_ago_restarts(status: dict[str, Any], *, expected: bool) -> None:
    assert restarting(first_pod(cluster(pods=[pod_of(**status)]))) is expected


@pytest.mark.parametrize(
    ("status", "log", "said", "plight"),
    [
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": CRASH},
                "restartCount": 3,
            },
            "Error: Failed to initialize NVML",
            "CrashLoopBackOff, 3 restarts, exit code 1 (Error): 'Error: Failed to initialize NVML'",
            Plight.NO_DRIVER,
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {**CRASH, "exitCode": 137, "reason": "OOMKilled"}},
                "restartCount": 3,
            },
            "Error: x",
            "CrashLoopBackOff, 3 restarts, exit code 137 (OOMKilled)",
            Plight.OUT_OF_MEMORY,
        ),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}},
            None,
            "ImagePullBackOff: 'Back-off pulling image'",
            Plight.IMAGE,
        ),
        (
            {"state": {"waiting": {"reason": "RunContainerError", "message": 'no runtime for "nvidia" is configured'}}},
            None,
            "RunContainerError: 'no runtime for \"nvidia\" is configured'",
            Plight.NO_HANDLER,
        ),
        ({"state": {"terminated": CRASH}}, "", "ended (Error), exit code 1 (its log is empty)", Plight.OTHER),
        ({"state": {"running": {}}}, None, "running, not Ready", Plight.OTHER),
    ],
)
def test_a_pod_that_is_not_well_is_explained(
    status: dict[str, Any], log: str | None, said: str, plight: Plight
) -> None:
    given = daemonset()
    given["status"]["numberReady"] = 0
    logs = {} if log is None else {"gpu/gfd-x/main": log}
    made = cluster(daemonsets=[given], pods=[pod_of(ready=False, **status)], logs=logs)
    shortfall = need(Rollout(only(made)).shortfall)
    assert shortfall is not None
    assert shortfall.facts == f"gpu/gfd wants 1 pod, 0 Ready; pod gfd-x on gpu-0: {said}"
    assert shortfall.plight is plight


def test_an_init_container_that_fails_is_the_culprit() -> None:
    one = pod_of(ready=False, state={"waiting": {"reason": "PodInitializing"}})
    waits = {"name": "toolkit-validation", "ready": False, "restartCount": 4, "state": {"terminated": CRASH}}
    one["status"]["initContainerStatuses"] = [waits]
    assert trouble(first_pod(cluster(pods=[one]))).state == (
        "toolkit-validation ended (Error), 4 restarts, exit code 1"
    )


def test_a_pod_that_is_not_scheduled_says_why() -> None:
    one = pod_of(ready=False)
    one["spec"].pop("nodeName")
    one["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}],
    }
    assert str(trouble(first_pod(cluster(pods=[one])))) == "pod gfd-x: Pending: '0/1 nodes are available'"


def test_a_daemonset_that_is_well_lacks_nothing() -> None:
    assert need(Rollout(only(cluster(daemonsets=[daemonset()], pods=[pod_of()]))).shortfall) is None


def test_a_pod_that_is_being_deleted_is_not_counted() -> None:
    leaving = pod_of(ready=False)
    leaving["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:00Z"
    leaving["metadata"]["name"] = "gfd-old"
    assert need(Rollout(only(cluster(daemonsets=[daemonset()], pods=[leaving, pod_of()]))).shortfall) is None


def test_a_node_that_a_sibling_serves_is_not_left_out() -> None:
    small, large = daemonset(name="small"), daemonset(name="large")
    for one, label in ((small, "small"), (large, "large")):
        one["spec"]["template"]["spec"]["nodeSelector"] = {"size": label}
    node = bundle_builders.node()
    node["metadata"]["labels"]["size"] = "large"
    small["status"] = {**small["status"], "desiredNumberScheduled": 0, "numberReady": 0}
    made = cluster(nodes=[node], daemonsets=[small, large], pods=[pod_of("large")])
    assert [need(Rollout(one).left_out) for one in need(made.daemonsets)] == [(), ()]
    assert need(made.stack.unselected(gpu_node(made))).missed == ()


def test_a_node_that_no_sibling_serves_is_left_out_by_each() -> None:
    given = daemonset()
    given["spec"]["template"]["spec"]["nodeSelector"] = {"size": "large"}
    given["status"] = {**given["status"], "desiredNumberScheduled": 0, "numberReady": 0}
    made = cluster(daemonsets=[given])
    shortfall = need(Rollout(only(made)).shortfall)
    assert shortfall is not None
    assert shortfall.plight is Plight.LABEL
    assert shortfall.facts == (
        "gpu/gfd wants 0 pods, 0 Ready; left out 1 of 1 GPU nodes: "
        "gpu-0: nodeSelector needs size=large; the node has no size"
    )


def test_a_node_from_which_a_person_keeps_the_operands_is_not_left_out() -> None:
    given = daemonset()
    given["spec"]["template"]["spec"]["nodeSelector"] = {"nvidia.com/gpu.deploy.gpu-feature-discovery": "true"}
    node = bundle_builders.node()
    node["metadata"]["labels"]["nvidia.com/gpu.deploy.operands"] = "false"
    made = cluster(nodes=[node], daemonsets=[given])
    assert need(Rollout(only(made)).left_out) == ()


# --- the exporter's Service --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, 9400),
        ({"args": ["-f", "/etc/x.csv"]}, 9400),
        ({"args": ["--address=:9500"]}, 9500),
        ({"args": ["-a", "0.0.0.0:9500"]}, 9500),
        ({"args": ["-a"]}, 9400),
        ({"env": [{"name": "DCGM_EXPORTER_LISTEN", "value": ":9401"}]}, 9401),
        ({"env": [{"name": "DCGM_EXPORTER_LISTEN", "value": "9401"}]}, 9400),
    ],
)
def test_the_exporter_listens_where_it_is_told(container: dict[str, Any], expected: int) -> None:
    given = daemonset("nvcr.io/nvidia/k8s/dcgm-exporter:4", command=(), **container)
    assert listen_port(only(cluster(daemonsets=[given]))) == Seen(expected)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (ServicePort(9400), 9400),
        (ServicePort(80, "", 9400), 9400),
        (ServicePort(80, "", "9400"), 9400),
        (ServicePort(80, "", "metrics"), 9400),
        (ServicePort(80, "", "http"), None),
    ],
)
def test_a_services_port_leads_to_a_number_or_a_name(port: ServicePort, expected: int | None) -> None:
    given = daemonset(ports=[{"containerPort": 9400, "name": "metrics"}])
    assert target_port(only(cluster(daemonsets=[given])), port) == Seen(expected)


# --- the operator's word -----------------------------------------------------------------------

SERVED = {
    "version": "v1.30.0",
    "groups": [{"name": "", "versions": ["v1"]}, {"name": "nvidia.com", "versions": ["v1"]}],
}


def policy(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "cluster-policy", "labels": {"app.kubernetes.io/version": "v22.9.2"}},
        "status": status,
    }


def read_policies(*items: Any) -> Any:
    return cluster(policies=list(items)).operator.policies


def test_the_condition_that_speaks_tells_the_reason_and_the_states() -> None:
    conditions = [
        {"type": "Ready", "status": "False", "reason": "Error"},
        {
            "type": "Error",
            "status": "True",
            "reason": "OperandNotReady",
            "message": "ClusterPolicy is not ready; states not ready: [state-driver state-dcgm]",
        },
    ]
    (found,) = need(read_policies(policy(state="notReady", conditions=conditions)))
    assert (found.reason, found.is_ready) == ("OperandNotReady", False)
    assert found.states_not_ready == ("state-driver", "state-dcgm")


def test_an_operator_before_conditions_is_told_by_its_chart() -> None:
    (found,) = need(read_policies(policy(state="ready")))
    assert found == Policy("ClusterPolicy", "cluster-policy", "ready", None, "", "", (22, 9, 2))
    assert found.has_no_conditions_yet


def test_a_malformed_policy_leaves_all_unknown() -> None:
    reading = read_policies(policy(state="ready"), {"metadata": {"name": "x"}, "status": {"state": 7}})
    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


def judged(scenario: str, check: str, **changes: Any) -> list[Outcome]:
    """Return what a check says of a scenario's subjects."""
    (found,) = (one for one in suite.all_checks() if one.info.id == check)
    result = suite.judge_one(found, suite.LIBRARY.build(scenario), **changes)
    return [Outcome.PASS] * len(result.passed) + [one.outcome for one in result.others]


def test_a_reconciled_policy_passes_and_one_that_deployed_nothing_does_not() -> None:
    (check,) = (one for one in suite.all_checks() if one.info.id == "OPR-001")
    ready = {"type": "Ready", "status": "True", "message": "", "reason": "Reconciled"}
    for reason, outcome in (("Reconciled", Outcome.PASS), ("NoGPUNodes", Outcome.FAULT)):
        made = cluster(policies=[policy(state="ready", conditions=[{**ready, "reason": reason}])])
        result = suite.judge_one(check, made.bundle)
        assert [Outcome.PASS] * len(result.passed) + [one.outcome for one in result.others] == [outcome]


def test_the_recorded_state_whose_labels_are_not_yet_there_is_unknown() -> None:
    assert judged("recorded/cdi-mode-healthy", "DSC-004") == [Outcome.UNKNOWN]
    assert judged("recorded/healthy", "DSC-004") == [Outcome.PASS]


def test_an_absent_type_is_a_fault_only_where_a_publisher_met_it() -> None:
    assert judged("recorded/gfd-without-nfd-crd", "DSC-010") == [Outcome.FAULT]
    assert judged("recorded/no-nvidia-runtime", "DSC-010") == [Outcome.NOT_APPLICABLE]
    assert judged("recorded/plugin-without-runtime", "DSC-010") == [Outcome.NOT_APPLICABLE]

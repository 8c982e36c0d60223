"""The workload layer's evidence: who asks for GPUs, who sees some unasked, who could not start, what was measured."""

import io
from typing import Any

import msgspec
import pytest

import suite
from kube_gpucheck.evidence import Cluster, Pod, workload
from kube_gpucheck.evidence.documents import PodDocument
from kube_gpucheck.evidence.workload import Device, Measurement
from kube_gpucheck.model import Missing, MissingKind, Seen

CLUSTER = Cluster(suite.LIBRARY.build("recorded/visible-devices"))
ERROR = 'error modifying OCI spec: failed to initialize NVML: "Driver/library version mismatch": unknown'


def pod_of(name: str, cluster: Cluster = CLUSTER) -> Pod:
    pods = cluster.pods
    assert isinstance(pods, Seen)
    return next(pod for pod in pods.value if pod.name == name)


def made(spec: dict[str, Any], status: dict[str, Any], **metadata: Any) -> Pod:
    """Return a pod of these fields in the recorded cluster."""
    container = {"name": "main", "image": "cuda", **spec.pop("container", {})}
    document = {
        "metadata": {"name": "made", "namespace": "default", **metadata},
        "spec": {"containers": [container], "nodeName": "gpu-node-0", **spec},
        "status": status,
    }
    return Pod(CLUSTER, "default", "made", Seen(msgspec.convert(document, PodDocument, strict=False)))


def ended(**terminated: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": 128, **terminated}}
    return {
        "phase": "Failed",
        "containerStatuses": [{"name": "main", "ready": False, "restartCount": 0, "state": state}],
    }


@pytest.mark.parametrize(
    "name",
    [
        "norequest-cuda-image-env-all",
        "caps-utility-only",
        "require-cuda-99",
        "cuda-visible-devices-bad",
        "visible-devices-bad-uuid",
        "visible-devices-index7",
    ],
)
def test_who_is_shown_a_gpu_or_reaches_for_one_unasked_sees_it(name: str) -> None:
    sight = workload.sight(pod_of(name))
    assert isinstance(sight, Seen)
    assert sight.value is not None


@pytest.mark.parametrize(
    "name",
    [
        "alloc-cuda-image",
        "no-gpu",
        "norequest-no-runtimeclass",
        "norequest-plain-image",
        "visible-devices-empty",
        "visible-devices-none",
        "visible-devices-void",
    ],
)
def test_who_asked_or_is_shown_nothing_sees_nothing_unasked(name: str) -> None:
    assert workload.sight(pod_of(name)) == Seen(None)


def test_the_gpu_stack_is_left_alone() -> None:
    plugin = pod_of("nvidia-device-plugin-9x6zh")
    assert workload.is_stack(plugin) == Seen(value=True)
    assert workload.may_see_gpus(plugin) == Seen(value=False)


def test_what_the_operators_validator_makes_is_left_alone() -> None:
    spec: dict[str, Any] = {"runtimeClassName": "nvidia"}
    validator = made(spec, {"phase": "Succeeded"}, labels={"app": "nvidia-cuda-validator"})
    assert workload.may_see_gpus(validator) == Seen(value=False)


def test_a_pod_that_asks_in_every_container_is_not_looked_at() -> None:
    assert workload.may_see_gpus(pod_of("alloc-cuda-image")) == Seen(value=False)


def test_a_resource_claim_is_a_request() -> None:
    spec: dict[str, Any] = {
        "runtimeClassName": "nvidia",
        "resourceClaims": [{"name": "gpu"}],
        "container": {"resources": {"claims": [{"name": "gpu"}]}},
    }
    assert workload.may_see_gpus(made(spec, {"phase": "Running"})) == Seen(value=False)


def test_the_variable_under_an_ordinary_handler_gives_nothing() -> None:
    spec = {"container": {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}}
    assert workload.sight(made(spec, {"phase": "Pending"})) == Seen(None)


def test_a_create_error_that_names_nvidia_is_a_start_failure() -> None:
    failure = workload.start_failure(made({}, ended(reason="StartError", message=ERROR)))
    assert failure == Seen(f"main: StartError: {ERROR}")


@pytest.mark.parametrize(
    "terminated",
    [
        {"reason": "Error", "exitCode": 1, "message": "nvidia-smi failed"},
        {"reason": "StartError", "message": "exec: no such file or directory"},
        {"reason": "Completed", "exitCode": 0},
    ],
)
def test_a_programs_own_end_is_no_start_failure(terminated: dict[str, Any]) -> None:
    assert workload.start_failure(made({}, ended(**terminated))) == Seen(None)


def test_a_pod_that_starts_again_and_again_is_judged_by_its_last_end() -> None:
    status = {
        "name": "main",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        "lastState": {"terminated": {"exitCode": 128, "reason": "StartError", "message": ERROR}},
    }
    failure = workload.start_failure(made({}, {"phase": "Running", "containerStatuses": [status]}))
    assert failure == Seen(f"main: StartError: {ERROR}")


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfnvidia.com/gpu"])
def test_a_refusal_at_admission_is_told_in_the_kubelets_words(reason: str) -> None:
    refused = made({}, {"phase": "Failed", "reason": reason, "message": "Requested: 1, Available: 0"})
    assert workload.refusal(refused) == Seen(f"{reason}: Requested: 1, Available: 0")
    assert workload.start_failure(refused) == workload.refusal(refused)


def test_an_eviction_is_no_refusal() -> None:
    assert workload.refusal(made({}, {"phase": "Failed", "reason": "Evicted", "message": "memory"})) == Seen(None)


def test_the_events_of_a_pod_that_waits_are_needed() -> None:
    cluster = Cluster(suite.LIBRARY.build("checks/PLG-009-unknown"))
    failure = workload.start_failure(pod_of("cuda-smi-norequest", cluster))
    assert isinstance(failure, Missing)
    assert failure.kind is MissingKind.FORBIDDEN


def test_an_unset_variable_and_one_without_value_are_told_apart() -> None:
    env = [{"name": "A"}, {"name": "B", "value": "x"}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]
    containers = made({"container": {"env": env}}, {"phase": "Pending"}).containers
    assert isinstance(containers, Seen)
    assert [workload.environment(containers.value[0], name) for name in "ABCD"] == ["", "x", None, None]


# --- measurements ----------------------------------------------------------------------------------


def measured(**fields: Any) -> Measurement:
    whole = {
        "outcome": "ran",
        "request": "1 nvidia.com/gpu",
        "limit_s": 120,
        "nonce": "6f1d",
        "expected": "9c20",
        "answer": "9c20",
        "image_id": "sha256:3",
        "started": "2026-11-24T00:13:40Z",
        "finished": "2026-11-24T00:13:42Z",
        "seen": ["GPU-1"],
        "devices": [{"uuid": "GPU-1", "elements": 50000, "wrong": 0}],
    }
    return msgspec.convert({**whole, **fields}, Measurement)


def test_a_whole_proof_lacks_nothing() -> None:
    assert measured().lacks == ()
    assert measured().devices == (Device("GPU-1", 50000, 0),)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer": ""}, "its nonce did not come back from the GPU"),
        ({"nonce": "", "expected": "", "answer": ""}, "its nonce did not come back from the GPU"),
        ({"image_id": ""}, "it has no imageID"),
        ({"finished": "2026-11-24T00:13:40Z"}, "it took no time"),
        ({"started": ""}, "it took no time"),
        ({"seen": []}, "it saw no GPU"),
    ],
)
def test_a_proof_with_a_hole_says_which(fields: dict[str, Any], words: str) -> None:
    assert measured(**fields).lacks == (words,)


def test_a_busy_node_is_unknown_with_its_holders() -> None:
    nodes = Cluster(suite.LIBRARY.build("checks/WRK-001-unknown-busy")).nodes
    assert isinstance(nodes, Seen)
    found = nodes.value[0].workload.vector_add
    assert isinstance(found, Missing)
    assert found.reason == "its GPUs are held by default/train-0"


def test_a_workload_that_nobody_asked_for_is_not_asked() -> None:
    nodes = CLUSTER.nodes
    assert isinstance(nodes, Seen)
    found = nodes.value[0].workload.vector_add
    assert isinstance(found, Missing)
    assert (found.kind, found.option) == (MissingKind.NOT_ASKED, "--active")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"outcome": "ran"}', '{"outcome": "x", "request": "", "limit_s": 1}']
)
def test_a_measurement_that_is_damaged_is_unparsable(content: str) -> None:
    bundle = suite.LIBRARY.build("checks/WRK-001-fault")

    class Damaged:
        name = "damaged"

        def read(self, path: str) -> bytes | None:
            return content.encode() if path.startswith("workloads/") else bundle.store.read(path)

        def open(self, path: str) -> Any:
            content = self.read(path)
            return None if content is None else io.BytesIO(content)

        def paths(self) -> Any:
            return bundle.store.paths()

    nodes = Cluster(type(bundle)(Damaged(), msgspec.structs.replace(bundle.manifest, files={}))).nodes
    assert isinstance(nodes, Seen)
    found = nodes.value[0].workload.vector_add
    assert isinstance(found, Missing)
    assert found.kind is MissingKind.UNPARSABLE

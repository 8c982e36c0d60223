"""Pods outside the GPU stack: whether they ask for GPUs, see some, or fail to start; and measured workloads.

What an active workload measured stands in `workloads/<name>/<node>.json` as one `Measurement`.
"""

import re
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.allocation import NVIDIA_DOMAIN
from kube_gpucheck.evidence.documents import Container, ContainerStatus, EnvironmentVariable, PodSpec
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.evidence.pluginlog import brief
from kube_gpucheck.evidence.quantity import whole
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.model import Missing, MissingKind, Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.gpu import Gpu
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod, PodOutline

VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
HIDDEN: Final = frozenset({"", "none", "void"})
"""Values with which the runtime gives a container no GPU. Source: nvidia-container-toolkit, internal/config/image."""
_STACK_WORKLOADS: Final = frozenset(
    {"nvidia-cuda-validator", "nvidia-device-plugin-validator", "nvidia-operator-validator", "nvidia-sandbox-validator"}
)
"""`app` labels of pods that the operator's validator makes. Source: gpu-operator, state-operator-validation."""
_NVIDIA: Final = re.compile(r"nvidia|nvml|libcuda|\bcdi\b|no runtime for \"", re.IGNORECASE)
_NOT_A_FAILURE: Final = frozenset(
    {
        "",
        "ContainerCreating",
        "PodInitializing",
        "CrashLoopBackOff",
        "ErrImagePull",
        "ImagePullBackOff",
        "CreateContainerConfigError",
    }
)
_START_FAILURES: Final = frozenset(
    {"StartError", "ContainerCannotRun", "CreateContainerError", "RunContainerError", "ContainerStatusUnknown"}
)
_ADMISSION: Final = re.compile(r"UnexpectedAdmissionError|OutOfnvidia\.com/.{1,200}|Allocate failed.*", re.DOTALL)
_SELECTION: Final = re.compile(
    r"failed to get device handle from|unresolvable CDI devices|device error: [^:\n]{1,200}: unknown device"
)
_SIGHTS: Final = (
    re.compile(r"^GPU \d+: [^\n]{1,200}\(UUID: (?:GPU|MIG)-[0-9a-f-]+\)", re.MULTILINE),
    re.compile(r"^c[rw-]{9}[^\n]{1,100}\bnvidia\d+$", re.MULTILINE),
    re.compile(r"^\| +\d+ +(?:NVIDIA|Tesla|Quadro|GeForce|GRID)\b[^\n]{0,100}", re.MULTILINE),
    re.compile(r"Detected [1-9]\d* CUDA Capable device"),
)
"""What programs print when they see a GPU: nvidia-smi -L, ls -l /dev, nvidia-smi, deviceQuery."""


def is_stack(pod: "Pod") -> Reading[bool]:
    """Return whether a pod is part of the GPU stack, or made by it for a test of its own."""
    return attempt(lambda: _is_stack(need(pod.outline)))


def _is_stack(pod: "PodOutline") -> bool:
    return pod.component is not None or pod.app in _STACK_WORKLOADS


def asks_for_gpu(pod: "Pod") -> Reading[bool]:
    """Return whether a pod outside the GPU stack asks for a resource in NVIDIA's domain."""
    return attempt(lambda: _asks_for_gpu(need(pod.outline)))


def _asks_for_gpu(pod: "PodOutline") -> bool:
    return bool(pod.gpu_request) and not _is_stack(pod)


def asks_and_lives(pod: "Pod") -> Reading[bool]:
    """Return whether a pod outside the GPU stack asks for GPUs and has not ended."""
    return attempt(lambda: _asks_for_gpu(need(pod.outline)) and not need(pod.is_finished))


def asks_or_was_refused(pod: "Pod") -> Reading[bool]:
    """Return whether a pod outside the GPU stack asks for GPUs and has not ended, or was refused at admission."""
    return attempt(
        lambda: _asks_for_gpu(need(pod.outline)) and (not need(pod.is_finished) or need(refusal(pod)) is not None)
    )


def runs_under_nvidia(pod: "Pod") -> Reading[bool]:
    """Return whether a pod runs under NVIDIA's handler: by its RuntimeClass, else by its node's default runtime.

    A class counts that has NVIDIA in its name or its handler's, or that the GPU stack uses too. A default runtime
    that nobody asked for counts as an ordinary one.
    """

    def derive() -> bool:
        name = need(pod.runtime_class)
        if not name:
            node = need(pod.cluster.nodes_by_name).get(pod.node_name or "")
            default = None if node is None else node.runtime.default_is_nvidia
            return default is not None and not not_asked(default) and need(default)
        handler = next((one.handler for one in need(pod.cluster.runtime_classes) if one.metadata.name == name), name)
        if "nvidia" in handler.lower() or "nvidia" in name.lower():
            return True
        stack = need(pod.cluster.stack.daemonsets)
        return any(
            need(one.object).spec.template.spec.runtime_class_name == name
            and one.component is not None
            and one.component.needs_driver
            for one in stack
        )

    return attempt(derive)


def may_fail_for_nvidia(pod: "Pod") -> Reading[bool]:
    """Return whether a pod outside the stack asks for GPUs, runs under NVIDIA's handler, or failed and names it."""

    def derive() -> bool:
        known = need(pod.outline)
        named = known.runtime_class is not None
        told = bool(known.gpu_request) or (not known.is_even and any(_failure(status) for status in need(pod.statuses)))
        return (told or (named and need(runs_under_nvidia(pod)))) and not _is_stack(known)

    return attempt(derive)


def refusal(pod: "Pod") -> Reading[str | None]:
    """Return in the kubelet's words why it refused a pod that the scheduler sent, None if it did not."""

    def derive() -> str | None:
        if need(pod.outline).phase != "Failed":
            return None
        status = need(pod.object).status
        if _ADMISSION.match(status.reason) or _ADMISSION.match(status.message):
            return brief(f"{status.reason}: {status.message}")
        return None

    return attempt(derive)


def start_failure(pod: "Pod") -> Reading[str | None]:
    """Return why a pod could not start on account of NVIDIA's part, None if nothing of the kind is seen.

    In the words of its status (admission, container create errors), or, while it waits for its sandbox, of its last
    warning event. A program's own exit code is none of it.
    """

    def derive() -> str | None:
        refused = need(refusal(pod))
        if refused is not None:
            return refused
        for status in need(pod.statuses):
            words = _failure(status)
            if words:
                return brief(f"{status.name}: {words}", 700)
        document = need(pod.object)
        waits = (
            document.status.phase == "Pending"
            and document.spec.node_name
            and not any(one.state.running or one.state.terminated for one in need(pod.statuses))
        )
        if not waits:
            return None
        warnings = [
            event
            for event in need(pod.events)
            if event.type == "Warning" and event.reason.startswith("Failed") and event.reason != "FailedScheduling"
        ]
        return (
            brief(f"{warnings[-1].reason}: {warnings[-1].message}", 700)
            if warnings and _NVIDIA.search(warnings[-1].message)
            else None
        )

    return attempt(derive)


def _failure(status: ContainerStatus) -> str | None:
    """Return the create or start error of a container that names NVIDIA's part, None if it has none."""
    waiting, ended, before = status.state.waiting, status.state.terminated, status.last_state.terminated
    if waiting is not None and waiting.reason not in _NOT_A_FAILURE and _NVIDIA.search(waiting.message):
        return f"{waiting.reason}: {waiting.message}"
    for end in (ended, before if waiting is not None else None):
        if end is not None and end.reason in _START_FAILURES and _NVIDIA.search(end.message):
            return f"{end.reason}: {end.message}"
    return None


def replacement(pod: "Pod") -> Reading[str | None]:
    """Return the name of a Ready pod of the same owner that was made later, None if there is none."""

    def derive() -> str | None:
        mine = need(pod.object).metadata
        owner = next((one.uid for one in mine.owner_references if one.controller), None)
        for other in need(pod.cluster.pods_by_owner).get(owner, ()) if owner else ():
            made = need(other.object).metadata.creation_timestamp
            later = made is not None and mine.creation_timestamp is not None and made > mine.creation_timestamp
            if other.name != pod.name and later and need(other.is_ready):
                return other.name
        return None

    return attempt(derive)


def was_given_a_gpu(pod: "Pod") -> Reading[bool]:
    """Return whether a GPU of the device plugin was granted to programs that run, or that ended badly by themselves.

    A container that could not be created never ran; a pod that a later, Ready one of its owner replaced is history.
    """

    def derive() -> bool:
        known = need(pod.outline)
        if not known.gpu_request or known.phase not in {"Running", "Failed"}:
            return False
        if known.phase == "Running":
            return True
        ends = (status.state.terminated for status in need(pod.statuses))
        if not any(one is not None and one.reason == "Error" for one in ends):
            return False
        return need(replacement(pod)) is None

    return attempt(derive)


def may_see_gpus(pod: "Pod") -> Reading[bool]:
    """Return whether a pod outside the GPU stack has a container that asks for no GPU and might be given one.

    That is: it names NVIDIA's RuntimeClass, sets NVIDIA_VISIBLE_DEVICES, or its log was asked for.
    """

    def derive() -> bool:
        known = need(pod.outline)
        if _is_stack(known):
            return False
        if known.names_devices or (
            _logs_asked(pod) and any(_log_asked(pod, one) for one in unasking_containers(need(pod.object).spec))
        ):
            return True
        return known.is_unasking and known.runtime_class is not None and need(runs_under_nvidia(pod))

    return attempt(derive)


def sight(pod: "Pod") -> Reading[str | None]:
    """Return by what a pod sees, or reached for, GPUs that it did not ask for; None if nothing shows that it does.

    The variable in its specification counts under NVIDIA's handler; else what its log or its create error shows.
    """

    def derive() -> str | None:
        statuses = {status.name: status for status in need(pod.statuses)}
        handled: bool | None = None
        for container in unasking_containers(need(pod.object).spec):
            value = environment(container, VISIBLE)
            if value is not None and value not in HIDDEN:
                handled = need(runs_under_nvidia(pod)) if handled is None else handled
                if handled:
                    return f"container '{container.name}' sets {VISIBLE}={value} and asks for no GPU"
            status = statuses.get(container.name)
            if (value is not None and value in HIDDEN) or status is None:
                continue
            words = _failure(status)
            if words and _SELECTION.search(words):
                return brief(f"container '{container.name}' asks for no GPU and reached for one: {words}", 500)
            shown = _shown(pod, container, status)
            if shown:
                return f"container '{container.name}' asks for no GPU, and its log shows one: {shown}"
        return None

    return attempt(derive)


def _shown(pod: "Pod", container: Container, status: ContainerStatus) -> str | None:
    ran = status.state.running or (status.state.terminated and status.state.terminated.reason not in _START_FAILURES)
    if not ran:
        return None
    log = need(pod.log(container.name))
    found = next((match[0] for pattern in _SIGHTS if (match := pattern.search(log))), None)
    return brief(found, 120) if found else None


def has_run(pod: "Pod") -> Reading[bool]:
    """Return whether any container of a pod has run, or was tried."""
    return attempt(
        lambda: any(
            status.state.running or status.state.terminated or status.last_state.terminated
            for status in need(pod.statuses)
        )
    )


def unasking_containers(spec: PodSpec) -> tuple[Container, ...]:
    """Return the containers that ask for no GPU, init containers first; none where the pod has resource claims."""
    if spec.resource_claims:
        return ()
    return tuple(one for one in (*(spec.init_containers or ()), *spec.containers) if not _asks(one))


def _asks(container: Container) -> bool:
    """Tell whether a container asks for GPUs: by a resource, under whatever name, by a claim, or by a scheduler's word.

    Schedulers that divide GPUs give a container its part by a variable from a ConfigMap of theirs. Source: Run:ai and
    KAI-Scheduler, pkg/binder/common/gpusharingconfigmap.
    """
    resources = container.resources
    if resources.claims or any(_is_given(one) for one in container.env or ()):
        return True
    asked = [*(resources.requests or {}).items(), *(resources.limits or {}).items()]
    return any(whole(count) for name, count in asked if name.startswith(NVIDIA_DOMAIN) or _OTHERS_NAMES.search(name))


def _is_given(variable: EnvironmentVariable) -> bool:
    source = variable.value_from
    return variable.name == VISIBLE and source is not None and source.config_map_key_ref is not None


_OTHERS_NAMES: Final = re.compile(r"/v?gpu\b|/v?gpu-")
"""Resources of other makes for NVIDIA's GPUs, as volcano.sh/vgpu-number and aliyun.com/gpu-mem."""


def _log_asked(pod: "Pod", container: Container) -> bool:
    return pod.cluster.bundle.asks_log(f"{pod.namespace}/{pod.name}/{container.name}")


def _logs_asked(pod: "Pod") -> bool:
    return pod.cluster.bundle.asks_logs_of(f"{pod.namespace}/{pod.name}")


class Device(msgspec.Struct, frozen=True):
    """What one GPU answered: its UUID, how many elements it was given, and how many results were wrong."""

    uuid: str
    elements: int
    wrong: int


class Measurement(msgspec.Struct, frozen=True):
    """What an active workload measured on one node. Times are RFC 3339.

    `outcome`: `ran`, `pending` (not scheduled in time), `failed` (refused, or ended badly), `busy` (others hold the
    GPUs). `request`: how it asked (resource or claim, with the number). `limit_s`: how long it was waited for.
    `nonce`: what was sent, `answer`: what came back from the GPU, `expected`: what the right answer is. `granted`:
    UUIDs that the kubelet allocated, None where they could not be read. `seen`: UUIDs that the pod saw. `devices`:
    what each of them computed. `reason`: for another outcome than `ran`.
    """

    outcome: str
    request: str
    limit_s: float
    nonce: str = ""
    answer: str = ""
    expected: str = ""
    pod: str = ""
    image_id: str = ""
    started: str = ""
    finished: str = ""
    granted: tuple[str, ...] | None = None
    seen: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    reason: str = ""
    holders: tuple[str, ...] = ()

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing of the proof that it ran, in a reader's words; empty if it is whole."""
        return tuple(
            words
            for words, lacking in (
                (
                    "its nonce did not come back from the GPU",
                    not self.nonce or not self.expected or self.answer != self.expected,
                ),
                ("it has no imageID", not self.image_id),
                ("it took no time", not (self.started and self.finished and self.started < self.finished)),
                ("it saw no GPU", not self.seen),
            )
            if lacking
        )


VECTOR_ADD: Final = "vectoradd"


class Workload:
    """What gpucheck's own workload measured on one node."""

    def __init__(self, node: "Node") -> None:
        """Keep the node."""
        self.node = node

    @derived
    def vector_add(self) -> Measurement:
        """What the vector addition measured; missing where the GPUs were all held by others."""
        name = f"workload/{VECTOR_ADD}/{self.node.name}"
        found: Measurement = need(self.node.cluster.bundle.workload(VECTOR_ADD, self.node.name, Measurement))
        if found.outcome not in {"ran", "pending", "failed", "busy"}:
            need(Missing(MissingKind.UNPARSABLE, f"{name}: outcome is '{brief(found.outcome, 40)}'", name))
        if found.outcome == "busy":
            need(Missing(MissingKind.TIMEOUT, f"its GPUs are held by {', '.join(found.holders) or 'others'}", name))
        return found

    @derived
    def granted(self) -> tuple[str, ...]:
        """The UUIDs that the kubelet allocated to the vector addition; missing where they could not be read."""
        granted = need(self.vector_add).granted
        if granted is None:
            need(
                Missing(
                    MissingKind.ERROR,
                    "the kubelet's allocation could not be read",
                    f"workload/{VECTOR_ADD}/{self.node.name}",
                )
            )
            return ()
        return granted

    def of(self, gpu: "Gpu") -> Reading[Device | None]:
        """Return what a GPU computed, None if the workload was not given this GPU."""

        def derive() -> Device | None:
            measured = need(self.vector_add)
            uuid = gpu.identity.uuid
            if uuid is None:
                need(
                    Missing(
                        MissingKind.ERROR, f"the UUID of {gpu.name} is not known", f"nodes/{self.node.name}/host.json"
                    )
                )
            return next((one for one in measured.devices if one.uuid == uuid), None)

        return attempt(derive)


def environment(container: Container, name: str) -> str | None:
    """Return a variable's literal value, "" where it has none, None if it is not set or taken from elsewhere."""
    for one in container.env or ():
        if one.name == name and one.value_from is None:
            return one.value if one.value is not None else ""
    return None

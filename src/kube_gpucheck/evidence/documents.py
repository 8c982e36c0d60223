"""The Kubernetes objects as the API returns them, decoded only in the fields that gpucheck reads.

A field that the API always writes has no default here: an object without it is malformed, and
becomes `Missing`, not a zero. A field that the API omits when it is empty is `None`, `()` or an
empty mapping. Units are Kubernetes' own. Source: the Go types in k8s.io/api at 1.36.
"""

import datetime
from collections.abc import Mapping
from sys import intern
from typing import Any

import msgspec


class Document(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of all objects: frozen, JSON names in camel case; no tree of them has a cycle to collect."""


class OwnerReference(Document, frozen=True):
    """Who owns an object."""

    kind: str
    name: str
    uid: str = ""
    controller: bool = False
    api_version: str = ""


class Metadata(Document, frozen=True):
    """ObjectMeta."""

    name: str
    namespace: str | None = None
    uid: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    creation_timestamp: datetime.datetime | None = None
    deletion_timestamp: datetime.datetime | None = None
    generation: int = 0
    owner_references: tuple[OwnerReference, ...] = ()


class Taint(Document, frozen=True):
    """A node's taint."""

    key: str
    effect: str
    value: str | None = None


class Condition(Document, frozen=True):
    """A condition of a node, pod or custom resource. `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: datetime.datetime | None = None
    last_transition_time: datetime.datetime | None = None


class NodeInfo(
    Document,
    frozen=True,
    rename={
        "boot_id": "bootID",
        "kernel_version": "kernelVersion",
        "os_image": "osImage",
        "container_runtime_version": "containerRuntimeVersion",
        "kubelet_version": "kubeletVersion",
        "operating_system": "operatingSystem",
    },
):
    """What the kubelet says of its host."""

    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    architecture: str = ""
    operating_system: str = ""


class ContainerImage(Document, frozen=True):
    """An image that the kubelet lists; that there is one is all that is read."""


class RuntimeHandler(Document, frozen=True):
    """A handler that the engine told the kubelet of."""

    name: str = ""


class NodeStatus(Document, frozen=True):
    """A node's status."""

    conditions: tuple[Condition, ...]
    node_info: NodeInfo
    capacity: Mapping[str, str] = {}
    allocatable: Mapping[str, str] = {}
    images: tuple[ContainerImage, ...] | None = None
    runtime_handlers: tuple[RuntimeHandler, ...] | None = None


class NodeSpec(Document, frozen=True, rename={"provider_id": "providerID"}):
    """A node's specification."""

    taints: tuple[Taint, ...] | None = None
    unschedulable: bool = False
    provider_id: str = ""


class NodeDocument(Document, frozen=True):
    """A Node."""

    metadata: Metadata
    status: NodeStatus
    spec: NodeSpec = NodeSpec()


class KeyReference(Document, frozen=True):
    """The object that a value is taken from."""

    name: str = ""
    key: str = ""
    field_path: str = ""


class EnvironmentSource(Document, frozen=True):
    """Where a variable's value comes from; a Secret's value is never read."""

    field_ref: KeyReference | None = None
    config_map_key_ref: KeyReference | None = None
    secret_key_ref: KeyReference | None = None


class EnvironmentVariable(Document, frozen=True):
    """A container's variable."""

    name: str
    value: str | None = None
    value_from: EnvironmentSource | None = None


class Resources(Document, frozen=True):
    """What a container asks for. Quantities as written."""

    limits: Mapping[str, str | int] | None = None
    requests: Mapping[str, str | int] | None = None
    claims: tuple[Mapping[str, str], ...] | None = None


class VolumeMount(Document, frozen=True):
    """Where a volume is mounted in a container."""

    name: str
    mount_path: str
    sub_path: str = ""


class SecurityContext(Document, frozen=True):
    """A container's privileges."""

    privileged: bool | None = None
    run_as_user: int | None = None
    capabilities: Mapping[str, tuple[str, ...] | None] | None = None


class ContainerPort(Document, frozen=True):
    """A port that a container declares."""

    container_port: int
    name: str = ""


class Container(Document, frozen=True):
    """A container of a pod or template."""

    name: str
    image: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[EnvironmentVariable, ...] | None = None
    resources: Resources = Resources()
    volume_mounts: tuple[VolumeMount, ...] | None = None
    security_context: SecurityContext | None = None
    ports: tuple[ContainerPort, ...] | None = None


class HostPath(Document, frozen=True):
    """A folder or file of the host."""

    path: str


class ConfigMapVolume(Document, frozen=True):
    """A ConfigMap mounted as files."""

    name: str = ""
    optional: bool = False


class Volume(Document, frozen=True):
    """A pod's volume; only the kinds that checks read."""

    name: str
    host_path: HostPath | None = None
    config_map: ConfigMapVolume | None = None


class Toleration(Document, frozen=True):
    """A pod's toleration. An empty key with Exists tolerates all; an empty effect matches all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Requirement(Document, frozen=True):
    """One term of a label or field selector."""

    key: str
    operator: str
    values: tuple[str, ...] | None = None


class NodeSelectorTerm(Document, frozen=True):
    """Requirements that must all hold."""

    match_expressions: tuple[Requirement, ...] | None = None
    match_fields: tuple[Requirement, ...] | None = None


class NodeSelector(Document, frozen=True):
    """Terms of which one must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class NodeAffinity(Document, frozen=True):
    """Node affinity; preferences never exclude a node and are not read."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class Affinity(Document, frozen=True):
    """A pod's affinity; pod affinity is not evaluated."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: msgspec.Raw | None = None
    pod_anti_affinity: msgspec.Raw | None = None


class SchedulingGate(Document, frozen=True):
    """What keeps a pod from being scheduled on purpose."""

    name: str


class PodResourceClaim(Document, frozen=True):
    """A pod's claim on devices of dynamic resource allocation."""

    name: str
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class PodSpec(
    Document,
    frozen=True,
    rename={
        "host_pid": "hostPID",
        "host_network": "hostNetwork",
        "runtime_class_name": "runtimeClassName",
        "node_name": "nodeName",
        "node_selector": "nodeSelector",
        "init_containers": "initContainers",
        "service_account_name": "serviceAccountName",
        "priority_class_name": "priorityClassName",
        "scheduling_gates": "schedulingGates",
        "resource_claims": "resourceClaims",
        "restart_policy": "restartPolicy",
        "scheduler_name": "schedulerName",
    },
):
    """A pod's specification."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] | None = None
    volumes: tuple[Volume, ...] | None = None
    node_name: str | None = None
    node_selector: Mapping[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] | None = None
    runtime_class_name: str | None = None
    service_account_name: str | None = None
    priority_class_name: str | None = None
    scheduling_gates: tuple[SchedulingGate, ...] | None = None
    resource_claims: tuple[PodResourceClaim, ...] | None = None
    restart_policy: str = "Always"
    scheduler_name: str = "default-scheduler"
    host_pid: bool = False
    host_network: bool = False


class Terminated(Document, frozen=True):
    """How a container ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None


class Waiting(Document, frozen=True):
    """Why a container does not run."""

    reason: str = ""
    message: str = ""


class Running(Document, frozen=True):
    """Since when a container runs."""

    started_at: datetime.datetime | None = None


class ContainerState(Document, frozen=True):
    """One of the three; all `None` means waiting."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(
    Document, frozen=True, rename={"image_id": "imageID", "restart_count": "restartCount", "last_state": "lastState"}
):
    """A container's status."""

    name: str
    ready: bool
    restart_count: int
    image: str = ""
    image_id: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Document, frozen=True):
    """A pod's status."""

    phase: str
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None
    start_time: datetime.datetime | None = None


class PodDocument(Document, frozen=True):
    """A Pod."""

    metadata: Metadata
    spec: PodSpec
    status: PodStatus


class PodTemplate(Document, frozen=True):
    """A template of pods."""

    spec: PodSpec
    metadata: Mapping[str, Any] | None = None


class LabelSelector(Document, frozen=True):
    """A label selector. An empty one matches all."""

    match_labels: Mapping[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None


class DaemonSetSpec(Document, frozen=True):
    """A DaemonSet's specification."""

    template: PodTemplate
    selector: LabelSelector = LabelSelector()


class DaemonSetStatus(Document, frozen=True):
    """A DaemonSet's counts; the API always writes those without a default."""

    desired_number_scheduled: int
    current_number_scheduled: int
    number_ready: int
    number_misscheduled: int
    number_available: int = 0
    number_unavailable: int = 0
    updated_number_scheduled: int = 0
    observed_generation: int = 0


class DaemonSetDocument(Document, frozen=True):
    """A DaemonSet."""

    metadata: Metadata
    spec: DaemonSetSpec
    status: DaemonSetStatus


class DeploymentStatus(Document, frozen=True):
    """A Deployment's counts; zeros are omitted by the API."""

    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0


class DeploymentSpec(Document, frozen=True):
    """A Deployment's specification."""

    template: PodTemplate
    replicas: int = 1
    selector: LabelSelector = LabelSelector()


class DeploymentDocument(Document, frozen=True):
    """A Deployment."""

    metadata: Metadata
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()


class RuntimeClassScheduling(Document, frozen=True):
    """Where pods of a class may land."""

    node_selector: Mapping[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None


class RuntimeClassOverhead(Document, frozen=True):
    """What each pod of a class is counted for beside what it asks for."""

    pod_fixed: Mapping[str, str] | None = None


class RuntimeClassDocument(Document, frozen=True):
    """A RuntimeClass."""

    metadata: Metadata
    handler: str
    overhead: RuntimeClassOverhead | None = None
    scheduling: RuntimeClassScheduling | None = None


class ObjectReference(Document, frozen=True):
    """What an event is about."""

    kind: str = ""
    name: str = ""
    namespace: str | None = None
    uid: str = ""


class EventSeries(Document, frozen=True):
    """How often and when an event was last seen."""

    count: int = 0
    last_observed_time: datetime.datetime | None = None


class EventDocument(Document, frozen=True):
    """An Event. `count` is 0 where only `series` counts."""

    metadata: Metadata
    involved_object: ObjectReference
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int | None = None
    series: EventSeries | None = None
    first_timestamp: datetime.datetime | None = None
    last_timestamp: datetime.datetime | None = None
    event_time: datetime.datetime | None = None

    @property
    def last_seen(self) -> datetime.datetime | None:
        """When it was last seen, by whichever field the reporter filled."""
        observed = self.series.last_observed_time if self.series else None
        return observed or self.last_timestamp or self.event_time or self.metadata.creation_timestamp


class ServicePort(Document, frozen=True):
    """A Service's port. `target_port` is a number or the name of a container's port."""

    port: int
    name: str = ""
    target_port: int | str | None = None


class ServiceSpec(Document, frozen=True):
    """A Service's specification."""

    ports: tuple[ServicePort, ...] | None = None
    selector: Mapping[str, str] | None = None


class ServiceDocument(Document, frozen=True):
    """A Service."""

    metadata: Metadata
    spec: ServiceSpec


class EndpointConditions(Document, frozen=True):
    """Whether an endpoint takes traffic; absent means ready."""

    ready: bool | None = None


class Endpoint(Document, frozen=True):
    """One endpoint of a slice."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    node_name: str | None = None


class EndpointPort(Document, frozen=True):
    """A port of a slice."""

    name: str | None = None
    port: int | None = None


class EndpointSliceDocument(Document, frozen=True):
    """An EndpointSlice; the label `kubernetes.io/service-name` names its Service."""

    metadata: Metadata
    endpoints: tuple[Endpoint, ...] | None
    ports: tuple[EndpointPort, ...] | None = None


class ConfigMapDocument(Document, frozen=True):
    """A ConfigMap."""

    metadata: Metadata
    data: Mapping[str, str] | None = None


class NamespaceDocument(Document, frozen=True):
    """A Namespace."""

    metadata: Metadata


class QuotaStatus(Document, frozen=True):
    """What a quota allows and what is used. Quantities as written."""

    hard: Mapping[str, str] | None = None
    used: Mapping[str, str] | None = None


class QuotaSpec(Document, frozen=True):
    """What a quota limits."""

    hard: Mapping[str, str] | None = None


class ResourceQuotaDocument(Document, frozen=True):
    """A ResourceQuota."""

    metadata: Metadata
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class LimitRangeItem(Document, frozen=True):
    """One limit of a LimitRange."""

    type: str
    max: Mapping[str, str | int] | None = None
    min: Mapping[str, str | int] | None = None


class LimitRangeSpec(Document, frozen=True):
    """A LimitRange's limits."""

    limits: tuple[LimitRangeItem, ...]


class LimitRangeDocument(Document, frozen=True):
    """A LimitRange."""

    metadata: Metadata
    spec: LimitRangeSpec


class LeaseSpec(Document, frozen=True):
    """A Lease's times."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: datetime.datetime | None = None


class LeaseDocument(Document, frozen=True):
    """A Lease; those in `kube-node-lease` are the nodes' heartbeats."""

    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()


class NodeFeatureSpec(Document, frozen=True):
    """The labels that a feature publisher asks NFD's master to set."""

    labels: Mapping[str, str] | None = None


class NodeFeatureDocument(Document, frozen=True):
    """A NodeFeature of NFD; the label `nfd.node.kubernetes.io/node-name` names the node."""

    metadata: Metadata
    spec: NodeFeatureSpec = NodeFeatureSpec()


class MonitorEndpoint(Document, frozen=True):
    """An endpoint of a ServiceMonitor. `port` is the name of a Service's port."""

    port: str | None = None
    target_port: int | str | None = None
    interval: str | None = None


class NamespaceSelector(Document, frozen=True):
    """The namespaces in which a monitor looks."""

    any: bool = False
    match_names: tuple[str, ...] | None = None


class ServiceMonitorSpec(Document, frozen=True):
    """A ServiceMonitor's specification."""

    selector: LabelSelector
    endpoints: tuple[MonitorEndpoint, ...] = ()
    namespace_selector: NamespaceSelector = NamespaceSelector()


class ServiceMonitorDocument(Document, frozen=True):
    """A ServiceMonitor of the Prometheus operator."""

    metadata: Metadata
    spec: ServiceMonitorSpec


class PolicyStatus(Document, frozen=True):
    """The state of a policy object of the GPU Operator."""

    state: str = ""
    conditions: tuple[Condition, ...] | None = None


class PolicyDocument(Document, frozen=True):
    """A ClusterPolicy, GPUCluster or NVIDIADriver."""

    metadata: Metadata
    status: PolicyStatus = PolicyStatus()
    spec: Mapping[str, Any] | None = None


class DraAttribute(Document, frozen=True, rename={"text": "string", "number": "int", "flag": "bool"}):
    """A device's attribute; one of the fields is set."""

    text: str | None = None
    number: int | None = None
    flag: bool | None = None
    version: str | None = None


class DraDevice(Document, frozen=True):
    """A device of a ResourceSlice; `basic` is where v1beta1 kept the attributes."""

    name: str
    attributes: Mapping[str, DraAttribute] | None = None
    basic: Mapping[str, Any] | None = None


class ResourceSliceSpec(Document, frozen=True):
    """Which driver offers what on which node."""

    driver: str
    node_name: str | None = None
    devices: tuple[DraDevice, ...] | None = None


class ResourceSliceDocument(Document, frozen=True):
    """A ResourceSlice."""

    metadata: Metadata
    spec: ResourceSliceSpec


def share(document: Any, _: int) -> Any:  # noqa: ANN401  any object with metadata; what msgspec decoded
    """Return an object whose labels, annotations and resources share their words with those of all others.

    5,000 nodes with 120 labels each say the same words over and over: 118 MB of documents become 35.
    """
    metadata = document.metadata
    msgspec.structs.force_setattr(metadata, "labels", _interned(metadata.labels))
    msgspec.structs.force_setattr(metadata, "annotations", _interned(metadata.annotations))
    if isinstance(document, NodeDocument):
        msgspec.structs.force_setattr(document.status, "capacity", _interned(document.status.capacity))
        msgspec.structs.force_setattr(document.status, "allocatable", _interned(document.status.allocatable))
    elif isinstance(document, NodeFeatureDocument):
        msgspec.structs.force_setattr(document.spec, "labels", _interned(document.spec.labels))
    return document


def _interned(words: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return {intern(key): intern(value) for key, value in words.items()} if words else words

"""Makes the pods of a generated cluster, and the objects that own them."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kube_gpucheck.simulate.generated import managed
from kube_gpucheck.simulate.generated.plan import (
    STACK_PODS,
    DaemonSetRecipe,
    NodePlan,
    digest,
    machines,
    stack,
    stamp,
    uid,
)

Json = dict[str, Any]
_OF_DAEMONS: Final = [
    {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists"},
    {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists"},
    {"effect": "NoSchedule", "key": "node.kubernetes.io/disk-pressure", "operator": "Exists"},
    {"effect": "NoSchedule", "key": "node.kubernetes.io/memory-pressure", "operator": "Exists"},
    {"effect": "NoSchedule", "key": "node.kubernetes.io/pid-pressure", "operator": "Exists"},
    {"effect": "NoSchedule", "key": "node.kubernetes.io/unschedulable", "operator": "Exists"},
]
"""What the DaemonSet controller adds (pkg/controller/daemon/util AddOrUpdateDaemonPodTolerations)."""
_OF_NETWORK: Final = [{"effect": "NoSchedule", "key": "node.kubernetes.io/network-unavailable", "operator": "Exists"}]
_OF_OTHERS: Final = [
    {"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
    {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300},
]
"""What the DefaultTolerationSeconds admission plugin adds."""
INSTALLED: Final = datetime.timedelta(days=45)
"""How long before the clock the charts were installed."""
_PRIORITIES: Final = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_CONDITIONS: Final = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_TOKEN: Final = {
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
                    ]
                }
            },
        ],
    }
}


def of_daemonset(plan: NodePlan, recipe: DaemonSetRecipe, slot: int) -> Json:
    """Return a DaemonSet's healthy pod on a node; a change of it replaces parts, which pods share."""
    template = recipe.manifest["spec"]["template"]
    spec = {
        **template["spec"],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [plan.name]}]}
                    ]
                }
            }
        },
        "tolerations": [
            *template["spec"]["tolerations"],
            *_OF_DAEMONS,
            *(_OF_NETWORK if template["spec"].get("hostNetwork") else ()),
        ],
    }
    owner: Json = {
        "apiVersion": "apps/v1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "DaemonSet",
        "name": recipe.name,
        "uid": object_uid(plan.cluster.seed, "DaemonSet", recipe.name),
    }
    revision = digest(recipe.name)[:10]
    labels = {**template["metadata"]["labels"], "controller-revision-hash": revision, "pod-template-generation": "1"}
    return _pod(
        plan, f"{recipe.name}-{plan.suffix(recipe.name)}", recipe.namespace, spec, labels=labels, owner=owner, slot=slot
    )


def static(plan: NodePlan) -> Json:
    """Return the node's mirror pod."""
    manifest = stack().static
    metadata = manifest["metadata"]
    owner: Json = {"apiVersion": "v1", "controller": True, "kind": "Node", "name": plan.name, "uid": plan.uid("node")}
    found = _pod(
        plan,
        f"{metadata['name']}-{plan.name}",
        metadata["namespace"],
        manifest["spec"],
        labels=metadata["labels"],
        owner=owner,
        slot=0,
    )
    source = digest(plan.name, metadata["name"])[:32]
    del found["metadata"]["generateName"]
    found["metadata"]["annotations"] = {
        "kubernetes.io/config.hash": source,
        "kubernetes.io/config.mirror": source,
        "kubernetes.io/config.seen": stamp(plan.created),
        "kubernetes.io/config.source": "file",
    }
    return found


def workloads(plan: NodePlan) -> Iterator[Json]:
    """Yield the node's workloads: those that hold GPUs, then the others; each is a healthy pod."""
    slots = plan.cluster.pods_per_node - (STACK_PODS if plan.gpus else STACK_PODS - 3)
    held = plan.held
    for place, count in enumerate(held):
        yield _workload(plan, "train", place, count)
    for place in range(slots - len(held)):
        yield _workload(plan, "web", place, 0)


def _workload(plan: NodePlan, kind: str, place: int, gpus: int) -> Json:
    recipe = machines().workloads[kind]
    amounts = {"cpu": str(8 * gpus or 2), "memory": f"{128 * gpus or 4}Gi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    mounts = [
        {"mountPath": "/config", "name": "config"},
        {"mountPath": "/data", "name": "data"},
        {"mountPath": "/dev/shm", "name": "shm"},  # noqa: S108  a container's
    ]
    container = {
        "command": list(recipe.command),
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel-collector.monitoring:4317"},
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "RUN", "value": plan.uid(kind, place)},
        ],
        "image": f"{recipe.image}:{recipe.tag}",
        "imagePullPolicy": "IfNotPresent",
        "name": kind,
        "resources": {"limits": amounts, "requests": amounts},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    spec: Json = {
        "containers": [container],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Never" if gpus else "Always",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            *([{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}] if gpus else ()),
            *_OF_OTHERS,
        ],
        "volumes": [
            {"configMap": {"defaultMode": 420, "name": f"{kind}-config"}, "name": "config"},
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{kind}-data", "readOnly": True}},
            {"emptyDir": {"medium": "Memory"}, "name": "shm"},
        ],
        **({"runtimeClassName": "nvidia"} if gpus else {}),
    }
    if gpus:
        name = f"train-{plan.name.removeprefix('gpu-')}-{place}"
        owner: Json = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": plan.uid("Job", place)}
        pod, labels = f"{name}-{plan.suffix(name)}", {"batch.kubernetes.io/job-name": name, "job-name": name}
    else:
        name = f"web-{revision(plan.team)}"
        seed = plan.cluster.seed
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": name,
            "uid": object_uid(seed, "ReplicaSet", f"{plan.team}/web"),
        }
        pod = f"{name}-{plan.suffix(kind, place)}"
        labels = {"app.kubernetes.io/name": "web", "pod-template-hash": revision(plan.team)}
    owner = {**owner, "blockOwnerDeletion": True, "controller": True}
    return _pod(plan, pod, plan.team, spec, labels=labels, owner=owner, slot=16 + place + 100 * (not gpus))


def revision(name: str) -> str:
    """Return the hash of a template, as it stands in a ReplicaSet's name."""
    return digest(name)[:10]


def object_uid(seed: int, kind: str, name: str) -> str:
    """Return the identity of an object that belongs to no node."""
    return uid(seed, kind, name)


def _pod(
    plan: NodePlan,
    name: str,
    namespace: str,
    spec: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    owner: Mapping[str, Any],
    slot: int,
) -> Json:
    begun = plan.created + datetime.timedelta(seconds=60 + plan.number(86400, name))
    started = stamp(begun)
    token = f"kube-api-access-{plan.suffix('token', name)}"
    mirror = owner["kind"] == "Node"
    mounted = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": token, "readOnly": True}
    containers = [
        {**one, "volumeMounts": [*one.get("volumeMounts", ()), *(() if mirror else (mounted,))]}
        for one in spec["containers"]
    ]
    priority = spec.get("priorityClassName")
    host_network = bool(spec.get("hostNetwork"))
    address = plan.address if host_network else plan.pod_address(slot)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "creationTimestamp": started,
            "generateName": f"{owner['name']}-",
            "generation": 1,
            "labels": dict(labels),
            "managedFields": _managed(owner, namespace, started, spec),
            "name": name,
            "namespace": namespace,
            "ownerReferences": [dict(owner)],
            "resourceVersion": str(10_000_000 + plan.number(90_000_000, "version", name)),
            "uid": plan.uid("Pod", name),
        },
        "spec": {
            **spec,
            "containers": containers,
            "enableServiceLinks": True,
            "nodeName": plan.name,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": _PRIORITIES.get(str(priority), 0),
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": spec.get("serviceAccountName", "default"),
            "volumes": [*spec.get("volumes", ()), *(() if mirror else ({"name": token, **_TOKEN},))],
        },
        "status": {
            "conditions": [
                {
                    "lastProbeTime": None,
                    "lastTransitionTime": started,
                    "observedGeneration": 1,
                    "status": "True",
                    "type": kind,
                }
                for kind in _CONDITIONS
            ],
            "containerStatuses": [container_status(plan, name, one, started) for one in containers],
            "hostIP": plan.address,
            "hostIPs": [{"ip": plan.address}],
            "observedGeneration": 1,
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "qosClass": _quality(containers),
            "startTime": started,
        },
    }


def container_status(plan: NodePlan, pod: str, container: Mapping[str, Any], started: str) -> Json:
    """Return the status of a container that runs and is ready."""
    repository, _, tag = str(container["image"]).rpartition(":")
    return {
        "containerID": f"containerd://{digest(plan.cluster.seed, plan.name, pod, container['name'])}",
        "image": container["image"],
        "imageID": f"{repository}@sha256:{digest(repository, tag)}",
        "lastState": {},
        "name": container["name"],
        "ready": True,
        "resources": {},
        "restartCount": 0,
        "started": True,
        "state": {"running": {"startedAt": started}},
        "volumeMounts": [
            {**mount, **({"recursiveReadOnly": "Disabled"} if mount.get("readOnly") else {})}
            for mount in container.get("volumeMounts", ())
        ],
    }


def _quality(containers: list[Json]) -> str:
    found = [one.get("resources", {}) for one in containers]
    if not any(found):
        return "BestEffort"
    return (
        "Guaranteed"
        if all(one.get("limits") and one["limits"] == one.get("requests") for one in found)
        else "Burstable"
    )


_FIELDS: dict[tuple[str, str], tuple[Json, Json]] = {}
"""By kind of owner, and its name or namespace: what a controller set is the same in each of its pods."""


def _managed(owner: Mapping[str, Any], namespace: str, started: str, spec: Mapping[str, Any]) -> list[Json]:
    """Return managedFields: what the controller set, and what the kubelet did."""
    kind = str(owner["kind"])
    key = (kind, str(owner["name"]) if kind == "DaemonSet" else namespace)
    if key not in _FIELDS:
        _FIELDS[key] = _owned(spec)
    fields, status = _FIELDS[key]
    manager = "kubelet" if kind == "Node" else "kube-controller-manager"
    return [
        managed.entry(manager, "v1", started, fields),
        managed.entry("kubelet", "v1", started, status, subresource="status"),
    ]


def _owned(spec: Mapping[str, Any]) -> tuple[Json, Json]:
    metadata: Json = {"f:generateName": {}, "f:labels": {".": {}}, "f:ownerReferences": {".": {}}}
    status: Json = {
        "f:conditions": {f'k:{{"type":"{one}"}}': {} for one in _CONDITIONS},
        "f:containerStatuses": {},
        "f:hostIP": {},
        "f:hostIPs": {},
        "f:phase": {},
        "f:podIP": {},
        "f:podIPs": {},
        "f:startTime": {},
    }
    return {"f:metadata": metadata, "f:spec": managed.owned(spec)}, {"f:status": status}


class Counts:
    """How many pods a DaemonSet wants and has."""

    def __init__(self) -> None:
        """Begin at none."""
        self.wanted = self.ready = self.misplaced = 0

    def add(self, *, admitted: bool, ready: bool) -> None:
        """Count a pod; a misplaced one counts as nothing else (updateDaemonSetStatus in daemon_controller.go)."""
        self.misplaced += not admitted
        self.wanted += admitted
        self.ready += admitted and ready

    def status(self) -> Json:
        """Return the DaemonSet's status."""
        found: Json = {
            "currentNumberScheduled": self.wanted,
            "desiredNumberScheduled": self.wanted,
            "numberMisscheduled": self.misplaced,
            "numberReady": self.ready,
            "observedGeneration": 1,
            "updatedNumberScheduled": self.wanted,
        }
        if self.ready:
            found["numberAvailable"] = self.ready
        if self.wanted > self.ready:
            found["numberUnavailable"] = self.wanted - self.ready
        return dict(sorted(found.items()))


def is_ready(pod: Json) -> bool:
    """Return whether a pod's condition Ready is true."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])


def of_deployment(plan: NodePlan, manifest: Mapping[str, Any], *, slot: int) -> Json:
    """Return the one pod of a Deployment, on a node."""
    template, name = manifest["spec"]["template"], manifest["metadata"]["name"]
    owner = {
        "apiVersion": "apps/v1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "ReplicaSet",
        "name": f"{name}-{revision(name)}",
        "uid": object_uid(plan.cluster.seed, "ReplicaSet", f"{manifest['metadata']['namespace']}/{name}"),
    }
    return _pod(
        plan,
        f"{owner['name']}-{plan.suffix(name)}",
        manifest["metadata"]["namespace"],
        {**template["spec"], "tolerations": [*template["spec"]["tolerations"], *_OF_OTHERS]},
        labels={**template["metadata"]["labels"], "pod-template-hash": revision(name)},
        owner=owner,
        slot=slot,
    )


def web_manifest(team: str, name: str, count: int) -> Json:
    """Return the manifest of a team's Deployment."""
    recipe = machines().workloads["web"]
    labels = {"app.kubernetes.io/name": "web"}
    container = {"name": "web", "image": f"{recipe.image}:{recipe.tag}", "command": list(recipe.command)}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "restartPolicy": "Always"}}
    spec = {"replicas": count, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name, "namespace": team, "labels": labels}, "spec": spec}


def replicas_status(count: int) -> Json:
    """Return the status of a Deployment or ReplicaSet whose pods are all ready."""
    return {
        "availableReplicas": count,
        "observedGeneration": 1,
        "readyReplicas": count,
        "replicas": count,
        "updatedReplicas": count,
    }


def replicaset(seed: int, at: datetime.datetime, manifest: Mapping[str, Any], count: int) -> Json:
    """Return the ReplicaSet of a Deployment's manifest."""
    metadata = manifest["metadata"]
    name = metadata["name"]
    hashed = revision(metadata["namespace"] if name == "web" else name)
    owner = {
        "apiVersion": "apps/v1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "Deployment",
        "name": name,
        "uid": object_uid(seed, "Deployment", f"{metadata['namespace']}/{name}"),
    }
    found = stored(seed, at, manifest, version="apps/v1", kind="ReplicaSet")
    named = {**found["metadata"], "name": f"{name}-{hashed}", "ownerReferences": [owner]}
    status = replicas_status(count)
    del status["updatedReplicas"]
    return {**found, "metadata": named, "status": {**status, "fullyLabeledReplicas": count}}


def endpoint(pod: Json, *, ready: bool) -> Json:
    """Return a pod as an EndpointSlice's endpoint."""
    metadata = pod["metadata"]
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }


def endpoint_slice(seed: int, at: datetime.datetime, endpoints: list[Json], place: int) -> Json:
    """Return one slice of the exporter's Service."""
    metadata = {
        "name": f"dcgm-exporter-{digest(seed, place)[:5]}",
        "namespace": "gpu-monitoring",
        "labels": {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": "dcgm-exporter",
        },
    }
    manifest = {
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "metrics", "port": 9400, "protocol": "TCP"}],
    }
    return stored(seed, at, manifest, version="discovery.k8s.io/v1", kind="EndpointSlice")


def stored(seed: int, at: datetime.datetime, manifest: Mapping[str, Any], *, version: str, kind: str) -> Json:
    """Return a manifest as the API stores it: with its version, kind, times and identity."""
    metadata = manifest["metadata"]
    name = metadata["name"]
    identity = f"{metadata['namespace']}/{name}" if "namespace" in metadata and kind != "DaemonSet" else name
    return {
        "apiVersion": version,
        "kind": kind,
        **manifest,
        "metadata": {
            **metadata,
            "creationTimestamp": stamp(at - INSTALLED),
            "resourceVersion": "4711",
            "uid": object_uid(seed, kind, identity),
        },
    }

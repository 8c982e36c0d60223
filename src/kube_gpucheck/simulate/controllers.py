"""The DaemonSets and Jobs that are created in an embedded cluster.

A changed template is not rolled out, and no deadline or TTL is kept. Source: k8s.io/kubernetes/pkg/controller/
{daemon,daemon/util,job} and pkg/registry/batch/job/strategy.go at 1.36.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.documents import Toleration
from kube_gpucheck.evidence.scheduling import daemon_tolerations, reject_document
from kube_gpucheck.simulate.admission import pod_spec
from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.deletion import Deletions
from kube_gpucheck.simulate.events import Events
from kube_gpucheck.simulate.fields import number, pairs, reach, text
from kube_gpucheck.simulate.objects import Objects, decoded
from kube_gpucheck.simulate.pods import PODS, Pods
from kube_gpucheck.simulate.resources import Resource, resource_of

DAEMONSETS: Final = resource_of("daemonsets.apps")
JOBS: Final = resource_of("jobs.batch")


class _Owner(msgspec.Struct):
    """A DaemonSet or Job. `is_over`: a Job that has ended, well or not."""

    resource: Resource
    namespace: str
    name: str
    is_over: bool = False


class Controllers:
    """The DaemonSets and Jobs that were created here. The caller holds the objects' lock."""

    def __init__(
        self,
        objects: Objects,
        pods: Pods,
        *,
        deletions: Deletions,
        events: Events,
        create_pod: Callable[[str, dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Start without any. `create_pod` creates a pod in a namespace as a client would, or is refused."""
        self.objects = objects
        self.pods = pods
        self.deletions = deletions
        self.events = events
        self._create_pod = create_pod
        self._owners: dict[str, _Owner] = {}

    @property
    def idle(self) -> bool:
        """Whether there are none."""
        return not self._owners

    def add(self, resource: Resource, document: dict[str, Any]) -> dict[str, Any]:
        """Take up a DaemonSet or Job that was created, and return it as it is then."""
        uid, name = text(document, "metadata.uid"), text(document, "metadata.name")
        namespace = text(document, "metadata.namespace")
        self._owners[uid] = _Owner(resource, namespace, name)
        if resource != JOBS:
            return document
        own = {"batch.kubernetes.io/controller-uid": uid}
        named = {**own, "batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name}
        document["spec"].setdefault("selector", {"matchLabels": own})
        template = document["spec"]["template"]
        labels = {**pairs(template, "metadata.labels"), **named}
        template["metadata"] = {**(reach(template, "metadata") or {}), "labels": labels}
        return self.objects.replace(JOBS, namespace, name, document)

    def step(self) -> None:
        """Let every DaemonSet and Job do its work; forget those that are no more."""
        self._owners = {
            uid: one
            for uid, one in self._owners.items()
            if self.objects.is_there(one.resource.name, one.namespace, one.name, uid=uid)
        }
        for uid, one in self._owners.items():
            document = self.objects.get(one.resource, one.namespace, one.name)
            if "deletionTimestamp" in document["metadata"]:
                continue
            if one.resource == DAEMONSETS:
                self._spread(uid, document)
            elif not one.is_over:
                one.is_over = self._work(uid, document)

    # --- DaemonSets ----------------------------------------------------------------------------

    def _spread(self, uid: str, document: dict[str, Any]) -> None:
        """See to it that a DaemonSet has one pod on each node that it may run on."""
        template = reach(document, "spec.template")
        try:
            spec = pod_spec(DAEMONSETS, template)
        except RefusedError as refusal:  # it was replaced by one that is none
            self.events.tell(document, "FailedCreate", refusal.message, source="daemonset-controller", is_warning=True)
            return
        tolerations = daemon_tolerations(spec)
        nodes = self.pods.nodes()
        wanted = [one for one in nodes if reject_document(spec, nodes[one], tolerations=tolerations) is None]
        allowed = frozenset(wanted)
        children = {run.only: run for run in self.pods.of(uid)}
        for node in wanted:
            if node not in children:
                self._make(DAEMONSETS, document, _daemon_pod(template, node, tolerations), node)
        for node, run in children.items():
            if node not in allowed:
                self.deletions.delete(PODS, run.namespace, run.name)
        serving = [children[node] for node in wanted if node in children]
        ready = sum(run.phase == "running" for run in serving)
        missing = {"numberUnavailable": len(wanted) - ready} if len(wanted) > ready else {}
        counts = {
            "currentNumberScheduled": len(serving),
            "desiredNumberScheduled": len(wanted),
            "numberAvailable": ready,
            "numberMisscheduled": 0,
            "numberReady": ready,
            "observedGeneration": number(document, "metadata.generation"),
            "updatedNumberScheduled": len(serving),
        }
        self._set_status(DAEMONSETS, document, {**counts, **missing})

    # --- Jobs ----------------------------------------------------------------------------------

    def _work(self, uid: str, document: dict[str, Any]) -> bool:
        """See to it that a Job has as many pods as it may; tell whether enough ended well, or too many did not."""
        children = self.pods.of(uid)
        failed = sum(run.has_failed for run in children)
        active = [run for run in children if run.phase != "ended"]
        succeeded = len(children) - len(active) - failed
        completions = number(document, "spec.completions")
        told: dict[str, Any] = {}
        if failed > number(document, "spec.backoffLimit"):
            message = "Job has reached the specified backoff limit"
            told["conditions"] = self._conditions(("FailureTarget", "Failed"), "BackoffLimitExceeded", message)
            for run in active:
                self.deletions.delete(PODS, run.namespace, run.name)
        elif succeeded >= completions:
            told["completionTime"] = self.objects.now
            message = "Reached expected number of succeeded pods"
            told["conditions"] = self._conditions(("SuccessCriteriaMet", "Complete"), "CompletionsReached", message)
        else:
            free = min(number(document, "spec.parallelism"), completions - succeeded) - len(active)
            for _ in range(free):
                self._make(JOBS, document, reach(document, "spec.template"), "")
        is_over = "conditions" in told
        counts = {
            "active": 0 if is_over else sum(run.phase != "ended" for run in self.pods.of(uid)),
            "succeeded": succeeded,
            "failed": failed,
        }
        ready = 0 if is_over else sum(run.phase == "running" for run in active)
        counts = {name: count for name, count in counts.items() if count}
        self._set_status(JOBS, document, {"startTime": self.objects.now, "ready": ready, **counts, **told})
        return is_over

    def _conditions(self, kinds: Iterable[str], reason: str, message: str) -> list[dict[str, Any]]:
        told = {"status": "True", "reason": reason, "message": message, "lastTransitionTime": self.objects.now}
        return [{"type": kind, **told} for kind in kinds]

    # --- both ----------------------------------------------------------------------------------

    def _make(self, resource: Resource, owner: dict[str, Any], template: object, node: str) -> None:
        """Create a pod of a template. `node`: the one that it is meant for."""
        uid, name = text(owner, "metadata.uid"), text(owner, "metadata.name")
        reference = {"apiVersion": f"{resource.group}/v1", "kind": resource.kind, "name": name, "uid": uid}
        metadata = {
            "generateName": f"{name}-",
            "labels": pairs(template, "metadata.labels"),
            "annotations": pairs(template, "metadata.annotations"),
            "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _copy(reach(template, "spec"))}
        source = f"{resource.kind.lower()}-controller"
        try:
            created = self._create_pod(text(owner, "metadata.namespace"), pod)
        except RefusedError as refusal:
            message = f"Error creating: {refusal.message}"
            self.events.tell(owner, "FailedCreate", message, source=source, is_warning=True)
            return
        run = self.pods.add(created, owner=uid, only=node)
        self.events.tell(owner, "SuccessfulCreate", f"Created pod: {run.name}", source=source)

    def _set_status(self, resource: Resource, document: dict[str, Any], status: dict[str, Any]) -> None:
        if document.get("status") != status:
            document["status"] = status
            namespace, name = text(document, "metadata.namespace"), text(document, "metadata.name")
            self.objects.replace(resource, namespace, name, document)


def _copy(document: object) -> dict[str, Any]:
    return decoded(msgspec.json.encode(document))


def _daemon_pod(template: object, node: str, tolerations: tuple[Toleration, ...]) -> dict[str, Any]:
    """Return a DaemonSet's template for one node: bound to it by affinity, and tolerating what its controller adds."""
    spec = _copy(reach(template, "spec"))
    match_node = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.get("affinity") or {}
    bound = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [match_node]}}
    spec["affinity"] = {**affinity, "nodeAffinity": {**(affinity.get("nodeAffinity") or {}), **bound}}
    spec["tolerations"] = msgspec.to_builtins(tolerations)
    labels = {**pairs(template, "metadata.labels"), "pod-template-generation": "1"}
    return {"metadata": {"labels": labels, "annotations": pairs(template, "metadata.annotations")}, "spec": spec}

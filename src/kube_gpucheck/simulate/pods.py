"""The pods that are created in an embedded cluster: placed by its scheduler, started and ended by its kubelets.

How one ends the script says. The clock stands: a container starts and ends at one time. Source: objects of the
recorded clusters; k8s.io/kubernetes/pkg/registry/core/pod/strategy.go, LogLocation, and pkg/kubelet/kubelet_pods.go.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.documents import NodeDocument, PodSpec
from kube_gpucheck.simulate.admission import pod_spec
from kube_gpucheck.simulate.answers import bad_request
from kube_gpucheck.simulate.events import Events
from kube_gpucheck.simulate.fields import entries, reach, text
from kube_gpucheck.simulate.objects import Objects
from kube_gpucheck.simulate.placement import held, placed, requested
from kube_gpucheck.simulate.resources import resource_of
from kube_gpucheck.simulate.script import Outcome, PodRule, Script

PODS: Final = resource_of("pods")
_WAITING: Final = {
    "ImagePullBackOff": "trying and failing to pull image",
    "ErrImagePull": "image can't be pulled",
}


class Run(msgspec.Struct):
    """How far a pod is.

    `owner`: a UID, "" if it has none; `only`: the node that it is meant for. `phase`: new, placed, running or
    ended. `rule`: what becomes of it, once it has a node. `ran`: the steps since it runs. `message`: why it
    has no node.
    """

    namespace: str
    name: str
    spec: PodSpec
    owner: str = ""
    only: str = ""
    phase: str = "new"
    rule: PodRule | None = None
    ran: int = 0
    message: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.phase == "ended" and self.rule is not None and bool(self.rule.status)

    @property
    def waiting(self) -> str:
        """Why its containers have not started."""
        waits = self.rule is not None and self.rule.outcome is Outcome.WAITS
        return self.rule.shown_reason if self.rule is not None and waits else "ContainerCreating"


class Pods:
    """The pods that were created here. The caller holds the objects' lock."""

    def __init__(self, objects: Objects, events: Events, script: Script, *, load: Callable[[str], None]) -> None:
        """Start without pods. `load` sees to it that a kind's objects are there, before they are looked at."""
        self.objects = objects
        self.events = events
        self.script = script
        self.runs: dict[str, Run] = {}
        """By UID."""
        self._load = load
        self._nodes: dict[str, NodeDocument] = {}
        self._nodes_at = -1
        self._addresses = _addresses()

    def add(self, pod: Mapping[str, Any], *, owner: str = "", only: str = "") -> Run:
        """Take up a pod that was created."""
        run = Run(
            text(pod, "metadata.namespace"), text(pod, "metadata.name"), pod_spec(PODS, pod), owner=owner, only=only
        )
        self.runs[text(pod, "metadata.uid")] = run
        return run

    def of(self, owner: str) -> list[Run]:
        """Return the pods of an owner."""
        return [run for run in self.runs.values() if run.owner == owner]

    def step(self) -> None:
        """Let every pod go one step on; forget those that are no more."""
        self.runs = {
            uid: run
            for uid, run in self.runs.items()
            if self.objects.is_there("pods", run.namespace, run.name, uid=uid)
        }
        new = [run for run in self.runs.values() if run.phase == "new"]
        under_way = [run for run in self.runs.values() if run.phase in {"placed", "running"}]
        if new:
            self._place(new)
        for run in under_way:
            self._advance(run)

    def nodes(self) -> dict[str, NodeDocument]:
        """Return the nodes by name; read again when one has changed. One that cannot be decoded is none."""
        if self._nodes_at < 0 or self.objects.changes_after(self._nodes_at, "nodes") != ():
            self._load("nodes")
            self._nodes = {}
            decoder = msgspec.json.Decoder(NodeDocument)
            for stored in self.objects.list_of("nodes"):
                try:
                    node = decoder.decode(stored.raw)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
                self._nodes[node.metadata.name] = node
        self._nodes_at = self.objects.version
        return self._nodes

    def log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> bytes | None:
        """Return the log of a container of a pod that was created here, None of any other pod.

        Raises:
            RefusedError: 400, the container has not started, or never ran before.
        """
        run = next((one for one in self.runs.values() if (one.namespace, one.name) == (namespace, pod)), None)
        if run is None:
            return None
        if previous:
            raise bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
        if run.rule is None:
            return b""
        if run.phase == "placed":
            said = _WAITING.get(run.waiting, run.waiting)
            raise bad_request(f'container "{container}" in pod "{pod}" is waiting to start: {said}')
        return run.rule.log.encode()

    # --- the scheduler -------------------------------------------------------------------------

    def _place(self, runs: list[Run]) -> None:
        """Find nodes for pods. A pod of a DaemonSet is meant for one node; for others all are looked at."""
        nodes = self.nodes()
        taken: dict[str, Counter[str]] = {}
        if any(requested(run.spec) for run in runs):
            self._load("pods")
            taken = held(one.raw for one in self.objects.list_of("pods"))
        for run in runs:
            candidates = [nodes[run.only]] if run.only in nodes else nodes.values()
            found = placed(run.spec, candidates, taken, run.spec.tolerations or ())
            node = run.spec.node_name or found.node
            if node in nodes:
                self._bind(run, node)
                taken.setdefault(node, Counter()).update(requested(run.spec))
            elif not run.spec.node_name and run.message != found.message:
                run.message = found.message
                self._refuse(run, found.message)

    def _refuse(self, run: Run, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        pod = self._change(run, conditions=[self._since(condition)])
        self.events.tell(pod, "FailedScheduling", message, source="default-scheduler", is_warning=True)

    def _bind(self, run: Run, node: str) -> None:
        run.phase = "placed"
        restarts = run.spec.restart_policy == "Always"
        run.rule = self.script.rule(namespace=run.namespace, pod=run.name, node=node, restarts=restarts)
        pod = self._change(
            run,
            node=node,
            state={"waiting": {"reason": run.waiting}},
            startTime=self.objects.now,
            conditions=self._conditions(ready=False),
        )
        message = f"Successfully assigned {run.namespace}/{run.name} to {node}"
        self.events.tell(pod, "Scheduled", message, source="default-scheduler")

    # --- the kubelets --------------------------------------------------------------------------

    def _advance(self, run: Run) -> None:
        """Start a pod's containers, or end them; one that is being deleted is left alone."""
        rule, pod = run.rule, self.objects.get(PODS, run.namespace, run.name)
        if rule is None or "deletionTimestamp" in pod["metadata"] or rule.outcome is Outcome.WAITS:
            return
        if run.phase == "placed":
            if self._is_up(text(pod, "spec.nodeName")):
                self._start(run)
        elif rule.outcome is not Outcome.RUNS:
            run.ran += 1
            if run.ran >= rule.steps:
                self._end(run, rule)

    def _is_up(self, node: str) -> bool:
        """Tell whether a node's kubelet works: only then its pods' containers start."""
        found = self.nodes().get(node)
        return found is not None and any(
            one.type == "Ready" and one.status == "True" for one in found.status.conditions
        )

    def _start(self, run: Run) -> None:
        run.phase = "running"
        address = next(self._addresses)
        pod = self._change(
            run,
            state={"running": {"startedAt": self.objects.now}},
            phase="Running",
            podIP=address,
            podIPs=[{"ip": address}],
            conditions=self._conditions(ready=True),
        )
        self.events.tell(pod, "Started", "Container started", source="kubelet")

    def _end(self, run: Run, rule: PodRule) -> None:
        run.phase = "ended"
        now = self.objects.now
        ended = {"exitCode": rule.status, "reason": rule.shown_reason, "startedAt": now, "finishedAt": now}
        self._change(
            run,
            state={"terminated": ended},
            phase="Failed" if rule.status else "Succeeded",
            conditions=self._conditions(ready=False, reason="PodFailed" if rule.status else "PodCompleted"),
        )

    def _change(
        self,
        run: Run,
        *,
        node: str = "",
        state: dict[str, Any] | None = None,
        **status: Any,  # noqa: ANN401  fields of a status
    ) -> dict[str, Any]:
        """Change a pod's status, the state of its containers, and the node that it is on."""
        pod = self.objects.get(PODS, run.namespace, run.name)
        before = reach(pod, "status")
        if node:
            pod["spec"] = {**(reach(pod, "spec") or {}), "nodeName": node}
        if state is not None:
            status["containerStatuses"] = _statuses(pod, state)
        pod["status"] = {**(before if isinstance(before, dict) else {}), **status}
        return self.objects.replace(PODS, run.namespace, run.name, pod)

    def _conditions(self, *, ready: bool, reason: str = "") -> list[dict[str, Any]]:
        states = {"Initialized": True, "Ready": ready, "ContainersReady": ready, "PodScheduled": True}
        because = {"reason": reason} if reason else {}
        return [
            self._since({"type": kind, "status": str(is_true), **({} if is_true else because)})
            for kind, is_true in states.items()
        ]

    def _since(self, condition: dict[str, Any]) -> dict[str, Any]:
        return {**condition, "lastTransitionTime": self.objects.now}


def _addresses() -> Iterator[str]:
    return (f"10.245.{number // 250 % 250}.{number % 250 + 1}" for number in itertools.count())


def _statuses(pod: Mapping[str, Any], state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the statuses of a pod's containers, all in one state."""
    is_made, runs = "waiting" not in state, "running" in state
    found: list[dict[str, Any]] = []
    for container in entries(pod, "spec.containers"):
        name, image = text(container, "name"), text(container, "image")
        own = hashlib.sha256(f"{text(pod, 'metadata.uid')}/{name}".encode()).hexdigest()
        found.append(
            {
                "name": name,
                "image": image,
                "imageID": f"sha256:{hashlib.sha256(image.encode()).hexdigest()}" if is_made else "",
                **({"containerID": f"containerd://{own}"} if is_made else {}),
                "ready": runs,
                "started": runs,
                "restartCount": 0,
                "lastState": {},
                "state": state,
            }
        )
    return found

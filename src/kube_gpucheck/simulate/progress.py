"""What becomes of objects after they were created or deleted in an embedded cluster, step by step.

The server drives the steps. Done for what an active run makes: pods, DaemonSets, Jobs, and the deletion of
whatever there is.
"""

from collections.abc import Callable
from typing import Any

from kube_gpucheck.simulate.admission import admit
from kube_gpucheck.simulate.controllers import DAEMONSETS, JOBS, Controllers
from kube_gpucheck.simulate.deletion import Deletions
from kube_gpucheck.simulate.events import Events
from kube_gpucheck.simulate.objects import Objects
from kube_gpucheck.simulate.pods import PODS, Pods
from kube_gpucheck.simulate.resources import Resource
from kube_gpucheck.simulate.script import Script


class Progress:
    """Scheduler, kubelets and controllers of one cluster."""

    def __init__(
        self,
        objects: Objects,
        deletions: Deletions,
        *,
        script: Script | None = None,
        load: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start with nothing to do.

        Args:
            objects: what is acted on.
            deletions: takes out what is deleted.
            script: how pods end.
            load: sees to it that a kind's objects are there, before they are looked at.
        """
        self.objects = objects
        self.deletions = deletions
        self._load = load
        events = Events(objects, load=load)
        self.pods = Pods(objects, events, script or Script(), load=load)
        self._controllers = Controllers(
            objects, self.pods, deletions=deletions, events=events, create_pod=self._create_pod
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is here that was created, or is being deleted; then steps change nothing."""
        return self.deletions.idle and self._controllers.idle and not self.pods.runs

    def admit(self, resource: Resource, document: dict[str, Any]) -> None:
        """Fill in what an API server fills in of a new object.

        Raises:
            RefusedError: it would refuse it.
        """
        admit(resource, document, has_class=self._has_class)

    def created(self, resource: Resource, document: dict[str, Any]) -> dict[str, Any]:
        """Take up an object that was created, and return it as it is then."""
        if resource == PODS:
            self.pods.add(document)
        elif resource in {DAEMONSETS, JOBS}:
            return self._controllers.add(resource, document)
        return document

    def step(self) -> None:
        """Let everything go one step on."""
        if self.idle:
            return
        with self.objects.changed:
            self.deletions.step()
            self.pods.step()
            self._controllers.step()

    def _create_pod(self, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
        self._load("pods")
        self.admit(PODS, document)
        return self.objects.create(PODS, namespace, document)

    def _has_class(self, name: str) -> bool:
        kind = "runtimeclasses.node.k8s.io"
        self._load(kind)
        return self.objects.list_of(kind).get(None, name) is not None

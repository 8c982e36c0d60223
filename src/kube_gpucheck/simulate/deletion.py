"""How objects leave: pods that are first stopped, what goes with its owner, namespaces with all that is in them.

What takes time goes in steps, which the server drives. Finalizers that others set do not hold. Source:
Kubernetes documentation, "Garbage Collection"; k8s.io/kubernetes/pkg/controller/{garbagecollector,namespace} and
pkg/registry/{core/pod,batch/job}/strategy.go at 1.36.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from kube_gpucheck.simulate.answers import bad_request
from kube_gpucheck.simulate.fields import entries, number, reach, text
from kube_gpucheck.simulate.objects import Objects, decoded
from kube_gpucheck.simulate.resources import Resource, resource_of

POLICIES: Final = frozenset({"Background", "Foreground", "Orphan"})
_RETURNED: Final = frozenset(
    {
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
        "deviceclasses.resource.k8s.io",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourceclaims.resource.k8s.io",
        "resourceclaimtemplates.resource.k8s.io",
        "resourcequotas",
        "resourceslices.resource.k8s.io",
        "serviceaccounts",
        "services",
        "storageclasses.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
    }
)
"""The kinds whose deletion answers with the object. Source: Kubernetes' OpenAPI document, what DELETE returns."""
_FINALIZER: Final = "foregroundDeletion"
_GRACE_S: Final = 30
_ENDED: Final = frozenset({"Succeeded", "Failed"})


class _Place(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str | None
    name: str


class Deletions:
    """What is being deleted in one cluster. Its methods hold the objects' lock."""

    def __init__(
        self,
        objects: Objects,
        *,
        load: Callable[[str], None] = lambda _: None,
        kinds: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Start with nothing to do.

        Args:
            objects: what is acted on.
            load: sees to it that a kind's objects are there, before they are looked at.
            kinds: names the kinds that may hold objects, besides those that `objects` knows.
        """
        self.objects = objects
        self._load = load
        self._kinds = kinds
        self._pods: list[_Place] = []
        self._namespaces: list[_Place] = []
        self._owners: list[tuple[_Place, str]] = []
        self._gone: list[str] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way out."""
        return not (self._pods or self._namespaces or self._owners or self._gone)

    def delete(
        self, resource: Resource, namespace: str | None, name: str, *, policy: str = "", grace_s: int | None = None
    ) -> dict[str, Any]:
        """Delete an object, or begin to; return the answer.

        That is a Status, or the object: where it stays a while, and of some kinds always.

        Args:
            resource: its kind.
            namespace: where it is, None for a kind without namespaces.
            name: its name.
            policy: what becomes of what it owns: `Background`, `Foreground` or `Orphan`; "" is the kind's own,
                which for Jobs is `Orphan`.
            grace_s: seconds that a pod is given to stop; None is the pod's own.

        Raises:
            RefusedError: 404, there is none; 400, no such policy.
        """
        policy = policy or ("Orphan" if resource.name == "jobs.batch" else "Background")
        if policy not in POLICIES:
            raise bad_request(f'invalid deletion propagation policy: "{policy}"')
        place = _Place(resource, namespace, name)
        with self.objects.changed:
            document = self.objects.get(resource, namespace, name)
            uid = text(document, "metadata.uid")
            if "deletionTimestamp" in document.get("metadata", {}) and grace_s != 0:
                return document
            if resource.name == "namespaces":
                document["status"] = {**(reach(document, "status") or {}), "phase": "Terminating"}
                self._namespaces.append(place)
                return self._mark(place, document)
            if resource.name == "pods" and _must_stop(document, grace_s):
                document["metadata"]["deletionGracePeriodSeconds"] = _grace(document) if grace_s is None else grace_s
                self._pods.append(place)
                return self._mark(place, document)
            if policy == "Foreground" and next(self._owned(uid), None) is not None:
                document["metadata"]["finalizers"] = [_FINALIZER]
                self._owners.append((place, uid))
                return self._mark(place, document)
            if policy == "Orphan":
                for owned, dependent in list(self._owned(uid)):
                    self._disown(owned, dependent, _others(dependent, uid))
            self._remove(place)
        return document if resource.name in _RETURNED else _success(place, uid)

    def step(self) -> None:
        """Let everything that is on its way go one step on."""
        with self.objects.changed:
            pods, self._pods = self._pods, []
            for place in pods:
                self._remove(place)
            gone, self._gone = self._gone, []
            for uid in gone:
                for place, document in list(self._owned(uid)):
                    others = _others(document, uid)
                    if others:
                        self._disown(place, document, others)
                    else:
                        self.delete(*place, policy="Background")
            owners, self._owners = self._owners, []
            for place, uid in owners:
                self._leave_after_owned(place, uid)
            namespaces, self._namespaces = self._namespaces, []
            for namespace in namespaces:
                for place, _ in list(self._all()):
                    if place.namespace == namespace.name:
                        self._remove(place)
                self._remove(namespace)

    def _leave_after_owned(self, owner: _Place, uid: str) -> None:
        dependents = list(self._owned(uid))
        for place, _ in dependents:
            self.delete(*place, policy="Foreground")
        if dependents:
            self._owners.append((owner, uid))
        else:
            self._remove(owner)

    def _mark(self, place: _Place, document: dict[str, Any]) -> dict[str, Any]:
        document["metadata"]["deletionTimestamp"] = self.objects.now
        return self.objects.replace(place.resource, place.namespace, place.name, document)

    def _remove(self, place: _Place) -> None:
        """Take out an object, if it is still there; what it owns follows in the next step."""
        if self.objects.list_of(place.resource.name).get(place.namespace, place.name) is None:
            return
        uid = text(self.objects.delete(*place), "metadata.uid")
        if uid:
            self._gone.append(uid)

    def _all(self) -> Iterator[tuple[_Place, bytes]]:
        for kind in sorted({*self._kinds(), *self.objects.kinds()}):
            self._load(kind)
            resource = resource_of(kind, self.objects.list_of(kind).first())
            for stored in tuple(self.objects.list_of(kind)):
                yield _Place(resource, stored.meta.namespace, stored.meta.name), stored.raw

    def _owned(self, uid: str) -> Iterator[tuple[_Place, dict[str, Any]]]:
        """Yield what a UID owns."""
        sought = uid.encode()
        for place, raw in self._all() if uid else ():
            if sought in raw:
                document = decoded(raw)
                if any(text(one, "uid") == uid for one in entries(document, "metadata.ownerReferences")):
                    yield place, document

    def _disown(self, place: _Place, document: dict[str, Any], others: list[dict[str, Any]]) -> None:
        """Leave an object to these owners alone."""
        document["metadata"]["ownerReferences"] = others
        self.objects.replace(place.resource, place.namespace, place.name, document)


def _others(document: Mapping[str, Any], uid: str) -> list[dict[str, Any]]:
    return [one for one in entries(document, "metadata.ownerReferences") if text(one, "uid") != uid]


def _grace(pod: Mapping[str, Any]) -> int:
    found = reach(pod, "spec.terminationGracePeriodSeconds")
    return number(pod, "spec.terminationGracePeriodSeconds") if found is not None else _GRACE_S


def _must_stop(pod: Mapping[str, Any], grace_s: int | None) -> bool:
    """Tell whether a pod is first marked, because its kubelet has to stop what runs."""
    runs = bool(text(pod, "spec.nodeName")) and text(pod, "status.phase") not in _ENDED
    return runs and (_grace(pod) if grace_s is None else grace_s) > 0


def _success(place: _Place, uid: str) -> dict[str, Any]:
    group = {"group": place.resource.group} if place.resource.group else {}
    details = {"name": place.name, **group, "kind": place.resource.plural, "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

"""Events that scheduler, kubelets and controllers of an embedded cluster write."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from kube_gpucheck.simulate.fields import text
from kube_gpucheck.simulate.objects import Objects
from kube_gpucheck.simulate.resources import resource_of

_EVENTS: Final = resource_of("events")


class Events:
    """Writes events among the objects of one cluster."""

    def __init__(self, objects: Objects, *, load: Callable[[str], None]) -> None:
        """Keep the objects. `load` sees to it that a kind's objects are there, before they are changed."""
        self.objects = objects
        self._load = load
        self._numbers = itertools.count(1)

    def tell(
        self, regarding: Mapping[str, Any], reason: str, message: str, *, source: str, is_warning: bool = False
    ) -> None:
        """Write that something happened to an object. `source`: who says so; a kubelet is that of the object's node."""
        self._load("events")
        name, namespace = text(regarding, "metadata.name"), text(regarding, "metadata.namespace")
        host = text(regarding, "spec.nodeName") if source == "kubelet" else ""
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{next(self._numbers):016x}"},
            "involvedObject": {
                "apiVersion": text(regarding, "apiVersion", "v1"),
                "kind": text(regarding, "kind", "Pod"),
                "name": name,
                "namespace": namespace,
                "uid": text(regarding, "metadata.uid"),
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if is_warning else "Normal",
            "count": 1,
            "firstTimestamp": self.objects.now,
            "lastTimestamp": self.objects.now,
            "eventTime": None,
            "source": {"component": source, **({"host": host} if host else {})},
            "reportingComponent": source,
            "reportingInstance": host,
        }
        self.objects.create(_EVENTS, namespace, event)

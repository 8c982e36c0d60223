"""dcgm-exporter's Service, what scrapes by it, and which pods stand behind it.

Judges nothing, and reads no metrics. Sources: dcgm-exporter deployment/ (3.1 to 4.8), gpu-operator
assets/state-dcgm-exporter; prometheus-operator's ServiceMonitor; upstream-facts §7.1.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kube_gpucheck.evidence.documents import (
    EndpointSliceDocument,
    MonitorEndpoint,
    ServiceDocument,
    ServiceMonitorDocument,
    ServicePort,
)
from kube_gpucheck.evidence.readings import attempt, derived, need
from kube_gpucheck.evidence.scheduling import selects
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.model import Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.pod import Pod

DEFAULT_PORT: Final = 9400
"""Where dcgm-exporter listens unless told otherwise. Source: dcgm-exporter pkg/cmd/app.go, `address`."""
_PORT: Final = re.compile(r":([0-9]{1,5})")
_SERVICE_LABEL: Final = "kubernetes.io/service-name"


class Telemetry:
    """GPU telemetry in one cluster."""

    def __init__(self, cluster: "Cluster") -> None:
        """Keep the cluster."""
        self.cluster = cluster

    @derived
    def lone_exporters(self) -> "tuple[Pod, ...]":
        """Pods that are dcgm-exporters and belong to no DaemonSet, in order of name."""
        found = []
        for pod in need(self.cluster.readable_pods):
            if need(pod.component) is Component.DCGM_EXPORTER:
                owners = need(pod.object).metadata.owner_references
                if not any(owner.kind == "DaemonSet" for owner in owners):
                    found.append(pod)
        return tuple(found)

    def services(self, exporter: "DaemonSet") -> Reading[tuple[ServiceDocument, ...]]:
        """Return the Services that select an exporter's pods, in the API's order."""

        def derive() -> tuple[ServiceDocument, ...]:
            labels = pod_labels(exporter)
            listed: tuple[ServiceDocument, ...] = need(self.cluster.objects("services"))
            return tuple(
                one
                for one in listed
                if one.metadata.namespace == exporter.namespace
                and one.spec.selector
                and all(labels.get(key) == value for key, value in one.spec.selector.items())
            )

        return attempt(derive)

    def monitors(self, service: ServiceDocument) -> Reading[tuple[ServiceMonitorDocument, ...]]:
        """Return the ServiceMonitors that select a Service; none where their type is not served."""

        def derive() -> tuple[ServiceMonitorDocument, ...]:
            listed: tuple[ServiceMonitorDocument, ...] = need(
                self.cluster.objects("servicemonitors.monitoring.coreos.com")
            )
            return tuple(one for one in listed if _watches(one, service))

        return attempt(derive)

    def ready_pods_behind(self, service: ServiceDocument) -> Reading[frozenset[str]]:
        """Return the names of the pods that are ready endpoints of a Service."""

        def derive() -> frozenset[str]:
            listed: tuple[EndpointSliceDocument, ...] = need(self.cluster.objects("endpointslices.discovery.k8s.io"))
            return frozenset(
                endpoint.target_ref.name
                for one in listed
                if one.metadata.namespace == service.metadata.namespace
                and (one.metadata.labels or {}).get(_SERVICE_LABEL) == service.metadata.name
                for endpoint in one.endpoints or ()
                if endpoint.target_ref is not None and endpoint.conditions.ready is not False
            )

        return attempt(derive)


def pod_labels(daemonset: "DaemonSet") -> Mapping[str, str]:
    """Return the labels of a DaemonSet's pods.

    Raises:
        GapError: the object is missing; call it inside a derivation.
    """
    metadata = need(daemonset.object).spec.template.metadata or {}
    labels = metadata.get("labels")
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}


def listen_port(exporter: "DaemonSet") -> Reading[int]:
    """Return the port on which an exporter listens: from its options, else its environment, else 9400."""

    def derive() -> int:
        container = need(exporter.main_container)
        words = [*(container.command or ()), *(container.args or ())]
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name in {"-a", "--address", "--a", "-address"}:
                told = value if equals else words[place + 1] if place + 1 < len(words) else ""
                return _port_of(told)
        told = next((one.value or "" for one in container.env or () if one.name == "DCGM_EXPORTER_LISTEN"), "")
        return _port_of(told)

    return attempt(derive)


def target_port(exporter: "DaemonSet", port: ServicePort) -> Reading[int | None]:
    """Return the number to which a Service's port leads on the exporter, None if no container port has that name."""

    def derive() -> int | None:
        target = port.target_port
        if target is None:
            return port.port
        if isinstance(target, int):
            return target
        if target.isdigit():
            return int(target)
        for container in need(exporter.object).spec.template.spec.containers:
            for one in container.ports or ():
                if one.name == target:
                    return one.container_port
        return None

    return attempt(derive)


def is_found(endpoint: MonitorEndpoint, service: ServiceDocument) -> bool:
    """Tell whether a ServiceMonitor's endpoint names a port that the Service has, or goes by targetPort instead."""
    return endpoint.port is None or any(one.name == endpoint.port for one in service.spec.ports or ())


def _watches(monitor: ServiceMonitorDocument, service: ServiceDocument) -> bool:
    chosen = monitor.spec.namespace_selector
    namespaces = chosen.match_names or (monitor.metadata.namespace,)
    return (chosen.any or service.metadata.namespace in namespaces) and selects(
        monitor.spec.selector, service.metadata.labels or {}
    )


def _port_of(address: str) -> int:
    """Return the port of a listen address (`:9400`, `0.0.0.0:9400`), the default where it names none."""
    found = _PORT.search(address[-6:])
    return int(found[1]) if found else DEFAULT_PORT

"""What an API server fills in of a new pod, DaemonSet or Job, and why it refuses one.

Source: k8s.io/kubernetes/pkg/apis/{core,apps,batch}/v1/defaults.go, pkg/apis/batch/validation/validation.go and
plugin/pkg/admission/runtimeclass/admission.go at 1.36.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.documents import PodSpec
from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.fields import reach, text
from kube_gpucheck.simulate.resources import Resource

_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "pods": {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": True,
        "securityContext": {},
    },
    "daemonsets.apps": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "revisionHistoryLimit": 10,
    },
    "jobs.batch": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed"},
}
_STATUS: Final[Mapping[str, Mapping[str, Any]]] = {
    "pods": {"phase": "Pending", "qosClass": "BestEffort"},
    "daemonsets.apps": {
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    },
    "jobs.batch": {},
}
_ENDING: Final = frozenset({"Never", "OnFailure"})


def admit(resource: Resource, document: dict[str, Any], *, has_class: Callable[[str], bool]) -> None:
    """Fill in a new object; of other kinds nothing. `has_class` tells whether there is a RuntimeClass.

    Raises:
        RefusedError: 422, the specification is none; 403, a pod's RuntimeClass is not there.
    """
    defaults = _DEFAULTS.get(resource.name)
    if defaults is None:
        return
    spec = document.setdefault("spec", {})
    if not isinstance(spec, dict):
        raise _invalid(resource, document, "spec: Invalid value: must be an object")
    for name, value in defaults.items():
        spec.setdefault(name, value)
    document["metadata"]["generation"] = 1
    document["status"] = dict(_STATUS[resource.name])
    if resource.name == "pods":
        wanted = pod_spec(resource, document).runtime_class_name
        if wanted is not None and not has_class(wanted):
            name = text(document, "metadata.name")
            message = f'pods "{name}" is forbidden: pod rejected: RuntimeClass "{wanted}" not found'
            raise RefusedError(403, "Forbidden", message, details={"name": name, "kind": "pods"})
        return
    pod_spec(resource, reach(spec, "template"))
    if resource.name == "jobs.batch" and text(spec, "template.spec.restartPolicy") not in _ENDING:
        field = "spec.template.spec.restartPolicy"
        raise _invalid(resource, document, f'{field}: Required value: valid values: "OnFailure", "Never"')


def pod_spec(resource: Resource, document: object) -> PodSpec:
    """Return the specification of a pod or template. `resource`: what is refused if there is none.

    Raises:
        RefusedError: 422, it is none.
    """
    try:
        return msgspec.convert(reach(document, "spec"), PodSpec)
    except msgspec.ValidationError as error:
        raise _invalid(resource, document, f"spec: {error}") from error


def _invalid(resource: Resource, document: object, message: str) -> RefusedError:
    name = text(document, "metadata.name")
    details = {"name": name, **({"group": resource.group} if resource.group else {}), "kind": resource.kind}
    return RefusedError(422, "Invalid", f'{resource.kind} "{name}" is invalid: {message}', details=details)

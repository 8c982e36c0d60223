"""Creating, changing and deleting objects, as an active run and kubectl do it.

Source: k8s.io/apiserver/pkg/endpoints/handlers/{create,update,patch,delete}.go, pkg/registry/rest/create.go at 1.36.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import yaml

from kube_gpucheck.simulate.answers import Reply, bad_request, json_reply, method_not_allowed
from kube_gpucheck.simulate.fields import text
from kube_gpucheck.simulate.objects import Objects, check_preconditions
from kube_gpucheck.simulate.patches import STRATEGIC, patched
from kube_gpucheck.simulate.progress import Progress
from kube_gpucheck.simulate.protobuf import MAGIC, decoded_envelope
from kube_gpucheck.simulate.routes import Call

_APPLY: Final = "application/apply-patch+yaml"
_SUCCESS: Final = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


class Writes:
    """What changes the objects of one cluster."""

    def __init__(self, objects: Objects, progress: Progress) -> None:
        """Keep the objects, and what becomes of those that are made or deleted."""
        self.objects = objects
        self.progress = progress

    def answer(self, call: Call, selected: Iterable[str]) -> Reply:
        """Return the answer to a request that changes something. `selected`: the names that a deletion of many selects.

        Raises:
            RefusedError: it cannot be done, in the API server's words.
        """
        with self.objects.changed:
            match call.request.method:
                case "POST" if not call.name:
                    return json_reply(self._create(call, body_of(call.request.body)), 201)
                case "PUT" if call.name:
                    document = body_of(call.request.body)
                    _check(call, document)
                    return json_reply(self._replace(call, document))
                case "PATCH" if call.name:
                    return self._patch(call)
                case "DELETE" if call.name and not call.target.subresource:
                    return self._delete(call)
                case "DELETE" if not call.name:
                    for name in selected:
                        self._leave(call, name, _options(call))
                    return json_reply(_SUCCESS)
                case _:
                    raise method_not_allowed()

    def _create(self, call: Call, document: dict[str, Any]) -> dict[str, Any]:
        if call.resource.namespaced and call.namespace is None:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        _check(call, document)
        if call.resource.name == "namespaces":
            metadata = document["metadata"]
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name")}
            document["status"] = {"phase": "Active"}
        self.progress.admit(call.resource, document)
        if call.is_dry:
            return document
        return self.progress.created(call.resource, self.objects.create(call.resource, call.namespace, document))

    def _patch(self, call: Call) -> Reply:
        form = call.request.headers.get("content-type", "")
        body = call.request.body
        if form.partition(";")[0].strip() == _APPLY:
            # Without field owners: what is given is merged over what is there.
            document = body_of(body)
            if self.objects.list_of(call.resource.name).get(call.namespace, call.name) is None:
                document["metadata"]["name"] = call.name
                return json_reply(self._create(call, document), 201)
            form, body = STRATEGIC, msgspec.json.encode(document)
        before = self.objects.get(call.resource, call.namespace, call.name)
        return json_reply(self._replace(call, patched(before, form, body)))

    def _replace(self, call: Call, document: dict[str, Any]) -> dict[str, Any]:
        """Put an object in the place of the one that is there: of `status` the status alone, else all but it."""
        before = self.objects.get(call.resource, call.namespace, call.name)
        if call.target.subresource == "status":
            document = {**before, "status": document.get("status"), "metadata": document.get("metadata") or {}}
        elif call.target.subresource:
            raise method_not_allowed()
        elif "status" in before:
            document["status"] = before["status"]
        return document if call.is_dry else self.objects.replace(call.resource, call.namespace, call.name, document)

    def _delete(self, call: Call) -> Reply:
        options = _options(call)
        conditions = options.get("preconditions")
        document = self.objects.get(call.resource, call.namespace, call.name)
        if isinstance(conditions, dict):
            uid, version = conditions.get("uid"), conditions.get("resourceVersion")
            check_preconditions(call.resource, call.name, document, uid=uid, version=version)
        return json_reply(document if call.is_dry else self._leave(call, call.name, options))

    def _leave(self, call: Call, name: str, options: dict[str, Any]) -> dict[str, Any]:
        policy, grace_s = text(options, "propagationPolicy"), options.get("gracePeriodSeconds")
        if grace_s is not None and (not isinstance(grace_s, int) or isinstance(grace_s, bool)):
            raise bad_request(f"gracePeriodSeconds: Invalid value: {grace_s!r}: must be an integer")
        if not policy and isinstance(options.get("orphanDependents"), bool):
            policy = "Orphan" if options["orphanDependents"] else "Background"
        return self.progress.deletions.delete(call.resource, call.namespace, name, policy=policy, grace_s=grace_s)


def _options(call: Call) -> dict[str, Any]:
    """Return the DeleteOptions of a request: its body's, else its query's."""
    query, body = call.request.query, call.request.body
    options = body_of(body) if body.strip() else {}
    if "propagationPolicy" in query:
        options.setdefault("propagationPolicy", query["propagationPolicy"])
    if query.get("gracePeriodSeconds", "").isdigit():
        options.setdefault("gracePeriodSeconds", int(query["gracePeriodSeconds"]))
    return options


def body_of(body: bytes) -> dict[str, Any]:
    """Return the object in a request's body, JSON or YAML; it has metadata.

    Raises:
        RefusedError: 400, it is none; 415, it is in a form that is not read.
    """
    if body.startswith(MAGIC):
        return decoded_envelope(body)
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            document = yaml.safe_load(body)
        except (yaml.YAMLError, RecursionError) as error:
            raise bad_request(f"the object provided is unrecognized: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not isinstance(document.setdefault("metadata", {}), dict):
        raise bad_request("the object provided is unrecognized (must be of type ObjectMeta and TypeMeta)")
    return document


def _check(call: Call, document: dict[str, Any]) -> None:
    """Refuse an object of another kind, name or namespace than its path."""
    metadata = document["metadata"]
    kind = document.get("kind")
    if kind not in {call.resource.kind, None}:
        message = f'{kind} in version "{document.get("apiVersion")}" cannot be handled as a {call.resource.kind}'
        raise bad_request(message)
    if call.name and metadata.get("name") not in {call.name, None}:
        message = f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({call.name})"
        raise bad_request(message)
    if call.resource.namespaced and metadata.get("namespace") not in {call.namespace, None, ""}:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    document.setdefault("apiVersion", call.group_version)

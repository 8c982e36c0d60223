"""The little of OpenAPI that clients need: which kinds' changes may be tried, and validated by the server.

kubectl looks there for `fieldValidation` and `dryRun` before it writes; without, it wants all schemas to validate
by itself. No schema is served, so `kubectl explain` knows nothing. Source: Kubernetes documentation, "The Kubernetes
API: OpenAPI V3"; k8s.io/cli-runtime/pkg/resource/query_param_verifier_v3.go at 1.36.
"""

from typing import Any, Final

from kube_gpucheck.evidence.bundle import GroupRecord
from kube_gpucheck.simulate.answers import Reply, json_reply, no_such_resource
from kube_gpucheck.simulate.resources import Resource, Served

_PARAMETERS: Final = ("dryRun", "fieldManager", "fieldValidation", "force")


def openapi_reply(path: str, served: Served) -> Reply | None:
    """Return the answer to `/openapi/v3` and what stands below it; None for another path.

    Raises:
        RefusedError: 404, the group or version is not served.
    """
    match path.strip("/").split("/"):
        case ["openapi", "v3"]:
            places = [_place(group, version) for group in served.groups() for version in group.versions]
            return json_reply(
                {"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}?hash={one}"} for one in places}}
            )
        case ["openapi", "v3", *place]:
            return json_reply(_document("/".join(place), served))
        case _:
            return None


def _place(group: GroupRecord, version: str) -> str:
    return f"apis/{group.name}/{version}" if group.name else f"api/{version}"


def _document(place: str, served: Served) -> dict[str, Any]:
    for group in served.groups():
        for version in group.versions:
            if _place(group, version) == place:
                paths = dict(_path(one, version, place) for one in served.kinds(group) if "patch" in one.verbs)
                information = {"title": "Kubernetes", "version": "unversioned"}
                return {"openapi": "3.0.0", "info": information, "paths": paths, "components": {"schemas": {}}}
    raise no_such_resource()


def _path(resource: Resource, version: str, place: str) -> tuple[str, dict[str, Any]]:
    """Return the path of one object of a kind, and what may be done there with parameters."""
    namespace = "namespaces/{namespace}/" if resource.namespaced else ""
    text = {"type": "string"}
    operation = {
        "operationId": f"patch{resource.group.title().replace('.', '')}{version.title()}{resource.kind}",
        "parameters": [{"name": name, "in": "query", "schema": text} for name in _PARAMETERS],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": resource.group, "version": version, "kind": resource.kind},
    }
    return f"/{place}/{namespace}{resource.plural}/{{name}}", {"patch": operation}

"""The documents by which clients find out what a server serves: both forms of aggregated discovery, and the old lists.

A version is marked `Current` where the bundle knows its kinds. Where it knows the group's name alone, the
server does not say how fresh its list of kinds is: the list is there so that clients find their way, and is no
evidence of what the real server had. (`Stale` would say more than is known, and clients leave out what is stale.)
Source: k8s.io/api/apidiscovery/{v2,v2beta1}/types.go, `freshness`; client-go discovery/aggregated_discovery.go,
convertAPIGroup; k8s.io/apimachinery/pkg/apis/meta/v1/types.go at 1.36.
"""

import re
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.bundle import GroupRecord
from kube_gpucheck.simulate.answers import Reply, Request, json_reply, no_such_resource
from kube_gpucheck.simulate.resources import Resource, Served

_AGGREGATED: Final = re.compile(r"\bg=apidiscovery\.k8s\.io\b")
_FORM: Final = re.compile(r"\bv=(v2beta1|v2)\b")
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)")


def version_reply(git_version: str) -> Reply:
    """Return `/version`."""
    found = _VERSION.match(git_version)
    major, minor = (found[1], found[2]) if found else ("", "")
    return json_reply(
        {
            "major": major,
            "minor": minor,
            "gitVersion": git_version,
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "",
            "goVersion": "",
            "compiler": "",
            "platform": "",
        }
    )


def discovery_reply(request: Request, served: Served) -> Reply | None:
    """Return the answer to `/api`, `/apis` and what stands below them without a resource; None for another path.

    Raises:
        RefusedError: 404, the group or version is not served.
    """
    match request.path.strip("/").split("/"):
        case ["api"]:
            groups = [one for one in served.groups() if not one.name]
            return _aggregated(request, served, groups) or json_reply(
                {
                    "kind": "APIVersions",
                    "versions": [version for one in groups for version in one.versions],
                    "serverAddressByClientCIDRs": [],
                }
            )
        case ["apis"]:
            groups = [one for one in served.groups() if one.name]
            return _aggregated(request, served, groups) or json_reply(
                {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(one) for one in groups]}
            )
        case ["apis", name]:
            return json_reply({"kind": "APIGroup", "apiVersion": "v1", **_group(_served(served, name))})
        case ["api", version]:
            return _resources(served, _served(served, "", version), version)
        case ["apis", name, version]:
            return _resources(served, _served(served, name, version), version)
        case _:
            return None


def _served(served: Served, name: str, version: str | None = None) -> GroupRecord:
    for group in served.groups():
        if group.name == name and (version is None or version in group.versions):
            return group
    raise no_such_resource()


def _aggregated(request: Request, served: Served, groups: list[GroupRecord]) -> Reply | None:
    """Return the aggregated form, None if the client does not take one."""
    for offer in request.headers.get("accept", "").split(","):
        form = _FORM.search(offer)
        if form is not None and _AGGREGATED.search(offer):
            document = {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"apidiscovery.k8s.io/{form[1]}",
                "metadata": {},
                "items": [_group_discovery(served, group) for group in groups],
            }
            kind = f"application/json;g=apidiscovery.k8s.io;v={form[1]};as=APIGroupDiscoveryList"
            return Reply(200, (msgspec.json.encode(document), b"\n"), kind)
        if offer.strip() in {"application/json", "*/*"}:
            return None
    return None


def _group_discovery(served: Served, group: GroupRecord) -> dict[str, Any]:
    freshness = {} if group.resources is None else {"freshness": "Current"}
    kinds = served.kinds(group)
    return {
        "metadata": {"name": group.name} if group.name else {},
        "versions": [
            {
                "version": version,
                "resources": [_resource_discovery(one, version) for one in kinds],
                **freshness,
            }
            for version in group.versions
        ],
    }


def _resource_discovery(resource: Resource, version: str) -> dict[str, Any]:
    return {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": resource.verbs,
        **({"shortNames": resource.short} if resource.short else {}),
        **({"categories": resource.categories} if resource.categories else {}),
    }


def _group(group: GroupRecord) -> dict[str, Any]:
    versions = [{"groupVersion": f"{group.name}/{one}", "version": one} for one in group.versions]
    return {"name": group.name, "versions": versions, "preferredVersion": versions[0] if versions else {}}


def _resources(served: Served, group: GroupRecord, version: str) -> Reply:
    return json_reply(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group.name}/{version}" if group.name else version,
            "resources": [
                {
                    "name": one.plural,
                    "singularName": one.singular,
                    "namespaced": one.namespaced,
                    "kind": one.kind,
                    "verbs": one.verbs,
                    **({"shortNames": one.short} if one.short else {}),
                    **({"categories": one.categories} if one.categories else {}),
                }
                for one in served.kinds(group)
            ],
        }
    )

"""What a path of the Kubernetes API names.

Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go at 1.36.
"""

from typing import Final
from urllib.parse import unquote

import msgspec

from kube_gpucheck.simulate.answers import Request, qualified
from kube_gpucheck.simulate.resources import Resource

_NAMESPACE_SUBRESOURCES: Final = frozenset({"status", "finalize"})
_VERBS: Final = {
    ("GET", True): "get",
    ("GET", False): "list",
    ("HEAD", True): "get",
    ("HEAD", False): "list",
    ("POST", True): "create",
    ("POST", False): "create",
    ("PUT", True): "update",
    ("PATCH", True): "patch",
    ("DELETE", True): "delete",
    ("DELETE", False): "deletecollection",
}


class Target(msgspec.Struct, frozen=True):
    """A resource in a path. `rest` is what stands behind a subresource: the path that a proxy is asked for."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""
    rest: str = ""

    @property
    def kind(self) -> str:
        """`<plural>[.<group>]`, as a bundle calls it."""
        return qualified(self.plural, self.group)


class Call(msgspec.Struct, frozen=True):
    """A request for a resource that is served."""

    request: Request
    target: Target
    resource: Resource

    @property
    def namespace(self) -> str | None:
        """The namespace of the objects that are meant, None of those that have none, and for all namespaces."""
        return self.target.namespace if self.resource.namespaced else None

    @property
    def name(self) -> str:
        """The object's name, "" if the request names none."""
        return self.target.name or ""

    @property
    def group_version(self) -> str:
        """What stands as `apiVersion` in objects of this path."""
        return f"{self.target.group}/{self.target.version}" if self.target.group else self.target.version

    @property
    def is_dry(self) -> bool:
        """Whether nothing is to be kept of it."""
        return self.request.query.get("dryRun") == "All"


class Asking(msgspec.Struct, frozen=True):
    """What was asked of the server, as access rules speak of it. `verb` is "" for what is no resource."""

    method: str
    path: str
    query: str
    verb: str = ""
    group: str = ""
    resource: str = ""
    namespace: str | None = None
    name: str | None = None


def target_of(path: str) -> Target | None:
    """Return the resource that a path names, None if it names none."""
    parts = [unquote(part) for part in path.split("/")[1:]]
    match parts:
        case ["api", version, *rest] if version and rest:
            return _target("", version, rest)
        case ["apis", group, version, *rest] if group and version and rest:
            return _target(group, version, rest)
        case _:
            return None


def _target(group: str, version: str, parts: list[str]) -> Target | None:
    if not all(parts[:2]):
        return None
    match parts:
        case ["namespaces", name, subresource] if subresource in _NAMESPACE_SUBRESOURCES:
            return Target(group, version, "namespaces", None, name, subresource)
        case ["namespaces", namespace, plural, *rest] if plural:
            return _named(Target(group, version, plural, namespace), rest)
        case [plural, *rest]:
            return _named(Target(group, version, plural), rest)
        case _:
            return None


def _named(target: Target, rest: list[str]) -> Target:
    match rest:
        case []:
            return target
        case [name]:
            return msgspec.structs.replace(target, name=name)
        case [name, subresource, *behind]:
            return msgspec.structs.replace(target, name=name, subresource=subresource, rest="/".join(behind))
        case _:
            return target


def asking_of(request: Request, query: str) -> Asking:
    """Return what a request asks for, as access rules speak of it."""
    target = target_of(request.path)
    if target is None:
        return Asking(request.method, request.path, query)
    verb = _VERBS.get((request.method, target.name is not None), "")
    if verb == "list" and request.query.get("watch") in {"true", "1"}:
        verb = "watch"
    resource = f"{target.plural}/{target.subresource}" if target.subresource else target.plural
    return Asking(request.method, request.path, query, verb, target.group, resource, target.namespace, target.name)

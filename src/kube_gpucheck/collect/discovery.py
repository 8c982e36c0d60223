"""Finds out what an API server serves, in which versions, and where a kind's list stands.

One request for the core and one for all groups where the server knows aggregated discovery (Kubernetes 1.26),
else one a group and version. Source: k8s.io/api/apidiscovery/v2, types.go; client-go/discovery.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.api import Api, Body, RefusedError
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.evidence.bundle import DiscoveryRecord, GroupRecord
from kube_gpucheck.model import MissingKind

_AGGREGATED: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,"
    "application/json"
)
_CURRENT: Final = "Current"
_USUAL_VERSIONS: Final = ("v1", "v1beta2", "v1beta1", "v1alpha1", "v2")
"""Where the server does not tell its versions, these are tried."""


class _Resource(msgspec.Struct, frozen=True):
    resource: str


class _Version(msgspec.Struct, frozen=True):
    version: str
    resources: tuple[_Resource, ...] | None = None
    freshness: str = ""


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Group(msgspec.Struct, frozen=True):
    metadata: _Named = _Named()
    versions: tuple[_Version, ...] = ()


class _Aggregated(msgspec.Struct, frozen=True, tag_field="kind", tag="APIGroupDiscoveryList"):
    items: tuple[_Group, ...] = ()


class _OldVersion(msgspec.Struct, frozen=True):
    version: str


class _OldGroup(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    versions: tuple[_OldVersion, ...] = ()
    preferred_version: _OldVersion | None = None


class _OldGroups(msgspec.Struct, frozen=True, tag_field="kind", tag="APIGroupList"):
    groups: tuple[_OldGroup, ...] = ()


class _CoreVersions(msgspec.Struct, frozen=True, tag_field="kind", tag="APIVersions"):
    versions: tuple[str, ...] = ()


class _OldResource(msgspec.Struct, frozen=True):
    name: str


class _OldResources(msgspec.Struct, frozen=True, tag_field="kind", tag="APIResourceList"):
    resources: tuple[_OldResource, ...] = ()


class _VersionDocument(msgspec.Struct, frozen=True, rename="camel"):
    git_version: str = ""


class _ServedVersion(msgspec.Struct, frozen=True):
    """One version of a group. `resources`: None where they could not be told; `is_known`: they are evidence."""

    version: str
    resources: tuple[str, ...] | None
    is_known: bool


_Served = Mapping[str, tuple[_ServedVersion, ...]]
_Answer = _Aggregated | _OldGroups | _CoreVersions
_ANSWER: Final[msgspec.json.Decoder[_Answer]] = msgspec.json.Decoder(_Answer)


class Discovery:
    """What a server serves; `refusal` says why that could not be read."""

    def __init__(self, version: str, served: _Served, refusal: RefusedError | None = None) -> None:
        """Keep what was read."""
        self._served = served
        self.refusal = refusal
        self.record = DiscoveryRecord(version, tuple(_record(name, versions) for name, versions in served.items()))

    def paths(self, kind: str) -> tuple[str, ...]:
        """Return where a kind's list may stand, the likeliest first; empty where it is not served."""
        plural, _, group = kind.partition(".")
        if self.refusal is not None:
            return tuple(_path(group, version, plural) for version in (_USUAL_VERSIONS if group else ("v1",)))
        versions = self._served.get(group, ())
        named = [one.version for one in versions if one.resources and plural in one.resources]
        unknown = [one.version for one in versions if not one.is_known]
        return tuple(_path(group, version, plural) for version in dict.fromkeys((*named, *unknown)))

    def tells(self, kind: str) -> bool:
        """Tell whether the server said that it serves the kind, rather than leaving it open."""
        plural, _, group = kind.partition(".")
        return any(one.is_known and plural in (one.resources or ()) for one in self._served.get(group, ()))

    def namespaced(self, kind: str, namespace: str) -> tuple[str, ...]:
        """Return where a kind's list of one namespace may stand."""
        plural = kind.partition(".")[0]
        return tuple(f"{path.removesuffix(plural)}namespaces/{namespace}/{plural}" for path in self.paths(kind))


def read_discovery(api: Api, pool: Workers, version: str) -> Discovery:
    """Return what the server serves. A group that cannot be told is one whose resources are unknown."""
    served: dict[str, tuple[_ServedVersion, ...]] = {}
    try:
        for path in ("/api", "/apis"):
            answer = _read(api, pool, path)
            if isinstance(answer, _Aggregated):
                served.update((group.metadata.name, _versions(group)) for group in answer.items)
            else:
                served.update(_one_by_one(api, pool, answer))
    except RefusedError as refusal:
        return Discovery(version, {}, refusal)
    return Discovery(version, served)


def read_version(api: Api, pool: Workers) -> str:
    """Return the server's version, "" where it says none.

    Raises:
        RefusedError: it cannot be read.
    """
    body = pool.ask(lambda: api.read("/version", timeout_s=deadlines.DISCOVERY_S))
    try:
        return msgspec.json.decode(body.content, type=_VersionDocument).git_version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _read(api: Api, pool: Workers, path: str, *, again: bool = True) -> _Answer:
    """Return a discovery document, asked for once more where it is garbled.

    Raises:
        RefusedError: it cannot be read.
    """
    body = pool.ask(lambda: api.read(path, accept=_AGGREGATED, timeout_s=deadlines.DISCOVERY_S))
    try:
        return _ANSWER.decode(body.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if again:
            return _read(api, pool, path, again=False)
        raise RefusedError(MissingKind.UNPARSABLE, f"{path} is no discovery document: {error}") from error


def _versions(group: _Group) -> tuple[_ServedVersion, ...]:
    return tuple(
        _ServedVersion(
            one.version, tuple(resource.resource for resource in one.resources or ()), one.freshness == _CURRENT
        )
        for one in group.versions
    )


def _one_by_one(api: Api, pool: Workers, answer: _OldGroups | _CoreVersions) -> _Served:
    """Return the groups of a server that has no aggregated discovery: one request a group and version."""
    if isinstance(answer, _CoreVersions):
        groups: dict[str, list[str]] = {"": list(answer.versions)}
    else:
        groups = {one.name: _in_order(one) for one in answer.groups}
    places = [(name, version) for name, versions in groups.items() for version in versions]
    paths = [f"/apis/{name}/{version}" if name else f"/api/{version}" for name, version in places]
    answers = pool.each(lambda path: _resources(api, path), paths)
    found = {
        place: None if isinstance(answer, RefusedError) else answer
        for place, answer in zip(places, answers, strict=True)
    }
    return {
        name: tuple(
            _ServedVersion(version, found[name, version], found[name, version] is not None) for version in versions
        )
        for name, versions in groups.items()
    }


def _in_order(group: _OldGroup) -> list[str]:
    preferred = [group.preferred_version.version] if group.preferred_version else []
    return list(dict.fromkeys((*preferred, *(one.version for one in group.versions))))


def _resources(api: Api, path: str) -> tuple[str, ...] | None:
    """Return the kinds of one group and version, None where they cannot be told; that costs the others nothing."""
    try:
        body: Body = api.read(path, timeout_s=deadlines.DISCOVERY_S)
        listed = msgspec.json.decode(body.content, type=_OldResources).resources
    except (RefusedError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return tuple(one.name for one in listed if "/" not in one.name)


def _record(name: str, versions: Sequence[_ServedVersion]) -> GroupRecord:
    """Return a group as the bundle has it: its resources are told where any version tells its own."""
    known = [one.resources or () for one in versions if one.is_known]
    resources = _union(known) if known else None
    return GroupRecord(name, tuple(one.version for one in versions), resources)


def _union(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in lists for name in one))


def _path(group: str, version: str, plural: str) -> str:
    return f"/apis/{group}/{version}/{plural}" if group else f"/api/{version}/{plural}"

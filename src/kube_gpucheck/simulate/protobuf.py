r"""Bodies in Kubernetes' protobuf form, of the kinds that kubectl sends in no other.

`kubectl auth` and `kubectl create KIND` without a file (configmap, deployment, job, role, …) write so; what it applies,
or creates of a file, is JSON. Of each kind those fields are read that these commands set. A body is the bytes
`k8s\0` and an envelope. Source: Kubernetes documentation, "Kubernetes API Concepts: alternate
representations of resources"; k8s.io/api/{apps,authorization,authentication,batch,core,rbac}/v1/generated.proto and
k8s.io/apimachinery/pkg/{runtime,apis/meta/v1}/generated.proto at 1.36; protobuf.dev, "Encoding".
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kube_gpucheck.simulate.answers import RefusedError, bad_request

MAGIC: Final = b"k8s\x00"


class _Count(str):
    """The name of a field that is a number, of 0 or more."""

    __slots__ = ()


_TYPE: Final[Mapping[int, Any]] = {1: "apiVersion", 2: "kind"}
_RESOURCE: Final[Mapping[int, Any]] = {
    1: "namespace",
    2: "verb",
    3: "group",
    4: "version",
    5: "resource",
    6: "subresource",
    7: "name",
}
_PATH: Final[Mapping[int, Any]] = {1: "path", 2: "verb"}
_ATTRIBUTES: Final[Mapping[int, Any]] = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
_TEXTS: Final = "texts by text"
_METADATA: Final[Mapping[int, Any]] = {
    1: "name",
    2: "generateName",
    3: "namespace",
    11: ("labels", _TEXTS),
    12: ("annotations", _TEXTS),
}
_NAMED: Final[Mapping[int, Any]] = {1: ("metadata", _METADATA)}
_CONTAINER: Final[Mapping[int, Any]] = {1: "name", 2: "image", 3: ["command"], 4: ["args"]}
_TEMPLATE: Final[Mapping[int, Any]] = {
    **_NAMED,
    2: ("spec", {2: ["containers", _CONTAINER], 3: "restartPolicy", 8: "serviceAccountName"}),
}
_RULES: Final[Mapping[int, Any]] = {
    1: ["verbs"],
    2: ["apiGroups"],
    3: ["resources"],
    4: ["resourceNames"],
    5: ["nonResourceURLs"],
}
_ROLE: Final[Mapping[int, Any]] = {**_NAMED, 2: ["rules", _RULES]}
_SUBJECT: Final[Mapping[int, Any]] = {1: "kind", 2: "apiGroup", 3: "name", 4: "namespace"}
_BINDING: Final[Mapping[int, Any]] = {
    **_NAMED,
    2: ["subjects", _SUBJECT],
    3: ("roleRef", {1: "apiGroup", 2: "kind", 3: "name"}),
}
_FORMS: Final[Mapping[str, Mapping[int, Any]]] = {
    "SelfSubjectAccessReview": {2: ("spec", _ATTRIBUTES)},
    "SelfSubjectRulesReview": {2: ("spec", {1: "namespace"})},
    "SelfSubjectReview": {},
    "ClusterRole": _ROLE,
    "ClusterRoleBinding": _BINDING,
    "ConfigMap": {**_NAMED, 2: ("data", _TEXTS)},
    "Deployment": {
        **_NAMED,
        2: ("spec", {1: _Count("replicas"), 2: ("selector", {1: ("matchLabels", _TEXTS)}), 3: ("template", _TEMPLATE)}),
    },
    "Job": {**_NAMED, 2: ("spec", {1: _Count("parallelism"), 2: _Count("completions"), 6: ("template", _TEMPLATE)})},
    "Namespace": _NAMED,
    "Role": _ROLE,
    "RoleBinding": _BINDING,
    "ServiceAccount": _NAMED,
}
"""By kind: the number of each field that is read, and its name; of a message also its fields; a list of one, or of
messages, is one of many."""
_LONGEST_NUMBER: Final = 10
_FIXED: Final = {1: 8, 5: 4}


def decoded_envelope(body: bytes) -> dict[str, Any]:
    """Return the object in a body.

    Raises:
        RefusedError: 415, its kind is none that is read here; 400, it is damaged.
    """
    try:
        envelope = {number: value for number, value in _fields(body.removeprefix(MAGIC)) if isinstance(value, bytes)}
        told = _message(envelope.get(1, b""), _TYPE)
        form = _FORMS.get(told.get("kind", ""))
        if form is None:
            accepted = "application/json, application/yaml"
            message = (
                f"the body of the request was in an unknown format - accepted media types include: {accepted}; "
                "write the object to a file ('--dry-run=client -o yaml'), and create that"
            )
            raise RefusedError(415, "UnsupportedMediaType", message)
        return {**told, "metadata": {}, **_message(envelope.get(2, b""), form)}
    except (ValueError, IndexError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def _message(content: bytes, form: Mapping[int, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(content):
        match form.get(number):
            case _Count() as name:
                if isinstance(value, int):
                    found[name] = value
            case _ if isinstance(value, int):
                pass
            case [name]:
                found.setdefault(name, []).append(value.decode())
            case [name, Mapping() as inner] if isinstance(form[number], list):
                found.setdefault(name, []).append(_message(value, inner))
            case str() as name:
                if value:  # an empty text is written, and means what an absent one does
                    found[name] = value.decode()
            case (name, str()):
                pair = _message(value, {1: "key", 2: "value"})
                found.setdefault(name, {})[pair.get("key", "")] = pair.get("value", "")
            case (name, inner):
                found[name] = _message(value, inner)
            case _:
                pass
    return found


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield the number and content of each field: bytes, or a number; what has a fixed length is passed over.

    Raises:
        ValueError: the content ends in a field, or has one of a form that is none.
        IndexError: it ends in a number.
    """
    place = 0
    while place < len(content):
        tag, place = _number(content, place)
        form = tag & 7
        if form == 0:
            value, place = _number(content, place)
            yield tag >> 3, value
        elif form in _FIXED:
            place += _FIXED[form]
        elif form == 2:  # noqa: PLR2004  a length and so many bytes
            size, place = _number(content, place)
            if place + size > len(content):
                raise ValueError("unexpected EOF")
            yield tag >> 3, content[place : place + size]
            place += size
        else:
            raise ValueError(f"proto: illegal wireType {form}")


def _number(content: bytes, place: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte, and the place behind it."""
    number = 0
    for shift in range(_LONGEST_NUMBER):
        byte = content[place + shift]
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004  the last byte of a number lacks the highest bit
            return number, place + shift + 1
    raise ValueError("proto: integer overflow")

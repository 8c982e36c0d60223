"""Access reviews: what `kubectl auth can-i` asks.

Source: k8s.io/api/authorization/v1/types.go; k8s.io/kubernetes/pkg/registry/authorization at 1.36. The answers
carry no reason, as those of an RBAC authorizer.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from kube_gpucheck.simulate.fields import reach, text
from kube_gpucheck.simulate.resources import Resource

PATHS: Final = (
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
)
"""What is no resource and may be read."""
_SUBRESOURCES: Final = {"pods": ("pods/log", "pods/proxy"), "services": ("services/proxy",)}
_ANY: Final = "*"


class Attempt(msgspec.Struct, frozen=True):
    """What somebody wants to do with a resource. `kind` is `<plural>[.<group>]`; an asterisk stands for all."""

    verb: str
    kind: str
    namespace: str = ""
    subresource: str = ""
    name: str = ""


Permits = Callable[[Attempt], bool]
"""Tells whether an attempt would be let through."""


def access_review(document: dict[str, Any], permits: Permits) -> dict[str, Any]:
    """Return a SelfSubjectAccessReview with its answer."""
    wanted = reach(document, "spec.resourceAttributes")
    if wanted is not None:
        group, resource = text(wanted, "group"), text(wanted, "resource")
        attempt = Attempt(
            text(wanted, "verb"),
            f"{resource}.{group}" if group else resource,
            text(wanted, "namespace"),
            text(wanted, "subresource"),
            text(wanted, "name"),
        )
        allowed = resource != "secrets" and permits(attempt)
    else:
        path, verb = (
            text(document, "spec.nonResourceAttributes.path"),
            text(document, "spec.nonResourceAttributes.verb"),
        )
        allowed = verb in {"get", "head"} and any(_covers(one, path) for one in PATHS)
    return {**document, "status": {"allowed": allowed}}


def rules_review(document: dict[str, Any], served: Iterable[Resource], permits: Permits) -> dict[str, Any]:
    """Return a SelfSubjectRulesReview with what may be done in its namespace: one rule for each kind that is served."""
    namespace = text(document, "spec.namespace")
    rules = [rule for one in served if one.plural != "secrets" for rule in _rules(one, namespace, permits)]
    status = {
        "resourceRules": rules,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(PATHS)}],
        "incomplete": False,
    }
    return {**document, "status": status}


def _rules(resource: Resource, namespace: str, permits: Permits) -> Iterable[dict[str, Any]]:
    verbs = [verb for verb in resource.verbs if permits(Attempt(verb, resource.name, namespace))]
    if verbs:
        yield {"verbs": verbs, "apiGroups": [resource.group], "resources": [resource.plural]}
    for whole in _SUBRESOURCES.get(resource.name, ()):
        subresource = whole.partition("/")[2]
        if permits(Attempt("get", resource.name, namespace, subresource)):
            yield {"verbs": ["get"], "apiGroups": [resource.group], "resources": [whole]}


def _covers(pattern: str, path: str) -> bool:
    return path == pattern or (pattern.endswith(_ANY) and path.startswith(pattern[:-1]))

"""Access reviews: what may be done, asked in JSON and in protobuf."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.protobuf import MAGIC, decoded_envelope
from kube_gpucheck.simulate.resources import resource_of
from kube_gpucheck.simulate.reviews import Attempt, access_review, rules_review
from kube_gpucheck.simulate.server import EmbeddedCluster
from serving import ask, bundle_of

ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
ASKED = {"api": ["discovery", "nodes", "pods"]}
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"


def field(number: int, content: bytes | str) -> bytes:
    """Return a field with a length as protobuf writes it."""
    data = content.encode() if isinstance(content, str) else content
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(number: int) -> bytes:
    head = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return head + (varint(number >> 7) if number > 0x7F else b"")


def envelope(kind: str, content: bytes) -> bytes:
    told = field(1, "authorization.k8s.io/v1") + field(2, kind)
    return MAGIC + field(1, told) + field(2, content) + field(3, "") + field(4, "")


def asked(**attributes: str) -> dict[str, Any]:
    return {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}


def is_allowed(document: dict[str, Any], *, nothing: bool = False) -> bool:
    return bool(access_review(document, lambda _: not nothing)["status"]["allowed"])


def test_a_review_asks_for_what_the_document_names() -> None:
    seen: list[Attempt] = []
    document = asked(verb="get", group="apps", resource="daemonsets", namespace="n", subresource="status", name="d")

    answer = access_review(document, lambda attempt: not seen.append(attempt))  # type: ignore[func-returns-value]

    assert seen == [Attempt("get", "daemonsets.apps", "n", "status", "d")]
    assert answer == {**document, "status": {"allowed": True}}


def test_what_is_not_permitted_is_not_allowed() -> None:
    assert not is_allowed(asked(verb="list", resource="nodes"), nothing=True)


def test_secrets_are_never_allowed() -> None:
    assert not is_allowed(asked(verb="list", resource="secrets"))


@pytest.mark.parametrize(
    ("path", "verb", "allowed"),
    [("/healthz", "get", True), ("/apis/apps", "get", True), ("/metrics", "get", False), ("/healthz", "post", False)],
)
def test_paths_that_are_no_resource_are_reviewed_too(path: str, verb: str, allowed: bool) -> None:  # noqa: FBT001  a table's column
    assert is_allowed({"spec": {"nonResourceAttributes": {"path": path, "verb": verb}}}) is allowed


def test_rules_list_what_is_served_and_permitted() -> None:
    kinds = [resource_of(name) for name in ("pods", "secrets", "daemonsets.apps", "nodes")]
    answer = rules_review({"spec": {"namespace": "n"}}, kinds, lambda one: one.verb == "get" and one.kind != "nodes")

    assert [(one["apiGroups"], one["resources"], one["verbs"]) for one in answer["status"]["resourceRules"]] == [
        ([""], ["pods"], ["get"]),
        ([""], ["pods/log"], ["get"]),
        ([""], ["pods/proxy"], ["get"]),
        (["apps"], ["daemonsets"], ["get"]),
    ]
    assert answer["status"]["incomplete"] is False


@pytest.mark.parametrize("document", [{}, {"spec": None}, {"spec": {"resourceAttributes": 5}}, {"spec": []}])
def test_a_review_of_nothing_is_not_allowed(document: dict[str, Any]) -> None:
    assert not is_allowed(document, nothing=True)
    assert rules_review(document, [], lambda _: True)["status"]["resourceRules"] == []


def test_a_cluster_allows_what_its_bundle_could_read_and_refuses_what_it_could_not() -> None:
    missing = [{"evidence": "api/nodes", "kind": "forbidden", "reason": "no", "source": "api/nodes"}]
    groups = [{"name": "", "versions": ["v1"], "resources": ["nodes", "pods", "secrets"]}]
    content = {"cluster/discovery.json": json.dumps({"version": "v1.36.2", "groups": groups}).encode()}
    with EmbeddedCluster(bundle_of(content, missing=missing, asked=ASKED), name="t") as cluster:
        allowed = {
            resource: ask(cluster, ACCESS, "POST", body=asked(verb="list", resource=resource)).document["status"][
                "allowed"
            ]
            for resource in ("nodes", "pods", "secrets")
        }
        rules = ask(cluster, RULES, "POST", body={"spec": {"namespace": "default"}})

    listed = [one["resources"][0] for one in rules.document["status"]["resourceRules"] if "list" in one["verbs"]]

    assert allowed == {"nodes": False, "pods": True, "secrets": False}
    assert rules.status == 201
    assert "pods" in listed
    assert "nodes" not in listed


def test_a_review_in_protobuf_is_read() -> None:
    attributes = field(2, "list") + field(3, "apps") + field(5, "daemonsets") + field(1, "n")
    body = envelope("SelfSubjectAccessReview", field(1, b"") + field(2, field(1, attributes)) + field(3, b""))

    assert decoded_envelope(body) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "metadata": {},
        "spec": {"resourceAttributes": {"namespace": "n", "verb": "list", "group": "apps", "resource": "daemonsets"}},
    }


def test_what_kubectl_creates_in_protobuf_is_read() -> None:
    def pair(key: str, value: str) -> bytes:
        return field(1, key) + field(2, value)

    metadata = field(1, "c") + field(2, "") + field(3, "n") + field(11, pair("x", "1")) + field(11, pair("y", ""))
    document = decoded_envelope(envelope("ConfigMap", field(1, metadata) + field(2, pair("a", "b"))))

    assert document["metadata"] == {"name": "c", "namespace": "n", "labels": {"x": "1", "y": ""}}
    assert document["data"] == {"a": "b"}


def test_numbers_in_protobuf_are_passed_over_and_long_texts_read() -> None:
    namespace = "n" * 300
    noise = b"\x20\x96\x01" + b"\x29" + bytes(8) + b"\x35" + bytes(4)
    body = envelope("SelfSubjectRulesReview", field(2, noise + field(1, namespace)))

    assert decoded_envelope(body)["spec"] == {"namespace": namespace}


def test_a_kind_that_is_not_read_in_protobuf_is_an_unsupported_form() -> None:
    with pytest.raises(RefusedError) as refusal:
        decoded_envelope(envelope("Pod", b""))

    assert (refusal.value.code, refusal.value.reason) == (415, "UnsupportedMediaType")


@given(content=st.binary(max_size=60))
def test_damaged_protobuf_is_refused(content: bytes) -> None:
    try:
        document = decoded_envelope(MAGIC + content)
    except RefusedError as refusal:
        assert refusal.code in {400, 415}  # noqa: PT017  most contents are refused, and some are not
    else:
        assert json.dumps(document)


@pytest.mark.parametrize("size", range(1, 40))
def test_truncated_protobuf_is_refused(size: int) -> None:
    body = envelope("SelfSubjectAccessReview", field(2, field(1, field(2, "list"))))

    with pytest.raises(RefusedError):
        decoded_envelope(body[:size])

"""Credentials in objects on their way to disk: replaced wherever people write them, and nothing else touched."""

from typing import Any

import msgspec
import pytest

from kube_gpucheck.evidence.items import CommonItem, OtherItem
from kube_gpucheck.evidence.redaction import MARK, Redactor

PATH = "cluster/pods.json"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"  # noqa: S105  what a token looks like


def written(kind: str, item: dict[str, Any], redactor: Redactor | None = None) -> Any:
    parts = msgspec.json.decode(msgspec.json.encode(item), type=CommonItem)
    return msgspec.json.decode((redactor or Redactor()).item(PATH, kind, parts))


def pod(**parts: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}, **parts}


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", **fields}]}


def said(state: str) -> dict[str, Any]:
    status = {"name": "c", "ready": False, state: {"waiting": {"reason": "x", "message": f"Bearer {TOKEN}"}}}
    return {"phase": "Pending", "containerStatuses": [status]}


@pytest.mark.parametrize("kind", ["pods", "nodes", "deployments.apps", "anything.example.org"])
@pytest.mark.parametrize(
    "parts",
    [
        {"spec": container(env=[{"name": "DB_PASSWORD", "value": TOKEN}])},
        {"spec": container(env=[{"name": "URL", "value": f"https://user:{TOKEN}@host/"}])},
        {"spec": container(args=["--token", TOKEN])},
        {"spec": container(args=[f"--api-key={TOKEN}"])},
        {"spec": container(command=["sh", "-c", f"export TOKEN={TOKEN}; run"])},
        {"spec": {"containers": [], "initContainers": [{"name": "i", "args": ["--password", TOKEN]}]}},
        {"spec": {"containers": [], "ephemeralContainers": [{"name": "e", "args": ["--password", TOKEN]}]}},
        {"metadata": {"name": "p", "annotations": {"note": f"token={TOKEN}"}}},
        {"metadata": {"name": "p", "annotations": {"json": f'{{"password": "{TOKEN}"}}'}}},
        {"status": said("state")},
        {"status": said("lastState")},
        {"status": {"message": f"authorization: basic {TOKEN}"}},
        {"status": {"conditions": [{"type": "Ready", "status": "False", "message": f"bearer {TOKEN}"}]}},
    ],
)
def test_a_credential_is_replaced_wherever_it_stands(kind: str, parts: dict[str, Any]) -> None:
    redactor = Redactor()
    clean = written(kind, pod(**parts), redactor)

    assert TOKEN not in str(clean)
    assert MARK in str(clean)
    assert list(redactor.counts()) == [PATH]


def test_an_object_without_a_credential_is_not_changed_by_a_byte() -> None:
    content = b'{ "metadata": {"name":"p"}, "spec":{"containers":[{"args":["--token-file=/x"], "x": 1.0}]}}'
    redactor = Redactor()

    assert redactor.raw_item(PATH, content) == content
    assert redactor.counts() == {}


def test_what_was_clean_once_does_not_hide_what_is_not() -> None:
    redactor = Redactor()
    for value in ("one", "two", TOKEN):
        written("pods", pod(spec=container(env=[{"name": "OPTION", "value": value}])), redactor)

    assert redactor.counts() == {PATH: "1 credential"}


@pytest.mark.parametrize(
    "part",
    [
        {"spec": [{"password": TOKEN}]},
        {"status": [{"message": "x", "password": TOKEN}]},
        {"spec": {"containers": {"password": TOKEN}}},
        {"metadata": {"annotations": [f"password={TOKEN}"]}},
    ],
)
def test_a_malformed_object_is_looked_through_as_a_whole(part: dict[str, Any]) -> None:
    assert TOKEN not in str(written("pods", pod(**part)))


def test_an_object_of_an_unusual_form_is_looked_through_as_a_whole() -> None:
    raw = msgspec.Raw(msgspec.json.encode(pod(data={"password": TOKEN})))

    assert TOKEN.encode() not in Redactor().item(PATH, "pods", OtherItem(raw))


def test_an_odd_object_that_is_no_json_is_looked_through_as_text() -> None:
    assert Redactor().raw_item(PATH, f"not json, token={TOKEN}".encode()) == f"not json, token={MARK}".encode()

"""Containers' logs: what is asked for, the end that is kept, and errors that come in a log's place."""

import pytest

from fake_server import FakeServer, Reply, api_of, status, workers
from kube_gpucheck.collect.api import RefusedError
from kube_gpucheck.collect.logs import TAIL_BYTES, TAIL_LINES, path_of, read_logs
from kube_gpucheck.model import MissingKind

LOG = "/api/v1/namespaces/a/pods/p/log"


def read(reply: Reply, name: str = "a/p/c") -> tuple[FakeServer, bytes | RefusedError]:
    server = FakeServer({LOG: reply})
    with workers(2) as pool:
        [(named, answer)] = read_logs(api_of(server), pool, [name])
    assert named == name
    return server, answer


def test_a_log_is_asked_for_by_its_container_and_its_tail() -> None:
    server, answer = read(Reply(content=b"one\ntwo\n"))

    assert answer == b"one\ntwo\n"
    assert server.asked == [(LOG, {"container": "c", "tailLines": str(TAIL_LINES)})]


def test_the_log_of_the_run_before_is_asked_for_as_such() -> None:
    server, _ = read(Reply(content=b""), "a/p/c/previous")

    assert server.asked[0][1]["previous"] == "true"


def test_of_a_long_log_whole_lines_of_its_end_are_kept() -> None:
    lines = [b"%07d %s" % (number, b"x" * 92) for number in range(30_000)]
    _, answer = read(Reply(content=b"\n".join(lines) + b"\n"))

    assert isinstance(answer, bytes)
    kept = answer.splitlines()
    assert len(answer) <= TAIL_BYTES < len(answer) + 101
    assert kept == lines[-len(kept) :]


def test_one_endless_line_is_cut() -> None:
    _, answer = read(Reply(content=b"x" * (TAIL_BYTES * 3)))

    assert answer == b"x" * TAIL_BYTES


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (
            status(400, 'container "c" in pod "p" is waiting to start: ContainerCreating'),
            MissingKind.ERROR,
            'container "c" in',
        ),
        (status(403, "forbidden"), MissingKind.FORBIDDEN, "forbidden"),
        (
            Reply(content=b"unable to retrieve container logs for containerd://371546730bb4ddbcef"),
            MissingKind.ERROR,
            "unable to retrieve container logs for containerd://371546730bb4ddbcef",
        ),
        (
            Reply(content=b'failed to try resolving symlinks in path "/var/log/pods/x/0.log": no such file\n'),
            MissingKind.ERROR,
            "failed to try resolving symlinks",
        ),
    ],
)
def test_an_error_in_a_logs_place_is_no_log(reply: Reply, kind: MissingKind, reason: str) -> None:
    _, answer = read(reply)

    assert isinstance(answer, RefusedError)
    assert answer.kind is kind
    assert answer.reason.startswith(reason)


def test_a_log_that_tells_of_such_an_error_is_a_log() -> None:
    content = b"starting\nunable to retrieve container logs for x\n"

    assert read(Reply(content=content))[1] == content


def test_many_logs_come_in_the_order_of_their_names() -> None:
    names = [f"a/p{number}/c" for number in range(50)]
    server = FakeServer({f"/api/v1/namespaces/a/pods/p{n}/log": Reply(content=b"%d" % n) for n in range(0, 50, 2)})
    with workers(8) as pool:
        found = list(read_logs(api_of(server), pool, names))

    assert [name for name, _ in found] == names
    assert [answer for _, answer in found if isinstance(answer, bytes)] == [b"%d" % n for n in range(0, 50, 2)]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/p/c", "cluster/logs/a_p_c.log"),
        ("a/p/c/previous", "cluster/logs/a_p_c.previous.log"),
        ("a/p", None),
        ("a/p/c/other", None),
        ("a/p/c/previous/x", None),
        ("a/../c", None),
        ("a/p/C", None),
        ("", None),
        ("a//c", None),
        ("a/" + "p" * 300 + "/c", None),
    ],
)
def test_a_log_has_a_path_only_under_proper_names(name: str, path: str | None) -> None:
    assert path_of(name) == path

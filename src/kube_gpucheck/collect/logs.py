"""Reads containers' logs into a bundle, several at a time; never more than the end of one.

`tailLines` bounds what the kubelet sends. `limitBytes` is not used: it is "the number of bytes to read from the
server before terminating the log output" (PodLogOptions), counted from the first line of the tail, so that the
newest lines would be lost. The end is cut out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kube_gpucheck.collect import deadlines
from kube_gpucheck.collect.api import Api, RefusedError, one_line
from kube_gpucheck.collect.workers import Workers
from kube_gpucheck.evidence.names import is_name
from kube_gpucheck.model import MissingKind

TAIL_LINES: Final = 5000
"""The newest lines that are read: hours of a device plugin, seconds of a container that runs in circles."""
TAIL_BYTES: Final = 2**20
"""The most that is kept of a log: its end, from the beginning of a line on."""
_BATCH: Final = 16
_NO_LOG: Final = (
    b"unable to retrieve container logs for ",
    b"failed to try resolving symlinks in path ",
    b"failed to open log file ",
)
"""What kubelets and engines send in a log's place, with status 200. Source: kubernetes/pkg/kubelet
kuberuntime_container.go (GetContainerLogs) and k8s.io/cri-client pkg/logs."""
_SHORT: Final = 4096
_PREVIOUS: Final = "previous"


def read_logs(api: Api, pool: Workers, names: Sequence[str]) -> Iterator[tuple[str, bytes | RefusedError]]:
    """Yield each log's name with its text, or with why it could not be had; in the order of the names."""
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        yield from zip(batch, pool.each(lambda name: _one(api, name), batch), strict=True)


def read_log(api: Api, name: str, *, query: Mapping[str, str] | None = None, tail_bytes: int | None) -> bytes:
    """Return one log.

    Raises:
        RefusedError: it could not be had, or what came says that there is none.
    """
    namespace, pod, container, *rest = name.split("/")
    asked = {"container": container, **(query or {})}
    if rest == [_PREVIOUS]:
        asked["previous"] = "true"
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    content = api.read(path, asked, accept="*/*", timeout_s=deadlines.LOG_S, tail_bytes=tail_bytes).content
    if len(content) < _SHORT and content.startswith(_NO_LOG):
        raise RefusedError(MissingKind.ERROR, one_line(content.decode("utf-8", "replace")))
    return content


def path_of(name: str) -> str | None:
    """Return where a log stands in a bundle, None if a part of its name cannot be a name."""
    parts = name.split("/")
    previous = parts[3:] == [_PREVIOUS]
    if len(parts) != (4 if previous else 3) or not all(is_name(part) for part in parts[:3]):
        return None
    return f"cluster/logs/{'_'.join(parts[:3])}{'.previous' if previous else ''}.log"


def _one(api: Api, name: str) -> bytes:
    content = read_log(api, name, query={"tailLines": str(TAIL_LINES)}, tail_bytes=TAIL_BYTES)
    if len(content) <= TAIL_BYTES:
        return content
    start = content.find(b"\n", len(content) - TAIL_BYTES) + 1
    return content[start or len(content) - TAIL_BYTES :]

"""The subresource `log` of pods: which container is meant, and the part of its log that was asked for.

Source: pkg/registry/core/pod/strategy.go at 1.36, LogLocation and what it calls.
"""

from collections.abc import Mapping
from typing import Final

from kube_gpucheck.simulate.answers import TEXT, RefusedError, Reply, bad_request, no_such_object
from kube_gpucheck.simulate.fields import entries, text
from kube_gpucheck.simulate.objects import Stored, decoded
from kube_gpucheck.simulate.playback import Playback, never_asked
from kube_gpucheck.simulate.pods import Pods
from kube_gpucheck.simulate.routes import Target

_TRUE: Final = frozenset({"true", "1"})


def log_reply(
    playback: Playback,
    made: Pods,
    pod: Stored | None,
    *,
    target: Target,
    query: Mapping[str, str],
    pods: bool,
) -> Reply:
    """Return a container's log.

    Args:
        playback: where the bundle's logs are.
        made: where those are of pods that were made here.
        pod: the pod, None if it is not there.
        target: the pod's name and namespace.
        query: `container`, `previous`, `tailLines`, `limitBytes`; a time (`sinceSeconds`) is as if absent.
        pods: whether the pods that there are are known at all.

    Raises:
        RefusedError: 404, there is no such pod; 400, no such container, or one must be chosen; else the
            failure that stands in the bundle.
    """
    namespace, name = target.namespace or "", target.name or ""
    previous = query.get("previous") in _TRUE
    if pod is None and pods:
        # A bundle may hold the log of a pod that was gone when the pods were listed.
        found = playback.log(namespace, name, query.get("container", ""), previous=previous)
        if found is None:
            raise no_such_object("pods", "", name)
        return Reply(200, (_part(found, query),), TEXT)
    container = _container(pod, name, query.get("container", ""))
    node = playback.node_of(namespace, name)
    if node is not None and previous:
        raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
    content = made.log(namespace, name, container, previous=previous)
    if content is None:
        if node is not None:
            content = playback.probe_log(node)
        else:
            content = playback.log(namespace, name, container, previous=previous)
    if content is None:
        raise never_asked(f"the log of {namespace}/{name}/{container}{', its previous run,' if previous else ''}")
    return Reply(200, (_part(content, query),), TEXT)


def _container(pod: Stored | None, name: str, asked: str) -> str:
    if pod is None:
        if asked:
            return asked
        raise bad_request(f"a container name must be specified for pod {name}")
    document = decoded(pod.raw)
    regular, initial, late = (
        [text(one, "name") for one in entries(document, f"spec.{field}")]
        for field in ("containers", "initContainers", "ephemeralContainers")
    )
    if asked:
        if asked not in {*regular, *initial, *late}:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(regular) == 1 and not initial and not late:
        return regular[0]
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
    if initial:
        message += f" or one of the init containers: [{' '.join(initial)}]"
    if late:
        message += f" or one of the ephemeral containers: [{' '.join(late)}]"
    raise bad_request(message)


def _part(content: bytes, query: Mapping[str, str]) -> bytes:
    """Return the last `tailLines` lines, and of these at most the first `limitBytes` bytes."""
    lines = _number(query, "tailLines")
    if lines is not None:
        content = b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""
    size = _number(query, "limitBytes")
    if size == 0:
        raise _invalid("limitBytes", 0, "must be greater than 0")
    return content if size is None else content[:size]


def _number(query: Mapping[str, str], name: str) -> int | None:
    found = query.get(name)
    if not found:
        return None
    try:
        number = int(found)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{found}": invalid syntax') from None
    if number < 0:
        raise _invalid(name, number, "must be greater than or equal to 0")
    return number


def _invalid(name: str, value: int, rule: str) -> RefusedError:
    return RefusedError(422, "Invalid", f'PodLogOptions "" is invalid: {name}: Invalid value: {value}: {rule}')

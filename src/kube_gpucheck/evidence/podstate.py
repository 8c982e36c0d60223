"""How the pods of the GPU stack fare: whether they run, what keeps them from it, and in whose words."""

import re
from typing import TYPE_CHECKING, Final

from kube_gpucheck.evidence.pluginlog import LOST, brief, complaint
from kube_gpucheck.evidence.podspec import hides_all, main_container
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.model import Missing, Reading, Seen

if TYPE_CHECKING:
    from kube_gpucheck.evidence.daemonset import DaemonSet
    from kube_gpucheck.evidence.node import Node
    from kube_gpucheck.evidence.pod import Pod
    from kube_gpucheck.evidence.stack import Component


def is_running(pod: "Pod") -> Reading[bool]:
    """Return whether the pod's main container runs now; it does where the pod is Ready."""

    def derive() -> bool:
        if need(pod.is_ready):
            return True
        document = need(pod.object)
        name = main_container(document.spec).name
        return any(
            one.name == name and one.state.running is not None for one in document.status.container_statuses or ()
        )

    return attempt(derive)


def state_of(pod: "Pod") -> Reading[str]:
    """Return in a word or two how the pod's main container fares."""

    def derive() -> str:
        document = need(pod.object)
        name = main_container(document.spec).name
        for one in document.status.container_statuses or ():
            if one.name == name:
                if one.state.running is not None:
                    return "running" if one.ready else "running, not ready"
                if one.state.terminated is not None:
                    return f"terminated, exit code {one.state.terminated.exit_code}"
                return one.state.waiting.reason if one.state.waiting and one.state.waiting.reason else "waiting"
        return document.status.phase

    return attempt(derive)


def troubles(pod: "Pod") -> Reading[tuple[str, ...]]:
    """Return what keeps a pod from being Ready, in the words of statuses, logs and events; each fact once.

    A log or the events that cannot be had only shorten the explanation: the statuses have already said that
    the pod is not well.
    """

    def derive() -> tuple[str, ...]:
        document = need(pod.object)
        facts: list[str] = []
        if document.status.reason:
            facts.append(brief(f"{document.status.reason}: {document.status.message}".rstrip(": ")))
        hidden = hides_all(document.spec)
        if hidden is not None:
            facts.append(hidden)
        silent = not document.status.container_statuses
        for one in document.status.init_container_statuses or ():
            if one.state.running is not None and not one.ready:
                words = _last_words(pod, one.name)
                facts.append(f"init container {one.name} has not ended{f': {words}' if words else ''}")
        for one in need(pod.statuses):
            ended = one.state.terminated or one.last_state.terminated
            waiting = one.state.waiting
            if waiting is not None and waiting.reason not in {"", "PodInitializing"}:
                facts.append(
                    brief(f"{one.name} waits: {waiting.reason}{': ' + waiting.message if waiting.message else ''}")
                )
                silent = silent or not waiting.message
            if ended is not None and (ended.exit_code or not one.ready):
                facts.append(
                    f"{one.name} ended with exit code {ended.exit_code} ({ended.reason or 'no reason'}), "
                    f"{one.restart_count} restarts"
                )
                words = _last_words(pod, one.name)
                if words:
                    facts.append(f"its log: {words}")
        if silent:
            facts.extend(_warnings(pod))
        return tuple(dict.fromkeys(facts))

    return attempt(derive)


def _last_words(pod: "Pod", container: str) -> str | None:
    for previous in (False, True):
        log = pod.log(container, previous=previous)
        if isinstance(log, Seen) and not LOST.match(log.value.lstrip()):
            words = complaint(log.value)
            if words is not None:
                return words
    return None


def _warnings(pod: "Pod") -> list[str]:
    events = pod.events
    if isinstance(events, Missing):
        return []
    spoken = [
        event
        for event in events.value
        if event.type == "Warning" and event.reason not in {"BackOff", "FailedScheduling"}
    ]
    return [brief(f"{spoken[-1].reason}: {spoken[-1].message}")] if spoken else []


def live_pods(daemonset: "DaemonSet") -> "Reading[tuple[Pod, ...]]":
    """Return a DaemonSet's pods that have not ended and are not being deleted."""
    return attempt(
        lambda: tuple(pod for pod in need(daemonset.pods) if not need(pod.is_finished) and not need(pod.is_leaving))
    )


def live_pods_on(node: "Node", *components: "Component") -> "tuple[Pod, ...]":
    """Return a node's pods of these components that have not ended and are not being deleted. Raises GapError."""
    return tuple(
        pod
        for pod in need(node.pods)
        if need(pod.component) in components and not need(pod.is_finished) and not need(pod.is_leaving)
    )


def recent_restarts(pod: "Pod", within_s: float) -> Reading[int]:
    """Return how often the pod's containers have restarted, 0 if the last end lies further back than `within_s`."""

    def derive() -> int:
        total = 0
        for status in need(pod.statuses) if need(pod.restarts) else ():
            ended = status.last_state.terminated
            if (
                ended is not None
                and ended.finished_at is not None
                and (pod.cluster.gathered_at - ended.finished_at).total_seconds() <= within_s
            ):
                total += status.restart_count
        return total

    return attempt(derive)


_PULL: Final = re.compile(
    r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError|RegistryUnavailable"
)


def unpulled(pod: "Pod") -> Reading[str | None]:
    """Return which image of a pod cannot be pulled and why, None if none waits for its image."""

    def derive() -> str | None:
        for status in () if need(pod.outline).is_even else need(pod.statuses):
            waiting = status.state.waiting
            if waiting is not None and _PULL.fullmatch(waiting.reason):
                why = waiting.message
                if not why or waiting.reason == "ImagePullBackOff":
                    why = _pull_event(pod) or why
                return brief(f"{status.name} waits: {waiting.reason}, image {status.image}: {why}")
        return None

    return attempt(derive)


def _pull_event(pod: "Pod") -> str | None:
    events = pod.events
    if isinstance(events, Missing):
        return None
    return next((one.message for one in reversed(events.value) if one.message.startswith("Failed to pull image")), None)


def refused_creation(daemonset: "DaemonSet") -> Reading[str | None]:
    """Return the last event by which the creation of a DaemonSet's pods was refused, None if there is none."""

    def derive() -> str | None:
        refused = [event.message for event in need(daemonset.events) if event.reason == "FailedCreate"]
        return brief(refused[-1]) if refused else None

    return attempt(derive)

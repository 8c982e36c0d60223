"""The Kubernetes API over a bundle: a request in, an answer out. No sockets and no threads of its own."""

import base64
import re
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence.bundle import Bundle
from kube_gpucheck.model import Seen
from kube_gpucheck.simulate.answers import (
    JSON,
    TEXT,
    RefusedError,
    Reply,
    Request,
    bad_request,
    json_reply,
    method_not_allowed,
    no_such_object,
    no_such_resource,
)
from kube_gpucheck.simulate.deletion import Deletions
from kube_gpucheck.simulate.discovery import discovery_reply, version_reply
from kube_gpucheck.simulate.fields import text
from kube_gpucheck.simulate.objects import FIRST_VERSION, NotAListError, Objects, Stored, decoded, name_of, split_items
from kube_gpucheck.simulate.openapi import openapi_reply
from kube_gpucheck.simulate.playback import PROBE_NAMESPACE, Playback, server_version
from kube_gpucheck.simulate.podlogs import log_reply
from kube_gpucheck.simulate.progress import Progress
from kube_gpucheck.simulate.proxying import proxy_reply
from kube_gpucheck.simulate.resources import KNOWN, Served, is_known
from kube_gpucheck.simulate.reviews import Attempt, access_review, rules_review
from kube_gpucheck.simulate.routes import Asking, Call, Target, target_of
from kube_gpucheck.simulate.script import Script
from kube_gpucheck.simulate.selectors import FieldSelector, SelectorError, parse_field_selector, parse_label_selector
from kube_gpucheck.simulate.tables import INCLUDES, content_type, table, table_version
from kube_gpucheck.simulate.watching import is_watch, watch_of, watched
from kube_gpucheck.simulate.writes import Writes, body_of

_PLAIN: Final = re.compile(r"(?!(?:true|false)$)[A-Za-z][A-Za-z0-9.-]*", re.ASCII)
"""A value that JSON writes as it is, between quotation marks; no number and no truth value."""
HEALTHY: Final = frozenset({"/healthz", "/livez", "/readyz"})


class ApiServer:
    """Answers for one bundle. May be called from several threads."""

    def __init__(
        self, bundle: Bundle, *, script: Script | None = None, forbids: Callable[[Asking], bool] = lambda _: False
    ) -> None:
        """Look at the bundle; lists are read when they are first asked for.

        `script`: what becomes of pods that are made. `forbids`: what is refused besides.
        """
        self._forbids = forbids
        self._closed = threading.Event()
        self.playback = Playback(bundle)
        self.now = bundle.gathered_at
        self.objects = Objects(self.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        deletions = Deletions(self.objects, load=self._try_to_load, kinds=lambda: self.playback.kinds)
        self.progress = Progress(self.objects, deletions, script=script, load=self._try_to_load)
        self.writes = Writes(self.objects, self.progress)
        self._version = server_version(bundle)
        self._loaded: set[str] = set()
        self._garbage: dict[str, bytes] = {}
        self._own_namespaces = {PROBE_NAMESPACE}
        discovery = bundle.discovery()
        samples = {kind: self._sample(kind) for kind in self.playback.asked_kinds}
        self.served = Served(discovery.value if isinstance(discovery, Seen) else None, samples)

    @property
    def kinds(self) -> frozenset[str]:
        """The full names of all kinds that are served here, or that a cluster may have."""
        served = {kind.name for group in self.served.groups() for kind in self.served.kinds(group)}
        return frozenset(served | set(self.playback.kinds) | {one.name for kinds in KNOWN.values() for one in kinds})

    def vanish(self, group: str) -> None:
        """Serve an API group no more."""
        self.served = self.served.without(group)

    def close(self) -> None:
        """End every watch."""
        self._closed.set()
        with self.objects.changed:
            self.objects.changed.notify_all()

    def answer(self, request: Request) -> Reply:
        """Return the answer to a request; a refusal is one too."""
        try:
            target = target_of(request.path)
            return self._document(request) if target is None else self._resource(request, target)
        except RefusedError as refusal:
            return refusal.reply()

    def _document(self, request: Request) -> Reply:
        if request.path.rstrip("/") in HEALTHY:
            return Reply(200, (b"ok",), TEXT)
        refusal = self.playback.refusal("discovery")
        if refusal is not None:
            raise refusal
        if request.path == "/version":
            return version_reply(self._version)
        reply = discovery_reply(request, self.served) or openapi_reply(request.path, self.served)
        if reply is None:
            raise no_such_resource()
        return reply

    def _resource(self, request: Request, target: Target) -> Reply:
        resource = self.served.find(target.group, target.version, target.plural)
        if resource is None:
            raise no_such_resource()
        if resource.name == "secrets":
            raise RefusedError(403, "Forbidden", "secrets is forbidden: gpucheck never reads Secrets, and holds none")
        self._load(resource.name)
        call = Call(request, target, resource)
        if request.method not in {"GET", "HEAD"}:
            return self._write(call)
        match target.subresource:
            case "log" if resource.name == "pods":
                pod = self.objects.list_of("pods").get(call.namespace, call.name)
                known = call.namespace in self._own_namespaces or self.playback.refusal("pods") is None
                return log_reply(self.playback, self.progress.pods, pod, target=target, query=request.query, pods=known)
            case "proxy" if resource.name in {"pods", "services"}:
                return proxy_reply(self.playback, target)
            case "" | "status":
                return self._read(call)
            case _:
                raise no_such_resource()

    # --- reading -------------------------------------------------------------------------------

    def _read(self, call: Call) -> Reply:
        kind = call.resource.name
        if not self._is_ours(call):
            if kind in self._garbage or self.playback.garbled(kind):
                return Reply(200, (self._garbage.get(kind, b"null"),))
            refusal = self.playback.refusal(kind)
            if refusal is not None:
                if call.name and self.playback.knows_nothing(kind):  # `kubectl apply` looks before it creates
                    nothing = no_such_object(call.resource.plural, call.resource.group, call.name)
                    raise RefusedError(404, nothing.reason, f"{nothing.message}: {refusal.message}")
                raise refusal
        if call.name:
            return self._get(call)
        return self._watch(call) if is_watch(call.request.query) else self._list(call)

    def _is_ours(self, call: Call) -> bool:
        """Tell whether it is of a namespace or an object that was made here, of which everything is known."""
        if call.target.namespace in self._own_namespaces:
            return True
        found = self.objects.list_of(call.resource.name).get(call.namespace, call.name) if call.name else None
        return found is not None and (found.since > FIRST_VERSION or call.name in self._own_namespaces)

    def _load(self, kind: str) -> None:
        """Read a kind's list, once."""
        with self.objects.changed:
            if kind in self._loaded:
                return
            items: list[bytes] = []
            if self.playback.refusal(kind) is None:
                content = self.playback.content(kind)
                try:
                    items = split_items(content)
                except NotAListError:
                    self._garbage[kind] = content
            if kind == "pods":
                items.extend(self.playback.probe_pods())
            if kind == "namespaces" and self.playback.probed:
                items.append(self.playback.probe_namespace())
            self.objects.load(kind, items)
            self._loaded.add(kind)

    def _try_to_load(self, kind: str) -> None:
        """Read a kind's list if it can be read."""
        try:
            self._load(kind)
        except RefusedError:
            self._loaded.add(kind)  # it stays empty, but for what is made

    def _sample(self, kind: str) -> bytes | None:
        """Return an object of a kind that the table lacks, None if there is none."""
        if is_known(kind) or kind not in self.playback.kinds:
            return None
        try:
            self._load(kind)
        except RefusedError:
            return None
        return self.objects.list_of(kind).first()

    def _get(self, call: Call) -> Reply:
        document = {
            "kind": call.resource.kind,
            "apiVersion": call.group_version,
            **self.objects.get(call.resource, call.namespace, call.name),
        }
        version = table_version(call.request.headers.get("accept", ""))
        if version is None:
            return json_reply(document)
        metadata = document.get("metadata")
        told = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        return self._table(call, version, [document], {"resourceVersion": told or ""})

    def _list(self, call: Call) -> Reply:
        query = call.request.query
        limit = _number(query.get("limit", ""))
        wanted = self._wanted(call)
        start, until = 0, None
        with self.objects.changed:
            version = self.objects.version
            if query.get("continue"):
                start, began = _position(query["continue"])
                until, version = (began if began != version else None), began
            objects = self.objects.list_of(call.resource.name)
            page = objects.page(namespace=call.target.namespace, start=start, limit=limit, until=until, wanted=wanted)
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if page.position is not None:
            metadata["continue"] = _token(page.position, version)
        if page.left is not None:
            metadata["remainingItemCount"] = page.left
        head = {"kind": f"{call.resource.kind}List", "apiVersion": call.group_version, "metadata": metadata}
        table_of = table_version(call.request.headers.get("accept", ""))
        if table_of is not None:
            typed = {"kind": call.resource.kind, "apiVersion": call.group_version}
            return self._table(call, table_of, [{**typed, **decoded(raw)} for raw in page.items], metadata)
        opening = msgspec.json.encode(head)[:-1] + b',"items":['
        return Reply(200, (opening, b",".join(page.items), b"]}\n"))

    def _watch(self, call: Call) -> Reply:
        watch = watch_of(call.request.query, call.resource.name, call.target.namespace)
        version = table_version(call.request.headers.get("accept", ""))
        typed = {"kind": call.resource.kind, "apiVersion": call.group_version}
        include = call.request.query.get("includeObject", "")

        def shape(document: dict[str, Any]) -> Any:  # noqa: ANN401  an object or a Table of one
            whole = {**typed, **document}
            if version is None:
                return whole
            return table(call.resource.name, [whole], now=self.now, version=version, include=include)

        events = watched(self.objects, watch, wanted=self._wanted(call), shape=shape, stopped=self._closed.is_set)
        return Reply(200, content_type=JSON if version is None else content_type(version), stream=events)

    def _table(self, call: Call, version: str, documents: list[dict[str, Any]], metadata: dict[str, Any]) -> Reply:
        include = call.request.query.get("includeObject", "")
        if include not in INCLUDES:
            raise bad_request(f'unrecognized includeObject value: "{include}"')
        document = table(
            call.resource.name, documents, now=self.now, version=version, include=include, metadata=metadata
        )
        return Reply(200, (msgspec.json.encode(document), b"\n"), content_type(version))

    def _wanted(self, call: Call) -> Callable[[Stored], bool] | None:
        """Return the filter of the request's selectors, None if it has none."""
        labels = call.request.query.get("labelSelector", "")
        fields = call.request.query.get("fieldSelector", "")
        try:
            by_label = parse_label_selector(labels) if labels.strip() else None
            by_field = parse_field_selector(fields, kind=call.resource.name) if fields.strip() else None
        except SelectorError as error:
            raise bad_request(str(error)) from error
        if by_label is None and by_field is None:
            return None

        needles = needles_of(by_field)

        def wanted(stored: Stored) -> bool:
            if by_label is not None and not by_label.matches(stored.meta.labels or {}):
                return False
            if by_field is None:
                return True
            return all(one in stored.raw for one in needles) and by_field.matches(decoded(stored.raw))

        return wanted

    # --- what may be done ----------------------------------------------------------------------

    def _review(self, call: Call) -> Reply:
        document = body_of(call.request.body)
        typed = {"kind": call.resource.kind, "apiVersion": call.group_version, **document}
        match call.resource.plural:
            case "selfsubjectaccessreviews":
                return json_reply(access_review(typed, self._permits), 201)
            case "selfsubjectrulesreviews":
                kinds = [kind for group in self.served.groups() for kind in self.served.kinds(group)]
                return json_reply(rules_review(typed, kinds, self._permits), 201)
            case "selfsubjectreviews":
                user = {"username": "simulated", "groups": ["system:authenticated"]}
                return json_reply({**typed, "status": {"userInfo": user}}, 201)
            case _:
                raise method_not_allowed()

    def _permits(self, attempt: Attempt) -> bool:
        plural, _, group = attempt.kind.partition(".")
        resource = f"{plural}/{attempt.subresource}" if attempt.subresource else plural
        place = f"namespaces/{attempt.namespace}/" if attempt.namespace else ""
        path = f"/apis/{group}/v1/{place}{plural}" if group else f"/api/v1/{place}{plural}"
        if self._forbids(Asking("GET", path, "", attempt.verb, group, resource, attempt.namespace or None)):
            return False
        if attempt.verb not in {"get", "list", "watch"} or attempt.namespace in self._own_namespaces:
            return True
        refusal = None if attempt.subresource else self.playback.refusal(attempt.kind)
        return refusal is None or refusal.reason != "Forbidden"

    # --- changing ------------------------------------------------------------------------------

    def _write(self, call: Call) -> Reply:
        if call.resource.group in {"authentication.k8s.io", "authorization.k8s.io"} and call.request.method == "POST":
            return self._review(call)
        names: list[str] = []
        if call.request.method == "DELETE" and not call.name:
            objects = self.objects.list_of(call.resource.name)
            page = objects.page(namespace=call.target.namespace, wanted=self._wanted(call))
            names = [name_of(raw) for raw in page.items]
        if call.request.method == "POST" and call.resource.namespaced:
            self._check_namespace(call)
        reply = self.writes.answer(call, names)
        if call.resource.name == "namespaces" and call.request.method == "POST" and not call.is_dry:
            self._own_namespaces.add(name_of(reply.body))
        return reply

    def _check_namespace(self, call: Call) -> None:
        """Refuse to create something in a namespace that is not there, where that is known, or that is being deleted.

        Source: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go.
        """
        self._try_to_load("namespaces")
        namespace = call.namespace or ""
        stored = self.objects.list_of("namespaces").get(None, namespace)
        if stored is None:
            if namespace in self._own_namespaces or self.playback.refusal("namespaces") is None:
                raise no_such_object("namespaces", "", namespace)
        elif text(decoded(stored.raw), "status.phase") == "Terminating":
            because = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise RefusedError(403, "Forbidden", f"{call.resource.name} is forbidden: {because}")


def needles_of(selector: FieldSelector | None) -> tuple[bytes, ...]:
    """Return what stands in the JSON of every object that a selector selects: those without it need no decoding."""
    terms = selector.terms if selector is not None else ()
    return tuple(f'"{one.value}"'.encode() for one in terms if one.equal and _PLAIN.fullmatch(one.value))


def _number(text: str) -> int:
    try:
        return max(0, int(text)) if text else 0
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _token(position: int, version: int) -> str:
    """Return a `continue` token: opaque to clients, as upstream's."""
    return base64.urlsafe_b64encode(f"{version}:{position}".encode()).decode("ascii").rstrip("=")


def _position(token: str) -> tuple[int, int]:
    """Return the position and the version that a `continue` token carries.

    Raises:
        RefusedError: 400, it is none of ours.
    """
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode("ascii")
        version, _, position = text.partition(":")
        if version.isdigit() and position.isdigit():
            return int(position), int(version)
    except ValueError:
        pass  # told below
    raise bad_request(f"continue key is not valid: '{token:.80}'")

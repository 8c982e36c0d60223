"""What an embedded cluster does wrong on demand: which fault, on which requests, after how many, how often.

docs/faults.md shows each with what comes of it. Written `KIND[=VALUE][:WHERE][+AFTER][*TIMES]`, as in
`reset-in-body:pods*2` or `429=5:nodes+1*1`. Source of the servers' words: k8s.io/apimachinery/pkg/api/errors/errors.go,
k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go, k8s.io/apiserver/pkg/endpoints/handlers/responsewriters.
"""

import difflib
import enum
import re
import threading
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from kube_gpucheck.errors import UsageError
from kube_gpucheck.simulate.answers import TEXT, RefusedError, Reply, expired, qualified
from kube_gpucheck.simulate.routes import Asking


class FaultKind(enum.Enum):
    """What goes wrong."""

    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    EXPIRED = "410"
    """Only requests with a `continue` token are refused so."""
    TOO_MANY = "429"
    """The value is Retry-After, in seconds."""
    INTERNAL = "500"
    BAD_GATEWAY = "502"
    """As a proxy in front of the server says it: HTML, no Status."""
    UNAVAILABLE = "503"
    """The value is Retry-After."""
    TIMEOUT = "504"
    RESET = "reset"
    """The connection is reset before a byte of the answer."""
    RESET_IN_BODY = "reset-in-body"
    """The connection is reset in the middle of the body."""
    SLOW = "slow"
    """The body takes as many seconds as the value says."""
    STALL = "stall"
    """Half of the body comes, and nothing for as many seconds as the value says; then the connection ends."""
    TRUNCATED = "truncated"
    """The body is half of the JSON, and the head says that this is all."""
    HTML = "html"
    """A page for a browser, with status 200: what a proxy that wants a login answers."""
    HUGE = "huge"
    """The first object is padded to as many MB as the value says."""
    VANISH = "vanish"
    """The API group that `where` names is served no more."""


_DEFAULTS: Final = {
    FaultKind.TOO_MANY: "1",
    FaultKind.SLOW: "1",
    FaultKind.STALL: "3600",
    FaultKind.HUGE: "20",
}
_SECONDS: Final = frozenset({FaultKind.SLOW, FaultKind.STALL, FaultKind.HUGE})
_RETRY_AFTER: Final = frozenset({FaultKind.TOO_MANY, FaultKind.UNAVAILABLE})
_VALUED: Final = _SECONDS | _RETRY_AFTER
_SUBRESOURCES: Final = ("log", "proxy", "status")
_WHOLE: Final = re.compile(r"\d{1,6}", re.ASCII)
_TEXT: Final = re.compile(
    r"(?P<kind>[a-z0-9-]+)(?:=(?P<value>[^:]*?))?(?::(?P<where>.*?))?(?:\+(?P<after>\d{1,9}))?(?:\*(?P<times>\d{1,9}))?"
)
_WHERE: Final = re.compile(r"[a-z][a-z0-9.-]*(?:/[a-z]+)?(?:@[a-z0-9.-]+)?|@[a-z0-9.-]+")
_NUMBER: Final = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)
_PAGE: Final = b"<html><head><title>%b</title></head><body><h1>%b</h1></body></html>\n"
_MB: Final = 1_000_000


class Fault(msgspec.Struct, frozen=True):
    """One fault.

    `where`: `pods`, `daemonsets.apps`, `pods/log`, each also `…@<namespace>`; `@<namespace>`; what begins
    with `/` is a regular expression that is looked for in path and query; "" is every request. For `vanish`
    it is the group. The first `after` requests that match go through; then `times` of them meet the fault,
    or all (None). `value`: see the kinds.
    """

    kind: FaultKind
    where: str = ""
    times: int | None = None
    after: int = 0
    value: str = ""

    @property
    def amount(self) -> float:
        """The value as a number: seconds, or MB."""
        return float(self.value or _DEFAULTS.get(self.kind, "0"))

    def hits(self, asking: Asking) -> bool:
        """Tell whether a request is one of those that it is about."""
        if self.kind is FaultKind.EXPIRED and "continue=" not in asking.query:
            return False
        if not self.where or self.kind is FaultKind.VANISH:
            return True
        if self.where.startswith("/"):
            return re.search(self.where, f"{asking.path}?{asking.query}") is not None
        kind, at, namespace = self.where.partition("@")
        if at and asking.namespace != namespace:
            return False
        plural, slash, subresource = asking.resource.partition("/")
        return not kind or kind == qualified(plural, asking.group) + slash + subresource

    def reply(self, asking: Asking) -> Reply | None:
        """Return what the server answers instead; None where the fault is in how an answer is sent."""
        retry = self.value or _DEFAULTS.get(self.kind, "")
        match self.kind:
            case FaultKind.UNAUTHORIZED:
                return RefusedError(401, "Unauthorized", "Unauthorized").reply()
            case FaultKind.FORBIDDEN:
                return RefusedError(403, "Forbidden", forbidden(asking)).reply()
            case FaultKind.EXPIRED:
                return expired().reply()
            case FaultKind.TOO_MANY:
                words = b"Too many requests, please try again later.\n"
                return Reply(429, (words,), TEXT, {"Retry-After": retry})
            case FaultKind.INTERNAL:
                words_of_etcd = "Internal error occurred: etcdserver: leader changed"
                return RefusedError(500, "InternalError", words_of_etcd).reply()
            case FaultKind.BAD_GATEWAY:
                return Reply(502, (_PAGE % (b"502 Bad Gateway", b"502 Bad Gateway"),), "text/html")
            case FaultKind.UNAVAILABLE:
                message = "the server is currently unable to handle the request"
                reply = RefusedError(503, "ServiceUnavailable", message).reply()
                return msgspec.structs.replace(reply, headers={"Retry-After": retry}) if retry else reply
            case FaultKind.TIMEOUT:
                message = "Timeout: request did not complete within the allotted timeout"
                return RefusedError(504, "Timeout", message).reply()
            case FaultKind.HTML:
                return Reply(200, (_PAGE % (b"Sign in", b"Sign in"),), "text/html")
            case _:
                return None

    def changed(self, reply: Reply) -> Reply:
        """Return an answer as this fault leaves it."""
        body = reply.body
        match self.kind:
            case FaultKind.TRUNCATED:
                return msgspec.structs.replace(reply, parts=(body[: len(body) // 2],))
            case FaultKind.HUGE:
                return msgspec.structs.replace(reply, parts=(_padded(body, int(self.amount * _MB)),))
            case _:
                return reply


def parse_fault(text: str) -> Fault:
    """Return the fault that a text names.

    Raises:
        UsageError: it names none.
    """
    match = _TEXT.fullmatch(text)
    kinds = ", ".join(kind.value for kind in FaultKind)
    if match is None:
        raise UsageError(f"fault '{text}': expected KIND[=VALUE][:WHERE][+AFTER][*TIMES] with a KIND of {kinds}")
    try:
        kind = FaultKind(match["kind"])
    except ValueError:
        raise UsageError(f"fault '{text}': there is no '{match['kind']}', expected one of {kinds}") from None
    where, value = match["where"] or "", match["value"] or ""
    if value and kind not in _VALUED:
        raise UsageError(f"fault '{text}': '{kind.value}' takes no value, leave out '={value}'")
    if value and kind in _SECONDS and not _NUMBER.fullmatch(value):
        unit = "MB" if kind is FaultKind.HUGE else "seconds"
        raise UsageError(f"fault '{text}': '{value}' is no number of {unit}; write it as in '{kind.value}=2.5'")
    if value and kind in _RETRY_AFTER and not _WHOLE.fullmatch(value):
        unit = "whole number of seconds (Retry-After)"
        raise UsageError(f"fault '{text}': '{value}' is no {unit}; write it as in '{kind.value}=5'")
    if kind is FaultKind.VANISH and not where:
        raise UsageError(f"fault '{text}': which API group vanishes? write it as in 'vanish:nvidia.com+3'")
    _check_where(text, where)
    times = None if match["times"] is None else int(match["times"])
    return Fault(kind, where, times, int(match["after"] or 0), value)


def _check_where(text: str, where: str) -> None:
    if where.startswith("/"):
        try:
            re.compile(where)
        except re.error as error:
            raise UsageError(f"fault '{text}': '{where}' is no regular expression: {error}") from error
    elif where and not _WHERE.fullmatch(where):
        expected = (
            "a kind ('daemonsets.apps', 'pods/log'), 'KIND@NAMESPACE', '@NAMESPACE', or '/' and a regular expression"
        )
        raise UsageError(f"fault '{text}': '{where}' is no place; write {expected}")


def check_places(faults: Sequence[Fault], kinds: Collection[str]) -> None:
    """Refuse a fault that no request can meet. `kinds`: all that are served or known, `daemonsets.apps`.

    Raises:
        UsageError: one names a kind, a subresource or an API group that is not there.
    """
    groups = sorted({one.partition(".")[2] for one in kinds} - {""})
    for fault in faults:
        said = f"fault '{fault.kind.value}:{fault.where}'"
        if fault.kind is FaultKind.VANISH:
            if fault.where not in groups:
                there = _near(fault.where, groups)
                raise UsageError(f"{said}: there is no API group '{fault.where}'; {there}")
            continue
        if fault.where.startswith("/"):
            continue
        kind, _, subresource = fault.where.partition("@")[0].partition("/")
        if kind and kind not in kinds:
            there = _near(kind, sorted(kinds))
            raise UsageError(f"{said}: there is no kind '{kind}'; {there}; 'kubectl api-resources -o name' shows them")
        if subresource and subresource not in _SUBRESOURCES:
            raise UsageError(f"{said}: '{subresource}' is no subresource here; write {', '.join(_SUBRESOURCES)}")


def _near(name: str, names: Sequence[str]) -> str:
    """Return what may have been meant, in words."""
    same = [one for one in names if one.partition(".")[0] == name.partition(".")[0]]
    near = same or difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(repr(one) for one in near)}" if near else "write <plural>[.<group>]"


class Faults:
    """The faults of one cluster, and how often each was met. May be used from several threads."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Begin to count."""
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)
        self._lock = threading.Lock()

    def met(self, asking: Asking) -> tuple[Fault, ...]:
        """Return the faults that a request meets: groups that vanish, and at most one other, the first.

        A request that meets one does not count for those behind it.
        """
        met: list[Fault] = []
        with self._lock:
            for place, fault in enumerate(self._faults):
                if not fault.hits(asking):
                    continue
                count = self._seen[place] - fault.after
                self._seen[place] += 1
                if count >= 0 and (fault.times is None or count < fault.times):
                    met.append(fault)
                    if fault.kind is not FaultKind.VANISH:
                        break
        return tuple(met)

    def forbid(self, asking: Asking) -> bool:
        """Tell whether a fault forbids a request for good, without counting it."""
        return any(
            one.kind is FaultKind.FORBIDDEN and one.times is None and not one.after and one.hits(asking)
            for one in self._faults
        )


def forbidden(asking: Asking) -> str:
    """Return the API server's words for a request that its rules do not allow.

    Source: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go, forbiddenMessage.
    """
    if not asking.verb:
        return f'forbidden: User "simulated" cannot {asking.method.lower()} path "{asking.path}"'
    plural = asking.resource.partition("/")[0]
    named = f' "{asking.name}"' if asking.name else ""
    place = f'in the namespace "{asking.namespace}"' if asking.namespace else "at the cluster scope"
    rule = f'cannot {asking.verb} resource "{asking.resource}" in API group "{asking.group}" {place}'
    return f'{qualified(plural, asking.group)}{named} is forbidden: User "simulated" {rule}'


def _padded(body: bytes, size: int) -> bytes:
    """Return a list whose first object, or an object that, carries an annotation of this many bytes."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        return body
    first = next(iter(document.get("items") or ()), document)
    metadata = first.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), "simulated.example/padding": "x" * size}
    return msgspec.json.encode(document)

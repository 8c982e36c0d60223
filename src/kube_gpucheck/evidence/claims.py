"""Why a pod's ResourceClaims for NVIDIA's devices are not allocated: the scheduler's side of them.

Evaluated: classes, the simple selectors of `evidence.selectors`, taints of devices, what others hold, and the pod's own
rules for nodes. Claims for the same kind of device are counted together. Not evaluated: what `evidence.dra` names, and
claims for different kinds that fit only on different nodes. Source: k8s.io/dynamic-resource-allocation at 1.36.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from kube_gpucheck.evidence.documents import (
    DeviceSelector,
    DraTaint,
    ExactRequest,
    PodDocument,
    PodResourceClaim,
    ResourceClaimDocument,
    ResourceClaimSpec,
    Toleration,
)
from kube_gpucheck.evidence.dra import GPU_DRIVER, Device, Dra
from kube_gpucheck.evidence.readings import attempt, need
from kube_gpucheck.evidence.scheduling import reject
from kube_gpucheck.evidence.selectors import matches, texts
from kube_gpucheck.model import Reading

if TYPE_CHECKING:
    from kube_gpucheck.evidence.cluster import Cluster
    from kube_gpucheck.evidence.pod import Pod

_SHOWN: Final = 5


class Lack(enum.Enum):
    """What keeps a claim from being allocated."""

    CLAIM = "there is no such claim"
    CLASS = "there is no such class"
    DEVICE = "no device is published"
    MATCH = "no device is what is asked for"
    TAINT = "the devices are tainted"
    NUMBER = "no node has so many"
    NODE = "the nodes with the devices are excluded"
    USE = "all are in use"
    UNDECIDED = "it cannot be decided"
    NOTHING = "devices are free"


class Shortage(msgspec.Struct, frozen=True):
    """Why a pod's claims cannot be allocated. `words`: what was seen. `keys`: labels or taints that are meant.

    `holders`: who has what is in use. `by_taint`: a taint or cordon keeps the pod off each node with the devices.
    """

    lack: Lack
    words: str
    keys: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    by_taint: bool = False


class PodClaim(msgspec.Struct, frozen=True):
    """One of a pod's claims. `name`: of the claim or, while there is none, of the template.

    `spec`: what it asks for, None where neither claim nor template is there. `problem`: why there is no claim.
    """

    name: str
    spec: ResourceClaimSpec | None
    document: ResourceClaimDocument | None
    problem: str = ""

    @property
    def is_allocated(self) -> bool:
        """Whether it was given its devices."""
        return self.document is not None and self.document.status.allocation is not None


def claims_devices(pod: "Pod") -> Reading[bool]:
    """Return whether a pod that lives claims devices of NVIDIA's."""

    def derive() -> bool:
        outline = need(pod.outline)
        if not outline.names_claims or need(pod.is_finished) or need(pod.is_leaving):
            return False
        return bool(need(claims_of(pod)))

    return attempt(derive)


def claims_of(pod: "Pod") -> Reading[tuple[PodClaim, ...]]:
    """Return a pod's claims for NVIDIA's devices, in its order; those of which nothing tells whose they are as well."""

    def derive() -> tuple[PodClaim, ...]:
        document = need(pod.object)
        found = (_claim(pod.cluster.dra, document, pod.namespace, one) for one in document.spec.resource_claims or ())
        return tuple(one for one in found if one is not None and _concerns(pod.cluster.dra, one))

    return attempt(derive)


def _claim(dra: Dra, document: PodDocument, namespace: str, one: PodResourceClaim) -> PodClaim | None:
    name = one.resource_claim_name
    template = None
    if name is None:
        template = one.resource_claim_template_name or ""
        made = [status for status in document.status.resource_claim_statuses or () if status.name == one.name]
        if made and made[0].resource_claim_name is None:
            return None
        name = made[0].resource_claim_name if made else None
    if name is not None:
        claim = need(dra.claims).get((namespace, name))
        problem = "" if claim is not None else f"there is no ResourceClaim {namespace}/{name}"
        return PodClaim(f"{namespace}/{name}", claim.spec if claim is not None else None, claim, problem)
    found = need(dra.templates).get((namespace, template or ""))
    if found is None:
        problem = f"there is no ResourceClaimTemplate {namespace}/{template}"
        return PodClaim(f"{namespace}/{template}", None, None, problem)
    problem = f"no claim has been made from the ResourceClaimTemplate {namespace}/{template} yet"
    return PodClaim(f"{namespace}/{template}", found.spec.spec, None, problem)


def _concerns(dra: Dra, claim: PodClaim) -> bool:
    if claim.spec is None:
        return bool(need(dra.plugins)) or bool(need(dra.slices))
    return any(dra.concerns(one) for request in claim.spec.devices.requests or () for one in request.alternatives)


class _Want(msgspec.Struct, frozen=True):
    """What is asked for alike, and how many of it; `count` is None for all of a node's."""

    class_name: str
    selectors: tuple[DeviceSelector, ...]
    tolerations: tuple[Toleration, ...]
    is_admin: bool
    count: int | None

    def __str__(self) -> str:
        """Return it in a reader's words."""
        expressions = texts(self.selectors)
        number = "all devices" if self.count is None else f"{self.count} device{'' if self.count == 1 else 's'}"
        where = f" where {' and '.join(expressions)}" if expressions else ""
        return f"{number} of class '{self.class_name}'{where}"


def shortage(pod: "Pod") -> Reading[Shortage | None]:
    """Return why the claims of a pod are not all allocated, None if they are."""

    def derive() -> Shortage | None:
        waiting = [one for one in need(claims_of(pod)) if not one.is_allocated]
        if not waiting:
            return None
        for claim in waiting:
            if claim.spec is None:
                return Shortage(Lack.CLAIM, claim.problem)
        answers = [_of_alternatives(pod, wants) for wants in _wants(waiting)]
        worst = next((one for one in answers if one.lack is not Lack.NOTHING), answers[0])
        made = next((one.problem for one in waiting if one.problem), "")
        if worst.lack is Lack.NOTHING and made:
            return Shortage(Lack.CLAIM, made)
        return worst

    return attempt(derive)


def _wants(claims: Iterable[PodClaim]) -> list[tuple[_Want, ...]]:
    """Return what the claims ask for, each with what would do instead; what is asked for alike is counted together."""
    found: list[tuple[_Want, ...]] = []
    together: dict[_Want, int] = defaultdict(int)
    for claim in claims:
        for request in claim.spec.devices.requests or () if claim.spec is not None else ():
            wants = tuple(_want(one) for one in request.alternatives)
            if len(wants) > 1 or wants[0].count is None:
                found.append(wants)
            else:
                together[msgspec.structs.replace(wants[0], count=0)] += wants[0].count
    return [*found, *((msgspec.structs.replace(want, count=number),) for want, number in together.items())]


def _want(request: ExactRequest) -> _Want:
    return _Want(
        request.device_class_name,
        request.selectors or (),
        request.tolerations or (),
        request.admin_access,
        None if request.allocation_mode == "All" else max(request.count, 1),
    )


def _of_alternatives(pod: "Pod", wants: tuple[_Want, ...]) -> Shortage:
    answers = [_answer(pod, one) for one in wants]
    order = {Lack.NOTHING: 0, Lack.UNDECIDED: 1, Lack.USE: 2}
    return min(answers, key=lambda one: order.get(one.lack, 3))


def _answer(pod: "Pod", want: _Want) -> Shortage:
    """Return what one want lacks; pods that ask alike and select nodes alike are answered once."""
    spec = need(pod.object).spec
    rules = (spec.node_name, spec.node_selector, spec.affinity, spec.tolerations)
    key = msgspec.json.encode((want, rules))
    memory = pod.cluster.dra.memory
    if key not in memory:
        memory[key] = attempt(lambda: _look(pod, want))
    answer: Shortage = need(memory[key])
    return answer


def _look(pod: "Pod", want: _Want) -> Shortage:
    dra = pod.cluster.dra
    found = need(dra.classes).get(want.class_name)
    if found is None:
        return Shortage(Lack.CLASS, f"the claim asks for {want}; {_classes(dra)}", (want.class_name,))
    selectors = (*(found.spec.selectors or ()), *want.selectors)
    devices = need(dra.devices)
    if not devices:
        return Shortage(Lack.DEVICE, f"the claim asks for {want}; {_nothing_published(dra)}")
    judged = ((one, matches(selectors, one.driver, one.body)) for one in devices)
    fitting = [(one, held) for one, held in judged if held is not False]
    if not fitting:
        of_class = [one for one in devices if matches(found.spec.selectors or (), one.driver, one.body) is not False]
        if not of_class:
            why = f"no device that is published is of that class; there are {_listed(map(str, devices))}"
            return Shortage(Lack.DEVICE, f"the claim asks for {want}; {why}")
        described = _listed(_described(one) for one in of_class)
        return Shortage(Lack.MATCH, f"the claim asks for {want}; there are {described}")
    clean = [(one, held) for one, held in fitting if not one.repels(want.tolerations)]
    if not clean:
        tainted = _listed(f"{one}: {', '.join(map(_taint, one.repels(want.tolerations)))}" for one, _ in fitting)
        keys = tuple(dict.fromkeys(one.key for device, _ in fitting for one in device.repels(want.tolerations)))
        return Shortage(Lack.TAINT, f"the claim asks for {want}; the devices that fit are tainted: {tainted}", keys)
    return _placed(pod, want, clean)


def _placed(pod: "Pod", want: _Want, devices: Sequence[tuple[Device, bool | None]]) -> Shortage:
    """Return what is lacking where devices fit: a node with enough of them, the leave to run there, or their use."""
    by_node: dict[str, list[tuple[Device, bool | None]]] = defaultdict(list)
    for device, held in devices:
        by_node[device.node or ""].append((device, held))
    asked = f"the claim asks for {want}"
    enough = {name: mine for name, mine in by_node.items() if len(mine) >= (want.count or 1)}
    if not enough:
        most = _listed(f"{len(mine)} on {name or 'no node'}" for name, mine in by_node.items())
        return Shortage(Lack.NUMBER, f"{asked}; there are {most}")
    allowed: list[str] = []
    refusals: list[str] = []
    keys: list[str] = []
    by_taint = True
    nodes = need(pod.cluster.nodes_by_name)
    spec = need(pod.object).spec
    for name in sorted(enough):
        why = reject(spec, nodes[name], tolerations=spec.tolerations or ()) if name in nodes else None
        if why is None:
            allowed.append(name)
        else:
            refusals.append(f"on {name} {why}")
            keys.extend(why.keys)
            by_taint = by_taint and not why.is_by_label
    if not allowed:
        return Shortage(Lack.NODE, f"{asked}; {_listed(refusals)}", tuple(dict.fromkeys(keys)), by_taint=by_taint)
    taken = {} if want.is_admin else need(pod.cluster.dra.taken)
    undecided: list[str] = []
    busy: list[str] = []
    holders: list[str] = []
    for name in allowed:
        mine = enough[name]
        users = {one.key: taken[one.key] for one, _ in mine if one.key in taken}
        sure = sum(one.key not in users and fits is True and not one.is_divided for one, fits in mine)
        perhaps = sum(one.key not in users or one.body.allow_multiple_allocations for one, _ in mine)
        needed = len(mine) if want.count is None else want.count
        if sure >= needed:
            return Shortage(Lack.NOTHING, f"{asked}; {name} has {sure} free")
        if perhaps >= needed:
            undecided.append(name)
        busy.append(f"{name} has {perhaps} of {len(mine)} free")
        holders.extend(str(one) for one in dict.fromkeys(users.values()))
    if undecided:
        words = f"{asked}; whether {_listed(undecided)} can serve it is for the scheduler to say"
        return Shortage(Lack.UNDECIDED, words)
    return Shortage(Lack.USE, f"{asked}; {_listed(busy)}", holders=tuple(dict.fromkeys(holders)))


def _taint(one: DraTaint) -> str:
    return f"{one.key}{'=' + one.value if one.value else ''}:{one.effect}"


def _described(device: Device) -> str:
    told = (f"{name}={value}" for name in ("type", "productName", "profile") if (value := device.text(name)))
    return f"{device} ({', '.join(told)})"


def _classes(dra: Dra) -> str:
    names = sorted(need(dra.classes))
    there = f"the cluster has {_listed(repr(name) for name in names)}" if names else "the cluster has no DeviceClass"
    halves = need(dra.halves)
    if halves and GPU_DRIVER not in halves:
        return f"{there}, and the DRA driver is installed without its half for GPUs"
    return there


def _nothing_published(dra: Dra) -> str:
    slices = need(dra.slices)
    if not slices:
        return "no ResourceSlice of an NVIDIA driver is there"
    empty = _listed(f"{one.spec.driver} on {one.spec.node_name or one.spec.pool.name}" for one in slices)
    return f"the ResourceSlices list no device: {empty}"


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def pods_that_claim(cluster: "Cluster") -> Reading[tuple["Pod", ...]]:
    """Return the living pods that claim NVIDIA's devices, in order of namespace and name."""
    return attempt(lambda: tuple(_claiming(cluster)))


def _claiming(cluster: "Cluster") -> "Iterator[Pod]":
    for pod in need(cluster.readable_pods):
        if need(pod.outline).names_claims and need(claims_devices(pod)):
            yield pod

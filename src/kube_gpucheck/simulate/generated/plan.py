"""Decides what each node of a generated cluster is, from a seed; writes nothing.

Every decision is a hash of the seed and of what it is about, so that any node can be asked for alone,
in any order, and gives the same answer.
"""

import datetime
import functools
import hashlib
import random
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final

import msgspec
import yaml

from kube_gpucheck.errors import ScenarioError

STACK_PODS: Final = 6
"""Pods of every GPU node that are no workload: network, proxy, NFD, GFD, device plugin, exporter."""
MAX_NODES: Final = 20_000
MAX_GPUS_PER_NODE: Final = 16
MAX_PODS_PER_NODE: Final = 250
"""The kubelet's own default is 110 (`maxPods`)."""
_NODES_OF_A_TEAM: Final = 250
_SUFFIX_LETTERS: Final = "2456789bcdfghjklmnpqrstvwxz"
"""In ASCII order, so that names sort as their nodes do; letters of k8s.io/apimachinery/pkg/util/rand."""
_SUFFIX_LENGTH: Final = 5


class Product(msgspec.Struct, frozen=True):
    """An instance type: its GPUs as GFD labels them (memory in MiB), and its host. `share` weighs its number."""

    instance: str
    product: str
    memory: int
    family: str
    compute: str
    mig: bool
    machine: str
    cpu: str
    cores: int
    ram_gib: int
    share: int


class Processor(msgspec.Struct, frozen=True):
    """What NFD says of a processor."""

    vendor: str
    family: str
    id: str
    cpuid: tuple[str, ...]
    more: Mapping[str, str]


class Workload(msgspec.Struct, frozen=True):
    """What a workload's container runs."""

    image: str
    tag: str
    command: tuple[str, ...]


class Machines(msgspec.Struct, frozen=True):
    """`machines.yaml`."""

    kubernetes: str
    engine: str
    kernel: str
    os_image: str
    driver: str
    cuda: str
    products: tuple[Product, ...]
    without_gpu: Product
    cpus: Mapping[str, Processor]
    labels: Mapping[str, str]
    labels_with_gpu: Mapping[str, str]
    modules: tuple[str, ...]
    images: tuple[tuple[str, str, int], ...]
    tells_handlers: bool
    workloads: Mapping[str, Workload]


class DaemonSetRecipe(msgspec.Struct, frozen=True):
    """A DaemonSet's manifest, and the nodes that its selector admits: `gpu` or `all`."""

    nodes: str
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def tolerations(self) -> tuple[Mapping[str, Any], ...]:
        """What its template tolerates."""
        return tuple(self.manifest["spec"]["template"]["spec"]["tolerations"])


class Stack(msgspec.Struct, frozen=True):
    """`stack.yaml`."""

    daemonsets: tuple[DaemonSetRecipe, ...]
    static: Mapping[str, Any]
    deployments: tuple[Mapping[str, Any], ...]
    services: tuple[Mapping[str, Any], ...]
    configmaps: tuple[Mapping[str, Any], ...]
    runtimeclasses: tuple[Mapping[str, Any], ...]
    groups: Mapping[str, tuple[str, ...]]


@functools.cache
def machines() -> Machines:
    """Return what nodes are made of."""
    return msgspec.convert(_document("machines.yaml"), Machines)


@functools.cache
def stack() -> Stack:
    """Return the workloads that every generated cluster runs."""
    return msgspec.convert(_document("stack.yaml"), Stack)


def text(name: str) -> str:
    """Return a log's text from the folder of this module."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _document(name: str) -> object:
    return yaml.safe_load(text(name))


class GeneratedCluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to generate; equal values give equal bundles, byte for byte.

    `nodes` counts those without a GPU (`cpu_nodes`; one in a hundred where it is `None`).
    `pods_per_node` counts the network's and the stack's own pods. `broken`: kinds of
    `faults.FAULTS` with the share of the GPU nodes that each befalls, at least one node. `logs`: of how many
    healthy nodes logs are written, of all where it is `None`; a broken node's always are. `host`: the bundle or
    scenario with one node, whose reads every GPU node is to have: its GPUs, its system and its clock, too.
    """

    nodes: int
    gpus_per_node: int = 8
    pods_per_node: int = 8
    seed: int = 1
    broken: Mapping[str, float] = {}
    cpu_nodes: int | None = None
    logs: int | None = None
    host: str = ""
    at: datetime.datetime = datetime.datetime(2026, 11, 24, 6, 0, tzinfo=datetime.timezone.utc)

    @property
    def without_gpu(self) -> int:
        """How many nodes have no GPU."""
        return self.nodes // 100 if self.cpu_nodes is None else self.cpu_nodes

    def check(self, known: frozenset[str]) -> None:
        """Refuse what no cluster can be.

        Raises:
            ScenarioError: a number is out of its range, a kind is not known, or more nodes would be broken than are.
        """
        for name, value, least, most in (
            ("nodes", self.nodes, 1, MAX_NODES),
            ("gpus_per_node", self.gpus_per_node, 1, MAX_GPUS_PER_NODE),
            ("pods_per_node", self.pods_per_node, STACK_PODS, MAX_PODS_PER_NODE),
            ("cpu_nodes", self.without_gpu, 0, self.nodes - 1),
            ("logs", self.logs or 0, 0, MAX_NODES),
        ):
            if not least <= value <= most:
                msg = f"generate: {name} is {value:,}, expected {least:,} to {most:,}"
                raise ScenarioError(msg)
        for kind, share in self.broken.items():
            if kind not in known:
                msg = f"generate: nothing is broken as '{kind}'; expected one of {', '.join(sorted(known))}"
                raise ScenarioError(msg)
            if not 0 < share <= 1:
                msg = f"generate: broken {kind} is {share}, expected a share of the GPU nodes above 0, at most 1"
                raise ScenarioError(msg)
        asked = sum(self._count(share) for share in self.broken.values())
        if asked > self.nodes - self.without_gpu:
            msg = (
                f"generate: {asked:,} nodes are to be broken, and {self.nodes - self.without_gpu:,} have a GPU; "
                "ask for smaller shares"
            )
            raise ScenarioError(msg)

    def _count(self, share: float) -> int:
        return max(1, round(share * (self.nodes - self.without_gpu)))

    def broken_nodes(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the nodes that each kind befalls, in order; no node is broken twice."""
        places = list(range(self.without_gpu, self.nodes))
        random.Random(self.seed).shuffle(places)  # noqa: S311  a cluster, no secret
        found: dict[str, tuple[str, ...]] = {}
        for kind in sorted(self.broken):
            count = self._count(self.broken[kind])
            found[kind] = tuple(self.name(place) for place in sorted(places[:count]))
            del places[:count]
        return found

    def name(self, place: int) -> str:
        """Return a node's name; nodes without a GPU come first, and names sort as places do."""
        if place < self.without_gpu:
            return f"cpu-{place:05d}"
        return f"gpu-{place - self.without_gpu:05d}"


class NodePlan(msgspec.Struct, frozen=True):
    """What one node is. `gpus`: how many it has; `kind`: how it is broken, None if it is healthy."""

    cluster: GeneratedCluster
    place: int
    name: str
    product: Product
    gpus: int
    kind: str | None
    machines: Machines

    def uid(self, *words: object) -> str:
        """Return a UUID of what the words name on this node."""
        return uid(self.cluster.seed, self.name, *words)

    def number(self, below: int, *words: object) -> int:
        """Return a number of what the words name, from 0 to below the bound."""
        return number(below, self.cluster.seed, self.name, *words)

    def suffix(self, *words: object) -> str:
        """Return the letters at the end of a pod's name; they sort as the nodes do."""
        room = int(len(_SUFFIX_LETTERS) ** _SUFFIX_LENGTH) // self.cluster.nodes
        rest = self.place * room + self.number(room, "suffix", *words)
        letters = []
        for _ in range(_SUFFIX_LENGTH):
            rest, letter = divmod(rest, len(_SUFFIX_LETTERS))
            letters.append(_SUFFIX_LETTERS[letter])
        return "".join(reversed(letters))

    @property
    def team(self) -> str:
        """The namespace that its workloads belong to."""
        return f"team-{self.place // _NODES_OF_A_TEAM:02d}"

    @property
    def address(self) -> str:
        """Its address."""
        return f"10.{16 + self.place // 62500}.{self.place // 250 % 250}.{self.place % 250 + 1}"

    def pod_address(self, slot: int) -> str:
        """Return the address of one of its pods; each node has a /24."""
        return f"10.{42 + self.place // 250}.{self.place % 250}.{slot + 2}"

    @property
    def created(self) -> datetime.datetime:
        """When it joined: within the forty days before the last two."""
        return self.cluster.at - datetime.timedelta(days=2, seconds=self.number(40 * 86400, "created"))

    @property
    def held(self) -> tuple[int, ...]:
        """How many GPUs each of its GPU workloads holds, the first one's first."""
        slots = self.cluster.pods_per_node - STACK_PODS
        if not self.gpus or not slots or self.kind is not None:
            return ()
        share = self.number(10, "held")
        if share < 5:  # noqa: PLR2004  half of the nodes train on all GPUs
            return (self.gpus,)
        if share < 8 and slots > 1 and self.gpus > 1:  # noqa: PLR2004
            return (self.gpus // 2, self.gpus - self.gpus // 2)
        return (1,) * min(slots, self.gpus, share - 7) if share > 7 else ()  # noqa: PLR2004


class Plans:
    """The nodes' plans of one cluster."""

    def __init__(self, cluster: GeneratedCluster, made_of: Machines | None = None) -> None:
        """Draw the broken nodes; `made_of` stands in for what nodes usually are."""
        self.cluster = cluster
        self.machines = made_of or machines()
        self._kind = {name: kind for kind, names in cluster.broken_nodes().items() for name in names}
        self._wheel = tuple(product for product in self.machines.products for _ in range(product.share))

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return self.cluster.nodes

    def __iter__(self) -> Iterator[NodePlan]:
        """Yield each node's plan, in order."""
        return (self[place] for place in range(self.cluster.nodes))

    def __getitem__(self, place: int) -> NodePlan:
        """Return one node's plan."""
        name = self.cluster.name(place)
        if place < self.cluster.without_gpu:
            return NodePlan(self.cluster, place, name, self.machines.without_gpu, 0, None, self.machines)
        product = self._wheel[number(len(self._wheel), self.cluster.seed, name, "product")]
        kind = self._kind.get(name)
        return NodePlan(self.cluster, place, name, product, self.cluster.gpus_per_node, kind, self.machines)


def uid(*words: object) -> str:
    """Return a UUID (version 4 in form) of what the words name."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"


def number(below: int, *words: object) -> int:
    """Return a number of what the words name, from 0 to below the bound."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest(), "big") % below


def digest(*words: object) -> str:
    """Return a SHA-256 digest of what the words name, as images are named by."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


def stamp(time: datetime.datetime) -> str:
    """Return a time as the API writes it."""
    return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

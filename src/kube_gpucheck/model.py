"""The words that every room shares: readings, subjects, judgements, findings, causes and the run.

Holds no I/O, no clock and no path, and imports no other room. DESIGN.md, "Words", is the source
of each term.
"""

import enum
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JSON_FORMAT: Final = 1
"""The format number of the JSON report."""


class Layer(enum.Enum):
    """One layer of the stack, in the order in which causes are looked for."""

    CLUSTER = "cluster"
    DRIVER = "driver"
    RUNTIME = "runtime"
    RUNTIME_CLASS = "runtimeclass"
    DISCOVERY = "discovery"
    DEVICE_PLUGIN = "deviceplugin"
    SHARING = "sharing"
    DRA = "dra"
    WORKLOAD = "workload"
    TELEMETRY = "telemetry"
    OPERATOR = "operator"

    @property
    def position(self) -> int:
        """Place in the order of layers, 0 for the lowest."""
        return _LAYERS.index(self)


_LAYERS: Final = tuple(Layer)


class Severity(enum.Enum):
    """How much a fault hurts; CHECKS.md defines each word."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    INFO = "info"

    def at_least(self, other: "Severity") -> bool:
        """Tell whether this hurts as much as the other, or more."""
        return _SEVERITIES.index(self) <= _SEVERITIES.index(other)

    @property
    def rank(self) -> int:
        """Place in the order of severities, 0 for the worst."""
        return _SEVERITIES.index(self)


_SEVERITIES: Final = tuple(Severity)


class Outcome(enum.Enum):
    """What one check said of one subject. Only pass is a pass."""

    PASS = "pass"  # noqa: S105  the word of DESIGN.md, no password
    FAULT = "fault"
    UNKNOWN = "unknown"
    NOT_ASKED = "not-asked"
    NOT_APPLICABLE = "not-applicable"
    BROKEN = "broken"


class MissingKind(enum.Enum):
    """Why a fact could not be looked at."""

    NOT_ASKED = "not-asked"
    FORBIDDEN = "forbidden"
    TIMEOUT = "timeout"
    UNPARSABLE = "unparsable"
    ERROR = "error"


class Seen(msgspec.Struct, Generic[T_co], frozen=True):
    """A fact that was looked at. `Seen(None)`: looked, and it is not there."""

    value: T_co


class Missing(msgspec.Struct, frozen=True, gc=False):
    """A fact that could not be looked at.

    `reason` is in the source's words; `source` names the document, log or read;
    `option` the command-line option that would ask for it, `None` if none would.
    """

    kind: MissingKind
    reason: str
    source: str
    option: str | None = None


Reading = Seen[T] | Missing
"""What stands where ignorance can stand: a kind, a host fact, a log, a file."""


class SubjectKind(enum.Enum):
    """What one judgement is about."""

    CLUSTER = "cluster"
    NODE = "node"
    GPU = "gpu"
    DAEMONSET = "daemonset"
    POD = "pod"
    TARGET = "target"


class Subject(msgspec.Struct, frozen=True, gc=False):
    """The name of what was judged.

    `node` is the node that a GPU, pod or target is on, `None` while a pod is not scheduled.
    A GPU's name is its PCI address (`0000:02:00.0`), else its UUID.
    """

    kind: SubjectKind
    name: str
    namespace: str | None = None
    node: str | None = None

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Where it stands in a list: by kind, namespace, name, node."""
        return tuple(SubjectKind).index(self.kind), self.namespace or "", self.name, self.node or ""

    def __str__(self) -> str:
        """Return the subject as a reader would type it."""
        match self.kind:
            case SubjectKind.CLUSTER:
                return "the cluster"
            case SubjectKind.NODE:
                return self.name
            case SubjectKind.GPU:
                return f"{self.node}/{self.name}"
            case SubjectKind.DAEMONSET | SubjectKind.POD | SubjectKind.TARGET:
                return f"{self.namespace}/{self.name}" if self.namespace else self.name


THE_CLUSTER: Final = Subject(SubjectKind.CLUSTER, "cluster")


class CheckInfo(msgspec.Struct, frozen=True):
    """One requirement, as its function declares it.

    `title` is the docstring's first line, `about` the rest of it.
    """

    id: str
    title: str
    layer: Layer
    severity: Severity
    subject: SubjectKind
    after: tuple[str, ...] = ()
    about: str = ""


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """What one check said of one subject.

    `severity` is the effective one. `seen`, `means` and `remedy` are filled for a fault;
    `reason` for unknown, not-asked, not-applicable and broken (there the traceback).
    `option` is the command-line option that would ask for what was not asked, `None` if none would.
    `nodes` are the nodes that a fault of a DaemonSet or of the cluster is about, in the check's order; empty where it
    is about all of them.
    """

    check: str
    subject: Subject
    outcome: Outcome
    severity: Severity
    seen: str = ""
    means: str = ""
    remedy: str = ""
    reason: str = ""
    option: str | None = None
    nodes: tuple[str, ...] = ()


class CheckResult(msgspec.Struct, frozen=True):
    """All judgements of one check. Passes are kept as subjects alone, for they say nothing more."""

    info: CheckInfo
    passed: tuple[Subject, ...] = ()
    others: tuple[Judgement, ...] = ()
    duration_s: float = 0.0

    def count(self, outcome: Outcome) -> int:
        """Return how many subjects had this outcome."""
        if outcome is Outcome.PASS:
            return len(self.passed)
        return [judgement.outcome for judgement in self.others].count(outcome)

    @property
    def faults(self) -> tuple[Judgement, ...]:
        """The judgements that are faults."""
        return tuple(one for one in self.others if one.outcome is Outcome.FAULT)

    @property
    def is_judged(self) -> bool:
        """Tell whether the requirement was decided for at least one subject."""
        return bool(self.passed or self.faults)

    def has_fault(self, *, at_least: Severity) -> bool:
        """Tell whether a fault hurts at least so much."""
        return any(fault.severity.at_least(at_least) for fault in self.faults)

    def outcome(self, *, fail_on: Severity) -> Outcome:
        """Return the one outcome that stands for the whole check, for a line or a JUnit case.

        The first that occurs of: broken, a fault at or above `fail_on`, unknown, a lesser fault,
        pass, not-asked, not-applicable. So pass means that every subject that was looked at passed.
        """
        if self.count(Outcome.BROKEN):
            return Outcome.BROKEN
        if self.has_fault(at_least=fail_on):
            return Outcome.FAULT
        order = (Outcome.UNKNOWN, Outcome.FAULT, Outcome.PASS, Outcome.NOT_ASKED)
        return next((one for one in order if self.count(one)), Outcome.NOT_APPLICABLE)


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A fault or unknown, with its place in the diagnosis.

    `cause` is the id of the diagnosed cause that explains it. `consequence_of` are the checks
    whose faults explain it; `partly` when they do so for only some of the related subjects.
    """

    check: CheckInfo
    judgement: Judgement
    cause: str | None = None
    consequence_of: tuple[str, ...] = ()
    partly: bool = False

    @property
    def is_root(self) -> bool:
        """Tell whether nothing below explains this fault, or explains it only in part."""
        return self.judgement.outcome is Outcome.FAULT and (not self.consequence_of or self.partly)


class DiagnosedCause(msgspec.Struct, frozen=True):
    """One cause that was named, for all its subjects.

    `severity` is that of the worst finding it explains. `seen` are the facts shown under it.
    `signs_for` and `signs_against` say which signs spoke for it, in the reader's words.
    `remedy` is in steps, for the distribution at hand; `then` is the command that proves the cure.
    `gpu_nodes` are those GPU nodes on which it blocks work.
    """

    id: str
    title: str
    layer: Layer
    severity: Severity
    subjects: tuple[Subject, ...]
    explains: tuple[str, ...]
    seen: tuple[str, ...]
    signs_for: tuple[str, ...]
    signs_against: tuple[str, ...]
    remedy: tuple[str, ...]
    then: str
    interrupts: str
    references: tuple[str, ...]
    gpu_nodes: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True):
    """A cause that would explain a finding if something unknown were known. Never the first answer."""

    id: str
    title: str
    subjects: tuple[Subject, ...]
    unknown: tuple[str, ...]


class Diagnosis(msgspec.Struct, frozen=True):
    """The causes, the first to mend first, and every finding with its place among them."""

    causes: tuple[DiagnosedCause, ...]
    candidates: tuple[Candidate, ...]
    findings: tuple[Finding, ...]

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        """Root faults that no cause of the catalogue explains, in order of layer."""
        return tuple(one for one in self.findings if one.is_root and one.cause is None)


class Verdict(enum.Enum):
    """The run's answer; `EXIT_STATUS` gives the exit status beside it."""

    CONFORMS = "conforms"
    FAULTS = "faults"
    ERROR = "error"
    UNKNOWN = "unknown"


EXIT_STATUS: Final[Mapping[Verdict, int]] = {
    Verdict.CONFORMS: 0,
    Verdict.FAULTS: 1,
    Verdict.ERROR: 3,
    Verdict.UNKNOWN: 4,
}
EXIT_USAGE: Final = 2


class MissingEvidence(msgspec.Struct, frozen=True):
    """One piece of evidence that was asked for and could not be had, as the bundle lists it."""

    evidence: str
    kind: MissingKind
    reason: str
    source: str = ""
    node: str | None = None


class GpuNodes(msgspec.Struct, frozen=True):
    """The denominator: how many nodes have a GPU, how many were judged, and why the rest were not."""

    gpu: int
    judged: int
    missing: tuple[tuple[str, str], ...] = ()
    """(node, reason), one entry a node that was not judged, in order of name."""


class RunInfo(msgspec.Struct, frozen=True):
    """Facts of the run. Times are RFC 3339 in UTC. `source` is what the user named or what was found.

    `where` says in a few words what was looked at ("RKE2 v1.24.9+rke2r2", "this host").
    """

    id: str
    started: str
    finished: str
    profile: str
    source: str
    simulated: bool
    where: str
    options: Mapping[str, str]


class Run(msgspec.Struct, frozen=True):
    """Everything that a renderer may show. A renderer works nothing out for itself."""

    tool_version: str
    info: RunInfo
    verdict: Verdict
    exit_code: int
    fail_on: Severity
    first_cause: str | None
    nodes: GpuNodes
    diagnosis: Diagnosis
    results: tuple[CheckResult, ...]
    missing: tuple[MissingEvidence, ...]
    scope: str = ""
    """What the run was narrowed to, in the reader's words; empty where everything was asked for."""
    layers_not_installed: Mapping[Layer, str] = {}
    """Layers in which every check is not-applicable, with the fact that says so."""

    @property
    def causes(self) -> tuple[DiagnosedCause, ...]:
        """The causes at or above `fail_on`, the first to mend first."""
        return tuple(one for one in self.diagnosis.causes if one.severity.at_least(self.fail_on))

    @property
    def lesser_causes(self) -> tuple[DiagnosedCause, ...]:
        """The causes below `fail_on`: shown, never the reason of an exit status."""
        return tuple(one for one in self.diagnosis.causes if not one.severity.at_least(self.fail_on))

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        """Root faults at or above `fail_on` that no cause explains, in order of layer."""
        return tuple(one for one in self.diagnosis.unexplained if one.judgement.severity.at_least(self.fail_on))

    @property
    def lesser_unexplained(self) -> tuple[Finding, ...]:
        """Root faults below `fail_on` that no cause explains, in order of layer."""
        return tuple(one for one in self.diagnosis.unexplained if not one.judgement.severity.at_least(self.fail_on))

    @property
    def worst(self) -> Severity | None:
        """Severity of the worst fault, `None` without a fault."""
        severities = (fault.severity for result in self.results for fault in result.faults)
        return min(severities, key=lambda severity: severity.rank, default=None)

    @property
    def blocked_nodes(self) -> tuple[str, ...]:
        """GPU nodes on which a critical cause blocks work, in order of name."""
        critical = (one for one in self.diagnosis.causes if one.severity is Severity.CRITICAL)
        return tuple(sorted({node for one in critical for node in one.gpu_nodes}))


def judge_run(results: tuple[CheckResult, ...], *, fail_on: Severity, allow_unknown: bool) -> Verdict:
    """Return the verdict of a run: the one place where an exit status is decided (DESIGN.md)."""
    if any(result.count(Outcome.BROKEN) for result in results):
        return Verdict.ERROR
    if any(fault.severity.at_least(fail_on) for result in results for fault in result.faults):
        return Verdict.FAULTS
    if not any(result.passed for result in results):
        return Verdict.UNKNOWN
    if not allow_unknown and any(result.count(Outcome.UNKNOWN) for result in results):
        return Verdict.UNKNOWN
    return Verdict.CONFORMS


class SheetTable(msgspec.Struct, frozen=True):
    """A table of a sheet: columns by name, and rows in order. `empty`: what is said where there is no row."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: str


class Sheet(msgspec.Struct, frozen=True):
    """What is shown of one thing, in a form to paste into a ticket: facts by name, then tables."""

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[SheetTable, ...]

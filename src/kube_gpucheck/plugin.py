"""The pytest plugin: one item a check, called for every subject; results leave as objects.

It reads evidence once and never collects any. Nothing imports this module: the runner and
`conformance/pytest.ini` name it by string.
"""

import itertools
import sys
import time
import traceback
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import pytest

from kube_gpucheck import hooks
from kube_gpucheck.errors import GpucheckError
from kube_gpucheck.evidence import Cluster, open_bundle
from kube_gpucheck.judging import Check, Fault, NotApplicable, Unknown
from kube_gpucheck.model import (
    CheckInfo,
    CheckResult,
    Judgement,
    Missing,
    MissingKind,
    Outcome,
    Severity,
    Subject,
    SubjectKind,
)

T = TypeVar("T")
_EVIDENCE: pytest.StashKey[Cluster] = pytest.StashKey()
_WRONG: Final = (Outcome.FAULT, Outcome.UNKNOWN, Outcome.BROKEN)
_SHOWN: Final = 100
"""Subjects or reasons that pytest is told of; the results that go to the listeners have all."""
_RESULTS: pytest.StashKey[dict[str, CheckResult]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which evidence and subjects are chosen."""
    group = parser.getgroup("gpucheck")
    group.addoption("--bundle", metavar="DIR", help="the bundle to judge")
    group.addoption("--gpucheck-layer", action="append", default=[], metavar="LAYER", help="judge this layer only")
    group.addoption(
        "--gpucheck-node", action="append", default=[], metavar="NODE", help="judge this node's subjects only"
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the hooks by which results leave."""
    pluginmanager.add_hookspecs(hooks)


@pytest.hookimpl(trylast=True)
def pytest_gpucheck_evidence() -> Cluster | None:
    """Leave it to the runner or to `--bundle`."""
    return None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Open the evidence before anything is collected.

    Raises:
        pytest.UsageError: none was given, it cannot be opened, or the root would give modules wrong names.
    """
    config = session.config
    if config.rootpath.name == "conformance" and (config.rootpath / "operator").is_dir():
        reason = f"give --rootdir={config.rootpath.parent}: below its own root a layer's folder becomes a module, and"
        raise pytest.UsageError(_refuse(config, f"{reason} 'operator' is already one of Python's"))
    evidence = config.hook.pytest_gpucheck_evidence()
    if evidence is None:
        path = config.getoption("--bundle")
        if not path:
            raise pytest.UsageError(_refuse(config, "no evidence to judge: give --bundle=DIR"))
        try:
            evidence = Cluster(open_bundle(Path(path)))
        except GpucheckError as error:
            raise pytest.UsageError(_refuse(config, str(error))) from error
    config.stash[_EVIDENCE] = evidence


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> "CheckItem | None":
    """Make one item of each function that declares a check."""
    check = getattr(obj, "__gpucheck__", None)
    return CheckItem.from_parent(collector, name=name, check=check) if isinstance(check, Check) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse an id that is used twice, leave out other layers, and put the rest in order.

    Raises:
        pytest.UsageError: two functions declare one id.
    """
    mine = [item for item in items if isinstance(item, CheckItem)]
    first: dict[str, CheckItem] = {}
    for item in mine:
        other = first.setdefault(item.check.info.id, item)
        if other is not item:
            taken = f"takes the id {item.check.info.id}, which {other.name} in {other.path} has"
            reason = f"{item.path}: {item.name} {taken}; give it an id of its own"
            raise pytest.UsageError(_refuse(config, reason))
    layers = set(config.getoption("--gpucheck-layer"))
    kept = [item for item in mine if not layers or item.check.info.layer.value in layers]
    kept.sort(key=lambda item: (item.check.info.layer.position, item.check.info.id))
    items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Say which checks will be judged, after `-k` has chosen."""
    infos = [item.check.info for item in session.items if isinstance(item, CheckItem)]
    session.config.hook.pytest_gpucheck_selected(checks=infos)


class CheckItem(pytest.Item):
    """One check. Its one run judges every subject."""

    def __init__(self, *, check: Check, **arguments: Any) -> None:  # noqa: ANN401  pytest's own arguments
        """Keep the check, and let `-k` find it by id and layer."""
        super().__init__(**arguments)
        self.check = check
        self.extra_keyword_matches.update((check.info.id, check.info.layer.value))

    def runtest(self) -> None:
        """Judge every subject, hand the result over, and fail where a person should look.

        Raises:
            CheckFailedError: some subject faults, is unknown, or broke the check.
        """
        result = self._results()[self.check.info.id]
        self.config.hook.pytest_gpucheck_judgement(result=result)
        worst = [one for one in result.others if one.outcome in _WRONG]
        if worst:
            raise CheckFailedError(worst)
        if not result.passed:
            pytest.skip("; ".join(_first(dict.fromkeys(one.reason for one in result.others), "reasons")))

    def _results(self) -> dict[str, CheckResult]:
        """Return what every selected check says: the first item that runs judges for all, node by node."""
        stash = self.config.stash
        if _RESULTS not in stash:
            checks = [item.check for item in self.session.items if isinstance(item, CheckItem)]
            only = frozenset(self.config.getoption("--gpucheck-node"))
            stash[_RESULTS] = {one.info.id: one for one in judge_all(checks, stash[_EVIDENCE], only)}
        return stash[_RESULTS]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ANN401  pytest's signature
        """Show what was seen, not our stack."""
        return (
            str(excinfo.value) if isinstance(excinfo.value, CheckFailedError) else super().repr_failure(excinfo, style)
        )

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the check stands, and its requirement."""
        return (
            self.path,
            self.check.function.__code__.co_firstlineno - 1,
            f"{self.check.info.id} {self.check.info.title}",
        )


class CheckFailedError(Exception):
    """A check did not pass for some subject."""

    def __init__(self, judgements: Sequence[Judgement]) -> None:
        """Put the judgements into lines."""
        lines = [f"{one.outcome.value}: {one.subject}: {one.seen or one.reason}" for one in judgements]
        super().__init__("\n".join(_first(lines, "subjects")))


def _first(words: Collection[str], noun: str) -> list[str]:
    """Return the first of many words: pytest keeps what it is told to the end, and prints it."""
    more = len(words) - _SHOWN
    return [*itertools.islice(words, _SHOWN), *([f"and {more:,} more {noun}"] if more > 0 else [])]


def judge(check: Check, cluster: Cluster, only_nodes: frozenset[str]) -> CheckResult:
    """Return what one check says of all its subjects; with `only_nodes`, of those on these nodes."""
    return judge_all([check], cluster, only_nodes)[0]


def judge_all(checks: Sequence[Check], cluster: Cluster, only_nodes: frozenset[str]) -> tuple[CheckResult, ...]:
    """Return what each check says of all its subjects; with `only_nodes`, of those on these nodes.

    Node by node, all checks of a node, of its GPUs and of its pods together: what was worked out of one node is at
    hand for all of them, and can be let go before the next.
    """
    tallies = [_Tally(check, only_nodes) for check in checks]
    by_kind: dict[SubjectKind, list[_Tally]] = {kind: [] for kind in SubjectKind}
    for tally in tallies:
        by_kind[tally.check.info.subject].append(tally)
    targets = Missing(MissingKind.NOT_ASKED, "scrape targets are not collected yet", "telemetry")
    for tally in by_kind[SubjectKind.CLUSTER]:
        tally.judge([(0, cluster)])
    for tally in by_kind[SubjectKind.DAEMONSET]:
        tally.judge(_daemonsets(cluster))
    for tally in by_kind[SubjectKind.TARGET]:
        tally.judge([(0, _Unseen(cluster.subject, targets))])
    _judge_nodes(cluster, by_kind[SubjectKind.NODE], by_kind[SubjectKind.GPU], by_kind[SubjectKind.POD])
    return tuple(tally.result(cluster) for tally in tallies)


class _Unseen(NamedTuple):
    """What stands for the view of a subject that cannot be looked at."""

    subject: Subject
    missing: Missing


_Case = tuple[int, Any]
"""A subject's place in the order of its kind, and its view, or an `_Unseen`."""


def _judge_nodes(cluster: Cluster, on_nodes: list["_Tally"], on_gpus: list["_Tally"], on_pods: list["_Tally"]) -> None:
    nodes = dict(_gpu_nodes(cluster)) if on_nodes or on_gpus else {}
    pods = _pods_by_node(cluster) if on_pods else {}
    for name in sorted({*nodes, *pods}):
        if name in nodes:
            one = [(0, nodes[name])]
            for tally in on_nodes:
                tally.judge(one)
            gpus = _gpus(nodes[name]) if on_gpus else []
            for tally in on_gpus:
                tally.judge(gpus)
        mine = pods.pop(name, None)
        for tally in on_pods if mine is not None else ():
            tally.judge(mine or ())


def _daemonsets(cluster: Cluster) -> list[_Case]:
    reading = cluster.daemonsets
    if isinstance(reading, Missing):
        return [(0, _Unseen(cluster.subject, reading))]
    seen = (_Unseen(one.subject, one.object) if isinstance(one.object, Missing) else one for one in reading.value)
    return [(0, one) for one in seen if isinstance(one, _Unseen) or one.component is not None]


def _gpu_nodes(cluster: Cluster) -> Iterator[tuple[str, Any]]:
    """Yield the nodes that have a GPU, or may have one, each with its name."""
    reading = cluster.nodes
    if isinstance(reading, Missing):
        yield "", _Unseen(cluster.subject, reading)
        return
    for node in reading.value:
        signs = node.gpu_signs
        if isinstance(signs, Missing):
            yield node.name, _Unseen(node.subject, signs)
        elif signs.value:
            yield node.name, node


def _gpus(node: Any) -> list[_Case]:  # noqa: ANN401  a node or an `_Unseen`
    if isinstance(node, _Unseen):
        return [(0, node)]
    gpus = node.gpus
    return [(0, _Unseen(node.subject, gpus))] if isinstance(gpus, Missing) else [(0, gpu) for gpu in gpus.value]


def _pods_by_node(cluster: Cluster) -> dict[str, list[_Case]]:
    """Return the pods by the name of their node, those without one by an empty name."""
    reading = cluster.seen_pods
    if isinstance(reading, Missing):
        return {"": [(0, _Unseen(cluster.subject, reading))]}
    found: dict[str, list[_Case]] = {}
    for place, pod in enumerate(reading.value):
        outline = pod.outline
        view = _Unseen(pod.subject, outline) if isinstance(outline, Missing) else pod
        found.setdefault(pod.node_name or "", []).append((place, view))
    return found


class _Ordered(Generic[T]):
    """Things that come in another order than theirs."""

    def __init__(self) -> None:
        self.found: list[T] = []
        self._places = array("L")

    def add(self, place: int, thing: T) -> None:
        self.found.append(thing)
        self._places.append(place)

    def in_order(self) -> tuple[T, ...]:
        order = sorted(range(len(self.found)), key=self._places.__getitem__)
        return tuple(self.found[one] for one in order)


class _Tally:
    """What one check has said so far."""

    def __init__(self, check: Check, only_nodes: frozenset[str]) -> None:
        self.check = check
        self._only_nodes = only_nodes
        self._passed = _Ordered[Subject]()
        self._others = _Ordered[Judgement]()
        self._duration_s = 0.0

    def judge(self, cases: Iterable[_Case]) -> None:
        """Judge those subjects that the requirement is about."""
        began = time.perf_counter()
        among = self.check.among
        for place, view in cases:
            missing = view.missing if isinstance(view, _Unseen) else None
            if missing is None and among is not None:
                wanted = among(view)
                if isinstance(wanted, Missing):
                    missing = wanted
                elif not wanted.value:
                    continue
            subject = view.subject
            if not self._only_nodes or subject.node is None or subject.node in self._only_nodes:
                self._keep(place, subject, self._judged(subject, view, missing))
        self._duration_s += time.perf_counter() - began

    def _judged(self, subject: Subject, view: Any, missing: Missing | None) -> Judgement | None:  # noqa: ANN401  any view
        if missing is not None:
            return _verdict(self.check.info, subject, missing)
        return _call(self.check.info, subject, self.check.function, view)

    def _keep(self, place: int, subject: Subject, judgement: Judgement | None) -> None:
        if judgement is None:
            self._passed.add(place, subject)
        else:
            self._others.add(place, judgement)

    def result(self, cluster: Cluster) -> CheckResult:
        """Return what it said, in the order of subjects; of the cluster where there was none."""
        info = self.check.info
        if not self._passed.found and not self._others.found:
            self._keep(0, cluster.subject, self._of_none(cluster))
        return CheckResult(info, self._passed.in_order(), self._others.in_order(), self._duration_s)

    def _of_none(self, cluster: Cluster) -> Judgement | None:
        info = self.check.info
        if self.check.none_means is not None:
            return _call(info, cluster.subject, self.check.none_means, cluster)
        reason = _none_of(info.subject, self._only_nodes)
        return Judgement(info.id, cluster.subject, Outcome.NOT_APPLICABLE, info.severity, reason=reason)


def _call(info: CheckInfo, subject: Subject, function: Callable[[Any], None], view: object) -> Judgement | None:
    try:
        answer: object = function(view)  # type: ignore[func-returns-value]  # a user's check may return anything
    except Unknown as unknown:
        return _verdict(info, subject, unknown.missing, unknown.what)
    except Fault as found:
        severity = info.severity if found.severity is None or found.severity.at_least(info.severity) else found.severity
        return Judgement(
            info.id,
            subject,
            Outcome.FAULT,
            severity,
            seen=found.seen,
            means=found.means,
            remedy=found.remedy,
            nodes=found.nodes,
        )
    except NotApplicable as reason:
        return Judgement(info.id, subject, Outcome.NOT_APPLICABLE, info.severity, reason=str(reason))
    except (Exception, SystemExit, pytest.skip.Exception, pytest.exit.Exception):  # noqa: BLE001  a check's crash must not take the run with it
        return Judgement(info.id, subject, Outcome.BROKEN, Severity.CRITICAL, reason=traceback.format_exc())
    if answer is not None:
        words = f"TypeError: the check returned {answer!r}; a check ends, or calls fault() or not_applicable()"
        return Judgement(info.id, subject, Outcome.BROKEN, Severity.CRITICAL, reason=words)
    return None


def _verdict(info: CheckInfo, subject: Subject, missing: Missing, what: str = "") -> Judgement:
    outcome = Outcome.NOT_ASKED if missing.kind is MissingKind.NOT_ASKED else Outcome.UNKNOWN
    reason = sys.intern(f"{what}: {missing.reason}" if what else missing.reason)  # thousands of nodes say the same
    return Judgement(info.id, subject, outcome, info.severity, reason=reason, option=missing.option)


def _none_of(kind: SubjectKind, only_nodes: frozenset[str]) -> str:
    where = f" on {', '.join(sorted(only_nodes))}" if only_nodes else ""
    match kind:
        case SubjectKind.NODE | SubjectKind.GPU:
            return f"no node with an NVIDIA GPU{where}"
        case SubjectKind.DAEMONSET:
            return "no such DaemonSet is installed"
        case SubjectKind.POD:
            return f"no such pod{where}"
        case SubjectKind.TARGET:
            return "no exporter is installed"
        case SubjectKind.CLUSTER:
            return "there is no cluster here"


def _refuse(config: pytest.Config, reason: str) -> str:
    config.hook.pytest_gpucheck_refused(reason=reason)
    return reason

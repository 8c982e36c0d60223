"""The pytest plugin: one item a check, called for every subject; results leave as objects.

It reads evidence once and never collects any. Nothing imports this module: the runner and
`conformance/pytest.ini` name it by string.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
    Reading,
    Seen,
    Severity,
    Subject,
    SubjectKind,
)

_EVIDENCE: pytest.StashKey[Cluster] = pytest.StashKey()


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
        only = frozenset(self.config.getoption("--gpucheck-node"))
        result = judge(self.check, self.config.stash[_EVIDENCE], only)
        self.config.hook.pytest_gpucheck_judgement(result=result)
        worst = [one for one in result.others if one.outcome in {Outcome.FAULT, Outcome.UNKNOWN, Outcome.BROKEN}]
        if worst:
            raise CheckFailedError(worst)
        if not result.passed:
            pytest.skip("; ".join(dict.fromkeys(one.reason for one in result.others)))

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
        super().__init__(
            "\n".join(f"{one.outcome.value}: {one.subject}: {one.seen or one.reason}" for one in judgements)
        )


def judge(check: Check, cluster: Cluster, only_nodes: frozenset[str]) -> CheckResult:
    """Return what one check says of all its subjects; with `only_nodes`, of those on these nodes."""
    began = time.perf_counter()
    passed: list[Subject] = []
    others: list[Judgement] = []
    info = check.info
    count = 0
    for subject, view in _subjects(check, cluster, only_nodes):
        count += 1
        judgement = (
            _verdict(info, subject, view) if isinstance(view, Missing) else _call(info, subject, check.function, view)
        )
        if judgement is None:
            passed.append(subject)
        else:
            others.append(judgement)
    if not count:
        if check.none_means is not None:
            judgement = _call(info, cluster.subject, check.none_means, cluster)
            if judgement is None:
                passed.append(cluster.subject)
            else:
                others.append(judgement)
        else:
            others.append(
                Judgement(
                    info.id,
                    cluster.subject,
                    Outcome.NOT_APPLICABLE,
                    info.severity,
                    reason=_none_of(info.subject, only_nodes),
                )
            )
    return CheckResult(info, tuple(passed), tuple(others), time.perf_counter() - began)


def _call(info: CheckInfo, subject: Subject, function: Callable[[Any], None], view: object) -> Judgement | None:
    try:
        answer: object = function(view)  # type: ignore[func-returns-value]  # a user's check may return anything
    except Unknown as unknown:
        return _verdict(info, subject, unknown.missing, unknown.what)
    except Fault as found:
        severity = info.severity if found.severity is None or found.severity.at_least(info.severity) else found.severity
        return Judgement(
            info.id, subject, Outcome.FAULT, severity, seen=found.seen, means=found.means, remedy=found.remedy
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
    reason = f"{what}: {missing.reason}" if what else missing.reason
    return Judgement(info.id, subject, outcome, info.severity, reason=reason, option=missing.option)


def _subjects(check: Check, cluster: Cluster, only_nodes: frozenset[str]) -> Iterator[tuple[Subject, Any]]:
    """Yield each subject with its view, or with what is missing where it cannot be enumerated or told apart."""
    for subject, view in _enumerate(check.info.subject, cluster):
        if (
            only_nodes
            and subject.kind is not SubjectKind.CLUSTER
            and subject.node is not None
            and subject.node not in only_nodes
        ):
            continue
        if isinstance(view, Missing) or check.among is None:
            yield subject, view
            continue
        wanted = check.among(view)
        if isinstance(wanted, Missing):
            yield subject, wanted
        elif wanted.value:
            yield subject, view


def _enumerate(kind: SubjectKind, cluster: Cluster) -> Iterator[tuple[Subject, Any]]:
    match kind:
        case SubjectKind.CLUSTER:
            yield cluster.subject, cluster
        case SubjectKind.NODE:
            for node, signs in _gpu_nodes(cluster):
                yield (node.subject, signs if isinstance(signs, Missing) else node)
        case SubjectKind.GPU:
            for node, signs in _gpu_nodes(cluster):
                gpus = node.gpus if isinstance(signs, Seen) else signs
                if isinstance(gpus, Missing):
                    yield node.subject, gpus
                else:
                    yield from ((gpu.subject, gpu) for gpu in gpus.value)
        case SubjectKind.DAEMONSET:
            yield from _listed(cluster, cluster.daemonsets, lambda one: one.component is not None)
        case SubjectKind.POD:
            yield from _listed(cluster, cluster.pods, lambda _: True)
        case SubjectKind.TARGET:
            yield cluster.subject, Missing(MissingKind.NOT_ASKED, "scrape targets are not collected yet", "telemetry")


def _gpu_nodes(cluster: Cluster) -> Iterator[tuple[Any, Any]]:
    nodes = cluster.nodes
    if isinstance(nodes, Missing):
        yield cluster, nodes
        return
    for node in nodes.value:
        signs = node.gpu_signs
        if isinstance(signs, Missing) or signs.value:
            yield node, signs


def _listed(
    cluster: Cluster, reading: Reading[tuple[Any, ...]], wanted: Callable[[Any], bool]
) -> Iterable[tuple[Subject, Any]]:
    if isinstance(reading, Missing):
        yield cluster.subject, reading
        return
    for view in reading.value:
        if isinstance(view.object, Missing):
            yield view.subject, view.object
        elif wanted(view):
            yield view.subject, view


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

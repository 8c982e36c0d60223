"""Findings joined by their consequences, a cause for each root, and the order in which to mend.

DESIGN.md ("Diagnosis") is the specification; the number of findings that a cause explains never decides.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kube_gpucheck.diagnose.catalogue import Catalogue, Cause, Sign
from kube_gpucheck.diagnose.consequences import Consequences, Key
from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.journal import Journal
from kube_gpucheck.diagnose.judgements import Judgements
from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.diagnose.signs import speaks
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import (
    Candidate,
    CheckResult,
    DiagnosedCause,
    Diagnosis,
    Finding,
    Judgement,
    Missing,
    Outcome,
    Severity,
    Subject,
    SubjectKind,
)

_SAID_AGAIN: Final = ("kubeconfig", "context", "expect-gpu-nodes")
"""Options without which the same command would look at another cluster, or answer another question."""
Order = tuple[bool, int, int, int, str]
"""Below `--fail-on`, minus the GPU nodes blocked, layer, minus the score, id: the smallest is mended first."""


class _Match(msgspec.Struct, frozen=True):
    """A cause that explains a finding, with the signs that spoke for it and those that kept silent."""

    cause: Cause
    spoke: tuple[Sign, ...]
    unknown: tuple[str, ...] = ()

    @property
    def score(self) -> int:
        """How specifically it fits: met needs count 3, hints their weight."""
        return sum(3 if sign in self.cause.needs else sign.weight for sign in self.spoke)


def _rank(match: _Match) -> tuple[bool, int]:
    """Return how good a match is: one in which nothing is unknown first, then the more specific one."""
    return not match.unknown, match.score


def diagnose(results: Iterable[CheckResult], cluster: Cluster, catalogue: Catalogue, *, fail_on: Severity) -> Diagnosis:
    """Return the diagnosis of a run: causes, the first to mend first, and every finding with its place."""
    return _Diagnostician(Judgements(results, Relations(cluster)), cluster, catalogue, fail_on).run()


class _Diagnostician:
    def __init__(self, judgements: Judgements, cluster: Cluster, catalogue: Catalogue, fail_on: Severity) -> None:
        self._judgements = judgements
        self._relations = judgements.relations
        self._cluster = cluster
        self._catalogue = catalogue
        self._fail_on = fail_on
        self._journal = Journal(catalogue)
        self._contexts: dict[tuple[Subject, tuple[str, ...] | None], Context] = {}
        self._consequences = Consequences(judgements)
        self._findings = self._consequences.findings
        self._faulty_nodes = {
            subject.node
            for (_, subject), one in self._findings.items()
            if one.outcome is Outcome.FAULT and subject.kind in {SubjectKind.NODE, SubjectKind.GPU} and subject.node
        }
        self._chosen: dict[Key, _Match] = {}
        self._candidates: dict[str, tuple[Cause, list[Subject], list[str]]] = {}

    def run(self) -> Diagnosis:
        is_root = self._consequences.is_root
        for key, judgement in self._findings.items():
            if judgement.outcome is Outcome.FAULT and is_root(key):
                self._choose(key)
        owner: dict[Key, str | None] = {}
        for key in self._findings:
            owner[key] = self._owner(key, owner)
        causes = self._causes(owner)
        findings = tuple(self._finding(key, owner) for key in self._findings)
        named = {cause.id for cause in causes}
        open_questions = tuple(
            Candidate(
                cause.id,
                cause.title,
                tuple(sorted(set(subjects), key=lambda subject: subject.place)),
                tuple(dict.fromkeys(unknown)),
            )
            for cause, subjects, unknown in self._candidates.values()
            if cause.id not in named
        )
        return Diagnosis(causes, open_questions, findings)

    def _owner(self, key: Key, owner: Mapping[Key, str | None]) -> str | None:
        """Return the cause that explains a finding: its own, or that of the nearest root with one.

        Of a DaemonSet's fault on several nodes it is the reason on the finding's own node, which may be another than
        that of the DaemonSet's fault as a whole. `owner` knows the findings that come before in order of layer.
        """
        if key in self._chosen:
            return self._chosen[key].cause.id
        node = key[1].node
        for root in self._consequences.roots(key):
            if node is None or not self._consequences.is_wide(root):
                if root in self._chosen:
                    return self._chosen[root].cause.id
                continue
            near = (one for one in self._consequences.explanation(key).faults if one[1].node == node)
            known = next((name for one in near if (name := owner.get(one)) is not None), None)
            if known is not None:
                return known
            match = self._best(root, self._context(root[1], (node,)))
            if match is None:
                continue
            if root in self._chosen and self._chosen[root].cause is match.cause:
                return match.cause.id
            if self._findings[key].outcome is Outcome.FAULT:
                self._chosen[key] = match
                return match.cause.id
        if self._findings[key].outcome is Outcome.FAULT and not self._consequences.is_root(key):
            self._choose(key)
        return self._chosen[key].cause.id if key in self._chosen else None

    def _choose(self, key: Key) -> None:
        """Choose the cause of a finding, if one fits; note those that may."""
        match = self._best(key, self._context(key[1], self._places(key)))
        if match is not None:
            self._chosen[key] = match

    def _places(self, key: Key) -> tuple[str, ...] | None:
        """Return the nodes at which the reasons of a DaemonSet's fault are looked for, None for all of them."""
        if not self._consequences.is_wide(key):
            return None
        left = self._consequences.explanation(key).left or self._consequences.about(key)
        return tuple(sorted(left or ())) or None

    def _best(self, key: Key, context: Context) -> _Match | None:
        """Return the cause that fits a finding best in these surroundings; those that may fit become candidates."""
        check, subject = key
        matches: list[_Match] = []
        nobody = subject.kind is not self._judgements.infos[check].subject
        for cause in self._catalogue.by_check.get(check, ()):
            if nobody and cause.scope != SubjectKind.CLUSTER.value:
                continue  # the check found no subject: what goes wrong on one cannot be why
            match = self._match(cause, context)
            if match is None:
                continue
            if match.unknown and match.spoke:  # without a word for it, it is no more likely than any other
                _, subjects, unknown = self._candidates.setdefault(cause.id, (cause, [], []))
                subjects.append(subject)
                unknown.extend(match.unknown)
            elif not match.unknown:
                matches.append(match)
        ranked = sorted(matches, key=lambda match: (-match.score, match.cause.position.position, match.cause.id))
        return ranked[0] if ranked else None

    def _match(self, cause: Cause, context: Context) -> _Match | None:
        """Return how a cause fits; a cause of one node must fit whole on one of several."""
        if cause.scope != SubjectKind.NODE.value or len(context.nodes) <= 1:
            return self._match_in(cause, context)
        bad = context.nodes if context.among else [one for one in context.nodes if one.name in self._faulty_nodes]
        if not bad:
            return self._match_in(cause, context)
        best: _Match | None = None
        for node in bad:
            match = self._match_in(cause, self._context(context.subject, (node.name,)))
            if match is not None and (best is None or _rank(match) > _rank(best)):
                best = match
        return best

    def _context(self, subject: Subject, among: tuple[str, ...] | None = None) -> Context:
        key = (subject, among)
        if key not in self._contexts:
            self._contexts[key] = Context(subject, self._cluster, self._judgements, self._journal, among=among)
        return self._contexts[key]

    def _match_in(self, cause: Cause, context: Context) -> _Match | None:
        spoke: list[Sign] = []
        unknown: list[str] = []
        for sign in cause.needs:
            answer = speaks(sign, context)
            if isinstance(answer, Missing):
                unknown.append(f"{sign}: {answer.reason}")
            elif answer.value:
                spoke.append(sign)
            else:
                return None
        for sign in cause.against:
            answer = speaks(sign, context)
            if not isinstance(answer, Missing) and answer.value:
                return None
        for sign in cause.hints:
            answer = speaks(sign, context)
            if not isinstance(answer, Missing) and answer.value:
                spoke.append(sign)
        return _Match(cause, tuple(spoke), tuple(unknown))

    def _finding(self, key: Key, owner: Mapping[Key, str | None]) -> Finding:
        explained = self._consequences.explanation(key)
        return Finding(
            self._judgements.infos[key[0]],
            self._findings[key],
            owner[key],
            tuple(dict.fromkeys(check for check, _ in explained.faults)),
            explained.partly,
        )

    def _causes(self, owner: Mapping[Key, str | None]) -> tuple[DiagnosedCause, ...]:
        groups: dict[str, list[Key]] = defaultdict(list)
        for key, identifier in owner.items():
            if identifier is not None:
                groups[identifier].append(key)
        ordered = sorted((self._entry(keys) for keys in groups.values()), key=lambda pair: pair[0])
        return tuple(entry for _, entry in ordered)

    def _entry(self, keys: list[Key]) -> tuple[Order, DiagnosedCause]:
        """Return one cause's entry with its place: DESIGN.md's order (a) to (e)."""
        heads = [key for key in keys if key in self._chosen]
        heads.sort(
            key=lambda key: (
                not self._consequences.is_root(key),
                self._judgements.infos[key[0]].layer.position,
                key[0],
                key[1].place,
            )
        )
        best = max((self._chosen[key] for key in heads), key=lambda match: match.score)
        faults = [self._findings[key] for key in keys if self._findings[key].outcome is Outcome.FAULT]
        severity = min((one.severity for one in faults), key=lambda one: one.rank)
        blocked = self._blocked(faults)
        layer = self._judgements.infos[heads[0][0]].layer
        cause = best.cause
        entry = DiagnosedCause(
            id=cause.id,
            title=cause.title,
            layer=cause.position,
            severity=severity,
            subjects=tuple(sorted({subject for _, subject in heads}, key=lambda subject: subject.place)),
            explains=tuple(dict.fromkeys(check for check, _ in keys)),
            seen=tuple(dict.fromkeys(self._findings[key].seen for key in heads)),
            signs_for=tuple(str(sign) for sign in best.spoke),
            signs_against=(),
            remedy=self._remedy(cause, sorted({subject for _, subject in heads}, key=lambda subject: subject.place)),
            then=self._then(cause, keys, heads),
            interrupts=cause.interrupts,
            references=cause.references,
            gpu_nodes=blocked,
        )
        return (not severity.at_least(self._fail_on), -len(blocked), layer.position, -best.score, cause.id), entry

    def _remedy(self, cause: Cause, subjects: list[Subject]) -> tuple[str, ...]:
        """Return the steps for the distribution at hand, with the names of a node and a release where there is one.

        A step about RULES stands only where there are some.
        """
        contexts = [self._context(subject) for subject in subjects]
        distributions = {one.distribution for one in contexts}
        steps = cause.steps(distributions.pop() if len(distributions) == 1 else "default")
        mine = cause.scope == SubjectKind.POD.value
        names = [one.names if mine else one.stack_names for one in contexts]
        for word in ("NODE", "NAMESPACE", "RELEASE", "RULES"):
            found = sorted({one[word] for one in names if word in one})
            if len(found) == 1:
                steps = tuple(_filled(step, word, found[0]) for step in steps)
        return tuple(step for step in steps if not re.search(r"\bRULES\b", step))

    def _then(self, cause: Cause, keys: list[Key], heads: list[Key]) -> str:
        """Return the command that proves the cure: by the catalogue's check if it does not pass now, else by a fault.

        A check that passes, or was not asked, would prove a cure that nobody has made. Where nothing but hosts was
        looked at, it looks at the host again; what the user said of the cluster is said again.
        """
        proves = cause.proves if any(check == cause.proves for check, _ in keys) else heads[0][0]
        manifest = self._cluster.bundle.manifest
        said = manifest.run.options
        words = [
            "gpucheck run",
            *(["--host"] if manifest.asked.host and not manifest.asked.api else []),
            *(f"--{name} {shlex.quote(said[name])}" for name in _SAID_AGAIN if name in said),
            f"-k {proves} --wait 5m",
        ]
        return " ".join(words)

    def _blocked(self, faults: list[Judgement]) -> tuple[str, ...]:
        """Return the GPU nodes on which these faults keep GPU work from running.

        Those whose own faults are among them; where only the cluster or a DaemonSet has one, those that it is about.
        """
        critical = [one for one in faults if one.severity is Severity.CRITICAL]
        gpu_nodes = self._relations.gpu_nodes
        names = {one.subject.node for one in critical if one.subject.node is not None} & gpu_nodes
        broad = [one for one in critical if one.subject.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET}]
        about = {name for one in broad for name in (one.nodes or gpu_nodes)} & gpu_nodes
        return tuple(sorted(names or about))


def _filled(step: str, word: str, name: str) -> str:
    """Return a remedy's step with a name in a word's place."""
    return re.sub(rf"\b{word}\b", lambda _: name, step)

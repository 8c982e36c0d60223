"""Findings joined by their consequences, a cause for each root, and the order in which to mend.

DESIGN.md ("Diagnosis") is the specification; the number of findings that a cause explains never decides.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from kube_gpucheck.diagnose.catalogue import Catalogue, Cause, Sign
from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.journal import Journal
from kube_gpucheck.diagnose.judgements import Judgements
from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.diagnose.signs import speaks
from kube_gpucheck.evidence import Cluster, Node
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

Key = tuple[str, Subject]
"""A finding: its check and its subject."""
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
        self._contexts: dict[tuple[Subject, Node | None], Context] = {}
        self._findings = {(one.check, one.subject): one for one in judgements.findings()}
        self._faulty_nodes = {
            subject.node
            for (_, subject), one in self._findings.items()
            if one.outcome is Outcome.FAULT and subject.kind in {SubjectKind.NODE, SubjectKind.GPU} and subject.node
        }
        self._explained: dict[Key, tuple[tuple[Key, ...], bool]] = {
            key: self._explanation(key) for key in self._findings
        }

    def run(self) -> Diagnosis:
        chosen: dict[Key, _Match] = {}
        candidates: dict[str, tuple[Cause, list[Subject], list[str]]] = {}
        for key, judgement in self._findings.items():
            if judgement.outcome is not Outcome.FAULT or not self._is_root(key):
                continue
            self._choose(key, chosen, candidates)
        for key, judgement in self._findings.items():
            if (
                judgement.outcome is Outcome.FAULT
                and not self._is_root(key)
                and not any(root in chosen for root in self._roots(key))
            ):
                self._choose(key, chosen, candidates)
        owner = {key: self._owner(key, chosen) for key in self._findings}
        causes = self._causes(chosen, owner)
        findings = tuple(self._finding(key, owner) for key in self._findings)
        named = {cause.id for cause in causes}
        open_questions = tuple(
            Candidate(
                cause.id,
                cause.title,
                tuple(sorted(set(subjects), key=lambda subject: subject.place)),
                tuple(dict.fromkeys(unknown)),
            )
            for cause, subjects, unknown in candidates.values()
            if cause.id not in named
        )
        return Diagnosis(causes, open_questions, findings)

    def _explanation(self, key: Key) -> tuple[tuple[Key, ...], bool]:
        """Return the related faults named in the check's `after`, and whether they explain it only in part.

        A fault that its check made milder than it is by rule (a leftover, a program's own XID) says that little is
        broken, so it explains nothing that is graver (docs/adr/0007). That there is no subject at all (`none_means`)
        is nobody's consequence.
        """
        check, subject = key
        info, judgement = self._judgements.infos[check], self._findings[key]
        if judgement.outcome is Outcome.FAULT and subject.kind is not info.subject:
            return (), False
        faults: list[Key] = []
        whole = False
        for prerequisite in info.after:
            bad = [
                other
                for other in self._judgements.says(prerequisite, subject, Outcome.FAULT)
                if self._may_explain((prerequisite, other), judgement)
            ]
            faults.extend((prerequisite, other) for other in bad)
            good = self._judgements.says(prerequisite, subject, Outcome.PASS)
            whole = whole or bool(bad and next(good, None) is None)
        return tuple(faults), bool(faults) and not whole

    def _may_explain(self, key: Key, judgement: Judgement) -> bool:
        fault = self._findings[key]
        lowered = fault.severity is not self._judgements.infos[key[0]].severity
        return not lowered or fault.severity.at_least(judgement.severity)

    def _is_root(self, key: Key) -> bool:
        faults, partly = self._explained[key]
        return not faults or partly

    def _roots(self, key: Key) -> tuple[Key, ...]:
        """Return the root faults from which a consequence follows, nearest first."""
        found: dict[Key, None] = {}
        seen: set[Key] = set()
        queue = list(self._explained[key][0])
        while queue:
            one = queue.pop(0)
            if one in seen:
                continue
            seen.add(one)
            if self._is_root(one):
                found[one] = None
            queue.extend(self._explained[one][0])
        return tuple(found)

    def _choose(
        self, key: Key, chosen: dict[Key, _Match], candidates: dict[str, tuple[Cause, list[Subject], list[str]]]
    ) -> None:
        check, subject = key
        matches: list[_Match] = []
        nobody = subject.kind is not self._judgements.infos[check].subject
        for cause in self._catalogue.by_check.get(check, ()):
            if nobody and cause.scope != SubjectKind.CLUSTER.value:
                continue  # the check found no subject: what goes wrong on one cannot be why
            match = self._match(cause, subject)
            if match is None:
                continue
            if match.unknown and match.spoke:  # without a word for it, it is no more likely than any other
                _, subjects, unknown = candidates.setdefault(cause.id, (cause, [], []))
                subjects.append(subject)
                unknown.extend(match.unknown)
            elif not match.unknown:
                matches.append(match)
        if matches:
            chosen[key] = min(matches, key=lambda match: (-match.score, match.cause.position.position, match.cause.id))

    def _match(self, cause: Cause, subject: Subject) -> _Match | None:
        """Return how a cause fits a finding's subject; a cause of one node must fit whole on one of several."""
        context = self._context(subject)
        bad = [node for node in context.nodes if node.name in self._faulty_nodes]
        if cause.scope != SubjectKind.NODE.value or subject.node is not None or not bad or len(context.nodes) == 1:
            return self._match_in(cause, context)
        best: _Match | None = None
        for node in bad:
            match = self._match_in(cause, self._context(subject, node))
            if match is not None and (best is None or _rank(match) > _rank(best)):
                best = match
        return best

    def _context(self, subject: Subject, only: Node | None = None) -> Context:
        key = (subject, only)
        if key not in self._contexts:
            self._contexts[key] = Context(subject, self._cluster, self._judgements, self._journal, only=only)
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

    def _owner(self, key: Key, chosen: Mapping[Key, _Match]) -> str | None:
        if key in chosen:
            return chosen[key].cause.id
        return next((chosen[root].cause.id for root in self._roots(key) if root in chosen), None)

    def _finding(self, key: Key, owner: Mapping[Key, str | None]) -> Finding:
        faults, partly = self._explained[key]
        return Finding(
            self._judgements.infos[key[0]],
            self._findings[key],
            owner[key],
            tuple(dict.fromkeys(check for check, _ in faults)),
            partly,
        )

    def _causes(self, chosen: Mapping[Key, _Match], owner: Mapping[Key, str | None]) -> tuple[DiagnosedCause, ...]:
        groups: dict[str, list[Key]] = defaultdict(list)
        for key, identifier in owner.items():
            if identifier is not None:
                groups[identifier].append(key)
        ordered = sorted((self._entry(keys, chosen) for keys in groups.values()), key=lambda pair: pair[0])
        return tuple(entry for _, entry in ordered)

    def _entry(self, keys: list[Key], chosen: Mapping[Key, _Match]) -> tuple[Order, DiagnosedCause]:
        """Return one cause's entry with its place: DESIGN.md's order (a) to (e)."""
        heads = [key for key in keys if key in chosen]
        heads.sort(
            key=lambda key: (
                not self._is_root(key),
                self._judgements.infos[key[0]].layer.position,
                key[0],
                key[1].place,
            )
        )
        best = max((chosen[key] for key in heads), key=lambda match: match.score)
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
            then=f"gpucheck run -k {self._proof(cause, heads)} --wait 5m",
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

    def _proof(self, cause: Cause, heads: list[Key]) -> str:
        """Return the check that proves the cure: the catalogue's where it is built, else the one that faulted."""
        return cause.proves if cause.proves in self._judgements.infos else heads[0][0]

    def _blocked(self, faults: list[Judgement]) -> tuple[str, ...]:
        """Return the GPU nodes on which these faults keep GPU work from running.

        Those whose own faults are among them; all GPU nodes where only the cluster or a DaemonSet has one.
        """
        critical = [one.subject for one in faults if one.severity is Severity.CRITICAL]
        names = {one.node for one in critical if one.node is not None} & self._relations.gpu_nodes
        wide = any(one.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET} for one in critical)
        return tuple(sorted(names or (self._relations.gpu_nodes if wide else ())))


def _filled(step: str, word: str, name: str) -> str:
    """Return a remedy's step with a name in a word's place."""
    return re.sub(rf"\b{word}\b", lambda _: name, step)

"""The results of a run, indexed so that what is related to a subject is found without a walk over all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.model import CheckInfo, CheckResult, Judgement, Outcome, Subject, SubjectKind


class _Outcomes:
    """What one check said, by node."""

    def __init__(self, result: CheckResult) -> None:
        self.everything = [(subject, Outcome.PASS) for subject in result.passed] + [
            (one.subject, one.outcome) for one in result.others
        ]
        self.by_node: dict[str, list[tuple[Subject, Outcome]]] = defaultdict(list)
        self.elsewhere: list[tuple[Subject, Outcome]] = []
        for subject, outcome in self.everything:
            (self.elsewhere if subject.node is None else self.by_node[subject.node]).append((subject, outcome))


class Judgements:
    """All results of a run, by check and by node."""

    def __init__(self, results: Iterable[CheckResult], relations: Relations) -> None:
        """Keep the results; each is indexed when it is first asked for, for few are."""
        self.results = tuple(results)
        self.relations = relations
        self.infos: dict[str, CheckInfo] = {result.info.id: result.info for result in self.results}
        self._results = {result.info.id: result for result in self.results}
        self._outcomes: dict[str, _Outcomes] = {}

    def findings(self) -> Iterator[Judgement]:
        """Yield faults and unknowns, in order of layer and id."""
        for result in self.results:
            yield from (one for one in result.others if one.outcome in (Outcome.FAULT, Outcome.UNKNOWN))

    def outcomes(self, check: str, subject: Subject) -> Iterator[tuple[Subject, Outcome]]:
        """Yield what a check said of the subjects related to this one."""
        if check not in self._results:
            return
        if check not in self._outcomes:
            self._outcomes[check] = _Outcomes(self._results[check])
        known = self._outcomes[check]
        if subject.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET} or subject.node is None:
            near: Iterable[tuple[Subject, Outcome]] = known.everything
        else:
            near = (*known.by_node.get(subject.node, ()), *known.elsewhere)
        for other, outcome in near:
            if self.relations.related(subject, other):
                yield other, outcome

"""The results of a run, indexed so that what is related to a subject is found without a walk over all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.model import CheckInfo, CheckResult, Judgement, Outcome, Subject, SubjectKind


class Judgements:
    """All results of a run, by check and by node."""

    def __init__(self, results: Iterable[CheckResult], relations: Relations) -> None:
        """Index the results."""
        self.results = tuple(results)
        self.relations = relations
        self.infos: dict[str, CheckInfo] = {result.info.id: result.info for result in self.results}
        self._everything: dict[str, list[tuple[Subject, Outcome]]] = {}
        self._by_node: dict[str, dict[str, list[tuple[Subject, Outcome]]]] = {}
        self._elsewhere: dict[str, list[tuple[Subject, Outcome]]] = {}
        for result in self.results:
            pairs = [(subject, Outcome.PASS) for subject in result.passed] + [
                (one.subject, one.outcome) for one in result.others
            ]
            by_node: dict[str, list[tuple[Subject, Outcome]]] = defaultdict(list)
            elsewhere: list[tuple[Subject, Outcome]] = []
            for subject, outcome in pairs:
                (elsewhere if subject.node is None else by_node[subject.node]).append((subject, outcome))
            self._everything[result.info.id] = pairs
            self._by_node[result.info.id] = by_node
            self._elsewhere[result.info.id] = elsewhere

    def findings(self) -> Iterator[Judgement]:
        """Yield faults and unknowns, in order of layer and id."""
        for result in self.results:
            yield from (one for one in result.others if one.outcome in {Outcome.FAULT, Outcome.UNKNOWN})

    def outcomes(self, check: str, subject: Subject) -> Iterator[tuple[Subject, Outcome]]:
        """Yield what a check said of the subjects related to this one."""
        if check not in self._everything:
            return
        if subject.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET} or subject.node is None:
            near: Iterable[tuple[Subject, Outcome]] = self._everything[check]
        else:
            near = (*self._by_node[check].get(subject.node, ()), *self._elsewhere[check])
        for other, outcome in near:
            if self.relations.related(subject, other):
                yield other, outcome

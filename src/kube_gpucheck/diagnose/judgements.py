"""The results of a run, indexed so that what is related to a subject is found without a walk over all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.model import CheckInfo, CheckResult, Judgement, Outcome, Subject, SubjectKind

_Said = tuple[Subject, Outcome, tuple[str, ...]]
"""Of whom a check said what, and the nodes that it is about, if not all."""


class _Outcomes:
    """What one check said, by node: passes, which are most, and the rest."""

    def __init__(self, result: CheckResult) -> None:
        self.passed = _Placed([(subject, Outcome.PASS, ()) for subject in result.passed])
        self.others = _Placed([(one.subject, one.outcome, one.nodes) for one in result.others])


class _Placed:
    def __init__(self, everything: list[_Said]) -> None:
        self._everything = everything
        self._by_node: dict[str, list[_Said]] = defaultdict(list)
        self._elsewhere: list[_Said] = []
        for one in everything:
            node = one[0].node
            (self._elsewhere if node is None else self._by_node[node]).append(one)

    def near(self, subject: Subject) -> Iterable[_Said]:
        """Return those that may be related to a subject."""
        if subject.kind in {SubjectKind.CLUSTER, SubjectKind.DAEMONSET} or subject.node is None:
            return self._everything
        return (*self._by_node.get(subject.node, ()), *self._elsewhere)


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

    def says(self, check: str, subject: Subject, outcome: Outcome) -> Iterator[Subject]:
        """Yield the subjects related to this one of which a check said so.

        What it said of a DaemonSet on other nodes than this subject's is not said here.
        """
        if check not in self._results:
            return
        if check not in self._outcomes:
            self._outcomes[check] = _Outcomes(self._results[check])
        known = self._outcomes[check]
        for other, said, nodes in (known.passed if outcome is Outcome.PASS else known.others).near(subject):
            is_here = not nodes or subject.node is None or subject.node in nodes
            if said is outcome and is_here and self.relations.related(subject, other):
                yield other

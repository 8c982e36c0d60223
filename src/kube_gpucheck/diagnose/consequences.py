"""Which findings follow from which: the graph over what checks declare in `after` (DESIGN.md, "Consequences")."""

from collections.abc import Iterator

import msgspec

from kube_gpucheck.diagnose.judgements import Judgements
from kube_gpucheck.model import Judgement, Outcome, Subject, SubjectKind

Key = tuple[str, Subject]
"""A finding: its check and its subject."""
Nodes = frozenset[str] | None
"""The nodes that a finding is about; None where it is about all, or about nothing on a node."""


class Explanation(msgspec.Struct, frozen=True):
    """The faults from which a finding follows, and whether they explain it only in part.

    `left`: the nodes of what they leave unexplained; None where nodes do not tell.
    """

    faults: tuple[Key, ...] = ()
    partly: bool = False
    left: Nodes = None


class Consequences:
    """The findings of a run, and which of them explain which."""

    def __init__(self, judgements: Judgements) -> None:
        """Work out what explains each finding."""
        self._judgements = judgements
        self.findings = {(one.check, one.subject): one for one in judgements.findings()}
        self._about = {key: _about(one) for key, one in self.findings.items()}
        self._explained = {key: self._explanation(key) for key in self.findings}

    def about(self, key: Key) -> Nodes:
        """Return the nodes that a finding is about."""
        return self._about[key]

    def explanation(self, key: Key) -> Explanation:
        """Return what explains a finding."""
        return self._explained[key]

    def is_root(self, key: Key) -> bool:
        """Tell whether nothing explains a finding, or not the whole of it."""
        explained = self._explained[key]
        return not explained.faults or explained.partly

    def is_wide(self, key: Key) -> bool:
        """Tell whether a finding is about several nodes, each of which may have its own reason."""
        return key[1].node is None and self._about[key] is not None

    def roots(self, key: Key) -> tuple[Key, ...]:
        """Return the root faults from which a consequence follows, nearest first.

        As seen from the finding's node: of a DaemonSet that fares badly on several nodes only what is wrong on this
        one explains it here, and where nothing does, the DaemonSet's own fault is the root.
        """
        node = key[1].node
        found: dict[Key, None] = {}
        seen: set[Key] = set()
        queue = list(self._explained[key].faults)
        while queue:
            one = queue.pop(0)
            if one in seen:
                continue
            seen.add(one)
            below = self._explained[one].faults
            if node is not None and self.is_wide(one):
                below = tuple(fault for fault in below if self._is_on(fault, node))
                is_root = not below
            else:
                is_root = self.is_root(one)
            if is_root:
                found[one] = None
            queue.extend(below)
        return tuple(found)

    def _is_on(self, key: Key, node: str) -> bool:
        about = self._about[key]
        return about is None or node in about

    def _explanation(self, key: Key) -> Explanation:
        """Return the related faults named in the check's `after`.

        A fault that its check made milder than it is by rule (a leftover, a program's own XID) says that little is
        broken, so it explains nothing that is graver (docs/adr/0007). That there is no subject at all (`none_means`)
        is nobody's consequence. What is wrong on other nodes than those that the finding is about does not explain it.
        """
        check, subject = key
        info, judgement = self._judgements.infos[check], self.findings[key]
        if judgement.outcome is Outcome.FAULT and subject.kind is not info.subject:
            return Explanation()
        faults: list[Key] = []
        whole = False
        for prerequisite in info.after:
            bad = list(self._bad(prerequisite, key, judgement))
            faults += bad
            good = self._judgements.says(prerequisite, subject, Outcome.PASS)
            whole = whole or bool(bad and next(good, None) is None)
        if not self.is_wide(key):
            return Explanation(tuple(faults), bool(faults) and not whole)
        left = self._about[key] or frozenset()
        for fault in faults:
            left -= self._about[fault] or left
        return Explanation(tuple(faults), bool(faults and left), left)

    def _bad(self, check: str, key: Key, judgement: Judgement) -> Iterator[Key]:
        about = self._about[key]
        for other in self._judgements.says(check, key[1], Outcome.FAULT):
            places = self._about[check, other]
            together = about is None or places is None or not about.isdisjoint(places)
            if together and self._may_explain((check, other), judgement):
                yield check, other

    def _may_explain(self, key: Key, judgement: Judgement) -> bool:
        fault = self.findings[key]
        lowered = fault.severity is not self._judgements.infos[key[0]].severity
        return not lowered or fault.severity.at_least(judgement.severity)


def _about(judgement: Judgement) -> Nodes:
    subject = judgement.subject
    if subject.node is not None:
        return frozenset({subject.node})
    if subject.kind is SubjectKind.POD:
        return None
    return frozenset(judgement.nodes) or None

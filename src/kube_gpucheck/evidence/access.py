"""Which rights were missing, as the rules to add: one block for everything that was forbidden.

Says nothing about what the credentials may do: only what the server refused.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec

from kube_gpucheck.model import MissingEvidence, MissingKind

LOGS: Final = "pods/log"
"""What reading a container's log is called in a rule (Kubernetes documentation, "Using RBAC Authorization")."""


class Rule(msgspec.Struct, frozen=True, order=True):
    """One rule of a ClusterRole or a Role: what may be done with which resources of one API group."""

    group: str
    resources: tuple[str, ...]
    verb: str

    def __str__(self) -> str:
        """Return it as YAML on one line, as it stands in a list of rules."""
        resources = ", ".join(f'"{resource}"' for resource in self.resources)
        return f'{{apiGroups: ["{self.group}"], resources: [{resources}], verbs: ["{self.verb}"]}}'


def rules_to_read(kinds: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that allow to list kinds (`<plural>[.<group>]`), and to get logs (`pods/log`), by group."""
    together: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind in kinds:
        plural, _, group = kind.partition(".")
        together[group, "get" if kind == LOGS else "list"].add(plural)
    return tuple(sorted(Rule(group, tuple(sorted(plurals)), verb) for (group, verb), plurals in together.items()))


def refused(missing: Iterable[MissingEvidence]) -> tuple[str, ...]:
    """Return the kinds that the server refused to list, in order, then `pods/log` if it refused a log."""
    forbidden = [one.evidence for one in missing if one.kind is MissingKind.FORBIDDEN]
    kinds = {name.removeprefix("api/") for name in forbidden if name.startswith("api/")}
    return (*sorted(kinds - {"discovery"}), *([LOGS] if any(name.startswith("logs/") for name in forbidden) else []))


def in_a_role(rules: Iterable[Rule]) -> str:
    """Return rules as one block of YAML on one line: what to put under a role's `rules`."""
    return f"[{', '.join(map(str, rules))}]"

r"""What becomes of the pods that are created in an embedded cluster: data, read from one small YAML file.

```yaml
pods:                      # the first rule that fits a pod says what becomes of it
  - {pod: "gpucheck-*", outcome: succeeds, log: "Test PASSED\n"}
  - {pod: "*", node: gpu-node-3, outcome: fails, exit: 1, log: "CUDA error 999\n", steps: 2}
  - {namespace: training, outcome: waits, reason: ImagePullBackOff}
```

`pod`, `namespace` and `node` are patterns as a shell's; what a rule does not name fits all. A pod that no rule
fits runs on where it is to be restarted always, and succeeds with an empty log where it is not.
"""

import enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec
import yaml

from kube_gpucheck.errors import UsageError


class Outcome(enum.Enum):
    """How a pod ends, if it does."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    RUNS = "runs"
    """Runs on, and is ready."""
    WAITS = "waits"
    """Is placed on a node, and its containers never start."""


class PodRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of some pods.

    `exit`: the status with which every container ends; where nothing is said 0 for `succeeds` and 1 for `fails`.
    `log`: of each container. `reason`: why a container waits or ended. `steps`: how long the pod runs.
    """

    outcome: Outcome
    pod: str = "*"
    namespace: str = "*"
    node: str = "*"
    exit: int | None = None
    log: str = ""
    reason: str = ""
    steps: int = 1

    @property
    def status(self) -> int:
        """The exit status of the containers."""
        return self.exit if self.exit is not None else int(self.outcome is Outcome.FAILS)

    @property
    def shown_reason(self) -> str:
        """The reason that a container's state shows."""
        if self.reason:
            return self.reason
        if self.outcome is Outcome.WAITS:
            return "ContainerCreating"
        return "Error" if self.status else "Completed"


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules, the first that fits counts."""

    pods: tuple[PodRule, ...] = ()

    def rule(self, *, namespace: str, pod: str, node: str, restarts: bool) -> PodRule:
        """Return what becomes of a pod. `restarts`: its containers are restarted whatever their end."""
        for one in self.pods:
            named = zip((namespace, pod, node), (one.namespace, one.pod, one.node), strict=True)
            if all(fnmatchcase(name, pattern) for name, pattern in named):
                return one
        return _RUNS if restarts else _SUCCEEDS


_RUNS: Final = PodRule(Outcome.RUNS)
_SUCCEEDS: Final = PodRule(Outcome.SUCCEEDS)


def open_script(path: Path) -> Script:
    """Read a script's file.

    Raises:
        UsageError: it cannot be read, is no YAML, or no script.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a script's file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: {error}; a script is UTF-8 text") from error
    return read_script(content, name=str(path))


def read_script(content: str, *, name: str) -> Script:
    """Return a script. `name` is what messages call it.

    Raises:
        UsageError: it is no YAML, or no script.
    """
    try:
        script = msgspec.convert(yaml.safe_load(content) or {}, Script)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as error:
        shown = " ".join(str(error).split())
        raise UsageError(f"{name}: {shown}; docs/embedded-cluster.md describes scripts") from error
    for place, rule in enumerate(script.pods):
        ends_well = rule.outcome is Outcome.SUCCEEDS
        if (ends_well and rule.status) or (rule.outcome is Outcome.FAILS and not rule.status):
            expected = "0" if ends_well else "another than 0"
            raise UsageError(
                f"{name}: pods[{place}]: '{rule.outcome.value}' with exit {rule.status}, expected {expected}"
            )
        if rule.steps < 1:
            raise UsageError(f"{name}: pods[{place}]: steps is {rule.steps}, expected 1 or more")
    return script

"""What comes out of a bundle or scenario, in the form in which `fixtures/expected/` keeps it.

`write_expectations.py` writes the files, `test_expectations.py` compares. DESIGN.md ("Scenarios and expectations").
"""

import datetime
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

import suite
from kube_gpucheck import diagnose, runner
from kube_gpucheck.diagnose.conclusion import Choice, conclude
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import CheckResult, Diagnosis, Outcome, Run, Severity, Subject

EXPECTED: Final = suite.FIXTURES / "expected"
LABELS: Final = EXPECTED / "labels.yaml"
CAUSES: Final = Path(diagnose.__file__).resolve().parent.parent / "causes"
FAIL_ON: Final = Severity.MAJOR
_CHECK: Final = re.compile(r"checks/([A-Z]{3}-\d{3})(?:-|$)")


def names() -> tuple[str, ...]:
    """Return every bundle and scenario, in order of name."""
    return tuple(sorted({*suite.LIBRARY.bundles(), *suite.LIBRARY.scenarios()}))


def file_of(name: str) -> Path:
    """Return where a bundle's or scenario's expectation stands."""
    return EXPECTED / f"{name}.yaml"


def written() -> tuple[str, ...]:
    """Return the names of the expectations that there are, in order."""
    files = (path for path in EXPECTED.rglob("*.yaml") if path != LABELS)
    return tuple(sorted(path.relative_to(EXPECTED).with_suffix("").as_posix() for path in files))


def read(name: str) -> dict[str, Any]:
    """Return an expectation as it is written."""
    content: dict[str, Any] = yaml.safe_load(file_of(name).read_text(encoding="utf-8"))
    return content


@functools.cache
def labels() -> Mapping[str, Mapping[str, Any]]:
    """Return the cause that each recording and stage is known to have."""
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(LABELS.read_text(encoding="utf-8"))
    return found


def check_of(name: str) -> str | None:
    """Return the id of the check that a scenario under checks/ shows, None for any other scenario or bundle."""
    found = _CHECK.match(name)
    return found[1] if found else None


@functools.cache
def catalogue() -> diagnose.Catalogue:
    return diagnose.load_catalogue({path.name: path.read_bytes() for path in sorted(CAUSES.glob("*.yaml"))})


def diagnosis_of(results: tuple[CheckResult, ...], cluster: Cluster) -> Diagnosis:
    """Return the diagnosis by the catalogue of the package."""
    return diagnose.diagnose(results, cluster, catalogue(), fail_on=FAIL_ON)


@functools.lru_cache(maxsize=1)
def run_of(name: str) -> Run:
    """Return the whole run over a bundle or scenario, as `gpucheck run --from NAME` makes it.

    The many small scenarios of single checks are judged without a run of pytest around each.
    """
    cluster = Cluster(suite.LIBRARY.build(name))
    through_pytest = name.startswith(("recorded/", "tutorial/", "complete"))  # ten times dearer, and proven equal
    results = runner.judge(cluster) if through_pytest else suite.judge_all(cluster)
    return conclude(
        results,
        cluster,
        diagnosis_of(results, cluster),
        Choice(fail_on=FAIL_ON),
        finished=datetime.datetime.fromtimestamp(0, datetime.timezone.utc),
        tool_version="0",
    )


def outcome_of(name: str) -> dict[str, Any]:
    """Return what comes out of a bundle or scenario: everything of its expectation but `also`."""
    run = run_of(name)
    found: dict[str, Any] = {
        "first_cause": run.first_cause,
        "minor": [cause.id for cause in run.lesser_causes],
        "exit": run.exit_code,
        "findings": _findings(run.results),
        "counts": {outcome.value: sum(result.count(outcome) for result in run.results) for outcome in Outcome},
    }
    check = check_of(name)
    if check is not None:
        found["seen"] = {
            f"{check} {subject_of(fault.subject)}": fault.seen
            for result in run.results
            if result.info.id == check
            for fault in result.faults
        }
    return found


def cured_already(name: str) -> list[str]:
    """Return the causes whose proof of the cure neither faults nor is unknown while the cause is there."""
    run = run_of(name)
    telling = {one.info.id for one in run.results if one.count(Outcome.FAULT) or one.count(Outcome.UNKNOWN)}
    return [cause.id for cause in run.causes if cause.then.split(" -k ")[1].split()[0] not in telling]


def _findings(results: tuple[CheckResult, ...]) -> list[list[str]]:
    told = {Outcome.FAULT, Outcome.UNKNOWN, Outcome.BROKEN}
    return sorted(
        [result.info.id, one.outcome.value, one.severity.value, subject_of(one.subject)]
        for result in results
        for one in result.others
        if one.outcome in told
    )


def subject_of(subject: Subject) -> str:
    """Return a subject as an expectation names it."""
    return str(subject)


def text_of(content: Mapping[str, Any]) -> str:
    """Return an expectation as YAML that a person reads: a line a finding, short lists in one line."""
    lines: list[str] = []
    for field, value in content.items():
        if field == "findings" and value:
            lines.append("findings:")
            lines.extend(f"  - {_flow(row)}" for row in value)
        elif field == "seen" and value:
            lines.append(yaml.safe_dump({field: value}, sort_keys=False, allow_unicode=True, width=118).rstrip())
        else:
            lines.append(f"{field}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()

"""Renders a run for a person at a terminal: the verdict first, then what to mend, then the rest.

Decides nothing and reads no environment: width and colour are handed in. Whatever comes from a
cluster is made visible before it is printed, so that a log's escape codes never reach the terminal.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kube_gpucheck.model import (
    THE_CLUSTER,
    CheckResult,
    DiagnosedCause,
    Finding,
    Judgement,
    Layer,
    Outcome,
    Run,
    Severity,
    Subject,
    Verdict,
)
from kube_gpucheck.report.text import capped, one_line, visible
from kube_gpucheck.report.wording import (
    OUTCOME_WORDS,
    checks_phrase,
    count_of,
    counts_phrase,
    last_line,
    names_phrase,
    nodes_phrase,
    reach_phrase,
    share_phrase,
    subjects_phrase,
    verdict_sentence,
)

NARROWEST: Final = 40
"""Columns below which the hanging indents would leave no room for words."""

_MARKS: Final = {
    Verdict.CONFORMS: ("✓", "bold green"),
    Verdict.FAULTS: ("✗", "bold red"),
    Verdict.UNKNOWN: ("?", "bold yellow"),
    Verdict.ERROR: ("!", "bold magenta"),
}
_SEVERITY_STYLES: Final = {
    Severity.CRITICAL: "bold red",
    Severity.MAJOR: "red",
    Severity.MINOR: "yellow",
    Severity.INFO: "dim",
}
_LABEL_WIDTH: Final = 7  # "halts", "means" and two spaces
_LAYER_WIDTH: Final = max(len(layer.value) for layer in Layer) + 2

# The catalogue quotes a command inside a sentence, or gives it as a step of its own. A command that is
# broken at the end of a line without a backslash runs by half when it is pasted.
_PROGRAMS: Final = (
    "apt|apt-get|containerd|crictl|ctr|dkms|dnf|gpucheck|helm|journalctl|k3s|kubectl|ldconfig|modprobe|"
    "nvidia-ctk|nvidia-smi|printf|rke2|sudo|systemctl|yum|zypper"
)
_COMMAND: Final = re.compile(rf"(?:{_PROGRAMS}) [^,;\n]*[^,;.\n]")
_REMARK: Final = re.compile(r" {3}\((.+)\)$", re.DOTALL)  # how the catalogue sets a remark apart from a command
_PROSE_ATOM: Final = re.compile(r"\(?(?:'[^'\n]+'|`[^`\n]+`)\S*|\S+")
_COMMAND_ATOM: Final = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+|\S+""")
_FOLD: Final = 2  # a path or name longer than so many lines is folded; a shorter one stays whole, to be copied


def render(run: Run, *, width: int, colour: bool, verbosity: int, quiet: bool) -> str:
    """Return the report, one line feed at its end, and without escape codes unless `colour`."""
    report = _Report(run, width=max(width, NARROWEST), verbosity=verbosity)
    if quiet:
        report.write_short()
    else:
        report.write_whole()
    return report.page.render(colour=colour)


class _Page:
    """Lines of styled text, wrapped with hanging indents."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: list[Text] = []

    def gap(self) -> None:
        if self._lines and self._lines[-1].plain:
            self._lines.append(Text())

    def write(self, body: Text, *, indent: int = 0, lead: Text | None = None, runnable: bool = False) -> None:
        """Add a paragraph; what follows its first line hangs under the end of `lead`."""
        if not body.plain.isprintable():  # the one gate that every word passes
            body = Text(one_line(body.plain), style=body.style)
        first = Text(" " * indent) + (lead or Text())
        hang = Text(" " * cell_len(first.plain))
        for number, line in enumerate(_wrapped(body, self._width - len(hang), runnable=runnable)):
            self._lines.append((hang if number else first) + line)

    def label(self, label: str, bodies: Iterable[str], *, indent: int) -> None:
        """Add paragraphs side by side with a label, which is written once."""
        for body in filter(None, bodies):
            self.write(Text(body), indent=indent, lead=_label(label))
            label = ""

    def steps(self, label: str, steps: Sequence[str], *, indent: int) -> None:
        """Add what to do, in numbered steps where there are several; a remark after a command on its own line."""
        for number, step in enumerate(steps, start=1):
            remark = _REMARK.search(step)
            lead = _label(label if number == 1 else "") + Text(f"{number}. " if len(steps) > 1 else "")
            words = one_line(step[: remark.start()] if remark else step)
            self.write(_styled(words, "cyan"), indent=indent, lead=lead, runnable=True)
            if remark:
                self.write(_styled(f"# {one_line(remark[1])}", "dim"), indent=indent, lead=Text(" " * len(lead)))

    def render(self, *, colour: bool) -> str:
        # An empty environment: rich would take the width, the colours and the kind of terminal from it.
        console = Console(
            file=io.StringIO(),
            force_terminal=colour,
            color_system="standard" if colour else None,
            no_color=not colour,
            width=self._width,
            height=100,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ={},
        )
        last = max((number for number, line in enumerate(self._lines, start=1) if line.plain), default=0)
        with console.capture() as captured:
            for line in self._lines[:last]:
                line.rstrip()
                console.print(line, soft_wrap=True)
        return captured.get()


class _Report:
    """One run, written section by section."""

    def __init__(self, run: Run, *, width: int, verbosity: int) -> None:
        self.page = _Page(width)
        self._run = run
        self._verbose = verbosity > 0
        self._numbers = {cause.id: number for number, cause in enumerate((*run.causes, *run.lesser_causes), start=1)}
        self._judged = {each.info.id: len(each.passed) + len(each.faults) for each in run.results}
        self._roots = run.unexplained
        self._most = 100 if self._verbose else 8  # entries of one list; the JSON report has them all
        self._longest = 4_000 if self._verbose else 400  # characters of one fact

    def write_short(self) -> None:
        self._write_verdict(simulated=self._run.info.simulated)
        match self._run.verdict:
            case Verdict.FAULTS:
                if self._run.causes:
                    self._write_cause(self._run.causes[0])
                else:
                    self._write_first_finding()
            case Verdict.UNKNOWN:
                self._write_unknowns(most=1)
            case Verdict.ERROR:
                self._write_broken()
                self._write_missing()
            case Verdict.CONFORMS:
                pass

    def write_whole(self) -> None:
        self._write_header()
        self._write_verdict(simulated=False)
        self._write_broken()
        self._write_causes()
        self._write_layers()
        self._write_lesser()
        self._write_unknowns(most=self._most)
        self._write_not_asked()
        self._write_missing()
        if self._verbose:
            self._write_checks()
            self._write_facts()

    # --- the top -------------------------------------------------------------------------------

    def _write_header(self) -> None:
        run = self._run
        where = one_line(run.info.where) + (" (simulated)" if run.info.simulated else "")
        header = Text(f" · {where} · {nodes_phrase(run.nodes)} · {checks_phrase(run.results)}")
        self.page.write(_styled("gpucheck", "bold") + header)
        self.page.gap()

    def _write_verdict(self, *, simulated: bool) -> None:
        mark, style = _MARKS[self._run.verdict]
        sentence = _styled(verdict_sentence(self._run) + (" (simulated)" if simulated else ""), style)
        self.page.write(sentence, lead=_styled(f"{mark} ", style))
        self.page.gap()

    def _write_broken(self) -> None:
        for result in self._run.results:
            crashes = [one for one in result.others if one.outcome is Outcome.BROKEN]
            if not crashes:
                continue
            where = f"crashed on {subjects_phrase([one.subject for one in crashes])}"
            self.page.write(_strong(result.info.id) + Text(f" · {where}"), indent=2)
            self.page.label("seen", [self._fact(last_line(crashes[0].reason))], indent=5)
            self.page.label("means", ["a defect of gpucheck, not of the cluster; report it with the bundle"], indent=5)
            if self._verbose:
                for line in visible(capped(crashes[0].reason, self._longest)).splitlines():
                    self.page.write(_styled(line.expandtabs(4).lstrip(), "dim"), indent=5 + _leading(line))
        self.page.gap()

    # --- causes --------------------------------------------------------------------------------

    def _write_causes(self) -> None:
        causes = self._run.causes
        in_full = len(causes) if self._verbose else 5
        for cause in causes[:in_full]:
            self._write_cause(cause)
        for cause in causes[in_full:]:
            self._write_cause_briefly(cause)
        self.page.gap()
        if not causes:
            self._write_first_finding()

    def _write_cause(self, cause: DiagnosedCause) -> None:
        self._write_cause_briefly(cause, indent=5)
        if any(subject != THE_CLUSTER for subject in cause.subjects):
            self.page.label("on", [subjects_phrase(cause.subjects)], indent=5)
        facts = [self._fact(fact) for fact in cause.seen[: self._most]]
        if len(cause.seen) > self._most:
            facts.append(f"and {len(cause.seen) - self._most:,} more facts")
        self.page.label("seen", facts, indent=5)
        if self._verbose:
            self.page.label("for", [self._fact(sign) for sign in cause.signs_for], indent=5)
            self.page.label("but", [self._fact(sign) for sign in cause.signs_against], indent=5)
        self.page.steps("do", cause.remedy, indent=5)
        self.page.label("halts", [one_line(cause.interrupts)], indent=5)
        self.page.steps("then", [cause.then], indent=5)
        if self._verbose:
            self.page.label("so", [f"explains {one_line(', '.join(cause.explains))}"], indent=5)
            self.page.label("see", [one_line(reference) for reference in cause.references], indent=5)
        self.page.gap()

    def _write_cause_briefly(self, cause: DiagnosedCause, *, indent: int = 5) -> None:
        number = f"{self._numbers[cause.id]:>{indent - 2}}  "
        heading = _strong(one_line(cause.id)) + _severity(cause.severity)
        self.page.write(heading + Text(f" · {reach_phrase(cause, self._run.nodes)}"), lead=_strong(number))
        self.page.write(Text(one_line(cause.title)), indent=indent)

    def _write_first_finding(self) -> None:
        if not self._roots:
            return
        self.page.write(Text("No known cause explains this. The first root finding:"), indent=2)
        first = self._roots[0]
        self._write_findings([one for one in self._roots if one.check.id == first.check.id], indent=5)
        for candidate in self._run.diagnosis.candidates[: self._most]:
            needed = names_phrase(candidate.unknown)
            self.page.label("maybe", [f"{one_line(candidate.id)}: not known is {needed}"], indent=5)
        self.page.gap()

    # --- layers --------------------------------------------------------------------------------

    def _write_layers(self) -> None:
        above = self._roots[0].check.id if self._roots and not self._run.causes else None
        for layer in Layer:
            results = [result for result in self._run.results if result.info.layer is layer]
            if not results:
                continue
            mark, style, words = self._layer_line(layer, results)
            lead = Text(f"  {layer.value.ljust(_LAYER_WIDTH)}") + _styled(f"{mark} ", style)
            self.page.write(_styled(words, "dim" if mark == "·" else ""), lead=lead)
            roots = [one for one in self._roots if one.check.layer is layer and one.check.id != above]
            for findings in _by_check(roots):
                self._write_findings(findings, indent=5)
        self.page.gap()

    def _layer_line(self, layer: Layer, results: Sequence[CheckResult]) -> tuple[str, str, str]:
        """Return mark, style and words."""
        run = self._run
        outcomes = {result.info.id: result.outcome(fail_on=run.fail_on) for result in results}
        counts = {outcome: list(outcomes.values()).count(outcome) for outcome in Outcome}
        total = len(results) - counts[Outcome.NOT_ASKED] - counts[Outcome.NOT_APPLICABLE]
        if layer in run.layers_not_installed:
            return "·", "dim", f"not applicable: {self._fact(run.layers_not_installed[layer])}"
        if not total:
            asked = Outcome.NOT_APPLICABLE if not counts[Outcome.NOT_ASKED] else Outcome.NOT_ASKED
            return "·", "dim", f"{OUTCOME_WORDS[asked]}: {self._why(results, asked)}"
        failing = [result for result in results if result.has_fault(at_least=run.fail_on)]
        lesser = sum(bool(result.faults) for result in results) - len(failing)
        unknown = [result for result in results if outcomes[result.info.id] is Outcome.UNKNOWN]
        partly = sum(result.is_judged for result in unknown)
        parts = [f"{counts[Outcome.PASS]} of {total} pass"]
        if lesser:
            parts.append(count_of(lesser, "lesser fault"))
        if partly:
            parts.append(f"{partly} unknown in part")
        if len(unknown) > partly:
            parts.append(f"{len(unknown) - partly} unknown")
        if counts[Outcome.BROKEN]:
            parts.append(f"{counts[Outcome.BROKEN]} crashed")
        if failing:
            parts.append(f"{count_of(len(failing), 'fault')}{self._explanation(failing)}")
            return "✗", "bold red", ", ".join(parts)
        if counts[Outcome.BROKEN]:
            return "!", "bold magenta", ", ".join(parts)
        if counts[Outcome.UNKNOWN]:
            return "?", "bold yellow", ", ".join(parts)
        return ("~", "yellow", ", ".join(parts)) if lesser else ("✓", "green", ", ".join(parts))

    def _explanation(self, failing: Sequence[CheckResult]) -> str:
        """Return what explains these checks' faults: ", consequences of 1"."""
        ids = {result.info.id for result in failing}
        groups: dict[str, set[str]] = {}
        for finding in self._run.diagnosis.findings:
            judgement = finding.judgement
            failed = judgement.outcome is Outcome.FAULT and judgement.severity.at_least(self._run.fail_on)
            if failed and finding.check.id in ids:
                groups.setdefault(self._explained_by(finding), set()).add(finding.check.id)
        explained = {by: checks for by, checks in groups.items() if by}
        if not explained:
            return ""
        if len(groups) == 1:
            noun = "a consequence" if len(ids) == 1 else "consequences"
            return f", {noun} of {next(iter(explained))}"
        said = [
            f"{len(checks)} {'a consequence' if len(checks) == 1 else 'consequences'} of {by}"
            for by, checks in explained.items()
        ]
        return f" ({', '.join(said)})"

    def _explained_by(self, finding: Finding) -> str:
        """Return the number of the cause, or the checks, that explain a finding; empty for a root."""
        if finding.cause is not None:
            number = self._numbers.get(finding.cause)
            return str(number) if number else one_line(finding.cause)
        return "" if finding.is_root else one_line(", ".join(finding.consequence_of))

    def _why(self, results: Sequence[CheckResult], outcome: Outcome) -> str:
        """Return the options that would ask, or the reason of the first judgement of this outcome."""
        judgements = [one for result in results for one in result.others if one.outcome is outcome]
        options = sorted({one.option for one in judgements if one.option})
        if options:
            return f"add {names_phrase(options)}"
        return self._fact(next((one.reason for one in judgements if one.reason), "no reason was given"))

    # --- findings ------------------------------------------------------------------------------

    def _write_findings(self, findings: Sequence[Finding], *, indent: int, brief: bool = False) -> None:
        """Write the findings of one check as one entry."""
        first = findings[0]
        judgements = [finding.judgement for finding in findings]
        severity = min((one.severity for one in judgements), key=lambda one: one.rank)
        where = share_phrase([one.subject for one in judgements], self._judged.get(first.check.id, 0))
        heading = _strong(first.check.id) + _severity(severity) + Text(f" · on {where}")
        self.page.write(heading, indent=indent)
        if not brief:
            self.page.write(Text(one_line(first.check.title)), indent=indent)
        self.page.label("seen", self._seen(judgements), indent=indent)
        if not brief:
            self.page.label("means", [self._fact(first.judgement.means)], indent=indent)
        self.page.steps("do", [first.judgement.remedy], indent=indent)
        if first.consequence_of:
            partly = f"partly a consequence of {one_line(', '.join(first.consequence_of))}"
            self.page.label("note", [partly], indent=indent)

    def _seen(self, judgements: Sequence[Judgement]) -> list[str]:
        """Return what was seen, of each subject apart where that differs."""
        subjects: dict[str, list[Subject]] = {}
        for one in judgements:
            subjects.setdefault(one.seen, []).append(one.subject)
        if len(subjects) == 1:
            return [self._fact(seen) for seen in subjects]
        most = 20 if self._verbose else 3
        facts = [f"{subjects_phrase(of, 2)}: {self._fact(seen)}" for seen, of in list(subjects.items())[:most]]
        if len(subjects) > most:
            facts.append(f"and {len(subjects) - most:,} more that differ")
        return facts

    def _write_lesser(self) -> None:
        run = self._run
        groups = _by_check(run.lesser_unexplained)
        if not run.lesser_causes and not groups:
            return
        self._write_title(f"Also seen, below {run.fail_on.value}")
        for cause in run.lesser_causes[: self._most]:
            self._write_cause_briefly(cause)
            most = self._most if self._verbose else 1
            self.page.label("seen", [self._fact(fact) for fact in cause.seen[:most]], indent=5)
            self.page.steps("do", cause.remedy, indent=5)
        for findings in groups[: self._most]:
            self._write_findings(findings, indent=5, brief=not self._verbose)
        left = max(len(run.lesser_causes) - self._most, 0) + max(len(groups) - self._most, 0)
        self._write_left_off(left, "lesser finding")
        self.page.gap()

    # --- what is not known ---------------------------------------------------------------------

    def _write_unknowns(self, *, most: int) -> None:
        by_reason: dict[str, list[Judgement]] = {}
        for result in self._run.results:
            for one in result.others:
                if one.outcome is Outcome.UNKNOWN:
                    by_reason.setdefault(one.reason, []).append(one)
        if not by_reason:
            return
        self._write_title("Could not be judged")
        for reason, judgements in list(by_reason.items())[:most]:
            words = Text(self._fact(reason) or "no reason was given")
            self.page.write(words, indent=2, lead=_styled("? ", "yellow"))
            checks = sorted({one.check for one in judgements})
            subjects = sorted({one.subject for one in judgements}, key=lambda subject: subject.place)
            named = names_phrase(checks, len(checks) if self._verbose else 6)
            self.page.write(
                _styled(f"{count_of(len(checks), 'check')}: {named} · on {subjects_phrase(subjects)}", "dim"),
                indent=4,
            )
        self._write_left_off(len(by_reason) - most, "reason")
        self.page.gap()

    def _write_not_asked(self) -> None:
        """Write the layers that were asked for in part; those left out whole have said so in their line."""
        parts: list[tuple[Layer, str]] = []
        for layer in Layer:
            results = [result for result in self._run.results if result.info.layer is layer]
            left_out = [result for result in results if result.outcome(fail_on=self._run.fail_on) is Outcome.NOT_ASKED]
            if left_out and any(result.is_judged or result.count(Outcome.UNKNOWN) for result in results):
                why = self._why(left_out, Outcome.NOT_ASKED)
                parts.append((layer, f"{len(left_out)} of {count_of(len(results), 'check')}: {why}"))
        if parts:
            self._write_title("Not asked")
        for layer, words in parts:
            self.page.write(Text(words), lead=_styled(f"  {layer.value.ljust(_LAYER_WIDTH)}· ", "dim"))
        self.page.gap()

    def _write_missing(self) -> None:
        groups: dict[tuple[str, str, str], list[str]] = {}
        for missing in self._run.missing:
            key = (missing.evidence, missing.kind.value, missing.reason)
            groups.setdefault(key, []).extend([missing.node] if missing.node else [])
        not_judged: dict[str, list[str]] = {}
        for node, reason in self._run.nodes.missing:
            not_judged.setdefault(reason, []).append(node)
        if not groups and not not_judged:
            return
        self._write_title("Evidence missing")
        for reason, nodes in list(not_judged.items())[: self._most]:
            share = f"{len(nodes):,} of {count_of(self._run.nodes.gpu, 'GPU node')} not judged"
            words = f"{share}, {names_phrase(nodes)}: {self._fact(reason)}"
            self.page.write(Text(words), indent=2, lead=_styled("· ", "dim"))
        for (evidence, kind, reason), nodes in list(groups.items())[: self._most]:
            where = f" on {names_phrase(nodes)}" if nodes else ""
            words = f"{one_line(evidence)}{where} · {kind}: {self._fact(reason)}"
            self.page.write(Text(words), indent=2, lead=_styled("· ", "dim"))
        left = max(len(groups) - self._most, 0) + max(len(not_judged) - self._most, 0)
        self._write_left_off(left, "piece")
        self.page.gap()

    # --- for who wants it all ------------------------------------------------------------------

    def _write_checks(self) -> None:
        self._write_title("Checks")
        for result in self._run.results:
            words = Text(f"{counts_phrase(result)} · {_milliseconds(result.duration_s)} · ")
            lead = Text("  ") + _strong(result.info.id) + Text("  ")
            self.page.write(words + _styled(one_line(result.info.title), "dim"), lead=lead)
        self.page.gap()

    def _write_facts(self) -> None:
        run = self._run
        facts: Mapping[str, str] = {
            "run": run.info.id,
            "gpucheck": run.tool_version,
            "profile": run.info.profile,
            "source": run.info.source,
            "started": run.info.started,
            "finished": run.info.finished,
            "judging": _milliseconds(sum(result.duration_s for result in run.results)),
            "exit": f"{run.exit_code} ({run.verdict.value})",
            **{f"--{name}": value for name, value in sorted(run.info.options.items())},
        }
        self._write_title("Run")
        widest = max(len(name) for name in facts)
        for name, value in facts.items():
            lead = _styled(f"  {one_line(name).ljust(widest)}  ", "dim")
            self.page.write(Text(self._fact(value)), lead=lead)

    # --- parts ---------------------------------------------------------------------------------

    def _write_title(self, title: str) -> None:
        self.page.gap()
        self.page.write(_styled(title, "bold"), indent=2)

    def _write_left_off(self, count: int, noun: str) -> None:
        if count > 0:
            words = f"and {count_of(count, f'more {noun}')}; -v shows more, --json all"
            self.page.write(_styled(words, "dim"), indent=4)

    def _fact(self, text: str) -> str:
        return one_line(text, self._longest)


def _by_check(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return the findings of each check together, in the order in which the checks first occur."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.check.id, []).append(finding)
    return list(groups.values())


def _label(label: str) -> Text:
    return _styled(label.ljust(_LABEL_WIDTH), "dim")


def _styled(text: str, style: str) -> Text:
    """Return the text with a style that ends with it: the style of `Text(…, style=…)` spreads to what is added."""
    return Text.assemble((text, style))


def _strong(text: str) -> Text:
    return _styled(text if text.isprintable() else one_line(text), "bold")


def _severity(severity: Severity) -> Text:
    return Text(" · ") + _styled(severity.value, _SEVERITY_STYLES[severity])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _leading(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _wrapped(text: Text, width: int, *, runnable: bool) -> list[Text]:
    """Return the text in lines of at most `width` columns, broken between words.

    A quoted command stays on one line where it fits; where it does not, each line of it but the last
    ends in a backslash, so that it can be pasted. So does a text that is `runnable` and reads like a
    command from end to end. A name or path that is a little too long stays whole.
    """
    lines: list[Text] = []
    start, end, continues = 0, 0, False
    for first, last, in_command in _words(text.plain, width, runnable=runnable):
        room = width - 2 if in_command else width
        if end > start and cell_len(text.plain[start:last]) > room:
            lines.append(text[start:end] + Text(" \\" if continues else ""))
            start = first
        end, continues = last, in_command
        while cell_len(text.plain[start:end]) > width * _FOLD:
            lines.append(text[start : start + width])
            start += width
    return [*lines, text[start:end]]


def _words(plain: str, width: int, *, runnable: bool) -> list[tuple[int, int, bool]]:
    """Return start and end of each word, and whether a line that ends after it needs a backslash."""
    if runnable and _COMMAND.fullmatch(plain):
        return _command_words(plain, 0)
    words: list[tuple[int, int, bool]] = []
    for atom in _PROSE_ATOM.finditer(plain):
        if " " in atom[0] and cell_len(atom[0]) > width:
            words.extend(_command_words(atom[0], atom.start()))
        else:
            words.append((atom.start(), atom.end(), False))
    return words


def _command_words(command: str, offset: int) -> list[tuple[int, int, bool]]:
    quotes = command[:1] in {"'", "`"}
    found = list(re.finditer(r"\S+", command) if quotes else _COMMAND_ATOM.finditer(command))
    return [(one.start() + offset, one.end() + offset, one is not found[-1]) for one in found]

"""What `gpucheck list` and `gpucheck explain` print: plain text, one entry a line or a page."""

import textwrap
from collections.abc import Iterable, Sequence

from kube_gpucheck.model import CheckInfo
from kube_gpucheck.report.text import visible


def table(rows: Iterable[Sequence[str]], *, width: int) -> str:
    """Return rows in aligned columns; the last column is wrapped under itself."""
    lines = [tuple(row) for row in rows]
    if not lines:
        return ""
    sizes = [max(len(row[place]) for row in lines) for place in range(len(lines[0]) - 1)]
    indent = sum(sizes) + 2 * len(sizes)
    made: list[str] = []
    for row in lines:
        head = "".join(f"{cell:<{size}}  " for cell, size in zip(row[:-1], sizes, strict=True))
        wrapped = textwrap.wrap(row[-1], max(width - indent, 20)) or [""]
        made.append((head + wrapped[0]).rstrip())
        made.extend(" " * indent + more for more in wrapped[1:])
    return "\n".join(made) + "\n"


def checks(infos: Iterable[CheckInfo], *, width: int) -> str:
    """Return one line a check: id, subject, severity, requirement."""
    return table(
        ((one.id, one.layer.value, one.subject.value, one.severity.value, one.title) for one in infos), width=width
    )


def check_page(info: CheckInfo, causes: Iterable[tuple[str, str]], *, width: int) -> str:
    """Return what one check judges, what it waits for, and the causes (id, title) that it can betray."""
    parts = [
        f"{info.id}  {info.title}.",
        f"layer {info.layer.value} · severity {info.severity.value} · judged of each {info.subject.value}",
    ]
    parts.extend(part for part in info.about.split("\n\n") if part.strip())
    if info.after:
        parts.append(f"explained by a fault of: {', '.join(info.after)}")
    text = "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in parts)
    rows = list(causes)
    listed = f"\n\ncauses that it can betray:\n{textwrap.indent(table(rows, width=width - 2), '  ')}" if rows else "\n"
    return f"{text}{listed}\nto judge it alone: gpucheck run -k {info.id}\n"


def code_page(
    heading: str,
    *,
    text: str,
    facts: Sequence[tuple[str, str]],
    steps: Sequence[str],
    causes: Sequence[tuple[str, str]],
    proof: str,
    source: str,
    width: int,
) -> str:
    """Return what one code of the driver's says: its meaning, what to do, and the causes (id, title) it can betray."""
    parts = [heading, textwrap.fill(text, width), "", table(facts, width=width), "do:", *_numbered(steps, width=width)]
    if causes:
        parts.extend(["", "causes that it can betray:", textwrap.indent(table(causes, width=width - 2), "  ").rstrip()])
    parts.extend(["", f"then: {proof}", "", textwrap.fill(f"source: {source}", width)])
    return visible("\n".join(parts)) + "\n"


def _numbered(steps: Sequence[str], *, width: int) -> list[str]:
    return [
        textwrap.fill(step, width, initial_indent=f"  {number}. ", subsequent_indent="     ")
        for number, step in enumerate(steps, start=1)
    ]


def cause_page(
    heading: str,
    *,
    facts: Sequence[tuple[str, str]],
    remedies: Sequence[tuple[str, Sequence[str]]],
    proof: str,
    width: int,
) -> str:
    """Return one cause: what it is, what speaks for it, and what to do for each distribution."""
    parts = [textwrap.fill(heading, width), "", table(facts, width=width)]
    for name, steps in remedies:
        parts.append(f"do ({name}):" if name != "default" else "do:")
        parts.extend(_numbered(steps, width=width))
    parts.extend(["", f"then: {proof}"])
    return visible("\n".join(parts)) + "\n"

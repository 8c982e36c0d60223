"""What `gpucheck show` prints: plain text in columns that survive being pasted into a ticket."""

from kube_gpucheck.model import Sheet, SheetTable
from kube_gpucheck.report.text import one_line


def render(sheet: Sheet) -> str:
    """Return a sheet as text: nothing in it is wrapped or coloured, and no text of others can steer a terminal."""
    size = max(len(name) for name, _ in sheet.facts)
    facts = [f"{name:<{size}}  {one_line(value)}".rstrip() for name, value in sheet.facts]
    return (
        "\n".join([one_line(sheet.title), "", *facts, *(line for table in sheet.tables for line in _table(table))])
        + "\n"
    )


def _table(table: SheetTable) -> list[str]:
    if not table.rows:
        return ["", f"{table.heading}: {one_line(table.empty)}"]
    rows = [table.columns, *(tuple(one_line(cell) for cell in row) for row in table.rows)]
    sizes = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return ["", f"{table.heading}:", *("  " + _columns(row, sizes) for row in rows)]


def _columns(row: tuple[str, ...], sizes: list[int]) -> str:
    return "  ".join(f"{cell:<{size}}" for cell, size in zip(row, sizes, strict=True)).rstrip()

"""Writes the table of docs/faults.md: what a collection makes of each fault.

Run by hand: `python tests/write_fault_table.py`, with the library on the path. Not a test.
"""

import sys

from fault_outcomes import BEGIN, CASES, END, PAGE, outcome_of, row_of

HEAD = "| `--fault` | what the server does | exit | what comes of it |\n| --- | --- | --- | --- |\n"


def main() -> int:
    """Replace the table in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    table = HEAD + "".join(row_of(fault, outcome_of(fault)) for fault in CASES)
    PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2], encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes fixtures/expected/: what comes out of each bundle and scenario. Read the difference before it is kept.

Run by hand: `python tests/write_expectations.py [NAME…]`, with the library on the path; without a name, all of
them. An existing file keeps its comment at the top and its list `also`. Not a test.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

import expectations


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the expectations that were named, and say which have changed. Returns 2 for an unknown name."""
    parser = argparse.ArgumentParser(description="Write what comes out of bundles and scenarios.")
    parser.add_argument("name", nargs="*", help="a bundle or scenario ('tutorial/07-discovery'); none: all")
    parser.add_argument("--prune", action="store_true", help="remove expectations of what is no longer there")
    options = parser.parse_args(arguments)
    known = expectations.names()
    unknown = sorted(set(options.name) - set(known))
    if unknown:
        print(f"no bundle or scenario is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    for name in options.name or known:
        print(f"{name}: {write(name)}")
    if options.prune:
        for name in sorted(set(expectations.written()) - set(known)):
            expectations.file_of(name).unlink()
            print(f"{name}: removed")
    return 0


def write(name: str) -> str:
    """Write one expectation, and tell what became of it."""
    path = expectations.file_of(name)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    after = header_of(before) + expectations.text_of(content_of(name, before))
    if after == before:
        return "as it was"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(after, encoding="utf-8")
    return "changed" if before else "new"


def content_of(name: str, before: str) -> dict[str, Any]:
    """Return an expectation's fields in their order, with the `also` that stood there, else the label's."""
    kept = yaml.safe_load(before) or {}
    also = kept.get("also", expectations.labels().get(name, {}).get("also", []))
    found = expectations.outcome_of(name)
    return {"first_cause": found.pop("first_cause"), "also": also, **found}


def header_of(text: str) -> str:
    """Return the comment and empty lines that a file begins with."""
    lines = text.splitlines(keepends=True)
    end = next((place for place, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(lines[:end])


if __name__ == "__main__":
    sys.exit(main())

"""The house's rules: who may import whom, what may not live where, what the wheel carries.

Reads the source of the checkout, never the installed package, except where a test says so. A room
that does not exist yet breaks no rule; a file in the library that belongs to no room does.
"""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, TypeVar

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
Node = TypeVar("Node", bound=ast.AST)

PACKAGE: Final = "kube_gpucheck"
LIBRARY: Final = ROOT / "src" / PACKAGE
SUITE: Final = ROOT / "conformance"
FOLDERS: Final = ("conformance", "fixtures", "workloads", "reports")

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    room: frozenset(others.split())
    for room, others in {
        "__init__": "",
        "__main__": "cli",
        "model": "",
        "errors": "",
        "causes": "",
        "data": "",
        "assets": "errors",
        "evidence": "model errors",
        "judging": "model",
        "hooks": "model",
        "report": "model",
        "collect": "evidence model errors",
        "imports": "evidence model errors",
        "simulate": "evidence model errors",
        "diagnose": "evidence model errors",
        "conformance": "judging evidence model",
        "plugin": "hooks judging evidence model errors",
        "runner": "assets evidence model errors",
        "cli": (
            "__init__ assets collect conformance diagnose errors evidence hooks imports judging model report runner "
            "simulate"
        ),
    }.items()
}
"""STYLE.md, "The house": what is not listed is forbidden. A room may import itself."""

LATE_IMPORTS: Final = frozenset({"cli", "runner", "collect"})
"""The rooms in which an import may stand inside a function."""

NO_CLOCK: Final = frozenset({"model", "judging", "hooks", "evidence", "diagnose", "report", "conformance"})
"""The rooms that know no time but the evidence's."""

OF_A_CHECK: Final = frozenset(
    {
        "collections",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "itertools",
        "math",
        "operator",
        "re",
        "statistics",
        "typing",
    }
)
"""The standard modules that a check may use: none of them does I/O."""

OUTSIDE: Final = frozenset(
    {
        "asyncio",
        "glob",
        "http",
        "io",
        "kubernetes",
        "multiprocessing",
        "os",
        "pathlib",
        "pynvml",
        "shutil",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "urllib3",
    }
)
"""Modules that reach outside the process: files, processes, the network, a clock."""

NAMELESS: Final = frozenset({"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"})


def files_in(folder: Path) -> list[Path]:
    """Return every Python file under a folder, sorted; none if there is no such folder."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def house() -> list[Path]:
    """Return the library's and the suite's Python files."""
    return [*files_in(LIBRARY), *files_in(SUITE)]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    """Yield every node of one kind in a file's syntax tree."""
    tree = parsed(path)
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def room_of(path: Path) -> str:
    """Return the room that a file of the house belongs to."""
    if path.is_relative_to(SUITE):
        return "conformance"
    return Path(path.relative_to(LIBRARY).parts[0]).stem


def at(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def imported(node: ast.stmt) -> list[str]:
    """Return the full names that a statement imports; none if it imports nothing.

    `from a import b` counts as `a.b`: whether `b` is a module cannot be told from here, and the
    first two parts of the name are all that the rules read.
    """
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=0):
            return [f"{module}.{alias.name}" for alias in names]
        case ast.ImportFrom(level=level, lineno=line):
            pytest.fail(f"a relative import of level {level} in line {line}; write it in full")
        case _:
            return []


def imports(path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each import of a file, wherever it stands, and the full name that it imports."""
    for node in nodes(path, ast.stmt):
        for name in imported(node):
            yield node, name


def room_imported(name: str) -> str | None:
    """Return the room that a full name leads to, or `None` for another package's."""
    match name.split("."):
        case ["conformance", *_]:
            return "conformance"
        case [package, room, *_] if package == PACKAGE:
            return room if room in MAY_IMPORT else "__init__"
        case [package] if package == PACKAGE:
            return "__init__"
        case _:
            return None


def top_level(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def test_every_rule_names_rooms_that_are_known() -> None:
    named = frozenset().union(*MAY_IMPORT.values()) | LATE_IMPORTS | NO_CLOCK

    assert named <= MAY_IMPORT.keys()


def test_every_file_of_the_library_belongs_to_a_room() -> None:
    assert [str(path) for path in files_in(LIBRARY) if room_of(path) not in MAY_IMPORT] == []


def test_a_room_imports_only_the_rooms_that_its_rule_lists() -> None:
    broken = [
        f"{at(path, node)} imports {name}"
        for path in house()
        for node, name in imports(path)
        if (room := room_imported(name)) is not None and room != room_of(path) and room not in MAY_IMPORT[room_of(path)]
    ]

    assert broken == []


def test_the_rules_themselves_keep_the_rooms_apart() -> None:
    sources = {"collect", "imports", "simulate"}

    assert all(MAY_IMPORT[room].isdisjoint(sources) for room in sources)
    assert all(MAY_IMPORT[room] == {"model"} for room in ("judging", "hooks", "report"))
    assert not any("plugin" in others for others in MAY_IMPORT.values())


def test_only_the_runner_names_the_plugin() -> None:
    naming = {
        room_of(path) for path in house() for node in nodes(path, ast.Constant) if node.value == f"{PACKAGE}.plugin"
    }

    assert naming <= {"runner"}


def test_an_import_stands_inside_a_function_only_where_that_is_allowed() -> None:
    broken = {
        f"{at(path, node)} in {function.name}"
        for path in house()
        if room_of(path) not in LATE_IMPORTS
        for function in nodes(path, ast.stmt)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }

    assert broken == set()


def host_collector() -> list[Path]:
    """Return the files that travel to nodes, as a program of their own."""
    return [path for path in files_in(LIBRARY / "collect") if path.name.startswith("host")]


def test_the_host_collector_imports_the_standard_library_pynvml_the_deadlines_and_its_own_parts_alone() -> None:
    allowed = {*sys.stdlib_module_names, "pynvml"}
    own = tuple(f"{PACKAGE}.collect.{path.stem}" for path in host_collector())
    travelling = (f"{PACKAGE}.collect.deadlines", f"{PACKAGE}.evidence.block", *own)
    broken = [
        f"{at(path, node)} imports {name}"
        for path in host_collector()
        for node, name in imports(path)
        if top_level(name) not in allowed and not f"{name}.".startswith(tuple(f"{one}." for one in travelling))
    ]

    assert own
    assert broken == []


def test_what_travels_to_nodes_is_written_for_python_3_8() -> None:
    """The names are methods of later versions, as far as anybody was tempted."""
    travelling = [*host_collector(), LIBRARY / "collect" / "deadlines.py", LIBRARY / "evidence" / "block.py"]
    later = {"removeprefix", "removesuffix", "pairwise", "is_relative_to", "with_stem"}
    for path in travelling:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 8))
    broken = [at(path, node) for path in travelling for node in nodes(path, ast.Attribute) if node.attr in later]

    assert broken == []


def test_importing_the_command_loads_nothing_slow() -> None:
    """Judges the installed package."""
    program = f"import json, sys, {PACKAGE}.cli; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(json.loads(answer.stdout))

    assert f"{PACKAGE}.cli" in loaded
    assert loaded & {"_pytest", "jinja2", "kubernetes", "prometheus_client", "pynvml", "pytest", "rich"} == set()


def test_a_check_imports_only_what_does_no_io() -> None:
    broken = [
        f"{at(path, node)} imports {name}"
        for path in files_in(SUITE)
        for node, name in imports(path)
        if room_imported(name) is None and top_level(name) not in OF_A_CHECK
    ]

    assert broken == []


def test_the_words_the_checks_tools_and_the_diagnosis_do_no_io() -> None:
    forbidden = OUTSIDE | {"pytest", "_pytest"}
    broken = [
        f"{at(path, node)} imports {name}"
        for path in house()
        if room_of(path) in {"model", "judging", "diagnose"}
        for node, name in imports(path)
        if top_level(name) in forbidden
    ]

    assert broken == []


def test_no_room_has_a_clock_that_must_not_have_one() -> None:
    broken = [
        at(path, node)
        for path in house()
        if room_of(path) in NO_CLOCK
        for node in nodes(path, ast.Call)
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}
        and isinstance(node.func.value, ast.Name | ast.Attribute)
        and ast.unparse(node.func.value) in {"datetime", "datetime.datetime", "date", "datetime.date", "time"}
    ]

    assert broken == []


def test_nobody_sleeps_or_mocks() -> None:
    banned = re.compile(r"time\.sleep|unittest\.mock(\..*)?|asyncio\.sleep")
    paths = [*house(), *files_in(ROOT / "tests")]
    called = [
        at(path, node) for path in paths for node in nodes(path, ast.Attribute) if banned.fullmatch(ast.unparse(node))
    ]
    brought = [at(path, node) for path in paths for node, name in imports(path) if banned.fullmatch(name)]

    assert called + brought == []


def test_a_collector_does_not_say_what_ought_to_be() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files_in(LIBRARY / "collect")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\b(should|expected)\b", line, re.IGNORECASE)
    ]

    assert broken == []


def test_only_assets_builds_a_path_to_the_four_folders() -> None:
    broken = [
        f"{at(path, node)}: {part!r}"
        for path in house()
        if room_of(path) != "assets"
        for node in nodes(path, ast.expr)
        for part in path_parts(node)
        if part in folders_out_of_reach(room_of(path))
    ]

    assert broken == []


def folders_out_of_reach(room: str) -> set[str]:
    """Return the names that a room must not use in a path.

    A bundle has a folder `workloads` of its own (DESIGN.md, "Bundle"), which the rooms that read
    and write bundles may name.
    """
    of_bundles = {"workloads"} if room in {"evidence", "collect", "imports", "simulate"} else set()
    return {*FOLDERS, "_suite"} - of_bundles


def path_parts(node: ast.expr) -> list[str]:
    """Return the names that an expression joins to a path, as far as they are written out."""
    match node:
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            operands = [left, right]
        case ast.Call(func=ast.Name(id="Path" | "PurePath" | "PurePosixPath" | "files"), args=args):
            operands = args
        case ast.Call(func=ast.Attribute(attr="Path" | "join" | "joinpath" | "files"), args=args):
            operands = args
        case _:
            return []
    texts = [operand.value for operand in operands if isinstance(operand, ast.Constant)]
    return [part for text in texts if isinstance(text, str) for part in re.split(r"[/\\]", text)]


def test_the_suite_holds_no_conftest_and_no_package() -> None:
    assert [str(path) for path in files_in(SUITE) if path.name in {"conftest.py", "__init__.py"}] == []


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    paths = [*house(), *files_in(ROOT / "tests"), *files_in(ROOT / "workloads")]
    named = {part for path in paths for part in path.relative_to(ROOT).with_suffix("").parts}

    assert named & NAMELESS == set()


def test_a_workload_runs_without_the_library() -> None:
    broken = [
        f"{at(path, node)} imports {name}"
        for path in files_in(ROOT / "workloads")
        for node, name in imports(path)
        if room_imported(name) is not None
    ]

    assert broken == []


def test_nothing_imports_from_the_fixtures_the_workloads_or_the_reports() -> None:
    broken = [
        f"{at(path, node)} imports {name}"
        for path in house()
        for node, name in imports(path)
        if top_level(name) in {"fixtures", "workloads", "reports"}
    ]

    assert broken == []


def test_the_four_folders_are_in_the_installed_wheel_and_not_copied_beside_an_editable_one() -> None:
    """Judges the installed package."""
    installed = distribution("kube-gpucheck")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    is_editable = origin.get("dir_info", {}).get("editable", False)
    carried = {file.parts[2] for file in installed.files or () if file.parts[:2] == (PACKAGE, "_suite")}
    filled = {name for name in FOLDERS if any(path.is_file() for path in (ROOT / name).rglob("*"))}

    assert carried == (set() if is_editable else filled)

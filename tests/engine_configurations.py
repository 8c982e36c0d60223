"""Configurations of containerd for tests: the corpus, random ones, and what the real program prints of them.

Not a test itself. `write_engine_dumps.py` records with it what releases print that are not packaged here.
"""

import functools
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from bundle_builders import memory_node
from kube_gpucheck.evidence import Node, containerd
from kube_gpucheck.evidence.configuration import Configuration

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORPUS: Final = Path(__file__).parent / "data" / "containerd.yaml"
PRINTED: Final = Path(__file__).parent / "data" / "containerd_printed.yaml"
PLACE: Final = "/etc/containerd"
_MARK: Final = "/R/"
_STARTING: Final = re.compile(r'msg="starting cri plugin" config="((?:[^"\\]|\\.)*)"')
_FAILED: Final = re.compile(r'msg="failed to load plugin" error="(.*)" id=io\.containerd\.cri\.v1\.runtime')
_LOADING: Final = re.compile(r'msg="loading plugin" id=io\.containerd\.grpc\.v1\.cri')


class Case(msgspec.Struct, frozen=True):
    """Files by their path below the main one's folder; None is a folder. The rest as containerd.yaml explains it."""

    name: str
    files: Mapping[str, str | None]
    unknown: tuple[str, ...] = ()
    unread: str = ""

    def texts(self, place: str) -> dict[str, str | None]:
        """Return the files as they are where the main one lies in that folder."""
        return {path: None if text is None else text.replace(_MARK, f"{place}/") for path, text in self.files.items()}


@functools.cache
def corpus() -> tuple[Case, ...]:
    """Return every configuration of the corpus."""
    return tuple(_case(name, one) for name, one in yaml.safe_load(CORPUS.read_text(encoding="utf-8")).items())


def _case(name: str, content: Mapping[str, Any]) -> Case:
    more = {"unknown": tuple(content.get("unknown", ())), "unread": content.get("unread", "")}
    return Case(name, {path: text for path, text in content.items() if path not in more}, **more)


def node_of(case: Case, release: str) -> Node:
    """Return a node whose host has these files in /etc/containerd, and an engine of that release."""
    reads: dict[str, Any] = {}
    folders: dict[str, list[dict[str, Any]]] = {PLACE: []}
    for path, text in case.texts(PLACE).items():
        whole = f"{PLACE}/{path}"
        folder, _, name = whole.rpartition("/")
        kind = "dir" if text is None else "file"
        folders.setdefault(folder, []).append({"name": name, "type": kind})
        reads[f"file:{whole}"] = {"error": "EISDIR"} if text is None else {"text": text}
    for folder, entries in folders.items():
        reads[f"list:{folder}"] = {"entries": sorted(entries, key=lambda one: str(one["name"]))}
    for text in (one or "" for one in case.texts(PLACE).values()):
        for word in text.replace('"', " ").split():
            if word.startswith(f"{PLACE}/") and "*" not in word:
                reads.setdefault(f"file:{word}", {"absent": True})
    for folder in (f"{PLACE}/conf.d", "/conf.d"):
        reads.setdefault(f"list:{folder}", {"absent": True})
    return memory_node(reads, engine=f"containerd://{release}")


def write(case: Case, folder: Path) -> Path:
    """Put the files into a folder and return the main one."""
    for path, text in case.texts(str(folder)).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            target.mkdir()
        else:
            target.write_bytes(text.encode())
    return folder / "config.toml"


def dump(program: str, main: Path) -> tuple[str | None, str]:
    """Return what the program prints of a main file, None if it refuses it, and its last word on standard error.

    In both the folder is called as it is in `node_of`.
    """
    done = subprocess.run(
        [program, "--config", str(main), "config", "dump"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
        env={"GOGC": "off"},  # a dump is over before its garbage is worth collecting: 15 % of the time
    )
    said, error = (text.replace(str(main.parent), PLACE) for text in (done.stdout, done.stderr))
    return (said if done.returncode == 0 else None), (error.strip().splitlines() or [""])[-1]


def loaded(program: str, main: Path, place: Path) -> dict[str, Any]:
    """Return what a daemon of 2.x runs with: started in folders of its own, asked by its log, and ended.

    Either "refused" with its last word, or what `meaning` gives of a configuration.
    """
    command = [program, "--config", str(main), "--root", str(place / "root"), "--state", str(place / "state")]
    with subprocess.Popen(
        [*command, "--address", str(place / "c.sock")], stderr=subprocess.PIPE, text=True, cwd="/"
    ) as running:
        assert running.stderr is not None
        lines: list[str] = []
        for line in running.stderr:
            lines.append(line.replace(str(main.parent), PLACE))
            if "successfully booted" in line:
                running.terminate()
                break
    told = next((found for line in lines if (found := _STARTING.search(line))), None)
    if running.returncode != 0 and not any("successfully booted" in line for line in lines):
        return {"refused": lines[-1].strip()}
    if not any(_LOADING.search(line) for line in lines):
        return {"cri_disabled": True}
    if told is None:
        return {"failed": next(found[1] for line in lines if (found := _FAILED.search(line)))}
    config = json.loads(json.loads(f'"{told[1]}"'))
    engine = config["containerd"]
    nri = next((line for line in lines if "NRI interface is disabled" in line), None)
    return {
        "handlers": {
            name: [
                (one.get("options") or {}).get("BinaryName") or None,
                one.get("runtimeType") or "",
                bool((one.get("options") or {}).get("SystemdCgroup")),
            ]
            for name, one in sorted(engine["runtimes"].items())
        },
        "default": engine["defaultRuntimeName"],
        "enable_cdi": config["enableCDI"],
        "cdi_spec_dirs": config["cdiSpecDirs"],
        "nri_disabled": nri is not None,
    }


@functools.cache
def defaults(program: str) -> Mapping[str, Any]:
    """Return what the program prints of no configuration at all, key by key."""
    done = subprocess.run([program, "config", "default"], capture_output=True, text=True, timeout=60, check=True)
    return flat(tomllib.loads(done.stdout))


@functools.cache
def program() -> str | None:
    """Return where containerd is, None if it is not installed."""
    return shutil.which("containerd")


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return a document's values by dotted key."""
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found.update(flat(one, f"{key}.{name}" if key else name))
    return found


def differences(case: Case, configuration: Configuration, printed: str, built_in: Mapping[str, Any]) -> list[str]:
    """Return every key in which our settings and a dump of containerd 1.x differ: values, keys too many and too few.

    What no file sets is built in; but in a handler it is empty, for a file's handlers take the place of the built-in.
    """
    theirs = flat(tomllib.loads(printed))
    ours = {".".join(one.key): one.value for one in configuration.settings}
    if configuration.version == 1:  # the dump has the names of version 2
        ours = {key.replace("plugins.cri.", f"plugins.{containerd.CRI_V2}.", 1): one for key, one in ours.items()}
    handlers = f"plugins.{containerd.CRI_V2}.containerd.runtimes."
    has_own = any(key.startswith(handlers) for key in ours)
    ours |= {"version": 2, "imports": tuple(sorted(configuration.files))}
    theirs["imports"] = sorted(theirs["imports"])
    cri = f"plugins.{containerd.CRI_V2}."
    passed_over = (*case.unknown, cri) if configuration.cri_disabled else case.unknown
    found = [f"{key}: only ours" for key in ours if key not in theirs and not key.startswith(passed_over)]
    found += [f"{key}: known after all" for key in theirs if key.startswith(passed_over)]
    for key, value in theirs.items():
        empty = type(value)()
        mine = ours.get(key, empty if has_own and key.startswith(handlers) else built_in.get(key, empty))
        if (list(mine) if isinstance(mine, tuple) else mine) != value:
            found.append(f"{key}: ours {mine!r}, theirs {value!r}")
    return found


def meaning(found: Configuration, release: tuple[int, ...]) -> dict[str, Any]:
    """Return what a configuration comes to for GPUs, with what the release has built in where no file says it."""
    if found.cri_disabled:
        return {"cri_disabled": True}
    merges = release >= (2, 0)
    if release < (1, 7):  # knows of neither
        found = msgspec.structs.replace(found, enable_cdi=None, cdi_spec_dirs=None, nri_disabled=None)
    return {
        "handlers": {one.name: [one.binary, one.runtime_type, bool(one.systemd_cgroup)] for one in found.handlers},
        "default": found.default,
        "enable_cdi": merges if found.enable_cdi is None else found.enable_cdi,
        "cdi_spec_dirs": list(found.cdi_spec_dirs or ("/etc/cdi", "/var/run/cdi")),
        "nri_disabled": not merges if found.nri_disabled is None else found.nri_disabled,
    }


_VALUES: Final[Mapping[str, tuple[Any, ...]]] = {
    "sandbox_image": ("pause:3.6", "pause:3.9"),
    "enable_selinux": (True, False),
    "stream_server_port": ("0", "10010"),
    "max_concurrent_downloads": (3, 8),
    "device_ownership_from_security_context": (True, False),
}
_ENGINE: Final[Mapping[str, tuple[Any, ...]]] = {
    "default_runtime_name": ("runc", "nvidia", "crun", ""),
    "snapshotter": ("overlayfs", "native"),
    "no_pivot": (True, False),
    "discard_unpacked_layers": (True, False),
}
_RUNTIME: Final[Mapping[str, tuple[Any, ...]]] = {
    "runtime_type": ("io.containerd.runc.v2", "io.containerd.runc.v1"),
    "pod_annotations": (["a.*"], ["b.*", "c"], []),
    "privileged_without_host_devices": (True, False),
    "runtime_engine": ("", "/usr/bin/nvidia-container-runtime"),
}
_OPTIONS: Final[Mapping[str, tuple[Any, ...]]] = {
    "BinaryName": ("/usr/bin/nvidia-container-runtime", "/usr/local/nvidia/toolkit/nvidia-container-runtime", "runc"),
    "SystemdCgroup": (True, False),
    "Root": ("/run/a", ""),
}
_OUTSIDE: Final[Mapping[str, tuple[Any, ...]]] = {
    "root": ("/a", "/b", ""),
    "oom_score": (-999, 0, 7),
    "grpc": ({"address": "/a.sock", "uid": 4}, {"address": "", "gid": 5}, {"uid": 0}),
    "timeouts": ({"io.containerd.timeout.shim.load": "7s"}, {"io.containerd.timeout.shim.load": "9s"}),
}
_NAMES: Final = ("runc", "nvidia", "nvidia-cdi", "crun", "kata.v2")


def random_case(seed: int) -> Case:
    """Return a main file with up to four imports, of like and unlike versions, whose tables overlap."""
    chance = random.Random(seed)  # noqa: S311  the same files at each run
    paths = sorted(chance.sample([f"conf.d/{number}-{name}.toml" for number in (10, 20, 99) for name in "ab"], 3))
    paths = paths[: chance.randrange(4)]
    usual = chance.choice((2, 2, 2, 2, 1, 0))
    files = {path: _random_file(chance, usual, imports=()) for path in paths}
    if chance.random() < 0.2:
        files["more.toml"] = _random_file(chance, usual, imports=())
    ways = (["/R/conf.d/*.toml"], [f"/R/{path}" for path in reversed(paths)], paths)
    imports = [*chance.choice(ways), *(["more.toml"] if "more.toml" in files else [])]
    return Case(f"seed-{seed}", {"config.toml": _random_file(chance, usual, imports=tuple(imports)), **files})


def _random_file(chance: random.Random, usual: int, *, imports: tuple[str, ...]) -> str:
    version = usual if chance.random() < 0.9 else chance.choice((0, 1, 2, 3))
    outside = _some(chance, _OUTSIDE, 0.25)
    if chance.random() < 0.1:
        outside["disabled_plugins"] = [chance.choice(("io.containerd.snapshotter.v1.zfs", containerd.CRI_V2, "cri"))]
    section = containerd.CRI_V1 if version < 2 else containerd.CRI_V2
    if chance.random() < 0.05:
        section = chance.choice((containerd.CRI_V1, containerd.CRI_V2, containerd.CRI_V3))
    plugins: dict[str, Any] = {}
    if chance.random() < 0.8:
        plugins[section] = _random_section(chance)
    head = ([f"version = {version}"] if version else []) + ([f"imports = {list(imports)!r}"] if imports else [])
    return "\n".join([*head, *_written({**outside, **({"plugins": plugins} if plugins else {})}, (), chance)]) + "\n"


def _random_section(chance: random.Random) -> dict[str, Any]:
    engine = _some(chance, _ENGINE, 0.3)
    names = chance.sample(_NAMES, chance.randrange(4))
    runtimes = {
        name: {**_some(chance, _RUNTIME, 0.6), **({"options": some} if (some := _some(chance, _OPTIONS, 0.5)) else {})}
        for name in names
    }
    if any(runtimes.values()):
        engine["runtimes"] = {name: one for name, one in runtimes.items() if one}
    return {**_some(chance, _VALUES, 0.3), **({"containerd": engine} if engine else {})}


def _some(chance: random.Random, values: Mapping[str, tuple[Any, ...]], share: float) -> dict[str, Any]:
    return {key: chance.choice(some) for key, some in values.items() if chance.random() < share}


def _written(table: Mapping[str, Any], path: tuple[str, ...], chance: random.Random) -> list[str]:
    """Return a table as TOML: some tables in one line, keys quoted in either way or not at all."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"{_key(key, chance)} = {_value(value)}" for key, value in plain.items()]
    for key, value in inner.items():
        if path and chance.random() < 0.2 and not any(isinstance(one, dict) for one in value.values()):
            lines.insert(0, f"{_key(key, chance)} = {_value(value)}")
    header = [f"[{'.'.join(_key(one, chance) for one in path)}]  # {len(path)}"] if path and lines else []
    written = {line.split(" = {")[0].strip("\"'") for line in lines}
    below = [
        line for key, value in inner.items() if key not in written for line in _written(value, (*path, key), chance)
    ]
    return [*header, *lines, *below]


def _key(key: str, chance: random.Random) -> str:
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", key) is not None
    return chance.choice(([key] if bare else []) + [f'"{key}"', f"'{key}'"])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)

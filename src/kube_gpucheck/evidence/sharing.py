"""The device plugin's configuration: what a file or the plugin's log says, and what it makes of a number of GPUs.

Parses the one format of both (`version: v1`): a ConfigMap's YAML, and the JSON that the plugin prints after
"Running with config:". Which configuration a node is given stands in `deviceplugin`. Source: k8s-device-plugin
0.12 to 0.20, `api/config/v1` (config, replicas, sharing) and `cmd/config-manager`.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import yaml

DEFAULT_RESOURCE: Final = "nvidia.com/gpu"
"""What a whole GPU is called unless the configuration renames it."""
SHARED_SUFFIX: Final = ".shared"
"""What `renameByDefault` appends to a shared resource's name."""
CONFIG_LABEL: Final = "nvidia.com/device-plugin.config"
"""The node label by which a node asks for one of several configurations, unless NODE_LABEL names another."""
FALLBACK_NAME: Final = "default"
"""The entry that the fallback strategy `named` looks for."""

_SHARING_KEYS: Final = frozenset({"timeSlicing", "mps", "renameByDefault", "failRequestsGreaterThanOne", "replicas"})
_MAX_CHARS: Final = 1_100_000  # a ConfigMap holds at most 1 MiB
_PREFIX: Final = "nvidia.com/"


class ConfigError(Exception):
    """A configuration that the plugin refuses; the text says why, in a reader's words."""


class Replication(msgspec.Struct, frozen=True):
    """How one resource is shared: its name, the name it is offered under, and copies of each device."""

    name: str
    offered: str
    replicas: int


class Sharing(msgspec.Struct, frozen=True):
    """Sharing as configured. `strategy`: none, time-slicing or mps.

    `refuses_above_one`: a container that asks for more than one share is refused at admission
    (failRequestsGreaterThanOne; MPS does so unless it is told otherwise).
    """

    strategy: str = "none"
    resources: tuple[Replication, ...] = ()
    refuses_above_one: bool = False

    def of(self, name: str) -> Replication | None:
        """Return how a resource (by the name it would have unshared) is shared, None if it is not."""
        return next((one for one in self.resources if one.name == name), None)

    def offering(self, name: str) -> Replication | None:
        """Return the sharing that offers a resource under this name, None if none does."""
        return next((one for one in self.resources if one.offered == name), None)

    def __str__(self) -> str:
        """Return it in a reader's words."""
        if not self.resources:
            return "no sharing"
        parts = (
            f"{one.name} x {one.replicas}{f' as {one.offered}' if one.offered != one.name else ''}"
            for one in self.resources
        )
        return f"{self.strategy}: {', '.join(parts)}{', requests above 1 refused' if self.refuses_above_one else ''}"


class PluginConfig(msgspec.Struct, frozen=True):
    """What a configuration says. `None` where it says nothing (the plugin then has its default).

    `names`: (pattern of the product's name, resource) of whole GPUs, in the order in which they are tried.
    `misplaced`: sharing keys found where the plugin does not read them, with their section.
    """

    mig_strategy: str | None = None
    fail_on_init_error: bool | None = None
    device_list_strategies: tuple[str, ...] = ()
    pass_device_specs: bool | None = None
    names: tuple[tuple[str, str], ...] = ()
    sharing: Sharing = Sharing()
    misplaced: tuple[str, ...] = ()

    def resource_of(self, product: str) -> str | None:
        """Return the resource that a whole GPU of this product becomes, None if no pattern matches it."""
        return next(
            (name for pattern, name in self.names or ((("*", DEFAULT_RESOURCE)),) if _matches(pattern, product)), None
        )

    @property
    def one_name(self) -> str | None:
        """The resource that every whole GPU becomes, None if that depends on its product."""
        first_pattern, first_name = self.names[0] if self.names else ("*", DEFAULT_RESOURCE)
        return first_name if first_pattern.strip("*") == "" else None

    def offered(self, devices: Mapping[str, int]) -> dict[str, int]:
        """Return what a node offers of these devices (by unshared resource name): each times its replicas."""
        offered: dict[str, int] = {}
        for name, count in devices.items():
            shared = self.sharing.of(name)
            title = shared.offered if shared else name
            offered[title] = offered.get(title, 0) + count * (shared.replicas if shared else 1)
        return offered


def parse_config(text: str) -> PluginConfig:
    """Return what a configuration file says; an empty file says nothing.

    Raises:
        ConfigError: the plugin would refuse it.
    """
    if len(text) > _MAX_CHARS:
        raise ConfigError(f"{len(text):,} characters; a ConfigMap holds at most 1 MiB")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())[:200]}") from error
    return decode_config(document)


def sharing_in(text: str) -> Sharing | None:
    """Return the sharing that a text asks for, None where it is no configuration of the plugin or shares nothing."""
    if "sharing" not in text or "replicas" not in text:
        return None
    try:
        sharing = parse_config(text).sharing
    except ConfigError:
        return None
    return sharing if sharing.resources else None


def parse_printed(text: str, start: int) -> PluginConfig | None:
    """Return the configuration that a log prints from `start` on, None if no JSON object stands there.

    Raises:
        ConfigError: the object is cut off, or none that the plugin would print.
    """
    opening = re.compile(r"\s*\{").match(text, start)
    if opening is None:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, opening.end() - 1)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration it prints is cut off or damaged: {error}") from error
    return _decoded(text[opening.end() - 1 : end])


@functools.lru_cache(maxsize=64)
def _decoded(text: str) -> PluginConfig:
    """Return what a JSON object says; thousands of plugins print the same one."""
    return decode_config(json.loads(text))


def decode_config(document: object) -> PluginConfig:
    """Return what a decoded configuration says.

    Raises:
        ConfigError: the plugin would refuse it.
    """
    if document is None:
        return PluginConfig()
    top = _mapping(document, "the configuration")
    version = top.get("version")
    if version not in {None, "", "v1"}:
        raise ConfigError(f"version is {_show(version)}; the plugin reads 'v1'")
    flags = _mapping(top.get("flags"), "flags")
    plugin = _mapping(flags.get("plugin"), "flags.plugin")
    strategy = flags.get("migStrategy")
    if strategy is not None and strategy not in {"none", "single", "mixed", ""}:
        raise ConfigError(f"flags.migStrategy is {_show(strategy)}; it is one of none, single, mixed")
    fail = flags.get("failOnInitError")
    lists, passes = plugin.get("deviceListStrategy"), plugin.get("passDeviceSpecs")
    sections = {
        "the top level": top,
        "flags": flags,
        "flags.plugin": plugin,
        "sharing": _mapping(top.get("sharing"), "sharing"),
    }
    misplaced = [
        f"{key} in {place}"
        for place, section in sections.items()
        for key in section
        if key in _SHARING_KEYS and not _in_place(place, key)
    ]
    return PluginConfig(
        mig_strategy=str(strategy) if strategy else None,
        fail_on_init_error=fail if isinstance(fail, bool) else None,
        device_list_strategies=tuple(str(one) for one in lists)
        if isinstance(lists, list)
        else (lists,)
        if isinstance(lists, str)
        else (),
        pass_device_specs=passes if isinstance(passes, bool) else None,
        names=_names(_mapping(top.get("resources"), "resources").get("gpus")),
        sharing=_sharing(sections["sharing"]),
        misplaced=tuple(misplaced),
    )


def _in_place(place: str, key: str) -> bool:
    return place == "sharing" and key in {"timeSlicing", "mps"}


def _sharing(section: Mapping[str, Any]) -> Sharing:
    mps = _replicated(section.get("mps"), "sharing.mps")
    slicing = _replicated(section.get("timeSlicing"), "sharing.timeSlicing")
    if mps is not None and mps[1]:
        return Sharing("mps", mps[1], refuses_above_one=mps[0] is not False)
    if slicing is not None and slicing[1]:
        return Sharing("time-slicing", slicing[1], refuses_above_one=slicing[0] is True)
    return Sharing()


def _replicated(value: object, where: str) -> tuple[bool | None, tuple[Replication, ...]] | None:
    section = _mapping(value, where)
    if not section:
        return None  # the plugin prints an empty object where nothing is shared
    listed = section.get("resources")
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{where} has no resources")
    rename = _flag(section.get("renameByDefault"), f"{where}.renameByDefault")
    fails = _flag(section.get("failRequestsGreaterThanOne"), f"{where}.failRequestsGreaterThanOne")
    return fails, tuple(
        _replication(one, f"{where}.resources[{place}]", rename=bool(rename)) for place, one in enumerate(listed)
    )


def _replication(value: object, where: str, *, rename: bool) -> Replication:
    entry = _mapping(value, where)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where} has no name")
    replicas = entry.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise ConfigError(f"{where} has no number of replicas")
    if replicas < 2:  # noqa: PLR2004  the plugin's own limit
        raise ConfigError(f"{where}.replicas is {replicas}; the plugin wants at least 2")
    name = _full(name)
    new = entry.get("rename")
    offered = _full(new) if isinstance(new, str) and new else name + SHARED_SUFFIX if rename else name
    return Replication(name, offered, replicas)


def _names(listed: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(listed, list):
        return ()
    found = []
    for place, one in enumerate(listed):
        entry = _mapping(one, f"resources.gpus[{place}]")
        pattern, name = entry.get("pattern"), entry.get("name")
        if not isinstance(pattern, str) or not isinstance(name, str):
            raise ConfigError(f"resources.gpus[{place}] lacks its pattern or its name")
        found.append((pattern, _full(name)))
    return tuple(found)


def _full(name: str) -> str:
    return name if "/" in name else _PREFIX + name


def _flag(value: object, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(f"{where} is {_show(value)}; it is true or false")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {_show(value)}, not a mapping")
    return {str(key): item for key, item in value.items()}


def _show(value: object) -> str:
    return f"'{str(value)[:60]}'"


def _matches(pattern: str, text: str) -> bool:
    """Tell whether the plugin's wildcard pattern occurs in a text (it is not anchored); linear in both."""
    place = 0
    for part in pattern.split("*"):
        found = text.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def choose_entry(
    entries: Iterable[str], *, label: str | None, default: str | None, fallbacks: Iterable[str]
) -> tuple[str | None, str]:
    """Return the entry that config-manager would choose (None: the empty configuration), and by what.

    Raises:
        ConfigError: it would find none, and end with that error.
    """
    names = sorted(entries)
    listed = ", ".join(f"'{name}'" for name in names)
    if not names:
        raise ConfigError("it has no entries")
    if label:
        if label not in names:
            raise ConfigError(f"the node's label asks for '{label}'; its entries are {listed}")
        return label, "the node's label"
    if default:
        if default not in names:
            raise ConfigError(f"DEFAULT_CONFIG names '{default}'; its entries are {listed}")
        return default, "DEFAULT_CONFIG"
    tried = list(fallbacks)
    for strategy in tried:
        match strategy:
            case "named" if FALLBACK_NAME in names:
                return FALLBACK_NAME, "fallback 'named'"
            case "single" if len(names) == 1:
                return names[0], "fallback 'single'"
            case "empty":
                return None, "fallback 'empty'"
            case "named" | "single":
                continue
            case _:
                raise ConfigError(f"fallback strategy '{strategy}' is unknown; they are named, single, empty")
    raise ConfigError(
        f"no label on the node, no DEFAULT_CONFIG, and no fallback ({', '.join(tried) or 'none given'}) finds one of "
        f"{listed}"
    )

"""Predicates about the container runtime of a node: engine, handlers, toolkit, CDI, RuntimeClasses."""

import posixpath
from typing import Final

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import all_nodes, any_node, asked, fact, one_of
from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.configuration import Handler, names_nvidia
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.engine import PLAIN_CONFIGURATION, PLAIN_SOCKET, Distribution, EngineKind
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.runtime import Template
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.evidence.toolkit import CLI, HOOK, ToolkitMode
from kube_gpucheck.model import Missing, MissingKind, Seen

_OPERATORS_FOLDER: Final = "/usr/local/nvidia/"
_DROPS_SETTINGS: Final = (1, 17, 0)
_PACKAGED: Final = "/usr/bin/nvidia-container-runtime"
_CDI_HELPERS: Final = ("nvidia-cdi-hook", "nvidia-ctk")
_UNREAD_CRIO: Final = "/etc/crio/conf.d/99-nvidia.toml"


# --- the engine ------------------------------------------------------------------------------------


@fact
def engine_is_down(context: Context) -> bool:
    """The container engine does not answer for CRI."""
    return any_node(context, lambda node: not need(node.runtime.engine.answer).answers)


@fact
def cri_plugin_is_not_loaded(context: Context) -> bool:
    """The engine does not answer, or only runs, for its CRI plugin is disabled or its configuration is refused."""

    def is_not(node: Node) -> bool:
        refusal = asked(node.runtime.refusal)
        if refusal is None and need(node.runtime.configuration).cri_disabled:
            return True
        answer = need(node.runtime.engine.answer)
        if answer.answers:
            return False
        return (
            refusal is not None or "unknown service" in answer.why or asked(node.runtime.engine.complaint) is not None
        )

    return any_node(context, is_not)


@fact
def engine_is_crio(context: Context) -> bool:
    """The node's engine is CRI-O."""
    return any_node(context, lambda node: need(node.runtime.engine.kind) is EngineKind.CRI_O)


@fact
def engine_is_embedded(context: Context) -> bool:
    """The distribution brings an engine of its own, with its own configuration and socket."""
    return any_node(context, lambda node: need(node.runtime.engine.distribution).embeds_its_engine)


@fact
def engine_has_no_nvidia_runtime_by_design(context: Context) -> bool:
    """The provider's node image brings the driver to pods without an NVIDIA runtime (GKE, Bottlerocket)."""
    without = {Distribution.GKE, Distribution.BOTTLEROCKET}
    return any_node(context, lambda node: need(node.runtime.engine.distribution) in without)


@fact
def distribution_detects_nvidia_at_its_start(context: Context) -> bool:
    """The distribution looks for the NVIDIA runtime when its service starts, and writes the handler (RKE2, K3s)."""
    return any_node(context, lambda node: need(node.runtime.distribution_detects_nvidia))


@fact
def engine_config_was_rewritten(context: Context) -> bool:
    """The engine's configuration has an NVIDIA handler and switches the CRI plugin off, as a generated file does."""

    def rewritten(node: Node) -> bool:
        files = need(node.runtime.containerd_files)
        disabled = any(one.disables_cri for one in files) or need(node.runtime.configuration).cri_disabled
        return disabled and any(one.mentions_nvidia() for one in files)

    return any_node(context, rewritten)


@fact
def toolkit_1_17_0_wrote_the_engine_config(context: Context) -> bool:
    """The toolkit is the release that takes its defaults for the file there is, and the file has its handlers alone.

    Source: nvidia-container-toolkit, CHANGELOG.md, v1.17.1 (the default configuration path); amazon-eks-ami issue 2041.
    """

    def written(node: Node) -> bool:
        configuration = need(node.runtime.configuration)
        alone = bool(configuration.nvidia) and len(configuration.nvidia) == len(configuration.handlers)
        return alone and need(node.runtime.toolkit.release)[:3] == _DROPS_SETTINGS

    return any_node(context, written)


@fact
def engine_config_is_of_another_engine(context: Context) -> bool:
    """The file of an embedded engine gives it the socket of the system's containerd, as a dump of that does."""

    def is_foreign(node: Node) -> bool:
        if not need(node.runtime.engine.distribution).embeds_its_engine:
            return False
        mains = [one for one in need(node.runtime.containerd_files)[:1] if one.path != PLAIN_CONFIGURATION]
        tables = [one.data.get("grpc") for one in mains]
        return any(isinstance(one, dict) and one.get("address") == PLAIN_SOCKET for one in tables)

    return any_node(context, is_foreign)


# --- handlers --------------------------------------------------------------------------------------


@fact
def handler_is_in_files(context: Context) -> bool:
    """The engine's configuration on disk has a handler for NVIDIA."""
    return any_node(context, lambda node: need(node.runtime.handler_in_files))


@fact
def handler_is_not_in_files(context: Context) -> bool:
    """The engine's configuration on disk has no handler for NVIDIA."""
    return all_nodes(context, lambda node: not need(node.runtime.handler_in_files))


@fact
def another_nvidia_handler_is_configured(context: Context) -> bool:
    """The engine's configuration has a handler for NVIDIA, under whatever name."""
    return any_node(context, lambda node: need(node.runtime.handler_in_files))


@fact
def running_engine_lacks_the_handler(context: Context) -> bool:
    """The running engine does not have a handler that its configuration has."""

    def lacks(node: Node) -> bool:
        loaded = need(node.runtime.loaded)
        return bool(loaded.missing or loaded.other)

    return any_node(context, lacks)


@fact
def handler_program_is_absent(context: Context) -> bool:
    """The program that an NVIDIA handler calls is not on the node."""
    return any_node(
        context, lambda node: one_of(need(node.runtime.configuration).nvidia, lambda one: _is_absent(node, one))
    )


@fact
def handler_program_cannot_run(context: Context) -> bool:
    """An NVIDIA handler names no program, or one that is not executable."""

    def cannot(node: Node, handler: Handler) -> bool:
        if handler.binary is None:
            return True
        entry = asked(node.host.entry(handler.binary)) if handler.binary.startswith("/") else None
        return entry is not None and entry.type == "file" and bool(entry.mode) and not entry.executable

    return any_node(
        context, lambda node: one_of(need(node.runtime.configuration).nvidia, lambda one: cannot(node, one))
    )


@fact
def default_handler_is_not_defined(context: Context) -> bool:
    """The default runtime names a handler that the configuration does not define."""
    return any_node(
        context,
        lambda node: (found := need(node.runtime.configuration)).find(found.default) is None and not found.cri_disabled,
    )


@fact
def default_runtime_is_nvidia_and_absent(context: Context) -> bool:
    """The default runtime is NVIDIA's, and its program is not on the node."""

    def broken(node: Node) -> bool:
        configuration = need(node.runtime.configuration)
        found = configuration.find(configuration.default)
        return found is not None and found.is_nvidia and _is_absent(node, found)

    return any_node(context, broken)


def _is_absent(node: Node, handler: Handler) -> bool:
    return (
        handler.binary is not None and handler.binary.startswith("/") and need(node.host.entry(handler.binary)) is None
    )


@fact
def handler_program_is_the_operators(context: Context) -> bool:
    """An NVIDIA handler calls a program in the folder that the GPU Operator installs to."""
    return any_node(
        context,
        lambda node: any(
            (one.binary or "").startswith(_OPERATORS_FOLDER) for one in need(node.runtime.configuration).nvidia
        ),
    )


@fact
def drop_in_is_not_imported(context: Context) -> bool:
    """A file with an NVIDIA handler lies in a drop-in folder that the engine does not import."""
    return any_node(context, lambda node: need(node.runtime.drop_in_is_not_imported))


@fact
def an_import_undid_the_handler(context: Context) -> bool:
    """A later file took the place of a setting for NVIDIA that an earlier one makes."""
    return any_node(context, lambda node: need(node.runtime.import_replaced_handler))


@fact
def an_import_dropped_the_default_handler(context: Context) -> bool:
    """One file defines the default handler (runc), and a later one replaced the section that has it."""
    return any_node(context, lambda node: need(node.runtime.import_dropped_default))


@fact
def nvidia_section_is_of_another_config_version(context: Context) -> bool:
    """A file that the engine reads has an NVIDIA handler, which its version makes void."""

    def void(node: Node) -> bool:
        files = need(node.runtime.files)
        return (
            not files.nvidia
            and not files.lost
            and not need(node.runtime.handler_in_files)
            and any(one.mentions_nvidia() for one in need(node.runtime.containerd_files))
        )

    return any_node(context, void)


@fact
def another_engine_has_the_handler(context: Context) -> bool:
    """Another engine than the kubelet's (Docker, the system's containerd, CRI-O) was told of the NVIDIA runtime."""
    return any_node(context, lambda node: need(node.runtime.other_engine_is_configured))


@fact
def template_drops_the_handler(context: Context) -> bool:
    """The template that the distribution renders has neither an NVIDIA handler nor the base template."""
    return any_node(context, lambda node: (found := _template(node)) is not None and not found.keeps_nvidia)


@fact
def template_is_the_toolkits_own(context: Context) -> bool:
    """The template is a plain configuration with the toolkit's paths, and no template at all."""
    return any_node(
        context,
        lambda node: (found := _template(node)) is not None and found.is_frozen,
    )


def _template(node: Node) -> Template | None:
    return need(node.runtime.template)


@fact
def cgroups_are_unified(context: Context) -> bool:
    """The host has cgroup v2 alone, on which a container in a foreign cgroup is killed."""
    return any_node(context, lambda node: need(node.runtime.cgroups_are_unified))


@fact
def crio_runs_crun(context: Context) -> bool:
    """The node's engine is CRI-O with crun as its default runtime."""
    return any_node(
        context,
        lambda node: (
            need(node.runtime.engine.kind) is EngineKind.CRI_O and need(node.runtime.configuration).default == "crun"
        ),
    )


@fact
def crio_injects_by_a_hook(context: Context) -> bool:
    """The node's engine is CRI-O, and the toolkit's OCI hook is installed there."""
    return any_node(context, lambda node: Mode.OCI_HOOK in need(node.deliveries.declared))


@fact
def crio_has_no_hook(context: Context) -> bool:
    """CRI-O's folders of hooks were listed and hold none of NVIDIA's."""
    return all_nodes(context, lambda node: need(node.deliveries.hook_is_absent))


@fact
def crio_drop_in_lies_where_none_is_read(context: Context) -> bool:
    """The toolkit's drop-in for CRI-O lies in a folder that CRI-O does not read."""
    return any_node(
        context,
        lambda node: (
            need(node.runtime.engine.kind) is EngineKind.CRI_O and need(node.host.entry(_UNREAD_CRIO)) is not None
        ),
    )


# --- the toolkit -----------------------------------------------------------------------------------


@fact
def toolkit_is_installed(context: Context) -> bool:
    """nvidia-container-runtime is on the node."""
    return any_node(context, lambda node: need(node.runtime.toolkit_installed))


@fact
def toolkit_is_not_installed(context: Context) -> bool:
    """nvidia-container-runtime is nowhere on the node."""
    return all_nodes(context, lambda node: not need(node.runtime.toolkit_installed))


@fact
def toolkit_was_there_before(context: Context) -> bool:
    """The engine's configuration still names the toolkit's program."""
    return any_node(context, lambda node: need(node.runtime.handler_in_files))


@fact
def toolkit_package_is_installed(context: Context) -> bool:
    """The toolkit's package put its program to /usr/bin."""
    return any_node(context, lambda node: need(node.host.entry(_PACKAGED)) is not None)


@fact
def no_toolkit_container_is_installed(context: Context) -> bool:
    """No DaemonSet of the GPU Operator's toolkit is there."""
    return not context.cluster.stack.of(Component.TOOLKIT)


@fact
def toolkit_is_newer_than_the_engine_start(context: Context) -> bool:
    """nvidia-container-runtime was put there after the engine's service started."""
    return any_node(context, lambda node: need(node.runtime.toolkit_newer_than_engine_start))


@fact
def toolkit_is_older_than_the_engine_start(context: Context) -> bool:
    """nvidia-container-runtime was there when the engine's service started."""
    return any_node(
        context,
        lambda node: need(node.runtime.toolkit_installed) and not need(node.runtime.toolkit_newer_than_engine_start),
    )


@fact
def toolkit_is_installed_in_part(context: Context) -> bool:
    """The NVIDIA runtime works in mode legacy, and its hook or nvidia-container-cli is not on the node."""

    def in_part(node: Node) -> bool:
        toolkit = node.runtime.toolkit
        if not need(toolkit.is_installed) or need(toolkit.mode) is not ToolkitMode.LEGACY:
            return False
        configuration = need(toolkit.configuration)
        more = (configuration.cli_path,) if configuration is not None and configuration.cli_path else ()
        hook = need(toolkit.find(HOOK, "/usr/bin/nvidia-container-toolkit"))
        return hook is None or need(toolkit.find(CLI, *more)) is None

    return any_node(context, in_part)


@fact
def cdi_helper_is_nowhere(context: Context) -> bool:
    """The NVIDIA runtime works by CDI, and neither nvidia-cdi-hook nor nvidia-ctk, which its hooks call, is there."""

    def is_nowhere(node: Node) -> bool:
        toolkit = node.runtime.toolkit
        if not need(toolkit.is_installed) or any(need(toolkit.find(one)) is not None for one in _CDI_HELPERS):
            return False
        return need(toolkit.mode) is not ToolkitMode.LEGACY

    return any_node(context, is_nowhere)


@fact
def toolkit_says_no_cgroups(context: Context) -> bool:
    """The toolkit's config.toml says no-cgroups = true."""
    return any_node(
        context,
        lambda node: (found := need(node.runtime.toolkit.configuration)) is not None and found.no_cgroups,
    )


@fact
def toolkit_does_not_list_crun(context: Context) -> bool:
    """The toolkit's config.toml lists low-level runtimes, and crun is none of them."""

    def lacks(node: Node) -> bool:
        found = need(node.runtime.toolkit.configuration)
        return (
            found is not None
            and found.runtimes is not None
            and "crun" not in {posixpath.basename(one) for one in found.runtimes}
        )

    return any_node(context, lacks)


@fact
def toolkit_root_has_no_driver(context: Context) -> bool:
    """The toolkit's driver root is not / and holds no libnvidia-ml."""

    def empty(node: Node) -> bool:
        found = need(node.runtime.toolkit.configuration)
        if found is None or found.root == "/":
            return False
        folder = node.host.entry(found.root)
        gone = isinstance(folder, Seen) and folder.value is None
        return gone or need(node.runtime.library("libnvidia-ml.so.1")) is None

    return any_node(context, empty)


# --- CDI -------------------------------------------------------------------------------------------


@fact
def cdi_devices_are_unresolved(context: Context) -> bool:
    """A container failed on CDI devices that no specification defines."""
    return any_node(context, lambda node: bool(need(node.runtime.cdi.unresolved)))


@fact
def no_spec_defines_the_kind_asked_for(context: Context) -> bool:
    """No specification defines the kind of the CDI devices that containers asked for, or that the mode needs."""

    def undefined(node: Node) -> bool:
        defined = {one.kind for one in need(node.runtime.cdi.specifications)}
        wanted = {name.partition("=")[0] for name in need(node.runtime.cdi.unresolved)}
        if not wanted:
            kind = need(node.runtime.cdi.wanted)
            wanted = {kind} if kind is not None else set()
        return any(one not in defined for one in wanted)

    return any_node(context, undefined)


@fact
def cdi_spec_lacks_the_device_of_a_known_kind(context: Context) -> bool:
    """A container failed on a CDI device that is not in the specification of its kind."""

    def lacks(node: Node) -> bool:
        defined = {one.kind for one in need(node.runtime.cdi.specifications)}
        return any(name.partition("=")[0] in defined for name in need(node.runtime.cdi.unresolved))

    return any_node(context, lacks)


@fact
def cdi_folder_of_the_spec_is_not_searched(context: Context) -> bool:
    """A specification of the kind asked for lies in a folder that whoever injects its devices does not search."""

    def unsearched(node: Node) -> bool:
        asked_for = {name.partition("=")[0] for name in need(node.runtime.cdi.unresolved)}
        return any(one.kind in asked_for for one in need(node.runtime.cdi.unsearched))

    return any_node(context, unsearched)


@fact
def cdi_spec_names_what_is_not_there(context: Context) -> bool:
    """A specification names a device node or a file that the node does not have."""
    return any_node(context, lambda node: any(one.named.what != "hook" for one in need(node.runtime.cdi.faults)))


@fact
def cdi_spec_names_an_absent_hook(context: Context) -> bool:
    """A specification calls a helper program at a path where there is none."""
    return any_node(context, lambda node: any(one.named.what == "hook" for one in need(node.runtime.cdi.faults)))


# --- RuntimeClasses --------------------------------------------------------------------------------


@fact
def no_runtime_class_leads_to_nvidia(context: Context) -> bool:
    """No RuntimeClass has a handler that is NVIDIA's, by its name or by an engine's configuration."""
    classes = need(context.cluster.runtime_classes)
    if any(names_nvidia(one.handler) for one in classes):
        return False
    have = {one.name for node in context.nodes for one in _configured(node)}
    return not any(one.handler in have for one in classes)


def _configured(node: Node) -> tuple[Handler, ...]:
    configuration = asked(node.runtime.configuration)
    return () if configuration is None else configuration.nvidia


@fact
def runtime_class_names_an_unknown_handler(context: Context) -> bool:
    """A RuntimeClass for NVIDIA that is used, or is the only one, has a handler that no node's engine is told of."""
    known: set[str] = set()
    for node in context.nodes:
        names = asked(node.runtime.handler_names)
        known |= names or frozenset()
    if not known:
        reason = "the handlers of no node are known"
        need(Missing(MissingKind.NOT_ASKED, reason, "nodes", "--probe"))
    classes = need(context.cluster.runtime_classes)
    mine = [one for one in classes if names_nvidia(one.metadata.name) or names_nvidia(one.handler)]
    used = {
        need(one.object).spec.template.spec.runtime_class_name for one in need(context.cluster.stack.daemonsets)
    } | ({need(context.pod.object).spec.runtime_class_name} if context.pod is not None else set())
    in_use = [one for one in classes if one.metadata.name in used]
    if any(one.handler not in known for one in in_use):
        return True
    return bool(mine) and not in_use and all(one.handler not in known for one in mine)

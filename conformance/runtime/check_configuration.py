"""Runtime layer: the engine's configuration leads to the NVIDIA runtime."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.bundle import Entry
from kube_gpucheck.evidence.configuration import Configuration, Handler
from kube_gpucheck.evidence.engine import EngineKind, not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Reading, Seen, Severity

SHIM = "io.containerd.runc.v2"


@check("RTM-003", layer=Layer.RUNTIME, severity=Severity.CRITICAL, after=("RTM-001", "RTM-002"))
def check_effective_configuration_has_a_handler_for_nvidia(node: Node) -> None:
    """The engine's effective configuration has a handler for NVIDIA, and still has its default one.

    Judged as `containerd config dump` merges the files, else by the release's own rule. What the running engine has
    read of it is RTM-005's.
    """
    if not known(node.deliveries.by_handler, "how GPUs reach this node's containers"):
        not_applicable("this node's containers get their GPUs without a handler of the engine")
    configuration = known(node.runtime.configuration, "the engine's effective configuration")
    if configuration.cri_disabled:
        not_applicable("the engine's CRI plugin is disabled, so no handler counts; RTM-017 judges that")
    if not configuration.nvidia:
        if known(node.deliveries.toolkit_waits, "what the GPU Operator's toolkit does"):
            not_applicable(
                "the GPU Operator's toolkit, which writes the handler, waits for the driver; DRV-003 judges that"
            )
        fault(
            seen=f"{_where(configuration)}: the handlers are {_names(configuration.handlers)}; none is NVIDIA's",
            means=_why_no_handler(node),
            remedy=f"{node.runtime.engine.configure}; confirm with 'gpucheck run -k RTM-003'",
        )
    if configuration.find(configuration.default) is None:
        fault(
            seen=f"{_where(configuration)}: the default runtime is '{configuration.default}'; the handlers are "
            f"{_names(configuration.handlers)}",
            means="the default handler is gone: containerd 1.x takes a later file's CRI section in place of the whole "
            "earlier one, and its CRI plugin does not start without the default",
            remedy=f"put the handler '{configuration.default}' beside NVIDIA's in the last file that has the section, "
            f"then '{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-003'",
        )


@check("RTM-004", layer=Layer.RUNTIME, severity=Severity.CRITICAL, after=("RTM-003",))
def check_program_of_the_handler_can_run(node: Node) -> None:
    """The handler's BinaryName exists and is executable, and its runtime_type is the engine's own shim.

    Every NVIDIA handler is judged; where another one can run it is major. Whether it is the right program of two is
    not judged.
    """
    configuration = known(node.runtime.configuration, "the engine's effective configuration")
    if not configuration.nvidia:
        not_applicable("no handler for NVIDIA is configured; RTM-003 judges that")
    kind = known(node.runtime.engine.kind, "which engine it is")
    faults = [(one, reason) for one in configuration.nvidia if (reason := _broken(node, one, kind)) is not None]
    if faults:
        first, reason = faults[0]
        fault(
            seen="; ".join(f"handler '{one.name}'{_set_by(one)}: {why}" for one, why in faults),
            means=f"each container of handler '{first.name}' fails, or runs without the GPU: {reason}",
            remedy="install the NVIDIA Container Toolkit anew, or write its real path into the handler: "
            f"{node.runtime.engine.configure}; confirm with 'gpucheck run -k RTM-004'",
            severity=Severity.CRITICAL if len(faults) == len(configuration.nvidia) else Severity.MAJOR,
        )


@check("RTM-007", layer=Layer.RUNTIME, severity=Severity.MAJOR, after=("RTM-003",))
def check_nothing_overrides_the_handler(node: Node) -> None:
    """Nothing overrides the setting for NVIDIA after it was written.

    Compared are the engine's own files in the order of loading, drop-ins that nothing imports, and the template from
    which RKE2, K3s and MicroK8s write the file at each start. Settings for other handlers are not judged.
    """
    files = known(node.runtime.files, "the engine's configuration files")
    if files.lost:
        lost = files.lost[0]
        fault(
            seen="; ".join(f"{one.origin} sets {one.setting}; {one.winner} wins: {one.instead}" for one in files.lost),
            means=f"{lost.winner.path} is read after {lost.origin.path} and takes its setting's place",
            remedy=f"keep the settings for NVIDIA in {lost.winner.path} alone, check with 'containerd config dump', "
            f"then '{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-007'",
        )
    stray = known(node.runtime.stray_drop_ins, "the drop-in files")
    if stray:
        main = known(node.runtime.engine.configuration_path, "where the engine's main file lies")
        fault(
            seen=f"{', '.join(stray)} has a handler for NVIDIA; no 'imports' of {main} means it",
            means="the engine does not read the drop-in",
            remedy=f"add its folder to 'imports' in {main}, then '{node.runtime.engine.restart}'; confirm with "
            "'gpucheck run -k RTM-007'",
        )
    template = known(node.runtime.template, "the template of the engine's configuration")
    if template is not None and files.nvidia and not template.keeps_nvidia:
        fault(
            seen=f"{template.path} has neither a handler for NVIDIA nor the base template; the file in use has "
            f"{_names(files.nvidia)}",
            means="the next start of the service writes the file anew from this template, without the handler",
            remedy=f"begin {template.path} with '{{{{ template \"base\" . }}}}', or put the handler into it; confirm "
            "with 'gpucheck run -k RTM-007' after the next restart",
        )
    if template is not None and template.is_frozen:
        fault(
            seen=f"{template.path} is a plain configuration with programs of /usr/local/nvidia/toolkit, no template",
            means="the GPU Operator's toolkit froze one state of the engine's configuration: at the next start the "
            "service's own settings (registries, sandbox image, cgroups) are gone, and the engine may not start",
            remedy=f"remove {template.path}, give the operator's toolkit no CONTAINERD_CONFIG of that name, then "
            f"'{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-007'",
        )
    if not files.nvidia:
        not_applicable("no file of the engine sets a handler for NVIDIA; RTM-003 judges that")


def _why_no_handler(node: Node) -> str:
    runtime = node.runtime
    if _is(runtime.drop_in_is_not_imported):
        return "the toolkit wrote its drop-in into a folder that the engine's main file does not import"
    if _is(runtime.import_replaced_handler):
        return "a file that is read later takes the place of the section that had the handler"
    if _is(runtime.other_engine_is_configured):
        return "the handler was written for another containerd: this distribution embeds one with its own configuration"
    if isinstance(runtime.toolkit_installed, Seen) and not runtime.toolkit_installed.value:
        return "the NVIDIA Container Toolkit is not installed, so nobody could configure it"
    if _is(runtime.toolkit_newer_than_engine_start) and _is(runtime.distribution_detects_nvidia):
        return "the toolkit was installed after the service started, and the service looks for it only when it starts"
    return "nobody told this engine of the NVIDIA runtime; a pod that asks for it gets no sandbox"


def _is(reading: Reading[bool]) -> bool:
    return isinstance(reading, Seen) and reading.value


def _broken(node: Node, handler: Handler, kind: EngineKind) -> str | None:
    if handler.binary is None:
        return "it names no program, so the engine calls plain runc"
    if handler.binary.startswith("/"):
        entry = known(node.host.entry(handler.binary), f"whether '{handler.binary}' is there")
    else:
        entry = known(_on_path(node, handler.binary), f"where '{handler.binary}' is")
    if entry is None:
        return f"there is no {handler.binary}"
    if entry.type == "file" and entry.mode and not entry.executable:
        return f"{handler.binary} is not executable ({entry.mode})"
    if kind is EngineKind.CONTAINERD and handler.runtime_type != SHIM:
        return f"its runtime_type is '{handler.runtime_type}', expected '{SHIM}'"
    return None


def _on_path(node: Node, program: str) -> Reading[Entry | None]:
    for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"):
        entry = node.host.entry(f"{folder}/{program}")
        if not not_asked(entry) and not (isinstance(entry, Seen) and entry.value is None):
            return entry
    return node.host.entry(f"/usr/bin/{program}")


def _set_by(handler: Handler) -> str:
    return "" if handler.file is None else f" of {handler.file}"


def _where(configuration: Configuration) -> str:
    return ", ".join(configuration.files) or "the engine's built-in configuration"


def _names(handlers: tuple[Handler, ...]) -> str:
    return ", ".join(f"'{one.name}'" for one in handlers) or "none"

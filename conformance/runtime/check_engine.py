"""Runtime layer: the engine runs, and runs with what its configuration says."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.configuration import Handler
from kube_gpucheck.evidence.engine import not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity


@check("RTM-001", layer=Layer.RUNTIME, severity=Severity.CRITICAL)
def check_engine_of_the_kubelet_is_the_one_configured(node: Node) -> None:
    """The engine that the kubelet talks to is the one that was configured for NVIDIA.

    Judged where an engine has a handler for NVIDIA: the kubelet's own, by its files and its answer, or another one
    (Docker, the system's containerd beside an embedded one, CRI-O). That no engine has one is RTM-003's.
    """
    if not known(node.deliveries.by_handler, "how GPUs reach this node's containers"):
        not_applicable("this node's containers get their GPUs without a handler of the engine")
    if known(node.runtime.handler_in_files, "the engine's effective configuration"):
        return
    elsewhere = known(node.runtime.told_elsewhere, "the files of other engines")
    if not elsewhere:
        not_applicable("no engine of this node was told of NVIDIA; RTM-003 judges that")
    version = known(node.runtime.engine.name, "the engine's version")
    path = known(node.runtime.engine.configuration_path, "where the engine's main file lies")
    endpoint = known(node.runtime.engine.endpoint, "the kubelet's endpoint")
    fault(
        seen=f"{', '.join(elsewhere)} names the NVIDIA runtime; the kubelet talks to {version}"
        f"{f' at {endpoint}' if endpoint else ''}, which reads {path} and has no handler for NVIDIA",
        means="another container engine was configured than the one that runs Kubernetes' containers",
        remedy=f"{node.runtime.engine.configure}; confirm with 'gpucheck run -k RTM-001'",
    )


@check("RTM-005", layer=Layer.RUNTIME, severity=Severity.CRITICAL, after=("RTM-003", "RTM-017"))
def check_running_engine_has_loaded_its_configuration(node: Node) -> None:
    """The running engine has loaded the handler for NVIDIA that its configuration has.

    By its own answer over CRI, else by what it told the kubelet, else by its log, else by its age against that of the
    configuration, else by the events of pods. An engine that does not answer leaves this unknown.
    """
    configuration = known(node.runtime.configuration, "the engine's effective configuration")
    if not configuration.nvidia:
        not_applicable("no handler for NVIDIA is configured, so there is none to load; RTM-003 judges that")
    loaded = known(node.runtime.loaded, "what the running engine has loaded")
    restart = node.runtime.engine.restart
    if loaded.missing:
        names = ", ".join(f"'{one.name}'" for one in loaded.missing)
        files = ", ".join(dict.fromkeys(_file_of(node, one) for one in loaded.missing))
        fault(
            seen=f"{files} has handler {names}; the running engine has not ({loaded.how})",
            means="the configuration was changed after the engine started, and nobody restarted it since",
            remedy=f"run '{restart}' (running containers go on); confirm with 'gpucheck run -k RTM-005'",
        )
    if loaded.other:
        handler, binary = loaded.other[0]
        fault(
            seen=f"handler '{handler.name}' calls {handler.binary} in the configuration and {binary} in the running "
            f"engine ({loaded.how})",
            means="the configuration was changed after the engine started, and nobody restarted it since",
            remedy=f"run '{restart}' (running containers go on); confirm with 'gpucheck run -k RTM-005'",
        )


@check("RTM-017", layer=Layer.RUNTIME, severity=Severity.CRITICAL)
def check_engine_answers_for_cri(node: Node) -> None:
    """The container engine answers for CRI, and its configuration lets it start again.

    A configuration that only the next start would refuse is minor. What the kubelet makes of the silence is CLU-004's.
    """
    reading = node.runtime.engine.answer
    answer = None if not_asked(reading) else known(reading, "whether the engine answers for CRI")
    if answer is not None and not answer.answers:
        fault(
            seen=f"{answer.how} says that the engine does not answer: {answer.why or 'no reason given'}",
            means=_why_silent(node),
            remedy=f"read 'journalctl -u {_unit(node)} -n 50', mend what it names, then "
            f"'{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-017'",
        )
    reason = _why_the_next_start_fails(node)
    if reason is not None:
        now = "nobody asked whether the engine answers" if answer is None else f"the engine answers ({answer.how})"
        fault(
            seen=f"{now}, but in its configuration on disk {reason}",
            means="the next restart leaves the node without a container runtime",
            remedy="mend the configuration before the next restart, check with 'containerd config dump'; confirm with "
            "'gpucheck run -k RTM-017'",
            severity=Severity.MINOR,
        )
    known(reading, "whether the engine answers for CRI")


def _why_the_next_start_fails(node: Node) -> str | None:
    if not_asked(node.runtime.configuration):
        return None
    if not not_asked(node.runtime.refusal):
        refusal = known(node.runtime.refusal, "whether the engine would start with its files")
        if refusal is not None:
            return refusal
    configuration = known(node.runtime.configuration, "the engine's configuration")
    return "its CRI plugin is in disabled_plugins" if configuration.cri_disabled else None


def _file_of(node: Node, handler: Handler) -> str:
    files = node.runtime.files
    found = files.value.find(handler.name) if isinstance(files, Seen) else None
    return "the configuration" if found is None or found.file is None else found.file


def _why_silent(node: Node) -> str:
    configuration, complaint, refusal = node.runtime.configuration, node.runtime.engine.complaint, node.runtime.refusal
    if isinstance(refusal, Seen) and refusal.value is not None:
        return f"the engine refuses its configuration: {refusal.value}"
    if isinstance(configuration, Seen):
        if configuration.value.cri_disabled:
            return "the part of the engine that Kubernetes talks to is disabled (disabled_plugins)"
        if configuration.value.find(configuration.value.default) is None:
            return f"the default runtime '{configuration.value.default}' is no handler, so the CRI plugin does not load"
    if isinstance(complaint, Seen) and complaint.value is not None:
        return f"the engine's log says: {complaint.value}"
    return "the engine is not running, or hangs: no pod can be started, stopped or looked into on this node"


def _unit(node: Node) -> str:
    unit = node.runtime.engine.unit
    return unit.value if isinstance(unit, Seen) else "containerd"

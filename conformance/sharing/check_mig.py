"""Sharing layer: MIG is laid out as somebody asked for, and offered as the devices that there are."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.partition import ALL_DISABLED, CONFIG_LABEL, PATIENCE, STATE_LABEL, UNDER_WAY
from kube_gpucheck.evidence.podstate import troubles
from kube_gpucheck.judging import Threshold, check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Missing, Seen, Severity

LONGEST = Threshold(
    "mig-change-minutes",
    PATIENCE.total_seconds() / 60,
    "min",
    "mig-parted pkg/mig/reconfigure: five waits of at most 5 minutes each, then the change itself",
)
_AGAIN = "then run 'gpucheck run -k SHR-004'"


@check("SHR-002", layer=Layer.SHARING, severity=Severity.MAJOR, after=("DRV-018",))
def check_mig_strategy_fits_the_layout(node: Node) -> None:
    """The MIG strategy fits the layout: 'single' needs MIG on all GPUs or none, and one profile; no GPU is left empty.

    From what NVML lists, and from GFD's label '…-MIG-INVALID', which says the same.
    """
    strategy = _strategy(node)
    misfit = known(node.partitions.misfit, "the MIG devices that NVML lists")
    if misfit is not None:
        fault(
            seen=f"on {node.name} the MIG strategy is {strategy}; {misfit}",
            means="with strategy single the device plugin ends with an error and serves nothing"
            if strategy == "single"
            else "a GPU with MIG on and no MIG device offers nothing to anybody",
            remedy="make the layout uniform ('kubectl label node NODE nvidia.com/mig.config=all-… --overwrite', or "
            "'nvidia-smi mig'), switch MIG off, or set the strategy to mixed; then run 'gpucheck run -k SHR-002'",
        )


def _strategy(node: Node) -> str:
    """Return the strategy by which MIG devices are offered; end the check where there is no MIG, or none is offered."""
    unlisted = known(node.partitions.unlisted, "whether NVML lists the node's GPUs")
    if unlisted is not None:
        not_applicable(unlisted)
    if not known(node.partitions.is_used, "whether a GPU has MIG on"):
        not_applicable("no GPU has MIG on, and nothing on the node speaks of MIG devices")
    strategy = known(node.partitions.strategy, "the device plugin's MIG strategy")
    if strategy == "none":
        not_applicable("the device plugin's MIG strategy is none, so it offers whole GPUs whatever their layout")
    return strategy


@check("SHR-003", layer=Layer.SHARING, severity=Severity.MAJOR, after=("SHR-002", "SHR-004"))
def check_mig_resources_and_labels_equal_nvmls_devices(node: Node) -> None:
    """The MIG resources and labels equal the MIG devices that NVML lists.

    Plugin and GFD look at the layout when they start: one that is changed by hand under them is not noticed.
    """
    strategy = _strategy(node)
    differences = known(node.partitions.differences, "the MIG devices that NVML lists")
    if differences:
        fault(
            seen=f"on {node.name} {'; '.join(differences)}",
            means="the layout was changed since the device plugin or GFD last looked: pods wait for MIG devices that "
            "are not there, or are given ids that are gone",
            remedy="delete the pods of the device plugin and of GFD on the node; once they are Ready, run 'gpucheck "
            "run -k SHR-003'; change layouts by the label nvidia.com/mig.config where the MIG manager runs",
        )
    told = known(node.partitions.labels_strategy, "the node's labels")
    if told is not None and told != strategy:
        fault(
            seen=f"on {node.name} the device plugin's MIG strategy is {strategy}, GFD labels by strategy {told}",
            means="the labels tell of whole GPUs, or of other resources than the node offers: who selects or counts by "
            "them is told wrong",
            remedy="give GFD the same strategy (MIG_STRATEGY, --mig-strategy, or the device plugin's configuration "
            "file), then run 'gpucheck run -k SHR-003'",
            severity=Severity.MINOR,
        )


@check("SHR-004", layer=Layer.SHARING, severity=Severity.MAJOR, after=("CLU-004", "DRV-005", "OPR-003"))
def check_mig_layout_asked_for_is_applied(node: Node) -> None:
    """The MIG layout that is asked for is applied: mig.config.state is 'success' where there is a mig.config.

    A change under way is minor for half an hour. Where the layout's meaning and NVML are known, a 'success' that was
    undone since is a fault.
    """
    parts = node.partitions
    asked = known(parts.asked, "the node's labels")
    if asked is None:
        not_applicable(f"no layout is asked for: the node has no label {CONFIG_LABEL}")
    state = known(parts.state, "the node's labels")
    wish = f"{node.name} asks for {CONFIG_LABEL}={asked}"
    if state == "success":
        other = known(parts.other_than_asked, "the layout, and what it means")
        if other is not None:
            fault(
                seen=f"{wish}, {STATE_LABEL}=success; {other}",
                means="the layout was changed or lost since (MIG devices do not outlive a reboot), or the entry is not "
                "for this GPU: the MIG manager acts only when the label changes or its pod starts",
                remedy=f"delete the MIG manager's pod on the node, so that it applies '{asked}' again; {_AGAIN}",
            )
        return
    if not known(parts.managers, "the MIG managers"):
        _without_manager(node, wish, asked, state)
    if state in UNDER_WAY:
        _unfinished(node, wish, state)
    problem = _problem(node, asked)
    if state == "failed":
        fault(
            seen=f"{wish}, {STATE_LABEL}=failed; {problem}",
            means="the MIG manager could not apply the layout, and tries again only when the label changes",
            remedy=f"mend what it names, take the label off ('kubectl label node {node.name} {CONFIG_LABEL}-') and "
            f"set it again; {_AGAIN}",
        )
    fault(
        seen=f"{wish}, {STATE_LABEL}={state or '(not set)'}; {problem}",
        means="the MIG manager has not acted on the label",
        remedy=f"bring its pod on the node to run; {_AGAIN}",
    )


def _without_manager(node: Node, wish: str, asked: str, state: str | None) -> None:
    if asked == ALL_DISABLED and state is None:
        not_applicable("MIG is asked to be off, and no MIG manager is installed that would say so")
    fault(
        seen=f"{wish}, {STATE_LABEL}={state or '(not set)'}; no MIG manager is installed",
        means="nobody acts on the label: it is left over, or the MIG manager was taken away before it was done",
        remedy=f"install the MIG manager (operator: migManager.enabled=true), or take the label off ('kubectl label "
        f"node {node.name} {CONFIG_LABEL}-'); {_AGAIN}",
        severity=Severity.MAJOR if state is not None else Severity.MINOR,
    )


def _problem(node: Node, asked: str) -> str:
    """Return why the layout is not applied, as far as configuration, pod and log of the MIG manager tell."""
    parts = node.partitions
    pod = known(parts.manager, "the MIG manager's pod")
    if pod is None:
        return f"no pod of the MIG manager is on {node.name}"
    name = f"{pod.namespace}/{pod.name}"
    undefined = parts.undefined  # words for a fault that the label has told already: what is missing only shortens them
    if isinstance(undefined, Seen) and undefined.value is not None:
        return undefined.value
    if not known(pod.is_ready, "whether the MIG manager is Ready"):
        told = troubles(pod)
        words = f": {'; '.join(told.value)}" if isinstance(told, Seen) and told.value else ""
        return f"its pod {name} is not Ready{words}"
    if known(parts.has_no_mig, "the node's labels") and asked != ALL_DISABLED:
        return "nvidia.com/mig.capable=false: none of the node's GPUs can have MIG"
    attempt = parts.attempt
    if isinstance(attempt, Missing):
        return f"the log of {name} was not read ({attempt.reason})"
    return f"its log: {attempt.value.problem}" if attempt.value.problem else f"the log of {name} names no reason"


def _unfinished(node: Node, wish: str, state: str) -> None:
    parts = node.partitions
    pod = known(parts.manager, "the MIG manager's pod")
    seen = f"{wish}, {STATE_LABEL}={state}"
    again = (
        f"set the nvidia.com/gpu.deploy.* labels that are paused back to true, then take {CONFIG_LABEL} off and set it "
    )
    if pod is None or not known(pod.is_ready, "whether the MIG manager is Ready"):
        where = f"no pod of the MIG manager is on {node.name}" if pod is None else f"pod {pod.name} is not Ready"
        fault(
            seen=f"{seen}; {where}",
            means="the MIG manager ended in the middle of a change; the pods that it sent away stay away",
            remedy=f"bring its pod to run: it begins again by itself; {_AGAIN}",
        )
    attempt = known(parts.attempt, "the MIG manager's log")
    why = f": {attempt.problem}" if attempt.problem else ""
    if attempt.is_over:
        fault(
            seen=f"{seen}; the MIG manager has given up and waits for another label{why}",
            means="it gave up half way without saying so in the label, and left the other GPU pods switched off",
            remedy=f"{again}again; {_AGAIN}",
        )
    if attempt.last is not None:
        minutes = (node.cluster.gathered_at - attempt.last).total_seconds() / 60
        if minutes > LONGEST.value:
            fault(
                seen=f"{seen}; the MIG manager's log has been silent for {minutes:.0f} minutes{why}",
                means="the change hangs; the pods that it sent away stay away",
                remedy=f"look what holds the GPU ('fuser -v /dev/nvidia*' on the node), {again}again; {_AGAIN}",
            )
    fault(
        seen=f"{seen}; the MIG manager is at it{why}",
        means="a change of the layout is under way; the node's GPU pods are away until it is done",
        remedy="wait, then run 'gpucheck run -k SHR-004'",
        severity=Severity.MINOR,
    )


@check("SHR-008", layer=Layer.SHARING, severity=Severity.MAJOR, after=("SHR-004",))
def check_paused_operands_come_back(node: Node) -> None:
    """Operand labels are paused (paused-for-…) only while the change lasts for which they were paused."""
    labels = known(node.labels, "the node's labels")
    if not any(key.startswith("nvidia.com/gpu.deploy.") for key in labels):
        not_applicable("no label of the GPU Operator switches operands on this node")
    paused = known(node.partitions.paused, "the node's labels")
    if not paused:
        return
    change = known(node.partitions.change_under_way, "whether a change is under way")
    if change is not None:
        not_applicable(f"a change is under way ({change}); SHR-004 judges that of MIG, OPR-006 the driver's")
    fault(
        seen=f"{node.name} has {', '.join(paused)}, and no such change is under way",
        means="whoever paused them ended without setting them back: these operands stay away from the node",
        remedy=f"run 'kubectl label node {node.name} --overwrite "
        f"{' '.join(one.partition('=')[0] + '=true' for one in paused)}', then 'gpucheck run -k SHR-008'",
    )

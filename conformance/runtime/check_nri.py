"""Runtime layer: the toolkit's NRI plugin can do its work."""

from typing import NoReturn

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.engine import EngineKind, not_asked
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Severity

SOCKET = "/var/run/nri/nri.sock"
SINCE = {EngineKind.CONTAINERD: ((1, 7, 30), (2, 1)), EngineKind.CRI_O: ((1, 34),)}


@check("RTM-018", layer=Layer.RUNTIME, severity=Severity.CRITICAL, after=("RTM-017",))
def check_engine_serves_the_toolkits_nri_plugin(node: Node) -> None:
    """In nri mode the engine has NRI on, is a release that suits, and the toolkit's plugin reached it.

    That are containerd 1.7.30 and 2.1, CRI-O 1.34, and later. Whether the plugin registered is told by its log.
    """
    if Mode.NRI not in known(node.deliveries.declared, "how GPUs reach this node's containers"):
        not_applicable("nothing that was read asks for the toolkit's NRI plugin on this node")
    version = known(node.runtime.engine.name, "the engine's version")
    kind = known(node.runtime.engine.kind, "which engine it is")
    release = known(node.runtime.engine.release, "the engine's release")
    if kind not in SINCE or (release is not None and not _suits(kind, release)):
        _fault_of(node, f"the engine is {version}", "this release has no NRI that the toolkit's plugin can use")
    if not known(node.runtime.nri_is_enabled, "whether NRI is on"):
        _fault_of(node, f"NRI is off in the configuration of {version}", "no NRI plugin is asked about a container")
    socket = node.host.entry(SOCKET)
    if not not_asked(socket) and known(socket, f"whether '{SOCKET}' is there") is None:
        _fault_of(node, f"there is no {SOCKET}", "the running engine was started without NRI")
    complaint = known(node.runtime.nri_complaint, "the log of the toolkit's container")
    if complaint is not None:
        _fault_of(node, f"the toolkit's container says: {complaint}", "its NRI plugin is not registered")


def _suits(kind: EngineKind, release: tuple[int, ...]) -> bool:
    since = SINCE[kind]
    return any(release >= one for one in since if one[:1] == release[:1]) or release[:1] > since[-1][:1]


def _fault_of(node: Node, seen: str, means: str) -> NoReturn:
    fault(
        seen=f"the GPU Operator hands over GPUs by NRI; {seen}",
        means=f"{means}: containers start without their GPU",
        remedy="set disable = false under plugins.'io.containerd.nri.v1.nri' (CRI-O: enable_nri = true) in "
        f"{node.runtime.engine.editable}, update the engine, or switch nriPluginEnabled off; then "
        f"'{node.runtime.engine.restart}'; confirm with 'gpucheck run -k RTM-018'",
    )

"""Driver layer: what the kernel said of the GPUs since boot."""

from collections.abc import Sequence
from typing import Final

from kube_gpucheck.evidence import Gpu
from kube_gpucheck.evidence.kernel_log import Sxid, Xid
from kube_gpucheck.evidence.tables import XidTable, xids
from kube_gpucheck.judging import check, fault, known
from kube_gpucheck.model import Layer, Severity

_RECOVERY_CHANGED: Final = 154
_SHOWN: Final = 4


@check("DRV-011", layer=Layer.DRIVER, severity=Severity.MAJOR)
def check_no_xid_calls_for_action(gpu: Gpu) -> None:
    """The kernel log shows no XID since boot that calls for action.

    Codes that a faulty program causes on a sound GPU (13, 31, 43, 45, 68, 109) are minor, unless another code stands
    beside them. What an NVSwitch calls fatal (SXid) is told with the node's first GPU. A log that does not reach back
    to the module's start tells of the XIDs in it, and of their absence nothing. Not judged: errors that leave no XID
    (DRV-009, DRV-010), and GPUs that never came up (DRV-006).
    """
    driver = gpu.node.driver
    seen = known(driver.xids(gpu.identity), "the kernel log")
    table = xids()
    calling = [xid for xid in seen if _calls_for_action(table, xid)]
    grave = [xid for xid in calling if xid.code not in table.application]
    switches = known(driver.switch_errors, "the kernel log") if _is_first(gpu) else ()
    if not grave and not switches:
        known(driver.whole_kernel_log, "the kernel log since boot")
    if switches and not grave:
        _fault_switches(switches)
    if not calling:
        return
    first = (grave or calling)[0]
    known_code = table.of(first.code)
    action = table.actions[known_code.action] if known_code else table.actions["contact-support"]
    then = f"; then {table.actions[known_code.then]}" if known_code and known_code.then else ""
    fault(
        seen=_facts(table, calling, gpu.identity.address),
        means=f"XID {first.code}: {known_code.meaning if known_code else 'a code that the catalogue does not use'}",
        remedy=f"{action}{then}; run 'gpucheck run -k DRV-011' after the next boot",
        severity=None if grave else Severity.MINOR,
    )


def _is_first(gpu: Gpu) -> bool:
    return known(gpu.node.gpus, "the node's GPUs")[0].subject == gpu.subject


def _fault_switches(errors: Sequence[Sxid]) -> None:
    told = [f"SXid {one.code} of NVSwitch {one.address}{_when(one.time_s)} ({one.text})" for one in errors]
    more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    fault(
        seen="; ".join(told[:_SHOWN]) + more,
        means="an NVSwitch or a link of it has failed: GPUs that talk through it hang or end with errors",
        remedy="drain the node, reset all GPUs and NVSwitches ('nvidia-smi -r') or reboot; have the baseboard checked "
        "if it comes again; run 'gpucheck run -k DRV-011' after the next boot",
    )


def _when(time_s: float | None) -> str:
    return f" {time_s:.0f} s after boot" if time_s is not None else ""


def _calls_for_action(table: XidTable, xid: Xid) -> bool:
    if xid.code == _RECOVERY_CHANGED and "(None)" in xid.text.rpartition(" to ")[2]:
        return False  # "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    known_code = table.of(xid.code)
    return known_code is None or known_code.action != "none" or known_code.then != "" or xid.code in table.pending


def _facts(table: XidTable, calling: Sequence[Xid], address: str | None) -> str:
    """Put the XIDs into words: by code, in the order in which each came first."""
    by_code: dict[int, list[Xid]] = {}
    for xid in calling:
        by_code.setdefault(xid.code, []).append(xid)
    parts = [_told(table, lines, address) for lines in by_code.values()]
    more = f", and {len(parts) - _SHOWN} more codes" if len(parts) > _SHOWN else ""
    return "; ".join(parts[:_SHOWN]) + more


def _told(table: XidTable, lines: Sequence[Xid], address: str | None) -> str:
    first = lines[0]
    known_code = table.of(first.code)
    name = f" ({known_code.name})" if known_code else ""
    by = f", by {first.process or 'process'} (pid {first.pid})" if first.pid is not None else ""
    where = ""
    if first.address and not (address or "").startswith(first.address):
        where = f" of {first.address}, where no GPU is now,"
    times = f", {len(lines)} lines" if len(lines) > 1 else ""
    return f"XID {first.code}{name}{where}{_when(first.time_s)}{by}{times}"

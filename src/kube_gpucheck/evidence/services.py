"""The services of a host that the driver brings: which run, from systemd and from the list of processes."""

import re
from typing import Final

import msgspec

from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.readings import GapError, derived, need
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

PERSISTENCED: Final = "nvidia-persistenced"
FABRIC_MANAGER: Final = "nvidia-fabricmanager"
IMEX: Final = "nvidia-imex"
MPS: Final = "nvidia-cuda-mps-control"
_PROGRAMS: Final = {FABRIC_MANAGER: "nv-fabricmanager"}
"""Services whose program has another name."""
_NAME_LENGTH: Final = 15
"""The kernel keeps so many characters of a process's name. Source: Linux, TASK_COMM_LEN."""
_PS: Final = "ps -e -o pid=,comm="
_PROCESS: Final = re.compile(r" *(\d{1,10}) (.{1,64})")
_VERSION: Final = re.compile(r"Fabric Manager version is *: *(\d{3,4}(?:\.\d{1,4}){1,3})")


class Unit(msgspec.Struct, frozen=True):
    """What systemd says of a service: whether it is installed, and its state (`active`, `inactive`, `failed`)."""

    installed: bool
    state: str


class Services:
    """The driver's services on one host."""

    def __init__(self, host: Host) -> None:
        """Keep the host."""
        self._host = host

    def unit(self, name: str) -> Reading[Unit | None]:
        """Return what systemd says of a service, None where there is no systemd that answers.

        Source: systemctl show NAME, LoadState and ActiveState.
        """
        command = self._host.command(f"systemctl show {name}")
        if isinstance(command, Missing):
            return command
        if command.value is None or command.value.status:
            return Seen(None)
        shown = dict(line.split("=", 1) for line in command.value.text.splitlines() if "=" in line)
        if "ActiveState" not in shown:
            source = f"nodes/{self._host.name}/host.json#exec:systemctl show {name}"
            reason = f"'systemctl show {name}' on {self._host.name} has no ActiveState"
            return Missing(MissingKind.UNPARSABLE, reason, source)
        return Seen(Unit(shown.get("LoadState", "loaded") != "not-found", shown["ActiveState"]))

    def is_running(self, name: str) -> Reading[bool]:
        """Return whether a service runs: as a unit, or as a process, as in a container of its own."""
        unit = self.unit(name)
        if not is_not_asked(unit):
            if isinstance(unit, Missing):
                return unit
            if unit.value is not None and unit.value.state in {"active", "reloading"}:
                return Seen(value=True)
        processes = self.processes
        if isinstance(processes, Missing):
            return processes
        return Seen(_PROGRAMS.get(name, name)[:_NAME_LENGTH] in processes.value)

    @derived
    def processes(self) -> frozenset[str]:
        """The names of the processes that matter to the GPU stack, cut after 15 characters. Source: ps."""
        command = need(self._host.command(_PS))
        found = (_PROCESS.fullmatch(line) for line in (command.text if command else "").splitlines())
        return frozenset(one.group(2).strip() for one in found if one is not None)

    @derived
    def fabric_manager_version(self) -> str | None:
        """The installed Fabric Manager's version, None where its program is not there. Source: its --version."""
        line = "nv-fabricmanager --version"
        command = need(self._host.command(line))
        if command is None:
            return None
        found = _VERSION.search(command.text)
        if found is None:
            source = f"nodes/{self._host.name}/host.json#exec:{line}"
            reason = f"'{line}' on {self._host.name} printed '{command.text.strip()[:60]}'"
            raise GapError(Missing(MissingKind.UNPARSABLE, reason, source))
        return found.group(1)

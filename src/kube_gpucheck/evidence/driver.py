"""The driver layer of one host: PCI functions, kernel module, libraries, NVML, device nodes, kernel log.

Puts together what `pci`, `modules`, `libraries`, `nvml`, `device_nodes` and `kernel_log` read. A source that
nobody asked for is passed over where another tells the same; one that was asked for and is missing never is.
"""

import datetime
import enum
import posixpath
import re
import stat
from functools import cached_property
from typing import Any, Final

import msgspec

from kube_gpucheck.evidence import device_nodes, libraries, mig, modules, nvml, pci
from kube_gpucheck.evidence.bundle import Entry
from kube_gpucheck.evidence.gpu import GpuIdentity
from kube_gpucheck.evidence.health import Health
from kube_gpucheck.evidence.host import Host, Listing, NvmlAnswer
from kube_gpucheck.evidence.kernel_log import KernelLog, NoticeKind, Sxid, Xid, parse_kernel_log, slot_of
from kube_gpucheck.evidence.libraries import Library
from kube_gpucheck.evidence.modules import DkmsBuild, Flavour, LoadedModules, ModuleFile
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.pci import PciGpu
from kube_gpucheck.evidence.readings import GapError, attempt, derived, need
from kube_gpucheck.evidence.services import Services
from kube_gpucheck.evidence.tables import Generation, generation_of_device, generation_of_nvml, nvml_code
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

_FIELD: Final = re.compile(r"([\w ]{1,40}): *[\t ]*(.*)")
_OF_DEVICE: Final = re.compile(r"nvmlDevice\w{1,80}\((\d{1,4})[,)]")
_OS_FIELD: Final = re.compile(r"([A-Z_]{1,40})=\"?([^\"]*)\"?")


class Obstacle(enum.Enum):
    """Why the nvidia module is not loaded."""

    NOT_INSTALLED = "no NVIDIA driver is installed"
    REBOOT_PENDING = "the driver was installed after the node started, and nouveau is still loaded"
    NOUVEAU = "nouveau is loaded"
    HEADERS_MISSING = "the module was not built for this kernel, whose headers are missing"
    NOT_BUILT = "the module was not built for this kernel"
    SECURE_BOOT = "the kernel refuses the module's signature"
    SELINUX = "SELinux refuses to load the module"
    BLACKLISTED = "the kernel's command line forbids the module"
    WRONG_BUILD = "the module on disk was built for another kernel"
    NOT_LOADED = "the module is on disk, and nothing has loaded it"
    UNTOLD = "what was read does not tell why"


class Memory(msgspec.Struct, frozen=True):
    """A GPU's memory in MiB, rounded down. `has_reserved`: what the driver keeps for itself counts as used.

    nvmlDeviceGetMemoryInfo counts it so, nvmlDeviceGetMemoryInfo_v2 does not. Source: nvml.h, nvmlMemory_v2_t.
    """

    total_mib: int
    used_mib: int
    has_reserved: bool


class Hindrance(msgspec.Struct, frozen=True):
    """An obstacle, and the facts that show it, each as a phrase with its value."""

    obstacle: Obstacle
    facts: tuple[str, ...] = ()


class Driver:
    """What the driver of one host is, and what it sees."""

    def __init__(self, host: Host) -> None:
        """Keep the host."""
        self.host = host
        self._healths: dict[GpuIdentity, Health] = {}

    # --- GPUs ----------------------------------------------------------------------------------

    @derived
    def pci_gpus(self) -> tuple[PciGpu, ...]:
        """NVIDIA's display and 3D controllers on the bus, in order of address. Source: /sys/bus/pci/devices."""
        return pci.nvidia_gpus(self.host)

    @derived
    def nvswitches(self) -> tuple[str, ...]:
        """The addresses of NVSwitches on the bus; Blackwell's stand on none. Source: /sys/bus/pci/devices."""
        return pci.nvidia_switches(self.host)

    @derived
    def manages_switches(self) -> bool:
        """Whether the node's own Fabric Manager has NVSwitches to set up.

        They stand on the bus, or (Blackwell) the NVLinks of a GPU lead to some. Not so in a rack (GB200 NVL72), whose
        switches run it themselves, nor in a virtual machine that was given GPUs of a fabric that its host manages.
        """
        if need(self.nvswitches):
            return True
        for gpu in need(self.gpus):
            health = self.health(gpu)
            if gpu.index is None or is_not_asked(health.links_to_switches) or not need(health.links_to_switches):
                continue
            if not need(health.is_of_a_machine) or need(health.is_in_rack_domain):
                return False
            return not any(one in (need(health.product) or "") for one in _OF_RACKS)
        return False

    @derived
    def nvml_gpus(self) -> tuple[GpuIdentity, ...]:
        """The GPUs that NVML lists, in its order; none where it does not start. Source: NVML, else nvidia-smi -L."""
        return nvml.gpus(self.host)

    @derived
    def gpus(self) -> tuple[GpuIdentity, ...]:
        """The union of what the PCI bus and NVML list, in order of PCI address.

        Joined by address, else by the UUID in /proc/driver/nvidia/gpus. GPUs that NVML counts without an address
        (it has none for one that is lost) are those of the bus that are left over, in order, if as many are.
        """
        on_bus, listed = self.pci_gpus, self.nvml_gpus
        if is_not_asked(on_bus):
            return tuple(sorted(need(listed), key=_place))
        addresses = [gpu.address for gpu in need(on_bus)]
        seen = () if is_not_asked(listed) else need(listed)
        by_address = {gpu.address: gpu for gpu in seen if gpu.address is not None}
        nameless = [gpu for gpu in seen if gpu.address is None]
        left_over = [address for address in addresses if address not in by_address]
        uuids = {address: self._uuid_in_proc(address) for address in left_over}
        for address in tuple(left_over):
            same = next((gpu for gpu in nameless if gpu.uuid is not None and gpu.uuid == uuids[address]), None)
            if same is not None:
                by_address[address] = GpuIdentity(address, same.index, same.uuid)
                nameless.remove(same)
                left_over.remove(address)
        if len(nameless) == len(left_over):
            pairs = zip(left_over, nameless, strict=True)
            by_address |= {
                address: GpuIdentity(address, gpu.index, gpu.uuid or uuids[address]) for address, gpu in pairs
            }
            nameless = []
        by_address |= {
            address: GpuIdentity(address, None, uuids[address]) for address in addresses if address not in by_address
        }
        return tuple(sorted((*by_address.values(), *nameless), key=_place))

    def information(self, address: str) -> Reading[dict[str, str] | None]:
        """Return what the module says of a GPU, None if it does not have it. Source: /proc/driver/nvidia/gpus."""
        text = self.host.file(f"/proc/driver/nvidia/gpus/{address}/information")
        if isinstance(text, Missing):
            return text
        if text.value is None:
            return Seen(None)
        found = (_FIELD.fullmatch(line.rstrip()) for line in text.value.splitlines())
        return Seen({one.group(1): one.group(2).strip() for one in found if one is not None})

    def _uuid_in_proc(self, address: str) -> str | None:
        information = self.information(address)
        if is_not_asked(information):
            return None
        uuid = (need(information) or {}).get("GPU UUID", "")
        return uuid if uuid.startswith("GPU-") and "?" not in uuid else None

    def query(self, gpu: GpuIdentity, call: str, *arguments: str) -> Reading[NvmlAnswer]:
        """Return what NVML answered of one GPU (`nvmlDeviceGetMigMode`); missing where NVML cannot be asked for it."""
        code = self.nvml_init_code
        source = f"nodes/{self.host.name}/host.json#nvml:{call}"
        if isinstance(code, Missing):
            if code.kind is not MissingKind.NOT_ASKED:
                return code
        elif code.value != 0:
            return Missing(
                MissingKind.ERROR, f"NVML on {self.host.name} does not start: {nvml_code(code.value)}", source
            )
        if gpu.index is None:
            kind = MissingKind.NOT_ASKED if is_not_asked(self.nvml_gpus) else MissingKind.ERROR
            return Missing(kind, f"NVML on {self.host.name} does not list {gpu.address or gpu.uuid}", source, "--probe")
        return nvml.query(self.host, call, ",".join((str(gpu.index), *arguments)))

    def queries(self, gpu: GpuIdentity) -> Reading[tuple[tuple[str, NvmlAnswer], ...]]:
        """Return every query that NVML was asked of one GPU, with its answer, in the order in which they were asked."""
        first = self.query(gpu, "nvmlDeviceGetUUID")
        if isinstance(first, Missing) and first.kind is not MissingKind.NOT_ASKED:
            return first
        answers = []
        for call in self._calls.get(str(gpu.index), ()):
            answer = self.host.nvml(call)
            if isinstance(answer, Missing):
                return answer
            answers.append((call, answer.value))
        if answers:
            return Seen(tuple(answers))
        return first if isinstance(first, Missing) else Seen(())

    @cached_property
    def _calls(self) -> dict[str, list[str]]:
        """The calls that were made of each GPU, by its NVML index as it stands in them."""
        found: dict[str, list[str]] = {}
        for key in self.host.keys("nvml:nvmlDevice"):
            call = key.removeprefix("nvml:")
            index = _OF_DEVICE.match(call)
            if index is not None:
                found.setdefault(index[1], []).append(call)
        return found

    def generation(self, gpu: GpuIdentity) -> Reading[Generation]:
        """Return a GPU's generation, by PCI device id, else (not read, or newer than the table) by what NVML says."""
        on_bus = self.pci_gpus
        device: int | None = None
        if not is_not_asked(on_bus):
            if isinstance(on_bus, Missing):
                return on_bus
            device = next((one.device for one in on_bus.value if one.address == gpu.address), None)
            known = generation_of_device(device) if device is not None else None
            if known is not None:
                return Seen(known)
        architecture = self.query(gpu, "nvmlDeviceGetArchitecture")
        name = self.query(gpu, "nvmlDeviceGetName")
        if isinstance(architecture, Seen) and isinstance(architecture.value.value, int):
            product = str(name.value.value) if isinstance(name, Seen) else ""
            told = generation_of_nvml(architecture.value.value, product)
            if told is not None:
                return Seen(told)
        if device is None and isinstance(architecture, Missing):
            return architecture
        what = f"PCI device {device:#06x}" if device is not None else "what NVML answers"
        source = f"nodes/{self.host.name}/host.json#list:{pci.BUS}"
        return Missing(
            MissingKind.ERROR, f"the GPU generation of {gpu.address or gpu.uuid} cannot be told from {what}", source
        )

    # --- the kernel and its modules ----------------------------------------------------------------

    @derived
    def kernel_release(self) -> str:
        """The running kernel's release (`5.15.0-46-generic`). Source: uname -a, third word."""
        command = need(self.host.command("uname -a"))
        words = command.text.split() if command else []
        if len(words) < 3:  # noqa: PLR2004  name, host, release
            raise GapError(self._unparsable("exec:uname -a", f"'uname -a' on {self.host.name} has no release"))
        return words[2]

    @derived
    def os_release(self) -> dict[str, str]:
        """The distribution's names, by key (`ID`, `VERSION_ID`, `PRETTY_NAME`). Source: /etc/os-release."""
        text = need(self.host.file("/etc/os-release")) or ""
        found = (_OS_FIELD.fullmatch(line.strip()) for line in text.splitlines())
        return {one.group(1): one.group(2) for one in found if one is not None}

    @derived
    def uptime_s(self) -> float:
        """How long the host has been running. Source: /proc/uptime, first number."""
        text = need(self.host.file("/proc/uptime")) or ""
        try:
            return float(text.split()[0])
        except (IndexError, ValueError) as error:
            reason = f"/proc/uptime on {self.host.name} is '{text[:40].strip()}'"
            raise GapError(self._unparsable("file:/proc/uptime", reason)) from error

    @derived
    def boot_time(self) -> datetime.datetime:
        """When the host started, to within the time that the reads took. Source: /proc/uptime."""
        seconds = need(self.uptime_s)
        try:
            return self.host.read_at - datetime.timedelta(seconds=seconds)
        except (OverflowError, ValueError) as error:
            reason = f"/proc/uptime on {self.host.name} has {seconds} s"
            raise GapError(self._unparsable("file:/proc/uptime", reason)) from error

    @derived
    def loaded_modules(self) -> LoadedModules:
        """What /proc/modules lists."""
        return modules.loaded_modules(self.host)

    def is_loaded(self, name: str) -> Reading[bool]:
        """Tell whether a kernel module is loaded (`nvidia_uvm`). Source: /proc/modules."""
        loaded = self.loaded_modules
        if isinstance(loaded, Missing):
            return loaded
        if name in loaded.value.names or loaded.value.tells_of(name):
            return Seen(name in loaded.value.names)
        filtered = loaded.value.filtered
        reason = f"/proc/modules on {self.host.name} was read through the filter '{filtered}', which hides {name}"
        return Missing(MissingKind.ERROR, reason, f"nodes/{self.host.name}/host.json#file:/proc/modules")

    @derived
    def nouveau_loaded(self) -> bool:
        """Whether nouveau is loaded. Source: /proc/modules."""
        return need(self.is_loaded("nouveau"))

    @derived
    def nvidia_loaded(self) -> bool:
        """Whether the nvidia module is loaded. Source: /proc/modules, else /proc/driver/nvidia/version."""
        loaded = self.is_loaded("nvidia")
        return need(self.module_version) is not None if is_not_asked(loaded) else need(loaded)

    @derived
    def uvm_usable(self) -> bool:
        """Whether nvidia_uvm is loaded or can be, because its file stands on disk with the nvidia module's.

        Source: /proc/modules; if it is not there, modinfo nvidia or the folders of modules.
        """
        loaded = self.is_loaded("nvidia_uvm")
        if not is_not_asked(loaded) and need(loaded):
            return True
        file = need(self.installed_module)
        return file is not None and file.uvm is not False

    @derived
    def module_version(self) -> str | None:
        """Version of the loaded nvidia module, None if none is loaded.

        Source: /proc/driver/nvidia/version, else /sys/module/nvidia/version, else /proc/modules (where it lists none).
        """
        text = self.host.file("/proc/driver/nvidia/version")
        if not is_not_asked(text):
            banner = need(text)
            if banner is None:
                return None
            version = modules.version_in(banner)
            if version is None:
                raise GapError(
                    self._unparsable(
                        "file:/proc/driver/nvidia/version",
                        f"/proc/driver/nvidia/version on {self.host.name} names no version",
                    )
                )
            return version
        sysfs = self.host.file("/sys/module/nvidia/version")
        if not is_not_asked(sysfs):
            version = (need(sysfs) or "").strip()
            return version if modules.is_version(version) else None
        if not need(self.is_loaded("nvidia")):
            return None
        need(text)
        return None

    @derived
    def module_flavour(self) -> Flavour | None:
        """Flavour of the loaded nvidia module, None if none is loaded. Source: /proc/driver/nvidia/version."""
        banner = need(self.host.file("/proc/driver/nvidia/version"))
        return None if banner is None else modules.flavour_in(banner)

    @derived
    def installed_module(self) -> ModuleFile | None:
        """The nvidia module on disk for the running kernel, None if there is none.

        Source: modinfo nvidia, else the folders below /lib/modules/<release> that were listed.
        """
        command = self.host.command("modinfo nvidia")
        if not is_not_asked(command):
            described = need(command)
            if described is not None:
                return modules.described(described)
        return modules.module_in_folders(self.host, need(self.kernel_release))

    @derived
    def module_on_disk_for_running_kernel(self) -> bool:
        """Whether an nvidia module for the running kernel is on disk."""
        return need(self.installed_module) is not None

    @derived
    def module_installed_after_boot(self) -> bool:
        """Whether the nvidia module on disk is newer than the running system, so that a reboot is pending.

        Source: the file's time of change, and /proc/uptime.
        """
        file = need(self.installed_module)
        if file is None:
            return False
        entry = need(self.host.entry(file.path))
        changed = modules.moment(entry.modified) if entry else None
        if changed is None:
            raise GapError(
                self._unparsable(
                    f"list:{posixpath.dirname(file.path)}",
                    f"the time of {file.path} on {self.host.name} cannot be dated",
                )
            )
        return changed > need(self.boot_time)

    @derived
    def dkms_builds(self) -> tuple[DkmsBuild, ...]:
        """What DKMS has of NVIDIA's modules, in its order; none where there is no DKMS. Source: dkms status."""
        command = need(self.host.command("dkms status"))
        return () if command is None else modules.dkms_builds(command)

    @derived
    def kernel_headers_present(self) -> bool:
        """Whether the running kernel can have modules built. Source: /lib/modules/<release>/build."""
        release = need(self.kernel_release)
        return need(self.host.listing(f"/lib/modules/{release}/build")) is not None

    @property
    def hindrance(self) -> Hindrance:
        """Why the nvidia module is not loaded, from whatever was read; missing evidence takes an answer away."""
        said = self._refused()
        if said is not None:
            return said
        file = self.installed_module
        nouveau = isinstance(self.nouveau_loaded, Seen) and self.nouveau_loaded.value
        if isinstance(file, Seen) and file.value is None:
            return self._nothing_for_this_kernel()
        if isinstance(file, Missing):
            return Hindrance(Obstacle.NOUVEAU) if nouveau else Hindrance(Obstacle.UNTOLD, (file.reason,))
        path = file.value.path if file.value else ""
        if nouveau:
            later = self.module_installed_after_boot
            pending = isinstance(later, Seen) and later.value
            return Hindrance(Obstacle.REBOOT_PENDING if pending else Obstacle.NOUVEAU, (f"{path} is on disk",))
        command_line = self.host.file("/proc/cmdline")
        if isinstance(command_line, Seen) and command_line.value is not None:
            for word in command_line.value.split():
                key, _, names = word.partition("=")
                if key in _FORBIDDING and "nvidia" in names.split(","):
                    return Hindrance(Obstacle.BLACKLISTED, (f"the kernel was started with {word}",))
        return Hindrance(Obstacle.NOT_LOADED, (f"{path} is on disk",))

    def _refused(self) -> Hindrance | None:
        log = self.kernel_log
        if isinstance(log, Missing):
            return None
        for kind, obstacle in _REFUSALS:
            lines = log.value.of(kind)
            if lines:
                facts = [f"the kernel log says '{lines[-1].text}'"]
                if obstacle is Obstacle.SECURE_BOOT and isinstance(self.secure_boot, Seen) and self.secure_boot.value:
                    facts.append("Secure Boot is enabled")
                return Hindrance(obstacle, tuple(facts))
        return None

    def _nothing_for_this_kernel(self) -> Hindrance:
        release = self.kernel_release
        running = release.value if isinstance(release, Seen) else "the running kernel"
        builds = self.dkms_builds
        if isinstance(builds, Seen) and builds.value:
            built = ", ".join(
                f"{one.version} {one.state}" + (f" for {one.kernel}" if one.kernel else "") for one in builds.value
            )
            facts = (f"DKMS has {built}", f"the running kernel is {running}")
            headers = self.kernel_headers_present
            if isinstance(headers, Seen) and not headers.value:
                return Hindrance(Obstacle.HEADERS_MISSING, (*facts, f"/lib/modules/{running}/build is not there"))
            return Hindrance(Obstacle.NOT_BUILT, facts)
        present = self.libraries_present
        if isinstance(present, Seen) and present.value:
            return Hindrance(
                Obstacle.NOT_BUILT, (f"no nvidia module for kernel {running}", "the driver's libraries are installed")
            )
        nothing = f"no nvidia module for kernel {running}"
        return Hindrance(
            Obstacle.NOT_INSTALLED, (nothing, "no libnvidia-ml.so.1") if isinstance(present, Seen) else (nothing,)
        )

    @derived
    def secure_boot(self) -> bool:
        """Whether the firmware enforces signatures; False where mokutil is not installed or knows no EFI.

        Source: mokutil --sb-state.
        """
        command = need(self.host.command("mokutil --sb-state"))
        return command is not None and "SecureBoot enabled" in command.text

    # --- libraries and NVML ------------------------------------------------------------------------

    @derived
    def libraries(self) -> tuple[Library, ...]:
        """libnvidia-ml and libcuda as the loader finds them; what is not installed is left out.

        Source: ldconfig -p, and the links of what it names.
        """
        return libraries.loaded_libraries(self.host)

    @derived
    def libraries_present(self) -> bool:
        """Whether the loader finds libnvidia-ml.so.1."""
        return any(one.name == "libnvidia-ml.so.1" for one in need(self.libraries))

    @derived
    def nvml_init_code(self) -> int:
        """The code by which NVML started, 0 for success. Source: nvmlInit_v2, else nvidia-smi -L."""
        return nvml.init_code(self.host)

    @derived
    def cuda_init_code(self) -> int | None:
        """The code by which CUDA started, 0 for success; None where there is no libcuda. Source: cuInit."""
        answer = self._cuda("cuInit")
        return None if answer is None else answer.code

    @derived
    def cuda_devices(self) -> int | None:
        """How many devices CUDA counts; None where it does not say. Source: cuDeviceGetCount."""
        answer = self._cuda("cuDeviceGetCount")
        return answer.value if answer is not None and answer.code == 0 and type(answer.value) is int else None

    def _cuda(self, call: str) -> NvmlAnswer | None:
        read = need(self.host.read(f"cuda:{call}"))
        if read.absent:
            return None
        if read.code is None:
            raise GapError(self._unparsable(f"cuda:{call}", f"{call} on {self.host.name} has no code"))
        return NvmlAnswer(read.code, read.value)

    @cached_property
    def services(self) -> Services:
        """The services that the driver brings."""
        return Services(self.host)

    # --- device nodes ------------------------------------------------------------------------------

    @derived
    def majors(self) -> dict[str, int]:
        """Major numbers of character devices by name. Source: /proc/devices."""
        return device_nodes.majors(self.host)

    @derived
    def device_folder(self) -> Listing | None:
        """The nodes in /dev. Source: a listing of /dev."""
        return device_nodes.device_folder(self.host, "/dev")

    @derived
    def caps_folder(self) -> Listing | None:
        """The nodes in /dev/nvidia-caps, None if there is no such folder. Source: a listing of it."""
        return device_nodes.device_folder(self.host, "/dev/nvidia-caps")

    @derived
    def device_file_mode(self) -> str | None:
        """The mode that the module gives to its nodes, as `ls` writes it, None if none is loaded.

        Source: /proc/driver/nvidia/params, DeviceFileMode.
        """
        text = need(self.host.file("/proc/driver/nvidia/params"))
        for line in (text or "").splitlines():
            key, _, value = line.partition(":")
            if key == "DeviceFileMode" and value.strip().isdecimal():
                return stat.filemode(stat.S_IFCHR | int(value) & 0o777)
        return None

    def minor_of(self, gpu: GpuIdentity) -> Reading[int | None]:
        """Return N of a GPU's `/dev/nvidiaN`, None if neither the module nor NVML was asked or tells it."""
        information = self.information(gpu.address) if gpu.address is not None else None
        if information is not None and not is_not_asked(information):
            if isinstance(information, Missing):
                return information
            number = (information.value or {}).get("Device Minor", "")
            return Seen(int(number) if number.isdecimal() else None)
        starts = self.nvml_init_code
        if gpu.index is None or (isinstance(starts, Seen) and starts.value != 0):
            return Seen(None)
        answer = self.query(gpu, "nvmlDeviceGetMinorNumber")
        if isinstance(answer, Missing):
            return Seen(None) if answer.kind is MissingKind.NOT_ASKED else answer
        return Seen(answer.value.value if answer.value.code == 0 and type(answer.value.value) is int else None)

    # --- the kernel's log --------------------------------------------------------------------------

    @derived
    def kernel_log(self) -> KernelLog:
        """What the kernel said of the driver since boot. Source: dmesg, else the kernel's journal."""
        command = self.host.command("dmesg")
        if not is_not_asked(command):
            printed = need(command)
            if printed is not None:
                if printed.status or "Operation not permitted" in printed.text[:200]:
                    reason = (
                        f"'dmesg' on {self.host.name} ended with status {printed.status}: {printed.text.strip()[:80]}"
                    )
                    raise GapError(
                        Missing(MissingKind.FORBIDDEN, reason, f"nodes/{self.host.name}/host.json#exec:dmesg")
                    )
                return parse_kernel_log(printed.text, filtered=printed.filtered, truncated=printed.truncated)
        journal = self.host.log("kernel")
        if is_not_asked(journal):
            need(command)
            raise GapError(
                Missing(
                    MissingKind.ERROR,
                    f"there is no 'dmesg' on {self.host.name}",
                    f"nodes/{self.host.name}/host.json#exec:dmesg",
                )
            )
        return parse_kernel_log(need(journal))

    @derived
    def whole_kernel_log(self) -> KernelLog:
        """The kernel's log where it holds everything that the driver said since boot."""
        log = need(self.kernel_log)
        if log.gap is not None:
            source = f"nodes/{self.host.name}/host.json#exec:dmesg"
            raise GapError(Missing(MissingKind.ERROR, f"the kernel log of {self.host.name}: {log.gap}", source))
        return log

    def xids(self, gpu: GpuIdentity) -> Reading[tuple[Xid, ...]]:
        """Return the XIDs of one GPU that the kernel log shows, oldest first, whether or not it shows all.

        Those of an address that no GPU has any more are told with the node's first GPU. A GPU that the log says
        has fallen off the bus, or whose system processor stopped answering, without an XID, is given the XID that
        means just that.
        """
        log, gpus = self.kernel_log, self.gpus
        if isinstance(log, Missing):
            return log
        if isinstance(gpus, Missing):
            return gpus
        present = {slot_of(one.address): one for one in gpus.value if one.address is not None}
        first = gpus.value[0] if gpus.value else gpu
        only = slot_of(gpus.value[0].address or "") if len(gpus.value) == 1 else ""
        named = {(one.address, one.code) for one in log.value.xids}
        said = [
            Xid(one.address or only, code, one.text, one.time_s)
            for kind, code in _SAID_IN_WORDS.items()
            for one in log.value.of(kind)
        ]
        lines = (*log.value.xids, *(one for one in said if one.address and (one.address, one.code) not in named))
        if gpu.address is None and lines and len(gpus.value) > 1:
            source = f"nodes/{self.host.name}/host.json#exec:dmesg"
            reason = f"the kernel log of {self.host.name} has XIDs by PCI address, and that of {gpu.uuid} is not known"
            return Missing(MissingKind.ERROR, reason, source)
        mine = [one for one in lines if present.get(one.address, first) == gpu]
        return Seen(tuple(sorted(mine, key=lambda one: -1.0 if one.time_s is None else one.time_s)))

    @derived
    def switch_errors(self) -> tuple[Sxid, ...]:
        """What NVSwitches called fatal since boot, oldest first, as far as the kernel log shows it."""
        return tuple(one for one in need(self.kernel_log).sxids if one.fatal)

    # --- what NVML says of one GPU -----------------------------------------------------------------

    def health(self, gpu: GpuIdentity) -> Health:
        """Return what NVML says of one GPU's health."""
        if gpu not in self._healths:
            self._healths[gpu] = Health(self, gpu)
        return self._healths[gpu]

    def answer(self, gpu: GpuIdentity, call: str, *arguments: str) -> Reading[Any]:
        """Return the value of a query, None where GPU or driver do not offer it; another code than these is missing."""
        answer = self.query(gpu, call, *arguments)
        if isinstance(answer, Missing):
            return answer
        code = answer.value.code
        if code == 0:
            return Seen(answer.value.value)
        if code in _NOT_OFFERED or (code == _INVALID_ARGUMENT and call == _FIELDS):
            return Seen(None)
        named = f"{call}({','.join((str(gpu.index), *arguments))})"
        source = f"nodes/{self.host.name}/host.json#nvml:{named}"
        kind = MissingKind.FORBIDDEN if code == _NO_PERMISSION else MissingKind.ERROR
        return Missing(kind, f"{named} on {self.host.name} answered {nvml_code(code)}", source)

    def mig_mode(self, gpu: GpuIdentity) -> Reading[tuple[bool, bool] | None]:
        """Return whether MIG is on now, and whether it is after the next reset; None for a GPU that has no MIG."""
        value = self.answer(gpu, "nvmlDeviceGetMigMode")
        if isinstance(value, Missing) or value.value is None:
            return value
        match value.value:
            case [int() as now, int() as pending]:
                return Seen((bool(now), bool(pending)))
            case _:
                return self.odd("nvmlDeviceGetMigMode", gpu, value.value)

    def mig_profiles(self, gpu: GpuIdentity) -> Reading[tuple[str, ...]]:
        """Return the profiles (`1g.5gb`) of a GPU's MIG devices, in NVML's order; none where MIG is off.

        Source: nvmlDeviceGetMigDeviceHandleByIndex and the name of what it gives, else nvidia-smi -L.
        """
        return attempt(lambda: mig.mig_profiles(self.host, gpu) if need(self.mig_is_on(gpu)) else ())

    def mig_is_on(self, gpu: GpuIdentity) -> Reading[bool]:
        """Return whether MIG is on now."""
        mode = self.mig_mode(gpu)
        return mode if isinstance(mode, Missing) else Seen(mode.value is not None and mode.value[0])

    def gsp_firmware(self, gpu: GpuIdentity) -> Reading[str | None]:
        """Return the version of the GSP firmware that a GPU runs, None if it runs none.

        Source: /proc/driver/nvidia/gpus/<address>/information, "GPU Firmware", else nvmlDeviceGetGspFirmwareVersion.
        """
        information = self.information(gpu.address) if gpu.address is not None else None
        if information is not None and not is_not_asked(information):
            if isinstance(information, Missing):
                return information
            fields = information.value or {}
            version = fields.get("GPU Firmware", "")
            if version not in {"N/A", ""}:
                return Seen(version)
            if "?" not in fields.get("GPU UUID", "?"):  # a GPU that was never opened tells neither
                return Seen(None)
        value = self.answer(gpu, "nvmlDeviceGetGspFirmwareVersion")
        return value if isinstance(value, Missing) else Seen(str(value.value) if value.value else None)

    def processes(self, gpu: GpuIdentity) -> Reading[tuple[int | None, ...] | None]:
        """Return the ids of processes that compute on a GPU (None: not told); None where NVML cannot list them."""
        value = self.answer(gpu, "nvmlDeviceGetComputeRunningProcesses")
        if isinstance(value, Missing) or value.value is None:
            return value
        if not isinstance(value.value, list):
            return self.odd("nvmlDeviceGetComputeRunningProcesses", gpu, value.value)
        return Seen(tuple(_pid(one) for one in value.value))

    def has_display(self, gpu: GpuIdentity) -> bool:
        """Tell whether NVML was seen to list a graphics process (a display server) on a GPU."""
        value = self.answer(gpu, "nvmlDeviceGetGraphicsRunningProcesses")
        return isinstance(value, Seen) and isinstance(value.value, list) and bool(value.value)

    def memory(self, gpu: GpuIdentity) -> Reading[Memory | None]:
        """Return a GPU's memory; None where NVML does not tell it (unified memory)."""
        value = self.answer(gpu, "nvmlDeviceGetMemoryInfo")
        if isinstance(value, Missing) or value.value is None:
            return value
        match value.value:
            case {"total": int() as total, "used": int() as used, **rest} if total > 0:
                return Seen(Memory(total // MIB, used // MIB, has_reserved="reserved" not in rest))
            case _:
                return self.odd("nvmlDeviceGetMemoryInfo", gpu, value.value)

    def odd(self, call: str, gpu: GpuIdentity, value: object, *arguments: str) -> Missing:
        """Return that a query has a value of another form than NVML gives."""
        named = f"{call}({','.join((str(gpu.index), *arguments))})"
        return self._unparsable(f"nvml:{named}", f"{named} on {self.host.name} has the value {value!r:.60}")

    def device_node(self, name: str) -> Reading[Entry | None]:
        """Return a node of /dev, None if there is none of that name."""
        folder = self.device_folder
        if isinstance(folder, Missing):
            return folder
        found = folder.value.find(name) if folder.value else None
        if found is None and folder.value is not None and not folder.value.tells_of(name):
            source = f"nodes/{self.host.name}/host.json#list:/dev"
            reason = (
                f"/dev on {self.host.name} was listed through the filter '{folder.value.filtered}', which hides {name}"
            )
            return Missing(MissingKind.ERROR, reason, source)
        return Seen(found)

    @derived
    def library_versions(self) -> dict[str, str]:
        """Versions of libnvidia-ml and libcuda by name, as far as their links were read; empty if none is installed."""
        found = need(self.libraries)
        versions = {one.name: one.version for one in found if one.version is not None}
        if found and not versions:
            source = f"nodes/{self.host.name}/host.json#link:{found[0].path}"
            raise GapError(
                Missing(MissingKind.NOT_ASKED, f"the version of {found[0].path} was not read", source, "--probe")
            )
        return versions

    def _unparsable(self, key: str, reason: str) -> Missing:
        return Missing(MissingKind.UNPARSABLE, reason, f"nodes/{self.host.name}/host.json#{key}")


MIB: Final = 1 << 20
_NOT_OFFERED: Final = frozenset({3, 13, 25, 26})
"""Codes by which a query is not offered: by this GPU; by a library that is older than the query, or than its form, or
that has given it up. Source: nvml.h, NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH, DEPRECATED."""
_FIELDS: Final = "nvmlDeviceGetFieldValues"
_OF_RACKS: Final = ("GB200", "GB300")
"""Products whose NVSwitches stand in trays of their own: a fabric that is not complete tells no domain yet."""
_INVALID_ARGUMENT: Final = 2
"""Of a field alone it says that the library does not know the field."""
_NO_PERMISSION: Final = 4
_SAID_IN_WORDS: Final = {NoticeKind.FELL_OFF: 79, NoticeKind.GSP_TIMEOUT: 119}
"""The XID of what the kernel log may say without one."""
_FORBIDDING: Final = frozenset({"modprobe.blacklist", "rd.driver.blacklist", "module_blacklist"})
"""Kernel parameters that keep a module from being loaded. Source: kernel-parameters.txt; dracut.cmdline(7)."""
_REFUSALS: Final = (
    (NoticeKind.UNSIGNED_MODULE, Obstacle.SECURE_BOOT),
    (NoticeKind.SELINUX_DENIAL, Obstacle.SELINUX),
    (NoticeKind.WRONG_BUILD, Obstacle.WRONG_BUILD),
)


def _place(gpu: GpuIdentity) -> tuple[bool, str, int]:
    return gpu.address is None, gpu.address or "", gpu.index if gpu.index is not None else -1


def _pid(process: object) -> int | None:
    pid = process.get("pid") if isinstance(process, dict) else None
    return pid if type(pid) is int else None

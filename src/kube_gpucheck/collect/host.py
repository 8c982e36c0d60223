"""Reads one host: what is read and in which order, as the table in `evidence/host.py` has it.

Finds out where things lie before it reads them: a read that is asked for and absent says that the thing
is not there, so a distribution's files are asked for only where that distribution is, and those of engine,
toolkit and kubelet only where one of them is. NVML of a root user makes device nodes that are not there (the
module's `ModifyDeviceFiles`): /dev is listed before NVML is started. Commands are run
where the host's root is `/`; below another root (a pod that has the host at `/host`) its programs could
not be run, and what they tell is not asked for: `ldconfig -p`, `modinfo`, `dkms`, `mokutil`,
`containerd config dump`, `crictl info`, `systemctl`, `journalctl` and the versions.

Standard library alone, Python 3.8 on: it travels; `pynvml` is used for all that NVML tells, where that is asked for and
the package is there. Nothing is judged, parsed further or
hidden here; credentials in an engine's configuration are replaced when the bundle is written.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import time
from typing import TYPE_CHECKING, Final

from kube_gpucheck.collect import deadlines, hostcuda, hostnvml, hostnvmlcalls
from kube_gpucheck.collect import hostplaces as places
from kube_gpucheck.collect.hostlogs import read_logs
from kube_gpucheck.collect.hostreads import PROGRAMS, GoneError, HostReads

if TYPE_CHECKING:
    from kube_gpucheck.collect.hostreads import Read

    Report = dict[str, object]
    """`asked`, `host` (a `host.json`), `logs` by unit, and `missing`, as `evidence/nodereport.py` has them."""

HOST_FORMAT: Final = 1
_IMPORTS: Final = re.compile(
    r"""^\s*imports\s*=\s*\[((?:[^\]"']|"[^"\n]{0,500}"|'[^'\n]{0,500}'){0,4000})\]""", re.MULTILINE
)
_QUOTED: Final = re.compile(r"""["']([^"'\n]{1,500})["']""")
_PROGRAM: Final = re.compile(
    r"""(?:BinaryName|runtime_path|^\s*path)["']?\s*=\s*["']([^"'\n/]{1,100})["']""", re.MULTILINE
)
_PATH: Final = re.compile(r"""(?:["'=@\s]|: )(/(?:[\w.+@-]+/)*[\w.+@-]+)["'\s,]?""")
_CACHED: Final = re.compile(r"^\s*(\S+) \(.*\) => (\S+)$", re.MULTILINE)
_MODULE_FILE: Final = re.compile(r"^filename:\s+(/\S+)$", re.MULTILINE)
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_MAJOR: Final = re.compile(r"^\s*(\d+) nvidia", re.MULTILINE)
_MAX_PATHS: Final = 400
_MAX_FILES: Final = 64
_MAX_LINKS: Final = 8


def read_host(
    root: str = "/", *, full: bool = False, deadline_s: float = deadlines.HOST_S, programs: str = PROGRAMS
) -> Report:
    """Return everything that is read of the host whose root is found at `root`.

    `full`: NVML's slow queries too. `deadline_s`: for the whole; what is then unread has timed out. `programs`:
    where commands are looked for. Starts children, and programs of the host where `root` is `/`; writes nothing.
    """
    reads = HostReads(root, deadline_s=deadline_s, programs=programs)
    try:
        _Plan(reads).read(full=full)
        boot_id = reads.peek("file", "/proc/sys/kernel/random/boot_id").get("text")
        logs, missing = read_logs(reads)
    finally:
        reads.close()
    host = {
        "format": HOST_FORMAT,
        "boot_id": boot_id.strip() if isinstance(boot_id, str) else None,
        "read_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "root": reads.root,
        "uid": os.getuid(),
        "reads": reads.reads,
    }
    asked = [*reads.reads, *("log:" + unit for unit in (*logs, *(one["unit"] for one in missing)))]
    lost = [
        {"evidence": "host/log:" + one["unit"], "kind": one["kind"], "reason": one["reason"], "source": one["source"]}
        for one in missing
    ]
    if reads.unstarted:
        lost = [*_unread(reads), *({**one, "kind": "error", "reason": reads.unstarted} for one in lost)]
    return {"asked": asked, "host": host, "logs": logs, "missing": lost}


def _unread(reads: HostReads) -> list[dict[str, str]]:
    """Return what was not read because no child could be started, and take it out of the reads: it is no evidence."""
    keys = [key for key, read in reads.reads.items() if "error" in read and not key.startswith("exec:")]
    for key in keys:
        del reads.reads[key]
    return [{"evidence": "host/" + key, "kind": "error", "reason": reads.unstarted, "source": key} for key in keys]


class _Plan:
    """The order of reads. Each part stands alone: what one of them does not find costs the others nothing."""

    def __init__(self, reads: HostReads) -> None:
        self.reads = reads
        self.own = reads.root == "/"
        self._named: dict[str, None] = {}
        self._units: dict[str, Read] = {}

    def read(self, *, full: bool) -> None:
        """Read everything."""
        self.reads.prepare("nvml")
        self.kernel()
        self.pci()
        self.devices()
        release = os.uname().release
        self.modules(release)
        self.libraries()
        if self.own:
            self.services()
        self.nvml(full=full)
        self.cuda()
        processes = self.processes()
        if processes or self._runs_containers():
            self.engine(processes)
            self.toolkit()
            self.cdi()
            self.kubelet(processes)
            if self.own:
                self.versions()
        for path in list(self._named)[:_MAX_PATHS]:
            self.reads.stat(path)

    # --- the driver ----------------------------------------------------------------------------------

    def kernel(self) -> None:
        """Read what the kernel and its driver tell in files."""
        system = os.uname()
        words = (system.sysname, system.nodename, system.release, system.version, system.machine, "GNU/Linux")
        self.reads.note("exec:uname -a", {"text": " ".join(words) + "\n", "code": 0})  # the call that uname(1) makes
        for path in places.KERNEL:
            self.reads.file(path)
        self.reads.listing("/proc/driver/nvidia")
        for address in self.reads.listing("/proc/driver/nvidia/gpus"):
            self.reads.file(f"/proc/driver/nvidia/gpus/{address}/information")
        for name in self.reads.listing("/etc/modprobe.d", keep=r"\.conf$")[:_MAX_FILES]:
            self.reads.file("/etc/modprobe.d/" + name)

    def pci(self) -> None:
        """Read the bus: the vendor of each function, and more of NVIDIA's, with the port above each GPU."""
        for address in self.reads.listing(places.PCI):
            folder = posixpath.join(places.PCI, address)
            if (self.reads.file(folder + "/vendor") or "").strip() != places.NVIDIA:
                continue
            for name in places.GPU_ATTRIBUTES:
                self.reads.file(posixpath.join(folder, name))
            self.reads.link(folder + "/driver")
            self.reads.link(folder + "/iommu_group")
            where = (self.reads.link(folder) or "").split("/")
            if len(where) > 1 and _ADDRESS.fullmatch(where[-2]):
                for name in ("max_link_speed", "max_link_width", "aer_dev_correctable", "aer_dev_fatal"):
                    self.reads.file(f"{places.PCI}/{where[-2]}/{name}")
        self.reads.listing("/sys/bus/pci/drivers/nvidia")

    def devices(self) -> None:
        """List the device nodes."""
        self.reads.listing("/dev", keep=places.DEVICES)
        self.reads.listing("/dev/nvidia-caps")
        self.reads.listing("/dev/nvidia-caps-imex-channels")
        majors = _MAJOR.findall(self.reads.file("/proc/devices") or "")
        if majors:
            self.reads.listing("/dev/char", keep="^(?:" + "|".join(dict.fromkeys(majors)) + "):")

    def modules(self, release: str) -> None:
        """Read which modules stand on disk for the running kernel, how they were built, and what boot allows."""
        top = "/lib/modules/" + release
        self.reads.listing(top + "/build")
        folders = [posixpath.join(top, one) for one in places.MODULE_FOLDERS]
        kernel = self.reads.peek("list", top + "/kernel", places.DRIVER_FILES).get("entries")
        for one in kernel if isinstance(kernel, list) else []:
            folders += [posixpath.join(top, "kernel", str(one["name"]), part) for part in ("", "bits")]  # Ubuntu's own
        for folder in folders:
            folder = folder.rstrip("/")  # noqa: PLW2901  a joined empty name leaves one
            if folder.endswith("updates/dkms") or self.reads.exists(folder):
                self.reads.listing(folder, keep=places.DRIVER_FILES)
        if self.own:
            file = _MODULE_FILE.search(self.reads.command("modinfo nvidia") or "")
            if file is not None:
                self._named[file.group(1)] = None
            self.reads.command("dkms status")
            self.reads.command("mokutil --sb-state")

    def libraries(self) -> None:
        """Read which libraries of the driver the loader finds, and those in folders that it may not know."""
        folders = [*self._library_folders("/"), *places.HOST_LIBRARIES]
        if self.own:
            cache = self.reads.command("ldconfig -p", keep=places.DRIVER_FILES)
            for name, path in _CACHED.findall(cache or ""):
                if name in places.LIBRARIES:
                    self._follow(path)
        self.reads.listing("/run/nvidia")
        for root in places.DRIVER_ROOTS:
            self._driver_root(root)
        present = [one for one in folders if self.reads.exists(one)]
        for folder in present or folders[:1]:
            self.reads.listing(folder, keep=places.DRIVER_FILES)
        if self.reads.exists("/usr/lib/wsl"):
            self.reads.listing("/usr/lib/wsl/drivers")

    def _driver_root(self, root: str) -> None:
        if not self.reads.listing(root):
            return
        for folder in (*self._library_folders(root), posixpath.join(root, "usr/bin"), posixpath.join(root, "bin")):
            if self.reads.exists(folder):
                self.reads.listing(folder, keep=places.DRIVER_FILES)
        self.reads.listing(root + "/dev", keep=places.DEVICES)

    def _library_folders(self, root: str) -> list[str]:
        """Return the folders of libraries below a root, without those that are others by a link (a merged /usr)."""
        linked = {one for one in ("lib", "lib64") if "text" in self.reads.peek("link", posixpath.join(root, one))}
        return [posixpath.join(root, one) for one in places.LIBRARY_FOLDERS if one.split("/", 1)[0] not in linked]

    def _follow(self, path: str) -> None:
        for _ in range(_MAX_LINKS):
            target = self.reads.link(path)
            if target is None:
                return
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))

    def nvml(self, *, full: bool) -> None:
        """Ask NVML: of the host, then of GPU after GPU. One that hangs or crashes it does not cost the others."""
        ready = self._system()
        for index in range(self._count()):
            if not ready and not self._start():
                self._unanswered(index, "ECANCELED")
                continue
            try:
                self._sweep(index, full=full)
                ready = True
            except GoneError:
                ready = False

    def _system(self) -> bool:
        """Start NVML and ask it what it says of the host; tell whether it can go on."""
        request: list[object] = ["start", self._driver_libraries(places.NVML_LIBRARY), self.own, hostnvml.SYSTEM]
        why = self._noted("nvml", request, ("nvmlInit_v2", *hostnvml.SYSTEM))
        return why is None

    def cuda(self) -> None:
        """Ask whether CUDA starts, in a child of its own; not where NVML's start hung, which CUDA's would as well."""
        if self.reads.reads["nvml:nvmlInit_v2"].get("error") == "ETIMEDOUT":
            for call in hostcuda.CALLS:
                self.reads.note("cuda:" + call, {"error": "ECANCELED"})
            return
        self._noted("cuda", [self._driver_libraries(hostcuda.LIBRARY), self.own], hostcuda.CALLS)

    def _noted(self, verb: str, request: list[object], calls: tuple[str, ...]) -> str | None:
        """Keep what a request gives; return why its child is gone, None if it is not.

        The first call without an answer has that reason, those behind it were not made.
        """
        gone: str | None = None
        try:
            for call, read in self.reads.stream(verb, request):
                self.reads.note(f"{verb}:{call}", read)
        except GoneError as error:
            gone = error.why
        why = gone or "EPROTO"
        for call in calls:
            if f"{verb}:{call}" not in self.reads.reads:
                self.reads.note(f"{verb}:{call}", {"error": why})
                why = "ECANCELED"
        return gone

    def _count(self) -> int:
        """Return how many GPUs NVML lists, 0 where it did not start or does not say."""
        started = self.reads.reads["nvml:nvmlInit_v2"].get("code") == hostnvmlcalls.SUCCESS
        count = self.reads.reads["nvml:nvmlDeviceGetCount_v2"].get("value")
        return min(count, hostnvml.MAX_GPUS) if started and isinstance(count, int) else 0

    def _start(self) -> bool:
        """Start NVML once more, in a new child; tell whether it did."""
        request: list[object] = ["start", self._driver_libraries(places.NVML_LIBRARY), self.own, ()]
        try:
            answers = dict(self.reads.stream("nvml", request))
        except GoneError:
            return False
        return answers.get("nvmlInit_v2", {}).get("code") == hostnvmlcalls.SUCCESS

    def _driver_libraries(self, name: str) -> list[str]:
        """Return where a library of the driver lies, as paths of this process, beside the loader's own search."""
        roots = ["/", *places.DRIVER_ROOTS]
        folders = [posixpath.join(root, one) for root in roots for one in places.LIBRARY_FOLDERS]
        found = []
        for folder in (*places.HOST_LIBRARIES, *folders):
            where = self.reads.peek("where", posixpath.join(folder, name)).get("text")
            if isinstance(where, str):
                found.append(where)
        return found

    def _sweep(self, index: int, *, full: bool) -> None:
        """Ask one GPU everything. Of calls that were to come when the child went the first is told why."""
        try:
            for call, read in self.reads.stream("nvml", ["gpu", index]):
                self.reads.note("nvml:" + call, read)
        except GoneError as gone:
            self._unanswered(index, gone.why)
            raise
        if full:
            for call, read in self.reads.stream("nvml", ["full", index]):
                self.reads.note("nvml:" + call, read)

    def _unanswered(self, index: int, why: str) -> None:
        """Say of the calls that were to come that they did not: of the first why, of the others that none was made."""
        for call in hostnvml.calls(index):
            if "nvml:" + call not in self.reads.reads:
                self.reads.note("nvml:" + call, {"error": why})
                why = "ECANCELED"

    def services(self) -> None:
        """Read the state of each service there is, of the driver and of engines."""
        options = ("--no-pager", "--property=" + places.UNIT_PROPERTIES)
        answer = self.reads.run("systemctl show", options=(*options, *(one + ".service" for one in places.UNITS)))
        text = answer.get("text")
        if not isinstance(text, str) or answer.get("code") != 0:
            self._units = dict.fromkeys(places.UNITS, answer)
        else:
            blocks = zip(places.UNITS, text.strip("\n").split("\n\n"))  # noqa: B905  Python 3.8 has no `strict`
            self._units = {unit: {"text": block + "\n", "code": 0} for unit, block in blocks}
        for unit, shown in self._units.items():
            state = re.search("^LoadState=(.*)$", str(shown.get("text")), re.MULTILINE)
            if unit in places.DRIVER_UNITS or (state is not None and state.group(1) != "not-found"):
                self.reads.note("exec:systemctl show " + unit, shown)
        self.reads.command("nv-fabricmanager --version")

    # --- the runtime ---------------------------------------------------------------------------------

    def processes(self) -> list[list[str]]:
        """Read which services run, and return name and command line, in words, of engines and kubelets."""
        answer = self.reads.peek("processes")
        text = answer.get("text")
        if not isinstance(text, str):
            return []
        rows = [line.split("\t") for line in text.splitlines()]
        named = re.compile(places.SERVICES)
        shown = [" ".join(row[:2]) for row in rows if named.search(" ".join(row[:2]) + " ")]
        # what ps(1) prints of /proc, which is what was read; a pod that has the host's /proc has it too
        listed = "".join(line + "\n" for line in shown)
        self.reads.note("exec:ps -e -o pid=,comm=", {"text": listed, "code": 0, "filtered": places.SERVICES})
        begun = "".join(f"{_utc(int(row[2]))} {row[1]}\n" for row in rows if row[3:] and row[2] != "-")
        self.reads.note("exec:TZ=UTC ps -e -o lstart=,comm=", {"text": begun, "code": 0, "filtered": places.WITH_START})
        return [[row[1], *row[3:]] for row in rows if row[3:]]

    def _runs_containers(self) -> bool:
        """Tell whether an engine or a kubelet is here at all; on a workstation nothing of them is asked for."""
        programs = [posixpath.join(folder, one) for folder in places.PROGRAM_FOLDERS for one in places.ENGINES]
        files = (places.PLAIN, *places.CONFIGURATIONS, places.CRIO, *places.SOCKETS, *places.KUBELET_ROOTS)
        return any(self.reads.exists(one) for one in (*files, *programs))

    def engine(self, processes: list[list[str]]) -> None:
        """Read the engine's configuration with all that it imports, and what the engine says of itself."""
        self._arguments(processes)
        for path in places.RUNTIME_SIGNS:
            self.reads.stat(path)
        self.reads.file(places.SELINUX_BOOLEAN)
        started = _said(processes, "containerd", "--config", "-c")
        mains = [one for one in (*places.CONFIGURATIONS, *started) if self.reads.exists(one)]
        has_crio = self.reads.exists(places.CRIO)
        if self.reads.exists(places.PLAIN) or not (mains or has_crio):
            mains.append(places.PLAIN)
        for main in dict.fromkeys(mains):
            self._toml(main)
            for name in places.TEMPLATES:
                template = posixpath.join(posixpath.dirname(main), name)
                if self.reads.exists(template):
                    self._configuration(template)
        for folder in places.DROP_INS:
            self._toml_below(folder)
        if has_crio:
            self._configuration(places.CRIO + "/crio.conf")
            for name in self.reads.listing(places.CRIO_DROP_INS)[:_MAX_FILES]:
                self._configuration(posixpath.join(places.CRIO_DROP_INS, name))
        self._configuration(places.DOCKER)
        for folder in places.HOOKS:
            self.reads.listing(folder)
        if self.own:
            self._running_engine()
            if not any("exec:systemctl show " + one in self.reads.reads for one in places.ENGINE_UNITS):
                self.reads.note("exec:systemctl show containerd", self._units.get("containerd", {"absent": True}))

    def _arguments(self, processes: list[list[str]]) -> None:
        """Keep how engines and kubelets were started: what ps(1) prints of it, with no option but those of `places`."""
        listed = "".join(
            " ".join([words[0], *(f"{name}={said}" for name in places.ARGUMENTS for said in _values(words, name))])
            + "\n"
            for _, *words in processes
        )
        kept = " ".join(places.ARGUMENTS)
        self.reads.note("exec:ps -e -o args=", {"text": listed, "code": 0, "filtered": kept})

    def _toml(self, main: str) -> None:
        """Read a file and those that its imports mean, breadth first."""
        pending = [main]
        for _ in range(_MAX_FILES):
            if not pending:
                return
            path = pending.pop(0)
            text = self._configuration(path)
            found = _IMPORTS.search(text)
            for pattern in _QUOTED.findall(found.group(1)) if found else ():
                whole = posixpath.normpath(posixpath.join(posixpath.dirname(path), pattern))
                pending += [one for one in self._meant(whole) if "file:" + one not in self.reads.reads]

    def _meant(self, pattern: str) -> list[str]:
        if "*" not in pattern:  # whatever else is in it, containerd takes it for a path
            return [pattern]
        folder = posixpath.dirname(pattern)
        names = self.reads.listing(folder)
        return [posixpath.join(folder, one) for one in names if fnmatch.fnmatchcase(one, posixpath.basename(pattern))]

    def _toml_below(self, folder: str) -> None:
        for name in self.reads.listing(folder)[:_MAX_FILES]:
            if name.endswith(".toml"):
                self._configuration(posixpath.join(folder, name))

    def _configuration(self, path: str) -> str:
        """Read a configuration, when it was changed, and remember the programs and paths that it names."""
        text = self.reads.file(path) or ""
        if "absent" not in self.reads.reads["file:" + path]:
            self.reads.stat(path)
        for name in _PROGRAM.findall(text):
            for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"):
                self._named[posixpath.join(folder, name)] = None
        for found in _PATH.findall(text):
            self._named[found] = None
        return text

    def _running_engine(self) -> None:
        if "file:" + places.PLAIN in self.reads.reads:
            self.reads.command("containerd config dump")
        socket = next((one for one in places.SOCKETS if self.reads.exists(one)), None)
        environment = {}
        if socket is not None:
            environment = {"CONTAINER_RUNTIME_ENDPOINT": "unix://" + socket, "CRI_CONFIG_FILE": os.devnull}
        self.reads.command("crictl info", environment=environment)

    def toolkit(self) -> None:
        """Read where the toolkit's programs stand, and its configuration."""
        for folder in places.PROGRAM_FOLDERS:
            self.reads.listing(folder, keep=places.PROGRAM_FILES)
        for path in places.TOOLKIT:
            if path.startswith("/etc/") or self.reads.exists(path):
                text = self._configuration(path)
                root = re.search(r"""^\s*root\s*=\s*["'](/[^"'\n]{1,300})["']""", text, re.MULTILINE)
                if root is not None and root.group(1) not in {"/", *places.DRIVER_ROOTS}:
                    self._driver_root(root.group(1).rstrip("/"))
        # what the toolkit's `ldconfig` is by default on Debian's and on other systems
        self._named.update(dict.fromkeys(("/sbin/ldconfig", "/sbin/ldconfig.real")))

    def cdi(self) -> None:
        """Read the CDI specifications that may be NVIDIA's."""
        for folder in places.CDI:
            for name in self.reads.listing(folder)[:_MAX_FILES]:
                path = posixpath.join(folder, name)
                if not name.endswith(places.CDI_FILES):
                    continue
                text = self.reads.peek("file", path).get("text")
                if "nvidia" in name or (isinstance(text, str) and "nvidia.com/" in text):
                    self._configuration(path)

    def kubelet(self, processes: list[list[str]]) -> None:
        """Read the kubelet's sockets, its record of devices, and which engine it is told to use."""
        started = _said(processes, "kubelet", "--root-dir")
        roots = [one for one in (*started, *places.KUBELET_ROOTS) if self.reads.exists(one)]
        for root in dict.fromkeys(roots or places.KUBELET_ROOTS[:1]):
            folder = posixpath.join(root, "device-plugins")
            if self.reads.listing(folder):
                self.reads.file(posixpath.join(folder, places.CHECKPOINT))
            self.reads.listing(posixpath.join(root, "plugins_registry"))
        for path in places.KUBELET_CONFIGURATIONS:
            self.reads.file(path, keep=places.KUBELET_LINES)
        for folder in (one for one in places.KUBELET_DROP_INS if self.reads.exists(one)):
            for name in self.reads.listing(folder)[:_MAX_FILES]:
                if name.endswith(".conf"):  # the kubelet reads no others
                    self.reads.file(posixpath.join(folder, name), keep=places.KUBELET_LINES)

    def versions(self) -> None:
        """Ask programs for their versions."""
        for name in ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-cli", "containerd", "crio", "runc"):
            self.reads.command(name + " --version")


def _utc(epoch_s: int) -> str:
    """Return a time as ps(1) prints it."""
    return time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(epoch_s))


def _said(processes: list[list[str]], program: str, *names: str) -> list[str]:
    """Return the whole paths that processes of a name were given for an option, each once."""
    found = [said for name, *words in processes if name == program for one in names for said in _values(words, one)]
    return [one for one in dict.fromkeys(found) if one.startswith("/")]


def _values(words: list[str], option: str) -> list[str]:
    """Return what a command line gives an option, as `--name value` or `--name=value`; nothing that has spaces."""
    given = []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            given.append(value if equals else "".join(words[place + 1 : place + 2]))
    return [one for one in given if one and " " not in one]

"""Where drivers, engines, kubelets and the toolkit keep their files, by distribution.

Facts only; which of them a host has is found out by `host`. Sources: each engine's and distribution's
documentation, as `evidence/engine.py` and `evidence/runtime.py` cite them.
"""

from __future__ import annotations

from typing import Final

PCI: Final = "/sys/bus/pci/devices"
NVIDIA: Final = "0x10de"
GPU_CLASSES: Final = ("0x0300", "0x0302")
"""VGA and 3D controllers. Source: The PCI ID Repository, pci.ids, list of classes."""
SIGNS_OF_A_DRIVER: Final = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",  # WSL2, whose GPU stands on no bus
    "/etc/nv_tegra_release",  # Jetson Linux, likewise
)
"""What is there only where an NVIDIA driver is."""

GPU_ATTRIBUTES: Final = (
    "class",
    "device",
    "subsystem_vendor",
    "subsystem_device",
    "revision",
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
    "numa_node",
    "enable",
    "power_state",
    "resource",
    "aer_dev_correctable",
    "aer_dev_nonfatal",
    "aer_dev_fatal",
)
"""Files of a PCI function. Source: Linux, Documentation/ABI/testing/sysfs-bus-pci, sysfs-bus-pci-devices-aer_stats."""

KERNEL: Final = (
    "/etc/os-release",
    "/proc/cmdline",
    "/proc/uptime",
    "/proc/modules",
    "/proc/devices",
    "/proc/driver/nvidia/version",
    "/proc/driver/nvidia/params",
    "/proc/driver/nvidia/registry",
    "/proc/driver/nvidia/capabilities/mig/config",
    "/proc/driver/nvidia/capabilities/mig/monitor",
    "/proc/driver/nvidia/capabilities/fabric-imex-mgmt",
    "/proc/driver/nvidia-caps/sys-minors",
    "/proc/driver/nvidia-caps/nvlink-minors",
    "/sys/module/nvidia/version",
    "/sys/module/nvidia_drm/parameters/modeset",
    "/sys/fs/selinux/enforce",
)

DEVICES: Final = r"^(?:nvidia|dri$|dxg$|gdrdrv|nvme-fs|infiniband$|vfio$|nvhost|nvmap)"
"""Entries of /dev that the GPU stack uses."""
DRIVER_FILES: Final = r"nvidia|libcuda|libnvcuvid|libnvoptix"
"""Names of the driver's libraries and modules."""
MODULE_FOLDERS: Final = (
    "updates/dkms",  # Debian, Ubuntu
    "updates",
    "extra",  # Red Hat, SUSE
    "weak-updates",
    "weak-updates/nvidia",
    "extra/nvidia",
    "video",
    "kernel/drivers/video",  # the .run installer
    "kernel/drivers/video/nvidia",
)
LIBRARY_FOLDERS: Final = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "lib64",
    "lib",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
)
"""As nvidia-container-toolkit looks below a driver root (internal/lookup/library.go)."""
HOST_LIBRARIES: Final = (
    "/usr/local/nvidia/lib64",  # images that bring the driver, Container-Optimized OS inside pods
    "/usr/local/nvidia/lib",
    "/home/kubernetes/bin/nvidia/lib64",  # GKE
    "/opt/nvidia/lib64",  # Flatcar's extension
    "/usr/local/glibc/usr/lib",  # Talos
    "/usr/local/lib",
    "/usr/lib/wsl/lib",  # WSL2
    "/run/opengl-driver/lib",  # NixOS
)
"""Folders of the driver's libraries beside those that a loader's cache names."""
DRIVER_ROOTS: Final = ("/run/nvidia/driver", "/home/kubernetes/bin/nvidia", "/opt/nvidia")
"""Roots of a driver that is not the host's own: of a driver container, of GKE, of an image's extension."""
NVML_LIBRARY: Final = "libnvidia-ml.so.1"
LIBRARIES: Final = (NVML_LIBRARY, "libcuda.so.1")

PROGRAM_FOLDERS: Final = (
    "/usr/bin",
    "/usr/local/nvidia/toolkit",
    "/usr/local/bin",
    "/opt/nvidia/toolkit",
    "/usr/sbin",
    "/usr/local/sbin",
)
PROGRAM_FILES: Final = (
    r"nvidia|^nv-|^ldconfig|containerd|^crun$|^runc$|crio|crictl|^ctr$|kata|^runsc$|youki|dcgm|^docker|^podman"
)
"""Programs of the GPU stack and of engines."""

PLAIN: Final = "/etc/containerd/config.toml"
CONFIGURATIONS: Final = (
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/etc/k0s/containerd.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
)
"""Main files of engines that a distribution brings."""
TEMPLATES: Final = ("config-v3.toml.tmpl", "config.toml.tmpl", "containerd-template.toml")
DROP_INS: Final = ("/etc/containerd/conf.d", "/etc/containerd/config.d")
CRIO: Final = "/etc/crio"
CRIO_DROP_INS: Final = "/etc/crio/crio.conf.d"
DOCKER: Final = "/etc/docker/daemon.json"
HOOKS: Final = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
SOCKETS: Final = (
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/containerd/containerd.sock",
)
"""Engines' sockets; those of engines that serve Kubernetes alone stand first."""
DRIVER_UNITS: Final = (
    "nvidia-persistenced",
    "nvidia-fabricmanager",
    "nvidia-imex",
    "nvidia-gridd",
    "nvidia-dcgm",
)
"""Services of the driver's own: each is asked for, so that one that is not installed is seen to be so."""
UNITS: Final = (
    "containerd",
    "crio",
    "docker",
    "rke2-server",
    "rke2-agent",
    "k3s",
    "k3s-agent",
    "k0scontroller",
    "k0sworker",
    "snap.microk8s.daemon-containerd",
    "kubelet",
    "snap.microk8s.daemon-kubelite",
    *DRIVER_UNITS,
)
UNIT_PROPERTIES: Final = "Id,LoadState,ActiveState,SubState,ActiveEnterTimestamp,MainPID,NRestarts,Result"
"""None of them holds a unit's environment, in which there may be credentials."""
ENGINE_UNITS: Final = (
    "containerd",
    "crio",
    "rke2-server",
    "rke2-agent",
    "k3s",
    "k3s-agent",
    "k0scontroller",
    "k0sworker",
    "snap.microk8s.daemon-containerd",
)
KUBELET_UNITS: Final = (
    "kubelet",
    "rke2-server",
    "rke2-agent",
    "k3s",
    "k3s-agent",
    "k0scontroller",
    "k0sworker",
    "snap.microk8s.daemon-kubelite",
)
ENGINE_LOGS: Final = (
    "/var/lib/rancher/rke2/agent/containerd/containerd.log",
    "/var/lib/rancher/k3s/agent/containerd/containerd.log",
)
KUBELET_LOGS: Final = ("/var/lib/rancher/rke2/agent/logs/kubelet.log",)
KERNEL_LOGS: Final = ("/var/log/kern.log", "/var/log/messages", "/var/log/syslog")
"""Logs that are files: what a pod can read of a host whose journal it has no program for."""

TOOLKIT: Final = (
    "/etc/nvidia-container-runtime/config.toml",
    "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml",
    "/opt/nvidia/toolkit/.config/nvidia-container-runtime/config.toml",
)
ENGINES: Final = ("containerd", "crio", "dockerd", "cri-dockerd", "kubelet", "k3s", "rke2", "k0s")
"""Programs of which one is there wherever containers are run for Kubernetes."""
CDI: Final = ("/etc/cdi", "/var/run/cdi")
CDI_FILES: Final = (".yaml", ".yml", ".json")
KUBELET_ROOTS: Final = ("/var/lib/kubelet", "/var/snap/microk8s/common/var/lib/kubelet", "/var/lib/k0s/kubelet")
CHECKPOINT: Final = "kubelet_internal_checkpoint"
KUBELET_CONFIGURATIONS: Final = ("/var/lib/kubelet/config.yaml", "/var/snap/microk8s/current/args/kubelet")
KUBELET_DROP_INS: Final = (
    "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d",
    "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d",
)
KUBELET_LINES: Final = (
    r"^\s*(?:(?:cgroupDriver|containerRuntimeEndpoint|cpuManagerPolicy):"
    r"|--(?:cgroup-driver|container-runtime-endpoint|cpu-manager-policy)=)"
)
"""What is read of them; the rest has nothing to do with GPUs."""
ARGUMENTS: Final = (
    "--config",
    "-c",
    "--address",
    "-a",
    "--root-dir",
    "--container-runtime-endpoint",
    "--cgroup-driver",
    "--cpu-manager-policy",
)
"""Options of engines and kubelets that are told: paths, sockets, cgroup driver and CPU manager, none a credential."""
RUNTIME_SIGNS: Final = ("/sys/fs/cgroup/cgroup.controllers", "/var/run/nri/nri.sock")
"""What is there with cgroup v2 alone; with NRI."""
SELINUX_BOOLEAN: Final = "/sys/fs/selinux/booleans/container_use_devices"
WITH_START: Final = "containerd crio dockerd cri-dockerd kubelet"
"""Processes whose start is told."""
SERVICES: Final = r"^\d+ (?:nvidia|nv-|nvsm|dcgm|containerd |crio |dockerd |kubelet |rke2 |k3s|k0s)"
"""Processes that matter to the GPU stack; a process's name is cut after 15 characters."""

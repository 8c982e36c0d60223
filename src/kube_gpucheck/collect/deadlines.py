"""How long each call that leaves the process may take, in seconds, each with its reason."""

from typing import Final

RUN_S: Final = 300.0
"""A whole collection: 5,000 nodes and 40,000 pods take well under a minute where the server keeps up."""
DISCOVERY_S: Final = 30.0
"""Discovery waits for aggregated API servers that are gone; kube-apiserver itself gives them 5 s each."""
LIST_S: Final = 30.0
"""A page's next bytes: 500 objects take well under a second, and kube-apiserver gives up at 60 s
(`--request-timeout`). Two tries that stall leave time for the other kinds."""
LOG_S: Final = 30.0
"""A log comes through the kubelet of its node, which may be gone: kube-apiserver dials it for up to 30 s."""

HOST_S: Final = 90.0
"""All of one host: under a second where nothing hangs. What is still unread then is told as timed out."""
READ_S: Final = 5.0
"""One file, folder or link: microseconds, except on a dead network mount and below a driver that holds its lock."""
NVML_START_S: Final = 30.0
"""Without persistence mode the driver initialises every GPU when NVML starts: 1 to 3 s each, one after the other."""
NVML_CALL_S: Final = 5.0
"""One NVML query takes less than 20 ms on a healthy H200; one that takes seconds waits for a GPU that is gone."""
CUDA_S: Final = 30.0
"""cuInit: 0.23 s on an H200 that NVML has started before; it waits for the GPU that NVML's start would wait for."""
PROGRAM_S: Final = 10.0
"""A program on the host that prints its version or its state, as `crictl info` from an engine that may not answer."""
REAP_S: Final = 0.2
"""How long a killed child is waited for. One that sleeps uninterruptibly does not die: it is left to the kernel."""

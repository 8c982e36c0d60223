"""gpucheck: the conformance and diagnostic suite for NVIDIA GPUs on Kubernetes.

The package holds the library; the checks, fixtures, workloads and report schemas travel beside it.
"""

__version__ = "0.1.0"

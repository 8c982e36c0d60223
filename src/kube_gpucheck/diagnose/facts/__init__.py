"""The predicates by area; importing this package registers them all."""

from kube_gpucheck.diagnose.facts import cluster, dra, driver, pods, runtime, stack
from kube_gpucheck.diagnose.facts.registry import ask, describe, fact, names

__all__ = ["ask", "cluster", "describe", "dra", "driver", "fact", "names", "pods", "runtime", "stack"]

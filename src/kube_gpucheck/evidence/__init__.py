"""The evidence of one run: frozen, typed, three-valued. All parsing of raw documents stands here.

A check imports its subject's type from here and reaches everything else from it.
"""

from kube_gpucheck.evidence.bundle import Bundle, open_bundle
from kube_gpucheck.evidence.cluster import Cluster
from kube_gpucheck.evidence.daemonset import DaemonSet
from kube_gpucheck.evidence.gpu import Gpu
from kube_gpucheck.evidence.node import Node
from kube_gpucheck.evidence.pod import Pod
from kube_gpucheck.evidence.stack import Component

__all__ = ["Bundle", "Cluster", "Component", "DaemonSet", "Gpu", "Node", "Pod", "open_bundle"]

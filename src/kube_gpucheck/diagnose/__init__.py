"""Turns judgements and evidence into a diagnosis: which findings explain which, and one cause for each root."""

from kube_gpucheck.diagnose.catalogue import Catalogue, load_catalogue
from kube_gpucheck.diagnose.diagnosis import diagnose

__all__ = ["Catalogue", "diagnose", "load_catalogue"]

"""Run the command as `python -m kube_gpucheck`."""

import sys

from kube_gpucheck.cli import main

if __name__ == "__main__":
    sys.exit(main())

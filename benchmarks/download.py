"""Downloads what a bundle asked a cluster for, one request after the other, and looks at nothing: a collector's floor.

    python benchmarks/download.py BUNDLE KUBECONFIG

It uses the HTTP library that the kubernetes package uses, one connection, pages of 500, and finds the
continue token by a regular expression at both ends of a page.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import urllib3
import yaml

_TOKEN = re.compile(rb'"continue"\s*:\s*"([^"]+)"')
_EDGE = 4096
_CHUNK = 1 << 20


def kinds(bundle: Path) -> Iterator[str]:
    """Yield the path of each kind that was asked for and is served."""
    served = json.loads((bundle / "cluster" / "discovery.json").read_bytes())["groups"]
    versions = {group["name"]: group["versions"][0] for group in served}
    for kind in json.loads((bundle / "bundle.json").read_bytes())["asked"]["api"]:
        plural, _, group = kind.partition(".")
        if kind != "discovery" and group in versions:
            yield f"/apis/{group}/{versions[group]}/{plural}" if group else f"/api/v1/{plural}"


def logs(bundle: Path) -> Iterator[str]:
    """Yield the path of each log that was asked for."""
    for name in json.loads((bundle / "bundle.json").read_bytes())["asked"]["logs"]:
        namespace, pod, container, *previous = name.split("/")
        more = "&previous=true" if previous else ""
        yield f"/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines=5000{more}"


def main() -> None:
    """Download everything, and print how many bytes it was."""
    bundle, kubeconfig = map(Path, sys.argv[1:])
    server = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"]
    pool = urllib3.connection_from_url(server, maxsize=1, retries=False)
    total = 0

    def get(path: str) -> bytes:
        nonlocal total
        answer = pool.request("GET", path, preload_content=False)
        head = tail = b""
        for chunk in answer.stream(_CHUNK):
            total += len(chunk)
            head = head or chunk[:_EDGE]
            tail = (tail + chunk)[-_EDGE:]
        answer.release_conn()
        return head + tail

    for path in kinds(bundle):
        found = _TOKEN.search(get(f"{path}?limit=500"))
        while found:
            found = _TOKEN.search(get(f"{path}?limit=500&continue={found[1].decode()}"))
    for path in logs(bundle):
        get(path)
    print(f"{total:,} bytes")


if __name__ == "__main__":
    main()

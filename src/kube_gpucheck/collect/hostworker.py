"""The child in which whatever may block in the kernel, or crash in the driver's libraries, is done.

It answers requests until there are no more. They come as `marshal` writes them, from the parent, which is trusted;
answers go back as JSON, a line each. Where a library is asked, neither `json` nor `typing` is loaded, which would take
longer than most of what is asked (docs/performance.md).
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def answering(verb: str) -> tuple[Callable[[list[object]], Iterator[dict[str, object]]], Callable[[object], str]]:
    """Return what answers the requests of a verb, and what writes answers as JSON; each loads what it alone needs."""
    if verb == "nvml":
        from kube_gpucheck.collect import hostnvml  # noqa: PLC0415  see above

        return hostnvml.answers, encoded
    if verb == "cuda":
        from kube_gpucheck.collect import hostcuda  # noqa: PLC0415  see above

        return hostcuda.answers, encoded
    import json  # noqa: PLC0415  see above

    from kube_gpucheck.collect import hostfiles  # noqa: PLC0415  see above

    return hostfiles.answers, json.dumps


def encoded(value: object) -> str:
    """Return a library's answer as JSON: texts, numbers, and lists and objects of them."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{encoded(str(name))}:{encoded(one)}" for name, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(encoded(one) for one in value) + "]"
    if not isinstance(value, str):
        return repr(value)
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    units = value.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'


def main() -> None:
    """Answer until there are no more requests; the argument is the verb. What a library prints goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    answers, encode = answering(sys.argv[1])
    while True:
        try:
            request = marshal.load(sys.stdin.buffer)  # noqa: S302  see above
        except EOFError:
            return
        for answer in answers(request):
            out.write(encode(answer) + "\n")
            out.flush()

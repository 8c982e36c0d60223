"""Asks CUDA whether it starts on this host: NVML can be well where CUDA is not. Runs in the child (`hostworker`).

`cuInit` opens every GPU and makes no context: no memory is taken, no kernel runs. Like NVML it has the driver make
device nodes that are not there. Nothing here tells a good answer from a bad one.
"""

from __future__ import annotations

import ctypes
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

LIBRARY: Final = "libcuda.so.1"
CALLS: Final = ("cuDriverGetVersion", "cuInit", "cuDeviceGetCount")
"""In the order in which they are made. Source: CUDA Driver API, "Initialization", "Version", "Device Management"."""
SUCCESS: Final = 0


def answers(request: list[object]) -> Iterator[dict[str, object]]:
    """Yield `{"key", "read"}` for each call, then `{"done": true}`; the request is `[candidates, loader]`.

    The library is what the loader finds if `loader`, else the first of the candidates that is there.
    """
    candidates = request[0] if isinstance(request[0], list) else []
    library = _load([str(one) for one in candidates], loader=bool(request[1]))
    for call in CALLS:
        yield {"key": call, "read": _made(library, call) if isinstance(library, ctypes.CDLL) else library}
    yield {"done": True}


def _load(candidates: list[str], *, loader: bool) -> ctypes.CDLL | dict[str, object]:
    """Return the library; where there is none, that it is absent, where one cannot be loaded, that error."""
    there = [one for one in candidates if os.path.exists(one)]  # noqa: PTH110  as in hostnvml
    for name in ([LIBRARY] if loader else []) + there:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return {"error": "ELIBBAD"} if there else {"absent": True}


def _made(library: ctypes.CDLL, call: str) -> dict[str, object]:
    """Make a call, and return its code, the number that it gives, and how long it took in milliseconds, as `ms`."""
    number = ctypes.c_int(0)
    try:
        function = getattr(library, call)
    except AttributeError:
        return {"error": "ENOSYS"}
    began = time.perf_counter()
    code = int(function(0) if call == "cuInit" else function(ctypes.byref(number)))
    answer: dict[str, object] = {"code": code, "ms": round((time.perf_counter() - began) * 1000, 2)}
    if code == SUCCESS and call != "cuInit":
        answer["value"] = number.value
    return answer

"""The subresource `proxy` of pods and services: the answers of exporters, from the bundle's `telemetry/`."""

import re
from typing import Final

from kube_gpucheck.simulate.answers import TEXT, RefusedError, Reply
from kube_gpucheck.simulate.playback import Playback
from kube_gpucheck.simulate.routes import Target

_NAME: Final = re.compile(r"(?:https?:)?(?P<name>[^:]+)(?::(?P<port>[^:]*))?")


def proxy_reply(playback: Playback, target: Target) -> Reply:
    """Return what an exporter answered: the file of the target `<namespace>_<name>[_<port>]`.

    Raises:
        RefusedError: 503, nothing answers there; 403, nobody asked.
    """
    match = _NAME.fullmatch(target.name or "")
    if match is not None:
        names = [f"{target.namespace}_{match['name']}"]
        if match["port"]:
            names.insert(0, f"{names[0]}_{match['port']}")
        for name in names:
            content = playback.telemetry(name)
            if content is not None:
                return Reply(200, (content,), TEXT)
    message = f"error trying to reach service: the bundle that is played back holds no answer of {target.name}"
    raise RefusedError(503, "ServiceUnavailable", message)

"""Which proxy a server is reached through, if any, as Go's programs decide it.

Go's `net/http.ProxyFromEnvironment` (`golang.org/x/net/http/httpproxy`) and so kubectl differ from
what Python programs do: `ALL_PROXY` is not read, a loopback address never goes through a proxy, and
a kubeconfig's `proxy-url` is used whatever `NO_PROXY` says.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def proxy_for(server: str, proxy_url: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy through which a server is reached, or None if it is reached directly."""
    if proxy_url:
        return proxy_url
    address = urlsplit(server)
    name = "HTTPS_PROXY" if address.scheme == "https" else "HTTP_PROXY"
    proxy = environ.get(name) or environ.get(name.lower())
    host = (address.hostname or "").rstrip(".")
    port = address.port or (443 if address.scheme == "https" else 80)
    excepted = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not proxy or _is_loopback(host) or any(_matches(entry, host, port) for entry in excepted.split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    ip = _ip(host)
    return ip.is_loopback if ip is not None else host == "localhost"


def _matches(entry: str, host: str, port: int) -> bool:
    """Say whether an entry of `NO_PROXY` means a host: `*`, a CIDR, an address, a domain with or without a port."""
    entry = entry.strip().lower()
    if entry in {"", "*"}:
        return entry == "*"
    ip = _ip(host)
    try:
        if "/" in entry:
            return ip is not None and ip in ipaddress.ip_network(entry, strict=False)
        # an address of IPv6 without brackets has no port
        parts = None if _ip(entry) is not None else urlsplit(f"//{entry}")
        name, its_port = (entry, None) if parts is None else (parts.hostname or "", parts.port)
    except ValueError:
        return False
    if its_port not in {None, port}:
        return False
    if ip is not None or _ip(name) is not None:
        return _ip(name) == ip
    # ".example.com" and "*.example.com" mean what is below the domain, "example.com" the domain as well
    below = name.removeprefix("*")
    return bool(name) and (host.endswith(below) if below.startswith(".") else f".{host}".endswith(f".{below}"))

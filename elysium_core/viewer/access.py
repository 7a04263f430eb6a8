"""Who may use the viewer: addresses, token, and the site that a page comes from."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from elysium_core.errors import ConfigError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8420

TOKEN_VARIABLE = "ELYSIUM_VIEWER_TOKEN"  # noqa: S105 - the name of the variable, not a token
"""Environment variable with the token. A command line can be read by every user of the machine."""

_TOKEN_LENGTHS = range(12, 129)
_MADE_BYTES = 18


@dataclass(frozen=True, slots=True)
class Access:
    """What a viewer must know to get in.

    Attributes:
        host: Address that the server listens on.
        token: Required of every page; empty on an address that only this machine reaches.
    """

    host: str
    token: str

    @classmethod
    def choose(cls, host: str, environment: Mapping[str, str] = os.environ) -> Access:
        """Return the access for an address.

        On an address that other machines reach, a token is always needed: that of ``ELYSIUM_VIEWER_TOKEN``, or else one
        that is made now.

        Args:
            host: An IP address, or ``localhost``.
            environment: Where the token is looked for.

        Raises:
            ConfigError: The host is not an address (``VIEWER_HOST``), or the token is too short, too long or has blanks
                (``VIEWER_TOKEN``).
        """
        local = is_loopback(host)
        token = environment.get(TOKEN_VARIABLE, "")
        if token and (len(token) not in _TOKEN_LENGTHS or not token.isascii() or not token.isalnum()):
            raise ConfigError(
                f"the token in {TOKEN_VARIABLE} ({len(token)} characters) cannot be used; it needs "
                f"{_TOKEN_LENGTHS[0]} to {_TOKEN_LENGTHS[-1]} letters and digits",
                code="VIEWER_TOKEN",
            )
        if not token and not local:
            token = secrets.token_hex(_MADE_BYTES)
        return cls(host, token)

    def allows_token(self, token: str) -> bool:
        """Whether a page with this token may come in."""
        return not self.token or hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def allows_host(self, host_header: str) -> bool:
        """Whether a request for this host is meant for us.

        Without a token, a foreign name that leads to this machine (DNS rebinding) must not get in.
        """
        if self.token:
            return True
        try:
            return is_loopback(urlsplit(f"//{host_header}").hostname or "")
        except ValueError:  # a name, or not even that
            return False

    def allows_origin(self, origin: str | None, host_header: str) -> bool:
        """Whether a page of this site may connect: only our own page, and programs, which state no origin."""
        if origin is None:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host_header.lower()

    def address(self, port: int, name: str = "") -> str:
        """Return the address to open in a browser. The token is behind ``#``, which browsers do not send anywhere.

        Args:
            port: The port.
            name: Name or address of this machine; by default the one that is listened on.
        """
        host = name or ("localhost" if is_loopback(self.host) else self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/" + (f"#token={self.token}" if self.token else "")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Raises:
        ConfigError: It is neither an IP address nor ``localhost``.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(
            f"the viewer's host {host!r} is not an address; use 127.0.0.1, or 0.0.0.0 for all networks",
            code="VIEWER_HOST",
        ) from None

"""Check the ``Host`` of requests against the names of the server, to refuse DNS rebinding.

Without authentication, being on this machine is the permission. A page in a browser on it may have a
host name that is looked up as 127.0.0.1 (DNS rebinding): its requests have that name in ``Origin`` and in
``Host``, and only ``Host`` tells that they are not meant for this server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, final

__all__ = ["Hosts", "host_name"]

_OF_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,255})(?::[0-9]{0,5})?", re.ASCII)


def host_name(text: str) -> str:
    """Return the name in a ``Host`` header, in lower case and without its port.

    :raises ValueError: there is none in it.
    """
    found = _HOST.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"{text[:200]!r} is no host; write a name or an address, for example app.localhost")
    return found[1]


@final
class Hosts:
    """Decides about ``Host`` headers.

    :param allowed: names and addresses, besides those of this machine; their ports do not count.

    Example::

        Hosts(["app.localhost"]).refusal("evil.example:4000")
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = frozenset((*_OF_THIS_MACHINE, *map(host_name, allowed)))

    def refusal(self, host: str) -> str | None:
        """Return why a request with this header is refused, ``None`` where it is not."""
        try:
            if host_name(host) in self._allowed:
                return None
        except ValueError:
            pass
        return (
            f"this server does not answer for the host {host[:200]!r}; address it as localhost, or allow the "
            "name by allowed_hosts, or --allowed-host"
        )

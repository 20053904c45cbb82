"""TLS towards other servers."""

from __future__ import annotations

import functools
import ssl

__all__ = ["default_tls"]


@functools.cache
def default_tls() -> ssl.SSLContext:
    """Return what trusts the system's authorities. Making it blocks for 20 ms."""
    return ssl.create_default_context()

"""The operator's keys of providers of language models, which stand in the environment and in no store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

__all__ = ["api_key_variable", "provider_key"]

_API_KEY: Final = "CIRCUIT_BREAKER_API_KEY_"
_KEY_URLS: Final = "CIRCUIT_BREAKER_KEY_URLS_"
_KEY_TENANTS: Final = "CIRCUIT_BREAKER_KEY_TENANTS_"


def provider_key(
    id: str,  # noqa: A002 (what records call it)
    *,
    base_url: str,
    tenant: str | None,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """Return a provider's key, which the operator has put into the environment.

    Three variables say all of it. ``CIRCUIT_BREAKER_API_KEY_<ID>`` is the key. The addresses that it may
    be sent to are the origins of the URLs in ``CIRCUIT_BREAKER_KEY_URLS_<ID>``, separated by commas; any,
    where it is not set. The tenants whose providers may have it are named in
    ``CIRCUIT_BREAKER_KEY_TENANTS_<ID>``, and only with URLs: a tenant's provider has an address of the
    tenant's choice.

    :param base_url: where the key is to be sent.
    :param tenant: whose the provider is; ``None`` for the operator's own.
    :return: ``None`` where there is no such key, and where this tenant may not send it there.
    """
    urls = _words(environment.get(_variable(_KEY_URLS, id), ""))
    tenants = _words(environment.get(_variable(_KEY_TENANTS, id), ""))
    where = _origin(base_url)
    if urls and (where is None or where not in map(_origin, urls)):
        return None
    if tenant is not None and not (urls and tenant in tenants):
        return None
    return environment.get(api_key_variable(id)) or None


def api_key_variable(id: str) -> str:  # noqa: A002 (as above)
    """Name the environment variable of a provider's key."""
    return _variable(_API_KEY, id)


def _variable(prefix: str, id_: str) -> str:
    return prefix + re.sub(r"[^A-Z0-9]", "_", id_.upper())


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of a URL; ``None`` for what is none, which equals no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port

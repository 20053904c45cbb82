"""TLS towards MCP servers: authorities, certificates and keys from texts."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from circuit_breaker_server.engine.validation import refuse

__all__ = ["check_tls", "tls_context"]


def tls_context(
    *, verify: bool, ca_cert: str | None, client_cert: str | None, client_key: str | None
) -> ssl.SSLContext:
    """Make a context of PEM texts. Reading the system's authorities blocks for 20 ms: call it in a thread.

    :raises ssl.SSLError, ValueError: one is not what it should be.
    """
    context = ssl.create_default_context(cadata=ca_cert)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_pair(context, client_cert, client_key)
    return context


def check_tls(*, ca_cert: str | None, client_cert: str | None, client_key: str | None) -> None:
    """Refuse texts that make no context.

    :raises EngineError: ``INVALID_INPUT``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities
    try:
        if ca_cert is not None:
            context.load_verify_locations(cadata=ca_cert)
        _load_pair(context, client_cert, client_key)
    except (ssl.SSLError, ValueError) as error:
        # The text of the error names no key: it is OpenSSL's own.
        refuse(f"config.ssl: the certificates or the key are no PEM that fits together: {error}")


def _load_pair(context: ssl.SSLContext, client_cert: str | None, client_key: str | None) -> None:
    if client_cert is not None and client_key is not None:
        # The library reads certificates from files only; the directory is its owner's alone, and short-lived.
        with tempfile.TemporaryDirectory(prefix="circuit-breaker-") as directory:
            pair = Path(directory) / "pair.pem"
            pair.write_text(f"{client_cert}\n{client_key}\n", encoding="utf-8")
            # A password, so that an encrypted key is an error and not a question at the terminal.
            context.load_cert_chain(pair, password="")

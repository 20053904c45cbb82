"""TLS on the server's port: its certificate and its key."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

__all__ = ["TlsError", "load_certificate", "server_context"]

_MAX_FILE_BYTES: Final = 1024 * 1024


class TlsError(Exception):
    """A certificate or its key cannot be used. The text names the file, and holds nothing of the key."""


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return what a server needs for TLS 1.2 and later.

    :param cert: the certificate in PEM, first of the file; those between it and the authority follow.
    :param key: its private key in PEM, without a password.
    :raises TlsError: a file is missing or unfit, or the key is of another certificate.

    Example::

        context = server_context(Path("server.pem"), Path("server.key"))
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, cert, key)
    return context


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Use a certificate for the handshakes to come. The files are checked before anything changes.

    :raises TlsError: as :func:`server_context`.
    """
    try:
        certificate = x509.load_pem_x509_certificates(_file(cert, "the certificate"))[0]
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"the certificate {cert}: is none in PEM") from None
    secret = _file(key, "the key of the certificate")
    try:
        private = load_pem_private_key(secret, None)
    except TypeError:
        raise TlsError(f"the key of the certificate {key}: has a password; give it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"the key of the certificate {key}: is no private key in PEM") from None
    if private.public_key() != public:
        raise TlsError(f"the key of the certificate {key}: is not that of the first certificate in {cert}")
    try:
        # A password, so that no question is asked at the terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise TlsError(f"the certificate {cert}: cannot be used for TLS with {key} ({reason})") from None


def _file(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{what} {path}: {error.strerror}; give a file this user may read") from None
    if len(data) > _MAX_FILE_BYTES:
        raise TlsError(f"{what} {path}: over {_MAX_FILE_BYTES} bytes: this is none")
    return data

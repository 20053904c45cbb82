"""Below GraphQL: the proxy, the name, the port, TLS and how long its certificate is good."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from circuit_breaker_sdk.cli.doctor.finding import Finding, fine, wrong
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.transports.address_resolution import resolve
from circuit_breaker_sdk.transports.error_texts import explain_os_error

__all__ = ["NETWORK_STEPS", "network_findings"]

NETWORK_STEPS: Final = ("name", "port", "tls")

_DAY_SECONDS: Final = 86_400
_SOON_DAYS: Final = 3


async def network_findings(patient: Patient) -> AsyncIterator[Finding]:
    """Look the name up, connect to each of its addresses, and shake hands with TLS where the URL wants it."""
    if patient.proxy is not None:
        yield fine("name", f"the proxy {patient.proxy.place} of the environment looks {patient.host} up")
        return
    try:
        async with asyncio.timeout(patient.seconds):
            found = await resolve(patient.host, patient.port)
    except TimeoutError:
        yield wrong("name", f"no answer about {patient.host} within {patient.seconds:g} s", "check the DNS")
        return
    except OSError as error:
        text = explain_os_error(error, host=patient.host, secure=False)
        yield wrong("name", text.partition(": check")[0], "check the URL and the network")
        return
    addresses = [str(each[4][0]) for each in found]
    yield fine("name", f"{patient.host} is {', '.join(addresses)}", addresses=addresses)
    port = await _port(patient, addresses)
    yield port
    if not port.advice and patient.context is not None:
        yield await _tls(patient, patient.context)


async def _port(patient: Patient, addresses: list[str]) -> Finding:
    answers: dict[str, str] = {}
    for address in addresses:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(patient.seconds):
                _, writer = await asyncio.open_connection(address, patient.port)
        except TimeoutError:
            answers[address] = f"no answer within {patient.seconds:g} s"
        except OSError as error:
            answers[address] = (error.strerror or str(error)).lower()
        else:
            writer.close()
            answers[address] = f"connected in {(time.perf_counter() - started) * 1000:.1f} ms"
    texts = "; ".join(f"{address}: {answer}" for address, answer in answers.items())
    connected = [answer for answer in answers.values() if answer.startswith("connected")]
    if not connected:
        return wrong(
            "port",
            f"port {patient.port}: {texts}",
            "is the server running, is the port right, and does a firewall let it through?",
            answers=answers,
        )
    return fine("port", f"port {patient.port}: {texts}", answers=answers)


async def _tls(patient: Patient, context: ssl.SSLContext) -> Finding:
    try:
        async with asyncio.timeout(patient.seconds):
            _, writer = await asyncio.open_connection(patient.host, patient.port, ssl=context)
    except TimeoutError:
        return wrong(
            "tls", f"no handshake within {patient.seconds:g} s", "does the server speak TLS at this port?"
        )
    except ssl.SSLCertVerificationError as error:
        return _refused(error)
    except OSError as error:
        text = explain_os_error(error, host=patient.host, secure=True)
        text, _, advice = text.partition(": ")
        return wrong("tls", text, advice or "use ws:// or http:// if the server does not speak TLS")
    session = writer.get_extra_info("ssl_object")
    certificate: dict[str, Any] = session.getpeercert() or {}
    version = session.version()
    writer.close()
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    days = (until - datetime.now(UTC)).total_seconds() / _DAY_SECONDS
    soon = "; renew it soon" if days < _SOON_DAYS else ""
    return fine(
        "tls",
        f"{version}; the certificate is good until {until:%Y-%m-%d} ({days:.0f} days){soon}",
        version=version,
        expires=until.isoformat(),
    )


def _refused(error: ssl.SSLCertVerificationError) -> Finding:
    """Say why the certificate was refused; 10 is expired, 9 not yet good (X509_V_ERR in OpenSSL)."""
    reason = error.verify_message or str(error)
    if error.verify_code == 10:
        return wrong("tls", "the certificate has expired", "renew it; or is the clock of this machine ahead?")
    if error.verify_code == 9:
        return wrong("tls", "the certificate is not good yet", "is the clock of this machine behind?")
    return wrong(
        "tls",
        f"the certificate is refused: {reason}",
        "connect with a name that is in it, or name its authority: --authority FILE",
    )

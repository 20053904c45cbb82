"""Over HTTP: GraphQL, credentials, clocks, server-sent events, long polling."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, final

import aiohttp
import msgspec
from yarl import URL

from circuit_breaker_sdk.cli.doctor.finding import HALF_OPEN, Finding, fine, not_offered, wrong
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.transports.proxied_http import ProxiedConnector, proxy_arguments
from circuit_breaker_sdk.transports.proxies import ProxyError

__all__ = ["HTTP_STEPS", "NO_GRAPHQL", "http_findings", "session_of", "token_finding"]

HTTP_STEPS: Final = ("http", "clock", "server-sent events", "long polling")

NO_GRAPHQL: Final = "no GraphQL at this path"
"""Reason of a finding: HTTP is answered, and not with GraphQL."""

_DOCUMENT: Final = b'{"query":"{ __typename }"}'
_EMPTY_POLL: Final = b'{"operations":[]}'
_MAX_BYTES: Final = 64 * 1024
_OFF_SECONDS: Final = 30.0


@final
class _Answer(NamedTuple):
    status: int
    type: str
    date: str | None
    body: bytes
    seconds: float


def token_finding(patient: Patient) -> Finding | None:
    """Say whether the token says of itself that it has expired; ``None``: it does not say."""
    expires = _expires_at(patient.token)
    if expires is None:
        return None
    left = expires - time.time()
    when = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
    if left <= 0:
        return wrong(
            "token", f"the token expired {_duration(-left)} ago ({when})", "get a fresh token", expires=when
        )
    return fine("token", f"the token is good for {_duration(left)}", expires=when)


async def http_findings(patient: Patient) -> AsyncIterator[Finding]:
    """Ask over HTTP what every GraphQL server can answer; see whether it also answers in the other ways."""
    async with session_of(patient) as session:
        try:
            answer = await _post(patient, session, patient.http, "application/json")
        except _FAILURES as error:
            yield _unanswered(patient, error)
            return
        finding = _graphql(patient, answer)
        yield finding
        yield _clock(answer)
        if finding.advice:
            return  # what is behind it would fail for the same reason
        yield await _event_stream(patient, session)
        yield await _long_poll(patient, session)


def _unanswered(patient: Patient, error: Exception) -> Finding:
    if isinstance(error, ProxyError):
        return wrong("http", error.text, "a proxy is named in the environment: HTTP_PROXY and its like")
    if isinstance(error, TimeoutError):
        return wrong("http", f"connected, and no answer within {patient.seconds:g} s", HALF_OPEN)
    return wrong("http", f"no answer over HTTP: {_why(error)}", "does a web server listen at this port?")


def _graphql(patient: Patient, answer: _Answer) -> Finding:
    errors = _graphql_errors(answer.body)
    said = f"HTTP {answer.status}" + (f", {errors[0]!r}" if errors else "")
    if answer.status in (401, 403) or (errors and "token" in errors[0].lower()):
        return wrong("http", f"the credentials are refused ({said})", _credentials_advice(patient))
    if answer.status == 404:
        return wrong(
            "http",
            f"nothing at this path (HTTP 404): {URL(patient.http).path}",
            "check the path of the URL; GraphQL is often at /graphql",
            reason=NO_GRAPHQL,
        )
    if 300 <= answer.status < 400:
        return wrong("http", f"the server sends elsewhere ({said})", "connect to that URL directly")
    if errors is None:
        return wrong(
            "http",
            f"the answer is not GraphQL (HTTP {answer.status}, {answer.type or 'without a type'})",
            "check the path of the URL; GraphQL is often at /graphql",
            reason=NO_GRAPHQL,
        )
    return fine("http", f"GraphQL answers in {answer.seconds * 1000:.1f} ms ({said})", status=answer.status)


def _clock(answer: _Answer) -> Finding:
    try:
        there = parsedate_to_datetime(answer.date or "")
    except ValueError:
        return not_offered("clock", "the server's answers have no date")
    off = (there.replace(tzinfo=there.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    if abs(off) > _OFF_SECONDS:
        way = "ahead of" if off > 0 else "behind"
        return wrong(
            "clock",
            f"the server's clock is {_duration(abs(off))} {way} that of this machine",
            "set both by NTP: tokens and certificates are good too early or too late otherwise",
            offset_seconds=round(off),
        )
    return fine("clock", "this machine and the server agree to some seconds", offset_seconds=round(off))


async def _event_stream(patient: Patient, session: aiohttp.ClientSession) -> Finding:
    try:
        answer = await _post(patient, session, patient.http, "text/event-stream")
    except _FAILURES as error:
        return not_offered("server-sent events", _why(error))
    if answer.status == 200 and answer.type == "text/event-stream":
        return fine("server-sent events", f"answered in {answer.seconds * 1000:.1f} ms")
    return not_offered("server-sent events", f"HTTP {answer.status}, {answer.type or 'without a type'}")


async def _long_poll(patient: Patient, session: aiohttp.ClientSession) -> Finding:
    url = URL(patient.http)
    url = url.with_path(url.path.rstrip("/") + "/poll", keep_query=True)
    try:
        answer = await _post(patient, session, str(url), "application/json", body=_EMPTY_POLL)
    except _FAILURES as error:
        return not_offered("long polling", _why(error))
    # What answers polls says of an empty one that it is empty.
    if not any("poll" in each for each in _graphql_errors(answer.body) or ()):
        return not_offered("long polling", f"HTTP {answer.status}; only a Circuit Breaker server has it")
    return fine("long polling", f"answered in {answer.seconds * 1000:.1f} ms")


async def _post(
    patient: Patient, session: aiohttp.ClientSession, url: str, accept: str, *, body: bytes = _DOCUMENT
) -> _Answer:
    headers = {"Content-Type": "application/json", "Accept": accept, **patient.headers}
    started = time.perf_counter()
    async with (
        asyncio.timeout(patient.seconds),
        session.post(
            URL(url, encoded=True),
            data=body,
            allow_redirects=False,
            **proxy_arguments(patient.proxy, headers, secure=patient.context is not None),
        ) as response,
    ):
        said = await response.content.read(_MAX_BYTES)
        return _Answer(
            response.status,
            response.content_type if "Content-Type" in response.headers else "",
            response.headers.get("Date"),
            said,
            time.perf_counter() - started,
        )


_FAILURES: Final = (aiohttp.ClientError, OSError, ProxyError)


def session_of(patient: Patient) -> aiohttp.ClientSession:
    """Open a session that goes to the patient as the client would: by its proxy, trusting its authorities."""
    context: Any = patient.context or True
    connector = (
        aiohttp.TCPConnector(ssl=context)
        if patient.proxy is None
        else ProxiedConnector(patient.proxy, patient.seconds, ssl=context)
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _graphql_errors(body: bytes) -> list[str] | None:
    """Return the errors of a GraphQL response; ``None``: it is none."""
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(answer, dict) or not ("data" in answer or "errors" in answer):
        return None
    errors = answer.get("errors") or []
    return [str(each.get("message")) for each in errors if isinstance(each, dict)]


def _expires_at(token: str | None) -> float | None:
    """Read the ``exp`` of a JWT, which is not verified here."""
    parts = (token or "").split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, msgspec.DecodeError):
        return None
    found = claims.get("exp") if isinstance(claims, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _credentials_advice(patient: Patient) -> str:
    if patient.token is None:
        return "give a token: --token, or CIRCUIT_BREAKER_TOKEN"
    return "is the token for this server, and has it not expired?"


def _why(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

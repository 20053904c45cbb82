"""Over a WebSocket: the upgrade, the subprotocol, credentials, resume, and a thousand pings."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any, Final, final

import msgspec

from circuit_breaker_sdk.cli.doctor.finding import HALF_OPEN, Finding, fine, not_offered, wrong
from circuit_breaker_sdk.cli.doctor.patient import Patient
from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    HandshakeFailed,
    OperationTimeoutError,
    TransportError,
)
from circuit_breaker_sdk.protocol.messages import LEGACY_SUBPROTOCOL, SUBPROTOCOL
from circuit_breaker_sdk.protocol.resume import acknowledged_epoch, offering_resume
from circuit_breaker_sdk.transports.websocket import WebSocket, connect

__all__ = ["WEBSOCKET_STEPS", "websocket_findings"]

WEBSOCKET_STEPS: Final = ("websocket", "acknowledgement", "resume", "pings")

_SUBPROTOCOLS: Final = (
    f"the server must speak {SUBPROTOCOL} or {LEGACY_SUBPROTOCOL}; is this the path of its WebSockets?"
)
_PINGS: Final = 1_000
_FORBIDDEN: Final = 4403
_NOT_ACCEPTABLE: Final = 4406


class _Closed(Exception):
    """The peer closed the socket."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"closed with {code}" + (f", {reason!r}" if reason else ""))


@final
class _Inbox:
    """Hands messages on to one reader."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes | _Closed] = asyncio.Queue()

    def on_message(self, data: bytes) -> None:
        self._messages.put_nowait(data)

    def on_messages(self, messages: list[bytes]) -> None:
        for each in messages:
            self.on_message(each)

    def on_closed(self, code: int, reason: str) -> None:
        self._messages.put_nowait(_Closed(code, reason))

    def on_writable(self, writable: bool) -> None:
        """Nothing to do: one message is on its way at a time."""

    async def next(self, *wanted: str) -> dict[str, Any]:
        """Return the next message of one of these types.

        :raises _Closed: there is none.
        """
        while True:
            found = await self._messages.get()
            if isinstance(found, _Closed):
                raise found
            message = msgspec.json.decode(found)
            if isinstance(message, dict) and message.get("type") in wanted:
                return message


async def websocket_findings(patient: Patient, *, answers_http: bool) -> AsyncIterator[Finding]:
    """Upgrade, initialise, and ping a thousand times, one ping behind the other.

    :param answers_http: whether GraphQL is answered over HTTP, with the same credentials.
    """
    inbox = _Inbox()
    started = time.perf_counter()
    try:
        socket = await connect(
            patient.websocket,
            inbox,
            subprotocols=(SUBPROTOCOL, LEGACY_SUBPROTOCOL),
            headers=patient.headers,
            ssl=patient.context,
            limits=MessageLimits(),
            timeouts=Timeouts(connect_seconds=patient.seconds),
            proxy=patient.proxy,
        )
    except TransportError as error:
        yield _not_upgraded(error, answers_http=answers_http)
        return
    milliseconds = (time.perf_counter() - started) * 1000
    try:
        yield fine(
            "websocket",
            f"upgraded in {milliseconds:.1f} ms; the server speaks {socket.subprotocol}",
            subprotocol=socket.subprotocol,
        )
        async for finding in _spoken_with(patient, socket, inbox):
            yield finding
    finally:
        socket.close(1000)
        await socket.wait_closed()


async def _spoken_with(patient: Patient, socket: WebSocket, inbox: _Inbox) -> AsyncIterator[Finding]:
    is_legacy = socket.subprotocol == LEGACY_SUBPROTOCOL
    payload: dict[str, object] = dict(patient.headers)
    if not is_legacy:
        payload = offering_resume(payload)
    socket.send_message(msgspec.json.encode({"type": "connection_init", "payload": payload}))
    try:
        async with asyncio.timeout(patient.seconds):
            answer = await inbox.next("connection_ack", "connection_error")
    except TimeoutError:
        yield wrong(
            "acknowledgement",
            f"connected, and no answer to connection_init within {patient.seconds:g} s",
            HALF_OPEN,
        )
        return
    except (_Closed, msgspec.DecodeError) as error:
        yield _refused(patient, error)
        return
    if answer["type"] == "connection_error":
        yield _refused(patient, _Closed(_FORBIDDEN, str(answer.get("payload") or "")))
        return
    yield fine("acknowledgement", "the server acknowledges" + (", the token too" if patient.token else ""))
    said = answer.get("payload")
    epoch = acknowledged_epoch(said if isinstance(said, dict) else None)
    if epoch is None:
        yield not_offered("resume", "after a lost connection the client says that events may be missing")
    else:
        yield fine(
            "resume", "nothing is lost with a connection: the server resumes from a cursor", epoch=epoch
        )
    if is_legacy:
        yield not_offered("pings", f"{LEGACY_SUBPROTOCOL} has none")
    else:
        yield await _pings(patient, socket, inbox)


async def _pings(patient: Patient, socket: WebSocket, inbox: _Inbox) -> Finding:
    times: list[float] = []
    began = time.perf_counter()
    try:
        async with asyncio.timeout(patient.seconds) as limit:
            for number in range(_PINGS):
                sent = time.perf_counter()
                socket.send_message(b'{"type":"ping"}')
                await inbox.next("pong")
                times.append(time.perf_counter() - sent)
                # The first says whether anything comes back; of the others a slow path allows fewer.
                if not number:
                    limit.reschedule(asyncio.get_running_loop().time() + 2 * patient.seconds)
    except TimeoutError:
        if not times:
            return wrong(
                "pings",
                f"no answer to a ping within {patient.seconds:g} s",
                "something between has stopped passing messages on",
            )
    except (_Closed, msgspec.DecodeError) as error:
        return wrong("pings", f"after {len(times)} pings: {error}", "does the server limit pings?")
    took = time.perf_counter() - began
    p50, p99 = (_quantile(times, each) * 1000 for each in (50, 99))
    return fine(
        "pings",
        f"{len(times):,} answered, {len(times) / took:,.0f} a second; p50 {p50:.2f} ms, p99 {p99:.2f} ms",
        answered=len(times),
        p50_ms=round(p50, 3),
        p99_ms=round(p99, 3),
    )


def _quantile(times: list[float], percent: int) -> float:
    return times[0] if len(times) < 2 else statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def _not_upgraded(error: TransportError, *, answers_http: bool) -> Finding:
    status = getattr(error, "status", None)
    if isinstance(error, OperationTimeoutError):
        return wrong("websocket", str(error), HALF_OPEN)
    if isinstance(error, HandshakeFailed) and status == 101:
        return wrong("websocket", str(error), _SUBPROTOCOLS)
    if answers_http and (status is not None or isinstance(error, AuthenticationFailed)):
        return wrong(
            "websocket",
            f"GraphQL answers over HTTP, and not over WebSockets: {error}",
            "a proxy between may not pass upgrades on (nginx: proxy_set_header Upgrade and Connection), or "
            "the path of WebSockets is another one; the client falls back to server-sent events or polling, "
            "where they are offered",
        )
    if isinstance(error, AuthenticationFailed):
        return wrong("websocket", str(error), "is the token for this server, and has it not expired?")
    return wrong("websocket", str(error), "see the steps above")


def _refused(patient: Patient, error: Exception) -> Finding:
    if isinstance(error, _Closed) and error.code == _FORBIDDEN:
        advice = (
            "give a token: --token, or CIRCUIT_BREAKER_TOKEN"
            if patient.token is None
            else "is the token for this server, and has it not expired?"
        )
        return wrong("acknowledgement", f"the credentials are refused: {error}", advice)
    if isinstance(error, _Closed) and error.code == _NOT_ACCEPTABLE:
        return wrong(
            "acknowledgement",
            f"the subprotocol is refused: {error}",
            _SUBPROTOCOLS,
        )
    return wrong("acknowledgement", f"no acknowledgement: {error}", "look at the server's log")

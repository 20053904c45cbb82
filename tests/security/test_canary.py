"""A token that is searched for in all a program could show: errors, what they are chained to, logs, reprs."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from circuit_breaker_sdk import Client, Subscription, UsageError
from circuit_breaker_sdk.config import ErrorRecoveryPolicy, Timeouts
from circuit_breaker_sdk.connections import TokenSource
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    CircuitBreakerError,
    ConnectionFailed,
    OperationError,
    SubscriptionError,
    TransportError,
)
from tests.connections.raw_server import acknowledge, read_message, send_message, stay
from tests.transports.peers import CLOSE, Peer, serve

CANARY = "canary-5f0c3b9e77d14a02"
HEADER = "canary-header-93ab10cd"
PARAMETER = "canary-parameter-77e1"
QUERY = "canary-query-0b1d"
SECRETS = (CANARY, HEADER, PARAMETER, QUERY)
# A text that was cut may hold the beginning of one.
BEGINNINGS = tuple(secret[:12] for secret in SECRETS)

Script = Callable[[Peer], Awaitable[None]]


async def _async_token() -> str:
    return CANARY


TOKENS: dict[str, Callable[[], str | TokenSource]] = {
    "text": lambda: CANARY,
    "function": lambda: lambda: CANARY,
    "async function": lambda: _async_token,
}


def shown(error: BaseException) -> str:
    """Return all that a program, a logger or a crash reporter could print of an error."""
    texts = ["".join(traceback.format_exception(error))]
    seen: set[int] = set()
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        texts += [str(link), repr(link), repr(link.args), repr(vars(link))]
        links += [link.__cause__, link.__context__]
    return "\n".join(texts)


def assert_clean(text: str, where: str) -> None:
    for secret in BEGINNINGS:
        assert secret not in text, f"{where} shows {secret}: {text}"


class Witness:
    """Keeps everything that a program could show."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.errors: list[BaseException] = []
        self.texts: list[str] = []
        caplog.set_level(logging.DEBUG)

    def judge(self) -> None:
        for error in self.errors:
            assert_clean(shown(error), type(error).__name__)
        for text in self.texts:
            assert_clean(text, "a repr")
        for record in self._caplog.records:
            assert_clean(record.getMessage() + repr(vars(record)), f"the log {record.name}")
            if record.exc_info and record.exc_info[1] is not None:
                assert_clean(shown(record.exc_info[1]), f"the log {record.name}")
        assert_clean(self._caplog.text, "the log")


@asynccontextmanager
async def client_of(port: int, kind: str, witness: Witness, *, seconds: float = 2.0) -> AsyncIterator[Client]:
    client = Client(
        f"ws://127.0.0.1:{port}/graphql?tenant={QUERY}",
        token=TOKENS[kind](),
        headers={"X-Key": HEADER},
        connection_params={"nested": {"list": [PARAMETER]}},
        recovery=ErrorRecoveryPolicy(max_retries=1, base_delay=0.001),
        timeouts=Timeouts(
            connect_seconds=seconds, acknowledge_seconds=seconds, execute_seconds=seconds, close_seconds=0.2
        ),
    )
    client.on_connection_state(lambda change: witness.texts.append(repr(change)))
    try:
        yield client
    finally:
        witness.texts += [repr(client), repr(client._parts.first._dialler._settings)]
        await client.aclose()


async def _read(subscription: Subscription[int]) -> None:
    async for _ in subscription:
        pass


async def subscribing(client: Client, witness: Witness) -> None:
    try:
        subscription = await client.subscribe("subscription { tick }", type=int)
        witness.texts += [repr(subscription), str(subscription)]
        told = asyncio.Event()

        def note(error: BaseException) -> None:
            witness.errors.append(error)
            told.set()

        subscription.on_error(note)
        reading = asyncio.create_task(_read(subscription))
        telling = asyncio.create_task(told.wait())
        await asyncio.wait((reading, telling), return_when=asyncio.FIRST_COMPLETED)
        telling.cancel()
        # It may try again for ever, and what it has said is enough.
        await subscription.unsubscribe()
        await asyncio.wait((reading, telling))
        await reading
    except CircuitBreakerError as error:
        witness.errors.append(error)


def everything(head: str) -> str:
    """Return what a malicious or careless server says: all that it was told."""
    return f"you said {CANARY} {HEADER} {PARAMETER} in {head[head.index(chr(13)) :]}"


def http(status: str, body: str = "", more: str = "") -> Script:
    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        text = body or msgspec.json.encode({"errors": [{"message": everything(head)}]}).decode()
        peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n{more}\r\n{text}".encode())
        await peer.read_to_end()

    return script


def raw(text: str) -> Script:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.send(text.encode())

    return script


def closing(code: int, reason: str) -> Script:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        await read_message(peer)
        peer.send_frame(CLOSE, code.to_bytes(2) + reason.encode())
        await peer.read_to_end()

    return script


def closing_at_once(code: int, reason: str) -> Script:
    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.send_frame(CLOSE, code.to_bytes(2) + reason.encode())
        await peer.read_to_end()

    return script


def saying(**message: object) -> Script:
    async def script(peer: Peer) -> None:
        await acknowledge(peer)
        asked = await read_message(peer)
        send_message(peer, **{"id": asked["id"], **message})
        await stay(peer)

    return script


async def silent(peer: Peer) -> None:
    await peer.read_to_end()


ERRORS = [
    {
        "message": f"{CANARY} is no token\n{HEADER}",
        "path": ["a", CANARY],
        "extensions": {"code": PARAMETER, "seen": [CANARY]},
    }
]
WEBSOCKETS: dict[str, Script] = {
    "closed with the token": closing(1011, f"unknown token {CANARY}"),
    "refused with the token": closing(4403, f"unknown token {CANARY}"),
    "closed with the token cut": closing(4400, "x" * 100 + CANARY[:20]),
    "refused before the ack": closing_at_once(4403, f"unknown token {CANARY}"),
    "closed with a header": closing(4400, f"{HEADER} {PARAMETER}"),
    "an error": saying(type="error", payload=ERRORS),
    "errors in a result": saying(type="next", payload={"data": None, "errors": ERRORS}),
    "an unknown type": saying(type=CANARY),
    "a wrong payload": saying(type="next", payload={"data": {"tick": CANARY}}),
    "HTTP 401": http("401 Unauthorized"),
    "HTTP 403": http("403 Forbidden", more=f"X-Echo: {CANARY}\r\n"),
    "HTTP 404": http("404 Not Found"),
    "HTTP 500": http("500 Oops", more=f"X-Echo: {CANARY}\r\n"),
    "HTTP 429": http("429 Slow Down"),
    "a redirect": http("302 Found", more=f"Location: http://127.0.0.2/{CANARY}/x?y={HEADER}\r\n"),
    "a page": http("200 OK", more=f"Content-Type: text/{CANARY}\r\n"),
    "no HTTP": raw(f"{CANARY}\r\n\r\n"),
    "no status": raw(f"HTTP/1.1 {CANARY}\r\n\r\n"),
    "a wrong subprotocol": http("101 Switching", more=f"Sec-WebSocket-Protocol: {CANARY}\r\n"),
    "hung up": raw(""),
}


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("case", WEBSOCKETS)
async def test_nothing_of_a_subscription_shows_a_secret_that_the_server_repeats(
    case: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness(caplog)
    async with serve(_careless(WEBSOCKETS[case])) as port, client_of(port, kind, witness) as client:
        await subscribing(client, witness)
    assert witness.errors, "the server's words reached no error"
    witness.judge()


def _careless(script: Script) -> Script:
    """A peer that is left in the middle of a word is no failure of these tests."""

    async def run(peer: Peer) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, AssertionError):
            await script(peer)

    return run


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize(
    "case", [c for c in WEBSOCKETS if "HTTP" in c or c.startswith(("a ", "no ", "hung"))]
)
async def test_nothing_of_a_query_shows_a_secret_that_the_server_repeats(
    case: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness(caplog)
    async with serve(_careless(WEBSOCKETS[case])) as port, client_of(port, kind, witness) as client:
        with pytest.raises((TransportError, SubscriptionError, OperationError)) as caught:
            await client.execute("{ health }", type=dict[str, str])
        witness.errors.append(caught.value)
    witness.judge()


async def test_the_errors_of_a_query_are_redacted_beside_their_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    witness = Witness(caplog)
    body = msgspec.json.encode({"data": None, "errors": ERRORS}).decode()
    script = http("200 OK", body, "Content-Type: application/json\r\n")
    async with serve(script) as port, client_of(port, "text", witness) as client:
        with pytest.raises(OperationError, match=r"\[redacted\] is no token") as caught:
            await client.execute("{ health }", type=dict[str, str])
        witness.errors.append(caught.value)
        assert caught.value.errors[0].extensions == {"code": "[redacted]", "seen": ["[redacted]"]}
    witness.judge()


@pytest.mark.parametrize("kind", TOKENS)
async def test_a_timeout_shows_no_secret(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness(caplog)
    async with serve(silent) as port, client_of(port, kind, witness, seconds=0.05) as client:
        await subscribing(client, witness)
        with pytest.raises((TransportError, SubscriptionError)) as caught:
            await client.execute("{ health }", type=dict[str, str])
        witness.errors.append(caught.value)
    assert len(witness.errors) == 2
    witness.judge()


async def test_a_refused_connection_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness(caplog)
    async with serve(silent) as port:
        pass
    async with client_of(port, "function", witness) as client:
        await subscribing(client, witness)
        with pytest.raises(ConnectionFailed) as caught:
            await client.execute("{ health }", type=dict[str, str])
        witness.errors.append(caught.value)
    witness.judge()


async def test_a_source_that_fails_with_the_token_in_its_error_shows_where_and_not_what(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def source() -> str:
        raise ValueError(f"cannot parse {CANARY}")

    witness = Witness(caplog)
    async with Client("ws://127.0.0.1:9/graphql", token=source) as client:
        await subscribing(client, witness)
    assert "raised ValueError (test_canary.py, line " in str(witness.errors[0])
    witness.judge()


@pytest.mark.parametrize(
    "url",
    [
        f"ws://user:{CANARY}@localhost/graphql",
        f"ws://{CANARY}@localhost/graphql",
        f"ws://user:{CANARY}",
        f"ws://user:{CANARY}/more@localhost/graphql",
        f"ws://[{CANARY}/graphql",
        f"http://localhost/graphql?token={CANARY}",
        f"ws://localhost/graphql?a=1&Access_Token={CANARY}",
        f"foo://user:{CANARY}/x@localhost",
        f"ws://localhost/graphql#{CANARY}",
        f"ws://local\u2100host:{CANARY}@x/",
    ],
)
def test_a_url_that_is_refused_is_not_repeated_with_its_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Client(url)
    assert_clean(shown(caught.value), "the error")


@pytest.mark.parametrize("name", ["token", "access_token", "TOKEN", "jwt", "authorization"])
@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
def test_a_token_in_a_query_is_refused_and_the_error_says_where_it_belongs(name: str, scheme: str) -> None:
    with pytest.raises(UsageError, match="token="):
        Client(f"{scheme}://localhost:4000/graphql?{name}={CANARY}")


@pytest.mark.parametrize("token", [f"{CANARY} two", f"{CANARY}\r\nX: y", f"{CANARY}ä"])
def test_a_token_that_cannot_be_sent_is_not_repeated(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        Client("ws://localhost", token=token)
    assert_clean(shown(caught.value), "the error")
    with pytest.raises(UsageError) as caught:
        Client("ws://localhost", headers={"X-Key": token.replace(" ", "\n")})
    assert_clean(shown(caught.value), "the error")


async def test_a_parameter_that_has_no_json_form_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness(caplog)
    async with serve(_careless(silent_after_upgrade)) as port:
        for value in (f"{CANARY}\udc80", {CANARY: {1, object()}}):
            client = Client(f"ws://127.0.0.1:{port}", connection_params={"key": value})
            async with client:
                await subscribing(client, witness)
    assert len(witness.errors) == 2
    witness.judge()


async def silent_after_upgrade(peer: Peer) -> None:
    await peer.accept()
    await peer.read_to_end()


@pytest.mark.parametrize("source", [True, False])
async def test_a_refused_token_is_replaced_once_at_most_and_a_text_never(source: bool) -> None:
    asked: list[str] = []
    heads: list[str] = []

    def fresh() -> str:
        asked.append(f"token-{len(asked)}")
        return asked[-1]

    async def refusing(peer: Peer) -> None:
        heads.append(await peer.read_head())
        peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with serve(refusing) as port:
        async with Client(f"ws://127.0.0.1:{port}/graphql", token=fresh if source else "text") as client:
            with pytest.raises(AuthenticationFailed):
                await client.subscribe("subscription { tick }", type=int)
        assert len(heads) == (2 if source else 1)
        assert len(asked) == (2 if source else 0)
        heads.clear()
        asked.clear()
        async with Client(f"ws://127.0.0.1:{port}/graphql", token=fresh if source else "text") as client:
            with pytest.raises(AuthenticationFailed):
                await client.execute("{ health }", type=dict[str, str])
        assert len(heads) == (2 if source else 1)


@pytest.mark.parametrize("source", [True, False])
async def test_a_token_refused_with_4403_is_replaced_once_at_most_and_a_text_never(source: bool) -> None:
    shown_tokens: list[object] = []

    def fresh() -> str:
        return f"token-{len(shown_tokens)}"

    async def refusing(peer: Peer) -> None:
        await peer.accept()
        init = await read_message(peer)
        shown_tokens.append(init["payload"])
        peer.send_frame(CLOSE, (4403).to_bytes(2) + b"Forbidden")
        await peer.read_to_end()

    token = fresh if source else "text"
    async with serve(refusing) as port, Client(f"ws://127.0.0.1:{port}/graphql", token=token) as client:
        with pytest.raises(AuthenticationFailed):
            await client.subscribe("subscription { tick }", type=int)
    assert len(shown_tokens) == (2 if source else 1)

"""Endpoints of providers: the built-in echo, and servers that speak OpenAI's protocol."""

from __future__ import annotations

import asyncio
import importlib
import math
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol, cast, final

import msgspec

from circuit_breaker_server.engine.llm.inputs import ChatMessage, ModelInput
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.outbound import AddressRefused, AnswerLimits, Outbound
from circuit_breaker_server.outbound.addresses import host_of
from circuit_breaker_server.outbound.tls import default_tls

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
    from openai.types.chat.chat_completion_chunk import ChoiceDelta

__all__ = ["ECHO_MODEL", "Ask", "Echo", "Endpoint", "OpenAIEndpoint", "Outcome", "Piece", "ProviderFailed"]


_log = get_logger("llm")

_SENT_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "x-stainless-raw-response",  # the library reads it again from what it has sent
    }
)

_BYTES_PER_CHARACTER: Final = 4  # at most, in UTF-8
_TEMPLATE_TOKENS: Final = 16_384
"""The most tokens that a provider may add to a prompt; more are cut from its count."""
_REASONING_TOKENS: Final = 65_536
"""The most tokens that a model may use for reasoning, beyond its visible answer; more are cut."""
_CHARACTERS_PER_TOKEN: Final = 4  # an estimate, for endpoints that do not count
_MAX_WAIT_SECONDS: Final = 86_400.0
_MAX_TOKENS: Final = 2**31  # an Int of GraphQL is less


@final
class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The request to a provider; ``None`` leaves a parameter to the provider."""

    model: str
    messages: Sequence[ChatMessage]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: Sequence[str] | None = None
    user: str | None = None


@final
class Piece(msgspec.Struct, frozen=True):
    """A part of an answer: text, or the JSON of a function call."""

    text: str
    is_call: bool = False

    @property
    def json_bytes(self) -> int:
        """The size of its text as JSON, as a record of the log holds it."""
        return len(msgspec.json.encode(self.text))


@final
class Outcome(msgspec.Struct, kw_only=True):
    """The result of a provider's answer; complete once its last piece has arrived.

    :ivar prompt_tokens: the provider's count; ``None`` if it sends none.
    :ivar retries: the number of retries before it answered.
    """

    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retries: int = 0

    def tokens(
        self,
        *,
        prompt_characters: int,
        completion_characters: int,
        max_tokens: int | None,
        model: ModelInput | None,
    ) -> tuple[int, int]:
        """Return the tokens of the prompt and of the answer, by which callers are charged.

        A number that the provider did not send is estimated. An impossible number is cut down to the largest
        possible one, with a warning in the server's log: a token is a byte at least, and an answer is no
        longer than the request allowed.

        :param max_tokens: as in the request.
        :param model: as the provider lists it.
        """
        window = _MAX_TOKENS if model is None else model.context_window
        return (
            self._plausible(
                self.prompt_tokens,
                prompt_characters,
                most=min(prompt_characters * _BYTES_PER_CHARACTER + _TEMPLATE_TOKENS, window),
            ),
            self._plausible(
                self.completion_tokens,
                completion_characters,
                most=min(
                    completion_characters * _BYTES_PER_CHARACTER + _REASONING_TOKENS,
                    window,
                    window if max_tokens is None else max_tokens,
                ),
            ),
        )

    def _plausible(self, reported: int | None, characters: int, *, most: int) -> int:
        if reported is None:
            return _estimate(characters)
        if reported > most:
            _log.warning("tokens_cut_down", reported=reported, counted=most)
            return most
        return reported


def _estimate(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS_PER_TOKEN)


@final
class ProviderFailed(Exception):
    """A provider did not answer, or not whole. The text is for the caller: no key is in it.

    :param detail: the provider's own text, which may quote the prompt: it is for this caller alone.
    :ivar summary: the message without the detail; every caller that may see the provider may see it.
    :ivar retryable: asking again later may help.
    :ivar retry_after_seconds: when, where the provider said so.
    :ivar kind: ``rate_limit``, ``authentication``, ``timeout``, ``connection``, ``server``, ``request``,
        ``broken``, ``address`` (the server may not connect there) or ``too_big``.
    """

    def __init__(
        self, kind: str, summary: str, *, detail: str = "", retry_after_seconds: float | None = None
    ) -> None:
        self.kind = kind
        self.summary = summary
        self.message = f"{summary}: {detail}" if detail else summary
        self.retryable = kind in ("rate_limit", "timeout", "connection", "server", "broken")
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)


class Endpoint(Protocol):
    """The interface of a provider's endpoint."""

    async def prepare(self) -> None:
        """Load what a request needs; this does not wait for the provider."""
        ...

    def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """Yield the answer piece by piece, and fill in the outcome.

        :raises ProviderFailed: it did not answer, or not whole.
        """
        ...

    async def aclose(self) -> None:
        """Close connections. Idempotent."""
        ...


_WORD = re.compile(r"\s*\S+\s*")

ECHO_MODEL: Final = ModelInput(
    id="echo",
    name="Echo",
    max_tokens=1_000_000,
    context_window=1_000_000,
    cost_per_input_token=0.000_001,
    cost_per_output_token=0.000_002,
    supports_streaming=True,
    supports_function_calling=False,
    capabilities=("chat",),
)
"""The model of the built-in provider; its prices are there for demonstrations and tests."""


@final
class Echo:
    """Says the last message's own words back, one piece a word; needs no network."""

    async def prepare(self) -> None:
        """Do nothing."""

    async def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """See :class:`Endpoint`; a token is a word."""
        text = ask.messages[-1].content
        outcome.finish_reason = "stop"
        for stop in ask.stop or ():
            text = text.partition(stop)[0]
        words = _WORD.findall(text)
        if ask.max_tokens is not None and len(words) > ask.max_tokens:
            words = words[: ask.max_tokens]
            outcome.finish_reason = "length"
        outcome.prompt_tokens = sum(len(message.content.split()) for message in ask.messages)
        outcome.completion_tokens = len(words)
        for word in words:
            yield Piece(word)
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Do nothing."""


@final
class OpenAIEndpoint:
    """An endpoint that speaks OpenAI's protocol, through the ``openai`` library.

    :param base_url: for example ``https://llm.example/v1``.
    :param timeout_seconds: for each wait: to connect, for the answer to begin, between two pieces.
    :param outbound: where it may be, and how much it may answer.
    """

    def __init__(
        self, base_url: str, api_key: str | None, *, timeout_seconds: float, outbound: Outbound
    ) -> None:
        self._base_url = base_url
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._outbound = outbound
        self._tls: ssl.SSLContext | None = None
        self._client: AsyncOpenAI | None = None
        self._asking = 0

    @property
    def is_idle(self) -> bool:
        """Whether no answer is being read from it."""
        return self._asking == 0

    async def prepare(self) -> None:
        """See :class:`Endpoint`; in a thread, so that streams go on."""
        await asyncio.to_thread(importlib.import_module, "openai")
        if self._tls is None and self._base_url.startswith("https:"):
            self._tls = await asyncio.to_thread(default_tls)

    async def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """See :class:`Endpoint`; refused connections, 429 and 5xx are asked again twice."""
        # Imported here: openai costs 600 ms, which the start of a server must not.
        import openai  # noqa: PLC0415 (as said above)

        from circuit_breaker_server.outbound.client import refusal_in  # noqa: PLC0415 (as said above)

        begun, texts, size = False, _Texts(), _Size(self._outbound.limits)
        self._asking += 1
        try:
            await self._check_address()
            async with AsyncExitStack() as open_:
                answer = await self._open(openai.AsyncOpenAI).chat.completions.with_raw_response.create(
                    model=ask.model,
                    messages=cast("list[ChatCompletionMessageParam]", msgspec.to_builtins(ask.messages)),
                    stream=True,
                    stream_options={"include_usage": True},
                    # A null is not the same as nothing: an endpoint that checks its input refuses it.
                    temperature=openai.omit if ask.temperature is None else ask.temperature,
                    max_tokens=openai.omit if ask.max_tokens is None else ask.max_tokens,
                    top_p=openai.omit if ask.top_p is None else ask.top_p,
                    frequency_penalty=openai.omit if ask.frequency_penalty is None else ask.frequency_penalty,
                    presence_penalty=openai.omit if ask.presence_penalty is None else ask.presence_penalty,
                    stop=list(ask.stop) if ask.stop else openai.omit,
                    user=openai.omit if ask.user is None else ask.user,
                )
                outcome.retries = answer.retries_taken
                stream = answer.parse()
                open_.push_async_callback(stream.close)
                async for chunk in stream:
                    begun = True
                    for piece in _pieces(chunk, outcome, texts):
                        size.add(piece)
                        yield piece
        except ProviderFailed:
            raise
        except openai.OpenAIError as error:
            raise self._failure(error, begun=begun) from error
        except Exception as error:
            # The library lets through what its HTTP client raises in mid-stream, and takes JSON of any shape.
            if (refusal := refusal_in(error)) is not None:
                raise _refused(refusal) from error
            why = f"the answer broke off: {type(error).__name__}"
            if isinstance(error, (TypeError, AttributeError, ValueError)):
                why = "an answer that cannot be read: a chunk that is none of a chat completion"
            raise ProviderFailed("broken", why) from error
        finally:
            self._asking -= 1
        texts.end()
        if not begun or outcome.finish_reason is None:
            raise ProviderFailed("broken", "the answer broke off before its end")

    async def _check_address(self) -> None:
        """Refuse an address before the library asks, which would ask again twice what is refused.

        The check that counts is made where the connection is.
        """
        try:
            await self._outbound.rules.addresses(host_of(self._base_url), 0)
        except AddressRefused as error:
            raise _refused(error) from error
        except (OSError, ValueError):
            pass  # the library tells it

    def _open(self, make: type[AsyncOpenAI]) -> AsyncOpenAI:
        from circuit_breaker_server.outbound.client import Transport, open_client  # noqa: PLC0415 (as above)

        if self._client is None:
            transport = Transport(self._outbound.rules, self._outbound.limits, streams=True, tls=self._tls)
            self._client = make(
                api_key=self._api_key or "none",
                base_url=self._base_url,
                timeout=self._timeout_seconds,
                # The library adds what it finds in the environment, for a provider that need not be this one.
                http_client=open_client(transport, timeout_seconds=self._timeout_seconds, sent=_SENT_HEADERS),
            )
        return self._client

    def _failure(self, error: Exception, *, begun: bool) -> ProviderFailed:  # noqa: PLR0911 (one per kind)
        import openai  # noqa: PLC0415 (as in `ask`)

        from circuit_breaker_server.outbound.client import refusal_in  # noqa: PLC0415 (as in `ask`)

        if (refusal := refusal_in(error)) is not None:
            return _refused(refusal)
        match error:
            case openai.APITimeoutError():
                return ProviderFailed("timeout", f"no answer within {self._timeout_seconds:g} s")
            case openai.APIConnectionError() if begun:
                return ProviderFailed("broken", "the answer broke off", detail=str(error.__cause__ or error))
            case openai.APIConnectionError():
                return ProviderFailed("connection", f"no connection: {error.__cause__ or error}")
            case openai.RateLimitError():
                wait = _seconds(error.response.headers.get("retry-after"))
                return ProviderFailed("rate_limit", "too many requests (429)", retry_after_seconds=wait)
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return ProviderFailed("authentication", f"the key was refused ({error.status_code})")
            case openai.APIStatusError():
                kind = "server" if error.status_code >= 500 else "request"
                return ProviderFailed(kind, f"status {error.status_code}", detail=_brief(error.message))
            case _:
                return ProviderFailed("broken", "an answer that cannot be read", detail=_brief(str(error)))

    async def aclose(self) -> None:
        """See :class:`Endpoint`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _refused(error: Exception) -> ProviderFailed:
    return ProviderFailed("address" if isinstance(error, AddressRefused) else "too_big", str(error))


@final
class _Size:
    """Counts the pieces of an answer, and what they take as JSON."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._pieces = self._bytes = 0

    def add(self, piece: Piece) -> None:
        """Count a piece.

        :raises ProviderFailed: the answer is too big.
        """
        self._pieces += 1
        self._bytes += piece.json_bytes
        if self._pieces > self._limits.max_pieces:
            raise ProviderFailed("too_big", f"answered with more than {self._limits.max_pieces} pieces")
        if self._bytes > self._limits.max_text_bytes:
            raise ProviderFailed(
                "too_big", f"answered with more than {self._limits.max_text_bytes} bytes of text"
            )


def _count(value: object) -> int | None:
    """Check a number of tokens; ``None`` says that the provider did not count."""
    if value is None or (type(value) is int and 0 <= value < _MAX_TOKENS):
        return value
    raise ProviderFailed("broken", "an answer that cannot be read", detail=f"{_brief(repr(value))} tokens")


def _pieces(chunk: ChatCompletionChunk, outcome: Outcome, texts: _Texts) -> Iterator[Piece]:
    """Yield what a chunk adds to the answer, and note what it says of the whole."""
    # The library does not check what it has read: numbers may be texts, and anything may be null.
    if chunk.usage is not None:
        outcome.prompt_tokens = _count(chunk.usage.prompt_tokens)
        outcome.completion_tokens = _count(chunk.usage.completion_tokens)
    for choice in (chunk.choices or ())[:1]:
        if choice.finish_reason:
            outcome.finish_reason = _text(choice.finish_reason)
        delta = cast("ChoiceDelta | None", choice.delta)
        if delta is None:
            continue
        if text := texts.add(delta.content or ""):
            yield Piece(text)
        for call in delta.tool_calls or ():
            yield Piece(call.model_dump_json(exclude_none=True), is_call=True)


@final
class _Texts:
    """Texts whose characters may be split: half a surrogate pair at the end of one waits for the next."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, value: object) -> str:
        """Return the text up to its last whole character."""
        if not isinstance(value, str):
            return _text(value)
        text, self._half = self._half + value, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        if any("\ud800" <= character <= "\udfff" for character in text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return _text(text)

    def end(self) -> None:
        """Check that no half of a character is left.

        :raises ProviderFailed: one is.
        """
        _text(self._half)


def _text(value: object) -> str:
    """Check a text: half a surrogate pair is legal JSON, and cannot be written in UTF-8."""
    try:
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:
        pass
    raise ProviderFailed(
        "broken", "an answer that cannot be read", detail=f"{_brief(ascii(value))} is no text"
    )


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else min(max(0.0, float(text)), _MAX_WAIT_SECONDS)
    except ValueError:
        return None  # a date: "later" says as much


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:200] + "…"

"""Endpoints that speak OpenAI's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, cast, final

import msgspec

from circuit_breaker_server.engine.llm.endpoints import Ask, Outcome, Piece, ProviderFailed
from circuit_breaker_server.engine.llm.openai_chunks import AnswerSize, AnswerTexts, brief, pieces_of
from circuit_breaker_server.outbound import AddressRefused, Outbound
from circuit_breaker_server.outbound.addresses import host_of
from circuit_breaker_server.outbound.tls import default_tls

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["OpenAIEndpoint"]

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

_MAX_WAIT_SECONDS: Final = 86_400.0
_NOT_INSTALLED: Final = (
    "this server cannot ask providers: it was installed without the extra `llm` "
    "(pip install 'circuit-breaker-sdk[server,llm]')"
)


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
        with contextlib.suppress(ModuleNotFoundError):  # `ask` says what is missing
            await asyncio.to_thread(importlib.import_module, "openai")
        if self._tls is None and self._base_url.startswith("https:"):
            self._tls = await asyncio.to_thread(default_tls)

    async def ask(self, ask: Ask, outcome: Outcome) -> AsyncIterator[Piece]:
        """See :class:`Endpoint`; refused connections, 429 and 5xx are asked again twice."""
        # Imported here: openai costs 600 ms, which the start of a server must not.
        try:
            import openai  # noqa: PLC0415 (as said above)
        except ModuleNotFoundError as error:
            raise ProviderFailed("not_installed", _NOT_INSTALLED) from error

        from circuit_breaker_server.outbound.client import refusal_in  # noqa: PLC0415 (as said above)

        begun, texts, size = False, AnswerTexts(), AnswerSize(self._outbound.limits)
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
                    for piece in pieces_of(chunk, outcome, texts):
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
                return ProviderFailed(kind, f"status {error.status_code}", detail=brief(error.message))
            case _:
                return ProviderFailed("broken", "an answer that cannot be read", detail=brief(str(error)))

    async def aclose(self) -> None:
        """See :class:`Endpoint`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _refused(error: Exception) -> ProviderFailed:
    return ProviderFailed("address" if isinstance(error, AddressRefused) else "too_big", str(error))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else min(max(0.0, float(text)), _MAX_WAIT_SECONDS)
    except ValueError:
        return None  # a date: "later" says as much

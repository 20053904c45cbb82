"""Fetch a client's token, read its expiry, and tell when to refresh it."""

from __future__ import annotations

import asyncio
import binascii
import inspect
import os.path
import re
import time
from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, final

import msgspec

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS, in_own_context
from circuit_breaker_sdk.errors import CircuitBreakerError, ConnectionFailed, UsageError

__all__ = ["TokenSource", "Tokens", "expiry_of"]

TokenSource = Callable[[], str | Awaitable[str]]
"""Gives a fresh token each time it is called; a plain or an async function."""

# Visible characters: above all no blank and no line break.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_EARLY_SECONDS, _EARLY_PART = 60.0, 0.2
_REPLACE_SECONDS = 10.0
_REMEMBERED = 4


class _Claims(msgspec.Struct):
    exp: float | None = None


def expiry_of(token: str) -> float | None:
    """Return ``exp`` of a JWT, seconds since 1970; ``None`` for one without, and for other tokens.

    Nothing is verified: that is for the server.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(claims, type=_Claims).exp
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


@final
class Tokens:
    """The token in use, and the way to the next one.

    :ivar current: ``None`` before the source was asked, and for a client without tokens.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_fetched_at",
        "_fetching",
        "_monotonic",
        "_replaced_at",
        "_source",
        "current",
        "recent",
    )

    def __init__(
        self,
        token: str | TokenSource | None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` gives seconds since 1970, ``monotonic`` seconds since whenever."""
        self._monotonic = monotonic
        self._replaced_at = -_REPLACE_SECONDS + monotonic()
        self._source = in_own_context(token) if callable(token) else None
        self._clock = clock
        self._closed = False
        self._fetched_at = clock()
        self._fetching: asyncio.Task[str] | None = None
        self.current: str | None = None
        self.recent: deque[str] = deque(maxlen=_REMEMBERED)
        """The latest tokens, that in use among them: a server may speak of one that was replaced."""
        if token is not None and not callable(token):
            self.current = _checked(token)
            self.recent.append(self.current)

    @property
    def can_refresh(self) -> bool:
        """Whether there is a source to ask for another token."""
        return self._source is not None

    def seconds_to_refresh(self) -> float | None:
        """Return when to ask for the next token: a minute before the end of this one, or a fifth of its life.

        ``None`` where it has no known end, or there is no source.
        """
        expires_at = None if self.current is None or self._source is None else expiry_of(self.current)
        if expires_at is None:
            return None
        early = min(_EARLY_SECONDS, _EARLY_PART * max(0.0, expires_at - self._fetched_at))
        return max(0.0, expires_at - early - self._clock())

    async def ready(self) -> None:
        """Make sure that there is a token, and that it has not expired by our clock.

        :raises ConnectionFailed: the source failed.
        :raises UsageError: it gave something that is no token.
        """
        if self._source is not None and (self.current is None or self._has_expired()):
            await self.refresh()

    async def refresh(self) -> None:
        """Ask the source for another token, once for all waiting callers.

        :raises ConnectionFailed: the source failed.
        :raises UsageError: it gave something that is no token, or there is no source.
        """
        if self._source is None:
            raise UsageError("a token that is a plain string cannot be refreshed: give a function")
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        if self._fetching is None:
            self._fetching = asyncio.ensure_future(self._fetch(self._source))
            self._fetching.add_done_callback(self._fetched)
        fetching = self._fetching
        # Not a shield: whether the caller or the fetching was cancelled could not be told apart.
        await asyncio.wait((fetching,))
        if fetching.cancelled():
            raise UsageError("the client was closed while it asked for a token")
        self.current = fetching.result()

    async def aclose(self, *, caller: asyncio.Task[Any] | None = None) -> None:
        """Ask for no token any more; end the asking, unless that is the ``caller``. Idempotent."""
        self._closed = True
        fetching = self._fetching
        if fetching is not None and fetching is not caller:
            fetching.cancel()
            await asyncio.wait((fetching,))

    async def renew(self, ended: str | None) -> None:
        """Get another token than this one, unless there is one already: several may have lost the same.

        :raises ConnectionFailed: the source failed.
        :raises UsageError: it gave something that is no token.
        """
        if self.current == ended:
            await self.refresh()

    async def replace_refused(self, refused: str | None = None) -> bool:
        """Get another token for one that a server has refused; ``False``: that would be no use.

        At most once in 10 s: what refuses a token that fresh would refuse the next one too. A caller
        that names the ``refused`` one gets the token that others, refused with the same, have asked for.

        :raises ConnectionFailed: the source failed.
        :raises UsageError: it gave something that is no token.
        """
        if self._source is None:
            return False
        if refused is not None and self.current != refused:
            return True
        now = self._monotonic()
        is_asked = refused is not None and self._fetching is not None
        if not is_asked and now - self._replaced_at < _REPLACE_SECONDS:
            return False
        self._replaced_at = now
        await self.refresh()
        return True

    def _has_expired(self) -> bool:
        expires_at = None if self.current is None else expiry_of(self.current)
        return expires_at is not None and expires_at <= self._clock()

    def _fetched(self, fetching: asyncio.Task[str]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()  # told to those who wait, if anyone does still

    async def _fetch(self, source: TokenSource) -> str:
        failure: ConnectionFailed | None = None
        token: object = None
        try:
            given = source()
            token = await given if inspect.isawaitable(given) else given
        except CircuitBreakerError:
            raise
        except CALLBACK_ERRORS as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it is this task that was cancelled
            # The error is not shown but by its type and place, nor chained: it may hold the secret that was
            # sent for, and whoever logs a traceback logs the whole chain.
            failure = ConnectionFailed(f"the token source raised {type(error).__name__}{_place(error)}")
        if failure is not None:
            raise failure
        self._fetched_at = self._clock()
        checked = _checked(token)
        self.recent.append(checked)
        return checked


def _place(error: BaseException) -> str:
    """Name the file and line that raised."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return f" ({os.path.basename(traceback.tb_frame.f_code.co_filename)}, line {traceback.tb_lineno})"


def _checked(token: object) -> str:
    if not isinstance(token, str):
        raise UsageError(f"a token is a text, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise UsageError("the token is empty, or has spaces or characters that no header may have")
    return token

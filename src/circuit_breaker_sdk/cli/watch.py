"""``circuit-breaker watch``: show one stream's events until it ends."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, final

from circuit_breaker_sdk import Client, Subscription, SubscriptionState
from circuit_breaker_sdk.cli.beginnings import NOW, Beginning
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.output import JsonLines, LiveTable, ReaderGoneError, View
from circuit_breaker_sdk.cli.runtime import give_up_stdout, print_error, print_marker, until_stopped
from circuit_breaker_sdk.cli.streams import Watched
from circuit_breaker_sdk.errors import AuthenticationFailed, CircuitBreakerError, TransportError
from circuit_breaker_sdk.urls import redacted

__all__ = ["watch"]


async def watch(
    stop: asyncio.Event,
    stream: Watched,
    *,
    url: str,
    token: str | None,
    beginning: Beginning = NOW,
    count: int | None,
    wait_seconds: float | None,
) -> int:
    """Show the stream's events until it ends, and tell by the status why it did.

    stdout holds the events: a live table on a terminal, else one JSON object a line, each written at once.
    stderr says when the stream is connected, live, reconnecting and ended. A reader of stdout that goes away
    is a good end.

    :param beginning: where it begins.
    :param count: end after so many events; ``None`` for no end.
    :param wait_seconds: end after so many seconds without an event; ``None`` for never.
    """
    watching = _Watching(stream, beginning, count=count, wait_seconds=wait_seconds)
    try:
        async with Client(url, token=token) as client:
            code = await until_stopped(stop, watching.run(client))
    except CircuitBreakerError as error:
        watching.print_end("with an error")
        advice = "; give a token: --token, or CIRCUIT_BREAKER_TOKEN"
        print_error(f"{error}{advice if isinstance(error, AuthenticationFailed) and token is None else ''}")
        return exit_code_of(error, live=watching.is_live)
    if code is None:
        watching.print_end("interrupted")
        return ExitCode.INTERRUPTED
    return code


@final
class _Watching:
    """One stream from its connection to its end."""

    def __init__(
        self, stream: Watched, beginning: Beginning, *, count: int | None, wait_seconds: float | None
    ) -> None:
        self._stream = stream
        self._beginning = beginning
        self._count = count
        self._wait_seconds = wait_seconds
        self._shown = 0
        self.is_live = False

    async def run(self, client: Client) -> ExitCode:
        subscription = await self._beginning.applied(self._stream.builder(client)).subscribe()
        print_marker("connected", redacted(client.url))
        print_marker("live", self._stream)
        self.is_live = True

        def tell_error(error: CircuitBreakerError) -> None:
            if subscription.state is SubscriptionState.RECONNECTING:
                print_marker("reconnecting", error)

        def tell_state(state: SubscriptionState) -> None:
            if state is SubscriptionState.LIVE:
                print_marker("live", f"again: {self._stream}")

        subscription.on_error(tell_error).on_state(tell_state)
        as_table = self._stream.has_table and sys.stdout.isatty()
        view: View = LiveTable(title=str(self._stream)) if as_table else JsonLines()
        try:
            why, code = await self._show(subscription, view)
        finally:
            view.close()
            await subscription.unsubscribe()
        self.print_end(why)
        return code

    async def _show(self, subscription: Subscription[Any], view: View) -> tuple[str, ExitCode]:
        """Show event after event; return why that ended."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._wait_seconds) as silence:
                async for event in subscription:
                    view.show(event)
                    self._shown += 1
                    if self._shown == self._count:
                        return "as many as asked for", ExitCode.OK
                    if self._wait_seconds is not None:
                        silence.reschedule(loop.time() + self._wait_seconds)
        except TransportError:
            raise  # some are a TimeoutError, and not that of the silence
        except TimeoutError:
            return f"no event for {self._wait_seconds:g} s", ExitCode.SILENT
        except ReaderGoneError:
            give_up_stdout()
            return "nobody reads any more", ExitCode.OK
        return "the server completed the stream", ExitCode.OK

    def print_end(self, why: str) -> None:
        """Say on stderr that the stream has ended, if it was ever live."""
        if self.is_live:
            print_marker("ended", f"{self._shown} events; {why}")

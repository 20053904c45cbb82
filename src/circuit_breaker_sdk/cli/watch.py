"""``circuit-breaker watch``: show one stream's events until it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, final

from circuit_breaker_sdk import (
    Client,
    ConnectionState,
    ConnectionStateChange,
    Continuity,
    FileCursorStore,
    Subscription,
    SubscriptionState,
)
from circuit_breaker_sdk.cli.beginnings import NOW, Beginning
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.output import JsonLines, LiveTable, RateLines, ReaderGoneError, View
from circuit_breaker_sdk.cli.requests import failed
from circuit_breaker_sdk.cli.runtime import give_up_stdout, print_marker, until_stopped
from circuit_breaker_sdk.cli.streams import Watched
from circuit_breaker_sdk.errors import CircuitBreakerError, TransportError
from circuit_breaker_sdk.urls import redacted, websocket_url

__all__ = ["view_of", "watch"]


def view_of(stream: Watched, *, field: str | None = None, raw: bool = False, rate: bool = False) -> View:
    """Make what shows the events: a live table on a terminal, else JSON lines.

    :param field: the member to show in place of the event.
    :param raw: JSON lines on a terminal too, and texts without quotes.
    :param rate: a rate each second in place of the events.
    """
    if rate:
        return RateLines()
    if stream.has_table and sys.stdout.isatty() and field is None and not raw:
        return LiveTable(title=str(stream))
    return JsonLines(field=field, raw=raw)


async def watch(
    stop: asyncio.Event,
    stream: Watched,
    *,
    url: str | Sequence[str],
    token: str | None,
    beginning: Beginning = NOW,
    count: int | None,
    wait_seconds: float | None,
    view: Callable[[Watched], View] = view_of,
    place: Path | None = None,
) -> int:
    """Show the stream's events until it ends, and tell by the status why it did.

    stdout holds the events: a live table on a terminal, else one JSON object a line, each written at once.
    stderr says when the stream is connected, live, reconnecting and ended. A reader of stdout that goes away
    is a good end.

    :param url: the server, or the servers of a cluster in order of preference.
    :param beginning: where it begins.
    :param count: end after so many events; ``None`` for no end.
    :param wait_seconds: end after so many seconds without an event; ``None`` for never.
    :param view: makes what shows the events.
    :param place: the file that keeps how far the events were shown; they go on from there.
    """
    watching = _Watching(
        stream,
        beginning,
        servers=(url,) if isinstance(url, str) else url,
        count=count,
        wait_seconds=wait_seconds,
        view=view,
        place=place,
    )
    store = None if place is None else FileCursorStore(place)
    try:
        async with Client(url, token=token, cursor_store=store) as client:
            code = await until_stopped(stop, watching.run(client))
    except CircuitBreakerError as error:
        watching.print_end("with an error")
        return failed(error, token, live=watching.is_live)
    if code is None:
        watching.print_end("interrupted")
        return ExitCode.INTERRUPTED
    return code


@final
class _Watching:
    """One stream from its connection to its end."""

    def __init__(
        self,
        stream: Watched,
        beginning: Beginning,
        *,
        servers: Sequence[str],
        count: int | None,
        wait_seconds: float | None,
        view: Callable[[Watched], View],
        place: Path | None,
    ) -> None:
        self._stream = stream
        self._beginning = beginning
        self._servers = servers
        self._server = servers[0]
        self._count = count
        self._wait_seconds = wait_seconds
        self._view = view
        self._place = place
        self._shown = 0
        self.is_live = False

    async def run(self, client: Client) -> ExitCode:
        builder = self._beginning.applied(self._stream.builder(client))
        if self._place is not None:
            builder = builder.cursor_key(str(self._stream))
        client.on_connection_state(self._tell_server)
        subscription = await builder.subscribe()
        print_marker("connected", redacted(self._server))
        print_marker("live", self._stream)
        self.is_live = True

        def tell_error(error: CircuitBreakerError) -> None:
            if subscription.state is SubscriptionState.RECONNECTING:
                print_marker("reconnecting", error)

        def tell_state(state: SubscriptionState) -> None:
            if state is SubscriptionState.LIVE:
                print_marker("live", f"again: {self._stream}")
                if subscription.continuity is Continuity.UNKNOWN:
                    print_marker("gap", "events may be missing: the server does not resume from a cursor")

        subscription.on_error(tell_error).on_state(tell_state)
        view = self._view(self._stream)
        try:
            why, code = await self._show(subscription, view)
        finally:
            view.close()
            await subscription.unsubscribe()
        self.print_end(why)
        return code

    def _tell_server(self, change: ConnectionStateChange) -> None:
        """Say on stderr when the stream has gone over to another server."""
        if change.now is not ConnectionState.CONNECTED:
            return
        before = self._server
        self._server = next(
            (each for each in self._servers if redacted(websocket_url(each)) == change.url), before
        )
        if self.is_live and self._server != before:
            print_marker("connected", redacted(self._server))

    async def _show(self, subscription: Subscription[Any], view: View) -> tuple[str, ExitCode]:
        """Show event after event; return why that ended."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._wait_seconds) as silence:
                async for event, shown in self._events(subscription):
                    view.show(event)
                    self._shown += 1
                    await shown()
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

    async def _events(
        self, subscription: Subscription[Any]
    ) -> AsyncIterator[tuple[Any, Callable[[], Awaitable[None]]]]:
        """Yield each event, and what to call once it is shown."""
        if self._place is None:
            async for event in subscription:
                yield event, _nothing
        else:
            async for pending in subscription.acknowledged():
                yield pending.value, pending.ack

    def print_end(self, why: str) -> None:
        """Say on stderr that the stream has ended, if it was ever live."""
        if self.is_live:
            print_marker("ended", f"{self._shown} events; {why}")


async def _nothing() -> None:
    """Do nothing: no place is kept."""

"""A canary: folds the event log of a running cluster with this release, and serves nothing.

A record that this release cannot fold stops the canary, and not the cluster.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import final

from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.engine.state_projector import RecordNotApplied
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.log.event_log import LogError, Record
from circuit_breaker_server.log_parts import open_log
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import RecordNotAppliedError, ServerStartError

__all__ = ["Canary"]


@final
class Canary:
    """Follows the log that the settings name. It joins no cluster, owns nothing, and writes nothing.

    Example::

        async with asyncio.timeout(60):
            canary = await Canary.start(settings)
            await canary.wait()
    """

    def __init__(self, parts: AsyncExitStack) -> None:
        """Use :meth:`start`."""
        self._parts = parts
        self._stopped = asyncio.Event()
        self.failure: str | None = None
        """Why it stopped by itself: a record that could not be applied, or a log that has ended."""
        self.offset = 0
        """The offset up to which the log is folded."""

    @classmethod
    async def start(cls, settings: ServerSettings) -> Canary:
        """Fold the log, and follow it from then on.

        :raises RecordNotAppliedError: a record that is there cannot be applied.
        :raises ServerStartError: the log cannot be opened, or is one that no other server has.
        """
        if not settings.cluster.urls:
            raise ServerStartError("a canary follows the log of other servers: name it with --log")
        async with AsyncExitStack() as parts:
            try:
                log = await open_log(parts, settings, Instruments())
                canary = cls(parts)
                log.on_end(canary._fail)
                engine = Engine(log, node=f"{settings.cluster.node}-canary", audit=canary._follow)
                engine.on_failure(canary._fail)
                parts.push_async_callback(engine.aclose)
                await engine.follow_only()
            except RecordNotApplied as error:
                raise RecordNotAppliedError(str(error)) from error
            except LogError as error:
                raise ServerStartError(str(error)) from error
            canary.offset = log.last_offset
            canary._parts = parts.pop_all()
        return canary

    async def wait(self) -> None:
        """Wait until it has stopped by itself."""
        await self._stopped.wait()

    async def aclose(self) -> None:
        """Follow no more."""
        await self._parts.aclose()

    def _follow(self, record: Record) -> None:
        derive(record)
        self.offset = record.offset

    def _fail(self, failure: LogError) -> None:
        self.failure = str(failure)
        self._stopped.set()

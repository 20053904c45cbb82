"""A cell of the table: one scenario of one client with one server, and how it went."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import final

__all__ = ["PATIENCE_SECONDS", "NotOk", "NotPossible", "Table", "require", "until"]

PATIENCE_SECONDS = 20.0


class NotOk(Exception):
    """The scenario did not go as it should; the text says why."""


class NotPossible(Exception):
    """The scenario cannot be run here; the text says why."""


def require(condition: object, why: str) -> None:
    """Require that something holds.

    :raises NotOk: it does not.
    """
    if not condition:
        raise NotOk(why)


async def until(condition: Callable[[], object], why: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for a condition.

    :raises NotOk: it does not come to hold in time; ``why`` says what did not happen.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        require(time.monotonic() < deadline, f"{why}, within {seconds:g} s")
        await asyncio.sleep(0.005)


@final
class Table:
    """Runs cells, and prints a line of JSON for each.

    :ivar counts: how many went which way.

    Example::

        await table.run("graphql-sse", "ours", "five cuts", five_cuts(world))
    """

    def __init__(self) -> None:
        self.counts = Counter({"ok": 0, "not ok": 0, "not possible": 0})

    async def run(self, client: str, server: str, scenario: str, cell: Awaitable[object]) -> None:
        """Run a cell, and print how it went."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(3 * PATIENCE_SECONDS):
                await cell
            outcome = "ok"
        except NotPossible as error:
            outcome = f"not possible ({error})"
        except Exception as error:
            logging.getLogger(__name__).debug("not ok", exc_info=error)
            outcome = f"not ok ({str(error) or type(error).__name__})"
        self.counts[outcome.partition(" (")[0]] += 1
        seconds = round(time.monotonic() - began, 1)
        line = {"client": client, "server": server, "scenario": scenario}
        sys.stdout.write(json.dumps({**line, "outcome": outcome, "seconds": seconds}) + "\n")
        sys.stdout.flush()

"""Lead the lives of the demo's resources: create them, execute their activities, one worker a resource."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import final

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.ledger import Ledger
from circuit_breaker_sdk.cli.scenario import Scenario, Step
from circuit_breaker_sdk.errors import CircuitBreakerError, OperationError

__all__ = ["RuleNotKeptError", "Runs"]

_WORKERS_PER_WORKFLOW = 4
_REFUSED = "ACTIVITY_NOT_ALLOWED"


class RuleNotKeptError(CircuitBreakerError):
    """The server executed an activity that the workflow's rules forbid.

    :ivar activity: what it executed.
    :ivar state: the state the resource was in.
    """

    def __init__(self, activity: str, state: str) -> None:
        self.activity = activity
        self.state = state
        super().__init__(activity, state)

    def __str__(self) -> str:
        return f"the server executed {self.activity!r} in state {self.state!r}, which the workflow forbids"


@final
class Runs:
    """The runs of all workflows, several resources at a time each.

    :param stop: once it is set no new mutation is sent; those under way are waited for.
    """

    def __init__(self, client: Client, ledger: Ledger, stop: asyncio.Event) -> None:
        self._client = client
        self._ledger = ledger
        self._stop = stop

    async def lead(self, scenarios: dict[str, Scenario]) -> None:
        """Lead one life after the other until stopped; raise the first error.

        :param scenarios: by the id of the workflow that was created for it.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for workflow_id, scenario in scenarios.items():
                    numbers = count()
                    for _ in range(_WORKERS_PER_WORKFLOW):
                        group.create_task(self._work(workflow_id, scenario, numbers))
        except* CircuitBreakerError as failed:
            # One line on the terminal: the first says it, the others are its echo.
            raise failed.exceptions[0] from None

    async def _work(self, workflow_id: str, scenario: Scenario, numbers: Iterator[int]) -> None:
        while not self._stop.is_set():
            number = next(numbers)
            life = scenario.life(number)
            ticket = self._ledger.send()
            resource = await self._client.workflows.create_resource(
                workflow_id=workflow_id, data=life.data, metadata=life.metadata
            )
            self._ledger.accepted(ticket, resource)
            state = resource.state
            for index, step in enumerate(life.steps):
                await self._pause(_pause_seconds(number, index))
                if self._stop.is_set():
                    return
                state = await self._take(resource.id, state, step)

    async def _take(self, resource_id: str, state: str, step: Step) -> str:
        """Execute a step's activity and return the state it leads to."""
        ticket = self._ledger.send()
        try:
            resource = await self._client.workflows.execute_activity(
                resource_id=resource_id, activity_id=step.activity, data=step.data
            )
        except OperationError as error:
            if not (step.must_be_refused and error.code == _REFUSED):
                raise
            self._ledger.refused(ticket)
            return state
        if step.must_be_refused:
            raise RuleNotKeptError(step.activity, state)
        self._ledger.accepted(ticket, resource)
        return resource.state

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def _pause_seconds(number: int, index: int) -> float:
    """Spread the steps between 40 and 160 ms, always the same for the same step."""
    return (40 + (number * 37 + index * 53) % 120) / 1_000

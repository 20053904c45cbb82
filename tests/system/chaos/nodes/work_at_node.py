"""Runs and completions that are begun at one node, to which something is done in that moment."""

from __future__ import annotations

import asyncio
from typing import Final, final

from tests.system.chaos.nodes.node_stage import NodeStage
from tests.system.chaos.world import ServerProcess

__all__ = ["AT_ONCE", "WorkAtNode"]

AT_ONCE: Final = 4
"""So many runs, and so many completions."""
_LONGEST_MOMENT_SECONDS: Final = 0.05


@final
class WorkAtNode:
    """Four runs and four completions that are under way at a node."""

    def __init__(self, stage: NodeStage, node: ServerProcess, resources: list[tuple[int, str]]) -> None:
        work = self._work = stage.work
        self._resources = resources
        self._asked = [work.number() for _ in range(AT_ONCE)]
        self._starts = [
            asyncio.create_task(work.trigger_at(node.url, number, id_)) for number, id_ in resources
        ]
        self._asks = [asyncio.create_task(work.complete_at(node.url, number)) for number in self._asked]
        self._moment = stage.world.random.uniform(0.0, _LONGEST_MOMENT_SECONDS)

    @classmethod
    async def begun(cls, stage: NodeStage, node: ServerProcess) -> WorkAtNode:
        """Send everything to the node."""
        made = await asyncio.gather(*(stage.work.resource() for _ in range(AT_ONCE)))
        return cls(stage, node, [(number, id_) for number, id_ in made if id_ is not None])

    async def until_answered(self) -> None:
        """Wait until the first start of a run is answered."""
        await asyncio.wait(self._starts, return_when=asyncio.FIRST_COMPLETED)

    async def any_moment(self) -> None:
        """Wait for up to 50 ms, by chance."""
        await asyncio.sleep(self._moment)

    async def settle(self) -> int:
        """Send all of it again, to any node, until it is answered; count what the one node has answered."""
        answers = await asyncio.gather(*self._starts)
        await asyncio.gather(*self._asks)
        await asyncio.gather(*(self._work.trigger(number, id_) for number, id_ in self._resources))
        await asyncio.gather(*(self._work.complete(number) for number in self._asked))
        return sum(answers)

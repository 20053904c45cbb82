"""What the log says at the end: runs, completions and sessions have one end each; who was declared gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final, final

from circuit_breaker_server.engine.agents import records as of_agents
from circuit_breaker_server.engine.llm import records as of_llm
from circuit_breaker_server.engine.mcp import records as of_mcp
from circuit_breaker_server.engine.nodes import records as of_nodes
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.system.chaos.result import Result

__all__ = ["Ends", "read_log", "until_ended"]

_LOOK_SECONDS: Final = 1.0
_SHOWN: Final = 3


@final
class Ends:
    """What has begun and what has ended, as counted in records.

    :ivar begun: how often each run or completion was begun, by its id.
    :ivar kinds: ``run``, ``completion`` or ``session``, by its id.
    :ivar started: how often each run says that it has started.
    :ivar ended: how often each has ended.
    :ivar behind: records of runs and completions that came after their end.
    :ivar sessions: how many sessions were begun; each is ended by a timer, once.
    :ivar interrupted: how many have ended because they had lost their node.
    :ivar triggers: records that begin runs, by the resource.
    :ivar gone: names of the nodes that were declared gone, each time.
    :ivar joined: names of the nodes that joined, each time.
    :ivar clocks: by how many seconds the clock of each node was ahead of the brokers' when it joined.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.kinds: dict[str, str] = {}
        self.started: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.behind: list[str] = []
        self.sessions = 0
        self.interrupted = 0
        self.triggers: Counter[str] = Counter()
        self.gone: list[str] = []
        self.joined: list[str] = []
        self.clocks: dict[str, float] = {}

    @classmethod
    def of(cls, records: Iterable[Record]) -> Ends:
        """Count them in the records of a log."""
        ends = cls()
        for record in records:
            match record.subject.split(".", 1)[0]:
                case "trigger" | "execution":
                    ends._count_run(of_agents.decode_body(record))
                case "completion":
                    ends._count_completion(of_llm.decode_body(record))
                case "mcp":
                    ends._count_session(of_mcp.decode_body(record))
                case "node":
                    ends._count_node(of_nodes.decode_body(record), record.time_ms)
        return ends

    @property
    def open(self) -> list[str]:
        """What has begun and not ended."""
        return sorted(self.begun.keys() - self.ended.keys())

    def _count_run(self, body: of_agents.Body) -> None:
        match body:
            case of_agents.AgentsTriggered():
                self.triggers[body.resource_id] += 1
                self._begin("run", *(run.id for run in body.runs))
            case of_agents.ExecutionStarted():
                self._follows(body.execution_id)
                self.started[body.execution_id] += 1
            case of_agents.ExecutionProgressed():
                self._follows(body.execution_id)
            case of_agents.ExecutionEnded():
                self.ended[body.execution_id] += 1
                self.interrupted += (body.error or "").startswith("interrupted")

    def _count_completion(self, body: of_llm.Body) -> None:
        match body:
            case of_llm.CompletionRequested():
                self._begin("completion", body.request_id)
            case of_llm.CompletionStarted() | of_llm.PiecesAdded():
                self._follows(body.request_id)
            case of_llm.CompletionEnded():
                self.ended[body.request_id] += 1
            case of_llm.CompletionFailed():
                self.ended[body.request_id] += 1
                self.interrupted += body.error.startswith("interrupted")

    def _count_session(self, body: of_mcp.Body) -> None:
        match body:
            case of_mcp.SessionChanged(change="CREATED"):
                self.sessions += 1
                self._begin("session", body.session.id)
            case of_mcp.SessionChanged(change="EXPIRED"):
                self.ended[body.session.id] += 1
            case of_mcp.SessionChanged():
                self._follows(body.session.id)

    def _count_node(self, body: of_nodes.Body, time_ms: int) -> None:
        match body:
            case of_nodes.NodeGone():
                self.gone.append(body.name)
            case of_nodes.NodeJoined():
                self.joined.append(body.name)
                self.clocks[body.name] = datetime.fromisoformat(body.at).timestamp() - time_ms / 1000

    def _begin(self, kind: str, *ids: str) -> None:
        self.begun.update(ids)
        self.kinds.update(dict.fromkeys(ids, kind))

    def _follows(self, id_: str) -> None:
        if self.ended[id_]:
            self.behind.append(id_)

    def judge(self, result: Result) -> None:
        """Require that what was begun was begun once, started at most once, and has ended once."""
        many = [id_ for id_, count in self.begun.items() if count > 1]
        many += [id_ for id_, count in self.triggers.items() if count > 1]
        twice = [id_ for id_, count in self.ended.items() if count > 1]
        again = [id_ for id_, count in self.started.items() if count > 1]
        strange = sorted(self.ended.keys() - self.begun.keys())
        for ids, what in (
            (many, "were begun more than once"),
            (again, "have started more than once"),
            (self.open, "have no end"),
            (twice, "have more than one end"),
            (self.behind, "have records behind their end"),
            (strange, "have an end and were never begun"),
        ):
            shown = [f"{self.kinds.get(id_, '')} {id_}".strip() for id_ in ids[:_SHOWN]]
            result.require(not ids, f"{len(ids)} runs, completions or sessions {what}: {shown}")


async def read_log(urls: Iterable[str]) -> list[Record]:
    """Read all records, beside the nodes."""
    log = await JetStreamEventLog.open(",".join(urls), replicas=3, makes_streams=False)
    try:
        return [record async for record in log.scan(after=0)]
    finally:
        await log.aclose()


async def until_ended(urls: Iterable[str], seconds: float) -> Ends:
    """Wait until everything that has begun has ended, or the time is over: the judge tells."""
    brokers, deadline = tuple(urls), time.monotonic() + seconds
    while True:
        ends = Ends.of(await read_log(brokers))
        if not ends.open or time.monotonic() > deadline:
            return ends
        await asyncio.sleep(_LOOK_SECONDS)

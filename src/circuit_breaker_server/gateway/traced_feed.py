"""A feed of a peer that asked for the traces of the mutations that caused its events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import final

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.gateway.channel import Channel
from circuit_breaker_server.gateway.encoded_run import Memo, Run
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.hub import Hub
from circuit_breaker_server.gateway.peer import Frame, Peer
from circuit_breaker_server.gateway.record_traces import RecordTraces

__all__ = ["TracedFeed"]


@final
class TracedFeed(Feed):
    """Adds traces to the payloads; what it encodes is shared with other such feeds only."""

    __slots__ = ("_traces", "traces")

    def __init__(
        self,
        hub: Hub,
        peer: Peer,
        *,
        frame: Frame,
        caller: Caller,
        traces: RecordTraces,
        is_lasting: bool = True,
    ) -> None:
        super().__init__(
            hub, peer, frame=_of_its_own(frame), resume=True, caller=caller, is_lasting=is_lasting
        )
        self.traces = self._traces = traces

    def _find_run(self, channel: Channel, seq: int, memo: Memo) -> Run:
        known = len(memo)
        run = super()._find_run(channel, seq, memo)
        if len(memo) > known:
            run.payloads = self._traces.added(run.payloads, channel.offsets(seq))
        return run

    def payloads(self, channel: Channel, seq: int, *, prev: str) -> Sequence[bytes]:
        """Return the payloads of a channel from ``seq`` on."""
        found = super().payloads(channel, seq, prev=prev)
        return self._traces.added(found, channel.offsets(seq))


@lru_cache(maxsize=16)
def _of_its_own(frame: Frame) -> Frame:
    """Return another function that does the same: runs of events are told apart by it."""

    def traced(prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
        return frame(prefix_bytes, payloads)

    return traced

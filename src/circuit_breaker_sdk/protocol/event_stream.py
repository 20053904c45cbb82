"""Parse a stream of server-sent events: sans I/O (HTML Living Standard, "Parsing an event stream")."""

from __future__ import annotations

from typing import Final, NamedTuple, final

__all__ = ["EventParser", "EventTooLong", "ServerSentEvent"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event is longer than the parser may keep."""


@final
class ServerSentEvent(NamedTuple):
    """One block of a stream that has an id or data; comments are dropped.

    :ivar type: as ``next`` of GraphQL over SSE; ``message`` where the block names none.
    :ivar data: the lines of its data, joined by line ends; ``None`` without any.
    :ivar id: ``None`` where the block has none; empty where it takes the last one back.
    """

    type: str
    data: bytes | None
    id: str | None


@final
class EventParser:
    """Parses what is received, in pieces of any size.

    :param max_bytes: the longest block.

    Example::

        parser = EventParser(max_bytes=1_048_576)
        for event in parser.receive_data(b"event: next\\nid: c1\\ndata: {}\\n\\n"):
            print(event.type, event.id, event.data)
    """

    __slots__ = ("_after_return", "_begun", "_max_bytes", "_rest")

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._begun = False
        self._after_return = False

    def receive_data(self, data: bytes) -> list[ServerSentEvent]:
        """Take what was received; return the events that are complete.

        :raises EventTooLong: a block is longer than ``max_bytes``; nothing more can be parsed.
        """
        if self._after_return or b"\r" in data:
            data = self._with_line_feeds(data)
        rest = self._rest
        if rest:
            # A line end may be split; what was looked through before is not looked through again.
            looked_through = len(rest) - 1
            rest += data
            if rest.find(b"\n\n", looked_through) < 0:
                self._check(len(rest))
                return []
            data = bytes(rest)
            rest.clear()
        blocks = data.split(b"\n\n")
        last = blocks.pop()
        self._check(len(last))
        rest += last
        events = []
        for block in blocks:
            self._check(len(block))
            event = self._event(block)
            if event is not None:
                events.append(event)
        return events

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise EventTooLong(f"an event has more than {self._max_bytes} bytes")

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Write every line end as a line feed; a carriage return at the end may be half of one."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
            self._after_return = False
        if data:
            self._after_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _event(self, block: bytes) -> ServerSentEvent | None:
        if not self._begun:
            self._begun = True
            block = block.removeprefix(_BYTE_ORDER_MARK)
        kind, data, event_id = "message", None, None
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                data = value if data is None else data + b"\n" + value
            elif name == b"event":
                kind = value.decode(errors="replace")
            elif name == b"id" and b"\0" not in value:
                event_id = value.decode(errors="replace")
        if data is None and event_id is None:
            # Without data it is no event (HTML, 9.2.6). gqlgen ends streams so, as graphql-sse allows.
            return ServerSentEvent(kind, b"", None) if kind == "complete" else None
        return ServerSentEvent(kind, data, event_id)

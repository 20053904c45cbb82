"""Parse and check the request of a long poll."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, final

import msgspec

from circuit_breaker_sdk.protocol.lenient_json import json_defect, read_leniently

__all__ = ["MAX_WAIT_MS", "PollInvalid", "PollOperation", "PollRequest", "UnreadableOperation", "read_poll"]

DEFAULT_WAIT_MS: Final = 20_000
MAX_WAIT_MS: Final = 25_000
"""Below the 30 s after which proxies commonly give up on a silent request."""


class PollInvalid(Exception):
    """A request is no poll; the text says what is wrong with it."""


class UnreadableOperation(msgspec.Struct):
    """One operation of a poll that cannot be read; the others are answered.

    :ivar reason: what is wrong with it; nothing of it is repeated.
    """

    reason: str


class PollOperation(msgspec.Struct, rename="camel"):
    """One operation of a poll, as in the payload of ``subscribe``."""

    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None


@final
class PollRequest(msgspec.Struct, rename="camel"):
    """The body: the members of one operation, or ``operations``.

    :ivar wait_ms: how long to wait for something to tell, 0 to 25,000; 0 tells only what is there.

    Example::

        msgspec.json.decode(b'{"query": "subscription { … }", "waitMs": 0}', type=PollRequest)
    """

    query: str | None = None
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None
    # Each is decoded alone: one that cannot be read fails alone.
    operations: list[msgspec.Raw] | None = None
    wait_ms: int = DEFAULT_WAIT_MS

    def asked(self, *, max_operations: int) -> Sequence[PollOperation | UnreadableOperation]:
        """Return what is asked for.

        :raises PollInvalid: nothing, too much, both shapes at once, or ``waitMs`` is out of its range.
        """
        if not 0 <= self.wait_ms <= MAX_WAIT_MS:
            raise PollInvalid(f"waitMs must be 0 to {MAX_WAIT_MS} milliseconds, not {self.wait_ms}")
        if self.operations is None:
            if self.query is None:
                raise PollInvalid("a poll needs `query`, or `operations` for several")
            return [PollOperation(self.query, self.variables, self.operation_name, self.extensions)]
        single = (self.query, self.variables, self.operation_name, self.extensions)
        if any(member is not None for member in single):
            raise PollInvalid("a poll has either the members of one operation or `operations`, not both")
        if not 1 <= len(self.operations) <= max_operations:
            raise PollInvalid(
                f"a poll has 1 to {max_operations} operations, not {len(self.operations)}; send several polls"
            )
        return [_read_operation(bytes(raw)) for raw in self.operations]


_request: Final = msgspec.json.Decoder(PollRequest)
_operation: Final = msgspec.json.Decoder(PollOperation)


def read_poll(body: bytes) -> PollRequest:
    """Read a poll; what is wrong with one of several operations is for :meth:`PollRequest.asked`.

    :raises msgspec.DecodeError: the body is no poll.
    """
    try:
        return _request.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Perhaps only one of the operations holds what no value is: half a surrogate pair, or NaN.
        try:
            value = read_leniently(body)
        except (ValueError, RecursionError):
            value = None
        operations = value.get("operations") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(operations, list):
            raise
        request = _request.decode(json.dumps({**value, "operations": []}))
        request.operations = [msgspec.Raw(json.dumps(operation).encode()) for operation in operations]
        return request


def _read_operation(raw: bytes) -> PollOperation | UnreadableOperation:
    try:
        return _operation.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return UnreadableOperation(f"the operation cannot be read: {json_defect(raw) or error}")

"""What a poll asks for, and what is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import msgspec

__all__ = ["MAX_WAIT_MS", "PollInvalid", "PollOperation", "PollRequest"]

DEFAULT_WAIT_MS: Final = 20_000
MAX_WAIT_MS: Final = 25_000
"""Below the 30 s after which proxies commonly give up on a silent request."""


class PollInvalid(Exception):
    """A request is no poll; the text says what is wrong with it."""


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
    operations: list[PollOperation] | None = None
    wait_ms: int = DEFAULT_WAIT_MS

    def asked(self, *, max_operations: int) -> Sequence[PollOperation]:
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
        return self.operations

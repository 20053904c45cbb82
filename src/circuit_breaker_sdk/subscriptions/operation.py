"""The operation of one subscription: its document, and all that a builder collects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar, final

import msgspec

from circuit_breaker_sdk.config import BufferLimits
from circuit_breaker_sdk.connections import Link
from circuit_breaker_sdk.delivery.decodable_types import DecodeHook
from circuit_breaker_sdk.delivery.resume_by import ExtensionSeam, ResumeBy, ResumeByExtension, VariableSeam
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.recovery.gaps import GapHandler

__all__ = ["Operation"]

T = TypeVar("T")


@final
class Operation(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Operation of one subscription.

    :ivar type: what the root field's value is decoded to.
    :ivar decode_hook: decodes classes in ``type`` that msgspec does not know; ``None``: there are none.
    :ivar root_field: the root field's response key; ``None`` to learn it from the first event.
    :ivar filter_arguments: arguments, by their name in the schema, that select events by the attribute of
        the same name, so that a filter may set them.
    :ivar label: a short name for logs and errors.
    :ivar buffer: bounds of its buffer; ``None`` takes the client's.
    :ivar after: the cursor to begin behind; ``None`` begins now.
    :ivar begin: where to begin instead, as ``extensions.resume`` says it: ``from``, ``since`` or ``last``.
    :ivar resume: how to resume at a server with cursors of its own.
    :ivar cursor_key: the key of its cursor in the client's store; what is kept there wins over ``after``.
    :ivar on_gap: told of each gap; ``None``: a gap ends it.
    :ivar critical: whether it is polled while no WebSocket gets through; ``None`` takes the client's setting.
    :ivar snapshot: reads the present state for ``on_gap``; ``None`` takes the domain's, if there is one.
    """

    document: str
    type: type[T]
    variables: Mapping[str, object] | None = None
    operation_name: str | None = None
    decode_hook: DecodeHook | None = None
    root_field: str | None = None
    filter_arguments: frozenset[str] = frozenset()
    label: str = "subscription"
    buffer: BufferLimits | None = None
    after: str | None = None
    begin: Mapping[str, object] | None = None
    resume: ResumeBy[T] | ResumeByExtension | None = None
    cursor_key: str | None = None
    on_gap: GapHandler | None = None
    snapshot: Callable[[], Awaitable[object]] | None = None
    critical: bool | None = None

    def seam(
        self, variables: Mapping[str, object] | None, after: str | None
    ) -> VariableSeam[T] | ExtensionSeam | None:
        """Return what resumes it at a server with cursors of its own."""
        if isinstance(self.resume, ResumeByExtension):
            return ExtensionSeam(after)
        return None if self.resume is None else VariableSeam(self.resume, variables)

    def extensions(self, link: Link, *, after: str | None) -> dict[str, object] | None:
        """Return the extensions of its first request, behind a cursor or where it begins.

        :raises UsageError: the link's server cannot begin there.
        """
        if after is not None:
            return {"resume": {"after": after}}
        if self.begin is not None and not link.resume_negotiated:
            raise UsageError("from_beginning, since and last need a server that speaks the resume protocol")
        return None if self.begin is None else {"resume": self.begin}

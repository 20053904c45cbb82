# Written by scripts/generate_sdk.py from the server's schema: change that, then `make generate`.
"""Types of several domains: results, events and inputs."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from circuit_breaker_sdk.events.base import JSON, Event, Input

__all__ = [
    "ApiResponse",
    "AuditInfo",
    "PageInfo",
    "PaginationInput",
]

_NULL = msgspec.Raw(b"null")


class PageInfo(Event, frozen=True, kw_only=True):
    """Position of a page in its list (``PageInfo``).

    :ivar start_cursor: Of the page's first item; null of an empty page.
    :ivar end_cursor: Of the page's last item; null of an empty page.
    :ivar total_count: Of the whole list.
    """

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None = None
    end_cursor: str | None = None
    total_count: int | None = None


class PaginationInput(Input, frozen=True, kw_only=True):
    """The first 100 items if nothing is given (``PaginationInput``).

    :ivar first: The number of items from the beginning or from ``after``; 0 to 100.
    :ivar last: The number of items up to the end or to ``before``; 0 to 100. Not together with ``first``.
    """

    first: int | UnsetType | None = UNSET
    after: str | UnsetType | None = UNSET
    last: int | UnsetType | None = UNSET
    before: str | UnsetType | None = UNSET


class ApiResponse(Event, frozen=True, kw_only=True):
    """The outcome of a mutation that answers nothing else (``ApiResponse``).

    :ivar success: Always true: what fails is an error.
    :ivar error_code: Always null.
    """

    success: bool
    message: str
    error_code: str | None = None
    _data: msgspec.Raw = msgspec.field(name="data", default=_NULL)

    @property
    def data(self) -> JSON:
        """The ``data``, decoded on first access."""
        return self._json("_data")


class AuditInfo(Event, frozen=True, kw_only=True):
    """When something came to be, and how often it changed (``AuditInfo``).

    :ivar created_by: Always null: the server does not know its callers.
    :ivar updated_by: Always null, as ``createdBy``.
    :ivar version: 1 when made; one more with each change of its settings.
    """

    created_at: datetime
    updated_at: datetime
    version: int
    created_by: str | None = None
    updated_by: str | None = None

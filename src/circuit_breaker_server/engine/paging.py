"""Pages of long lists, as the schema's connections have them."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

import msgspec

from circuit_breaker_server.engine.command import Value
from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.validation import refuse

__all__ = ["MAX_PAGE", "PAGE_ITEMS", "Pagination", "cursor_of", "page_of", "place_of"]

MAX_PAGE: Final = 100
"""Items of a page of a connection."""
PAGE_ITEMS: Final = 1_000
"""Items of a list that takes ``first`` and ``after``, at most and by default."""

_T = TypeVar("_T")
_PLACE = re.compile(rb"at:(\d{1,18})")


@final
class Pagination(msgspec.Struct, frozen=True, kw_only=True):
    """``PaginationInput``."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


def page_of(
    items: Sequence[_T],
    given: Pagination | None,
    *,
    place: Callable[[_T], int],
    node: Callable[[_T], Value],
) -> Value:
    """Return a connection: one page of the items.

    :param items: in the order of their places.
    :param place: of an item; never changes, so that a cursor outlives what is added and removed.
    :param node: makes the value of an item; called for those of the page only.
    :raises EngineError: ``INVALID_INPUT``.
    """
    given = given or Pagination()
    if given.first is not None and given.last is not None:
        refuse("pagination: first and last do not go together")
    for name, number in (("first", given.first), ("last", given.last)):
        if number is not None and not 0 <= number <= MAX_PAGE:
            refuse(f"pagination.{name}: {number} is not between 0 and {MAX_PAGE}")
    after, before = _place(given.after, "after"), _place(given.before, "before")
    found = [
        item
        for item in items
        if (after is None or place(item) > after) and (before is None or place(item) < before)
    ]
    if given.last is None:
        page = found[: MAX_PAGE if given.first is None else given.first]
    else:
        page = found[max(0, len(found) - given.last) :]
    edges = [{"node": node(item), "cursor": cursor_of(place(item))} for item in page]
    beside = [place(item) for item in page]
    return {
        "edges": edges,
        "pageInfo": {
            "hasNextPage": bool(beside) and place(items[-1]) > beside[-1],
            "hasPreviousPage": bool(beside) and place(items[0]) < beside[0],
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": edges[-1]["cursor"] if edges else None,
            "totalCount": len(items),
        },
        "totalCount": len(items),
    }


def cursor_of(place: int) -> str:
    """Write the cursor of a place."""
    return urlsafe_b64encode(b"at:%d" % place).decode()


def _place(cursor: str | None, where: str) -> int | None:
    if cursor is None:
        return None
    try:
        return place_of(cursor)
    except ValueError:
        refuse(f"pagination.{where}: {shown(cursor)} is no cursor of a page")


def place_of(cursor: str) -> int:
    """Read what :func:`cursor_of` writes.

    :raises ValueError: the text is no cursor of a page.
    """
    found = _PLACE.fullmatch(urlsafe_b64decode(cursor))
    if found is None:
        raise ValueError("not a cursor of a page")
    return int(found[1])

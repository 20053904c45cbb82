"""Cursors of pages: the engine's tell the offset of an item's record, so those that go out are sealed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.paging import cursor_of, place_of
from circuit_breaker_server.engine.validation import refuse

__all__ = ["opened", "sealed"]

_GIVEN: Final = ("after", "before")
_TOLD: Final = ("startCursor", "endCursor")


def opened(cursors: Cursors, arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Put the engine's own cursors into the arguments of a page, in place of those that a client holds.

    :raises EngineError: ``INVALID_INPUT``: one of them was not written here.
    """
    given = arguments.get("pagination")
    if not cursors.is_sealed or not isinstance(given, Mapping):
        return arguments
    pagination = dict(given)
    for name in _GIVEN:
        text = pagination.get(name)
        if text is None:
            continue
        try:
            pagination[name] = cursor_of(cursors.open_place(str(text)))
        except ValueError:
            refuse(f"pagination.{name}: {shown(str(text))} is no cursor of a page")
    return {**arguments, "pagination": pagination}


def sealed(cursors: Cursors, page: object) -> object:
    """Put cursors that tell nothing into a page."""
    if not cursors.is_sealed:
        return page
    told = cast("dict[str, Any]", page)  # Any: an answer is JSON

    def seal(text: str) -> str:
        return cursors.seal_place(place_of(text))

    info = told["pageInfo"]
    return {
        **told,
        "edges": [{**edge, "cursor": seal(edge["cursor"])} for edge in told["edges"]],
        "pageInfo": {
            **info,
            **{name: None if info[name] is None else seal(info[name]) for name in _TOLD},
        },
    }

"""Checks for all inputs; each refuses with ``INVALID_INPUT`` and names the place in the input."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NoReturn

import msgspec

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.json_values import InvalidJSON, check_json, encode
from circuit_breaker_server.outbound.addresses import AddressRefused, AddressRules, host_of

__all__ = [
    "check_count",
    "check_description",
    "check_name",
    "check_peer",
    "check_range",
    "check_unique",
    "check_url",
    "encoded_object",
    "json_kind",
    "json_object",
    "refuse",
]

MAX_NAME = 256
MAX_DESCRIPTION = 10_000


def refuse(message: str, **facts: object) -> NoReturn:
    """Raise ``INVALID_INPUT``."""
    raise EngineError(ErrorCode.INVALID_INPUT, message, **facts)


def json_object(value: object, what: str, *, max_bytes: int) -> dict[str, object]:
    """Check that a JSON value is an object of bounded size; ``None`` stands for an empty one."""
    encoded_object(value, what, max_bytes=max_bytes)
    return value if isinstance(value, dict) else {}


def encoded_object(value: object, what: str, *, max_bytes: int) -> msgspec.Raw:
    """Check as :func:`json_object` does, and return the object as it is written."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        refuse(f"{what} must be an object, not {json_kind(value)}")
    try:
        check_json(value)
    except InvalidJSON as error:
        refuse(f"{what}.{error}")
    encoded = encode(value)
    size = memoryview(encoded).nbytes
    if size > max_bytes:
        refuse(f"{what} takes {size} bytes as JSON; at most {max_bytes} are allowed")
    return encoded


def check_name(text: str, where: str) -> None:
    """Refuse a name that is empty, too long, or has characters that cannot be printed."""
    if not text.strip():
        refuse(f"{where}: must not be empty")
    if len(text) > MAX_NAME:
        refuse(f"{where}: {len(text)} characters; at most {MAX_NAME} are allowed")
    if not text.isprintable():
        refuse(f"{where}: {shown(text)} has characters that cannot be printed")


def check_description(text: str | None, where: str) -> None:
    """Refuse a description that is too long."""
    if text is not None and len(text) > MAX_DESCRIPTION:
        refuse(f"{where}: {len(text)} characters; at most {MAX_DESCRIPTION} are allowed")


def check_count(items: Collection[object], most: int, where: str) -> None:
    """Refuse too many items."""
    if len(items) > most:
        refuse(f"{where}: {len(items)} of them; at most {most} are allowed")


def check_unique(ids: Iterable[str], where: str) -> None:
    """Refuse an id that is there twice."""
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            refuse(f"{where}: {shown(each)} is there twice")
        seen.add(each)


def check_range(number: float | None, least: float, most: float, where: str) -> None:
    """Refuse a number outside a range; ``None`` is in every range."""
    if number is not None and not least <= number <= most:
        refuse(f"{where}: {number:g} is not between {least:g} and {most:g}")


def check_url(text: str, where: str) -> None:
    """Refuse what is no absolute http or https URL, well formed as a whole, or has credentials in it."""
    try:
        host_of(text)
    except ValueError as error:
        refuse(f"{where}: {error}")


def check_peer(url: str, rules: AddressRules, where: str) -> None:
    """Refuse a URL with an address that the server may not connect to; a name is checked when it connects."""
    check_url(url, where)
    try:
        rules.check_host(host_of(url))
    except AddressRefused as error:
        refuse(f"{where}: {error}")


def json_kind(value: object) -> str:
    """Name what a JSON value is, for a message."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "something that is not JSON"

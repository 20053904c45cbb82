"""Read the headers of a request, without the framework's mapping: some are looked for in each request."""

from __future__ import annotations

from starlette.requests import Request

__all__ = ["header", "header_values"]


def header(request: Request, name: bytes) -> str | None:
    """Return a header, the first of that name; ``None`` for none.

    :param name: in lower case.
    """
    for each, value in request.scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return None


def header_values(request: Request, name: bytes) -> list[str]:
    """Return all headers of a name.

    :param name: in lower case.
    """
    return [str(value, "latin-1") for each, value in request.scope["headers"] if each == name]

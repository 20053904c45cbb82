"""A GraphQL request over HTTP, as the body of a ``POST`` or in the URL of a ``GET``.

GraphQL over HTTP, draft of 2023 and later, sections "POST" and "GET".
"""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import parse_qs

import msgspec

from circuit_breaker_sdk.protocol.json_depth import check_depth

__all__ = ["GraphQLRequest", "RequestInvalid", "names_query", "read_body", "read_url"]

_MAX_FIELDS: Final = 32
_QUERY: Final = re.compile(rb"(?:^|&)query=")


class RequestInvalid(Exception):
    """It is no GraphQL request; the text says why."""


@final
class GraphQLRequest(msgspec.Struct, rename={"operation_name": "operationName"}):
    """The parameters of a request."""

    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None


read_body: Final = msgspec.json.Decoder(GraphQLRequest).decode
"""Reads a body. Raises ``msgspec.DecodeError``."""

_object: Final[msgspec.json.Decoder[dict[str, object] | None]] = msgspec.json.Decoder(
    dict[str, object] | None
)


def names_query(query_string: bytes) -> bool:
    """Tell whether a URL has a query of GraphQL in it."""
    return _QUERY.search(query_string) is not None


def read_url(query_string: bytes) -> GraphQLRequest:
    """Read what stands behind the question mark of a URL; parameters of other names are ignored.

    :raises RequestInvalid: a parameter stands there twice, is not UTF-8, or is not JSON where it should be.
    """
    try:
        given = parse_qs(
            query_string.decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise RequestInvalid("the URL's parameters are not UTF-8") from None
    except ValueError:
        raise RequestInvalid(f"the URL has more than {_MAX_FIELDS} parameters") from None
    for name in ("query", "variables", "operationName", "extensions"):
        if len(given.get(name, ())) > 1:
            raise RequestInvalid(f"the URL has the parameter {name} more than once")
    return GraphQLRequest(
        given["query"][0],
        _read_object(given, "variables"),
        next(iter(given.get("operationName", ())), None) or None,
        _read_object(given, "extensions"),
    )


def _read_object(given: dict[str, list[str]], name: str) -> dict[str, object] | None:
    text = next(iter(given.get(name, ())), "")
    if not text:
        return None
    try:
        raw = text.encode()
        check_depth(raw)
        return _object.decode(raw)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise RequestInvalid(f"the URL's parameter {name} is not a JSON object: {error}") from None

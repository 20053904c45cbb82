"""The options that every command with a server has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

__all__ = ["ADVICE_WITHOUT_CREDENTIALS", "DEFAULT_URL", "DEFAULT_URLS", "Token", "Urls", "only_url"]

DEFAULT_URL: Final = "ws://localhost:4000/graphql"
DEFAULT_URLS: Final = [DEFAULT_URL]

ADVICE_WITHOUT_CREDENTIALS: Final = "give a token: --token, or CIRCUIT_BREAKER_TOKEN"

Urls = Annotated[
    list[str],
    typer.Option(
        "--url",
        envvar="CIRCUIT_BREAKER_URL",
        help="The server: ws, wss, http or https; may be repeated: the servers of a cluster.",
    ),
]

Token = Annotated[
    str | None,
    typer.Option(envvar="CIRCUIT_BREAKER_TOKEN", help="Bearer token, where the server wants one."),
]


def only_url(urls: Sequence[str]) -> str:
    """Return the URL of a command that asks one server.

    :raises typer.BadParameter: there are several.
    """
    if len(urls) != 1:
        raise typer.BadParameter(f"this command asks one server: give one URL, not {len(urls)}")
    return urls[0]

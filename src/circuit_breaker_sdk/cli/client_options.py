"""The options that every command with a server has."""

from __future__ import annotations

from typing import Annotated, Final

import typer

__all__ = ["ADVICE_WITHOUT_CREDENTIALS", "DEFAULT_URL", "Token", "Url"]

DEFAULT_URL: Final = "ws://localhost:4000/graphql"

ADVICE_WITHOUT_CREDENTIALS: Final = "give a token: --token, or CIRCUIT_BREAKER_TOKEN"

Url = Annotated[str, typer.Option(envvar="CIRCUIT_BREAKER_URL", help="The server: ws, wss, http or https.")]

Token = Annotated[
    str | None,
    typer.Option(envvar="CIRCUIT_BREAKER_TOKEN", help="Bearer token, where the server wants one."),
]

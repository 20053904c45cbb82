"""``circuit-breaker token``: a secret and tokens signed with it, to try a server that asks for them."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.keys import duration
from circuit_breaker_sdk.cli.runtime import print_error, print_marker
from circuit_breaker_sdk.errors import UsageError

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    help="Tokens for tests: make a secret, sign a token with it. In production an issuer of yours does that.",
    epilog=help_end("security.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SECRET_BYTES: Final = 32


@app.command(epilog=help_end("security.md"))
def key(
    file: Annotated[Path, typer.Argument(help="Made, for its owner only.", show_default=False)],
) -> None:
    """Make a secret for `serve --token-key-file` and `token make`; an existing file is left alone.

    circuit-breaker token key token.key

    circuit-breaker serve --token-key-file token.key
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        print_error(f"{file}: {error.strerror}")
        raise typer.Exit(ExitCode.UNREACHABLE) from error
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(secrets.token_hex(_SECRET_BYTES))
    print_marker("created", f"the secret {file}")


@app.command(epilog=help_end("security.md"))
def make(
    *,
    key_file: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The secret, or the private key (PEM or JWK).", show_default=False),
    ],
    subject: Annotated[str, typer.Option(help="Who asks with it: `sub`.", show_default=False)],
    expires_in: Annotated[str, typer.Option(metavar="TIME", help="How long it is good for, as 90d.")] = "1h",
    algorithm: Annotated[str, typer.Option(help="HS256, RS256, ES256 or EdDSA.")] = "HS256",
    issuer: Annotated[str | None, typer.Option(help="`iss`, where the server wants one.")] = None,
    audience: Annotated[str | None, typer.Option(help="`aud`, where the server wants one.")] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another claim: JSON, or any other text; may be repeated."),
    ] = None,
) -> None:
    """Sign a token. stdout has its text and nothing else.

    circuit-breaker token make --key-file token.key --subject user-7

    circuit-breaker token make --key-file token.key --subject ada --expires-in 8h --claim tenant=acme
    """
    from circuit_breaker_sdk.cli.documents import read_variables  # noqa: PLC0415 (slow to load)

    try:
        claims: dict[str, Any] = dict(read_variables(claim or ()))
        seconds = duration(expires_in)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    now = int(time.time())
    claims |= {"sub": subject, "iat": now, "exp": now + seconds}
    claims |= {name: value for name, value in (("iss", issuer), ("aud", audience)) if value is not None}
    sys.stdout.write(_signed(key_file, algorithm, claims) + "\n")


def _signed(file: Path, algorithm: str, claims: dict[str, Any]) -> str:
    # Here, not above: the server is an extra.
    from circuit_breaker_server.security.signing_keys import KeyUnusable  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.security.token_signing import sign  # noqa: PLC0415 (as above)

    try:
        return sign(claims, file.read_bytes(), algorithm)
    except OSError as error:
        print_error(f"{file}: {error.strerror}")
    except KeyUnusable as error:
        print_error(f"{file}: {error}")
    raise typer.Exit(ExitCode.UNREACHABLE)

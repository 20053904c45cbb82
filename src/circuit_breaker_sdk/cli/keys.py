"""``circuit-breaker keys``: make, list and revoke API keys, also while the server runs."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.runtime import one_line, print_error, print_marker
from circuit_breaker_sdk.cli.server_place import (
    ConfigOption,
    DataOption,
    LogOption,
    ServerPlace,
    SetOption,
    opened_bucket,
    server_place,
)
from circuit_breaker_sdk.errors import UsageError

if TYPE_CHECKING:
    from circuit_breaker_server.security.api_key_file import ApiKeyFile
    from circuit_breaker_server.security.api_key_records import ApiKey
    from circuit_breaker_server.security.shared_api_keys import BucketApiKeys

__all__ = ["app"]

T = TypeVar("T")

app: typer.Typer = typer.Typer(
    help="API keys: make, list, revoke. A running server sees it within a second.",
    epilog=help_end("security.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_LONGEST_SECONDS: Final = 36_525 * 86_400

_OTHER_LINES: Final = "keep the other lines of the cluster key as long as cursors of before are to be good"


def duration(text: str) -> int:
    """Read a duration as ``90d``, in seconds.

    :raises UsageError: it is none, or longer than a hundred years.
    """
    parts = _DURATION.fullmatch(text)
    seconds = 0 if parts is None else int(parts[1]) * _SECONDS[parts[2]]
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError("a duration is a number with s, m, h, d or w, as 90d, of up to a hundred years")
    return seconds


@app.command(epilog=help_end("security.md"))
def create(
    *,
    principal: Annotated[str, typer.Option(help="Who asks with it.", show_default=False)],
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long it is good for, as 90d; for ever if not given."),
    ] = None,
    data: DataOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make a key. stdout has its text and nothing else; it is shown this once, and kept nowhere.

    circuit-breaker keys create --principal billing --expires-in 90d

    circuit-breaker keys create --principal ada --label laptop --data DIR

    circuit-breaker keys create --principal ada --log nats://host:4222 --set cluster.key_file=cluster.key

    Servers that share an event log and a cluster key share their API keys too.
    """
    with _failures():
        seconds = None if expires_in is None else duration(expires_in)
        made = asyncio.run(
            _change(
                server_place(data, log, config, set_),
                lambda file: file.create(principal, label=label, expires_in_seconds=seconds),
                lambda keys: keys.create(principal, label=label, expires_in_seconds=seconds),
            )
        )
    until = "for ever" if made.key.expires_at is None else f"until {_date(made.key.expires_at)}"
    print_marker("created", f"key {made.key.id} for {principal}, {until}; its text is not shown again")
    sys.stdout.write(made.text + "\n")


@app.command(name="list", epilog=help_end("security.md"))
def list_keys(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    data: DataOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """List the keys, the oldest first, with those that have expired or were revoked; never their text.

    circuit-breaker keys list

    circuit-breaker keys list --json --data DIR
    """
    with _failures():
        keys = asyncio.run(
            _change(server_place(data, log, config, set_), lambda file: file.list(), lambda keys: keys.list())
        )
    now = time.time()
    if as_json:
        _print_json(keys, now)
        return
    rows = [("ID", "STATE", "CREATED", "EXPIRES", "PRINCIPAL", "LABEL")]
    for key in keys:
        expires = "never" if key.expires_at is None else _date(key.expires_at)
        rows.append(
            (
                key.id,
                key.state(now),
                _date(key.created_at),
                expires,
                one_line(key.principal),
                one_line(key.label),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


@app.command(epilog=help_end("security.md"))
def revoke(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="The id of the key (keys list).", show_default=False)
    ],
    *,
    data: DataOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Revoke a key for good. What was opened with it ends within a second.

    circuit-breaker keys revoke ID

    circuit-breaker keys revoke ID --data DIR
    """
    with _failures():
        key = asyncio.run(
            _change(
                server_place(data, log, config, set_),
                lambda file: file.revoke(id_),
                lambda keys: keys.revoke(id_),
            )
        )
    print_marker("revoked", f"key {key.id} of {key.principal}")


@app.command(epilog=help_end("operations.md"))
def rotate(
    *,
    cursors_for: Annotated[
        str, typer.Option(metavar="TIME", help="How long cursors of before are still good.")
    ] = "30d",
    data: DataOption = None,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make new keys for what seals cursors and encrypts secrets. The server must not run meanwhile.

    circuit-breaker keys rotate

    circuit-breaker keys rotate --cursors-for 7d --data DIR

    circuit-breaker keys rotate --log nats://host:4222 --set cluster.key_file=cluster.key

    Subscribers resume with their cursors when the server is back. Where CIRCUIT_BREAKER_SECRET_KEY has the
    key of secrets, put a new one before it (NEW,OLD) first: it is the one that encrypts. API keys and the
    audit log have keys of their own, which stay.

    With a cluster key, its first line is the new one, and no key is made; with --log, what the servers share
    is encrypted anew while they run. All of them must have both lines by then.
    """
    with _failures():
        seconds = duration(cursors_for)
        place = server_place(data, log, config, set_)
        if place.has_bucket:
            count = asyncio.run(_reseal(place))
            print_marker("rotated", f"{count} entries encrypted anew; {_OTHER_LINES}")
            return
        # Here, not above: the server is an extra.
        from circuit_breaker_server.security.key_rotation import rotate_keys  # noqa: PLC0415 (see the line above)
        from circuit_breaker_server.storage.cluster_key import ClusterKey  # noqa: PLC0415 (as above)

        file = place.cluster.key_file
        key = None if file is None else ClusterKey.read(file)
        done = rotate_keys(place.data_dir, cursors_for_seconds=seconds, cluster_key=key)
    until = _OTHER_LINES if done.until is None else f"cursors of before are good until {_date(done.until)}"
    print_marker("rotated", f"{done.secrets} secrets encrypted anew; {until}")


async def _reseal(place: ServerPlace) -> int:
    async with opened_bucket(place) as bucket:
        return await bucket.reseal()


def _print_json(keys: tuple[ApiKey, ...], now: float) -> None:
    import msgspec  # noqa: PLC0415 (slow to load: not for --help)

    for key in keys:
        shown = {
            "id": key.id,
            "state": key.state(now),
            "principal": key.principal,
            "label": key.label,
            "created_at": _date(key.created_at),
            "expires_at": None if key.expires_at is None else _date(key.expires_at),
            "revoked_at": None if key.revoked_at is None else _date(key.revoked_at),
        }
        sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")


async def _change(
    place: ServerPlace,
    in_file: Callable[[ApiKeyFile], T],
    in_bucket: Callable[[BucketApiKeys], Awaitable[T]],
) -> T:
    """Do something with the keys of a place, and return what comes of it."""
    # Here, not above: the server is an extra, and so is what the bucket needs.
    if not place.has_bucket:
        from circuit_breaker_server.security.api_key_file import ApiKeyFile  # noqa: PLC0415 (see above)

        if place.may_have_bucket:
            print_marker(
                "note",
                f"{place.data_dir} has no event log: a server with --log and a cluster key reads its API "
                "keys from the brokers; add --log URL --set cluster.key_file=FILE",
            )
        return in_file(ApiKeyFile(place.data_dir))
    from circuit_breaker_server.security.shared_api_keys import BucketApiKeys  # noqa: PLC0415 (see above)

    async with opened_bucket(place) as bucket:
        return await in_bucket(BucketApiKeys(bucket))


@contextmanager
def _failures() -> Iterator[None]:
    """Tell what went wrong in one line or as wrong usage, with its exit status."""
    # Here, not above: the server is an extra.
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.security.api_key_records import (  # noqa: PLC0415 (as above)
        ApiKeyFileError,
        NoSuchKey,
    )
    from circuit_breaker_server.security.key_rotation import KeyRotationError  # noqa: PLC0415 (as above)
    from circuit_breaker_server.storage.secret_store import SecretStoreError  # noqa: PLC0415 (as above)

    try:
        yield
    except (UsageError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    except NoSuchKey as error:
        print_error(f"{error}; `circuit-breaker keys list` shows the ids")
        raise typer.Exit(ExitCode.REFUSED) from error
    except (ApiKeyFileError, KeyRotationError, LogError, SecretStoreError) as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from error


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""``circuit-breaker backup`` and ``restore``: copy a data directory while its server runs, put it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import print_error

if TYPE_CHECKING:
    from circuit_breaker_server.backups.manifest import Manifest

__all__ = ["backup", "restore"]

_Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="The server's data directory.")]
_DATA = Path("circuit-breaker-data")
_Anchor = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The audit log's anchor; DIR.audit-anchor, beside DIR, if not given."),
]


def backup(
    target: Annotated[Path, typer.Argument(metavar="BACKUP", help="Made by this.", show_default=False)],
    *,
    data: _Data = _DATA,
    anchor: _Anchor = None,
) -> None:
    """Copy a data directory, also while its server runs: event log, secrets, keys, audit log.

    circuit-breaker backup /backups/2026-01-31

    circuit-breaker backup /backups/2026-01-31 --data /var/lib/circuit-breaker/data

    The copy is read back whole before it gets its name. It holds keys: keep it as private as the directory.
    Keys that the server takes from elsewhere (its environment, files outside of the directory) are not in it.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_server.backups.making import make_backup  # noqa: PLC0415 (see the line above)

    _run("backed up", lambda: make_backup(data, target, anchor=anchor))


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup.", show_default=False)],
    *,
    data: _Data = _DATA,
    anchor: _Anchor = None,
) -> None:
    """Make a data directory of a backup, after reading it whole; nothing that is there is replaced.

    circuit-breaker restore /backups/2026-01-31

    circuit-breaker restore /backups/2026-01-31 --data /var/lib/circuit-breaker/data

    A client that had seen events behind the backup is told so (a gap, `future` or `rewritten`) when it comes
    back with its cursor.
    """
    from circuit_breaker_server.backups.restoring import restore_backup  # noqa: PLC0415 (as above)

    _run("restored", lambda: restore_backup(source, data, anchor=anchor))


def _run(what: str, command: Callable[[], Manifest]) -> None:
    from circuit_breaker_server.backups.manifest import BackupError  # noqa: PLC0415 (as above)

    try:
        manifest = command()
    except BackupError as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from error
    log = manifest.log
    size = sum(each.size_bytes for each in manifest.files.values())
    typer.echo(
        f"{what}: {log.records:,} records (offsets {log.first_offset:,} to {log.last_offset:,}), "
        f"{len(manifest.files)} files, {size / 1024 / 1024:.1f} MiB; read back and whole"
    )

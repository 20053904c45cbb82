"""Options of commands on what servers keep, in a data directory or in the bucket on their brokers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeAlias, final

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import print_error
from circuit_breaker_sdk.errors import UsageError

if TYPE_CHECKING:
    from circuit_breaker_server.settings.cluster import ClusterSettings
    from circuit_breaker_server.shared.bucket import Bucket

__all__ = [
    "ConfigOption",
    "DataOption",
    "LogOption",
    "ServerPlace",
    "SetOption",
    "opened_bucket",
    "server_place",
]

DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory of the server's data.", show_default="circuit-breaker-data"),
]
LogOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The servers share a log on NATS JetStream, as nats://host:4222, not DIR."
    ),
]
ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The server's settings (TOML).")
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting, as cluster.key_file=FILE; may be repeated."),
]


_OF_SERVERS: Final = ("events.lock", "audit", "secrets.db", "secrets.db.moved", "workers")
"""Names in a data directory of which a server has made some, wherever its event log is."""


@final
class ServerPlace(NamedTuple):
    """Where servers keep their API keys and policy, by their settings.

    :ivar cluster: the brokers; without URLs there are none.
    """

    data_dir: Path
    cluster: ClusterSettings

    @property
    def has_bucket(self) -> bool:
        """Whether it is a bucket on brokers, and not the data directory."""
        return bool(self.cluster.urls) and self.cluster.key_file is not None

    @property
    def may_have_bucket(self) -> bool:
        """Whether no settings name brokers, and a server has used the directory without a log in it."""
        if self.cluster.urls or (self.data_dir / "events.db").exists():
            return False
        return any((self.data_dir / each).exists() for each in _OF_SERVERS)


def server_place(
    data: Path | None, log: str | None, config: Path | None, assignments: list[str] | None
) -> ServerPlace:
    """Return the place that the options name, and what they leave open the environment and the defaults.

    :raises typer.Exit: a setting is wrong, or ``--log`` names brokers and no setting the cluster key; one
        line on stderr has said so.
    """
    # Here, not above: the server is an extra.
    from circuit_breaker_sdk.cli.serve import settings_reader  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.settings.sources import SettingsError  # noqa: PLC0415 (as above)

    urls = None if log is None else tuple(url.strip() for url in log.split(",") if url.strip())
    options = {"--data": ("storage.data_dir", data), "--log": ("cluster.urls", urls)}
    try:
        settings = settings_reader(config, assignments or (), options)().settings
    except SettingsError as error:
        print_error(error)
        raise typer.Exit(ExitCode.USAGE) from error
    place = ServerPlace(settings.data_dir, settings.cluster)
    if log is not None and not place.has_bucket:
        print_error(
            "servers share their keys and policy with a cluster key only: name it with "
            "--set cluster.key_file=FILE"
        )
        raise typer.Exit(ExitCode.USAGE)
    return place


@contextlib.asynccontextmanager
async def opened_bucket(place: ServerPlace) -> AsyncIterator[Bucket]:
    """Open the bucket of a place for the block, making it where there is none.

    :raises LogError: it cannot be used, or the extra ``cluster`` is missing.
    :raises SecretStoreError: the cluster key cannot be used.
    """
    # Here, not above: the server is an extra.
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.storage.cluster_key import ClusterKey  # noqa: PLC0415 (as above)

    try:
        from circuit_breaker_server.shared.bucket import Bucket  # noqa: PLC0415 (it needs the extra cluster)
    except ModuleNotFoundError as error:
        raise LogError(
            f"the package {error.name} is missing: pip install 'circuit-breaker-sdk[server,cluster]'"
        ) from error
    if place.cluster.key_file is None:
        raise UsageError("set cluster.key_file: the file with the cluster key")
    bucket = await Bucket.open(place.cluster, ClusterKey.read(place.cluster.key_file))
    try:
        yield bucket
    finally:
        await bucket.aclose()

"""Other machines reach no server that asks nobody who he is, unless that was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings, ServerStartError, TokenSettings
from circuit_breaker_server.admission.connection_limits import is_loopback
from tests.server.tokens import SECRET

OTHERS = ["", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "example.com", "127.0.0.1.example.com"]  # noqa: S104 (refused)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LocalHost", "::ffff:127.0.0.1"]
)
def test_loopback_is_open_without_being_told(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert ServerSettings(data_dir=tmp_path, host=host).exposure() is None


@pytest.mark.parametrize("host", OTHERS)
async def test_elsewhere_a_server_starts_only_if_it_asks_who_one_is_or_was_told_not_to(
    tmp_path: Path, host: str
) -> None:
    assert not is_loopback(host)
    data = tmp_path / "data"
    server = Server(ServerSettings(data_dir=data, port=0, host=host))
    with pytest.raises(ServerStartError) as failed:
        await server.start()
    await server.aclose()
    for told in (host, "--token-key-file", "--api-keys", "--insecure", "token_keys", "api_keys"):
        assert told in str(failed.value)
    assert not data.exists()
    for settings in (
        ServerSettings(data_dir=data, host=host, insecure=True),
        ServerSettings(data_dir=data, host=host, api_keys=True),
        ServerSettings(data_dir=data, host=host, token_keys=TokenSettings(key=SECRET)),
    ):
        assert settings.exposure() is None

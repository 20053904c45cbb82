"""Each setting by file, environment and command line; what wins; what is wrong is named with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from circuit_breaker_server.settings.catalogue import CATALOGUE, GROUPS, Setting
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.settings.sources import (
    SettingsError,
    configure,
    from_assignments,
    from_environment,
    from_file,
)

PROVIDER: Final = {
    "id": "corp",
    "name": "Corp",
    "authorization_endpoint": "https://login.example.com/authorize",
    "token_endpoint": "https://login.example.com/token",
    "supported_scopes": ["email"],
}

TEXTS: Final[dict[str, Any]] = {
    "network.host": "127.0.0.2",
    "network.allowed_hosts": ["app.localhost", "other.localhost"],
    "network.allowed_origins": ["https://app.example.com"],
    "network.trusted_proxies": ["10.0.0.0/8", "10.0.0.1"],
    "security.allowed_outbound": ["10.0.0.0/8"],
    "security.allowed_redirects": ["https://app.example.com/back"],
    "security.policy_from": "bucket",
    "security.token.algorithm": "ES256",
    "cluster.urls": ["nats://a:4222", "tls://b:4222"],
    "cluster.replicas": 3,
    "cluster.node": "a",
    "cluster.monitoring_url": "http://127.0.0.1:8222",
    "log.level": "info",
    "log.format": "json",
    "providers.oauth": [PROVIDER],
}

NEEDS: Final[dict[str, dict[str, Any]]] = {
    "network.tls_cert": {"network.tls_key": "/k"},
    "network.tls_key": {"network.tls_cert": "/c"},
    "cluster.user": {"cluster.password_file": "/p"},
    "cluster.password_file": {"cluster.user": "u"},
    "cluster.tls_cert_file": {"cluster.tls_key_file": "/k"},
    "cluster.tls_key_file": {"cluster.tls_cert_file": "/c"},
    "security.policy_file": {"security.api_keys": True},
    "security.policy_from": {
        "security.api_keys": True,
        "cluster.urls": ["nats://a:4222"],
        "cluster.key_file": "/k",
    },
    **{name: {"security.token.key_file": "/k"} for name in CATALOGUE if name.startswith("security.token.")},
}
"""What has to be set beside a setting, for the settings to be good together."""


def sample(setting: Setting) -> Any:
    """Return a good value that is not the default, as TOML has it."""
    if setting.name in TEXTS:
        return TEXTS[setting.name]
    if setting.type is bool:
        return not setting.default
    if setting.type is int:
        return 7 if setting.default is None else setting.default - 1  # type: ignore[operator]
    if setting.type is float:
        return 7.5 if setting.default is None else setting.default / 2  # type: ignore[operator]
    return "/somewhere/else"


def found_in(settings: ServerSettings, setting: Setting) -> object:
    value: Any = settings
    for field in setting.path:
        value = getattr(value, field)
    return value


def as_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value) if isinstance(value[0], str) else msgspec.json.encode(value).decode()
    return str(value)


def as_toml(name: str, value: object) -> str:
    if name == "providers.oauth":
        inner = ", ".join(f"{key} = {msgspec.json.encode(each).decode()}" for key, each in PROVIDER.items())
        return f"{name} = [{{ {inner} }}]"
    return f"{name} = {msgspec.json.encode(value).decode()}"


def expected(setting: Setting, value: Any) -> object:
    if setting.name == "providers.oauth":
        return (OAuthProviderSettings(**(PROVIDER | {"supported_scopes": ("email",)})),)  # type: ignore[arg-type]
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if setting.type is Path else value


@pytest.mark.parametrize("setting", CATALOGUE.values(), ids=list(CATALOGUE))
def test_every_setting_is_set_by_file_environment_and_command_line(setting: Setting, tmp_path: Path) -> None:
    values = NEEDS.get(setting.name, {}) | {setting.name: sample(setting)}
    file = tmp_path / "server.toml"
    file.write_text("".join(f"{as_toml(name, value)}\n" for name, value in values.items()), encoding="utf-8")
    by_environment = {CATALOGUE[name].variable: as_text(value) for name, value in values.items()}
    layers = {
        str(file): from_file(file),
        "environment": from_environment(by_environment),
        "--set": from_assignments([f"{name}={as_text(value)}" for name, value in values.items()]),
    }
    for origin, layer in layers.items():
        configuration = configure(layer)
        assert found_in(configuration.settings, setting) == expected(setting, values[setting.name])
        assert configuration.values[setting.name].origin == origin


@pytest.mark.parametrize(
    "setting", [each for each in CATALOGUE.values() if each.is_optional], ids=lambda each: each.name
)
def test_every_setting_that_may_be_none_is_set_to_it(setting: Setting, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'{setting.name} = "none"\n', encoding="utf-8")
    for layer in (
        from_file(file),
        from_environment({setting.variable: "none"}),
        from_assignments([f"{setting.name}=none"]),
    ):
        assert layer[setting.name].value is None


def test_the_catalogue_has_every_field_once_and_the_defaults_of_the_settings(tmp_path: Path) -> None:
    assert configure(from_assignments([f"storage.data_dir={tmp_path}"])).settings == ServerSettings(
        data_dir=tmp_path
    )
    paths = [each.path for each in CATALOGUE.values()]
    assert len(set(paths)) == len(paths)
    assert {path[0] for path in paths} == set(ServerSettings.__dataclass_fields__)
    assert len({each.variable for each in CATALOGUE.values()}) == len(CATALOGUE)
    assert {each.group for each in CATALOGUE.values()} == set(GROUPS)
    assert [each.name for each in CATALOGUE.values() if not each.text] == []


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        "[network]\nport = 1\nmetrics_port = 1\n\n[rates]\npolls_per_second = 1\n", encoding="utf-8"
    )
    variables = {"CIRCUIT_BREAKER_NETWORK_PORT": "2", "CIRCUIT_BREAKER_NETWORK_METRICS_PORT": " 2 "}
    configuration = configure(
        from_file(file), from_environment(variables), from_assignments(["network.port=3"])
    )
    settings = configuration.settings
    assert (settings.port, settings.metrics_port, settings.rates.polls_per_second) == (3, 2, 1)


def test_relative_paths_of_a_file_are_meant_from_its_directory(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[storage]\ndata_dir = "data"\n', encoding="utf-8")
    assert configure(from_file(file)).settings.data_dir == tmp_path / "data"
    assert configure(from_assignments(["storage.data_dir=data"])).settings.data_dir == Path("data")


def test_what_is_printed_can_be_read_again_and_shows_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "token.key"
    secret.write_bytes(b"a secret of more than thirty-two bytes, for HS256")
    given = [
        f"{name}={as_text(sample(setting))}"
        for name, setting in CATALOGUE.items()
        if setting.type is not Path and name not in ("security.token.algorithm", "cluster.log_socket")
    ]
    given += [
        "cluster.password_file=/p",
        "cluster.key_file=/k",
        "network.tls_cert=/c",
        "network.tls_key=/k",
        f"security.token.key_file={secret}",
    ]
    before = configure(from_assignments(given))
    text = "\n".join(before.lines())
    assert "a secret" not in text
    file = tmp_path / "printed.toml"
    file.write_text(text, encoding="utf-8")
    after = configure(from_file(file))
    assert after.settings == ServerSettings(
        **{
            name: getattr(before.settings, name)
            for name in ServerSettings.__dataclass_fields__
            if name != "data_dir"
        },
        data_dir=tmp_path / before.settings.data_dir,
    )
    assert "# --set" in text
    assert "# default" in text
    assert tomllib.loads(text)["rates"]["polls_per_second"] == 1999


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[rates]\npols_per_second = 1",
            "rates.pols_per_second is no setting; the nearest one is rates.polls_",
        ),
        ("port = 1", "port is no setting; the nearest one is network.port"),
        ("[nowhere]\nzzz = 1", "nowhere.zzz is no setting; circuit-breaker serve --print-config shows all"),
        ("[rate]", "rate is no setting"),
        ('[network]\nport = "4000"', "network.port must be a whole number, not '4000'"),
        ("[network]\nport = true", "network.port must be a whole number, not True"),
        ("[network]\nport = 4000.0", "network.port must be a whole number, not 4000.0"),
        ("[network]\nport = 70000", "network.port: port must be between 0 and 65535, not 70000"),
        ('[rates]\npolls_per_second = "x"', 'rates.polls_per_second must be a whole number or "none", not'),
        ("[limits]\ndocument = 3", "limits.document is no setting"),
        ("[network]\nhost = 3", "network.host must be a text, not 3"),
        ('[network]\nallowed_hosts = "a"', "network.allowed_hosts: Expected `array`, got `str`"),
        ("[storage]\ndata_dir = ''", "storage.data_dir must be a path, not ''"),
        ("[timeouts]\nping_seconds = nan", "timeouts.ping_seconds must be a finite number"),
        ("[timeouts]\nping_seconds = 0", "timeouts.ping_seconds: ping_seconds must be greater than 0"),
        ("[log]\nlevel = 'loud'", "log.level"),
        ("[log]\nformat = 'xml'", "log_format must be one of key=value, json, not 'xml'"),
        ("[security.token]\nissuer = 'x'", "security.token.issuer needs security.token.key_file"),
        ("[[providers.oauth]]\nid = 'a'\nnam = 'A'", "nam is no part of an OAuth provider; the nearest"),
        ("[[providers.oauth]]\nid = 'a'\nname = 'A'", "missing required field `authorization_endpoint`"),
        ("[network", "is not TOML"),
        ("[network]\nport = 1\nport = 2", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        configure(from_file(file))
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CIRCUIT_BREAKER_NETWORK_PROT", "1", "; the nearest one is CIRCUIT_BREAKER_NETWORK_PORT"),
        ("CIRCUIT_BREAKER_NETWORK_PORT", "x", "network.port must be a whole number, not 'x'"),
        ("CIRCUIT_BREAKER_SECURITY_INSECURE", "perhaps", "security.insecure must be true or false"),
        ("CIRCUIT_BREAKER_PROVIDERS_OAUTH", "[{", "providers.oauth must be a list of OAuth providers (JSON"),
        ("CIRCUIT_BREAKER_TIMEOUTS_PING_SECONDS", "inf", "timeouts.ping_seconds must be a finite number"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(from_environment({variable: value}))
    assert message in str(caught.value)


def test_variables_of_others_are_none_of_ours() -> None:
    found = from_environment(
        dict.fromkeys(
            [
                "CIRCUIT_BREAKER_TOKEN",
                "CIRCUIT_BREAKER_SECRET_KEY",
                "CIRCUIT_BREAKER_API_KEY_OPENAI",
                "CIRCUIT_BREAKER_SERVICE_HOST",
                "CIRCUIT_BREAKER_SERVICE_PORT_HTTP",
                "CIRCUIT_BREAKER_PORT",
                "CIRCUIT_BREAKER_PORT_4000_TCP_ADDR",
                "PATH",
            ],
            "tcp://10.0.0.1:4000",
        )
    )
    assert found == {}


@pytest.mark.parametrize("word", ["true", "Yes", "ON", "1"])
def test_words_for_true(word: str) -> None:
    assert from_assignments([f"security.api_keys={word}"])["security.api_keys"].value is True


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("network.port", "--set takes NAME=VALUE"),
        ("network.prot=1", "--set: network.prot is no setting; the nearest one is network.port"),
        ("network.port=", "network.port must be a whole number, not ''"),
    ],
)
def test_what_is_wrong_behind_set_is_named(assignment: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(from_assignments([assignment]))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: No such file or directory"):
        from_file(tmp_path / "missing.toml")

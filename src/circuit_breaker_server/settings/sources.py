"""Settings from a file, the environment and the command line, laid over one another."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import msgspec

from circuit_breaker_server.settings.catalogue import CATALOGUE, ENVIRONMENT_PREFIX, GROUPS, Setting
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.settings.tokens import TokenSettings

__all__ = [
    "Configuration",
    "Given",
    "SettingsError",
    "configure",
    "from_assignments",
    "from_environment",
    "from_file",
]

_NONE: Final = "none"
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")

# Keys and the client's token, and what Kubernetes sets in every container for a service named
# circuit-breaker.
_OTHERS: Final = re.compile(
    rf"{ENVIRONMENT_PREFIX}("
    r"TOKEN|URL|SECRET_KEY|AUDIT_KEY|(API_KEY|KEY_URLS|KEY_TENANTS)_.+"
    r"|([A-Z0-9_]+_)?SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z0-9_]+)?)"
)


class SettingsError(Exception):
    """A setting is unknown or has a value that it cannot have; the message names it and where it stands."""


@final
class Given(NamedTuple):
    """A value for a setting.

    :ivar origin: where it stands: a file's path, ``environment``, ``--set`` or another option; ``default``.
    """

    value: object
    origin: str


@final
class Configuration(NamedTuple):
    """The settings with which a server starts.

    :ivar values: each setting's value by name, and where that came from.
    """

    settings: ServerSettings
    values: Mapping[str, Given]

    def lines(self) -> Iterator[str]:
        """Describe each setting as a line of TOML, with its origin as a comment."""
        group = ""
        for name, given in self.values.items():
            setting = CATALOGUE[name]
            if setting.group != group:
                yield f"{'' if not group else chr(10)}[{setting.group}]"
                group = setting.group
            yield f"{name.rpartition('.')[2]} = {_as_toml(given.value)}  # {given.origin}"


def configure(*layers: Mapping[str, Given]) -> Configuration:
    """Lay values over the defaults, each layer over those before it.

    :raises SettingsError: they do not make a server's settings together.
    """
    values = {name: Given(each.default, "default") for name, each in CATALOGUE.items()}
    for layer in layers:
        values.update(layer)
    return Configuration(_build(values), types.MappingProxyType(values))


def from_file(path: Path) -> dict[str, Given]:
    """Read a file of settings (TOML). Relative paths in it are meant from the file's directory.

    :raises SettingsError: it cannot be read, or has what no setting is.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    given: dict[str, Given] = {}
    for name, value in _flat(found, ""):
        setting = _setting(name, str(path))
        read = _typed(setting, value, str(path))
        if isinstance(read, Path):
            read = path.parent / read.expanduser()
        given[name] = Given(read, str(path))
    return given


def from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """Read the variables that begin with ``CIRCUIT_BREAKER_``.

    :raises SettingsError: one of them is no setting, or has a value that it cannot have.
    """
    by_variable = {each.variable: each for each in CATALOGUE.values()}
    given: dict[str, Given] = {}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        setting = by_variable.get(variable)
        if setting is not None:
            given[setting.name] = Given(
                _read(setting, environment[variable], f"{variable} of the environment"), "environment"
            )
        elif not _OTHERS.fullmatch(variable):
            raise SettingsError(
                f"{variable} of the environment is no setting{_nearest(variable, by_variable)}"
            )
    return given


def from_assignments(assignments: Iterable[str]) -> dict[str, Given]:
    """Read ``NAME=VALUE`` each, as ``--set`` takes them.

    :raises SettingsError: one names no setting, or has a value that it cannot have.
    """
    given: dict[str, Given] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set takes NAME=VALUE, as rates.polls_per_second=100, not {assignment!r}")
        setting = _setting(name.strip(), "--set")
        given[setting.name] = Given(_read(setting, text, "--set"), "--set")
    return given


def _flat(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and (name in GROUPS or name not in CATALOGUE):
            yield from _flat(value, f"{name}.")
            if not value and name not in GROUPS:
                yield name, value  # an empty group that does not exist
        else:
            yield name, value


def _setting(name: str, origin: str) -> Setting:
    setting = CATALOGUE.get(name)
    if setting is None:
        raise SettingsError(f"{origin}: {name} is no setting{_nearest(name, CATALOGUE)}")
    return setting


def _nearest(name: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not near:
        last = name.rpartition(".")[2]
        near = [each for each in known if each.rpartition(".")[2] == last][:1]
    return f"; the nearest one is {near[0]}" if near else "; circuit-breaker serve --print-config shows all"


def _typed(setting: Setting, value: object, origin: str) -> object:
    """Check a value that has a type already."""
    if setting.is_optional and value == _NONE:
        return None
    kind = setting.type
    try:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is Path and isinstance(value, str) and value:
            return Path(value)
        if kind in (bool, int, float, str):
            if type(value) is kind:
                return value
        elif kind == tuple[str, ...]:
            return msgspec.convert(value, kind)
        elif kind == tuple[OAuthProviderSettings, ...]:
            return _providers(value)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(f"{origin}: {setting.name}: {error}") from error
    raise SettingsError(f"{origin}: {setting.name} must be {_wanted(setting)}, not {value!r}")


def _read(setting: Setting, text: str, origin: str) -> object:
    """Read a value from a text."""
    kind: Any = setting.type
    stripped = text.strip()
    value: object = text
    if setting.is_optional and stripped == _NONE:
        return None
    if kind is bool:
        lower = stripped.lower()
        value = lower in _TRUE if lower in (*_TRUE, *_FALSE) else text
    elif kind is int or kind is float:
        value = _number(kind, stripped)
    elif kind == tuple[str, ...]:
        value = tuple(each.strip() for each in text.split(",") if each.strip())
    elif kind == tuple[OAuthProviderSettings, ...]:
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{origin}: {setting.name} must be {_wanted(setting)}: {error}") from error
    return _typed(setting, value, origin)


def _number(kind: Callable[[str], object], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        return text


def _providers(value: object) -> tuple[OAuthProviderSettings, ...]:
    known = {each.name for each in fields(OAuthProviderSettings)}
    found = msgspec.convert(value, list[dict[str, Any]])
    for each in found:
        for name in each:
            if name not in known:
                raise ValueError(f"{name} is no part of an OAuth provider{_nearest(name, known)}")
    return tuple(msgspec.convert(each, OAuthProviderSettings) for each in found)


def _wanted(setting: Setting) -> str:
    kinds: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        tuple[str, ...]: "a list of texts (commas between them in the environment and behind --set)",
        tuple[OAuthProviderSettings, ...]: "a list of OAuth providers (JSON in the environment)",
    }
    return kinds[setting.type] + (f' or "{_NONE}"' if setting.is_optional else "")


def _build(values: Mapping[str, Given]) -> ServerSettings:
    """Make the settings, the values inside of others first."""
    top: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, setting in CATALOGUE.items():
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{values[name].origin}: {name} must be a finite number, not {value}")
        if len(setting.path) == 1:
            top[setting.path[0]] = value
        else:
            nested.setdefault(setting.path[0], {})[setting.path[1]] = value
    tokens = nested.pop("token_keys")
    try:
        for field, inner in nested.items():
            kind = next(each for each in fields(ServerSettings) if each.name == field).default_factory
            top[field] = kind(**inner)  # type: ignore[operator]
        return ServerSettings(**top, token_keys=_tokens(tokens, values))
    except ValueError as error:
        raise SettingsError(_located(str(error), values)) from error


def _tokens(given: dict[str, Any], values: Mapping[str, Given]) -> TokenSettings | None:
    if given["key"] is not None:
        return TokenSettings(**given)
    # A setting about tokens without a key would look as if tokens were required.
    for name in ("algorithm", "issuer", "audience", "leeway_seconds"):
        found = values[f"security.token.{name}"]
        if found.origin != "default":
            raise ValueError(
                f"{found.origin}: security.token.{name} needs security.token.key_file (--token-key-file)"
            )
    return None


def _located(message: str, values: Mapping[str, Given]) -> str:
    """Say which setting a message is about, and where it stands, if it begins with its name."""
    word = re.split(r"[^a-z_]", message, maxsplit=1)[0]
    for name, given in values.items():
        if CATALOGUE[name].path[-1] == word and given.origin != "default":
            return f"{given.origin}: {name}: {message}"
    return message


def _as_toml(value: object) -> str:
    match value:
        case None:
            return f'"{_NONE}"'
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case tuple() if value and isinstance(value[0], OAuthProviderSettings):
            return f"[{', '.join(_inline(each) for each in value)}]"
        case tuple():
            return f"[{', '.join(map(_as_toml, value))}]"
        case _:
            return msgspec.json.encode(str(value)).decode()


def _inline(provider: OAuthProviderSettings) -> str:
    parts = [
        f"{each.name} = {_as_toml(value)}"
        for each in fields(provider)
        if (value := getattr(provider, each.name)) is not None
    ]
    return f"{{ {', '.join(parts)} }}"

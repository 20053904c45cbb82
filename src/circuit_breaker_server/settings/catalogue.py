"""Every setting of a server by the name it has in files, in the environment and on the command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.outbound.answer_limits import AnswerLimits
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.settings.document_limits import DocumentLimits
from circuit_breaker_server.settings.rates import RateSettings
from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.settings.tokens import TokenSettings

__all__ = ["CATALOGUE", "DEFAULT_DATA_DIR", "ENVIRONMENT_PREFIX", "GROUPS", "Setting"]

DEFAULT_DATA_DIR: Final = Path("circuit-breaker-data")
ENVIRONMENT_PREFIX: Final = "CIRCUIT_BREAKER_"

_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "network": {
        "host": "host",
        "port": "port",
        "tls_cert": "tls_cert",
        "tls_key": "tls_key",
        "allowed_hosts": "allowed_hosts",
        "allowed_origins": "allowed_origins",
        "trusted_proxies": "trusted_proxies",
        "reuse_port": "reuse_port",
        "send_buffer_bytes": "send_buffer_bytes",
        "metrics_port": "metrics_port",
    },
    "storage": {
        "data_dir": "data_dir",
        "min_free_disk_bytes": "min_free_disk_bytes",
        "snapshot_every": "snapshot_every",
        "ring_size": "ring_size",
        "ring_bytes": "ring_bytes",
    },
    "retention": {
        "keep_seconds": "keep_seconds",
        "keep_bytes": "keep_bytes",
        "keep_records": "keep_records",
        "trim_every_seconds": "trim_every_seconds",
    },
    "limits": {
        "max_connections": "max_connections",
        "max_connections_per_address": "max_connections_per_address",
        "max_connections_per_principal": "max_connections_per_principal",
        "max_operations": "max_operations",
        "max_operation_id_bytes": "max_operation_id_bytes",
        "max_message_bytes": "max_message_bytes",
        "max_unsent_bytes": "max_unsent_bytes",
        "poll_bytes": "poll_bytes",
        "max_body_bytes": "max_body_bytes",
        "max_request_line_bytes": "max_request_line_bytes",
        "max_header_bytes": "max_header_bytes",
        "max_headers_bytes": "max_headers_bytes",
        "max_headers": "max_headers",
        "max_trailers_bytes": "max_trailers_bytes",
        "max_chunk_extensions_bytes": "max_chunk_extensions_bytes",
    },
    "timeouts": {
        name: name
        for name in (
            "head_seconds",
            "body_seconds",
            "keep_alive_seconds",
            "init_timeout_seconds",
            "ping_seconds",
            "pong_seconds",
            "stall_seconds",
            "execute_seconds",
            "begin_seconds",
            "advance_seconds",
            "close_seconds",
            "drain_seconds",
            "retry_after_seconds",
            "shutdown_seconds",
            "idempotency_seconds",
            "provider_seconds",
            "mcp_check_seconds",
            "mcp_session_seconds",
        )
    },
    "security": {
        "insecure": "insecure",
        "api_keys": "api_keys",
        "policy_file": "policy_file",
        "policy_from": "policy_from",
        "enforce_budgets": "enforce_budgets",
        "allowed_outbound": "allowed_outbound",
        "allowed_redirects": "allowed_redirects",
    },
    "audit": {
        "enabled": "audit",
        "key_file": "audit_key_file",
        "anchor_file": "audit_anchor_file",
        "rotate_bytes": "audit_rotate_bytes",
        "rotate_seconds": "audit_rotate_seconds",
        "keep_files": "audit_keep_files",
    },
    "log": {
        "level": "log_level",
        "format": "log_format",
        "slow_append_seconds": "slow_append_seconds",
        "slow_operation_seconds": "slow_operation_seconds",
        "slow_loop_seconds": "slow_loop_seconds",
    },
    "traces": {"enabled": "traces"},
    "providers": {"oauth": "oauth_providers"},
}
"""By group, the name of each setting and the field of :class:`ServerSettings` that it sets."""

_NESTED: Final[Mapping[str, tuple[str, type]]] = {
    "cluster": ("cluster", ClusterSettings),
    "limits.document": ("document_limits", DocumentLimits),
    "limits.caller": ("caller_limits", CallerLimits),
    "limits.answer": ("answer_limits", AnswerLimits),
    "rates": ("rates", RateSettings),
    "security.token": ("token_keys", TokenSettings),
}
"""Groups that are a value of their own; their settings have the names of its fields."""

_LIVE_GROUPS: Final = frozenset({"log", "limits.document", "rates"})
_LIVE: Final = frozenset(
    {
        "limits.max_connections",
        "limits.max_connections_per_address",
        "limits.max_connections_per_principal",
    }
)
_NOT_LIVE: Final = frozenset({"rates.frames_per_second"})

GROUPS: Final[Mapping[str, str]] = {
    "network": "Where the server listens, and who may address it.",
    "storage": "The event log and what is kept in memory of it.",
    "cluster": "An event log that several servers share: on NATS JetStream, in place of the data directory.",
    "retention": "Which events of the log are kept.",
    "limits": "Bounds of connections, messages and requests.",
    "limits.document": "Bounds of one GraphQL operation.",
    "limits.caller": "The shares of tenants and principals in what all of them use.",
    "limits.answer": "Bounds of the answers of providers, MCP servers and token endpoints.",
    "rates": "How often one principal, or one address, may ask.",
    "timeouts": "How long things may take, and how often they happen.",
    "security": "Who may do what, and where the server may connect.",
    "security.token": "How bearer tokens are verified; without a key file the server takes none.",
    "audit": "The audit log.",
    "log": "The server's own log on stderr.",
    "traces": "OpenTelemetry spans.",
    "providers": "OAuth providers at which users of MCP servers may sign in.",
}
"""The groups and what they hold."""


@final
class Setting(NamedTuple):
    """One setting.

    :ivar name: with its group, as ``rates.operations_per_second``.
    :ivar path: the fields of :class:`ServerSettings` that lead to it.
    :ivar type: of its value, without ``None``.
    :ivar is_optional: whether it may be ``None``, written ``none``.
    :ivar default: its value where nothing sets it.
    :ivar text: its description.
    :ivar is_live: whether a running server takes a new value over; others need a restart.
    """

    name: str
    path: tuple[str, ...]
    type: Any
    is_optional: bool
    default: object
    text: str
    is_live: bool

    @property
    def group(self) -> str:
        """The name without its last part."""
        return self.name.rpartition(".")[0]

    @property
    def variable(self) -> str:
        """The environment variable that sets it, as ``CIRCUIT_BREAKER_RATES_OPERATIONS_PER_SECOND``."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()


def _settings() -> Iterator[Setting]:
    for group, names in _FIELDS.items():
        for name, field in names.items():
            yield _setting(f"{group}.{name}", (field,), ServerSettings)
    for group, (outer, kind) in _NESTED.items():
        for inner in dataclasses.fields(kind):
            # The key itself never stands in a file of settings.
            name = "key_file" if kind is TokenSettings and inner.name == "key" else inner.name
            yield _setting(f"{group}.{name}", (outer, inner.name), kind)


def _setting(name: str, path: tuple[str, ...], kind: type) -> Setting:
    field = next(each for each in dataclasses.fields(kind) if each.name == path[-1])
    type_, is_optional = _without_none(typing.get_type_hints(kind)[field.name])
    default: object = field.default
    if default is dataclasses.MISSING:
        default = None if field.default_factory is dataclasses.MISSING else field.default_factory()
    if name == "storage.data_dir":
        default = DEFAULT_DATA_DIR
    if name == "security.token.key_file":
        type_, is_optional = Path, True
    is_live = name in _LIVE or (name.rpartition(".")[0] in _LIVE_GROUPS and name not in _NOT_LIVE)
    return Setting(name, path, type_, is_optional, default, _texts(kind)[field.name], is_live)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    kinds = [each for each in typing.get_args(hint) if each is not type(None)]
    return kinds[0], len(kinds) < len(typing.get_args(hint))


def _texts(kind: type) -> dict[str, str]:
    """Return the descriptions of a value's fields, from its docstring."""
    text = inspect.getdoc(kind) or ""
    found = re.findall(r"^:ivar (\w+): (.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found} | dict.fromkeys(
        (each.name for each in dataclasses.fields(kind) if each.name not in dict(found)), ""
    )


_GROUP_ORDER: Final = list(GROUPS)

CATALOGUE: Final[Mapping[str, Setting]] = {
    each.name: each for each in sorted(_settings(), key=lambda each: _GROUP_ORDER.index(each.group))
}
"""All settings by name, group by group."""

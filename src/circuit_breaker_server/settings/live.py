"""Changes of settings that a running server takes over, and those that need a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, final

from circuit_breaker_server.settings.catalogue import CATALOGUE, Setting
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["Change", "Changes", "changes"]


@final
class Change(NamedTuple):
    """A setting that has another value than before.

    :ivar name: as in :data:`.catalogue.CATALOGUE`.
    """

    name: str
    before: object
    after: object


@final
class Changes(NamedTuple):
    """The difference between the settings of a running server and new ones.

    :ivar settings: those of before, with the changes that a running server can take over.
    :ivar taken: these changes.
    :ivar left: changes that need a restart.
    """

    settings: ServerSettings
    taken: tuple[Change, ...]
    left: tuple[Change, ...]


def changes(before: ServerSettings, after: ServerSettings) -> Changes:
    """Tell which changes a running server can take over."""
    settings, taken, left = before, [], []
    for setting in CATALOGUE.values():
        change = Change(setting.name, _value(before, setting), _value(after, setting))
        if change.before == change.after:
            continue
        if setting.is_live:
            settings = _with(settings, setting, change.after)
            taken.append(change)
        else:
            left.append(change)
    return Changes(settings, tuple(taken), tuple(left))


def _value(settings: ServerSettings, setting: Setting) -> object:
    value: object = settings
    for field in setting.path:
        value = None if value is None else getattr(value, field)
    return value


def _with(settings: ServerSettings, setting: Setting, value: object) -> ServerSettings:
    outer, *inner = setting.path
    new: Any = value
    if inner:
        new = replace(getattr(settings, outer), **{inner[0]: value})
    return replace(settings, **{outer: new})

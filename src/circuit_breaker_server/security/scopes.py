r"""Scopes, ``kind:action:pattern``: the permissions that a policy grants to principals.

In a pattern only ``*`` is special: it stands for any run of characters, also none. ``self`` as the whole
pattern is the principal's own id, except for ``provider``, which belongs to a tenant; an id that is literally
"self" is written ``\self`` (and ``\self`` itself ``\\self``). The names of a kind are ids, except for three
kinds: ``cost`` has ``user/ID`` and ``project/ID``, ``mcp`` has ``server/ID`` and ``session/USER``, and
``provider`` has the names that callers give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, final, get_args

__all__ = [
    "ACTIONS",
    "IMPLIED",
    "KINDS",
    "Action",
    "Kind",
    "Scope",
    "ScopeError",
    "compile_globs",
    "parse_scope",
    "widest_globs",
    "write_scope",
]

Kind = Literal["workflow", "agent", "llm", "provider", "cost", "mcp", "rule", "nats", "log"]
Action = Literal["read", "write", "admin"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
IMPLIED: Final[Mapping[Action, tuple[Action, ...]]] = MappingProxyType(
    {"read": ("read",), "write": ("read", "write"), "admin": ("read", "write", "admin")}
)
"""Every action with all that it implies."""

_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "cost": ("user/", "project/"),
    "mcp": ("server/", "session/"),
}
_OWNED_BY_TENANTS: Final[frozenset[Kind]] = frozenset({"provider"})
"""Kinds of which nothing belongs to one principal: ``self`` says nothing about them."""
_OWN_PREFIX: Final[Mapping[str, str]] = {"cost": "user/", "mcp": "session/"}
_ESCAPED_SELF: Final = re.compile(r"\\+self")
_MAX_SCOPE: Final = 512


class ScopeError(ValueError):
    """A text is no scope. The text says why, and what is allowed."""


@final
@dataclass(frozen=True, slots=True)
class Scope:
    """One thing that is allowed.

    :ivar pattern: a name, or a glob if there is a ``*`` in it; empty if ``is_own``.
    :ivar is_own: whether it is about the principal's own id, whatever that is.

    Example::

        Scope("workflow", "read", "wf_*")
    """

    kind: Kind
    action: Action
    pattern: str
    is_own: bool = False

    @property
    def is_glob(self) -> bool:
        """Whether the pattern is more than one name."""
        return "*" in self.pattern

    def own_name(self, owner: str) -> str:
        """Tell by what name this kind knows a principal."""
        return _OWN_PREFIX.get(self.kind, "") + owner


def parse_scope(text: str) -> Scope:
    """Read a scope.

    :raises ScopeError: it is none.

    Example::

        parse_scope("cost:read:self")
    """
    if len(text) > _MAX_SCOPE:
        raise ScopeError(f"is over {_MAX_SCOPE} characters")
    kind, first, rest = text.partition(":")
    action, second, pattern = rest.partition(":")
    if not first or not second:
        raise ScopeError("is not kind:action:pattern, as in workflow:read:wf_*")
    if kind not in KINDS:
        raise ScopeError(f"unknown kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if action not in ACTIONS:
        raise ScopeError(f"unknown action {action!r}; the actions are {', '.join(ACTIONS)}")
    if not pattern:
        raise ScopeError("has no pattern; write an id, or * for all")
    if pattern == "self" and kind in _OWNED_BY_TENANTS:
        raise ScopeError(f"'self' is not for {kind}, which belongs to a tenant; write a name, or * for all")
    if pattern == "self":
        return Scope(kind, action, "", is_own=True)
    pattern = re.sub(r"\*+", "*", pattern)
    prefixes = _PREFIXES.get(kind)
    if prefixes is not None:
        if pattern != "*" and not any(pattern.startswith(p) and pattern != p for p in prefixes):
            allowed = " or ".join([*(f"{p}PATTERN" for p in prefixes), "self", "*"])
            raise ScopeError(f"pattern {pattern!r} is not for {kind}; write {allowed}")
    elif _ESCAPED_SELF.fullmatch(pattern):
        pattern = pattern[1:]
    return Scope(kind, action, pattern)


def write_scope(kind: Kind, action: Action, pattern: str) -> str:
    """Write a scope such that :func:`parse_scope` reads the same from it; a ``*`` is read as a glob."""
    return f"{kind}:{action}:" + (rf"\{pattern}" if re.fullmatch(r"\\*self", pattern) else pattern)


@lru_cache(maxsize=1024)
def compile_globs(globs: frozenset[str]) -> re.Pattern[str]:
    """Compile globs into one expression, whose ``fullmatch`` says whether any of them matches.

    It takes time in proportion to the length of a name: names come from clients that are to be kept out.
    """
    return re.compile("|".join(_expression(glob) for glob in sorted(globs)), re.DOTALL)


def _expression(glob: str) -> str:
    first, *parts = map(re.escape, glob.split("*"))
    if not parts:
        return first
    # The first place where a part fits is as good as any later one, so nothing need be tried again ((?>…)).
    return first + "".join(f"(?>.*?{part})" for part in parts[:-1]) + ".*" + parts[-1]


@lru_cache(maxsize=256)
def widest_globs(globs: frozenset[str]) -> frozenset[str]:
    """Leave out every glob that another one includes; what is left is the same for the same set of names.

    A glob includes another exactly if it matches its text, since only a ``*`` matches a ``*``. And what
    several include together one of them includes: put a character that is in none of them in place of each
    ``*``.
    """
    kept: list[str] = []
    for glob in sorted(globs, key=lambda glob: (len(glob) - glob.count("*"), -glob.count("*"))):
        if not any(compile_globs(frozenset((wider,))).fullmatch(glob) for wider in kept):
            kept.append(glob)
    return frozenset(kept)

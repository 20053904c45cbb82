"""Rights: the permissions of one principal, compiled so that a check is cheap."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Self, final

from circuit_breaker_server.security.scopes import (
    ACTIONS,
    IMPLIED,
    KINDS,
    Action,
    Kind,
    Scope,
    compile_globs,
    widest_globs,
    write_scope,
)

__all__ = ["EVERYTHING", "EVERY_TENANT", "NOTHING", "Rights"]

EVERY_TENANT: Final = "*"

_Match = Callable[[str], re.Match[str] | None]
_Effective = tuple[frozenset[str], frozenset[str]]
_NONE: Final[_Effective] = (frozenset(), frozenset())
_ALL: Final = frozenset(("*",))


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rights:
    """The permissions of a principal.

    Equal for principals that may do the same in the same tenant, however their scopes were written.

    :ivar tenant: the one tenant; ``"*"`` for every tenant, ``None`` for none at all.
    :ivar is_unlimited: whether everything is allowed in every tenant.

    Example::

        rights = Rights.of([parse_scope("workflow:write:wf_*")], owner="user-7", tenant="acme")
        rights.allows("workflow", "read", "wf_1")  # True: write implies read
    """

    tenant: str | None
    is_unlimited: bool
    _effective: tuple[_Effective, ...]
    _hash: int = field(init=False)
    _compiled: dict[str, dict[str, tuple[bool, frozenset[str], _Match | None]]] = field(init=False)

    def __post_init__(self) -> None:
        effective = iter(self._effective)
        compiled = {
            kind: {
                action: (globs == _ALL, names, compile_globs(globs).fullmatch if globs else None)
                for action, (names, globs) in zip(ACTIONS, effective, strict=False)
            }
            for kind in KINDS
        }
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "_hash", hash((self.tenant, self._effective)))

    @classmethod
    def of(cls, scopes: Iterable[Scope], *, owner: str, tenant: str | None) -> Self:
        """Put together what these scopes allow.

        :param owner: the principal that ``self`` means; empty for none: then such scopes allow nothing.
        :param tenant: as :attr:`tenant`.
        """
        names: dict[tuple[Kind, Action], set[str]] = {}
        globs: dict[tuple[Kind, Action], set[str]] = {}
        for scope in scopes:
            if scope.is_own and not owner:
                continue
            # An owner's id is a name even if there is a * in it: the owner may have chosen it.
            name = scope.own_name(owner) if scope.is_own else scope.pattern
            for action in IMPLIED[scope.action]:
                (globs if scope.is_glob else names).setdefault((scope.kind, action), set()).add(name)
        effective = tuple(
            _effective(names.get((kind, action), set()), globs.get((kind, action), set()))
            for kind in KINDS
            for action in ACTIONS
        )
        unlimited = tenant == EVERY_TENANT and all(globs == _ALL for _, globs in effective)
        return cls(tenant, unlimited, effective)

    def allows(self, kind: Kind, action: Action, name: str) -> bool:
        """Tell whether this may be done to what has this name (see :mod:`~.scopes` for the names of a kind).

        :raises KeyError: there is no such kind or action.
        """
        everything, names, match = self._compiled[kind][action]
        return everything or name in names or (match is not None and match(name) is not None)

    def allows_all(self, kind: Kind, action: Action) -> bool:
        """Tell whether it may be done to everything of a kind (pattern ``*``).

        :raises KeyError: as :meth:`allows`.
        """
        return self._compiled[kind][action][0]

    def allows_any(self, kind: Kind, action: Action) -> bool:
        """Tell whether there is any scope by which it may be done to something.

        :raises KeyError: as :meth:`allows`.
        """
        _, names, match = self._compiled[kind][action]
        return bool(names) or match is not None

    def allows_some(self, kind: Kind, action: Action, prefix: str) -> bool:
        """Tell whether there is any scope by which it may be done to a name that begins with this.

        :param prefix: empty, or one of the prefixes of the kind's names, as ``server/``.
        :raises KeyError: as :meth:`allows`.
        """
        return any(
            each == "*" or each.startswith(prefix) for part in self.part(kind, action) for each in part
        )

    def allows_pattern(self, kind: Kind, action: Action) -> bool:
        """Tell whether a scope with a ``*`` allows it: only such a one covers what has no name yet.

        :raises KeyError: as :meth:`allows`.
        """
        return self._compiled[kind][action][2] is not None

    def part(self, kind: Kind, action: Action) -> _Effective:
        """Return the names and globs that allow an action: equal for all principals with the same ones."""
        return self._effective[KINDS.index(kind) * len(ACTIONS) + ACTIONS.index(action)]

    def in_tenant(self, tenant: str) -> bool:
        """Tell whether anything is allowed in this tenant."""
        return self.tenant in (EVERY_TENANT, tenant)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The fewest scopes that say the same, to be read by people; ``self`` stands as the id it means."""
        written: list[str] = []
        effective = iter(self._effective)
        for kind in KINDS:
            of_kind = list(zip(ACTIONS, effective, strict=False))
            for (action, (names, globs)), (_, more) in zip(
                of_kind, [*of_kind[1:], (None, _NONE)], strict=True
            ):
                new = sorted(names - more[0]) + sorted(globs - more[1])
                written += [write_scope(kind, action, pattern) for pattern in new]
        return tuple(written)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Rights):
            return NotImplemented
        return (
            self._hash == other._hash and self.tenant == other.tenant and self._effective == other._effective
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        what = "everything" if self.is_unlimited else f"{len(self.scopes)} scopes"
        return f"<Rights {what} tenant={self.tenant!r}>"


def _effective(names: set[str], globs: set[str]) -> _Effective:
    if not names and not globs:
        return _NONE
    widest = widest_globs(frozenset(globs))
    if not widest:
        return frozenset(names), widest
    matches = compile_globs(widest).fullmatch
    return frozenset(name for name in names if not matches(name)), widest


EVERYTHING: Final = Rights.of([Scope(kind, "admin", "*") for kind in KINDS], owner="", tenant=EVERY_TENANT)
"""All rights: for every caller of a server without authentication or policy."""

NOTHING: Final = Rights.of((), owner="", tenant=None)
"""Default deny."""

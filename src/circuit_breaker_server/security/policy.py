"""Load the access policy: a TOML file with the permissions and the tenant of each principal.

.. code-block:: toml

    [roles.viewer]
    scopes = ["workflow:read:wf_*", "cost:read:self"]

    [principals."user-7"]
    tenant = "acme"          # "*": every tenant
    roles = ["viewer"]
    scopes = ["mcp:admin:session/*"]
    disabled = false         # true: loses everything, its live streams included

    [anyone]                 # authenticated, but not named above; without it they may do nothing
    roles = ["viewer"]
    tenant = "public"
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, Self, final

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.rights import EVERY_TENANT, EVERYTHING, NOTHING, Rights
from circuit_breaker_server.security.scopes import Scope, ScopeError, parse_scope
from circuit_breaker_server.security.watched_file import (
    FileRefused,
    Listeners,
    WatchedFile,
    WatchedSource,
    read_bounded,
)

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Policy",
    "PolicyError",
    "PolicySource",
    "Rights",
    "Standing",
    "read_policy_file",
]

Standing = Literal["named", "disabled", "anyone", "unknown"]

_MAX_BYTES: Final = 1024 * 1024
_MAX_NAME: Final = 255
_MAX_GLOBS: Final = 256
_REMEMBERED: Final = 4096

logger = get_logger("policy")


class PolicyError(FileRefused):
    """A policy cannot be used.

    :ivar problems: everything found, each with the file, the place and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        """Hold what was found."""
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class _Entry:
    tenant: str | None
    scopes: tuple[Scope, ...]
    is_disabled: bool = False


@final
class Policy:
    """The access policy in one version of its file: the rights of each principal. Immutable.

    :ivar version: 12 hexadecimal digits of the SHA-256 of the file.

    Example::

        policy = Policy.load(Path("policy.toml"))
        policy.rights_of("user-7").allows("workflow", "read", "wf_1")
    """

    def __init__(self, version: str, principals: Mapping[str, _Entry], anyone: _Entry | None) -> None:
        """Hold what was read; :meth:`parse` and :meth:`load` are the ways in."""
        self.version: Final = version
        self._principals: Final = principals
        self._anyone: Final = anyone
        self._rights: Final[dict[str, Rights]] = {}
        self._same: Final[dict[Rights, Rights]] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a policy from its file.

        :raises PolicyError: it cannot be read or used.
        """
        return cls.parse(read_policy_file(path), path)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Self:
        """Read a policy.

        :param path: the file, as errors name it.
        :raises PolicyError: it cannot be used; the text has all its faults at once.
        """
        try:
            document = tomllib.loads(data.decode())
        except UnicodeDecodeError:
            raise PolicyError([f"{path}: is not UTF-8; save it as UTF-8"]) from None
        except tomllib.TOMLDecodeError as error:
            raise PolicyError([f"{path}: is no TOML: {error}; correct that place"]) from None
        except RecursionError:
            raise PolicyError([f"{path}: is nested too deeply for a policy"]) from None
        reader = _Reader(path)
        principals, anyone = reader.read(document)
        if reader.problems:
            raise PolicyError(reader.problems)
        return cls(hashlib.sha256(data).hexdigest()[:12], principals, anyone)

    def standing(self, principal_id: str) -> Standing:
        """Tell what decides the rights of a principal: its own entry, that of anyone, or no entry."""
        entry = self._principals.get(principal_id)
        if entry is not None:
            return "disabled" if entry.is_disabled else "named"
        return "unknown" if self._anyone is None else "anyone"

    def is_disabled(self, principal_id: str) -> bool:
        """Tell whether a principal is named and disabled."""
        entry = self._principals.get(principal_id)
        return entry is not None and entry.is_disabled

    def rights_of(self, principal_id: str) -> Rights:
        """Tell what a principal may do: :data:`NOTHING` if it is disabled, or neither named nor anyone.

        ``self`` in the scopes of an empty id allows nothing: all principals without an id
        would share it.
        """
        known = self._rights.get(principal_id)
        if known is not None:
            return known
        entry = self._principals.get(principal_id, self._anyone)
        if entry is None or entry.is_disabled:
            rights = NOTHING
        else:
            rights = Rights.of(entry.scopes, owner=principal_id, tenant=entry.tenant)
        # Ids come from tokens, without end; the same rights are one object, quick to compare.
        for memory in (self._rights, self._same):
            if len(memory) >= _REMEMBERED:
                memory.clear()
        rights = self._same.setdefault(rights, rights)
        self._rights[principal_id] = rights
        return rights

    def __repr__(self) -> str:
        return f"<Policy {self.version} {len(self._principals)} principals>"


def read_policy_file(path: Path) -> bytes:
    """Read the file of a policy, as it is.

    :raises PolicyError: it cannot be read, or is too large.
    """
    try:
        return read_bounded(path, _MAX_BYTES)
    except FileRefused as error:
        raise PolicyError([str(error)]) from error


@final
class PolicySource:
    """The policy of a file or of another source, as it is now.

    A file that has become absent or invalid keeps the policy in force; one error is logged for each such
    version.

    Example::

        source = await PolicySource.open(Path("policy.toml"))
        source.on_change(lambda policy: print(policy.version))
        await source.aclose()
    """

    def __init__(self, source: Callable[[Callable[[Policy], object]], WatchedSource]) -> None:
        """Hold the source; :meth:`open` and :meth:`open_from` are the ways in."""
        self._policy: Policy | None = None
        self._listeners: Listeners[Policy] = Listeners()
        self._source = source(self._adopt)

    @classmethod
    async def open(cls, path: Path, on_change: Callable[[Policy], object] | None = None) -> Self:
        """Read the policy and watch its file until :meth:`aclose`; a change is in force within a second.

        :param on_change: as :meth:`on_change`.
        :raises PolicyError: it cannot be read or used.
        """

        def watched(adopt: Callable[[Policy], object]) -> WatchedSource:
            return WatchedFile(
                path, parse=partial(Policy.parse, path=path), adopt=adopt, max_bytes=_MAX_BYTES
            )

        return await cls.open_from(watched, on_change)

    @classmethod
    async def open_from(
        cls,
        source_of: Callable[[Callable[[Policy], object]], WatchedSource],
        on_change: Callable[[Policy], object] | None = None,
    ) -> Self:
        """Read the policy of another source and watch it until :meth:`aclose`.

        :param source_of: makes the source, given what it calls with each policy.
        :param on_change: as :meth:`on_change`.
        :raises PolicyError: it cannot be read or used.
        """
        source = cls(source_of)
        try:
            await source._source.start()
        except PolicyError:
            raise
        except FileRefused as error:
            raise PolicyError([str(error)]) from error
        if on_change is not None:
            source.on_change(on_change)
        return source

    @property
    def current(self) -> Policy:
        """The policy in force."""
        if self._policy is None:
            raise RuntimeError("the policy was never read; PolicySource.open does")
        return self._policy

    def on_change(self, callback: Callable[[Policy], object]) -> Callable[[], None]:
        """Call with the new policy whenever another version has come into force, in a turn of the loop.

        :returns: what ends the calls (idempotent).
        """
        return self._listeners.add(callback)

    async def check_now(self) -> None:
        """Look at the source now; when this returns it is in force and told, or refused."""
        await self._source.check_now()

    async def aclose(self) -> None:
        """Watch no more; the policy stays. Idempotent."""
        await self._source.aclose()

    def _adopt(self, policy: Policy) -> None:
        before, self._policy = self._policy, policy
        if before is None or before.version == policy.version:
            return
        logger.info("policy_changed", version=policy.version, before=before.version)
        self._listeners.tell(policy)


class _Reader:
    """Reads the tables of a document, and goes on after whatever is wrong."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._path = path

    def read(self, document: Mapping[str, object]) -> tuple[dict[str, _Entry], _Entry | None]:
        self._only(document, "", ("roles", "principals", "anyone"), what="table")
        roles = {
            name: self._role(content, _place("roles", name))
            for name, content in self._table(document.get("roles", {}), "roles").items()
        }
        principals = {
            name: self._entry(content, _place("principals", name), roles, may_be_disabled=True)
            for name, content in self._table(document.get("principals", {}), "principals").items()
        }
        if "" in principals:
            self._complain(_place("principals", ""), "an id is not empty; name the principal")
        anyone = document.get("anyone")
        return principals, None if anyone is None else self._entry(anyone, "anyone", roles)

    def _role(self, content: object, place: str) -> tuple[Scope, ...]:
        table = self._table(content, place)
        self._only(table, place, ("scopes",))
        if isinstance(content, dict) and "scopes" not in table:
            self._complain(place, 'has no scopes; write scopes = ["kind:action:pattern"]')
        return self._scopes(table, place)

    def _entry(
        self,
        content: object,
        place: str,
        roles: Mapping[str, tuple[Scope, ...]],
        *,
        may_be_disabled: bool = False,
    ) -> _Entry:
        table = self._table(content, place)
        keys = ("tenant", "roles", "scopes", *(("disabled",) if may_be_disabled else ()))
        self._only(table, place, keys)
        is_disabled = table.get("disabled", False) if may_be_disabled else False
        if not isinstance(is_disabled, bool):
            self._complain(f"{place}.disabled", "is not true or false")
            is_disabled = True
        scopes: list[Scope] = []
        for number, role in self._texts(table, place, "roles"):
            if role in roles:
                scopes += roles[role]
            else:
                known = ", ".join(sorted(roles)) or "none"
                self._complain(
                    f"{place}.roles[{number}]", f"unknown role {role!r}; the roles of this file: {known}"
                )
        scopes += self._scopes(table, place)
        if sum(scope.is_glob for scope in set(scopes)) > _MAX_GLOBS:
            self._complain(place, f"has over {_MAX_GLOBS} scopes with a *, with its roles; use wider ones")
        tenant = self._tenant(table, place, is_needed=isinstance(content, dict) and not is_disabled)
        return _Entry(tenant, tuple(dict.fromkeys(scopes)), is_disabled)

    def _tenant(self, table: Mapping[str, object], place: str, *, is_needed: bool) -> str | None:
        tenant = table.get("tenant")
        if tenant is None:
            if is_needed:
                self._complain(place, 'has no tenant; write tenant = "NAME", or "*" for every tenant')
            return None
        if not isinstance(tenant, str) or not 0 < len(tenant) <= _MAX_NAME:
            self._complain(f"{place}.tenant", f"is not a text of 1 to {_MAX_NAME} characters")
            return None
        if "*" in tenant and tenant != EVERY_TENANT:
            self._complain(
                f"{place}.tenant", f"{tenant!r} is no one tenant; write its name, or * for every tenant"
            )
        return tenant

    def _scopes(self, table: Mapping[str, object], place: str) -> tuple[Scope, ...]:
        scopes: list[Scope] = []
        for number, text in self._texts(table, place, "scopes"):
            try:
                scopes.append(parse_scope(text))
            except ScopeError as error:
                self._complain(f"{place}.scopes[{number}]", f"{text[:_MAX_NAME]!r}: {error}")
        return tuple(scopes)

    def _texts(self, table: Mapping[str, object], place: str, key: str) -> list[tuple[int, str]]:
        value = table.get(key, [])
        if not isinstance(value, list):
            self._complain(f"{place}.{key}", f'is not a list of texts; write {key} = ["…"]')
            return []
        for number, item in enumerate(value):
            if not isinstance(item, str):
                self._complain(f"{place}.{key}[{number}]", "is not a text; put it into quotes")
        return [(number, item) for number, item in enumerate(value) if isinstance(item, str)]

    def _table(self, value: object, place: str) -> Mapping[str, object]:
        if isinstance(value, dict):
            return value
        self._complain(place, f"is not a table; write [{place}]")
        return {}

    def _only(
        self, table: Mapping[str, object], place: str, known: tuple[str, ...], *, what: str = "key"
    ) -> None:
        for key in table:
            if key not in known:
                self._complain(_place(place, key), f"unknown {what}; known here: {', '.join(known)}")

    def _complain(self, place: str, text: str) -> None:
        self.problems.append(f"{self._path}: {place}: {text}")


def _place(table: str, key: str) -> str:
    is_bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    name = key if is_bare else '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{table}.{name}" if table else name

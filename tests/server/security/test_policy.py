"""The access policy: what scopes mean, what a file may say, and when a changed file is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_server.security.policy import (
    EVERYTHING,
    NOTHING,
    Policy,
    PolicyError,
    PolicySource,
    Rights,
)
from circuit_breaker_server.security.scopes import (
    ACTIONS,
    KINDS,
    Action,
    Kind,
    Scope,
    ScopeError,
    parse_scope,
)
from circuit_breaker_server.security.watched_file import FileRefused, WatchedFile, _signature

PATH = Path("policy.toml")
GOOD = """
[roles.viewer]
scopes = ["workflow:read:wf_*", "cost:read:self"]

[principals."user-7"]
tenant = "acme"
roles = ["viewer"]
scopes = ["mcp:admin:session/*"]
disabled = false

[principals.gone]
disabled = true

[anyone]
roles = ["viewer"]
tenant = "public"
"""


def policy(text: str) -> Policy:
    return Policy.parse(text.encode(), PATH)


def rights(*scopes: str, owner: str = "user-7", tenant: str | None = "acme") -> Rights:
    return Rights.of([parse_scope(scope) for scope in scopes], owner=owner, tenant=tenant)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as refused:
        policy(text)
    assert str(refused.value) == "; ".join(refused.value.problems)
    return refused.value.problems


def matches(glob: str, name: str) -> bool:
    """The plainest matcher there is."""
    if not glob:
        return not name
    if glob[0] == "*":
        return any(matches(glob[1:], name[start:]) for start in range(len(name) + 1))
    return bool(name) and name[0] == glob[0] and matches(glob[1:], name[1:])


def permits(scope: Scope, owner: str, kind: Kind, action: Action, name: str) -> bool:
    if scope.kind != kind or ACTIONS.index(scope.action) < ACTIONS.index(action):
        return False
    if scope.is_own:
        return bool(owner) and name == {"cost": "user/", "mcp": "session/"}.get(kind, "") + owner
    return matches(scope.pattern, name)


PREFIXES = {"cost": ("user/", "project/"), "mcp": ("server/", "session/")}
pieces = st.lists(st.sampled_from(["a", "b", "*", "\n", ".", "self", "\\"]), min_size=1, max_size=5).map(
    "".join
)


@st.composite
def scope_texts(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["workflow", "cost", "mcp"]))
    action = draw(st.sampled_from(ACTIONS))
    prefix = draw(st.sampled_from(PREFIXES.get(kind, ("",))))
    pattern = draw(st.one_of(st.just("self"), st.just("*"), pieces.map(lambda piece: prefix + piece)))
    return f"{kind}:{action}:{pattern}"


scope_lists = st.lists(scope_texts(), max_size=6)
owners = st.sampled_from(["", "a", "self", "*", "a*b"])
names = st.tuples(
    st.sampled_from(["", "user/", "project/", "server/", "session/"]),
    st.lists(st.sampled_from(["a", "b", "*", "\n", ".", "self", "\\", "c"]), max_size=6).map("".join),
).map("".join)
kinds: st.SearchStrategy[Kind] = st.sampled_from(("workflow", "cost", "mcp", "log"))
actions: st.SearchStrategy[Action] = st.sampled_from(ACTIONS)


@given(scope_lists, owners, kinds, actions, names)
def test_compiled_rights_allow_what_the_plainest_matcher_allows(
    texts: list[str], owner: str, kind: Kind, action: Action, name: str
) -> None:
    scopes = [parse_scope(text) for text in texts]
    compiled = Rights.of(scopes, owner=owner, tenant="t")
    allowed = any(permits(scope, owner, kind, action, name) for scope in scopes)
    assert compiled.allows(kind, action, name) == allowed
    applying = [s for s in scopes if s.kind == kind and ACTIONS.index(s.action) >= ACTIONS.index(action)]
    assert compiled.allows_all(kind, action) == any(s.pattern == "*" for s in applying)
    assert compiled.allows_any(kind, action) == any(owner or not s.is_own for s in applying)


@given(scope_lists, scope_lists, owners, owners)
def test_rights_are_equal_exactly_if_they_allow_the_same(
    one: list[str], other: list[str], owner: str, another: str
) -> None:
    scopes, others = [parse_scope(text) for text in one], [parse_scope(text) for text in other]
    first, second = (
        Rights.of(scopes, owner=owner, tenant="t"),
        Rights.of(others, owner=another, tenant="t"),
    )
    # A character that is in no pattern stands for all that a * may stand for.
    witnesses = {
        name
        for scope in scopes + others
        for who in (owner, another)
        for name in [scope.own_name(who) if scope.is_own else scope.pattern.replace("*", "#")]
    }
    same = all(
        first.allows(kind, action, name) == second.allows(kind, action, name)
        for kind in KINDS
        for action in ACTIONS
        for name in witnesses
    )
    assert (first == second) == same
    if same:
        assert hash(first) == hash(second)
        assert first.scopes == second.scopes


@given(scope_lists, st.sampled_from(["", "a", "self"]))
def test_the_scopes_of_rights_say_the_same_again(texts: list[str], owner: str) -> None:
    compiled = rights(*texts, owner=owner)
    assert rights(*compiled.scopes, owner="somebody else") == compiled
    assert rights(*texts, *reversed(texts), owner=owner) == compiled


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        ("workflow:read", "kind:action:pattern"),
        ("workflow:read:", "no pattern"),
        ("wrkflow:read:x", "workflow, agent, llm, provider, cost, mcp, rule, nats, log"),
        ("workflow:see:x", "read, write, admin"),
        (" workflow:read:x", "unknown kind"),
        ("provider:admin:self", "belongs to a tenant"),
        ("cost:read:u*", "user/PATTERN or project/PATTERN or self or *"),
        ("cost:read:user/", "user/PATTERN"),
        ("mcp:read:srv", "server/PATTERN or session/PATTERN or self or *"),
        ("log:read:" + "x" * 600, "over 512"),
    ],
)
def test_a_text_that_is_no_scope_is_refused_with_what_is_allowed(scope: str, says: str) -> None:
    with pytest.raises(ScopeError) as refused:
        parse_scope(scope)
    assert says in str(refused.value)


def test_admin_implies_write_and_write_implies_read() -> None:
    writer = rights("rule:write:r", "nats:admin:n")
    assert [writer.allows("rule", action, "r") for action in ACTIONS] == [True, True, False]
    assert [writer.allows("nats", action, "n") for action in ACTIONS] == [True, True, True]


def test_self_is_the_own_id_under_the_name_that_the_kind_has_for_it() -> None:
    own = rights("workflow:read:self", "cost:read:self", "mcp:read:self")
    assert own.allows("workflow", "read", "user-7")
    assert own.allows("cost", "read", "user/user-7")
    assert own.allows("mcp", "read", "session/user-7")
    assert not own.allows("cost", "read", "project/user-7")
    assert not own.allows("mcp", "read", "server/user-7")
    assert own.scopes == ("workflow:read:user-7", "cost:read:user/user-7", "mcp:read:session/user-7")


def test_an_id_that_is_literally_self_is_written_with_a_backslash() -> None:
    literal = rights(r"workflow:read:\self", r"agent:read:\\self")
    assert literal.allows("workflow", "read", "self")
    assert literal.allows("agent", "read", r"\self")
    assert not literal.allows("workflow", "read", "user-7")


def test_an_id_with_a_star_in_it_is_no_glob() -> None:
    sly = rights("workflow:admin:self", "cost:read:self", owner="*")
    assert not sly.allows("workflow", "read", "wf_1")
    assert not sly.allows("cost", "read", "user/user-7")
    assert sly.allows("workflow", "read", "*")
    assert not sly.allows_all("workflow", "read")


def test_self_is_nobody_for_an_empty_id() -> None:
    assert rights("workflow:read:self", "cost:read:self", owner="", tenant=None) == NOTHING


def test_a_glob_with_many_stars_takes_no_longer_for_a_hostile_name() -> None:
    hostile = rights("workflow:read:" + "*a" * 40 + "b")
    assert not hostile.allows("workflow", "read", "a" * 20_000)


def test_rights_with_self_differ_by_principal_and_others_do_not() -> None:
    assert rights("cost:read:self", owner="a") != rights("cost:read:self", owner="b")
    assert rights("cost:read:*", owner="a") == rights("cost:read:*", owner="b")
    assert rights("cost:read:*", tenant="a") != rights("cost:read:*", tenant="b")
    assert rights("cost:read:*", "cost:read:self", owner="a") == rights("cost:read:*", owner="b")
    assert rights() != "rights"


def test_a_tenant_is_one_or_every_or_none() -> None:
    assert rights(tenant="acme").in_tenant("acme")
    assert not rights(tenant="acme").in_tenant("*")
    assert rights(tenant="*").in_tenant("acme")
    assert not NOTHING.in_tenant("acme")


def test_everything_and_nothing_are_what_they_say() -> None:
    for kind in KINDS:
        for action in ACTIONS:
            assert EVERYTHING.allows(kind, action, "")
            assert EVERYTHING.allows_all(kind, action)
            assert not NOTHING.allows(kind, action, "")
            assert not NOTHING.allows_any(kind, action)
    assert EVERYTHING.is_unlimited
    assert EVERYTHING.tenant == "*"
    assert not NOTHING.is_unlimited
    every = [f"{kind}:admin:*" for kind in KINDS]
    assert rights(*every, tenant="*") == EVERYTHING
    assert not rights(*every, tenant="acme").is_unlimited
    assert not rights(*every[1:], tenant="*").is_unlimited
    assert repr(EVERYTHING) == "<Rights everything tenant='*'>"


def test_rights_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        NOTHING.tenant = "acme"  # type: ignore[misc]


def test_a_kind_that_does_not_exist_is_an_error_and_not_a_refusal() -> None:
    with pytest.raises(KeyError):
        EVERYTHING.allows("workflows", "read", "x")  # type: ignore[arg-type]


def test_a_policy_gives_rights_by_name_by_anyone_or_none() -> None:
    read = policy(GOOD)
    named, stranger = read.rights_of("user-7"), read.rights_of("user-8")
    assert named == rights("workflow:read:wf_*", "cost:read:self", "mcp:admin:session/*")
    assert stranger == rights("workflow:read:wf_*", "cost:read:self", owner="user-8", tenant="public")
    assert read.rights_of("gone") is NOTHING
    assert read.is_disabled("gone")
    assert not read.is_disabled("user-7")
    assert not read.is_disabled("user-8")
    assert [read.standing(who) for who in ("user-7", "gone", "user-8")] == ["named", "disabled", "anyone"]
    assert len(read.version) == 12


def test_without_anyone_a_stranger_may_do_nothing() -> None:
    empty = policy("")
    assert empty.rights_of("user-8") is NOTHING
    assert empty.standing("user-8") == "unknown"


def test_rights_are_remembered_and_the_same_rights_are_one_object() -> None:
    read = policy('[anyone]\ntenant = "t"\nscopes = ["workflow:read:*"]\n')
    first = read.rights_of("u0")
    for number in range(10_000):
        assert read.rights_of(f"u{number}") == first
    assert read.rights_of("u9999") is read.rights_of("u9998")
    assert len(read._rights) <= 4096


def test_everything_wrong_with_a_policy_is_told_at_once_with_file_and_place() -> None:
    found = problems(
        """
        colour = "red"
        [roles.viewer]
        scopes = ["wrkflow:read:x"]
        kinds = []
        [roles.empty]
        [principals.a]
        tenant = "acme"
        roles = ["vewer", 7]
        scopes = "workflow:read:x"
        [principals."b.c"]
        tenant = "ac*"
        disabled = "no"
        scopes = ["cost:read:x"]
        [principals]
        d = 7
        "" = { tenant = "x" }
        [anyone]
        disabled = true
        """
    )
    assert all(problem.startswith("policy.toml: ") for problem in found)
    expected = [
        "colour: unknown table; known here: roles, principals, anyone",
        "roles.viewer.scopes[0]: 'wrkflow:read:x': unknown kind 'wrkflow'; the kinds are workflow, agent",
        "roles.viewer.kinds: unknown key; known here: scopes",
        "roles.empty: has no scopes",
        "principals.a.roles[0]: unknown role 'vewer'; the roles of this file: empty, viewer",
        "principals.a.roles[1]: is not a text",
        "principals.a.scopes: is not a list of texts",
        "principals.\"b.c\".tenant: 'ac*' is no one tenant",
        'principals."b.c".disabled: is not true or false',
        "principals.\"b.c\".scopes[0]: 'cost:read:x': pattern",
        "principals.d: is not a table; write [principals.d]",
        'principals."": an id is not empty',
        "anyone.disabled: unknown key; known here: tenant, roles, scopes",
        "anyone: has no tenant",
    ]
    for text in expected:
        assert sum(text in problem for problem in found) == 1, (text, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[roles\n", "at line 1"),
        (b"\xff", "UTF-8"),
        (b"x = " + b"[" * 100_000, "nested"),
        (b"roles = 7", "roles: is not a table"),
        (b"[anyone]\ntenant = 7", "anyone.tenant: is not a text"),
        (b"[anyone]\ntenant = '" + b"t" * 256 + b"'", "anyone.tenant: is not a text of 1 to 255"),
        (
            b"[anyone]\ntenant = 't'\nscopes = ["
            + b"".join(b"'log:read:%d*'," % n for n in range(257))
            + b"]",
            "256",
        ),
    ],
)
def test_a_file_that_is_no_policy_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        Policy.parse(content, PATH)
    assert says in str(refused.value)
    assert str(refused.value).startswith("policy.toml: ")


async def test_a_policy_that_cannot_be_read_is_no_start(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    for read in (lambda: PolicySource.open(path), lambda: asyncio.to_thread(Policy.load, path)):
        with pytest.raises(PolicyError, match=r"policy\.toml: cannot be read \(No such file"):
            await read()
    path.write_text("[roles")
    with pytest.raises(PolicyError, match="is no TOML"):
        await PolicySource.open(path)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    for read in (lambda: PolicySource.open(path), lambda: asyncio.to_thread(Policy.load, path)):
        with pytest.raises(PolicyError, match="is over 1048576 bytes"):
            await read()


async def test_a_changed_policy_is_in_force_and_told_and_a_broken_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    told: list[Policy] = []
    source = await PolicySource.open(path, told.append)
    try:
        before = source.current
        await source.check_now()
        assert (source.current, told) == (before, [])

        for _ in range(2):
            path.write_text("[roles")
            await source.check_now()
        path.unlink()
        await source.check_now()
        await source.check_now()
        assert (source.current, told) == (before, [])
        logged = capsys.readouterr().err.splitlines()
        assert len(logged) == 2
        assert "is no TOML" in logged[0]
        assert "stays in force" in logged[1]

        path.write_text(GOOD)
        await source.check_now()
        assert (source.current.version, told) == (before.version, [])

        path.write_text(GOOD.replace("disabled = false", "disabled = true"))
        await source.check_now()
        assert told == [source.current]
        assert source.current.is_disabled("user-7")
        assert source.current.rights_of("user-7") is NOTHING
        assert before.rights_of("user-7") is not NOTHING
        assert capsys.readouterr().err == ""
    finally:
        await source.aclose()
        await source.aclose()


async def test_a_change_is_seen_by_the_watch_itself(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    changed = asyncio.Event()
    source = await PolicySource.open(path, lambda _: changed.set())
    path.write_text("")
    async with asyncio.timeout(30):
        await changed.wait()
    assert source.current.rights_of("user-7") is NOTHING
    await source.aclose()


async def test_who_is_told_may_fail_or_leave_without_the_others_missing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    source = await PolicySource.open(path)
    told: list[str] = []

    def fail(_: Policy) -> None:
        raise RuntimeError("at its worst")

    source.on_change(fail)
    leave = source.on_change(lambda _: told.append("left"))
    source.on_change(lambda policy: told.append(policy.version))
    leave()
    leave()
    path.write_text("")
    await source.check_now()
    assert told == [source.current.version]
    assert "listener_failed" in capsys.readouterr().err
    await source.aclose()


class Watched:
    """A file that is looked at only when a test says so."""

    def __init__(self, path: Path, parse: Callable[[bytes], bytes] = bytes) -> None:
        self.taken: list[bytes] = []
        self.file = WatchedFile(
            path, parse=parse, adopt=self.taken.append, max_bytes=100, interval_seconds=3600
        )

    async def look(self) -> None:
        await self.file._look(at_once=False)


async def test_a_file_in_the_midst_of_being_written_is_left_until_it_rests(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    watched = Watched(path)
    await watched.file.start()
    for content in (b"", b"ha", b"half"):
        path.write_bytes(content)
        await watched.look()
    path.unlink()
    await watched.look()
    path.write_bytes(b"half of")
    await watched.look()
    assert watched.taken == [b"whole"]
    await watched.look()
    assert watched.taken == [b"whole", b"half of"]
    await watched.file.aclose()


async def test_a_change_that_leaves_size_and_time_as_they_were_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    watched = Watched(path)
    await watched.file.start()
    path.write_bytes(b"two")
    # As if the clock of the file system had not moved on between the two.
    watched.file._read = _signature(path)
    await watched.look()
    await watched.look()
    assert watched.taken == [b"one", b"two"]
    await watched.file.aclose()


async def test_a_parser_with_a_fault_ends_no_watch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")

    def parse(data: bytes) -> bytes:
        if data == b"x":
            raise FileRefused("it says x")
        return bytes([int(data)])

    watched = Watched(path, parse)
    await watched.file.start()
    for content in (b"x", b"not a number", b"2"):
        path.write_bytes(content)
        await watched.file.check_now()
    assert watched.taken == [b"\1", b"\2"]
    logged = capsys.readouterr().err.splitlines()
    assert len(logged) == 2
    assert "it says x" in logged[0]
    assert "ValueError" in logged[1]
    assert "not a number" not in logged[1]
    await watched.file.aclose()


async def test_a_file_that_may_not_be_read_keeps_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    watched = Watched(path)
    await watched.file.start()
    path.unlink()
    path.mkdir()
    for _ in range(3):
        await watched.file.check_now()
    assert watched.taken == [b"1"]
    assert capsys.readouterr().err.count("cannot be read (Is a directory)") == 1
    path.rmdir()
    path.write_bytes(b"1")
    await watched.file.check_now()
    assert watched.taken == [b"1"]
    await watched.file.aclose()

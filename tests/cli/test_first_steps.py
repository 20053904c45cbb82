"""From a terminal: a workflow, a resource, an activity, the schema, a secret and a token."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import build_schema

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.query import _as_table
from tests.cli.process import complain, running, serving
from tests.integration.strawberry_server import strawberry_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("data")) as url:
        yield url


def answer(*arguments: str) -> object:
    with running(*arguments) as command:
        assert command.end() == ExitCode.OK, command.err
        assert command.err == []
        (line,) = command.out
        return json.loads(line)


def test_three_commands_lead_to_an_event(url: str) -> None:
    with running("watch", "resource-updates", "--url", url, "--count", "2", "--field", "state") as watch:
        watch.wait_for("^live: ")
        done = answer("resource", "do", "--example", "--url", url)
        assert isinstance(done, dict)
        assert done["state"] == "review"
        assert watch.end() == ExitCode.OK
        assert watch.out == ['"draft"', '"review"']


def test_a_workflow_and_its_resources(url: str) -> None:
    made = answer(
        *("workflow", "create", "Order", "--url", url, "--state", "new", "--state", "paid"),
        *("--activity", "pay: new -> paid", "--activity", "reset:new,paid->new"),
    )
    assert isinstance(made, dict)
    assert (made["name"], made["initialState"]) == ("Order", "new")
    assert [(each["id"], each["fromStates"], each["toState"]) for each in made["activities"]] == [
        ("pay", ["new"], "paid"),
        ("reset", ["new", "paid"], "new"),
    ]
    resource = answer("resource", "create", made["id"], "--url", url, "-d", "title=Hello", "-d", "pages=3")
    assert isinstance(resource, dict)
    assert resource["data"] == {"title": "Hello", "pages": 3}
    done = answer("resource", "do", resource["id"], "pay", "--url", url, "-d", "by=ada")
    assert isinstance(done, dict)
    assert (done["state"], done["history"][-1]["data"]) == ("paid", {"by": "ada"})
    listed = answer("resource", "list", "--workflow-id", made["id"], "--url", url)
    assert isinstance(listed, list)
    assert [each["id"] for each in listed] == [resource["id"]]
    workflows = answer("workflow", "list", "--url", url)
    assert isinstance(workflows, list)
    assert made["id"] in [each["id"] for each in workflows]


def test_lists_are_tables_on_a_terminal(url: str) -> None:
    answer("resource", "do", "--example", "--url", url)
    parent, child = pty.openpty()
    try:
        command = [sys.executable, "-m", "circuit_breaker_sdk.cli", "workflow", "list", "--url", url]
        subprocess.run(command, stdout=child, check=True, timeout=30)
        head, first = os.read(parent, 65_536).decode().splitlines()[:2]
    finally:
        os.close(parent)
        os.close(child)
    assert head.split() == ["ID", "NAME", "BEGINS", "STATES"]
    assert first.split()[1:] in (
        ["Document", "review", "draft", "draft", "review", "approved"],
        ["Order", "new", "new", "paid"],
    )


@pytest.mark.parametrize(
    ("data", "heads"),
    [
        ({"items": [{"id": 1, "name": None}, {"id": 2, "name": "b"}]}, ["id", "name"]),
        ({"items": [{"id": 1}, {"name": "b"}]}, None),
        ({"items": [{"id": [1]}]}, None),
        ({"items": [{}]}, None),
        ({"items": []}, None),
        ({"items": [1]}, None),
        ({"items": None}, None),
        ({"a": [{"id": 1}], "b": [{"id": 1}]}, None),
        ([{"id": 1}], None),
    ],
)
def test_what_a_query_lists_is_a_table_where_it_is_flat(data: object, heads: list[str] | None) -> None:
    found = _as_table(data)
    assert (found and found.heads) == heads
    if found is not None:
        assert found.rows == [["1", ""], ["2", "b"]]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("resource", "do", "nobody", "pay"), ExitCode.REFUSED, "there is no resource 'nobody'"),
        (("resource", "create", "nobody"), ExitCode.REFUSED, "nobody"),
    ],
)
def test_what_is_refused_is_one_line(url: str, arguments: tuple[str, ...], status: int, says: str) -> None:
    code, line = complain(*arguments, "--url", url)
    assert code == status
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("workflow", "create", "X", "--state", "a", "--activity", "b>c"),
            "an activity is given as ID:FROM->TO",
        ),
        (("workflow", "create", "X"), "--state"),
        (("resource", "do", "r-1"), "give a resource and an activity, or --example"),
        (("resource", "do"), "give a resource and an activity, or --example"),
        (("resource", "do", "--example", "r-1", "pay"), "give a resource and an activity, or --example"),
        (("resource", "create", "w-1", "-d", "title"), "a variable is given as name=value"),
        (
            ("token", "make", "--key-file", "k", "--subject", "a", "--expires-in", "soon"),
            "a duration is a number",
        ),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], says: str) -> None:
    with running(*arguments) as command:
        assert command.end() == ExitCode.USAGE
        assert says in " ".join(command.err)


def test_the_schema_of_our_server(url: str) -> None:
    with running("schema", "--url", url) as command:
        assert command.end() == ExitCode.OK
        schema = build_schema("\n".join(command.out))
    assert schema.subscription_type is not None
    assert "resourceUpdates" in schema.subscription_type.fields
    introspection = answer("schema", "--json", "--url", url)
    assert isinstance(introspection, dict)
    assert "__schema" in introspection


async def test_the_schema_of_another_server() -> None:
    def read(url: str) -> list[str]:
        with running("schema", "--url", url) as command:
            assert command.end() == ExitCode.OK
            return command.out

    async with strawberry_server() as url:
        lines = await asyncio.to_thread(read, url)
    assert "type Subscription {" in lines


def test_a_secret_and_a_token_let_a_caller_in(tmp_path: Path) -> None:
    key = tmp_path / "token.key"
    with running("token", "key", str(key)) as command:
        assert command.end() == ExitCode.OK
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_text()
    code, line = complain("token", "key", str(key))
    assert (code, key.read_text()) == (ExitCode.UNREACHABLE, secret)
    assert "File exists" in line
    options = ("--key-file", str(key), "--issuer", "https://issuer.example", "--audience", "engine")
    with running("token", "make", *options, "--subject", "ada", "--claim", 'roles=["a"]') as command:
        assert command.end() == ExitCode.OK
        (token,) = command.out
        assert secret not in token
    asked = (f"--token-key-file={key}", "--token-issuer=https://issuer.example", "--token-audience=engine")
    with running("serve", "--port=0", f"--data={tmp_path}/data", *asked) as server:
        url = server.wait_for(r"ready: (https?://\S+/graphql)")
        assert answer("workflow", "list", "--url", url, "--token", token) == []
        code, line = complain("workflow", "list", "--url", url)
        assert code == ExitCode.UNAUTHENTICATED
        assert "give a token: --token, or CIRCUIT_BREAKER_TOKEN" in line


@pytest.mark.parametrize(
    ("content", "algorithm", "says"),
    [
        (b"short", "HS256", "a secret of 5 bytes; HS256 needs at least 32"),
        (b"short", "RS256", "is no PEM or JWK of a key for RS256"),
        (b"\xff", "EdDSA", "is no PEM or JWK of a key for EdDSA"),
        (b"x" * 32, "none", "no key is for none"),
    ],
)
def test_a_key_that_cannot_sign_is_named(tmp_path: Path, content: bytes, algorithm: str, says: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    code, line = complain(
        "token", "make", "--key-file", str(file), "--subject", "a", "--algorithm", algorithm
    )
    assert code == ExitCode.UNREACHABLE
    assert says in line
    assert str(file) in line

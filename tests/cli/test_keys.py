"""API keys and the check of a policy from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from circuit_breaker_sdk.cli.keys import duration
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from circuit_breaker_server.security.api_key_records import ApiKey, ApiKeyRefused
from circuit_breaker_server.security.api_keys import ApiKeys
from tests.cli.process import complain, running

POLICY = """
[roles.viewer]
scopes = ["workflow:write:wf_*", "workflow:read:wf_1", "cost:read:self"]
[principals.user-7]
tenant = "acme"
roles = ["viewer"]
[principals.gone]
disabled = true
"""


def ask(*arguments: str) -> tuple[list[str], list[str]]:
    with running(*arguments) as command:
        assert command.end() == 0, command.err
        return command.out, command.err


def refused(*arguments: str) -> tuple[int, str]:
    with running(*arguments) as command:
        status = command.end()
        assert command.out == []
        return status, " ".join(command.err)


def test_a_key_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    assert ask("keys", "list", "--json", *data) == ([], [])
    out, err = ask(
        "keys", "create", "--principal", "user-7", "--label", "my\tlaptop", "--expires-in", "90d", *data
    )
    (text,) = out
    assert re.fullmatch(r"cbk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", text)
    id_, secret = text[4:16], text[17:]
    assert err[0].startswith(f"created: key {id_} for user-7, until ")
    assert len(err) == 1
    ask("keys", "create", "--principal", "user-8", *data)

    listed, said = ask("keys", "list", "--json", *data)
    first, second = map(json.loads, listed)
    assert (first["id"], first["state"], first["principal"], first["label"]) == (
        *(id_, "active"),
        *("user-7", "my\tlaptop"),
    )
    assert first["created_at"] < first["expires_at"]
    assert (second["principal"], second["expires_at"], second["revoked_at"]) == ("user-8", None, None)

    _, revoked = ask("keys", "revoke", id_, *data)
    assert revoked == [f"revoked: key {id_} of user-7"]
    table, _ = ask("keys", "list", *data)
    assert table[0].split() == ["ID", "STATE", "CREATED", "EXPIRES", "PRINCIPAL", "LABEL"]
    assert table[1].split()[:2] == [id_, "revoked"]
    assert table[1].endswith("user-7     my laptop")
    assert table[2].split()[3:] == ["never", "user-8"]

    status, complaint = refused("keys", "revoke", text, *data)
    assert status == 5
    assert "no key of that id" in complaint
    everything = [*err, *listed, *said, *revoked, *table, complaint]
    assert secret not in "".join(everything)
    assert secret not in (tmp_path / "data" / "api_keys.json").read_text()


async def test_a_key_revoked_by_the_command_is_seen_by_a_running_server(tmp_path: Path) -> None:
    made = ApiKeyFile(tmp_path).create("user-7")
    told: list[ApiKey] = []
    keys = await ApiKeys.open(tmp_path, told.append)
    ask("keys", "revoke", made.key.id, "--data", str(tmp_path))
    await keys.check_now()
    assert told == [made.key]
    with pytest.raises(ApiKeyRefused, match="key revoked"):
        keys.verify(made.text)
    await keys.aclose()


def test_what_has_no_sense_is_wrong_usage_and_makes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for arguments, says in (
        (("--principal", "user-7", "--expires-in", "soon"), "as 90d"),
        (("--principal", ""), "a principal is"),
        (("--label", "x"), "--principal"),
    ):
        status, complaint = refused("keys", "create", *arguments, "--data", str(data))
        assert status == 2
        assert says in complaint
        assert not data.exists()


def test_a_broken_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "api_keys.json"
    path.write_text("{")
    status, line = complain("keys", "list", "--data", str(tmp_path))
    assert status == 3
    assert f"{path}: is no file of keys" in line


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("5m", 300), ("2h", 7200), ("90d", 7_776_000), ("1w", 604_800)]
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "d", "0d", "-1d", "1.5h", "1y", "1d ", "٣d", "99999d", "9" * 5000 + "d"]
)
def test_a_duration_of_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        duration(text)

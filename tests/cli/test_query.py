"""``circuit-breaker query`` as a process: against our server and against one that is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import READY, running

CREATE = """
mutation Create($name: String!, $states: [StateDefinitionInput!]!, $activities: [ActivityDefinitionInput!]!) {
  createWorkflow(
    input: {name: $name, initialState: "draft", states: $states, activities: $activities}
  ) { name states { id } }
}
query Health { health }
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = str(tmp_path_factory.mktemp("data"))
    with running("serve", "--port", "0", "--data", data) as server:
        yield server.wait_for(READY.pattern)


def ask(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "circuit_breaker_sdk.cli", "query", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_document_comes_as_text_from_a_file_or_from_stdin(url: str, tmp_path: Path) -> None:
    file = tmp_path / "health.graphql"
    file.write_text("{ health }", encoding="utf-8")
    for document, stdin in (("{ health }", ""), (f"@{file}", ""), ("-", "{ health }")):
        assert ask(document, "--url", url, stdin=stdin) == (0, '{"health":"ok"}\n', "")


def test_a_mutation_takes_variables_as_json_as_text_and_from_a_file(url: str, tmp_path: Path) -> None:
    states = tmp_path / "states.json"
    of_type = {"draft": "INITIAL", "done": "TERMINAL"}
    given = [
        {"id": name, "name": name, "workflowId": "", "stateType": kind, "isInitial": name == "draft"}
        for name, kind in of_type.items()
    ]
    states.write_text(json.dumps(given), encoding="utf-8")
    status, out, err = ask(
        CREATE,
        "--operation",
        "Create",
        "-v",
        "name=invoices, all of them",
        "-v",
        f"states=@{states}",
        "-v",
        'activities=[{"id": "do", "fromStates": ["draft"], "toState": "done", "conditions": []}]',
        "--url",
        url,
    )
    assert err == ""
    assert status == 0
    made = json.loads(out)["createWorkflow"]
    assert made == {"name": "invoices, all of them", "states": [{"id": "draft"}, {"id": "done"}]}


def test_errors_of_the_server_are_lines_on_stderr_and_status_5(url: str) -> None:
    status, out, err = ask("{ health nothing }", "--url", url)
    assert (status, out) == (5, "")
    assert err.startswith("error: Cannot query field 'nothing' on type 'Query'.")
    assert err.endswith("line 1, column 10\n")
    status, out, err = ask('{ health resource(id: "none") { id } }', "--url", url)
    assert (status, json.loads(out), err) == (0, {"health": "ok", "resource": None}, "")
    status, out, err = ask("subscription { resourceUpdates { id } }", "--url", url)
    assert (status, out) == (5, "")
    assert "WebSocket" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["  "], "the document is empty"),
        (["@/nowhere/at.all"], "/nowhere/at.all cannot be read: No such file"),
        (["{ a }", "-v", "name"], "a variable is given as name=value, not as 'name'"),
        (["{ a }", "-v", "=1"], "a variable is given as name=value"),
        (["{ a }", "-v", "a=1", "-v", "a=2"], "the variable a is given twice"),
        (["{ a }", "-v", "a=@/nowhere/at.all"], "cannot be read"),
        (["{ a }", "--url", "gopher://x"], "gopher"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], says: str) -> None:
    status, out, err = ask(*arguments)
    assert (status, out) == (2, "")
    assert says in " ".join(err.replace("\u2502", " ").split())


def test_a_server_that_is_not_there_is_status_3() -> None:
    status, out, err = ask("{ health }", "--url", "http://127.0.0.1:9/graphql")
    assert (status, out) == (3, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1

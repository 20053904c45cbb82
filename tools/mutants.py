"""``make mutants``: remove one safeguard at a time, and see that a test or an experiment fails.

Each mutant is a copy of the tree with one place changed. It is killed if an assertion of a test fails, or if
an experiment finds what it looks for; which one is printed. A mutant that only breaks the program (a
NameError, a TypeError, an import that fails) shows nothing: it is reported as BROKEN. A mutant that survives
means that a safeguard is not tested. Either fails the whole.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

__all__ = ["MUTANTS", "Mutant"]

_ROOT = Path(__file__).parents[1]
_SDK, _SERVER = "src/circuit_breaker_sdk", "src/circuit_breaker_server"
_COPIED = ("src", "tests", "chaos", "tools", "interop", "examples", "pyproject.toml")
_SECONDS = 240


class Mutant(NamedTuple):
    """A safeguard, where it stands, what is put in its place, and what must fail then.

    ``killer`` is an experiment's name, or a path of tests.
    """

    safeguard: str
    file: str
    old: str
    new: str
    killer: str


MUTANTS = [
    Mutant(
        "resuming behind the last event",
        f"{_SDK}/subscriptions/delivery.py",
        'extensions: dict[str, object] | None = {"resume": {"after": after}} if after is not None else None',
        "extensions: dict[str, object] | None = None",
        "cut storm",
    ),
    Mutant(
        "the cursor moves with each event",
        f"{_SDK}/subscriptions/delivery.py",
        "                self._last_cursor = self.received = resume.cursor\n",
        "                self._last_cursor = resume.cursor\n",
        "cut race",
    ),
    Mutant(
        "nobody is told before the commit",
        f"{_SERVER}/log/writer.py",
        "                self._connection.execute(_INSERT, pack(rows))\n",
        """                if not self._connection.in_transaction:
                    self._connection.execute("BEGIN")
                self._connection.execute(_INSERT, pack(rows))
                if new[-1].offset % 3 == 0:
                    self._connection.execute("COMMIT")
""",
        "crash boundaries",
    ),
    Mutant(
        "the check of the record that a cursor names",
        f"{_SERVER}/gateway/log_reader.py",
        "if check != cursor.check:",
        "if False:",
        "other logs",
    ),
    Mutant(
        "the checksum of a record",
        f"{_SERVER}/log/packing.py",
        'raise Damaged("its checksum is another")',
        "pass",
        "disk",
    ),
    Mutant(
        "the deadline of a pong",
        f"{_SDK}/transports/heartbeat.py",
        "        self._after(_GRACE_SECONDS, self._silent)",
        "        self._after(self._interval_seconds, self._beat)",
        "half-open",
    ),
    Mutant(
        "a socket that is full is not written to",
        f"{_SERVER}/gateway/fan_out.py",
        "if subscriber.live and feed.writable and feed.collect(subscriber, memo):",
        "if subscriber.live and feed.collect(subscriber, memo):",
        "tests/server/gateway",
    ),
    Mutant(
        "off the old link before on the new one",
        f"{_SDK}/subscriptions/delivery.py",
        "            self._link.complete(self.id, self)\n        self.id = id",
        "        self.id = id",
        "token rotation",
    ),
    Mutant(
        "a poll asks behind what it was given",
        f"{_SDK}/connections/poll_connection.py",
        "            polled.after = result.cursor\n",
        "",
        "blocked websocket",
    ),
    Mutant(
        "a lost connection is tried again",
        f"{_SDK}/connections/supervisor.py",
        "seconds = self._backoff.failed(error) if may_wait else None",
        "seconds = None",
        "herd",
    ),
    Mutant(
        "the chain of `prev`",
        f"{_SDK}/subscriptions/delivery.py",
        "if self._last_cursor is not None and resume.prev != self._last_cursor:",
        "if False and resume.prev != self._last_cursor:",
        "tests/subscriptions/test_delivery.py",
    ),
    Mutant(
        "a route is removed by its id and itself",
        f"{_SDK}/protocol/prefix.py",
        "is not route",
        "is None",
        "tests/protocol",
    ),
    Mutant(
        "only a pong that was asked for counts",
        f"{_SDK}/transports/heartbeat.py",
        "        if sent_at is None:\n            return\n",
        "        if sent_at is None:\n            sent_at = self._loop.time()\n",
        "tests/transports/test_heartbeat.py",
    ),
    Mutant(
        "a renewal that is never answered costs the connection",
        f"{_SDK}/subscriptions/recovery.py",
        "                connection.drop(OperationTimeoutError(what, seconds=seconds))",
        "                pass",
        "tests/subscriptions/test_manager.py",
    ),
    Mutant(
        "a stopped stream is read again from before the event that did not fit",
        f"{_SDK}/subscriptions/delivery.py",
        "self.received = self._last_cursor = resume.prev",
        "self.received = self._last_cursor = resume.cursor",
        "tests/integration/test_slow_consumers.py",
    ),
    Mutant(
        "one key for all attempts of a mutation",
        f"{_SDK}/domains/execution.py",
        "            answer = await self._send(data, headers)\n",
        "            answer = await self._send(data, {_KEY_HEADER: str(uuid.uuid4())})\n",
        "tests/integration/test_offline_queue.py",
    ),
    Mutant(
        "no call too many for each event received",
        f"{_SDK}/subscriptions/delivery.py",
        "        self.events_received += 1\n        if self.state is not _LIVE:\n",
        "        self.events_received += 1 if len(payload) else 0\n        if self.state is not _LIVE:\n",
        "tests/hot_path",
    ),
    Mutant(
        "what is framed for one peer serves all",
        f"{_SERVER}/gateway/feed.py",
        "frames = run.framed if run.prefix == prefix else run.frames(prefix)",
        "frames = run.frames(prefix)",
        "tests/hot_path",
    ),
]


class Verdict(NamedTuple):
    """The fate of a mutant: ``killed``, ``SURVIVED`` or ``BROKEN``, and by which assertion or finding."""

    fate: str
    by: str


_ASSERTIONS = ("AssertionError", "Failed", "TimeoutError", "assert ")
"""How the message of a test begins that failed by its own judgement; its own wait may end in a time-out."""
_EXCEPTION = re.compile(r"[A-Za-z]*(?:Error|Exception|Group)\b:?")


def _kill(mutant: Mutant) -> Verdict:
    """Run the killer on a copy with the change."""
    with tempfile.TemporaryDirectory(prefix="circuit-breaker-mutant-") as directory:
        tree = Path(directory)
        for name in _COPIED:
            source = _ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
                )
            else:
                shutil.copy(source, tree / name)
        file = tree / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(
                f"{mutant.file}: {mutant.old.strip()!r} stands there {text.count(mutant.old)} times: "
                "correct the mutant"
            )
        file.write_text(text.replace(mutant.old, mutant.new))
        undefined = _run(tree, "-m", "ruff", "check", "--isolated", "--select", "F821", mutant.file)
        if undefined is None or undefined.returncode != 0:
            return Verdict("BROKEN", "it uses a name that is not defined, or is no Python")
        if mutant.killer.startswith("tests/"):
            return _by_tests(tree, mutant.killer)
        return _by_experiment(tree, mutant.killer)


def _by_tests(tree: Path, killer: str) -> Verdict:
    report = tree / "report.xml"
    options = ("-q", "-x", "--timeout", "60", "-p", "no:cacheprovider", f"--junitxml={report}")
    done = _run(tree, "-m", "pytest", *options, *killer.split())
    if done is not None and done.returncode == 0:
        return Verdict("SURVIVED", killer)
    if done is None or not report.exists():
        return Verdict("BROKEN", "the tests did not end by themselves")
    others: list[str] = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest's, just written)
        for failure in case.iter("failure"):
            said = (failure.get("message") or "").strip()
            if said.startswith(_ASSERTIONS) or "\nE   AssertionError" in (failure.text or ""):
                return Verdict("killed", f"{case.get('name')}: {said.splitlines()[0][:90]}")
            others.append(said.splitlines()[0][:90] if said else "no message")
    return Verdict("BROKEN", (others or ["an error outside of the tests"])[0])


def _by_experiment(tree: Path, killer: str) -> Verdict:
    done = _run(tree, "-m", "chaos", "--json", "--seed", "1", "--only", killer)
    if done is None:
        return Verdict("BROKEN", f"not ended within {_SECONDS} s")
    if done.returncode == 0:
        return Verdict("SURVIVED", killer)
    said = [line.removeprefix("failed: ") for line in done.stderr.splitlines() if line.startswith("failed: ")]
    findings = [line for line in said if not _EXCEPTION.match(line.removeprefix(f"{killer}: "))]
    if findings:
        return Verdict("killed", findings[0][:120])
    return Verdict("BROKEN", (said or done.stderr.strip().splitlines()[-1:] or ["no output"])[0][:120])


def _run(tree: Path, *command: str) -> subprocess.CompletedProcess[str] | None:
    """Run Python on the copy; ``None`` if it does not end in time."""
    environment = {**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}"}
    try:
        return subprocess.run(  # noqa: S603 (ourselves, on our own copy)
            [sys.executable, *command],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def main() -> int:
    """Try the mutants; 0 if each was killed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", action="append", help="a part of a safeguard's name; may be given again")
    arguments = parser.parse_args()
    fates: Counter[str] = Counter()
    for mutant in MUTANTS:
        if arguments.only and not any(part in mutant.safeguard for part in arguments.only):
            continue
        verdict = _kill(mutant)
        fates[verdict.fate] += 1
        sys.stdout.write(f"{verdict.fate:<9} {mutant.safeguard:<70} by {verdict.by}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"{sum(fates.values())} mutants: {fates['killed']} killed by an assertion or a finding\n"
    )
    return int(fates["killed"] < sum(fates.values()))


if __name__ == "__main__":
    sys.exit(main())

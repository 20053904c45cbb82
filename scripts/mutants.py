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
_COPIED = ("src", "tests", "scripts", "benchmarks", "examples", "pyproject.toml")
_SECONDS = 240


class Mutant(NamedTuple):
    """A safeguard, where it stands, what is put in its place, and what must fail then.

    ``killer`` is an experiment's name, or a path of tests, or of one test.
    """

    safeguard: str
    file: str
    old: str
    new: str
    killer: str


MUTANTS = [
    Mutant(
        "a repeated id is answered with the record that is there",
        f"{_SERVER}/log/shared_file/log_server.py",
        "is_new = record.offset >= self._shared.newest",
        "is_new = True",
        "tests/server/log/test_shared_file.py",
    ),
    Mutant(
        "a worker that has read knows what was removed meanwhile",
        f"{_SERVER}/log/shared_file/worker_log.py",
        "return found, first",
        "return found, 0",
        "tests/server/log/test_shared_file.py",
    ),
    Mutant(
        "no record is trimmed before its audit line is on a disk",
        f"{_SERVER}/security/audit/pending_lines.py",
        "return self._durable_position if self._owes_lines else self.position",
        "return self.position",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "records that come late do not turn the log's clock back",
        f"{_SERVER}/log/log_clock.py",
        "self._ahead = max(self._ahead, ahead)",
        "self._ahead = ahead",
        "tests/server/log/test_log_clock.py",
    ),
    Mutant(
        "a server that shares its port listens only when it accepts",
        f"{_SERVER}/net/listener.py",
        "        if not settings.reuse_port:\n            listener.listen(BACKLOG)",
        "        listener.listen(BACKLOG)",
        "tests/server/net/test_listener.py",
    ),
    Mutant(
        "a run that others have ended writes nothing elsewhere",
        f"{_SERVER}/engine/log_guards.py",
        'return Guards(decided_at=decided_at, unmarked=(f"end.{kind}.{id_}",))',
        "return Guards(decided_at=decided_at)",
        "tests/server/engine/shared/test_nodes.py",
    ),
    Mutant(
        "a node that was declared gone writes nothing as an owner",
        f"{_SERVER}/engine/nodes/ownership.py",
        "return Guards(decided_at=decided_at, unmarked=(name,))",
        "return None",
        "tests/server/engine/shared/test_nodes.py",
    ),
    Mutant(
        "a run runs on the node that owns it only",
        f"{_SERVER}/engine/agents/run_supervisor.py",
        "if self._is_mine(entry):",
        "if True:",
        "tests/server/engine/shared/test_nodes.py",
    ),
    Mutant(
        "an outage of the broker declares nobody gone",
        f"{_SERVER}/engine/nodes/membership.py",
        "self._silent.clear()",
        "pass",
        "tests/server/engine/shared/test_nodes.py",
    ),
    Mutant(
        "what ends a thing checks that nothing names it",
        f"{_SERVER}/engine/log_guards.py",
        'unmarked=(f"named.{kind}.{id_}",)',
        "unmarked=()",
        "tests/server/engine/shared",
    ),
    Mutant(
        "what names a thing checks that it has not ended",
        f"{_SERVER}/engine/log_guards.py",
        'unmarked=tuple(f"end.{kind}.{id_}" for id_ in names)',
        "unmarked=()",
        "tests/server/engine/shared",
    ),
    Mutant(
        "a claim of two servers is decided by the log",
        f"{_SERVER}/engine/log_guards.py",
        "unmarked=(name,), marks=(name,)",
        "unmarked=(), marks=(name,)",
        "tests/server/engine/shared",
    ),
    Mutant(
        "two providers of one name have one id",
        f"{_SERVER}/engine/llm/llm.py",
        "_provider_id(tenant, given.name) if",
        "self._appender.new_id() if",
        "tests/server/engine/shared",
    ),
    Mutant(
        "a claim is looked for when it is decided",
        f"{_SERVER}/engine/command.py",
        "if self._is_claimed(claim.principal, claim.key):",
        "if False:",
        "tests/server/engine/shared",
    ),
    Mutant(
        "resuming behind the last event",
        f"{_SDK}/delivery/delivery.py",
        'resume = {"after": after} if after is not None else self.begin',
        "resume = self.begin",
        "tests/integration/test_reconnect.py",
    ),
    Mutant(
        "the cursor moves with each event",
        f"{_SDK}/delivery/delivery.py",
        "                self._last_cursor = self.received = resume.cursor\n",
        "                self._last_cursor = resume.cursor\n",
        "cut race",
    ),
    Mutant(
        "nobody is told before the commit",
        f"{_SERVER}/log/writer.py",
        "            self._connection.execute(_INSERTS[count], values)\n",
        """            if not self._connection.in_transaction:
                self._connection.execute("BEGIN")
            self._connection.execute(_INSERTS[count], values)
            if new[-1].offset % 3 == 0:
                self._connection.execute("COMMIT")
""",
        "crash boundaries",
    ),
    Mutant(
        "the check of the record that a cursor names",
        f"{_SERVER}/gateway/resume_gaps.py",
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
        f"{_SDK}/delivery/delivery.py",
        "            self._link.complete(self.id, self)\n        self.id = id",
        "        self.id = id",
        "token rotation",
    ),
    Mutant(
        "a poll asks behind what it was given",
        f"{_SDK}/connections/poll_connection.py",
        "            polled.after = result.cursor\n",
        "",
        "tests/connections/test_poll_connection.py",
    ),
    Mutant(
        "a lost connection is tried again",
        f"{_SDK}/connections/connector.py",
        "seconds = self._backoff.failed(error) if may_wait else None",
        "seconds = None",
        "tests/connections/test_supervisor.py -k tried_again_after_an_attempt",
    ),
    Mutant(
        "the chain of `prev`",
        f"{_SDK}/delivery/delivery.py",
        "if self._last_cursor is not None and resume.prev != self._last_cursor:",
        "if False and resume.prev != self._last_cursor:",
        "tests/delivery/test_delivery.py",
    ),
    Mutant(
        "a route is removed by its id and itself",
        f"{_SDK}/protocol/next_prefix.py",
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
        f"{_SDK}/recovery/recovery.py",
        "                connection.drop(OperationTimeoutError(what, seconds=seconds))",
        "                pass",
        "tests/subscriptions/test_manager.py",
    ),
    Mutant(
        "a stopped stream is read again from before the event that did not fit",
        f"{_SDK}/delivery/delivery.py",
        "self.received = self._last_cursor = resume.prev",
        "self.received = self._last_cursor = resume.cursor",
        "tests/delivery/test_delivery.py",
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
        f"{_SDK}/delivery/delivery.py",
        "        self._events += 1\n        if not self._is_live:\n",
        "        self._events += 1 if len(self.id) else 0\n        if not self._is_live:\n",
        "tests/hot_path",
    ),
    Mutant(
        "what is framed for one peer serves all",
        f"{_SERVER}/gateway/feed.py",
        "frames = run.framed if run.prefix == prefix else run.frames(prefix)",
        "frames = run.frames(prefix)",
        "tests/hot_path",
    ),
    Mutant(
        "a mutation outlives its caller",
        f"{_SERVER}/engine/command_tasks.py",
        "            await has_ended  # not the task, which would be cancelled with the caller\n",
        "            await task\n",
        "tests/server/test_cancellation.py",
    ),
    Mutant(
        "audit lines that a crash cut off are written at the next start",
        f"{_SERVER}/access/mutation_audit.py",
        "after = int(offset) if epoch == self._log.epoch else 0",
        "after = self._log.last_offset",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "the audit log remembers how far in the event log it is",
        f"{_SERVER}/access/mutation_audit.py",
        "            self._audit.append(line)\n"
        "        self._audit.position = position_of(self._log, record.offset)\n",
        "            self._audit.append(line)\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "lines wait for those that are taken over from a node that is gone",
        f"{_SERVER}/access/mutation_audit.py",
        "        if self._waits:\n            self._seen = record.offset\n",
        "        if False:\n            self._seen = record.offset\n",
        "tests/server/access/test_audit_takeover.py",
    ),
    Mutant(
        "who was declared gone leaves out the lines that another node has written",
        f"{_SERVER}/access/mutation_audit.py",
        "            if any(record.offset in each for each in written_by_others):\n",
        "            if False:\n",
        "tests/server/access/test_audit_takeover.py",
    ),
    Mutant(
        "a record that cannot be applied stops the engine",
        f"{_SERVER}/engine/state_projector.py",
        "            self._fail(_not_applied(record, error), error)\n",
        "            self._is_applying = False\n",
        "tests/server/engine/test_fail_stop.py",
    ),
    Mutant(
        "a state that lacks a record is not saved",
        f"{_SERVER}/engine/state_projector.py",
        "if not self.has_applied(self._log.last_offset):",
        "if False:",
        "tests/server/engine/test_fail_stop.py",
    ),
    Mutant(
        "a skipped record behind a cursor is told as a gap",
        f"{_SERVER}/gateway/event_reader.py",
        "if self._skipped and is_skipped(self._skipped.values(), after=cursor.offset, subjects=subjects):",
        "if False:",
        "tests/integration/test_skipped_record.py",
    ),
    Mutant(
        "the rates have a clock that nobody sets",
        f"{_SERVER}/security/rate_limits.py",
        "monotonic: Callable[[], float] = time.monotonic",
        "monotonic: Callable[[], float] = lambda: time.time()",
        "tests/server/security/test_rates.py",
    ),
    Mutant(
        "after a jump of the clock nothing is trimmed by age until records confirm it",
        f"{_SERVER}/engine/retention.py",
        "if self._confirmations < _CONFIRMATIONS:",
        "if False:",
        "tests/server/engine/test_retention.py",
    ),
    Mutant(
        "the time in which no server ran has to be confirmed",
        f"{_SERVER}/engine/retention.py",
        "zero if newest is None else newest.time_ms / 1000 - self._monotonic()",
        "zero",
        "tests/server/engine/test_retention.py",
    ),
    Mutant(
        "a peer that raises does not reach the caller of all peers",
        f"{_SERVER}/gateway/guarded_calls.py",
        "        isolate(target, error, on_error)\n        return otherwise\n",
        "        isolate(target, error, on_error)\n        raise\n",
        "tests/server/gateway/test_isolation.py",
    ),
    Mutant(
        "after a member that fails the others are collected for",
        f"{_SERVER}/gateway/fan_out.py",
        "                self._collect((other,), ready)\n",
        "                pass\n",
        "tests/server/gateway/test_isolation.py tests/server/gateway/test_isolation_of_peers.py",
    ),
    Mutant(
        "between two steps of a flush a member may go to another channel",
        f"{_SERVER}/gateway/flush_of_many.py",
        "if subscriber.live and subscriber.channel is channel:",
        "if subscriber.live:",
        "tests/server/gateway/test_flush_of_many.py",
    ),
    Mutant(
        "who leaves inside a write changes a copy of the members",
        f"{_SERVER}/gateway/fan_out.py",
        "members = self._members[channel] = dict(members)",
        "pass",
        "tests/server/gateway/test_isolation.py",
    ),
    Mutant(
        "rights are looked at again for each subscription by itself",
        f"{_SERVER}/gateway/permission_review.py",
        "call_each(feed.subscribers.values(), self._review, self._end_subscription)",
        "call_each([feed], lambda f: [*map(self._review, f.subscribers.values())], lambda f, _: f.close())",
        "tests/server/gateway/test_isolation.py",
    ),
    Mutant(
        "a bucket holds one second's events at most",
        f"{_SERVER}/gateway/pacing.py",
        "min(self._capacity, self._tokens + (now - self._at) * self._rate)",
        "self._tokens + (now - self._at) * self._rate",
        "tests/server/gateway/test_pacing.py",
    ),
    Mutant(
        "events that are read from the log cost tokens",
        f"{_SERVER}/gateway/catch_up.py",
        "        subscriber.bucket.take(len(payloads))\n",
        "        pass\n",
        "tests/server/gateway/test_pacing.py",
    ),
    Mutant(
        "the polls of a subscription share one pace",
        f"{_SERVER}/gateway/pacing.py",
        "bucket = self._known.get(hashed)",
        "bucket = None",
        "tests/server/gateway/test_pacing.py",
    ),
    Mutant(
        "a page that is read to catch up has a bound in bytes",
        f"{_SERVER}/gateway/catch_up.py",
        "                max_bytes=feed.page_bytes,\n",
        "                max_bytes=1 << 40,\n",
        "tests/server/gateway/test_catch_up_bytes.py",
    ),
    Mutant(
        "new connections share the event loop",
        f"{_SERVER}/net/http_protocol.py",
        "            if is_first and not gate.enter_now():\n",
        "            if False:\n",
        "tests/server/net/test_upgrade_turns.py",
    ),
    Mutant(
        "consumers go before the next read",
        f"{_SDK}/delivery/delivery.py",
        "                self._link.let_consumers_run()\n",
        "                pass\n",
        "tests/delivery/test_bursts.py",
    ),
    Mutant(
        "only queries are executed by GET",
        f"{_SERVER}/endpoints/http/routes.py",
        'if request.method == "GET" and operation.operation is not OperationType.QUERY:',
        "if False:",
        "tests/server/endpoints/test_get_queries.py",
    ),
    Mutant(
        "a page of the log tells how far it looked",
        f"{_SERVER}/log/reader.py",
        "reached = found[-1].offset if is_cut else upto",
        "reached = upto",
        "tests/conformance/test_sqlite_log.py",
    ),
    Mutant(
        "readers of the log share the event loop",
        f"{_SERVER}/gateway/catch_up.py",
        "    if not gate.enter_now():\n",
        "    if False:\n",
        "tests/server/gateway/test_catch_up_turns.py",
    ),
    Mutant(
        "the rest of a page that a full socket did not take is kept",
        f"{_SERVER}/gateway/catch_up.py",
        "            feed.kept = Kept(subscriber, channel, page)\n",
        "",
        "tests/server/gateway/test_catch_up_bytes.py",
    ),
    Mutant(
        "runs that ended a day ago are forgotten",
        f"{_SERVER}/engine/agents/state.py",
        "for old_id in self._ended.take_old(body.at):",
        "for old_id in [''][1:]:",
        "tests/server/engine/test_bounds.py",
    ),
    Mutant(
        "what ended is forgotten once",
        f"{_SERVER}/engine/expiry_table.py",
        "            del self._ended[key]\n",
        "            pass\n",
        "tests/server/engine/test_bounds.py",
    ),
    Mutant(
        "a request has exactly one Host header",
        f"{_SERVER}/net/request_head.py",
        'if hosts > 1 or (hosts == 0 and version != "1.0"):',
        "if False:",
        "tests/server/net/test_http_protocol.py",
    ),
    Mutant(
        "a trailer is never a header",
        f"{_SERVER}/net/http_protocol.py",
        "            if self._stage is _Stage.HEAD:  # a trailer is never a header\n",
        "            if True:\n",
        "tests/server/net/test_request_limits.py",
    ),
    Mutant(
        "a header that never ends is counted",
        f"{_SERVER}/net/request_limits.py",
        "self._silent = 0 if reported else self._silent + size",
        "self._silent = 0",
        "tests/server/net/test_request_limits.py",
    ),
    Mutant(
        "requests sent ahead wait as bytes",
        f"{_SERVER}/net/http_protocol.py",
        "                if self.pipeline:\n                    self._hold(data[start:])",
        "                if False:\n                    self._hold(data[start:])",
        "tests/server/net/test_request_limits.py",
    ),
    Mutant(
        "an open server answers only for names of this machine",
        f"{_SERVER}/settings/server.py",
        "(self.is_open and is_loopback(self.host))",
        "False",
        "tests/server/admission/test_hosts.py",
    ),
    Mutant(
        "the event log is its owner's only",
        f"{_SERVER}/log/database.py",
        "            make_private_file(path)\n",
        "            pass\n",
        "tests/server/storage/test_private_files.py",
    ),
    Mutant(
        "principals who wait for the event loop take turns",
        f"{_SERVER}/scheduling.py",
        "                self._waiting[key] = queue  # behind the others\n",
        "                self._waiting[key] = queue\n"
        "                self._waiting.move_to_end(key, last=False)\n",
        "tests/server/test_turns.py",
    ),
    Mutant(
        "a long list gives way after each slice",
        f"{_SERVER}/scheduling.py",
        "            if self._clock() - began > SLICE_SECONDS:\n",
        "            if self._clock() - began < 0:\n",
        "tests/server/test_turns.py",
    ),
    Mutant(
        "requests that arrive together are let in over several turns",
        f"{_SERVER}/scheduling.py",
        "        return now < self._ends\n",
        "        return True\n",
        "tests/server/test_turns.py",
    ),
    Mutant(
        "what would answer too much is refused",
        f"{_SERVER}/graphql/execute.py",
        "    if cost > max_cost:\n        return charged, encode_refusal(",
        "    if cost < 0:\n        return charged, encode_refusal(",
        "tests/server/graphql/test_cost.py",
    ),
    Mutant(
        "an answer is bounded in bytes",
        f"{_SERVER}/graphql/operation_root.py",
        "            if self.bytes_left < 0 or self.values_left < 0:\n",
        "            if self.values_left < 0:\n",
        "tests/server/graphql/test_cost.py",
    ),
    Mutant(
        "the lists of an answer are bounded in values",
        f"{_SERVER}/graphql/operation_root.py",
        "            if self.bytes_left < 0 or self.values_left < 0:\n",
        "            if self.bytes_left < 0:\n",
        "tests/server/graphql/test_cost.py",
    ),
    Mutant(
        "a document leaves no circles to the garbage collection",
        f"{_SERVER}/graphql/validation.py",
        "        _cut(*rules, together, whole)\n",
        "        pass\n",
        "tests/server/test_garbage.py",
    ),
    Mutant(
        "the numbers of a private key belong together",
        f"{_SERVER}/security/signing_keys.py",
        "    if not _fits(key.private_numbers()):\n",
        "    if False:\n",
        "tests/server/security/test_private_keys.py",
    ),
    Mutant(
        "a mutation under a key is admitted as all others",
        f"{_SERVER}/graphql/idempotent_execution.py",
        "        if refusal is not None:\n",
        "        if False:\n",
        "tests/server/access/test_edges.py",
    ),
    Mutant(
        "operations begin in the order in which they were asked for",
        f"{_SERVER}/endpoints/websocket/operations.py",
        "        if not self._reading and not self._is_behind(event):\n",
        "        if not self._is_behind(event):\n",
        "tests/server/endpoints/websocket/test_session.py",
    ),
    Mutant(
        "a provider serves its own tenant alone",
        f"{_SERVER}/engine/llm/routing.py",
        "own = [provider for provider in providers if provider.tenant == tenant]",
        "own = list(providers)",
        "tests/server/access/test_provider_ownership.py",
    ),
    Mutant(
        "a key goes to the tenants that the operator names",
        f"{_SERVER}/storage/provider_keys.py",
        "    if tenant is not None and not (urls and tenant in tenants):\n",
        "    if tenant is not None and not urls:\n",
        "tests/server/access/test_provider_ownership.py",
    ),
    Mutant(
        "a key goes to the addresses that the operator names",
        f"{_SERVER}/storage/provider_keys.py",
        "    if urls and (where is None or where not in map(_origin, urls)):\n",
        "    if urls and where is None:\n",
        "tests/server/access/test_provider_ownership.py",
    ),
    Mutant(
        "an exhausted budget refuses",
        f"{_SERVER}/engine/llm/llm.py",
        "        self._costs.require_budget(payer, given.project_id)\n",
        "",
        "tests/server/access/test_provider_ownership.py",
    ),
    Mutant(
        "a scope for a name does not let make what gets another",
        f"{_SERVER}/access/fields.py",
        "    if rule.makes is not None and not rights.allows_pattern(rule.makes, rule.action):\n",
        "    if rule.makes is not None and not rights.allows_any(rule.makes, rule.action):\n",
        "tests/server/access/test_provider_ownership.py",
    ),
    Mutant(
        "what is secret does not go along to another address",
        f"{_SERVER}/engine/mcp/servers.py",
        "                auth = msgspec.structs.replace(auth, private_key_id=None)\n",
        "                pass\n",
        "tests/server/engine/mcp/test_servers.py",
    ),
    Mutant(
        "codes and tokens of one provider go to no other",
        f"{_SERVER}/engine/mcp/sign_in.py",
        "            or entry.begun.provider not in (None, provider.id)\n",
        "",
        "tests/server/engine/mcp/test_sessions.py",
    ),
    Mutant(
        "the rate is asked before a document is parsed",
        f"{_SERVER}/endpoints/websocket/operations.py",
        """        if self._is_too_often(event.id, begins):
            return
        document: Document | None = None
""",
        """        try:
            document = self._services.documents.get_now(event.query, event.variables, key=self._key)
        except DocumentInvalid:
            document = None
        if self._is_too_often(event.id, begins):
            return
        document = None
""",
        "tests/server/endpoints/websocket/test_session.py",
    ),
    Mutant(
        "answers under way go before the answer to a close frame",
        f"{_SDK}/transports/listeners.py",
        "            socket.hold_close(code, reason)\n",
        "            socket.receive_close(code, reason)\n",
        "tests/server/endpoints/websocket/test_session.py",
    ),
    Mutant(
        "answers that never come delay a close for its time only",
        f"{_SDK}/transports/message_socket.py",
        "            self._timer = self._loop.call_later(self._close_seconds, self.answer_close)\n",
        "",
        "tests/server/endpoints/websocket/test_session.py",
    ),
    Mutant(
        "the cursor of a mutation is for those who negotiated resume",
        f"{_SERVER}/endpoints/websocket/operations.py",
        "with_cursor=self._feed.resume,",
        "with_cursor=True,",
        "tests/server/endpoints/websocket/test_session.py",
    ),
    Mutant(
        "a callback runs in the context of its attachment",
        f"{_SDK}/callbacks.py",
        "            result = context.run(self.callback, *arguments, **named)\n",
        "            result = self.callback(*arguments, **named)\n",
        "tests/test_callbacks.py",
    ),
    Mutant(
        "each step of an async callback runs in its own context",
        f"{_SDK}/callbacks.py",
        "                awaited = run(step, given)\n",
        "                awaited = step(given)\n",
        "tests/test_callbacks.py",
    ),
    Mutant(
        "the client's own tasks have none of the caller's variables",
        f"{_SDK}/callbacks.py",
        "create_task(coroutine, name=name, context=contextvars.Context())",
        "create_task(coroutine, name=name)",
        "tests/test_callbacks.py",
    ),
    Mutant(
        "a cancellation that a callback raises ends nothing of the client",
        f"{_SDK}/callbacks.py",
        "CALLBACK_ERRORS: Final = (Exception, asyncio.CancelledError)",
        "CALLBACK_ERRORS: Final = (Exception,)",
        "tests/test_callbacks.py",
    ),
    Mutant(
        "no neighbour takes the reserve of a buffer",
        f"{_SDK}/delivery/buffer.py",
        "free = self.max_bytes - reserve * self._count() - self.used - size_bytes",
        "free = self.max_bytes - self.used - size_bytes",
        "tests/delivery/test_buffer.py",
    ),
    Mutant(
        "the buffer that holds most is refused first",
        f"{_SDK}/delivery/buffer.py",
        "return free >= 0 and held + size_bytes - reserve <= _DEMAND * free",
        "return free >= 0",
        "tests/delivery/test_buffer.py",
    ),
    Mutant(
        "four polls are under way at most",
        f"{_SDK}/connections/poll_connection.py",
        "if idle and len(self._requests) < _MAX_REQUESTS:",
        "if idle:",
        "tests/integration/test_degradation.py",
    ),
    Mutant(
        "for a slow consumer nothing is polled",
        f"{_SDK}/connections/poll_connection.py",
        "if id(polled) not in asked and polled.route not in self._held",
        "if id(polled) not in asked",
        "tests/integration/test_degradation.py",
    ),
    Mutant(
        "a snapshot that cannot be read yet is tried again",
        f"{_SDK}/recovery/gaps.py",
        "if not failure.retryable or attempt == _ATTEMPTS - 1:",
        "if True:",
        "tests/integration/test_gaps.py",
    ),
    Mutant(
        "a rate that is limited after a gap is obeyed",
        f"{_SDK}/recovery/gaps.py",
        "await asyncio.sleep(pause if wait is None else wait)",
        "await asyncio.sleep(pause)",
        "tests/integration/test_gaps.py",
    ),
    Mutant(
        "a suspect has a second trial",
        f"{_SDK}/recovery/suspect_subscriptions.py",
        "if self._strikes.get(delivery, 0) + 1 < _STRIKES:",
        "if False:",
        "tests/integration/test_isolation.py",
    ),
    Mutant(
        "who has proven itself is no suspect",
        f"{_SDK}/recovery/suspect_subscriptions.py",
        "if not d.is_proven_on_link]",
        "if d is not None]",
        "tests/integration/test_isolation.py",
    ),
    Mutant(
        "a payload that cannot be read is its operation's failure",
        f"{_SDK}/protocol/codec.py",
        "if not isinstance(kind, str) or kind not in _OF_OPERATIONS:",
        "if True:",
        "tests/integration/test_isolation.py",
    ),
    Mutant(
        "an error keeps its attributes through pickle",
        f"{_SDK}/error_pickling.py",
        "    error.__dict__.update(attributes)\n",
        "",
        "tests/test_errors.py",
    ),
    Mutant(
        "an error keeps what it is chained to through pickle",
        f"{_SDK}/error_pickling.py",
        "    link.attach(error)\n    return error\n",
        "    return error\n",
        "tests/test_errors.py",
    ),
    Mutant(
        "a thread without an event loop is refused while the client's loop runs",
        f"{_SDK}/loop_affinity.py",
        "(running is None and not loop.is_running())",
        "running is None",
        "tests/test_loop_affinity.py",
    ),
    Mutant(
        "connections are closed side by side",
        f"{_SDK}/connections/closing.py",
        "    tasks = [asyncio.ensure_future(closing) for closing in closings]\n",
        """    tasks: list[asyncio.Future[None]] = []
    for closing in closings:
        tasks.append(asyncio.ensure_future(closing))
        await asyncio.wait(tasks)
""",
        "tests/connections/test_closing.py",
    ),
    Mutant(
        "a part that does not close in time is cancelled",
        f"{_SDK}/connections/closing.py",
        "await asyncio.wait(tasks, timeout=seconds)",
        "await asyncio.wait(tasks)",
        "tests/connections/test_closing.py",
    ),
    Mutant(
        "one of several that raises keeps no other from its turn",
        f"{_SDK}/connections/guarded_calls.py",
        """    except Exception as error:  # noqa: BLE001 (whatever it was, the others have their turn)
        _report(what, error)
        return False
""",
        """    except Exception as error:
        _report(what, error)
        raise
""",
        "tests/subscriptions/test_neighbours.py",
    ),
    Mutant(
        "of two that begin with one cursor key the second is refused",
        f"{_SDK}/recovery/cursor_store.py",
        "if key in self._claimed or (other is not None and not other.delivery.state.is_end):",
        "if other is not None and not other.delivery.state.is_end:",
        "tests/test_closing.py",
    ),
    Mutant(
        "a cursor key is free again where its subscription did not begin",
        f"{_SDK}/recovery/cursor_store.py",
        "            self._claimed.discard(key)\n",
        "            pass\n",
        "tests/test_closing.py::test_a_key_is_free_again_where_its_subscription_did_not_begin",
    ),
    Mutant(
        "of a mutation under way at the close the outcome is unknown",
        f"{_SDK}/transports/http.py",
        "            if not may_be_sent:\n",
        "            if True:\n",
        "tests/domains/test_closing.py",
    ),
    Mutant(
        "of a mutation of the queue that was sent the outcome is unknown",
        f"{_SDK}/domains/offline_queue.py",
        "if not self.may_have_happened:",
        "if True:",
        "tests/domains/test_closing.py",
    ),
    Mutant(
        "subscriptions are polled for where no WebSocket gets through",
        f"{_SDK}/recovery/recovery.py",
        """        self._is_degraded = True
        do_for_each(self._lost, self._degrade_one, "falling back")
""",
        "        self._is_degraded = True\n",
        "tests/integration/test_degradation.py",
    ),
    Mutant(
        "the place in the event log is found behind many audit lines that name none",
        f"{_SERVER}/security/audit/log_end.py",
        "        end = begin\n    return None\n",
        "        break\n    return None\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "the audit line of a mutation is not dropped where refusals have filled the memory",
        f"{_SERVER}/security/audit/pending_lines.py",
        "            if event.record is not None:\n",
        "            if event.record is not None and self._others_bytes() < self._max_pending_bytes:\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "mutations are refused while the audit log cannot be written",
        f"{_SERVER}/security/audit/log.py",
        "        return self.effects_fit and not self._failing\n",
        "        return self.effects_fit\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "mutations wait for room in the share of lines about records",
        f"{_SERVER}/security/audit/log.py",
        "        return self.effects_fit and not self._failing\n",
        "        return not self._failing\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "retention trims no record whose audit line is not on the disk",
        f"{_SERVER}/log_parts.py",
        "            await trail.make_durable()\n",
        "            pass\n",
        "tests/server/access/test_audit_trail.py",
    ),
    Mutant(
        "refusals of one caller are counted beyond a rate",
        f"{_SERVER}/security/audit/summaries.py",
        "        window.count(event)\n        self._counting = True\n        return False\n",
        "        return True\n",
        "tests/server/security/test_audit_summaries.py",
    ),
    Mutant(
        "the table of callers whose refusals are counted is bounded",
        f"{_SERVER}/security/audit/summaries.py",
        "            if self._sources[is_principal] >= self._limits.sources:\n",
        "            if self._sources[is_principal] < 0:\n",
        "tests/server/security/test_audit_summaries.py",
    ),
    Mutant(
        "the line about lost events is not added with each retry",
        f"{_SERVER}/security/audit/pending_lines.py",
        "            if self._others_bytes() < self._max_pending_bytes:\n                self._add_missing()",
        "            if True:\n                self._add_missing()",
        "tests/server/security/test_audit_summaries.py",
    ),
    Mutant(
        "the first line of a file of the audit log names the file before",
        f"{_SERVER}/security/audit/log.py",
        "        if not end.size and end.place.before:\n            lines.begin_file(end.place)\n",
        "",
        "tests/server/security/test_audit_rotation.py",
    ),
    Mutant(
        "a file of the audit log ends durably before the next one begins",
        f"{_SERVER}/security/audit/file_writer.py",
        "        self._write()\n        self._sync()\n        self._begin_file(self._ending.before)\n",
        "        self._begin_file(self._ending.before)\n",
        "tests/server/security/test_audit_rotation.py",
    ),
    Mutant(
        "files of the audit log go only where the log says so",
        f"{_SERVER}/security/audit/file_writer.py",
        "            if number < self._place.first_file:\n",
        "            if number <= self._place.first_file:\n",
        "tests/server/security/test_audit_rotation.py",
    ),
    Mutant(
        "a missing file of the audit log is named",
        f"{_SERVER}/security/audit/verification.py",
        '                yield Finding("missing", None, "this file of the log is missing", path.name)\n',
        "",
        "tests/server/security/test_audit_rotation.py",
    ),
    Mutant(
        "an added file of the audit log is named",
        f"{_SERVER}/security/audit/verification.py",
        "            if number > place.before:\n",
        "            if number < 0:\n",
        "tests/server/security/test_audit_rotation.py",
    ),
    Mutant(
        "a tenant has a share of the checks of MCP servers",
        f"{_SERVER}/engine/fair_pool.py",
        "return self._slots if key == NO_PRINCIPAL else self._share",
        "return self._slots",
        "tests/server/engine/test_fair_pool.py",
    ),
    Mutant(
        "keys that wait for a slot take turns",
        f"{_SERVER}/engine/fair_pool.py",
        "        if queue:\n            self._queues[key] = queue\n        return found",
        "        if queue:\n            self._queues[key] = queue\n"
        "            self._queues.move_to_end(key, last=False)\n        return found",
        "tests/server/engine/test_fair_pool.py",
    ),
    Mutant(
        "a slot whose turn came in the moment of a cancellation is given back",
        f"{_SERVER}/engine/fair_pool.py",
        "                self._give_back(key)  # its turn came in the moment in which it stopped waiting\n",
        "                pass\n",
        "tests/server/engine/test_fair_pool.py",
    ),
    Mutant(
        "checks of MCP servers take a slot of their tenant",
        f"{_SERVER}/engine/mcp/health_scheduler.py",
        "async with self._checks.slot(tenant.tenant_id):",
        'async with self._checks.slot("all"):',
        "tests/server/engine/mcp/test_shares.py",
    ),
    Mutant(
        "a timeout in the log is bounded when the server is checked",
        f"{_SERVER}/engine/mcp/health_scheduler.py",
        "timeout_seconds=min(config.timeout_seconds, self._max_seconds),",
        "timeout_seconds=config.timeout_seconds,",
        "tests/server/engine/mcp/test_shares.py",
    ),
    Mutant(
        "what is being made counts for the quota of its tenant",
        f"{_SERVER}/engine/tenant_quota.py",
        "if self._count(tenant) + self._making[tenant] >= self._per_tenant:",
        "if self._count(tenant) >= self._per_tenant:",
        "tests/server/engine/test_tenant_quota.py",
    ),
    Mutant(
        "sign-ins that expired do not count",
        f"{_SERVER}/engine/mcp/state.py",
        "return self._sign_ins_of.count(tenant) - tenants.count(tenant)",
        "return self._sign_ins_of.count(tenant)",
        "tests/server/engine/mcp/test_shares.py",
    ),
    Mutant(
        "active sessions count for the quota of their tenant",
        f"{_SERVER}/engine/mcp/state.py",
        "            self.sessions_of.put(session.id, body.server.tenant_id)\n",
        "            pass\n",
        "tests/server/engine/mcp/test_shares.py",
    ),
    Mutant(
        "a tenant that deletes without end is forgotten before others",
        f"{_SERVER}/engine/mcp/state.py",
        "most = max(self._deleted, key=lambda tenant: len(self._deleted[tenant]))",
        "most = min(self._deleted)",
        "tests/server/engine/test_bounds.py",
    ),
    Mutant(
        "a principal creates at a bounded rate",
        f"{_SERVER}/engine/command.py",
        "self._creations.take(ORIGIN.get().principal)",
        'self._creations.take("")',
        "tests/server/engine/llm/test_llm.py",
    ),
    Mutant(
        "a principal has a share of the completions",
        f"{_SERVER}/engine/llm/completion.py",
        "self._turns.slot(ORIGIN.get().principal)",
        'self._turns.slot("")',
        "tests/server/engine/llm/test_llm.py::"
        "test_a_principal_whose_completions_hang_keeps_no_others_from_being_made",
    ),
    Mutant(
        "a completion has an end",
        f"{_SERVER}/engine/llm/completion.py",
        "async with asyncio.timeout(self._seconds) as limit:",
        "async with asyncio.timeout(None) as limit:",
        "tests/server/engine/llm/test_llm.py::test_a_completion_that_never_comes_to_its_end_is_ended",
    ),
    Mutant(
        "a run has an end",
        f"{_SERVER}/engine/agents/run_attempts.py",
        "async with asyncio.timeout(self._run_seconds):",
        "async with asyncio.timeout(None):",
        "tests/server/engine/agents/test_agents.py::test_a_run_that_never_comes_to_its_end_is_ended",
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
    # By a signal: a test that hangs has failed, and the report is written.
    limit = ("--timeout", "60", "--timeout-method", "signal")
    options = ("-q", "-x", *limit, "-p", "no:cacheprovider", f"--junitxml={report}")
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
    done = _run(tree, "-m", "tests.system.chaos", "--json", "--seed", "1", "--only", killer)
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

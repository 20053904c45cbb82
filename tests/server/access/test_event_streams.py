"""Event streams of known callers: what they may open, and what ends their streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from circuit_breaker_server.endpoints import principal_connections
from tests.policy_file import policy_of
from tests.server.access.office import Office, open_office, settled
from tests.server.event_stream_stage import ACCEPT, TOKEN, Stream, asked
from tests.server.http_stage import http_stage
from tests.server.tokens import LEEWAY, NOW, SetClock, authenticator, token
from tests.waiting import until

UPDATES: Final = "subscription($id: String!) { resourceUpdates(workflowId: $id) { id state } }"
EVERYTHING: Final = "subscription { resourceUpdates { id workflowId } }"


async def opened(
    office: Office, who: str, query: str = EVERYTHING, **variables: object
) -> aiohttp.ClientResponse:
    headers = {**ACCEPT, "Authorization": f"Bearer {office.token_of(who)}"}
    body = asked(query, variables=variables)
    return await office.http.post(office.server.url, json=body, headers=headers)


async def cut(answer: aiohttp.ClientResponse) -> None:
    """The stream ends unfinished: no ``complete``, no last chunk."""
    stream = Stream(answer)
    with pytest.raises(aiohttp.ClientPayloadError):
        [await stream.event() for _ in range(100)]
    answer.close()


async def test_streams_and_reservations_need_credentials(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        url = office.server.url
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", url, {"json": asked(EVERYTHING)}),
            ("GET", url, {"params": {"query": EVERYTHING}}),
            ("POST", url + "/stream", {"json": asked(EVERYTHING)}),
            ("PUT", url, {}),
            ("DELETE", url + "/stream", {"params": {"operationId": "1"}}),
            ("POST", url + "/stream?token=x", {"json": asked(EVERYTHING)}),
        ]
        for method, target, more in requests:
            async with office.http.request(method, target, headers=ACCEPT, **more) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), method


async def test_a_stream_tells_only_what_its_principal_may_see(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:mine*"])) as office:
        theirs = await office.workflow()
        answer = await opened(office, "ann", UPDATES, id=theirs)
        payload = await Stream(answer).payload()
        assert payload["errors"][0]["extensions"]["code"] == "NOT_FOUND"  # type: ignore[index]  # of this shape
        stream = Stream(await opened(office, "ann"))
        await stream.signal()
        await office.resource(theirs)
        office.policy.write_text(policy_of({"ann": ("acme", [f"workflow:read:{theirs}"])}))
        await settled(office, "ann", theirs)
        seen = await office.resource(theirs)
        payload = await stream.payload()
        assert payload["data"] == {"resourceUpdates": {"id": seen, "workflowId": theirs}}
        stream.answer.close()


async def test_a_principal_that_is_disabled_loses_its_streams(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:*"])) as office:
        answer = await opened(office, "ann")
        await Stream(answer).signal()
        office.policy.write_text("[principals.ann]\ndisabled = true\n")
        await cut(answer)


async def test_streams_and_sockets_share_the_connections_of_their_principal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_connections, "ROTATION_SECONDS", 0.01)
    async with open_office(tmp_path, {"max_connections_per_principal": 1}) as office:
        socket = await office.http.ws_connect(office.server.url, protocols=["graphql-transport-ws"])
        credentials = {"Authorization": f"Bearer {office.token_of('boss')}"}
        await socket.send_json({"type": "connection_init", "payload": credentials})
        assert (await socket.receive()).json() == {"type": "connection_ack"}
        surplus = await opened(office, "boss")
        assert surplus.status == 200
        await cut(surplus)
        await socket.send_json({"type": "ping"})
        assert (await socket.receive()).json() == {"type": "pong"}


async def test_too_many_streams_are_refused_with_a_time_to_come_again(tmp_path: Path) -> None:
    async with open_office(tmp_path, {"max_connections_per_principal": 1}) as office:
        answers = [await opened(office, "boss") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["Retry-After"] == "1"
        for answer in answers:
            answer.close()


async def test_a_shared_stream_is_its_principals_alone(tmp_path: Path) -> None:
    async with open_office(tmp_path, ann=("acme", ["workflow:read:*"])) as office:
        url = office.server.url + "/stream"
        boss = {"Authorization": f"Bearer {office.token_of('boss')}"}
        ann = {"Authorization": f"Bearer {office.token_of('ann')}"}
        async with office.http.put(url, headers=boss) as answer:
            token = await answer.text()
        async with office.http.get(url, headers={TOKEN: token, **ann}) as answer:
            assert answer.status == 404
        # The token is the ticket: an EventSource has nothing else to show.
        async with office.http.get(url, params={"token": token}) as answer:
            assert answer.status == 200
            stream = Stream(answer)
            body = {**asked(EVERYTHING), "extensions": {"operationId": "1"}}
            for headers, status in ((ann, 404), ({}, 401), (boss, 202)):
                async with office.http.post(url, json=body, headers={TOKEN: token, **headers}) as begun:
                    assert begun.status == status
            async with office.http.delete(url + "?operationId=1", headers={TOKEN: token, **ann}) as ended:
                assert ended.status == 404
            workflow = await office.workflow()
            made = await office.resource(workflow)
            event = await stream.event()
            assert msgspec.json.decode(event.data or b"") == {
                "id": "1",
                "payload": {"data": {"resourceUpdates": {"id": made, "workflowId": workflow}}},
            }


async def test_a_token_that_ends_cuts_the_stream_and_a_fresh_one_goes_on() -> None:
    clock = SetClock()
    async with http_stage(authenticator=authenticator(clock)) as stage:

        async def open_with(ends_at: float, **more: str) -> aiohttp.ClientResponse:
            headers = {**ACCEPT, "Authorization": f"Bearer {token(exp=ends_at)}", **more}
            return await stage.http.post(stage.root + "/graphql", json=asked(), headers=headers)

        answer = await open_with(NOW + 60)
        stream = Stream(answer)
        await stream.signal()
        stage.log.thing("a", 1)
        number, cursor = await stream.number()
        assert number == 1
        clock.set(NOW + 60 + LEEWAY)
        await cut(answer)
        assert not clock.alarms
        stage.log.thing("a", 2)
        refused = await open_with(NOW + 60)
        assert refused.status == 401
        refused.close()
        answer = await open_with(NOW + 6000, **{"Last-Event-ID": str(cursor)})
        stream = Stream(answer)
        assert await stream.signal() == cursor
        assert (await stream.number())[0] == 2
        answer.close()


async def test_what_happens_to_streams_is_in_the_audit_log(tmp_path: Path) -> None:
    async with open_office(tmp_path) as office:
        answer = await opened(office, "boss")
        await Stream(answer).signal()
        answer.close()
        (audit,) = (tmp_path / "data" / "audit").glob("*.jsonl")

        def lines() -> list[dict[str, object]]:
            found = [
                msgspec.json.decode(line, type=dict[str, object]) for line in audit.read_bytes().splitlines()
            ]
            return [line for line in found if line.get("what") == "event stream"]

        await until(lambda: len(lines()) == 2)
        assert [line["action"] for line in lines()] == ["connect", "close"]

"""Where the server connects: what a name is resolved to is checked, and that is what is connected to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from circuit_breaker_server import ServerSettings
from circuit_breaker_server.config import OAuthProviderSettings, TokenSettings
from circuit_breaker_server.outbound import AddressRefused, AddressRules, AnswerLimits
from circuit_breaker_server.outbound.addresses import LOOPBACK, host_of
from circuit_breaker_server.outbound.client import Transport, open_client, refusal_in
from tests.server.outbound.name_lookup import Names

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",  # noqa: S104 (nothing is bound)
    "0.1.2.3",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::808:808",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2001:0:1234::1",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
]
OTHER_FORMS = ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "127.0.0.1."]
PUBLIC = ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@contextlib.asynccontextmanager
async def listening(
    answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one answer to everybody on loopback; yield the port and what was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


async def get(rules: AddressRules, url: str) -> httpx2.Response:
    transport = Transport(rules, AnswerLimits(), streams=False, tls=None)
    async with open_client(transport, timeout_seconds=5.0) as client:
        return await client.get(url)


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_is_resolved_to_an_address_inside_is_refused(address: str) -> None:
    rules = AddressRules(resolve=Names([address]))
    with pytest.raises(AddressRefused) as refused:
        await rules.addresses("peer.example", 80)
    assert address not in str(refused.value).replace("peer.example", "")


@pytest.mark.parametrize("address", [*INSIDE, *OTHER_FORMS, "localhost", "LOCALHOST.", "a.localhost"])
async def test_an_address_inside_is_refused_in_every_form_before_anybody_is_asked(address: str) -> None:
    names = Names(["127.0.0.1"])
    rules = AddressRules(resolve=names)
    with pytest.raises(AddressRefused):
        rules.check_host(address)
    with pytest.raises(AddressRefused):
        await rules.addresses(address, 80)
    assert names.asked == ([address] if "localhost" in address.lower() else [])


@pytest.mark.parametrize("address", PUBLIC)
async def test_public_addresses_are_allowed_in_every_form(address: str) -> None:
    rules = AddressRules(resolve=Names([address]))
    rules.check_host(address)
    assert await rules.addresses("peer.example", 443) == [address]


async def test_one_address_inside_among_public_ones_refuses_the_name() -> None:
    rules = AddressRules(resolve=Names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(AddressRefused):
        await rules.addresses("peer.example", 80)


async def test_the_operator_allows_addresses_networks_and_names() -> None:
    rules = AddressRules(
        ["10.1.0.0/16", "192.168.0.7", "llm.internal", "fd00::/8"], resolve=Names(["172.16.0.1"])
    )
    for host in ("10.1.2.3", "192.168.0.7", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1"):
        rules.check_host(host)
    assert await rules.addresses("LLM.internal", 80) == ["172.16.0.1"]
    assert await rules.addresses("llm.internal.", 80) == ["172.16.0.1"]
    for host in ("10.2.0.1", "192.168.0.8", "other.internal", "x.llm.internal", "127.0.0.1"):
        with pytest.raises(AddressRefused):
            await rules.addresses(host, 80)


async def test_the_connection_goes_to_the_address_that_was_checked_without_another_look_up() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with listening() as (port, asked):
        answer = await get(AddressRules(["127.0.0.1"], resolve=names), f"http://peer.example:{port}/")
    assert answer.status_code == 200
    assert names.asked == ["peer.example"]
    assert f"Host: peer.example:{port}".encode() in asked[0]


async def test_a_name_that_is_rebound_after_a_check_is_refused_where_it_is_connected_to() -> None:
    rules = AddressRules(resolve=Names(["8.8.8.8"], ["127.0.0.1"]))
    await rules.addresses("peer.example", 80)
    async with listening() as (port, asked):
        with pytest.raises(httpx2.ConnectError) as refused:
            await get(rules, f"http://peer.example:{port}/")
    assert isinstance(refusal_in(refused.value), AddressRefused)
    assert asked == []


async def test_a_redirect_is_not_followed() -> None:
    async with listening() as (inside, asked):
        moved = f"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n"
        async with listening(moved.encode()) as (port, _):
            answer = await get(AddressRules(LOOPBACK), f"http://127.0.0.1:{port}/")
    assert answer.status_code == 307
    assert asked == []


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (proxy, through), listening() as (port, asked):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        await get(AddressRules(LOOPBACK), f"http://127.0.0.1:{port}/")
    assert (len(asked), through) == (1, [])


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async with listening() as (port, asked):
        rules = AddressRules(LOOPBACK, resolve=Names(["::1", "127.0.0.1"]))
        await get(rules, f"http://peer.example:{port}/")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:x/",
        "http://peer.example:/",
        "http://a..b/",
        "http://.a/",
        "http://[::1",
        "http://[::1]x/",
        "http://[::g]/",
        "http://[fe80::1%25eth0]/",
        "http://[v1.x]/",
        "http://ein name/",
        "http://a\tb/",
        "http://a\nb/",
        " http://a/",
        "http://ada:secret@peer.example/",
        "http://@peer.example/",
        "http://good.example\\@evil.example/",
        "http://good.example\\evil/",
        "http://a%2eb/",
        "http://-a.example/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}aa/",
        f"http://peer.example/{'a' * 2048}",
        "http:///path",
        "http:peer.example",
        "//peer.example/",
        "ftp://peer.example/",
        "peer.example",
        "",
    ],
)
def test_a_url_that_is_not_well_formed_as_a_whole_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|at most") as refused:
        host_of(url)
    assert "secret" not in str(refused.value)


def test_the_host_of_a_url_is_in_lower_case_and_ascii() -> None:
    assert host_of("https://LLM.Example:443/v1?a=b") == "llm.example"
    assert host_of("http://m\u00fcnchen.example/") == "xn--mnchen-3ya.example"
    assert host_of("http://[0:0::1]:80/") == "::1"


def test_where_callers_are_known_or_others_listen_loopback_is_not_allowed_by_itself(tmp_path: Path) -> None:
    def allows(address: str, /, **more: object) -> bool:
        settings = ServerSettings(data_dir=tmp_path, **more)  # type: ignore[arg-type]  # as given
        try:
            settings.outbound.rules.check_host(address)
        except AddressRefused:
            return False
        return True

    tokens = {"token_keys": TokenSettings(key=b"k" * 32)}
    assert allows("127.0.0.1")
    assert allows("::1")
    assert not allows("10.0.0.1")
    assert not allows("127.0.0.1", allowed_outbound=())
    assert not allows("127.0.0.1", **tokens)
    assert not allows("127.0.0.1", api_keys=True)
    assert not allows("127.0.0.1", host="", insecure=True)
    assert allows("127.0.0.1", allowed_outbound=("127.0.0.1",), **tokens)
    assert allows("8.8.8.8", **tokens)


@pytest.mark.parametrize(
    "wrong", ["10.0.0.0/33", "a b", "http://peer.example/", "", "peer.example:80", "2130706433"]
)
def test_what_is_no_address_network_or_name_is_not_allowed(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed_outbound"):
        ServerSettings(data_dir=tmp_path, allowed_outbound=(wrong,))


def test_endpoints_of_the_settings_are_well_formed_as_a_whole() -> None:
    with pytest.raises(ValueError, match=r"corp.*port"):
        OAuthProviderSettings(
            id="corp",
            name="Corp",
            authorization_endpoint="https://a.example/",
            token_endpoint="https://a.example:0/",
        )

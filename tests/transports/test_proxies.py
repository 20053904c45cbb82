"""What is a proxy, which one leads to a URL, and the tunnel through it: without sockets."""

from __future__ import annotations

import base64

import pytest

from circuit_breaker_sdk import UsageError
from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.transports.proxies import Proxies, Proxy, ProxyError
from circuit_breaker_sdk.transports.proxy_tunnel import MAX_HEAD_BYTES, Tunnel


def place(proxies: Proxies, url: str) -> str | None:
    proxy = proxies.of(url)
    return None if proxy is None else proxy.place


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("http://proxy.example:3128", "proxy.example", "proxy.example:3128"),
        ("http://proxy.example", "proxy.example", "proxy.example:80"),
        ("http://proxy.example:3128/", "proxy.example", "proxy.example:3128"),
        ("http://[::1]:3128", "::1", "[::1]:3128"),
        ("http://bücher.example:1", "xn--bcher-kva.example", "xn--bcher-kva.example:1"),
    ],
)
def test_a_proxy_has_a_host_and_a_port(url: str, host: str, shown: str) -> None:
    proxy = Proxy(url)
    assert (proxy.host, proxy.place, proxy.authorization) == (host, shown, None)
    assert proxy.url == f"http://{shown}"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("user:pass", "user:pass"),
        ("user", "user:"),
        ("us%40er:p%3Aa%2Fss", "us@er:p:a/ss"),
        ("j%C3%BCrgen:x", "jürgen:x"),
    ],
)
def test_credentials_are_decoded_and_sent_as_basic(given: str, sent: str) -> None:
    authorization = Proxy(f"http://{given}@proxy:1").authorization
    assert authorization == "Basic " + base64.b64encode(sent.encode()).decode()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://user:hunter2-secret@proxy:1080", r"only http:// is supported .*not socks5://"),
        ("https://user:hunter2-secret@proxy:443", r"only http:// is supported .*not https://"),
        ("hunter2-secret:1", "only http:// is supported"),
        ("http://user:hunter2-secret@", "a host and a port"),
        ("http://user:hunter2-secret@proxy:x", "cannot be read|can be read"),
        ("http://user:hunter2-secret@proxy:1/path", "no path"),
        ("http://user:hunter2-secret@proxy:0", "a host and a port"),
        ("http://user:hunter2-secret@a b:1", "can be read"),
        ("http://user:hunter2-secret@pro\nxy:1", "can be read"),
        ("http://user:hunter2-secret@a*b:1", "not a host name"),
        ("http://us%3Aer:hunter2-secret@proxy:1", "no colon"),
        ("", "only http:// is supported"),
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        Proxies(url)
    assert "hunter2" not in repr(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(("proxy", "trust_env"), [(1, True), (b"http://x", True), (None, "yes")])
def test_arguments_of_another_type_are_refused(proxy: object, trust_env: object) -> None:
    with pytest.raises(UsageError, match=r"proxy must be a URL|trust_env must be of type bool"):
        Proxies(proxy, trust_env=trust_env)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("ws://a.example/graphql", "http_proxy"),
        ("http://a.example/graphql", "http_proxy"),
        ("wss://a.example/graphql", "https_proxy"),
        ("https://a.example/graphql", "https_proxy"),
        ("ws://a.example/graphql", "all_proxy"),
        ("wss://a.example/graphql", "all_proxy"),
    ],
)
def test_the_environment_names_a_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, *, upper: bool
) -> None:
    monkeypatch.setenv(variable.upper() if upper else variable, "http://one:1")
    assert place(Proxies(), url) == "one:1"
    assert place(Proxies(trust_env=False), url) is None
    assert place(Proxies("http://two:2"), url) == "two:2"


def test_the_variable_of_a_scheme_wins_over_that_of_all_and_small_letters_over_capitals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://capitals:1")
    monkeypatch.setenv("https_proxy", "small:2")  # without a scheme, as many write it
    assert place(Proxies(), "wss://a.example/") == "small:2"
    assert place(Proxies(), "ws://a.example/") == "all:1"


@pytest.mark.parametrize(
    ("excepted", "url", "direct"),
    [
        ("a.example", "ws://a.example/", True),
        ("other, .example", "ws://a.example/", True),
        ("a.example:80", "ws://a.example/", True),
        ("a.example:443", "wss://a.example/", True),
        ("a.example:81", "ws://a.example/", False),
        ("*", "wss://anything:1/", True),
        ("ample", "ws://a.example/", False),
        ("::1", "ws://[::1]:4000/", True),
        ("[::1]:4000", "ws://[::1]:4000/", True),
        ("127.0.0.1", "ws://127.0.0.1:4000/", True),
        ("", "ws://127.0.0.1:4000/", False),
        ("xn--bcher-kva.example", "ws://bücher.example/", True),
        ("A.EXAMPLE", "HTTP://a.example", True),
    ],
)
def test_no_proxy_names_hosts_that_are_reached_directly(
    monkeypatch: pytest.MonkeyPatch, excepted: str, url: str, *, direct: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    monkeypatch.setenv("no_proxy", excepted)
    assert (Proxies().of(url) is None) is direct
    assert Proxies("http://given:1").of(url) is not None


def test_a_proxy_of_the_environment_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:hunter2-secret@proxy:1080")
    with pytest.raises(
        UsageError, match=r"HTTPS_PROXY of the environment .*only http:// is supported"
    ) as raised:
        Proxies().of("wss://a.example/")
    assert "hunter2" not in str(raised.value)
    assert Proxies().of("ws://a.example/") is None


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://one:1")
    proxies = Proxies()
    monkeypatch.setenv("HTTP_PROXY", "http://two:2")
    assert place(proxies, "ws://a.example/") == "one:1"


def test_nothing_shows_credentials_and_they_are_taken_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://some-user:hunter2%2Fsecret@proxy:1")
    for proxies in (Proxies("http://some-user:hunter2%2Fsecret@proxy:1"), Proxies()):
        proxy = proxies.of("ws://a.example/")
        assert repr(proxy) == "Proxy(proxy:1)"
        credentials = Credentials(proxies=proxies)
        assert "hunter2" not in repr(credentials) + repr(proxies)
        assert proxy is not None
        assert proxy.authorization is not None
        for secret in ("hunter2/secret", "hunter2%2Fsecret", "some-user", proxy.authorization):
            shown = credentials.redaction.text(f"the proxy says: {secret}")
            assert shown in {"the proxy says: [redacted]", "the proxy says: Basic [redacted]"}


# The tunnel ------------------------------------------------------------------------------------------------


def test_a_tunnel_asks_for_the_server_by_its_name() -> None:
    proxy = Proxy("http://user:pass@proxy:1")
    request = Tunnel(proxy, "server.example", 443).request
    assert request == (
        b"CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
    )
    assert Tunnel(Proxy("http://proxy:1"), "::1", 80).request == (
        b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES - 24) + b"\r\n\r\n",
    ],
)
def test_a_tunnel_stands_after_an_answer_of_success_however_it_is_cut(answer: bytes) -> None:
    assert len(answer) <= MAX_HEAD_BYTES
    proxy = Proxy("http://proxy:1")
    assert Tunnel(proxy, "server", 80).feed(answer)
    tunnel = Tunnel(proxy, "server", 80)
    assert not tunnel.feed(answer[:1])
    assert not tunnel.feed(answer[1:-1])
    assert tunnel.feed(answer[-1:])


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Who\r\n\r\n", r"HTTP 407.*wants credentials: proxy='http://user:password@host:port'"),
        (b"HTTP/1.1 403 No\r\n\r\n", r"HTTP 403.*NO_PROXY"),
        (b"HTTP/1.1 502 No\r\n\r\n", r"HTTP 502.*address right"),
        (b"HTTP/1.1 101 No\r\n\r\n", "HTTP 101"),
        (b"HTTP/1.1 301 No\r\nLocation: x\r\n\r\n", "HTTP 301"),
        (b"", "closed the connection before it answered"),
        (b"SSH-2.0-x\r\n", "not HTTP .*SSH"),
        (b"\x15\x03\x01", "not HTTP"),
        (b"HTTP/1.1 2000 x\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "more behind"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES, "longer than 16384 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES - 23) + b"\r\n\r\n", "longer than 16384 bytes"),
    ],
)
def test_anything_else_is_no_tunnel(answer: bytes, told: str) -> None:
    with pytest.raises(ProxyError, match=told) as raised:
        Tunnel(Proxy("http://proxy:3128"), "server", 80).feed(answer)
    assert "the proxy proxy:3128" in raised.value.text


def test_credentials_that_were_refused_are_told_from_those_that_are_missing() -> None:
    told = Proxy("http://user:hunter2@proxy:1").refused(407).text
    assert "refused the credentials" in told
    assert "hunter2" not in told

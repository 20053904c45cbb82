"""What a URL means, and what of it may be shown."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.urls import http_url, redacted, websocket_url


@pytest.mark.parametrize(
    ("given_url", "websocket", "http"),
    [
        ("ws://localhost:4000/graphql", "ws://localhost:4000/graphql", "http://localhost:4000/graphql"),
        ("wss://example.com/graphql", "wss://example.com/graphql", "https://example.com/graphql"),
        ("http://localhost:4000", "ws://localhost:4000/graphql", "http://localhost:4000/graphql"),
        ("https://example.com", "wss://example.com/graphql", "https://example.com/graphql"),
        ("HTTPS://Example.COM:8443/API", "wss://example.com:8443/API", "https://example.com:8443/API"),
        ("ws://localhost:4000/", "ws://localhost:4000/", "http://localhost:4000/"),
        (
            "ws://localhost?tenant=a&x=%20",
            "ws://localhost/graphql?tenant=a&x=%20",
            "http://localhost/graphql?tenant=a&x=%20",
        ),
        ("ws://[::1]:4000", "ws://[::1]:4000/graphql", "http://[::1]:4000/graphql"),
        ("ws://[fe80::1%25eth0]/x", "ws://[fe80::1%25eth0]/x", "http://[fe80::1%25eth0]/x"),
        (
            "ws://bücher.example/straße?q=ü",
            "ws://xn--bcher-kva.example/stra%C3%9Fe?q=%C3%BC",
            "http://xn--bcher-kva.example/stra%C3%9Fe?q=%C3%BC",
        ),
    ],
)
def test_one_url_names_both_the_websocket_and_http(given_url: str, websocket: str, http: str) -> None:
    assert websocket_url(given_url) == websocket
    assert http_url(given_url) == http
    assert websocket_url(http) == websocket
    assert http_url(websocket) == http


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "must start with ws://"),
        ("localhost:4000/graphql", "must start with ws://"),
        ("example.com", "must start with ws://"),
        ("ftp://example.com", "must start with ws://"),
        ("ws:///graphql", "must start with ws://"),
        ("ws://:4000/graphql", "host is missing"),
        ("ws://example.com:port", "not a URL"),
        ("ws://example.com:99999", "not a URL"),
        ("ws://example.com:0", "port 0"),
        ("ws://[::1", "not a URL"),
        ("ws://[nonsense]/", "not a"),
        ("ws://user:secret@example.com", "token or a header"),
        ("ws://example.com/#part", "fragment"),
        ("ws://example.com/a b", "white space"),
        ("ws://example.com/\r\nX: 1", "white space"),
        ("ws://a..example", "not a host name"),
        ("ws://a%20b.example", "not a host name"),
        ("ws://\u00b4", "not a host name"),
        ("ws://" + "a" * 70 + ".example", "not a host name"),
    ],
)
def test_what_cannot_be_connected_to_says_what_to_write_instead(url: str, told: str) -> None:
    for function in (websocket_url, http_url):
        with pytest.raises(UsageError) as caught:
            function(url)
        assert told in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://user:secret@example.com:1/a?token=secret#secret", "wss://example.com:1/a"),
        ("ws://localhost/graphql", "ws://localhost/graphql"),
        ("user:secret@example.com", "<invalid URL>"),
        ("ws://[::1/secret", "<invalid URL>"),
    ],
)
def test_what_is_shown_of_a_url_holds_no_secret(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(max_size=80))
def test_showing_a_url_never_fails(url: str) -> None:
    shown = redacted(url)
    assert "@" not in urlsplit(shown).netloc


@given(st.text(max_size=40), st.sampled_from(["ws://", "https://", ""]))
def test_any_text_is_a_url_or_the_callers_mistake(rest: str, scheme: str) -> None:
    try:
        url = websocket_url(scheme + rest)
    except UsageError:
        return
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert websocket_url(url) == url

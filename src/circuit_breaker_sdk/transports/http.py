"""One query or mutation per HTTP request: GraphQL over HTTP, the POST with JSON."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl as tls
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from typing import Final, final

import aiohttp
from yarl import URL

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    OperationTimeoutError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.protocol.positions import HEADER, Positions
from circuit_breaker_sdk.transports.address_resolution import STAGGER_SECONDS, HttpResolver
from circuit_breaker_sdk.transports.error_texts import explain_os_error, refusal
from circuit_breaker_sdk.transports.graphql_response import graphql_response, with_server_text
from circuit_breaker_sdk.transports.headers import checked_headers
from circuit_breaker_sdk.transports.http_stream import HttpStream
from circuit_breaker_sdk.transports.proxied_http import ProxiedConnector, proxy_arguments
from circuit_breaker_sdk.transports.proxies import Proxy, ProxyError
from circuit_breaker_sdk.urls import http_url, redacted

__all__ = ["HttpTransport"]

_ACCEPT: Final = "application/graphql-response+json, application/json;q=0.9"
_CHUNK_BYTES: Final = 64 * 1024
# Shorter than the 5 s after which uvicorn, and many other servers, close an idle connection: a request
# written while the server closes would be lost, and a POST must not be repeated by itself.
_IDLE_SECONDS: Final = 4.0
_CLOSED: Final = "the client is closed: make a new one"


def _naming(headers: Mapping[str, str], positions: tuple[str, ...]) -> Mapping[str, str]:
    return {**headers, HEADER: ", ".join(positions)} if positions else headers


@final
class HttpTransport:
    """Sends operations to one URL over kept-alive connections; opened by the first request.

    :param url: ``http``, ``https``, ``ws`` or ``wss``; see :func:`~circuit_breaker_sdk.urls.http_url`.
    :param headers: asked before each request, so that a refreshed token is used at once.
    :param ssl: for ``https``; ``None`` trusts what the system trusts.
    :param proxy: leads to the server; ``None`` connects directly.
    :param max_connections: at once; 0 sets no limit.
    :param positions: named to the server, and taken from its answers.

    Example::

        transport = HttpTransport("http://localhost:4000/graphql", headers=headers, timeouts=Timeouts())
        body = await transport.execute(b'{"query":"{ health }"}')
        await transport.aclose()
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Callable[[], Awaitable[Mapping[str, str]]],
        ssl: tls.SSLContext | None = None,
        timeouts: Timeouts,
        limits: MessageLimits | None = None,
        proxy: Proxy | None = None,
        max_connections: int = 100,
        positions: Positions | None = None,
    ) -> None:
        self._url = http_url(url)
        self._max_connections = max_connections
        self._positions = positions or Positions()
        self._place = redacted(self._url)
        self._headers = headers
        self._ssl = ssl
        self._proxy = proxy
        self._is_secure = self._url.startswith("https")
        self._through = "" if proxy is None else f" through the proxy {proxy.place}"
        self._has_answered = False
        self._timeouts = timeouts
        self._limits = limits or MessageLimits()
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._under_way: set[asyncio.Timeout] = set()
        self._all_ended = asyncio.Event()

    async def execute(self, body: bytes, *, extra_headers: Mapping[str, str] | None = None) -> bytes:
        """Send one request; return the body of any answer that is a GraphQL response, whatever its status.

        Nothing is sent twice: after a lost connection it is not known whether the operation was executed.
        Cancelling drops the connection of this request.

        :param body: the encoded request: ``query``, ``variables``, ``operationName``, ``extensions``.
        :param extra_headers: of this request only.
        :raises UsageError: closed, or a header cannot be sent.
        :raises ConnectionFailed: no connection, it was lost, or the answer is not a GraphQL response.
        :raises HandshakeFailed: there is no GraphQL over HTTP at this path, or it redirects.
        :raises AuthenticationFailed: HTTP 401 or 403.
        :raises RateLimitExceeded: HTTP 429.
        :raises OperationTimeoutError: no whole answer within ``execute_seconds``.
        """
        return await self._request(
            body,
            extra_headers or {},
            self._judge,
            seconds=self._timeouts.execute_seconds,
            what="executing over HTTP",
        )

    async def post(
        self, body: bytes, *, seconds: float, extra_headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send one request; return the body of an answer with status 200, whatever it holds.

        :param seconds: for the whole answer.
        :raises: as :meth:`execute`.
        """
        return await self._request(
            body, extra_headers or {}, self._only_200, seconds=seconds, what="an answer over HTTP"
        )

    async def _request(
        self,
        body: bytes,
        extra_headers: Mapping[str, str],
        judge: Callable[[aiohttp.ClientResponse, bytes], bytes],
        *,
        seconds: float,
        what: str,
    ) -> bytes:
        self._check_open()
        may_be_sent = False
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                self._under_way.add(limit)
                headers = checked_headers({**await self._headers(), **extra_headers})
                self._check_open()  # again: a token may take its time
                may_be_sent = True
                return await self._send(body, headers, judge)
        except TransportError:
            raise  # some are a TimeoutError, and not that of the limit
        except TimeoutError:
            if not self._is_closed:
                raise OperationTimeoutError(
                    f"{self._place}: {what}{self._through}", seconds=seconds
                ) from None
            if not may_be_sent:
                raise UsageError(_CLOSED) from None
            raise ConnectionFailed(
                "the client was closed before the whole answer came; whether the operation was executed is "
                "not known",
                url=self._place,
            ) from None
        finally:
            self._under_way.discard(limit)
            if self._is_closed and not self._under_way:
                self._all_ended.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError(_CLOSED)

    def _only_200(self, response: aiohttp.ClientResponse, body: bytes) -> bytes:
        if response.status != 200:
            raise self._refusal(response, "answer polls")
        return body

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice; requests under way fail, and have ended then."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._under_way:
            if not limit.expired():
                limit.reschedule(now)
        if self._under_way:
            await self._all_ended.wait()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self,
        body: bytes,
        headers: Mapping[str, str],
        judge: Callable[[aiohttp.ClientResponse, bytes], bytes],
    ) -> bytes:
        with self._explained(
            "the connection was lost before the whole answer came; whether the operation was "
            "executed is not known"
        ):
            named = self._positions.named
            async with self._open_session().post(
                URL(self._url, encoded=True),
                data=body,
                allow_redirects=False,
                **proxy_arguments(self._proxy, _naming(headers, named), secure=self._is_secure),
            ) as response:
                self._has_answered = True
                self._positions.answered(named, response.headers.get(HEADER))
                return judge(response, await self._read(response))

    @contextlib.contextmanager
    def _explained(self, lost: str) -> Iterator[None]:
        """Raise what aiohttp raises as an error of ours; ``lost`` says what a lost connection means."""
        try:
            yield
        except ProxyError as error:
            raise ConnectionFailed(error.text, url=self._place, not_sent=True) from error.__cause__
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectionFailed(
                f"no connection within connect_seconds ({self._timeouts.connect_seconds:g} s)",
                url=self._place,
                not_sent=True,
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise self._not_connected(error) from error
        except aiohttp.ClientResponseError as error:
            raise ConnectionFailed(
                f"the answer is not HTTP ({error.message.strip()}): check host and port{self._advice()}",
                url=self._place,
            ) from error
        except aiohttp.ClientError as error:
            raise ConnectionFailed(f"{lost} ({error}){self._advice()}", url=self._place) from error
        except TransportError:
            raise  # some are an OSError as well
        except OSError as error:
            # An OSError with ETIMEDOUT is a TimeoutError too, and would pass for our own timeout.
            text = explain_os_error(error, host="", secure=False)
            raise ConnectionFailed(text, url=self._place) from error

    async def open_stream(
        self,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        accept: str,
        statuses: Container[int] = (200,),
        query: str = "",
        seconds: float,
    ) -> HttpStream:
        """Send one request; return its answer once its head is there, to be read piece by piece.

        :param headers: of this request only.
        :param accept: the type that the answer should have.
        :param statuses: of an answer that is no refusal.
        :param query: added to the URL, without the question mark.
        :param seconds: for the head.
        :raises: as :meth:`execute`.
        """
        self._check_open()
        checked = checked_headers({**await self._headers(), **headers})
        given = {**_naming(checked, self._positions.named), "Accept": accept}
        self._check_open()  # again: a token may take its time
        url = self._url + ("&" if "?" in self._url else "?") * bool(query) + query
        try:
            async with asyncio.timeout(seconds):
                with self._explained("the connection was lost before an answer came"):
                    response = await self._open_session().request(
                        method,
                        URL(url, encoded=True),
                        data=body,
                        allow_redirects=False,
                        **proxy_arguments(self._proxy, given, secure=self._is_secure),
                    )
        except TransportError:
            raise  # some are a TimeoutError, and not that of the limit
        except TimeoutError:
            what = f"{self._place}: an answer over HTTP{self._through}"
            raise OperationTimeoutError(what, seconds=seconds) from None
        self._has_answered = True
        if response.status not in statuses:
            response.close()
            raise self._refusal(response, "answer GraphQL over server-sent events")
        return HttpStream(response, functools.partial(self._explained, "the stream was cut"))

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            seconds = self._timeouts.connect_seconds
            new_connector = (
                aiohttp.TCPConnector
                if self._proxy is None
                else functools.partial(ProxiedConnector, self._proxy, seconds)
            )
            self._session = aiohttp.ClientSession(
                connector=new_connector(
                    limit=self._max_connections,
                    ssl=self._ssl if self._ssl is not None else True,
                    keepalive_timeout=_IDLE_SECONDS,
                    resolver=HttpResolver(seconds),
                    use_dns_cache=False,
                    happy_eyeballs_delay=STAGGER_SECONDS,
                    interleave=1,
                ),
                # execute_seconds bounds all of it; aiohttp's own default would be five minutes.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=seconds),
                headers={"Accept": _ACCEPT, "Content-Type": "application/json"},
                # Cookies of one answer have no business in the next request of a program.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body, bounded after decompression."""
        limit = self._limits.max_message_bytes
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            if size > limit:
                raise ConnectionFailed(
                    f"the answer is larger than max_message_bytes ({limit} bytes)", url=self._place
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _judge(self, response: aiohttp.ClientResponse, body: bytes) -> bytes:
        """Return the body of a GraphQL response.

        :raises TransportError: what the status means, or that the answer is none.
        """
        status = response.status
        decoded = graphql_response(body)
        if status in {401, 403, 429} or 300 <= status < 400 or (decoded is None and status >= 400):
            raise with_server_text(self._refusal(response, "answer GraphQL over HTTP"), decoded)
        if decoded is None:
            raise ConnectionFailed(
                f"the answer (HTTP {status}, {response.content_type}) is not a GraphQL response: is this the "
                "path of a GraphQL server?",
                url=self._place,
            )
        return body

    def _refusal(self, response: aiohttp.ClientResponse, purpose: str) -> TransportError:
        """Return what the status means; where a proxy reads the answers, it may be the proxy's own."""
        status = response.status
        error = refusal(status, response.headers, url=self._place, purpose=purpose)
        if self._proxy is None or self._is_secure:
            return error
        if status == 407:
            return ConnectionFailed(self._proxy.refused(status).text, url=self._place, not_sent=True)
        note = f"; it may be the proxy {self._proxy.place} that says so"
        if isinstance(error, AuthenticationFailed) and status == 403:
            return AuthenticationFailed(error.message + note)
        if isinstance(error, ConnectionFailed) and status >= 500:
            return ConnectionFailed(error.message + note, url=self._place)
        return error

    def _advice(self) -> str:
        # A server of TLS hangs up on a plain request; one that has answered before speaks what we speak.
        if self._proxy is not None:
            return f";{self._through}"
        if self._has_answered or self._is_secure:
            return ""
        return "; if the server speaks TLS at this port, use https://"

    def _not_connected(self, error: aiohttp.ClientConnectorError) -> ConnectionFailed:
        cause: Exception = error.os_error
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = error.certificate_error
        if not isinstance(cause, OSError):
            cause = OSError(str(cause))
        text = explain_os_error(cause, host=error.host, secure=self._is_secure)
        return ConnectionFailed(text, url=self._place, not_sent=True)

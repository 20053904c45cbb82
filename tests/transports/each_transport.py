"""What each transport is there for, through a proxy or not, and all that an error tells."""

from __future__ import annotations

from circuit_breaker_sdk import (
    CircuitBreakerPolicy,
    Client,
    ConnectionState,
)

SECRET = "hunter2-secret"
CREDENTIALS = f"some-user:{SECRET}"
# What a proxy, a header or an error could show of them.
SECRETS = (SECRET, "some-user", "c29tZS11c2VyOmh1bnRlcjItc2VjcmV0")


async def use(transport: str, url: str, **settings: object) -> None:
    """Do over one transport what it is there for, and see that it works."""
    if transport in {"sse", "poll"}:
        settings.setdefault("transports", ("websocket", transport))
    settings.setdefault("circuit_breaker", CircuitBreakerPolicy(failure_threshold=1, open_seconds=0.05))
    async with Client(url, **settings) as client:  # type: ignore[arg-type]
        match transport:
            case "http":
                assert await client.server_health()
            case "websocket":
                await client.subscriptions.resource_updates().subscribe()
                assert client.state is ConnectionState.CONNECTED
            case _:
                updates = await client.subscriptions.resource_updates().critical().subscribe()
                assert updates.transport == transport


def everything_told(error: BaseException) -> str:
    """Return the texts of an error and of all that it is chained to, whichever way."""
    told: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None:
            continue
        told += (str(link), repr(link), repr(link.args), repr(vars(link)))
        todo += (link.__cause__, link.__context__)
        if isinstance(link, BaseExceptionGroup):
            todo += link.exceptions
    return "\n".join(told)

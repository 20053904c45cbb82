"""The access policy that all nodes of a cluster share, in its bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.policy import Policy, PolicyError, PolicySource, read_policy_file
from circuit_breaker_server.shared.bucket import Bucket

__all__ = ["open_shared_policy", "publish_policy"]

_KIND: Final = "policy"
_ID: Final = "current"

logger = get_logger("policy")


async def publish_policy(bucket: Bucket, path: Path) -> Policy:
    """Put the policy of a file into the bucket, from where all nodes take it; return it.

    :raises PolicyError: it cannot be read or used; the bucket was not changed.
    :raises BucketError: it cannot be said to be stored; the broker may be away.
    """
    data = read_policy_file(path)
    policy = Policy.parse(data, path)
    await bucket.put(_KIND, _ID, data)
    return policy


async def open_shared_policy(bucket: Bucket) -> PolicySource:
    """Take the policy of a bucket, and follow it; a change is in force a moment later.

    While the broker is away, and where an entry is removed or invalid, the policy before stays in force.

    :raises PolicyError: there is none, or it cannot be used.
    """
    return await PolicySource.open_from(lambda adopt: _Watched(bucket, adopt))


@final
class _Watched:
    """Hands on the policy of a bucket whenever it has changed."""

    def __init__(self, bucket: Bucket, adopt: Callable[[Policy], object]) -> None:
        self._bucket = bucket
        self._adopt = adopt
        self._end: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._adopt(self._read())
        self._end = self._bucket.on_change(_KIND, self._hand_on)

    async def check_now(self) -> None:
        self._hand_on()

    async def aclose(self) -> None:
        self._end()

    def _hand_on(self) -> None:
        why = ""
        try:
            self._adopt(self._read())
        except PolicyError as error:
            why = str(error)
        if why:
            logger.error("policy_refused", bucket=self._bucket.where, why=why)

    def _read(self) -> Policy:
        data = self._bucket.get(_KIND, _ID)
        if data is None:
            raise PolicyError(
                [f"{self._bucket.where}: has no policy; put one there: circuit-breaker policy publish FILE"]
            )
        return Policy.parse(data, Path(f"the policy in the bucket {self._bucket.name}"))

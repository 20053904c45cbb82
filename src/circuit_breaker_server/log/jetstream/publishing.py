"""Publish appends to the record stream: a group as one atomic batch, or one append alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_server.log.jetstream.broker import Broker, Json, check_api
from circuit_breaker_server.log.jetstream.errors import ApiError, BrokerUnavailable
from circuit_breaker_server.log.jetstream.messages import Messages
from circuit_breaker_server.log.jetstream.waiting_appends import Append

__all__ = ["DuplicateId", "Publisher"]

_ANSWER_SECONDS: Final = 2.0


class DuplicateId(Exception):
    """The server remembers the id, at an offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


@final
class Publisher:
    """Send appends, and wait for the broker's acknowledgements.

    Example::

        publisher = Publisher(broker, messages, stored=tail.expect)
        await publisher.publish_batch(group)
    """

    def __init__(self, broker: Broker, messages: Messages, *, stored: Callable[[int], None]) -> None:
        """Publish by way of a connection; ``stored`` is called with the offset of each acknowledgement."""
        self._broker = broker
        self._messages = messages
        self._stored = stored

    async def publish_batch(self, group: Sequence[Append]) -> Json:
        """Send a group that the broker stores whole or not at all.

        :raises ApiError: the broker refuses it.
        :raises BrokerUnavailable: the broker does not answer.
        """
        messages = [message for append in group for message in self._messages.of(append)]
        batch_id, last = secrets.token_hex(16), len(messages)
        with self._broker.replies() as (reply, answers):
            for number, (subject, data, headers) in enumerate(messages, 1):
                headers["Nats-Batch-Id"] = batch_id
                headers["Nats-Batch-Sequence"] = str(number)
                if number == last:
                    headers["Nats-Batch-Commit"] = "1"
                    for each in group:
                        each.is_uncertain = True
                await self._broker.publish(
                    subject, data, headers=headers, reply=reply if number == last else ""
                )
            answer = await self._broker.next_reply(
                answers, timeout_seconds=_ANSWER_SECONDS, subject="a batch of appends"
            )
        return self._acknowledged(check_api(answer.data))

    async def publish_single(self, append: Append) -> None:
        """Send an append alone.

        :raises ApiError: the broker refuses it.
        :raises DuplicateId: the broker remembers its id.
        :raises BrokerUnavailable: the broker does not answer.
        """
        was_uncertain, append.is_uncertain = append.is_uncertain, True
        try:
            answer = await self._publish_alone(append)
        except ApiError as error:
            append.is_uncertain, append.problem = was_uncertain, str(error)
            raise
        except BrokerUnavailable as error:
            append.is_uncertain, append.problem = was_uncertain or error.was_sent, str(error)
            raise
        if answer.get("duplicate"):
            append.is_uncertain = was_uncertain
            raise DuplicateId(int(answer["seq"]))

    async def _publish_alone(self, append: Append) -> Json:
        if append.record.guards is not None:
            return await self.publish_batch([append])
        ((subject, data, headers),) = self._messages.of(append)
        message = await self._broker.request(subject, data, headers=headers, timeout_seconds=_ANSWER_SECONDS)
        return self._acknowledged(check_api(message.data))

    def _acknowledged(self, answer: Json) -> Json:
        if "seq" in answer:
            self._stored(int(answer["seq"]))
        return answer

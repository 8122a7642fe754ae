"""A member of the group that stops when the coordinator refuses it permanently, and says why.

aiokafka takes every answer it does not know for an error that may pass: it logs it and tries again for ever. That is
how two workers of one SKUTREND_INSTANCE take the membership from each other: aiokafka's heartbeats and commits do not
carry the name, so that the older one gets "unknown member" and not "replaced" (KIP-345). Here both carry it: whichever
comes first tells. A refusal that does not pass is reported, after which the member sends nothing until it is closed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer import consumer as aiokafka_consumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitRequest_v2,
    OffsetCommitRequest_v3,
    OffsetCommitResponse_v3,
)
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatRequest_v0, HeartbeatRequest_v1
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

from schemas.errors import Refused
from streams.kafka.assignor import CoAssignor
from streams.kafka.broker_errors import GROUP_REMEDIES, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class _HeartbeatResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _NamedHeartbeat(RequestStruct):  # type: ignore[misc]  # likewise
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class Heartbeat(Request[HeartbeatRequest_v0 | HeartbeatRequest_v1 | _NamedHeartbeat]):  # type: ignore[misc]  # likewise
    """A heartbeat that carries the name of a static member, where the brokers know such (since Kafka 2.3)."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member: str, instance: str) -> None:
        """Take generation and member as the coordinator has given them."""
        self._fields = group, generation, member, instance

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        """Make the struct of the version that was agreed upon."""
        is_named = request_struct_class is _NamedHeartbeat
        return request_struct_class(*(self._fields if is_named else self._fields[:3]))


class _CommitResponse(Response):  # type: ignore[misc]  # likewise
    API_KEY = 8
    API_VERSION = 7
    SCHEMA = OffsetCommitResponse_v3.SCHEMA


class _NamedCommit(RequestStruct):  # type: ignore[misc]  # likewise
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = _CommitResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", String("utf-8"))
                    ),
                ),
            ),
        ),
    )


_NO_EPOCH: Final = -1


class Commit(Request[OffsetCommitRequest_v2 | OffsetCommitRequest_v3 | _NamedCommit]):  # type: ignore[misc]  # likewise
    """A commit of offsets that carries the name of a static member, where the brokers know such (since Kafka 2.3)."""

    API_KEY = 8

    def __init__(self, plain: OffsetCommitRequest, instance: str) -> None:
        """plain: the commit as aiokafka has made it."""
        self._plain, self._instance = plain, instance

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        """Make the struct of the version that was agreed upon."""
        plain = self._plain.build(OffsetCommitRequest_v3)
        if request_struct_class is not _NamedCommit:
            return self._plain.build(request_struct_class)
        topics = [
            (topic, [(partition, offset, _NO_EPOCH, metadata) for partition, offset, metadata in partitions])
            for topic, partitions in plain.topics
        ]
        member = plain.consumer_group, plain.consumer_group_generation_id, plain.consumer_id
        return request_struct_class(*member, self._instance, topics)


class GroupMember(GroupCoordinator):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's coordinator of one member. refused: called with the reason why it can never be one as it is."""

    refused: Callable[[Refused], None] = staticmethod(log.error)

    async def _send_req(self, request: Any) -> Any:  # noqa: ANN401 - aiokafka has no types
        instance = self._group_instance_id
        if isinstance(request, HeartbeatRequest) and instance is not None:
            request = Heartbeat(self.group_id, self.generation, self.member_id, instance)
        elif isinstance(request, OffsetCommitRequest) and instance is not None and self.member_id:
            # without an id it has lost its place and is to join anew: its name would make it look like another worker
            request = Commit(request, instance)
        answer = await super()._send_req(request)
        code = next((each for each in _codes(request, answer) if each in GROUP_REMEDIES), None)
        if code is None:
            return answer
        attempt = Attempt(group=self.group_id, instance=instance or "", session_ms=self._session_timeout_ms)
        self.refused(Refused(attempt.remedy(code)))
        await asyncio.wait([self._closing])
        raise GroupCoordinatorNotAvailableError


def _codes(request: Any, answer: Any) -> list[int]:  # noqa: ANN401 - aiokafka has no types
    """Give the error codes of an answer, which to a commit has one for each partition."""
    if isinstance(request, Commit):
        return [code for _, partitions in answer.topics for _, code in partitions]
    return [getattr(answer, "error_code", 0)]


def _coordinator(*args: Any, assignors: Any, **how: Any) -> GroupCoordinator:  # noqa: ANN401
    """Replace `GroupCoordinator` in aiokafka's consumer."""
    kind = GroupMember if any(isinstance(each, CoAssignor) for each in assignors) else GroupCoordinator
    return kind(*args, assignors=assignors, **how)


def install() -> None:
    """Make aiokafka's consumers that assign by `CoAssignor` use `GroupMember`; may be called more than once."""
    aiokafka_consumer.GroupCoordinator = _coordinator

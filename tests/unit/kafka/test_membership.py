"""What aiokafka's member of a group leans on, and what becomes of answers that will never be others."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import consumer as aiokafka_consumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest

from schemas.errors import Refused
from streams.kafka import membership
from streams.kafka.assignor import CoAssignor
from streams.kafka.broker_errors import GROUP_REMEDIES
from streams.kafka.membership import GroupMember, Heartbeat


def member(*, instance: str | None, answers: list[int], told: list[Refused]) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Make a member whose coordinator gives these answers; what it asks is in `asked`."""
    made: Any = object.__new__(GroupMember)
    made.group_id, made.generation, made.member_id, made.coordinator_id = "g", 7, "m-1", 0
    made._group_instance_id, made._session_timeout_ms = instance, 10_000  # noqa: SLF001 - aiokafka's own
    made._closing = asyncio.get_running_loop().create_future()  # noqa: SLF001
    made.refused, made.asked = told.append, []

    async def send(_node: int, request: Any, **_: Any) -> Any:  # noqa: ANN401 - likewise
        made.asked.append(request)
        return SimpleNamespace(error_code=answers.pop(0))

    made._client = SimpleNamespace(send=send)  # noqa: SLF001
    return made


@pytest.mark.parametrize("code", GROUP_REMEDIES)
def test_a_member_that_is_refused_for_good_says_why_and_sends_nothing_more(code: int) -> None:
    async def run() -> None:
        told: list[Refused] = []
        one = member(instance="pod-0", answers=[code, code], told=told)
        asking = [asyncio.ensure_future(one._send_req(HeartbeatRequest("g", 7, "m-1"))) for _ in range(2)]  # noqa: SLF001
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in asking)
        (sentence,) = {str(reason) for reason in told}
        assert "SKUTREND_" in sentence or "group.max.size" in sentence
        assert "{" not in sentence
        one._closing.set_result(None)  # noqa: SLF001
        for each in asking:
            with pytest.raises(GroupCoordinatorNotAvailableError):
                await each

    asyncio.run(run())


def test_any_other_answer_is_aiokafka_s_business() -> None:
    async def run() -> None:
        told: list[Refused] = []
        codes = [code for code in range(-1, 120) if code not in GROUP_REMEDIES]
        one = member(instance=None, answers=list(codes), told=told)
        for code in codes:
            assert (await one._send_req(SimpleNamespace())).error_code == code  # noqa: SLF001
        assert told == []

    asyncio.run(run())


def test_a_static_member_s_heartbeat_carries_its_name_where_brokers_know_such() -> None:
    async def run() -> None:
        one = member(instance="pod-0", answers=[0, 0], told=[])
        await one._send_req(HeartbeatRequest("g", 7, "m-1"))  # noqa: SLF001
        (request,) = one.asked
        assert isinstance(request, Heartbeat)
        for newest, fields in ((4, ("g", 7, "m-1", "pod-0")), (3, ("g", 7, "m-1", "pod-0")), (2, ("g", 7, "m-1"))):
            struct = request.prepare({12: (0, newest)})
            assert tuple(struct.to_object().values()) == fields
            assert struct.RESPONSE_TYPE.API_VERSION == struct.API_VERSION == (3 if newest >= 3 else 1)
            assert struct.encode().count(b"pod-0") == (newest >= 3)
        one._group_instance_id = None  # noqa: SLF001
        await one._send_req(HeartbeatRequest("g", 7, "m-1"))  # noqa: SLF001
        assert isinstance(one.asked[1], HeartbeatRequest)

    asyncio.run(run())


def test_a_static_member_s_commit_carries_its_name_and_what_it_commits_where_brokers_know_such() -> None:
    """Else a commit that came before the next heartbeat let the older worker of a name drive out the newer."""

    async def run() -> None:
        one = member(instance="pod-0", answers=[], told=[])
        one._client.send = answering(one, [("t", [(0, 0), (1, 0)])])  # noqa: SLF001
        topics = [("t", [(0, 41, "note"), (1, 7, "")])]
        await one._send_req(OffsetCommitRequest("g", 7, "m-1", -1, topics))  # noqa: SLF001
        (request,) = one.asked
        for newest in (9, 7):
            struct = request.prepare({8: (2, newest)})
            assert struct.RESPONSE_TYPE.API_VERSION == struct.API_VERSION == 7
            decoded = type(struct).decode(struct.encode())
            assert (decoded.group, decoded.generation_id, decoded.member_id) == ("g", 7, "m-1")
            assert decoded.group_instance_id == "pod-0"
            assert decoded.topics == [("t", [(0, 41, -1, "note"), (1, 7, -1, "")])]
        for newest in (3, 2):
            struct = request.prepare({8: (2, newest)})
            assert struct.API_VERSION == newest
            assert struct.encode() == OffsetCommitRequest("g", 7, "m-1", -1, topics).prepare({8: (2, newest)}).encode()

    asyncio.run(run())


def test_a_commit_of_a_member_that_was_replaced_says_so_and_nothing_more_is_sent() -> None:
    async def run() -> None:
        told: list[Refused] = []
        one = member(instance="pod-0", answers=[], told=told)
        one._client.send = answering(one, [("t", [(0, 0), (1, 82)])])  # noqa: SLF001
        asking = asyncio.ensure_future(one._send_req(OffsetCommitRequest("g", 7, "m-1", -1, [])))  # noqa: SLF001
        await asyncio.sleep(0.01)
        assert not asking.done()
        assert "SKUTREND_INSTANCE 'pod-0' of group g is in use by another worker" in str(told[0])
        one._closing.set_result(None)  # noqa: SLF001
        with pytest.raises(GroupCoordinatorNotAvailableError):
            await asking

    asyncio.run(run())


def test_a_commit_of_a_static_member_that_is_to_join_anew_does_not_pass_for_another_worker_s() -> None:
    async def run() -> None:
        told: list[Refused] = []
        one = member(instance="pod-0", answers=[], told=told)
        one.member_id = ""  # what aiokafka makes of an answer that its generation is over
        one._client.send = answering(one, [("t", [(0, 25)])])  # noqa: SLF001
        await one._send_req(OffsetCommitRequest("g", -1, "", -1, []))  # noqa: SLF001
        assert isinstance(one.asked[0], OffsetCommitRequest)
        assert told == []

    asyncio.run(run())


def answering(one: Any, topics: object) -> Any:  # noqa: ANN401 - likewise
    async def send(_node: int, request: Any, **_: Any) -> Any:  # noqa: ANN401 - likewise
        one.asked.append(request)
        return SimpleNamespace(topics=topics)

    return send


def test_only_consumers_that_share_out_by_our_assignor_have_such_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiokafka_consumer, "GroupCoordinator", GroupCoordinator)
    membership.install()
    make = aiokafka_consumer.GroupCoordinator
    made: list[type] = []
    monkeypatch.setattr(GroupCoordinator, "__init__", lambda self, *_, **__: made.append(type(self)))
    make(assignors=(CoAssignor(),))
    make(assignors=(RoundRobinPartitionAssignor,))
    assert made == [GroupMember, GroupCoordinator]


def test_the_names_of_aiokafka_that_this_leans_on() -> None:
    start = " ".join(inspect.getsource(AIOKafkaConsumer.start).split())
    assert "self._coordinator = GroupCoordinator(" in start
    assert "assignors=self._partition_assignment_strategy" in start
    text = " ".join(inspect.getsource(GroupCoordinator).split())
    for name in ("_group_instance_id", "_session_timeout_ms", "_closing"):
        assert f"self.{name} =" in text, name
    assert "await self._send_req(request)" in " ".join(inspect.getsource(GroupCoordinator._do_commit_offsets).split())  # noqa: SLF001
    assert "HeartbeatRequest(self.group_id, self.generation, self.member_id)" in text
    assert list(inspect.signature(GroupCoordinator._send_req).parameters) == ["self", "request"]  # noqa: SLF001

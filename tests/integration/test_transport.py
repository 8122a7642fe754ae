"""Workers over `kbatch://`, on Apache Kafka and on the embedded broker: every record is folded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.kafka.embedded import EmbeddedBroker
from tests.support.counting_worker import TOPICS, Folded
from tests.support.records import produce_all_kinds
from tests.support.workers import Crew, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

PARTITIONS = 4


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[str]:
    names = [topic_prefix + topic for topic in TOPICS]
    if request.param == "kafka":
        node: KafkaBroker = request.getfixturevalue("kafka")
        node.make_topics(names, partitions=PARTITIONS)
        yield node.bootstrap
    else:
        with EmbeddedBroker() as embedded:
            embedded.make(names)
            yield embedded.bootstrap


def summed(crew: Crew, field: str) -> int:
    return sum(getattr(each, field) for each in crew.counts().values())


def test_every_kind_of_record_is_folded_once_under_pauses_and_over_a_restart(
    broker: str, topic_prefix: str, tmp_path: Path
) -> None:
    with Crew(broker, topic_prefix, tmp_path) as crew:
        crew.start("first", toggle=True)
        written = produce_all_kinds(broker, topic_prefix, each=400)
        wait_for(lambda: crew.rows() >= written["rows"], within_s=40, told=lambda: (crew.rows(), crew.log("first")))
        assert crew.stop("first") == 0, crew.log("first")
        stopped = crew.counts()

        written += produce_all_kinds(broker, topic_prefix, each=100)
        crew.start("second", toggle=True)
        wait_for(lambda: crew.rows() >= written["rows"], within_s=40, told=lambda: (crew.rows(), crew.log("second")))
        assert crew.stop("second") == 0, crew.log("second")

        assert {kind: summed(crew, kind) for kind in written} == dict(written)
        assert len(stopped) == len(TOPICS) * PARTITIONS
        for tp, folded in crew.counts().items():
            assert folded.next is not None
            assert folded.rows == folded.next, f"{tp} has a gap or an overlap"
            assert folded.offset_sum == folded.next * (folded.next - 1) // 2, f"{tp} folded other offsets"
        assert summed(crew, "refused") == 0, "pausing must not make batches come again"


def test_a_worker_resumes_from_its_own_offsets_not_from_the_groups(
    broker: str, topic_prefix: str, tmp_path: Path
) -> None:
    with Crew(broker, topic_prefix, tmp_path) as crew:
        written = produce_all_kinds(broker, topic_prefix, each=100)
        crew.start("first")
        wait_for(lambda: crew.rows() >= written["rows"], within_s=40, told=lambda: crew.log("first"))
        assert crew.stop("first") == 0
        at_the_end = crew.counts()

        # the group has committed the end; the state of one partition is restored from an hour ago, of another is lost
        older, lost = ("orders", 1), ("clicks", 2)
        before = Folded(next=3, rows=3, offset_sum=3)
        (tmp_path / f"{topic_prefix}orders-1.json").write_text('{"next": 3, "rows": 3, "offset_sum": 3}')
        (tmp_path / f"{topic_prefix}clicks-2.json").unlink()
        crew.start("second")
        end = at_the_end[older].next
        wait_for(
            lambda: crew.counts()[older].next == end and lost in crew.counts(),
            within_s=40,
            told=lambda: (crew.counts(), crew.log("second")),
        )
        assert crew.stop("second") == 0
        now = crew.counts()
        assert (now[older].rows, now[older].offset_sum) == (at_the_end[older].rows, at_the_end[older].offset_sum)
        assert now[older].rows > before.rows
        assert now[lost].rows == 0, "without an offset of its own it goes where the group had committed"


def test_an_agent_that_raises_ends_the_worker_with_its_error(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    with Crew(broker, topic_prefix, tmp_path) as crew:
        produce_all_kinds(broker, topic_prefix, each=20)
        crew.start("poisoned", poison="none 1 " * 8)
        process = crew.processes["poisoned"]
        assert wait_for(lambda: process.poll() is not None, within_s=40, told=lambda: crew.log("poisoned"))
        assert process.returncode == 1
        assert crew.log("poisoned").rstrip().endswith("ValueError: the agent met the poison")


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_three_workers_share_partition_numbers_and_survive_a_kill(
    broker: str, topic_prefix: str, tmp_path: Path
) -> None:
    with Crew(broker, topic_prefix, tmp_path) as crew:
        names = ["a", "b", "c"]
        for name in names:
            crew.start(name, fold_s=0.002)
        written = produce_all_kinds(broker, topic_prefix, each=300)
        everything = {(topic, number) for topic in TOPICS for number in range(PARTITIONS)}

        def shared_by(*workers: str) -> bool:
            shares = [crew.held(name) for name in workers]
            return all(shares) and sum(map(len, shares)) == len(everything) and set().union(*shares) == everything

        wait_for(lambda: shared_by(*names), within_s=40, told=lambda: {n: crew.held(n) for n in names})
        before = {name: crew.held(name) for name in names}
        for name in names:
            numbers = {number for _, number in before[name]}
            assert before[name] == {(topic, number) for topic in TOPICS for number in numbers}
        assert sorted(len(share) // len(TOPICS) for share in before.values()) == [1, 1, 2]

        crew.kill("b")
        written += produce_all_kinds(broker, topic_prefix, each=100)
        wait_for(lambda: shared_by("a", "c"), within_s=40, told=lambda: {n: crew.held(n) for n in names})
        for name in ("a", "c"):
            assert before[name] <= crew.held(name), "a survivor keeps what it had"
        wait_for(lambda: crew.rows() >= written["rows"], within_s=40, told=lambda: (crew.rows(), written))
        assert [crew.stop(name) for name in ("a", "c")] == [0, 0]
        assert {kind: summed(crew, kind) for kind in written} == dict(written)

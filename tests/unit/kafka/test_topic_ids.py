"""Ids of topics beside their names: what is compared, what is adopted, and what is asked of brokers that have none."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from features.sku_state import SkuState
from schemas.errors import StateMismatch
from streams.kafka import topic_ids as identity
from streams.kafka.topic_ids import TopicIds
from streams.settings import Settings
from streams.state import meta as metas
from streams.state import recovery
from streams.state.changelog import Changelog
from streams.state.flush_record import Flush
from streams.state.store import Store
from tests.support.partitions import NOW_MS, T0, inputs, open_partition, order, settings_for, take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def meta(**changes: Any) -> metas.Meta:  # noqa: ANN401 - whatever it is
    made = metas.fresh_meta(SkuState(Settings().grid), model="none")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("offsets", "stored", "now"),
    [
        ({"orders": 5}, {"orders": "A"}, {"orders": "A"}),
        ({"orders": 5}, {"orders": "A"}, {}),  # the brokers say nothing
        ({"orders": 5}, {"orders": "A"}, {"clicks": "B"}),
        ({"orders": 5}, {}, {"orders": "B"}),  # written before there were ids
        ({}, {"orders": "A"}, {"orders": "B"}),  # nothing was read of it
        ({"orders": 0}, {"orders": "A"}, {"orders": "B"}),
    ],
)
def test_what_may_be_the_same_topic_passes(
    offsets: dict[str, int], stored: dict[str, str], now: dict[str, str]
) -> None:
    metas.check_topics(meta(offsets=offsets, topic_ids=stored), now, where="here")


def test_another_topic_of_the_same_name_is_refused_with_both_ids_and_the_remedy() -> None:
    with pytest.raises(StateMismatch) as why:
        metas.check_topics(meta(offsets={"orders": 5}, topic_ids={"orders": "A"}), {"orders": "B"}, where="here")
    assert str(why.value) == (
        "topic orders was deleted and made again: here has absorbed it up to offset 5 when its id was A, now it is B; "
        "start with a new SKUTREND_GROUP to have it read from its beginning"
    )


def test_state_of_other_topics_is_refused_with_both_and_the_settings(broker: str, tmp_path: Path) -> None:
    metas.check_inputs(meta(offsets={}), ["eu.orders"], where="here")
    metas.check_inputs(meta(offsets={"eu.orders": 3, "eu.stock": 1}), ["eu.orders"], where="here")
    with pytest.raises(
        StateMismatch, match=r"made of us\.orders, this worker reads eu\.orders; set SKUTREND_TOPIC_PREFIX"
    ):
        metas.check_inputs(meta(offsets={"us.orders": 3}), ["eu.orders"], where="here")
    partition = open_partition(settings_for(broker, tmp_path))
    partition.meta.offsets["us.orders"] = 3
    with pytest.raises(StateMismatch, match=r"made of us\.orders"):
        partition.check_topics({})
    partition.close()


def test_ids_are_adopted_flushed_and_held_to_after_a_restart(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    partition = open_partition(settings)
    orders, clicks, _ = inputs(partition)
    partition.check_topics({orders: "A", clicks: "C", "foreign": "F"})
    assert partition.begin_flush(within_s=1) is None, "nothing was absorbed, so nothing need be kept"
    take(partition, 0, order("1", "a", T0))
    partition.flush(now_ms=NOW_MS)
    partition.close()

    partition = open_partition(settings)
    assert partition.meta.topic_ids == {orders: "A", clicks: "C"}
    partition.check_topics({orders: "A", clicks: "other"})  # nothing was read of the clicks
    with pytest.raises(StateMismatch, match=rf"topic {orders} was deleted .* A, now it is B;"):
        partition.check_topics({orders: "B", clicks: "other"})
    partition.close()


def test_state_without_ids_takes_those_of_now_without_waiting_for_an_event(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    partition = open_partition(settings)
    take(partition, 0, order("1", "a", T0))
    partition.flush(now_ms=NOW_MS)
    partition.close()
    partition = open_partition(settings)
    orders = inputs(partition)[0]
    partition.check_topics({orders: "A"})
    partition.flush(now_ms=NOW_MS)
    partition.close()
    partition = open_partition(settings)
    assert partition.meta.topic_ids == {orders: "A"}
    partition.check_topics({orders: "A"})
    assert partition.begin_flush(within_s=1) is None
    partition.close()


def reader(low: int, high: int) -> Any:  # noqa: ANN401 - stands in for another class
    return SimpleNamespace(bounds=lambda: (low, high), records=lambda *_: iter(()), close=lambda: None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store that contains a changelog up to offset 7."""
    opened = Store(tmp_path / "partition-0")
    opened.write(Flush(meta()))
    opened.set_position(7)
    yield opened
    opened.close()


def recover(store: Store, *, low: int, high: int, topic_id: str) -> None:
    recovery.recover(store, reader(low, high), topic="log", partition=0, topic_id=topic_id)


def test_a_changelog_of_another_id_is_refused_however_long_it_is(store: Store) -> None:
    recover(store, low=0, high=7, topic_id="A")
    assert store.changelog_id() == "A"
    recover(store, low=0, high=7, topic_id="")  # the brokers say nothing
    for high in (3, 7, 1_000):
        with pytest.raises(
            StateMismatch, match=r"log\[0\] was deleted and made again: .* id was A, now it is B; delete"
        ):
            recover(store, low=0, high=high, topic_id="B")
    assert (store.changelog_id(), store.position()) == ("A", 7)


def test_an_empty_changelog_of_another_id_is_written_anew_and_adopted(store: Store) -> None:
    recover(store, low=0, high=7, topic_id="A")
    recover(store, low=0, high=0, topic_id="B")
    assert (store.changelog_id(), store.position()) == ("B", 0)


def test_a_changelog_that_is_made_again_while_it_is_written_is_refused() -> None:
    writing = Changelog(SimpleNamespace(), "log", 0)  # type: ignore[arg-type]  # nothing is written here
    writing.check_topic({"log": "A"})  # not known when it was opened
    writing.topic_id = "A"
    for ids in ({}, {"log": "A"}, {"orders": "B"}):
        writing.check_topic(ids)
    with pytest.raises(StateMismatch, match=r"topic log was deleted and made again while .* A, now it is B"):
        writing.check_topic({"log": "B"})


def test_brokers_without_ids_are_not_waited_for(broker: str) -> None:
    began_s = time.monotonic()
    assert TopicIds({"bootstrap.servers": broker}, ["orders", "clicks"]).ask() == {}
    assert time.monotonic() - began_s < identity.ANSWER_S


def test_brokers_that_do_not_answer_say_nothing_and_are_not_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "ANSWER_S", 0.2)
    ids = TopicIds({"bootstrap.servers": "127.0.0.1:1"}, ["orders"])
    assert ids.ask() == {}
    began_s = time.monotonic()
    assert ids.ask(fresh=False) == {}
    assert time.monotonic() - began_s < 0.1

"""One deadline for a whole flush, whoever shortens it and when; and what the changelog is told to forget."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from features.grid import WindowGrid
from features.sku_state import SkuState
from schemas.errors import FlushFailed
from streams.kafka.output_producer import OutputProducer
from streams.state import keys
from streams.state import meta as metas
from streams.state.changelog import Changelog
from streams.state.flush import LEAST_S, FlushChannel
from streams.state.flush_record import Flush
from streams.state.keys import META
from streams.state.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from streams.kafka.deadline import Deadline

SLOW_S = 0.3  # what a loaded machine may take for nothing


@dataclass
class Producer:
    """Stands in for a producer whose brokers answer after `meanwhile`, or not at all where the time is over by then."""

    meanwhile: Callable[[], None] = lambda: None
    deadline: Deadline | None = None
    left_s: list[float] = field(default_factory=list)  # as each commit began
    put_: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    marked_offset: int | None = None

    def begin(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def put(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes | None], partition: int) -> None:
        self.put_.extend(zip(keys, values, strict=True))

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self.put_.append((key, value))

    def commit(self) -> int:
        assert self.deadline is not None
        self.left_s.append(self.deadline.left_s)
        self.meanwhile()
        if self.deadline.left_s <= 0:
            msg = "no answer"
            raise FlushFailed(msg)
        self.marked_offset = len(self.put_) - 1
        return 0

    def take(self) -> dict[bytes, bytes | None]:
        found, self.put_ = dict(self.put_), []
        return found


def meta(sequence: int) -> metas.Meta:
    return msgspec.structs.replace(metas.fresh_meta(SkuState(WindowGrid()), model="none"), sequence=sequence)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "group" / "partition-0")
    yield opened
    opened.close()


def channel(store: Store, outputs: Any, state: Any) -> FlushChannel:  # noqa: ANN401 - stand in for producers
    return FlushChannel(store, outputs, Changelog(state, "t-changelog", 0))


def flush(channel: FlushChannel, sequence: int, *, within_s: float = 60.0, **what: Any) -> None:  # noqa: ANN401
    channel.begin(Flush(meta(sequence), **what), within_s=within_s)
    channel.commit()
    channel.end()


# ---------------------------------------------------------------------- the deadline
def test_the_second_producer_has_what_the_first_has_left(store: Store) -> None:
    outputs, state = Producer(meanwhile=lambda: time.sleep(0.2)), Producer()
    flush(channel(store, outputs, state), 1, within_s=10.0)
    assert outputs.deadline is state.deadline
    assert 10.0 - SLOW_S < outputs.left_s[0] <= 10.0
    assert 9.8 - 2 * SLOW_S < state.left_s[0] <= 9.8


def test_one_producer_for_both_is_waited_for_once(store: Store) -> None:
    one = Producer()
    flush(channel(store, one, one), 1)
    assert len(one.left_s) == 1


@pytest.mark.parametrize("when", ["before begin", "after begin", "in the first", "in the second"])
def test_a_shortened_deadline_is_kept_whenever_it_comes(store: Store, when: str) -> None:
    outputs, state = Producer(), Producer()
    ours = channel(store, outputs, state)

    def shorten_deadline() -> None:
        ours.shorten_deadline(time.monotonic() + LEAST_S + 0.1)

    if when == "before begin":
        shorten_deadline()
    elif when == "in the first":
        outputs.meanwhile = shorten_deadline
    state.meanwhile = shorten_deadline if when == "in the second" else lambda: None
    ours.begin(Flush(meta(1)), within_s=60.0)
    if when == "after begin":
        shorten_deadline()
    ours.commit()
    assert state.deadline is not None
    assert state.deadline.left_s < 1.0
    assert (state.left_s[0] < 1.0) is (when != "in the second")


def test_what_the_first_has_used_up_fails_the_second_at_once(store: Store) -> None:
    outputs, state = Producer(), Producer()
    ours = channel(store, outputs, state)
    outputs.meanwhile = lambda: ours.shorten_deadline(time.monotonic() + 0.01)
    state.meanwhile = lambda: time.sleep(0.02)
    started_s = time.monotonic()
    with pytest.raises(FlushFailed):
        flush(ours, 1)
    assert time.monotonic() - started_s < 1.0
    assert store.meta() is None


def test_a_later_deadline_does_not_lengthen_a_flush_and_none_gives_the_next_its_time(store: Store) -> None:
    outputs, state = Producer(), Producer()
    ours = channel(store, outputs, state)
    ours.begin(Flush(meta(1)), within_s=60.0)
    ours.shorten_deadline(time.monotonic() + 5.0)
    ours.shorten_deadline(time.monotonic() + 50.0)
    ours.shorten_deadline(math.inf)
    ours.commit()
    assert outputs.left_s[0] <= 5.0
    ours.end()
    flush(ours, 2)
    assert outputs.left_s[1] > 50.0


def test_a_flush_that_begins_when_its_time_is_over_has_a_moment(store: Store) -> None:
    outputs, state = Producer(), Producer()
    ours = channel(store, outputs, state)
    ours.shorten_deadline(time.monotonic() - 100.0)
    ours.begin(Flush(meta(1)), within_s=60.0)
    assert outputs.deadline is not None
    assert 0 < outputs.deadline.left_s <= LEAST_S


def dead() -> OutputProducer:
    config = {"bootstrap.servers": "127.0.0.1:1", "linger.ms": "0", "log_level": "0"}
    return OutputProducer(config | {"queue.buffering.max.messages": "50"}, on_error=lambda _: None)


def test_brokers_that_do_not_answer_are_left_when_another_thread_hurries(store: Store) -> None:
    outputs, state = dead(), dead()
    ours = channel(store, outputs, state)
    outputs.put("windows", [b"a"], [b"1"])
    ours.begin(Flush(meta(1)), within_s=60.0)
    threading.Timer(0.2, lambda: ours.shorten_deadline(time.monotonic())).start()
    started_s = time.monotonic()
    with pytest.raises(FlushFailed, match=r"1 of 1 records were not acknowledged within 0\.\d s"):
        ours.commit()
    assert time.monotonic() - started_s < 5.0
    outputs.close()
    state.close()


def test_a_queue_that_is_full_is_not_waited_for_beyond_the_deadline(store: Store) -> None:
    outputs, state = dead(), dead()
    ours = channel(store, outputs, state)
    started_s = time.monotonic()
    with pytest.raises(FlushFailed, match="50 records were still waiting"):
        ours.begin(Flush(meta(1), skus=[([b"a%02d" % n for n in range(60)], [b"x"] * 60)]), within_s=0.3)
    assert time.monotonic() - started_s < 5.0, "an answer may take 15 s"
    outputs.close()
    state.close()


def test_a_commit_without_a_time_and_without_a_flush_is_a_bug() -> None:
    producer = dead()
    with pytest.raises(ValueError, match="needs a deadline from begin"):
        producer.commit()
    producer.close()


# ---------------------------------------------------------------------- tombstones
def test_what_a_window_has_left_in_the_changelog_is_reported_gone_once_it_closes_and_only_once(store: Store) -> None:
    state = Producer()
    ours = channel(store, Producer(), state)
    hashes = b"e" * 16
    (ids_key,) = keys.ids_keys(5, 2, sequence=1, size_bytes=16)
    flush(ours, 1, folded={5: ([b"a"], [b"row"]), 6: ([b"b"], [b"row"])}, ids={(5, 2): hashes}, closed_before=5)
    assert store.position() == len(state.take())
    flush(ours, 2, closed_before=6)
    assert {key for key, value in state.take().items() if value is None} == {keys.open_key(5, b"a"), ids_key}
    flush(ours, 3, closed_before=6)
    assert state.take().keys() == {META}


def test_what_a_restart_finds_is_reported_gone_too_and_so_are_retired_skus(store: Store) -> None:
    state = Producer()
    flush(channel(store, Producer(), Producer()), 1, folded={n: ([b"a"], [b"row"]) for n in (4, 5, 6)})
    flush(channel(store, Producer(), state), 2, retired=[b"old"], closed_before=6)
    gone = {key for key, value in state.take().items() if value is None}
    assert gone == {keys.open_key(4, b"a"), keys.open_key(5, b"a"), keys.sku_key(b"old")}


def test_without_a_changelog_there_is_nothing_to_tell(store: Store) -> None:
    outputs: Any = Producer()
    ours = FlushChannel(store, outputs, None)
    flush(ours, 4, folded={5: ([b"a"], [b"row"])}, closed_before=5)
    assert outputs.take() == {}
    assert store.position() is None
    found = store.meta()
    assert found is not None
    assert found.sequence == 4

"""Dead letters and late events: records that go out again as they came, over real RocksDB and the embedded broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from features.ledger import ORDERS
from schemas.provenance import Source, read_dead_letter_headers, read_late_event_headers
from streams.embedded import EmbeddedBroker
from streams.settings import Settings
from tests.support.partitions import (
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    T0,
    batch,
    inputs,
    open_partition,
    order,
    published,
    reach,
    read_topic,
    settings_for,
    take,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.partition import Partition


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path)


@pytest.fixture
def partition(settings: Settings) -> Iterator[Partition]:
    opened = open_partition(settings)
    yield opened
    opened.close()


def windows_of(partition: Partition, sku: str) -> list[dict[str, Any]]:
    partition.flush(now_ms=NOW_MS)
    return [w for w in published(partition.settings, "windows") if w["sku"] == sku]


def test_dead_letters_carry_the_original_bytes_headers_and_where_they_came_from(partition: Partition) -> None:
    topic = inputs(partition)[ORDERS]
    bad: list[bytes | None] = [b"{not json", None, order("1", "", T0), order("2", "a", T0, quantity="many"), b"[1]"]
    future = order("3", "a", NOW_MS + 3_600_001)
    fetched = batch(topic, [order("0", "a", T0), *bad, future, order("4", "a", 5)], start=40, partition=2)
    fetched.headers[1] = [("trace", b"7"), ("none", None)]
    fetched.keys[2] = None
    outcome = partition.absorb(ORDERS, fetched, now_ms=NOW_MS)
    partition.flush(now_ms=NOW_MS)
    assert outcome.folded == 1
    found = read_topic(partition.settings.brokers, partition.settings.topic("dead-letters"))
    letters = {Source.parse(read_dead_letter_headers(m.headers()).source).offset: m for m in found}
    assert letters.keys() == set(range(41, 48))
    for offset, message in letters.items():
        wanted = fetched.values[offset - 40]
        assert message.value() == (None if wanted == b"[1]" else wanted), "what is no object may tell of anybody"
        assert message.key() == fetched.keys[offset - 40]
        headers = read_dead_letter_headers(message.headers())
        assert headers.source == f"{topic}[2]@{offset}"
        assert headers.error
    codes = {offset: read_dead_letter_headers(m.headers()).code for offset, m in letters.items()}
    assert codes == {
        41: "not_json",
        42: "empty",
        43: "missing_sku",
        44: "wrong_type",
        45: "wrong_type",
        46: "from_the_future",
        47: "implausible_time",
    }
    assert letters[41].headers()[:2] == [("trace", b"7"), ("none", None)]


def test_a_letter_too_large_for_its_topic_is_cut_and_says_so(broker: str, tmp_path: Path) -> None:
    partition = open_partition(settings_for(broker, tmp_path))
    value = b'{"order_id": "' + b"x" * 1_199_986
    take(partition, ORDERS, value)
    partition.flush(now_ms=NOW_MS)
    (letter,) = read_topic(broker, partition.settings.topic("dead-letters"))
    assert dict(letter.headers())["cut_from_bytes"] == b"1200000"
    assert 1_000_000 < len(letter.value()) < 1_048_588
    assert read_dead_letter_headers(letter.headers()).code == "too_large"
    partition.close()


def test_late_events_carry_how_late_which_window_and_where_they_came_from(partition: Partition) -> None:
    take(partition, ORDERS, order("0", "a", T0))
    reach(partition, T0 + 2 * HOUR_MS + 10 * MINUTE_MS)  # 00:00 to 02:00 are closed
    late = order("late", "a", T0 + HOUR_MS + 5 * MINUTE_MS)
    outcome = take(partition, ORDERS, order("fine", "a", T0 + 2 * HOUR_MS), late)
    assert (outcome.folded, len(outcome.late)) == (1, 1)
    partition.flush(now_ms=NOW_MS)
    (message,) = read_topic(partition.settings.brokers, partition.settings.topic("late-events"))
    headers = read_late_event_headers(message.headers())
    assert message.value() == late
    assert message.key() == b"key3"
    assert headers.late_by_ms == 55 * MINUTE_MS
    assert headers.window_start_ms == T0 + HOUR_MS
    assert headers.source == f"{inputs(partition)[ORDERS]}[0]@3"
    assert [w["units"] for w in windows_of(partition, "a")] == [1.0, 0.0], "and it changes no window"


@pytest.mark.parametrize("has_key", [True, False])
def test_no_letter_says_whom_its_record_tells_of(settings: Settings, tmp_path: Path, *, has_key: bool) -> None:
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    partition = open_partition(
        msgspec.structs.replace(settings, personal_key_file=str(tmp_path / "key") if has_key else "")
    )
    take(partition, ORDERS, order("0", "a", T0))
    reach(partition, T0 + 2 * HOUR_MS + 10 * MINUTE_MS)
    late = order("late", "a", T0, customer_id="jane.doe")
    torn = late[:-1]
    take(partition, ORDERS, late, order("1", "", T0, customer_id="jane.doe"), torn)
    partition.flush(now_ms=NOW_MS)
    found = [
        *read_topic(settings.brokers, settings.topic("late-events")),
        *read_topic(settings.brokers, settings.topic("dead-letters")),
    ]
    assert len(found) == 3
    assert not [m for m in found if "jane" in f"{m.key()!r} {m.value()!r} {m.headers()!r}"]
    readable = [json.loads(m.value())["customer_id"] for m in found if m.value() is not None]
    assert len(readable) == 2
    assert readable[0] == readable[1]
    assert (readable[0] is not None) is has_key
    (removed,) = [dict(m.headers()) for m in found if m.value() is None]
    assert removed["removed_bytes"] == b"%d" % len(torn)
    assert removed["source"].startswith(settings.topic("orders").encode())
    partition.close()


def test_all_is_kept_where_the_operator_says_so(settings: Settings) -> None:
    partition = open_partition(msgspec.structs.replace(settings, personal="keep"))
    values = [b"[1]", order("1", "", T0, customer_id="jane.doe"), order("2", "a", T0, customer_id="jane.doe")[:-1]]
    take(partition, ORDERS, *values)
    partition.flush(now_ms=NOW_MS)
    found = [m.value() for m in read_topic(settings.brokers, settings.topic("dead-letters"))]
    assert sorted(found) == sorted(values)
    partition.close()


def test_a_customer_called_as_a_topic_spoils_no_source(settings: Settings) -> None:
    partition = open_partition(settings)
    topic = inputs(partition)[ORDERS]
    take(partition, ORDERS, order("1", "", T0, customer_id=topic))
    partition.flush(now_ms=NOW_MS)
    (letter,) = read_topic(settings.brokers, settings.topic("dead-letters"))
    assert read_dead_letter_headers(letter.headers()).source == f"{topic}[0]@0"
    partition.close()

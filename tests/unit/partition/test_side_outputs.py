"""Dead letters and late events: records that go out again as they came, over real RocksDB and the embedded broker."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from schemas.inputs import ORDERS
from schemas.provenance import (
    CUT,
    Source,
    dead_letter_headers,
    left_out,
    read_dead_letter_headers,
    read_late_event_headers,
)
from streams.partition.side_outputs import Original, batch_bytes, fit
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
    reach,
    read_topic,
    settings_for,
    take,
    windows_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition


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
    headers = dict(letter.headers())
    assert headers["cut_from_bytes"] == b"1200000"
    assert headers["cut_sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert 1_000_000 < len(letter.value()) < 1_048_588
    assert read_dead_letter_headers(letter.headers()).code == "too_large"
    assert left_out(letter.headers()) == "value (of 1,200,000 bytes)"
    partition.close()


def test_a_record_whose_key_alone_is_too_large_is_buried(broker: str, tmp_path: Path) -> None:
    """It used to be refused by the topic, and the partition to be opened anew for ever."""
    partition = open_partition(settings_for(broker, tmp_path))
    topic, key = inputs(partition)[ORDERS], bytes(range(256)) * 4_095
    fetched = batch(topic, [b"{not json"])
    fetched.keys[0], fetched.headers[0] = key, [("trace", b"7" * 2_000), ("none", None)]
    partition.absorb(ORDERS, fetched, now_ms=NOW_MS)
    partition.flush(now_ms=NOW_MS)
    (letter,) = read_topic(broker, partition.settings.topic("dead-letters"))
    assert letter.value() == b"{not json"
    assert 1_000_000 < len(letter.key()) < len(key)
    assert key.startswith(letter.key())
    assert dict(letter.headers())["cut_key_sha256"] == hashlib.sha256(key).hexdigest().encode()
    assert letter.headers()[:2] == fetched.headers[0], "what has room stays"
    assert left_out(letter.headers()) == "key (of 1,048,320 bytes)"
    partition.close()


PART = st.none() | st.binary(max_size=40) | st.integers(0, 9_000).map(lambda size: b"x" * size)
HEADERS = st.lists(st.tuples(st.text(max_size=20) | st.integers(0, 3_000).map("n".__mul__), PART), max_size=6)
OURS = dead_letter_headers(
    code="not_json", error="e" * 200, source=Source(topic="t" * 249, partition=9, offset=1 << 62)
)


def as_sent(record: Original) -> int:
    """Size of a record batch of this one record, as aiokafka writes it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=1,
        producer_id=1,
        producer_epoch=1,
        base_sequence=1,
        batch_size=1 << 30,
    )
    assert builder.append(0, timestamp=T0, key=record.key, value=record.value, headers=list(record.headers)) is not None
    return len(builder.build())


@given(PART, PART, HEADERS)
def test_the_size_of_a_record_batch_is_known_before_it_is_written(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    assert batch_bytes(key, value, headers) == as_sent(Original(key, value, headers))


@given(PART, PART, HEADERS, st.integers(2_000, 12_000))
def test_any_record_fits_once_it_is_cut_and_tells_what_it_lacks(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], limit_bytes: int
) -> None:
    original = Original(key, value, headers)
    fitted = fit(original, OURS, limit_bytes=limit_bytes)
    assert as_sent(fitted) <= limit_bytes
    told = dict(fitted.headers)
    assert [told[name] for name, _ in OURS] == [value for _, value in OURS]
    lacks = left_out(fitted.headers)
    for part, before, after in (("key", key, fitted.key), ("value", value, fitted.value)):
        assert (before is None) == (after is None)
        assert (before or b"").startswith(after or b"")
        size, digest = CUT[part]
        if before == after:
            assert f"{part} (" not in lacks
        else:
            assert f"{part} (of {len(before or b''):,} bytes)" in lacks
            assert told[size] == b"%d" % len(before or b"")
            assert told[digest] == hashlib.sha256(before or b"").hexdigest().encode()
    theirs = list(fitted.headers[: -len(OURS)]) if not lacks else list(fitted.headers[: len(headers)])
    whole = theirs == headers
    assert whole != ("headers (" in lacks)
    if not whole:
        assert told[CUT["headers"][1]] == hashlib.sha256(msgspec.msgpack.encode(headers)).hexdigest().encode()
    if as_sent(Original(key, value, [*headers, *OURS])) <= limit_bytes:
        assert lacks == ""
    else:
        assert lacks
        assert as_sent(fitted) >= limit_bytes - 700 or not fitted.headers[: len(headers)] == headers, (
            "no more than needed"
        )


def test_a_record_of_just_the_limit_is_whole_and_one_byte_more_cuts_the_value_by_what_is_needed() -> None:
    limit_bytes = batch_bytes(b"k", b"v" * 4_000, OURS)
    whole = fit(Original(b"k", b"v" * 4_000, []), OURS, limit_bytes=limit_bytes)
    assert (whole.value, left_out(whole.headers)) == (b"v" * 4_000, "")
    cut = fit(Original(b"k", b"v" * 4_001, []), OURS, limit_bytes=limit_bytes)
    assert left_out(cut.headers) == "value (of 4,001 bytes)"
    assert limit_bytes - 700 < as_sent(cut) <= limit_bytes


@pytest.mark.parametrize(("key_bytes", "header_bytes"), [(0, 9_000), (9_000, 0)])
def test_keys_and_headers_take_a_quarter_of_the_room_and_no_more(key_bytes: int, header_bytes: int) -> None:
    """Found by trying: the largest headers that stay, and how much of a long key does, beside a value without end."""
    limit_bytes, value = 20_000, b"v" * 30_000
    room = limit_bytes - batch_bytes(b"", b"", OURS)
    if key_bytes:
        fitted = fit(Original(b"k" * key_bytes, value, []), OURS, limit_bytes=limit_bytes)
        most = len(fitted.key or b"")
    else:
        sizes = range(0, header_bytes, 10)
        kept = [
            size
            for size in sizes
            if "headers (" not in left_out(
                fit(Original(b"k", value, [("h", b"h" * size)]), OURS, limit_bytes=limit_bytes).headers
            )
        ]  # fmt: skip
        assert kept == list(range(0, kept[-1] + 10, 10)), "all up to a size"
        most = kept[-1]
    assert room / 4 - 300 < most <= room / 4


@given(HEADERS)
def test_what_an_original_says_of_itself_is_not_believed(headers: list[tuple[str, bytes | None]]) -> None:
    forged = [("code", b"x"), ("cut_from_bytes", b"9"), ("last_offset", b"7"), *headers]
    assert left_out(fit(Original(b"k", b"v", forged), OURS, limit_bytes=1 << 20).headers) == ""


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
    assert headers.corrected == 1
    assert [(w["units"], w["revision"]) for w in windows_of(partition, "a")] == [(1, 0), (0, 0), (1, 1)]


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

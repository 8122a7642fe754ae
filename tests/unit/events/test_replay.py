from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import confluent_kafka as ck
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.decoding import decode_clicks, decode_orders, decode_price_changes
from schemas.errors import BadInput, BadSetting, BrokerTrouble
from schemas.inputs import INPUT_NAMES, InputName
from streams.events.files import read, sample_paths
from streams.events.replay import DAY_MS, Replay, ReplayProgress, encode_rows, paced
from streams.kafka.embedded import PARTITIONS, EmbeddedBroker
from tests.support.service import read_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

T0 = 1_291_161_600_000  # a midnight, UTC
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Broker:
    """An embedded broker with the input topics of a test."""

    config: dict[str, str]

    def read_all(self, topic: str, count: int) -> list[list[ck.Message]]:
        """All `count` records of a topic, by partition."""
        found: list[list[ck.Message]] = [[] for _ in range(PARTITIONS)]
        for message in read_topic(self.config["bootstrap.servers"], topic):
            found[message.partition()].append(message)
        assert sum(map(len, found)) == count
        return found


@pytest.fixture
def cluster(topic_prefix: str) -> Iterator[Broker]:
    with EmbeddedBroker() as embedded:
        embedded.make(topic_prefix + kind for kind in INPUT_NAMES)
        yield Broker({"bootstrap.servers": embedded.bootstrap})


def events_of(kind: InputName, count: int, *, step_ms: int = HOUR_MS) -> list[dict[str, Any]]:
    fields: Mapping[InputName, dict[str, Any]] = {
        "orders": {
            "order_id": "o",
            "quantity": 2.5,
            "unit_price": 1.25,
            "currency": "GBP",
            "customer_id": None,
            "channel": "web",
        },
        "clicks": {"session_id": "s", "kind": "view"},
        "price-changes": {"price": 2.0, "previous_price": None, "currency": "GBP", "kind": "list"},
    }
    return [
        fields[kind] | {"event_id": f"{kind}-{n}", "sku": f"sku{n % 37}", "event_time_ms": T0 + n * step_ms}
        for n in range(count)
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[InputName, Path]:
    counts: Mapping[InputName, int] = {"orders": 500, "clicks": 300, "price-changes": 40}
    return {kind: written(tmp_path / f"{kind}.parquet", events_of(kind, counts[kind])) for kind in INPUT_NAMES}


def murmur2(key: bytes) -> int:
    """Kafka's own hash of a key, written from its description: 32 bits, seed 0x9747b28c."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_the_hash_of_this_test_is_kafka_s() -> None:
    """The expected values are those of Kafka's own UtilsTest."""
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    assert {key: murmur2(key) for key in known} == {key: value & 0xFFFFFFFF for key, value in known.items()}


def test_every_event_arrives_once_in_order_in_the_partition_of_its_key(
    cluster: Broker, files: dict[InputName, Path], topic_prefix: str
) -> None:
    started_ms = time.time() * 1000
    counts = Replay(cluster.config, files, topic_prefix).run()
    assert counts == {topic_prefix + kind: pq.read_metadata(path).num_rows for kind, path in files.items()}
    for kind, path in files.items():
        partitions = cluster.read_all(topic_prefix + kind, counts[topic_prefix + kind])
        seen = []
        for number, messages in enumerate(partitions):
            values = [json.loads(message.value()) for message in messages]
            times = [value["event_time_ms"] for value in values]
            assert times == sorted(times)
            for message, value in zip(messages, values, strict=True):
                assert message.key() == value["sku"].encode()
                assert (murmur2(message.key()) & 0x7FFFFFFF) % PARTITIONS == number
                # the time of sending, not of 2010: time retention would delete the record at once
                assert message.timestamp()[1] > started_ms - 60_000
            seen += [value["event_id"] for value in values]
        assert sorted(seen) == sorted(row["event_id"] for row in pq.read_table(path).to_pylist())
        assert all(partitions), "a test with an empty partition shows nothing of the partitioner"


def test_values_are_what_the_worker_decodes_and_absent_options_are_left_out(tmp_path: Path) -> None:
    rows = events_of("orders", 50)
    rows[3] |= {"channel": None, "customer_id": "12345", "sku": 'Größe "7"\\'}
    (batch,) = read(written(tmp_path / "orders.parquet", rows), "orders")
    keys, values, times = encode_rows("orders", batch)
    assert [json.loads(value) for value in values] == [
        {name: row[name] for name in row if name != "channel" or row[name] is not None} for row in rows
    ]
    assert keys[3] == 'Größe "7"\\'.encode()
    assert times.dtype == np.int64
    columns, refused = decode_orders(values)
    assert not refused
    assert columns.sku == [row["sku"] for row in rows]
    assert columns.quantity.tolist() == [row["quantity"] for row in rows]
    assert columns.event_time_ms.tolist() == times.tolist() == [row["event_time_ms"] for row in rows]


@pytest.mark.slow
def test_a_worker_refuses_nothing_of_the_sample() -> None:
    decoders: Mapping[InputName, Any] = {
        "orders": decode_orders,
        "clicks": decode_clicks,
        "price-changes": decode_price_changes,
    }
    for kind, path in sample_paths().items():
        rows = 0
        for batch in read(path, kind):
            columns, refused = decoders[kind](encode_rows(kind, batch)[1])
            assert not refused
            rows += len(columns.sku)
        assert rows == pq.read_metadata(path).num_rows


def test_a_gate_is_asked_before_each_slice_and_nothing_of_it_is_sent_before(
    cluster: Broker, files: dict[InputName, Path], topic_prefix: str
) -> None:
    asked: list[int] = []
    reports: list[ReplayProgress] = []

    def gate(event_time_ms: int) -> None:
        if reports:
            assert reports[-1].event_time_ms <= event_time_ms
        assert len(asked) == len(reports), "a slice was sent without asking"
        asked.append(event_time_ms)

    replay = Replay(cluster.config, files, topic_prefix)
    replay.run(gate=gate, on_progress=reports.append)
    days = [asked_ms // DAY_MS for asked_ms in asked]
    assert set(days) == set(range(T0 // DAY_MS, T0 // DAY_MS + 21))
    assert days == sorted(days)
    assert [report.sent for report in reports] == sorted({report.sent for report in reports})
    assert reports[-1] == ReplayProgress(replay.total, replay.total, T0 + 499 * HOUR_MS)
    assert replay.total == 840
    assert replay.span_ms == (T0, T0 + 499 * HOUR_MS)


def test_a_gate_that_refuses_ends_the_replay(cluster: Broker, files: dict[InputName, Path], topic_prefix: str) -> None:
    class Enough(Exception):  # noqa: N818 - not an error
        pass

    def gate(event_time_ms: int) -> None:
        if event_time_ms >= T0 + 3 * DAY_MS:
            raise Enough

    with pytest.raises(Enough):
        Replay(cluster.config, files, topic_prefix).run(gate=gate)


def test_a_file_out_of_order_is_sorted_and_said_so(
    cluster: Broker, tmp_path: Path, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "shuffled.parquet", events_of("orders", 200)[::-1])
    replay = Replay(cluster.config, {"orders": path}, topic_prefix)
    assert replay.notes == (f"{path} is not in event-time order: its 200 rows are sorted in memory",)
    replay.run()
    assert replay.notes[0] in caplog.messages
    for messages in cluster.read_all(topic_prefix + "orders", 200):
        times = [json.loads(message.value())["event_time_ms"] for message in messages]
        assert times == sorted(times)


@pytest.mark.slow
def test_more_events_than_librdkafka_queues_get_through(cluster: Broker, tmp_path: Path, topic_prefix: str) -> None:
    path = written(tmp_path / "orders.parquet", events_of("orders", 3_000))
    config = {**cluster.config, "queue.buffering.max.messages": 100}
    counts = Replay(config, {"orders": path}, topic_prefix).run()
    assert counts == {topic_prefix + "orders": 3_000}
    cluster.read_all(topic_prefix + "orders", 3_000)


def test_files_without_rows_make_a_replay_of_nothing(cluster: Broker, tmp_path: Path, topic_prefix: str) -> None:
    rows = events_of("clicks", 1)
    pq.write_table(pa.Table.from_pylist(rows).slice(0, 0), tmp_path / "clicks.parquet")
    replay = Replay(cluster.config, {"clicks": tmp_path / "clicks.parquet"}, topic_prefix)
    assert (replay.total, replay.span_ms) == (0, None)
    assert replay.run() == {topic_prefix + "clicks": 0}


def test_a_partitioner_of_the_operator_s_is_not_obeyed(cluster: Broker, tmp_path: Path, topic_prefix: str) -> None:
    path = written(tmp_path / "orders.parquet", events_of("orders", 200))
    Replay({**cluster.config, "partitioner": "consistent"}, {"orders": path}, topic_prefix).run()
    for number, messages in enumerate(cluster.read_all(topic_prefix + "orders", 200)):
        assert {(murmur2(message.key()) & 0x7FFFFFFF) % PARTITIONS for message in messages} <= {number}


def test_a_missing_topic_is_trouble_that_names_the_remedy(cluster: Broker, files: dict[InputName, Path]) -> None:
    with pytest.raises(BrokerTrouble, match=r"has no topic .*other-orders.*: run `skutrend topics create` first"):
        Replay(cluster.config, files, "other-").run()


def test_a_broker_that_does_not_answer_is_trouble(
    files: dict[InputName, Path], topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.events.replay._BROKER_TIMEOUT_S", 0.5)
    with pytest.raises(BrokerTrouble, match=r"no answer from Kafka at 127\.0\.0\.1:1 within"):
        Replay({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, files, topic_prefix).run()


def test_records_that_kafka_does_not_take_are_trouble(files: dict[InputName, Path], topic_prefix: str) -> None:
    with ExitStack() as running:
        embedded = running.enter_context(EmbeddedBroker())
        embedded.make(topic_prefix + kind for kind in INPUT_NAMES)
        config = {"bootstrap.servers": embedded.bootstrap, "message.timeout.ms": 1_000, "log_level": 0}

        def gate(event_time_ms: int) -> None:
            if event_time_ms >= T0 + 3 * DAY_MS:
                running.close()  # the broker is gone

        with pytest.raises(BrokerTrouble, match=r"did not take \d+ records, the first of them for .*\[\d\]: "):
            Replay(config, files, topic_prefix).run(gate=gate)


def test_a_replay_that_broke_goes_on_where_it_says_and_leaves_nothing_out(
    cluster: Broker, tmp_path: Path, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad number in row 50,001 ended a replay when 45,833 records had been sent, without a word about them."""
    monkeypatch.setattr("streams.events.replay.SLICE_ROWS", 64)
    events = events_of("clicks", 5_000, step_ms=60_000)
    events[3_000] |= {"session_id": "s" * 2_000_000}
    path = written(tmp_path / "clicks.parquet", events)
    with pytest.raises(BrokerTrouble, match=r"of 5,000 events are in Kafka: go on with --from-row \d+$") as broken:
        Replay(cluster.config, {"clicks": path}, topic_prefix).run()
    row = int(str(broken.value).rpartition(" ")[2])
    assert 1 < row <= 3_001
    events[3_000] |= {"session_id": "s"}
    seen: list[ReplayProgress] = []
    again = Replay(cluster.config, {"clicks": written(path, events)}, topic_prefix, from_row=row)
    assert again.run(on_progress=seen.append) == {topic_prefix + "clicks": 5_000 - row + 1}
    assert seen[-1].sent == again.total == 5_000
    sent = [
        json.loads(m.value())["event_id"]
        for m in read_topic(cluster.config["bootstrap.servers"], topic_prefix + "clicks")
    ]
    assert set(sent) == {event["event_id"] for event in events}
    assert len(sent) < 5_000 + 3_000, "what comes twice has the same id"


@pytest.mark.parametrize("from_row", [1, 2, 64, 65, 200, 201, 999])
def test_a_replay_may_begin_at_any_row(
    cluster: Broker, files: dict[InputName, Path], topic_prefix: str, from_row: int
) -> None:
    whole = Replay(cluster.config, files, topic_prefix)
    replay = Replay(cluster.config, files, topic_prefix, from_row=from_row, slice_ms=DAY_MS)
    assert sum(replay.run().values()) == max(0, whole.total - from_row + 1)


def test_a_record_too_big_for_kafka_is_trouble(cluster: Broker, tmp_path: Path, topic_prefix: str) -> None:
    path = written(tmp_path / "clicks.parquet", [events_of("clicks", 1)[0] | {"session_id": "s" * 2_000_000}])
    with pytest.raises(BrokerTrouble, match=r"took no more records: .*too large"):
        Replay(cluster.config, {"clicks": path}, topic_prefix).run()


def test_a_fatal_error_of_an_idempotent_producer_is_trouble_in_whichever_call_meets_it(
    cluster: Broker, files: dict[InputName, Path], topic_prefix: str
) -> None:
    replay = Replay(cluster.config, files, topic_prefix)

    def gate(_: int) -> None:
        said = "<method 'poll' of 'cimpl.Producer' objects> returned NULL without setting an exception"
        raise SystemError(said)

    with pytest.raises(BrokerTrouble, match="took no more records: a fatal error"):
        replay.run(gate=gate)


def test_a_file_that_cannot_be_used_is_reported_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        Replay({}, {"orders": tmp_path / "orders.parquet"})


@pytest.mark.parametrize("speed", [0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(files: dict[InputName, Path], speed: float) -> None:
    with pytest.raises(BadSetting, match=r"speed is .*expected max or a number above 0"):
        Replay({}, files, speed=speed)


def test_a_kafka_setting_that_nobody_knows_is_refused(files: dict[InputName, Path]) -> None:
    with pytest.raises(BadSetting, match=r"SKUTREND_KAFKA_BOOTSTRAP_SERVER .*'bootstrap\.server'"):
        Replay({"bootstrap.server": "127.0.0.1:9092"}, files).run()


def test_a_pace_holds_each_event_back_until_it_is_due() -> None:
    clock = [100.0]
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds / 2  # as a poll that returns early

    gate = paced(60.0, wait=wait, now_s=lambda: clock[0])
    gate(T0)
    assert waits == []
    gate(T0 + 600_000)
    assert clock[0] == pytest.approx(110.0)
    assert max(waits) <= 0.1
    waits.clear()
    clock[0] = 200.0  # far behind: catch up without waiting
    gate(T0 + 700_000)
    assert waits == []


def test_a_paced_replay_leaves_in_small_slices_and_sends_everything(
    cluster: Broker, tmp_path: Path, topic_prefix: str
) -> None:
    path = written(tmp_path / "orders.parquet", events_of("orders", 60, step_ms=1_000))
    asked: list[int] = []
    started_s = time.monotonic()
    counts = Replay(cluster.config, {"orders": path}, topic_prefix, speed=120).run(gate=asked.append)
    assert time.monotonic() - started_s >= 59 / 120 * 0.9
    assert counts == {topic_prefix + "orders": 60}
    assert sorted(set(asked)) == asked
    assert 5 <= len(asked) <= 7, "a tenth of a second is 12 event seconds"


def test_reading_and_encoding_parquet_takes_no_pandas() -> None:
    code = """
import sys
from streams.events.files import read, sample_paths
from streams.events.replay import Replay, encode_rows
for kind, path in sample_paths().items():
    encode_rows(kind, next(read(path, kind)))
Replay({}, sample_paths())
assert "pandas" not in sys.modules, "pandas was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


def test_encoded_rows_are_one_json_object_each() -> None:
    path = sample_paths()["price-changes"]
    for batch in read(path, "price-changes", batch_rows=100):
        keys, values, times = encode_rows("price-changes", batch)
        assert len(keys) == len(values) == len(times) == batch.num_rows
        assert all(isinstance(msgspec.json.decode(value), dict) for value in values)

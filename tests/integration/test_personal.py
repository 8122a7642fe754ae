"""Whom records tell of is known from the inputs alone, on Apache Kafka: no output, state, log or metric says it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from schemas.provenance import read_dead_letter_headers
from tests.support.hostile import GOOD
from tests.support.kafka_broker import KafkaBroker
from tests.support.service import Service, read_topic, skutrend, values

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kafka

CANARY = "canary-jane.doe@example.com"
DAY_MS = 86_400_000
FIRST_MS = 1_300_060_800_000  # 2011-03-14 UTC


def line(event_id: str, *, day: int = 0, **changes: Any) -> bytes:  # noqa: ANN401 - JSON values
    fields = {**GOOD, "customer_id": CANARY, "event_id": event_id, "event_time_ms": FIRST_MS + day * DAY_MS}
    return json.dumps(fields | changes).encode()


UNUSABLE = {
    "not_json": [line("n")[:-1], line("n")[:-9], json.dumps(CANARY).encode()[:-1]],
    "wrong_type": [
        line("w", quantity="many"),
        line("w", customer_id={"mail": CANARY}),
        b"[" + line("w") + b"]",
        json.dumps(CANARY).encode(),
        b"3;22423;" + CANARY.encode(),
    ],
    "out_of_range": [line("o", unit_price=-1)],
    "missing_sku": [line("m", sku=None)],
    "control_character": [line("c", sku="22423\x1b[2J")],
    "wrong_currency": [line("y", currency="JPY")],
    "from_the_future": [line("f", event_time_ms=4_102_444_800_000)],
    "implausible_time": [line("i", event_time_ms=1)],
    "too_large": [line("l", order_id="x" * 300_000), line("l", order_id="x" * 300_000)[:-1]],
}


def written(bootstrap: str, topic: str) -> list[str]:
    """All that the records of a topic say: keys, values, headers."""
    return [f"{message.key()!r} {message.value()!r} {message.headers()!r}" for message in read_topic(bootstrap, topic)]


@pytest.mark.parametrize("has_key", [True, False], ids=["pseudonyms", "removed"])
def test_a_customer_is_found_in_the_inputs_only(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, *, has_key: bool
) -> None:
    if has_key:
        (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
        settings = {**settings, "personal_key_file": tmp_path / "key"}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    trace = [("trace", b"of " + CANARY.encode()), ("customer_id", CANARY.encode())]

    def send(*records: bytes, key: bytes = b"22423") -> int:
        for value in records:
            producer.produce(f"{topic_prefix}orders", value, key, headers=trace)
        assert producer.flush(60) == 0
        return len(records)

    unusable = [(code, value) for code, several in UNUSABLE.items() for value in several]
    with Service(settings, tmp_path) as service:
        service.start("w")
        sent = send(line("1"), line("2", day=3))
        sent += send(*(value for _, value in unusable))
        sent += send(line("k", quantity=None), key=CANARY.encode())
        service.await_records(sent)
        service.await_closed(FIRST_MS + 3 * DAY_MS)
        send(line("late", day=1), key=b"22423")
        service.await_late(1)
        metrics = service.get("w", "/metrics")[1]
        service.stop("w")

        letters = list(read_topic(kafka.bootstrap, f"{topic_prefix}dead-letters"))
        codes = sorted(read_dead_letter_headers(letter.headers() or []).code for letter in letters)
        assert codes == sorted([*(code for code, _ in unusable), "wrong_type"])
        topics = {
            name: written(kafka.bootstrap, name)
            for name in (
                *(topic_prefix + each for each in ("windows", "forecasts", "alerts", "late-events", "dead-letters")),
                f"{topic_prefix}skutrend-{settings['group']}-changelog",
            )
        }
        for name, said in topics.items():
            assert not [each[:300] for each in said if "jane.doe" in each], name
        assert topics[f"{topic_prefix}late-events"][0].count("hm1:") == (3 if has_key else 0)
        files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if b"jane.doe" in path.read_bytes()]
        assert "jane.doe" not in service.log("w") + metrics
        assert any("jane.doe" in each for each in written(kafka.bootstrap, f"{topic_prefix}orders"))

        out = tmp_path / "letters.jsonl"
        listed = skutrend("dead-letters", "list", "--limit", "100", "--out", str(out), settings=settings).stdout
        assert "jane.doe" not in listed + out.read_text()
        assert "bytes removed that may tell of a person" in listed
        mended = [json.loads(each) for each in out.read_text().splitlines() if '\\"many\\"' in each]
        assert len(mended) == 1
        mended[0]["value"] = (
            mended[0]["value"].replace('"many"', "4").replace(str(FIRST_MS), str(FIRST_MS + 5 * DAY_MS))
        )
        out.write_text(json.dumps(mended[0]))
        assert skutrend("dead-letters", "replay", str(out), settings=settings).stdout.startswith("1 sent")
        service.start("w")
        service.await_closed(FIRST_MS + 6 * DAY_MS)
        service.stop("w")
    sold = {w["window_start_ms"]: w["units"] for w in values(kafka.bootstrap, f"{topic_prefix}windows") if w["units"]}
    on_time = {FIRST_MS: 1.0, FIRST_MS + 3 * DAY_MS: 1.0, FIRST_MS + 5 * DAY_MS: 4.0}
    assert sold == on_time | {FIRST_MS + DAY_MS: 1.0}, "the late one has corrected its window"

"""Dead letters on Apache Kafka: listed, mended, sent again once; and a state that is compared with its changelog."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streams.dead_letters import resending
from streams.dead_letters.letter_files import Letter, as_line
from streams.dead_letters.listing import as_letter
from streams.kafka.murmur2 import partitions_of
from streams.kafka.output_producer import OutputProducer
from streams.settings import Settings
from streams.state.flush_record import Flush
from streams.state.store import Store
from tests.support.hostile import GOOD, Hostile, order, unusable
from tests.support.kafka_broker import ROOT, configure
from tests.support.service import Service, environment, read_topic, skutrend, values
from tests.support.shop import send
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000
FIRST_MS = 1_300_060_800_000  # 2011-03-14 UTC
PARTITIONS = 2

KILLED_AFTER = """
import os, signal
from streams.cli import main
from streams.kafka.output_producer import OutputProducer as Producer

put_one, done = Producer.put_one, []

def put_and_die(self, *record):
    put_one(self, *record)
    done.append(record)
    if len(done) == {}:
        self._producer.flush(60)
        os.kill(os.getpid(), signal.SIGKILL)

Producer.put_one = put_and_die
main()
"""  # the command, killed when so many records are written, before it commits them


def line(event_id: str, *, day: int, **changes: Any) -> bytes:  # noqa: ANN401  # JSON values
    fields = {**GOOD, "event_id": event_id, "quantity": 3.0, "event_time_ms": FIRST_MS + day * DAY_MS + DAY_MS // 2}
    return msgspec.json.encode(fields | changes)


def typed(settings: dict[str, Any]) -> Settings:
    return Settings(**settings)


def units(kafka: KafkaBroker, prefix: str) -> dict[str, float]:
    """Units by id of the windows that sold something."""
    return {w["id"]: w["units"] for w in values(kafka.bootstrap, f"{prefix}windows") if w["units"]}


def listed(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(each) for each in path.read_bytes().splitlines()]


def write(path: Path, letters: list[Letter]) -> None:
    path.write_bytes(b"".join(map(as_line, letters)))


def test_a_hostile_batch_is_listed_mended_replayed_twice_and_counted_once(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    wrong = (int(partitions_of([b"22423"], count=PARTITIONS)[0]) + 1) % PARTITIONS
    misplaced = line("misplaced", day=2)
    torn = line("torn", day=1)[:-3]
    hostile = [*unusable(), Hostile("not_json", torn), Hostile("wrong_partition", misplaced, b"22423", wrong)]
    file = tmp_path / "letters.jsonl"
    state = {**settings, "state_dir": tmp_path / "state"}

    with Service(settings, tmp_path) as service:
        service.start("w")
        records = [("orders", b"22423", line("good", day=0), None)]
        records += [("orders", bad.key, bad.value, bad.partition) for bad in hostile]
        service.await_records(send(kafka, topic_prefix, records))
        service.stop("w")

        shown = skutrend("dead-letters", "list", "--out", str(file), settings=settings)
        assert shown.stderr == ""
        *told, _where = shown.stdout.splitlines()
        assert max(map(len, told)) <= 80
        assert f"{len(hostile)} dead letters in {topic_prefix}dead-letters, the newest 20 shown" in shown.stdout
        assert f"{len(hostile)} written to {file}" in shown.stdout
        letters = listed(file)
        assert sorted(letter["code"] for letter in letters) == sorted(bad.code for bad in hostile)
        refused = skutrend("dead-letters", "replay", str(file), settings=settings, check=False)
        assert refused.returncode == 1
        assert "still unusable" in refused.stderr
        assert len(list(read_topic(kafka.bootstrap, f"{topic_prefix}orders"))) == len(records), "nothing was sent"

        mended = []
        for letter in letters:
            if letter.get("value") == torn.decode():
                mended.append({**letter, "value": letter["value"] + "ll}"})
            elif letter["code"] == "wrong_partition":
                mended.append(letter)
        assert len(mended) == 2
        file.write_bytes(b"\n".join(map(msgspec.json.encode, mended)))
        for said in ("2 sent, 0 skipped (sent before)\n", "0 sent, 2 skipped (sent before)\n"):
            assert skutrend("dead-letters", "replay", str(file), settings=settings).stdout == said

        service.start("w")
        service.await_records(send(kafka, topic_prefix, [("orders", b"22423", line("last", day=4), None)]) + 2)
        service.await_closed(FIRST_MS + 5 * DAY_MS)
        service.stop("w")
    sku = GOOD["sku"]
    assert units(kafka, topic_prefix) == {f"{sku}/{FIRST_MS + day * DAY_MS}/0": 3.0 for day in (0, 1, 2, 4)}
    sent = [m for m in read_topic(kafka.bootstrap, f"{topic_prefix}orders") if m.headers()]
    assert sorted(dict(m.headers())["replayed_from"].decode() for m in sent) == sorted(x["source"] for x in mended)
    assert {(m.key(), m.partition()) for m in sent} == {(b"22423", 1 - wrong)}
    assert skutrend("state", "verify", "--changelog", settings=state).stdout.count("the changelog has the same") == 2


def test_a_state_is_compared_with_its_changelog_row_by_row(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    state = {**settings, "state_dir": tmp_path / "state"}
    sold = [
        ("orders", sku, line(f"{day}-{sku.decode()}", day=day, sku=sku.decode()), None)
        for day in range(3)
        for sku in (b"a", b"b", b"c", b"d")
    ]
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, sold[:8]))
        service.await_closed(FIRST_MS + 2 * DAY_MS, partitions=PARTITIONS)
        service.stop("w")
        service.start("w", idle_timeout_ms=600_000)  # so that windows stay open
        service.await_records(send(kafka, topic_prefix, sold[8:]))
        busy = skutrend("state", "verify", "--changelog", settings=state, check=False)
        assert "another worker" in busy.stderr
        service.stop("w")
    whole = skutrend("state", "verify", "--changelog", settings=state)
    assert whole.stdout.count("the changelog has the same") == PARTITIONS
    assert whole.stderr == ""

    number = int(partitions_of([b"a"], count=PARTITIONS)[0])
    path = tmp_path / "state" / f"{settings['topic_prefix']}{settings['group']}" / f"partition-{number}"
    store = Store(path)
    meta, row, position = store.meta(), store.scan.sku_row("a"), store.position()
    assert meta is not None
    assert meta.first_open is not None
    assert row is not None
    assert position is not None
    folded = next(store.scan.open_rows())

    def verify() -> str:
        store.close()
        done = skutrend("state", "verify", "--changelog", settings=state, check=False)
        assert done.returncode == (0 if done.stderr == "" else 1)
        assert not list(path.parent.glob(".verify-*")), "the copy is gone"
        return done.stderr

    closed = {meta.first_open - 1: ([b"a"], [folded.rows[0]])}
    store.write(Flush(meta, folded=closed))
    assert verify() == "", "what is left of a closed window is no difference"
    store = Store(path)
    store.write(
        Flush(meta, skus=[([b"a"], [row[:-1] + bytes([row[-1] ^ 1])])], folded={meta.first_open + 9: ([b"z"], [b""])})
    )
    sentence = verify()
    assert "differ in 2 of " in sentence
    assert "the row of SKU 'a' has other bytes" in sentence
    assert f"the row of SKU 'z' in open window {meta.first_open + 9} is only in the store" in sentence
    store = Store(path)
    store.write(Flush(meta, skus=[([b"a"], [row])], closed_before=meta.first_open + 10))
    assert "is only in the changelog" in verify(), "rows that the store has lost"
    store = Store(path)
    store.set_position(position - 1)
    assert "while that goes on (1 records more)" in verify()
    store = Store(path)
    store.set_position(position + 100)
    assert "lies beyond its end" in verify()


def test_a_replay_that_is_interrupted_is_sent_whole_by_the_next_one(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """As a kill leaves it: records written, some of the markers too, the transaction open."""
    own = typed(settings)
    sources = [f"{topic_prefix}orders[0]@{n}" for n in range(5)]
    file = tmp_path / "letters.jsonl"
    letters = [
        Letter((0, 0, n), source, "not_json", "?", None, line(f"e{n}", day=0)) for n, source in enumerate(sources)
    ]
    write(file, letters)
    assert resending.replay_letters(own, put_first(file, tmp_path, 1)).sent == 1
    killed = OutputProducer(own.client, on_error=lambda _: None, transactional_id=resending.transactional_id(own))
    killed.init_transactions(30)
    for source in sources[1:]:
        killed.put_one(f"{topic_prefix}orders", b"22423", b"half", [("replayed_from", source.encode())])
        killed.put_one(resending.markers_topic(own), source.encode(), b"orders")
    killed._producer.flush(30)  # noqa: SLF001  # what a kill would come right after
    said = skutrend("dead-letters", "replay", str(file), settings=settings).stdout
    assert said == "4 sent, 1 skipped (sent before)\n"
    killed.close()
    sent = list(read_topic(kafka.bootstrap, f"{topic_prefix}orders"))
    assert sorted(msgspec.json.decode(m.value() or b"")["event_id"] for m in sent) == [f"e{n}" for n in range(5)]
    assert {m.key() for m in sent} == {b"22423"}


def test_a_replay_that_is_killed_and_run_again_sends_each_letter_once(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    count, topic = 20_000, f"{topic_prefix}orders"
    file = tmp_path / "letters.jsonl"
    write(file, [
        Letter((0, 0, n), f"{topic}[0]@{n}", "not_json", "?", None, line(f"e{n}", day=0, sku=f"s{n % 50}"))
        for n in range(count)
    ])  # fmt: skip
    watching = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "watching", "isolation.level": "read_uncommitted"}
    )

    def written() -> int:
        """Count all that is in the topic, also what committed readers do not see."""
        return sum(watching.get_watermark_offsets(TopicPartition(topic, n), 10)[1] for n in range(PARTITIONS))

    for records in (count // 2, 2 * count):  # amid its letters; when all of them and their markers are written
        before = written()
        killed = subprocess.run(  # noqa: S603  # our own command
            [sys.executable, "-c", KILLED_AFTER.format(records), "dead-letters", "replay", str(file)],
            env=environment(**settings),
            cwd=ROOT,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert written() - before >= records // 2, "what was killed had written something"
    for _ in range(2):
        said = skutrend("dead-letters", "replay", str(file), settings=settings).stdout
        sent, skipped = (int(word.replace(",", "")) for word in re.findall(r"[\d,]+(?= s[ek])", said))
        assert sent + skipped == count
    assert (sent, skipped) == (0, count)
    watching.close()
    found = [msgspec.json.decode(m.value() or b"")["event_id"] for m in read_topic(kafka.bootstrap, topic)]
    assert sorted(found) == sorted(f"e{n}" for n in range(count))


def test_what_is_abandoned_holds_no_reader_up_and_is_never_seen(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any]
) -> None:
    own, topic = typed(settings), f"{topic_prefix}orders"
    producer = OutputProducer(own.client, on_error=lambda _: None, transactional_id=resending.transactional_id(own))
    producer.init_transactions(30)
    producer.put_one(topic, b"a", b"abandoned")
    producer._producer.flush(30)  # noqa: SLF001  # else it would not even be written
    producer.abort(30)
    producer.put_one(topic, b"a", b"kept")
    producer.commit(30)
    producer.close()
    assert [m.value() for m in read_topic(kafka.bootstrap, topic)] == [b"kept"]


def put_first(file: Path, folder: Path, count: int) -> Path:
    """Copy the first lines of a file."""
    first = folder / "first.jsonl"
    first.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:count]))
    return first


def test_what_is_still_unusable_goes_out_only_by_force(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    bad = [
        Letter((0, 0, 0), f"{topic_prefix}clicks[0]@1", "not_json", "?", b"its key", b"\xff\xfe"),
        Letter((0, 0, 1), f"{topic_prefix}clicks[0]@2", "wrong_type", "?", b"its key", b'{"sku":"of the value"}'),
        Letter((0, 0, 2), f"{topic_prefix}clicks[0]@3", "empty", "?", None, None),
    ]
    file = tmp_path / "letters.jsonl"
    write(file, bad)
    done = skutrend("dead-letters", "replay", str(file), settings=settings, check=False)
    assert done.returncode == 1
    for letter in bad:
        assert letter.source in done.stderr
    assert not list(read_topic(kafka.bootstrap, f"{topic_prefix}clicks"))
    assert skutrend("dead-letters", "replay", "--force", str(file), settings=settings).stdout.startswith("3 sent")
    sent = {(m.key(), m.value()) for m in read_topic(kafka.bootstrap, f"{topic_prefix}clicks")}
    assert sent == {(b"its key", b"\xff\xfe"), (b"of the value", b'{"sku":"of the value"}'), (None, None)}


def test_without_the_topics_the_commands_say_so(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> None:
    nothing = {"brokers": kafka.bootstrap, "topic_prefix": topic_prefix}
    file = tmp_path / "letters.jsonl"
    write(file, [Letter((0, 0, 0), f"{topic_prefix}orders[0]@1", "not_json", "?", None, order())])
    for arguments, topic in ((["list"], "dead-letters"), (["replay", str(file)], "orders")):
        done = skutrend("dead-letters", *arguments, settings=nothing, check=False)
        assert done.returncode == 1
        assert f"topic {topic_prefix}{topic} is missing" in done.stderr


def test_any_record_of_any_size_is_buried_however_little_the_topic_takes(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Key, value and headers huge, also all of them, of noise that compression only enlarges, many at a time."""
    configure(
        kafka.bootstrap, f"{topic_prefix}dead-letters", {"max.message.bytes": "20000", "compression.type": "gzip"}
    )
    noise = random.Random(19).randbytes  # noqa: S311  # reproducible
    sizes = [
        (key, value, header)
        for key in (1, 16_000, 300_000)
        for value in (1, 16_000, 300_000)
        for header in (0, 300_000)
    ]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 200})
    with Service(settings, tmp_path) as service:
        service.start("w", personal="keep")  # else values that are no JSON are removed, and then all fits
        for key, value, header in sizes:
            headers = [("trace", noise(header))] if header else []
            producer.produce(f"{topic_prefix}orders", noise(value), noise(key), partition=0, headers=headers)
        assert producer.flush(30) == 0
        service.await_records(len(sizes))
        wait_for(lambda: service.total("skutrend_lag") == 0, within_s=30)
        service.stop("w")
        assert "given up" not in service.log("w")
    letters = [as_letter(message) for message in read_topic(kafka.bootstrap, f"{topic_prefix}dead-letters")]
    assert sorted(letter.source for letter in letters) == sorted(
        f"{topic_prefix}orders[0]@{n}" for n in range(len(sizes))
    )
    assert sum(not letter.cut for letter in letters) == 1 + 1 + 1, "what fits is whole"

"""The same name with another thing behind it, on Apache Kafka: a worker must notice, say so, and stop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.kafka.topic_ids import TopicIds
from tests.integration.test_trouble import FIRST_MS, expected, fails, lines, told
from tests.support.service import Service, skutrend, values
from tests.support.shop import send
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


def make_again(kafka: KafkaBroker, topic: str, config: dict[str, str] | None = None) -> tuple[str, str]:
    """Delete a topic of two partitions and make it again; returns its ids before and after."""
    ids = TopicIds({"bootstrap.servers": kafka.bootstrap}, [topic])
    before = ids.ask()[topic]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([topic])[topic].result()
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, within_s=30)
    kafka.make_topics([topic], partitions=2, config=config or {"retention.ms": "-1"})
    wait_for(lambda: ids.ask().get(topic, before) != before, within_s=30)
    return before, ids.ask()[topic]


def ended(service: Service, name: str, *, within_s: float) -> str:
    """Wait for a worker to end with exit code 1; returns its one sentence."""
    assert service.processes[name].wait(within_s) == 1, service.log(name)  # one that does not end, the service does
    del service.processes[name]
    (sentence,) = re.findall(r"^skutrend: .*", service.log(name), re.MULTILINE)
    return str(sentence)


@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
def test_an_input_that_was_made_again_and_has_grown_beyond_our_offset_stops_the_worker(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path, *, is_running: bool
) -> None:
    orders = f"{topic_prefix}orders"
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        if not is_running:
            service.stop("w")
        before, after = make_again(kafka, orders)
        send(kafka, topic_prefix, lines(range(2, 8)))
        sentence = ended(service, "w", within_s=60) if is_running else fails(settings, tmp_path)
    assert f"topic {orders} was deleted and made again" in sentence
    assert before in sentence
    assert after in sentence
    assert "SKUTREND_GROUP" in sentence
    # the remedy works, and the old group says the same again
    with Service({**settings, "group": f"{settings['group']}2"}, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 8 * DAY_MS, partitions=2)
        service.stop("w")
    # a worker that runs may have closed windows of the new topic before it noticed: they are the same
    published = {window["id"]: window["units"] for window in values(kafka.bootstrap, f"{topic_prefix}windows")}
    assert expected(range(2, 8)).items() <= published.items()
    assert after in fails(settings, tmp_path)


def test_a_topic_that_was_made_again_before_anything_was_read_of_it_is_read(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        service.stop("w")
        make_again(kafka, f"{topic_prefix}clicks")
        service.start("w")
        send(kafka, topic_prefix, lines(range(2, 4)))
        service.await_closed(FIRST_MS + 4 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(4))


def test_shops_told_apart_by_the_topic_prefix_alone_share_nothing(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    common = {"brokers": kafka.bootstrap, "bundle": "none", "idle_timeout_ms": 2_000, "flush_interval_ms": 100}
    shops = {name: {**common, "topic_prefix": f"{topic_prefix}{name}-"} for name in ("eu", "us")}
    with Service(common, tmp_path) as service:  # one state directory for both
        for number, (name, settings) in enumerate(shops.items()):
            skutrend("topics", "create", "--partitions", "2", settings=settings)
            service.start(name, **settings)
            send(kafka, settings["topic_prefix"], lines(range(number, 5)))
        service.await_records(40 * 9)
        for name in shops:
            assert service.get(name, "/readyz") == (200, "partitions [0, 1]\n")
        wait_for(lambda: all(len(told(kafka, s["topic_prefix"])) >= 160 for s in shops.values()), within_s=60)
        for name in shops:
            service.stop(name)
    for number, settings in enumerate(shops.values()):
        assert told(kafka, settings["topic_prefix"]) == expected(range(number, 5))


def test_a_worker_that_reads_other_topics_than_its_group_stops_and_the_group_goes_on(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    common = {"brokers": kafka.bootstrap, "bundle": "none", "idle_timeout_ms": 2_000, "flush_interval_ms": 100}
    first = {**common, "topic_prefix": topic_prefix, "group": "onegroup"}
    second = {**common, "topic_prefix": f"{topic_prefix}one", "group": "group"}  # of the same name for Kafka
    for settings in (first, second):
        skutrend("topics", "create", "--partitions", "2", settings=settings)
    with Service(first, tmp_path) as service:
        service.start("w")
        send(kafka, topic_prefix, lines(range(2)))
        send(kafka, second["topic_prefix"], lines(range(2)))
        (tmp_path / "other").mkdir()
        sentence = fails(second, tmp_path / "other")
        send(kafka, topic_prefix, lines(range(2, 4)))
        service.await_closed(FIRST_MS + 4 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(4))
    assert f"group {topic_prefix}onegroup read {topic_prefix}clicks, {topic_prefix}orders" in sentence
    assert "SKUTREND_GROUP" in sentence


def lag(kafka: KafkaBroker, group: str, topic: str) -> list[int]:
    """Records of each of a topic's two partitions that a group has not committed yet."""
    reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group})
    try:
        committed = reader.committed([TopicPartition(topic, number) for number in range(2)], timeout=30)
        return [reader.get_watermark_offsets(each, timeout=30)[1] - max(each.offset, 0) for each in committed]
    finally:
        reader.close()


def test_of_two_workers_of_one_instance_the_older_ends_and_names_the_cause(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service({**settings, "instance": "worker-0"}, tmp_path, apart=True) as service:
        service.start("older")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        service.start("newer", wait=False)
        sentence = ended(service, "older", within_s=60)
        service.await_ready(["newer"])
        send(kafka, topic_prefix, lines(range(2, 4)))
        service.await_closed(FIRST_MS + 4 * DAY_MS, partitions=2)
        generations = len(re.findall(r"generation \d+, partitions", service.log("older") + service.log("newer")))
        # What a static member commits under its name is taken, within the 5 s after which the group's commits follow.
        group = f"{topic_prefix}{settings['group']}"
        wait_for(lambda: lag(kafka, group, f"{topic_prefix}orders") == [0, 0], within_s=30)
        service.stop("newer")
    assert told(kafka, topic_prefix) == expected(range(4))
    assert f"SKUTREND_INSTANCE 'worker-0' of group {group} is in use by another" in sentence
    assert generations <= 4


def test_a_worker_of_an_instance_that_was_killed_is_taken_for_the_same_one(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with Service({**settings, "instance": "worker-0"}, tmp_path) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(2))))
        for _ in range(2):
            service.kill("w")
            service.start("w")
        send(kafka, topic_prefix, lines(range(2, 4)))
        service.await_closed(FIRST_MS + 4 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(kafka, topic_prefix) == expected(range(4))


def test_a_group_of_another_program_is_named(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    group = f"{topic_prefix}{settings['group']}"
    foreign = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    foreign.subscribe([f"{topic_prefix}orders"])
    wait_for(lambda: foreign.poll(0.5) or foreign.assignment(), within_s=30)
    (tmp_path / "short").mkdir()
    sentences = [fails(settings, tmp_path), fails({**settings, "session_timeout_ms": 7_200_000}, tmp_path / "short")]
    foreign.close()
    assert f"group {group} has members that assign partitions in another way" in sentences[0]
    assert "do not allow a session of 7200000 ms: set SKUTREND_SESSION_TIMEOUT_MS" in sentences[1]


def test_a_shadow_reads_the_shop_s_inputs_and_writes_nothing_of_the_shop_s(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    shadow = {**settings, "output_prefix": f"{topic_prefix}shadow-"}
    prefixes = (topic_prefix, shadow["output_prefix"] + topic_prefix)
    skutrend("topics", "create", "--partitions", "2", settings=shadow)
    assert "all topics are as they should be" in skutrend("topics", "check", settings=shadow).stdout
    with Service(settings, tmp_path) as service:
        service.start("w")
        service.start("shadow", output_prefix=shadow["output_prefix"])
        send(kafka, topic_prefix, [*lines(range(4)), ("orders", b"S000", b"?", None)])
        service.await_records(2 * 161)
        wait_for(lambda: all(len(told(kafka, prefix)) >= 160 for prefix in prefixes), within_s=60)
        for name in ("w", "shadow"):
            assert service.get(name, "/readyz") == (200, "partitions [0, 1]\n")
            service.stop(name)
    for prefix in prefixes:
        assert told(kafka, prefix) == expected(range(4)), "each once"
    for each in (settings, shadow):
        assert "1 dead letter" in skutrend("dead-letters", "list", settings=each).stdout
    where = {"state_dir": tmp_path / "state"}
    for each in (settings, shadow):
        whole = skutrend("state", "verify", "--changelog", settings={**each, **where}).stdout
        assert whole.count("the changelog has the same") == 2
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    made = {name.removeprefix(shadow["output_prefix"]) for name in admin.list_topics(timeout=10).topics}
    assert f"{topic_prefix}skutrend-{settings['group']}-changelog" in made
    assert f"{shadow['output_prefix']}{topic_prefix}orders" not in admin.list_topics(timeout=10).topics


def test_a_changelog_that_was_made_again_and_has_grown_beyond_our_position_stops_the_worker(
    kafka: KafkaBroker, topic_prefix: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    changelog = f"{topic_prefix}skutrend-{settings['group']}-changelog"
    with Service(settings, tmp_path, apart=True) as service:
        service.start("w")
        service.await_records(send(kafka, topic_prefix, lines(range(1))))
        service.stop("w")
        before, after = make_again(kafka, changelog, {"cleanup.policy": "compact"})
        service.start("other")
        for day in range(1, 5):
            service.await_records(40 * day)
            send(kafka, topic_prefix, lines(range(day, day + 1)))
        service.await_records(200)
        verified = skutrend(
            "state", "verify", "--changelog", settings={**settings, "state_dir": service.state_dir("w")}, check=False
        )
        service.stop("other")
        service.start("w", wait=False)
        sentence = ended(service, "w", within_s=60)
    assert f"{changelog}[" in sentence
    assert before in sentence
    assert after in sentence
    assert "to go on from the changelog" in sentence
    assert before in verified.stderr
    assert after in verified.stderr

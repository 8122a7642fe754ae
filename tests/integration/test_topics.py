"""Topics on Apache Kafka: made as they have to be, and told where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from schemas.errors import BrokerTrouble
from streams.commands import serve
from streams.kafka import topics
from streams.kafka.topics import DEFAULT_LIMIT_BYTES
from streams.settings import Settings
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
def config(kafka: KafkaBroker) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap}


@pytest.fixture
def admin(config: dict[str, str]) -> AdminClient:
    return AdminClient(config)


def set_config(admin: AdminClient, topic: str, **settings: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()
    wanted = {entry.name: entry.value for entry in entries}.items()
    wait_for(lambda: wanted <= settings_of(admin, topic).items(), within_s=30)


def settings_of(admin: AdminClient, topic: str) -> dict[str, str]:
    (found,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in found.result().items()}


def create(admin: AdminClient, config: dict[str, str], prefix: str, *, partitions: int = 1) -> list[tuple[str, bool]]:
    """Make the topics and wait until the broker that made them knows them too, which takes it a moment."""

    def known() -> bool:
        try:
            return all(settings_of(admin, name) for name in topics.names(prefix))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return False

    made = topics.create(config, partitions=partitions, replication=1, prefix=prefix)
    wait_for(known, within_s=30)
    return made


def test_all_topics_are_made_once_and_are_as_they_should_be(
    config: dict[str, str], admin: AdminClient, topic_prefix: str
) -> None:
    made = create(admin, config, topic_prefix, partitions=3)
    names = topics.names(topic_prefix)
    assert [name for name, _ in made] == names
    assert len(names) == 8
    assert all(is_new for _, is_new in made)
    known = admin.list_topics(timeout=30).topics
    assert {len(known[name].partitions) for name in names} == {3}
    for name in names:
        found = settings_of(admin, name)
        kept_ms = str(28 * 86_400_000) if name.endswith(("dead-letters", "late-events")) else "-1"
        assert (found["cleanup.policy"], found["retention.ms"], found["retention.bytes"]) == ("delete", kept_ms, "-1")
    assert topics.create(config, partitions=5, replication=1, prefix=topic_prefix) == [(name, False) for name in names]
    assert {len(admin.list_topics(timeout=30).topics[name].partitions) for name in names} == {3}, "left as they are"
    assert topics.check(config, prefix=topic_prefix) == []


def test_only_what_is_missing_is_made(config: dict[str, str], kafka: KafkaBroker, topic_prefix: str) -> None:
    kafka.make_topics([topic_prefix + "alerts"], partitions=2)
    made = dict(topics.create(config, partitions=2, replication=-1, prefix=topic_prefix))
    assert made.pop(topic_prefix + "alerts") is False
    assert set(made.values()) == {True}


def test_letters_take_larger_records_than_the_inputs_and_the_limit_is_asked_for(
    config: dict[str, str], admin: AdminClient, topic_prefix: str
) -> None:
    create(admin, config, topic_prefix)
    assert topics.letter_limit_bytes(config, prefix=topic_prefix) == topics.LETTER_BYTES
    set_config(admin, topic_prefix + "late-events", max_message_bytes="12345")
    assert topics.letter_limit_bytes(config, prefix=topic_prefix) == 12_345


def test_without_the_topics_the_limit_of_a_letter_is_kafka_s_default(config: dict[str, str], topic_prefix: str) -> None:
    assert topics.letter_limit_bytes(config, prefix=topic_prefix) == DEFAULT_LIMIT_BYTES


def test_missing_topics_are_reported_each_with_the_remedy(
    config: dict[str, str], kafka: KafkaBroker, topic_prefix: str
) -> None:
    missing = topics.check(config, prefix=topic_prefix)
    assert missing == [
        f"topic {name} is missing; make it with `skutrend topics create`" for name in topics.names(topic_prefix)
    ]
    kafka.make_topics([topic_prefix + "orders"], partitions=1, config={"retention.ms": "-1"})
    wait_for(lambda: topics.check(config, prefix=topic_prefix) != missing, within_s=30)
    assert topics.check(config, prefix=topic_prefix) == missing[1:]


WRONG = ("orders", "price-changes", "windows", "forecasts", "late-events", "dead-letters")


def test_everything_that_is_wrong_is_reported_and_nothing_else(
    config: dict[str, str], admin: AdminClient, topic_prefix: str
) -> None:
    create(admin, config, topic_prefix, partitions=2)
    for done in admin.create_partitions([NewPartitions(topic_prefix + "clicks", 3)]).values():
        done.result()
    set_config(admin, topic_prefix + "orders", cleanup_policy="compact", retention_ms="-1")
    set_config(admin, topic_prefix + "price-changes", retention_ms="86400000")
    set_config(admin, topic_prefix + "windows", retention_ms="60000")
    set_config(admin, topic_prefix + "alerts", retention_ms=str(8 * 86_400_000))  # long enough for its readers
    set_config(admin, topic_prefix + "forecasts", retention_ms="-1", min_insync_replicas="2")
    set_config(admin, topic_prefix + "late-events", retention_ms="-1")
    set_config(admin, topic_prefix + "dead-letters", retention_ms=str(29 * 86_400_000))
    uneven, *others = topics.check(config, prefix=topic_prefix)
    p = topic_prefix
    assert uneven.startswith(
        f"the inputs differ in partitions ({p}orders has 2, {p}clicks has 3, {p}price-changes has 2)"
    )
    assert "with 3 partitions each" in uneven
    by_topic = {sentence.split()[1]: sentence for sentence in others}
    assert by_topic.keys() == {p + name for name in WRONG}
    assert len(others) == len(WRONG)
    assert "keeps for ever what producers have sent by mistake" in by_topic[p + "late-events"]
    assert "keeps for 29 days" in by_topic[p + "dead-letters"]
    assert "set retention.ms=2419200000 (28 days)" in by_topic[p + "dead-letters"]
    assert "cleanup.policy=compact" in by_topic[p + "orders"]
    assert "set cleanup.policy=delete" in by_topic[p + "orders"]
    assert "1 days after their own timestamp (retention.ms=86400000)" in by_topic[p + "price-changes"]
    assert "for 60 s only" in by_topic[p + "windows"]
    assert "demands 2 in-sync replicas but has 1" in by_topic[p + "forecasts"]


def test_retention_that_counts_from_arrival_is_as_good_as_none(
    config: dict[str, str], admin: AdminClient, topic_prefix: str
) -> None:
    create(admin, config, topic_prefix)
    set_config(admin, topic_prefix + "orders", retention_ms="86400000", message_timestamp_type="LogAppendTime")
    assert topics.check(config, prefix=topic_prefix) == []


def test_what_the_cluster_refuses_is_trouble_with_the_topic_s_name(config: dict[str, str], topic_prefix: str) -> None:
    with pytest.raises(BrokerTrouble, match=rf"topic {topic_prefix}orders could not be made: .*[Rr]eplication"):
        topics.create(config, partitions=1, replication=3, prefix=topic_prefix)


def test_a_worker_without_its_inputs_says_what_to_do(
    config: dict[str, str], admin: AdminClient, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "BROKERS_WAIT_S", 0.0)
    settings = Settings(brokers=config["bootstrap.servers"], topic_prefix=topic_prefix)
    with pytest.raises(BrokerTrouble, match=rf"topic {topic_prefix}orders is not there .*`skutrend topics create`"):
        serve.partition_counts(settings)
    create(admin, config, topic_prefix, partitions=3)
    assert set(serve.partition_counts(settings).values()) == {3}


def test_a_record_of_years_ago_is_taken(config: dict[str, str], admin: AdminClient, topic_prefix: str) -> None:
    create(admin, config, topic_prefix)
    refused: list[object] = []
    producer = Producer({**config, "log_level": 0})
    producer.produce(
        topic_prefix + "orders", b"v", timestamp=1_300_000_000_000, on_delivery=lambda e, _: refused.append(e)
    )
    assert producer.flush(30) == 0
    assert refused == [None]

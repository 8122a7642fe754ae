"""The topics of the service: their names, how they are made, and what is wrong with them.

All but the letters are made with `retention.ms=-1`. Kafka deletes by a record's own timestamp: with a finite retention,
a replay of last year's events vanishes within minutes of being written, from the inputs and from whatever was made of
them. Letters are stamped when they are written, and hold what producers have sent by mistake, personal data perhaps:
they are kept for 28 days.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from features.cadence import DAY_MS
from schemas.errors import BrokerTrouble, Refused, Unavailable
from schemas.inputs import INPUT_NAMES
from streams.kafka import broker_errors, clients
from streams.kafka.broker_errors import Attempt, ErrorClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigEntry, TopicMetadata

log = logging.getLogger(__name__)

WINDOWS: Final = "windows"
FORECASTS: Final = "forecasts"
ALERTS: Final = "alerts"
LATE_EVENTS: Final = "late-events"
DEAD_LETTERS: Final = "dead-letters"

FORECASTS_SHADOW: Final = "forecasts-shadow"
"""Made where a shadow bundle is set."""

OUTPUTS: Final = (WINDOWS, FORECASTS, ALERTS, LATE_EVENTS, DEAD_LETTERS)
LETTERS: Final = (LATE_EVENTS, DEAD_LETTERS)

TOPIC_SETTINGS: Final[Mapping[str, str]] = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
DEFAULT_LIMIT_BYTES: Final = 1_048_588  # of a record: Kafka's default of max.message.bytes
LETTER_BYTES: Final = 8 << 20
LETTER_DAYS: Final = 28
LETTER_SETTINGS: Final = {
    **TOPIC_SETTINGS,
    "retention.ms": str(LETTER_DAYS * DAY_MS),
    "segment.ms": str(DAY_MS),  # a segment goes as a whole, once its newest record is old enough
    "max.message.bytes": str(LETTER_BYTES),
}
"""Of the topics that take foreign records as they came, with headers added."""
CHANGELOG_SETTINGS: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.3",
    "segment.bytes": str(64 << 20),  # what is in the active segment is not compacted
    "max.message.bytes": str(LETTER_BYTES),
    # an older disk or snapshot would miss the tombstones since (24 h by default)
    "delete.retention.ms": str(30 * DAY_MS),
}
_CLUSTERS_OWN: Final = -1  # what Kafka calls its default.replication.factor
_CLUSTER: Final = 3  # brokers, from which on one may be lost
ANSWER_S: Final = 30.0
LIMIT_ANSWER_S: Final = 1.5

Answer = TypeVar("Answer")


def outputs(*, shadow: bool = False) -> tuple[str, ...]:
    """Name the output topics. shadow: whether a shadow bundle is set."""
    return (*OUTPUTS, FORECASTS_SHADOW) if shadow else OUTPUTS


def names(prefix: str = "", output_prefix: str = "", *, shadow: bool = False) -> list[str]:
    """Full names of all topics, inputs first."""
    made = outputs(shadow=shadow)
    return [*(prefix + name for name in INPUT_NAMES), *(output_prefix + prefix + name for name in made)]


def create(
    config: Mapping[str, Any],
    *,
    partitions: int,
    replication: int | None = None,
    prefix: str = "",
    output_prefix: str = "",
    shadow: bool = False,
) -> list[tuple[str, bool]]:
    """Make the topics that are missing; returns every full name and whether it was made now.

    config: librdkafka properties. Topics that exist are left as they are; see `check`. replication: copies of each
    partition; None: the cluster's `default.replication.factor`. prefix: of all names; output_prefix: before that, of
    the outputs; shadow: see `outputs`. `BrokerTrouble` when the cluster refuses or does not answer.
    """
    admin = clients.admin(config)
    _metadata(admin, config)  # a cluster that cannot be reached is said at once, not after a minute
    wanted = [
        NewTopic(
            full,
            num_partitions=partitions,
            replication_factor=_CLUSTERS_OWN if replication is None else replication,
            config=dict(LETTER_SETTINGS if name in LETTERS else TOPIC_SETTINGS),
        )
        for name, full in zip(
            (*INPUT_NAMES, *outputs(shadow=shadow)), names(prefix, output_prefix, shadow=shadow), strict=True
        )
    ]
    futures = admin.create_topics(wanted, request_timeout=ANSWER_S)
    return [(name, _created(name, future)) for name, future in futures.items()]


def _created(name: str, future: Future[None]) -> bool:
    try:
        _wait(future, f"topic {name} could not be made", Attempt("Create", topic=name))
    except (BrokerTrouble, Refused) as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and cause.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise
    return True


def check(config: Mapping[str, Any], *, prefix: str = "", output_prefix: str = "", shadow: bool = False) -> list[str]:
    """Say what is wrong with the topics, a sentence with the remedy for each trouble; empty when all is well."""
    wanted = names(prefix, output_prefix, shadow=shadow)
    admin = clients.admin(config)
    cluster = _cluster(admin, config)
    known = cluster.topics
    missing = [name for name in wanted if name not in known]
    problems = [f"topic {name} is missing; make it with `skutrend topics create`" for name in missing]
    inputs = {name: known[name] for name in (prefix + each for each in INPUT_NAMES) if name in known}
    problems += _uneven(inputs)
    present = {name: known[name] for name in wanted if name in known}
    letters = {output_prefix + prefix + name for name in LETTERS}
    for name, settings in _settings(admin, present).items():
        problems += _kept_too_long(name, settings) if name in letters else []
        problems += _unsuitable(name, settings, replicas=_replicas(present[name]), is_input=name in inputs)
    problems += _single(present, brokers=len(cluster.brokers))
    return problems


def ensure_changelog(config: Mapping[str, Any], name: str, *, partitions: int) -> None:
    """Make the changelog topic where it is missing; another partition count than the inputs' is a `BrokerTrouble`.

    `Unavailable` when no broker answers.
    """
    admin = clients.admin(config)
    known = _metadata(admin, config)
    if name in known:
        count = len(known[name].partitions)
        if count != partitions:
            msg = (
                f"topic {name} has {count} partitions, the inputs have {partitions}: adding partitions moves keys; "
                f"stop all workers, delete {name} and the state directories, and let the inputs be read again"
            )
            raise BrokerTrouble(msg)
        return
    _make_compacted(admin, name, partitions=partitions)


def ensure_replayed(config: Mapping[str, Any], name: str) -> int:
    """Make the topic that remembers which letters were sent again, where it is missing.

    Returns how many partitions may hold something: 0 where it was made now.
    """
    admin = clients.admin(config)
    known = _metadata(admin, config)
    if name in known:
        return len(known[name].partitions)
    _make_compacted(admin, name, partitions=1)
    return 0


def _make_compacted(admin: AdminClient, name: str, *, partitions: int) -> None:
    wanted = NewTopic(
        name, num_partitions=partitions, replication_factor=_CLUSTERS_OWN, config=dict(CHANGELOG_SETTINGS)
    )
    (future,) = admin.create_topics([wanted], request_timeout=ANSWER_S).values()
    if _created(name, future):
        log.info("topic %s made: %d partitions, compacted", name, partitions)


def partition_count(config: Mapping[str, Any], name: str) -> int:
    """Count the partitions of a topic that must be there (`BrokerTrouble`)."""
    known = _metadata(clients.admin(config), config)
    if name not in known:
        msg = f"topic {name} is missing; make it with `skutrend topics create`, or see SKUTREND_TOPIC_PREFIX"
        raise BrokerTrouble(msg)
    return len(known[name].partitions)


def letter_limit_bytes(config: Mapping[str, Any], *, prefix: str = "") -> int:
    """Ask how large a record of the dead letters and late events may be; Kafka's default where nobody says."""
    admin = clients.admin(config)
    try:
        found = _settings(admin, [prefix + name for name in LETTERS], answer_s=LIMIT_ANSWER_S)
    except (BrokerTrouble, Refused) as trouble:  # no such API (the embedded broker), or no right to ask
        log.info("dead letters are kept up to %d bytes: %s", DEFAULT_LIMIT_BYTES, trouble)
        return DEFAULT_LIMIT_BYTES
    return min(int(settings.get("max.message.bytes", DEFAULT_LIMIT_BYTES)) for settings in found.values())


def _uneven(inputs: Mapping[str, TopicMetadata]) -> list[str]:
    counts = {name: len(topic.partitions) for name, topic in inputs.items()}
    if len(set(counts.values())) <= 1:
        return []
    found = ", ".join(f"{name} has {count}" for name, count in counts.items())
    return [
        f"the inputs differ in partitions ({found}), so that a SKU's events end up with different workers; make them "
        f"again with {max(counts.values())} partitions each, since adding partitions moves keys"
    ]


def _unsuitable(name: str, settings: Mapping[str, str], *, replicas: int, is_input: bool) -> list[str]:
    problems = []
    if is_input and "compact" in settings.get("cleanup.policy", ""):
        problems.append(
            f"topic {name} has cleanup.policy={settings['cleanup.policy']}: compaction would leave one event per SKU; "
            "set cleanup.policy=delete"
        )
    retention_ms = int(settings.get("retention.ms", "-1"))
    by_own_stamp = settings.get("message.timestamp.type", "CreateTime") == "CreateTime"
    if is_input and retention_ms >= 0 and by_own_stamp:
        problems.append(
            f"topic {name} deletes records {retention_ms / DAY_MS:g} days after their own timestamp "
            f"(retention.ms={retention_ms}): a replay of older events would vanish unread; set retention.ms=-1, or "
            "message.timestamp.type=LogAppendTime to count from their arrival"
        )
    if not is_input and 0 <= retention_ms < DAY_MS:
        problems.append(
            f"topic {name} keeps what was published for {retention_ms / 1000:g} s only (retention.ms={retention_ms}); "
            "set retention.ms=-1, or to what its readers may take to catch up"
        )
    in_sync = int(settings.get("min.insync.replicas", "1"))
    if replicas < in_sync:
        problems.append(
            f"topic {name} demands {in_sync} in-sync replicas but has {replicas}, so that every write is refused; "
            "lower min.insync.replicas or add replicas"
        )
    return problems


def _kept_too_long(name: str, settings: Mapping[str, str]) -> list[str]:
    problems = []
    retention_ms = int(settings.get("retention.ms", "-1"))
    if not 0 <= retention_ms <= LETTER_DAYS * DAY_MS:
        kept = "for ever" if retention_ms < 0 else f"for {retention_ms / DAY_MS:g} days"
        problems.append(
            f"topic {name} keeps {kept} what producers have sent by mistake, personal data perhaps "
            f"(retention.ms={retention_ms}); set retention.ms={LETTER_DAYS * DAY_MS} ({LETTER_DAYS} days)"
        )
    if settings.get("cleanup.policy", "delete") != "delete":
        problems.append(
            f"topic {name} has cleanup.policy={settings['cleanup.policy']}, so that personal data may stay for ever; "
            "set cleanup.policy=delete"
        )
    return problems


def _single(topics: Mapping[str, TopicMetadata], *, brokers: int) -> list[str]:
    single = [name for name, topic in topics.items() if _replicas(topic) == 1]
    if brokers < _CLUSTER or not single:
        return []
    return [
        f"on a cluster of {brokers} brokers, of each partition of {', '.join(single)} there is but one copy, so that a "
        "lost broker stops the worker and takes records with it; add replicas, or make them again with "
        "`skutrend topics create --replication 3`"
    ]


def _replicas(topic: TopicMetadata) -> int:
    return min((len(partition.replicas) for partition in topic.partitions.values()), default=0)


def _metadata(admin: AdminClient, config: Mapping[str, Any]) -> dict[str, TopicMetadata]:
    found: dict[str, TopicMetadata] = _cluster(admin, config).topics
    return found


def _cluster(admin: AdminClient, config: Mapping[str, Any]) -> ClusterMetadata:
    try:
        return admin.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        msg = (
            f"no answer from the brokers {config.get('bootstrap.servers', '(none given)')}: {error.args[0].str()}; "
            "see whether they run and whether SKUTREND_BROKERS and the security settings are right"
        )
        raise Unavailable(msg) from error


def _settings(admin: AdminClient, topics: Iterable[str], *, answer_s: float = ANSWER_S) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    if not resources:
        return {}
    found: dict[str, dict[str, str]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=answer_s).items():
        entries: dict[str, ConfigEntry] = _wait(
            future, f"the settings of topic {resource.name} cannot be read", Attempt("DescribeConfigs", resource.name)
        )
        found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return found


def _wait(future: Future[Answer], what: str, attempt: Attempt) -> Answer:
    try:
        return future.result()
    except KafkaException as error:
        cause = error.args[0]
        if broker_errors.classify(cause.code()) is ErrorClass.REFUSED:
            refusal = f"{what}: {cause.str()}; {attempt.remedy(cause.code())}"
            raise Refused(refusal) from error
        msg = f"{what}: {cause.str()}; see whether the cluster is whole"
        raise Unavailable(msg) from error

"""Which errors of the brokers pass with time and which do not: one table for everything that talks to them.

* PASSES   a broker, a leader or a coordinator is away, slow or overloaded: trying again helps
* ABSENT   a topic or partition is not known. A broker that comes back says the same until it has read its own metadata,
           so that it is believed only once it has been said for long and the metadata agree (`is_absent`)
* FENCED   another producer has taken the transactional id over
* REFUSED  a right is missing, or what was asked is never accepted: nothing changes before an operator has acted

Codes are Kafka's own where they are positive (the `errno` of aiokafka's errors), librdkafka's where they are negative.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

METADATA_S: Final = 5.0  # how long to wait for the metadata that confirm an absence

LOGIN: Final = frozenset({
    KafkaError._AUTHENTICATION,  # noqa: SLF001  # librdkafka's own codes have no other names
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
})  # fmt: skip
"""The brokers do not let this user in."""


class ErrorClass(Enum):
    """What becomes of an error with time; see the top of this module."""

    PASSES = "passes"
    ABSENT = "absent"
    FENCED = "fenced"
    REFUSED = "refused"


_ABSENT: Final = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
})  # fmt: skip
_FENCED: Final = frozenset({
    KafkaError._FENCED,  # noqa: SLF001
    KafkaError._FATAL,  # noqa: SLF001  # after a fatal error whose cause is unknown: see `ProducerErrors`
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
})  # fmt: skip
_RIGHTS: Final[Mapping[int, str]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}
_TOO_LARGE: Final = "lower what a record holds, or raise max.message.bytes of the topic"
_UNFIT: Final = "change that setting of the topic, the brokers or SKUTREND_KAFKA_..."
_REMEDIES: Final[Mapping[int, str]] = {
    KafkaError.MSG_SIZE_TOO_LARGE: _TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE: _TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: "raise segment.bytes of the topic",
    KafkaError.INVALID_RECORD: "see what the topic demands of its records (compaction demands a key)",
    KafkaError.INVALID_TIMESTAMP: "see message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic",
    KafkaError.TOPIC_EXCEPTION: "see whether the topic has a legal name",
    KafkaError.POLICY_VIOLATION: "see what the policies of this cluster allow",
    KafkaError.INVALID_REQUIRED_ACKS: "leave SKUTREND_KAFKA_ACKS at all",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        "lower SKUTREND_KAFKA_TRANSACTION_TIMEOUT_MS, or raise transaction.max.timeout.ms of the brokers"
    ),
    KafkaError.INVALID_CONFIG: _UNFIT,
    KafkaError.SECURITY_DISABLED: "see the SASL settings (SKUTREND_KAFKA_SASL_...)",
    KafkaError._UNSUPPORTED_FEATURE: _UNFIT,  # noqa: SLF001
    KafkaError._INVALID_ARG: _UNFIT,  # noqa: SLF001
    KafkaError.UNSUPPORTED_VERSION: "the brokers are too old for this: update them",
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: "raise the message format of the topic",
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: "set SKUTREND_KAFKA_COMPRESSION_TYPE to one that the brokers know",
}
GROUP_REMEDIES: Final[Mapping[int, str]] = {
    KafkaError.INCONSISTENT_GROUP_PROTOCOL: (
        "group {group} has members that assign partitions in another way, which are no workers of this release: "
        "stop them, or set another SKUTREND_GROUP"
    ),
    KafkaError.INVALID_GROUP_ID: "the brokers do not take {group} as the name of a group: set another SKUTREND_GROUP",
    KafkaError.INVALID_SESSION_TIMEOUT: (
        "the brokers do not allow a session of {session_ms} ms: set SKUTREND_SESSION_TIMEOUT_MS between their "
        "group.min.session.timeout.ms and group.max.session.timeout.ms"
    ),
    KafkaError.GROUP_MAX_SIZE_REACHED: (
        "group {group} has as many members as the brokers' group.max.size allows: stop some, or raise it"
    ),
    KafkaError.FENCED_INSTANCE_ID: (
        "SKUTREND_INSTANCE {instance!r} of group {group} is in use by another worker, which was started later and has "
        "taken this one's place: give each worker a name of its own, such as its pod's, or stop one of the two"
    ),
}
"""Why a worker can never be a member of its group as it is."""


def classify(code: int) -> ErrorClass:
    """Say what becomes of an error with time.

    >>> classify(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    <ErrorClass.REFUSED: 'refused'>
    >>> classify(KafkaError.NOT_LEADER_FOR_PARTITION)
    <ErrorClass.PASSES: 'passes'>
    """
    if code in _ABSENT:
        return ErrorClass.ABSENT
    if code in _FENCED:
        return ErrorClass.FENCED
    is_refused = code in _RIGHTS or code in _REMEDIES or code in GROUP_REMEDIES
    return ErrorClass.REFUSED if is_refused else ErrorClass.PASSES


@dataclass(frozen=True)
class Attempt:
    """What was asked of the brokers, so that a refusal names it. right: on the topic, as Kafka's ACLs call it."""

    right: str = "Read"
    topic: str = ""
    group: str = ""
    instance: str = ""
    session_ms: int = 0
    transactional_id: str = ""

    def remedy(self, code: int) -> str:
        """Say what an operator can do about an error.

        >>> Attempt(group="shop").remedy(KafkaError.GROUP_AUTHORIZATION_FAILED)
        "the missing right is Read on the group 'shop': grant it to this user (Kafka ACLs)"
        """
        if code in _RIGHTS:
            return f"the missing right is {self._missing(_RIGHTS[code])}: grant it to this user (Kafka ACLs)"
        if code in _ABSENT:
            return f"topic {self.topic} is not there: make it (`skutrend topics create`), then start the worker again"
        if code in GROUP_REMEDIES:
            return GROUP_REMEDIES[code].format(**dataclasses.asdict(self))
        return _REMEDIES.get(code, "see whether the brokers answer and have enough in-sync replicas")

    def _missing(self, kind: str) -> str:
        if kind == "cluster":  # what the brokers ask of a producer that may write to no topic at all
            return "IdempotentWrite on the cluster, which comes with Write on any topic"
        right, name = {
            "topic": (self.right, self.topic),
            "group": ("Read", self.group),
            "transactional id": ("Write", self.transactional_id),
        }[kind]
        return f"{right} on the {kind} {name!r}" if name else f"{right} on a {kind}"


def is_absent(client: Consumer | Producer | AdminClient, topic: str) -> bool:
    """Whether the brokers' metadata say that a topic is not there, while they know others.

    A broker that has not read its metadata yet knows none at all; one that does not answer confirms nothing.
    """
    try:
        known = client.list_topics(timeout=METADATA_S).topics
    except KafkaException:
        return False
    return topic not in known and any(not name.startswith("__") for name in known)

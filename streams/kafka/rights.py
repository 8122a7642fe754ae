"""Which rights of a user on topics are missing, as the brokers say: all at once, and before they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from schemas.errors import Refused
from streams.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANSWER_S: Final = 5.0
READ: Final = AclOperation.READ
WRITE: Final = AclOperation.WRITE
_NAMES: Final = {READ: "Read", WRITE: "Write"}


def demand(config: Mapping[str, Any], needed: Mapping[str, Iterable[AclOperation]]) -> None:
    """Raise `Refused` with every right that is missing. needed: rights by topic. config: librdkafka properties.

    Silent where the brokers do not say: what is missing then fails when it is needed.
    """
    lacking = missing(config, needed)
    if lacking:
        msg = (
            f"this user may not do all that is needed, the missing right is {', and '.join(lacking)}: grant it to this "
            "user (Kafka ACLs)"
        )
        raise Refused(msg)


def missing(config: Mapping[str, Any], needed: Mapping[str, Iterable[AclOperation]]) -> list[str]:
    """Name the rights that are missing, as `Read on the topic 'orders'`; none where the brokers do not say."""
    admin = clients.admin(config)  # whose answers end with it
    asked = admin.describe_topics(
        TopicCollection(list(needed)), include_authorized_operations=True, request_timeout=ANSWER_S
    )
    lacking = []
    for topic, answer in asked.items():
        try:
            granted = answer.result().authorized_operations
        except KafkaException as error:
            is_hidden = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
            granted = [AclOperation.UNKNOWN] if is_hidden else None
        if granted:  # else nobody says
            lacking += [f"{_NAMES[right]} on the topic {topic!r}" for right in needed[topic] if right not in granted]
    return lacking

"""librdkafka's clients, made so that a property it does not know is said in a sentence, and its log is ours."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from schemas.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("librdkafka")


def admin(config: Mapping[str, Any]) -> AdminClient:
    """Make an admin client; it connects when first asked. config: librdkafka properties (`BadSetting` if unusable)."""
    with _sentence():
        return AdminClient(dict(config), logger=log)


def producer(config: Mapping[str, Any]) -> Producer:
    """Make a producer, likewise."""
    with _sentence():
        return Producer(dict(config), logger=log)


def consumer(config: Mapping[str, Any]) -> Consumer:
    """Make a consumer, likewise."""
    with _sentence():
        return Consumer(dict(config), logger=log)


@contextmanager
def _sentence() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        msg = (
            f"a Kafka setting cannot be used: {error.args[0].str()}; see [kafka] and SKUTREND_KAFKA_... in the settings"
        )
        raise BadSetting(msg) from error

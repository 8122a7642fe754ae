"""Fixtures of the tests that run the service on Apache Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.service import new_group

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker


@pytest.fixture
def settings(kafka: KafkaBroker, topic_prefix: str) -> dict[str, Any]:
    """Settings of a quick group over two partitions, whose topics are there."""
    return new_group(kafka.bootstrap, topic_prefix, partitions=2, idle_timeout_ms=2_000, flush_interval_ms=100)

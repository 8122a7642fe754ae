"""Fixtures every test may use, a real Kafka for the session and names for each test; and how hard properties are tried.

HYPOTHESIS_PROFILE=quick (`make unit`) tries fewer examples of each property than `full`, which is the default.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import inference  # noqa: F401  # before any test imports onnxruntime: it keeps that from reporting to its maker
from streams.kafka.embedded import EmbeddedBroker
from tests.support.kafka_broker import KafkaBroker, require_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator


settings.register_profile("full")
settings.register_profile("quick", max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """One real broker for all tests of the session: use `topic_prefix`, and never stop this one."""
    require_kafka()
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Address of an embedded broker that the tests of a module share."""
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


@pytest.fixture
def topic_prefix() -> str:
    """Return a prefix for topics and groups that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}-"

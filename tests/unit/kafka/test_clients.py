"""How long the clients of Kafka wait for a broker that says nothing."""

from __future__ import annotations

import pytest

from streams.kafka import clients
from streams.kafka.output_producer import TRANSACTIONS


@pytest.mark.parametrize(("config", "expected_ms"), [({}, 15_000), ({"socket.timeout.ms": "4000"}, 4_000)])
def test_one_setting_says_it_for_all_clients(config: dict[str, str], expected_ms: int) -> None:
    assert clients.answer_ms(config) == expected_ms


def test_it_fits_into_a_transaction() -> None:
    clients.producer({"transactional.id": "t", **TRANSACTIONS})  # librdkafka refuses one that outlasts it

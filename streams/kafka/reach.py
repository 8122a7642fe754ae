"""Whether the worker's consumer, which has a client of its own, can connect to the brokers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError

from streams.config import security

if TYPE_CHECKING:
    from collections.abc import Mapping

ANSWER_MS: Final = 10_000


def consumer_trouble(brokers: str, client: Mapping[str, str]) -> list[str]:
    """Connect to each broker as the worker's consumer does; a sentence for every one that cannot be reached.

    brokers: `host:port`, comma-separated. client: librdkafka properties (`BadSetting` where TLS material is unusable).
    """
    arguments = security.aiokafka_arguments(client)
    quiet = logging.getLogger("aiokafka")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)  # the sentences say it
    try:
        return asyncio.run(_connect(brokers, arguments))
    finally:
        quiet.setLevel(level)


async def _connect(brokers: str, arguments: Mapping[str, object]) -> list[str]:
    troubles = []
    for host, port, _ in collect_hosts(brokers, randomize=False):
        try:
            connection = await create_conn(host, port, request_timeout_ms=ANSWER_MS, **arguments)
        except (OSError, KafkaError, TimeoutError) as error:
            troubles.append(
                f"the worker's consumer does not get through to {host}:{port} ({type(error).__name__}: {error}); see "
                "SKUTREND_BROKERS and the security settings (SKUTREND_KAFKA_...)"
            )
        else:
            await connection.close()
    return troubles

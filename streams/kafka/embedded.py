"""A pretended Kafka inside this process, for the demo and for quick tests: librdkafka's mock cluster.

It implements enough of the protocol for consumer groups, fetching and producing, also from other processes. But it is
not Kafka:

* a topic comes into being when somebody asks about it, with 4 partitions, and none can be created otherwise;
* about 5 MB per partition are kept, then the oldest go without a word: read while you write;
* it knows no topic settings, no retention, no transactions worth testing, no security;
* all is gone when the process ends.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaException, Producer

from schemas.errors import BrokerTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

log = logging.getLogger(__name__)

PARTITIONS: Final = 4  # librdkafka's choice
KEPT_BYTES: Final = 5 * 1024 * 1024  # per partition, librdkafka's choice
ANSWER_S: Final = 10.0


class EmbeddedBroker:
    """The mock cluster, from `with` to the end of `with`.

    >>> with EmbeddedBroker() as broker:
    ...     broker.make(["orders"])
    ...     broker.bootstrap.startswith("127.0.0.1:")
    True
    """

    def __init__(self) -> None:
        """Nothing runs before `with`."""
        self._owner: Producer | None = None
        self.bootstrap = ""

    def __enter__(self) -> Self:
        """Start it; `bootstrap` is its address from then on."""
        # the mock lives in a client of its own; nothing is sent through that one
        self._owner = Producer({"test.mock.num.brokers": 1, "log_level": 2}, logger=log)
        try:
            brokers = self._owner.list_topics(timeout=ANSWER_S).brokers
        except KafkaException as error:
            self._owner = None
            msg = f"the embedded broker does not answer: {error.args[0].str()}; use a real one (SKUTREND_BROKERS)"
            raise BrokerTrouble(msg) from error
        only = next(iter(brokers.values()))
        self.bootstrap = f"{only.host}:{only.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and with it everything it held."""
        self._owner = None
        self.bootstrap = ""

    def make(self, topics: Iterable[str]) -> None:
        """Create topics, by asking for their metadata."""
        if self._owner is None:
            msg = "the embedded broker is not running"
            raise BrokerTrouble(msg)
        for topic in topics:
            self._owner.list_topics(topic, timeout=ANSWER_S)

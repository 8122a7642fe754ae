"""Whether a topic is still the one it was: its id beside its name.

A topic that is deleted and made again keeps its name, and once it holds more records than our offsets nothing else
distinguishes it from the old one (KIP-516 gave topics ids for that). Offsets are stored with the ids of their topics;
both are compared when a partition is opened, after every assignment, and every `CHECK_S` while a worker runs.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, TopicCollection

from streams.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

log = logging.getLogger(__name__)
CHECK_S: Final = 30.0
FRESH_S: Final = 5.0
ANSWER_S: Final = 3.0
_NONE: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # 128 zeros: what brokers without topic ids say


class TopicIds:
    """Asks the brokers for the ids of some topics; may be asked from several threads at once."""

    def __init__(self, config: Mapping[str, Any], topics: Sequence[str]) -> None:
        """config: librdkafka properties; it connects when first asked."""
        self._config, self._topics = config, list(topics)
        self._lock = threading.Lock()
        self._admin: clients.Admin | None = None
        self._asked_s = float("-inf")
        self._found: dict[str, str] = {}

    def ask(self, *, fresh: bool = True) -> dict[str, str]:
        """Give the id of each topic; without those that are not there, or of which no broker says one just now.

        fresh: else an answer of the last `FRESH_S` will do. Takes at most twice `ANSWER_S`; raises nothing but
        `LoginRefused` and `BadSetting`.
        """
        with self._lock:
            if fresh or time.monotonic() - self._asked_s > FRESH_S:
                self._found = self._ask()
                self._asked_s = time.monotonic()
            return dict(self._found)

    def _ask(self) -> dict[str, str]:
        if self._admin is None:
            self._admin = clients.admin(self._config)
        try:
            cluster = self._admin.list_topics(self._topics[0], timeout=ANSWER_S)
            # the embedded broker has no controller, for which the question below would wait in vain
            if cluster.controller_id not in cluster.brokers:
                return {}
            asked = self._admin.describe_topics(TopicCollection(self._topics), request_timeout=ANSWER_S)
        except KafkaException as error:
            log.info("the ids of the topics are not known just now: %s", error.args[0].str())
            return {}
        found = {}
        for topic, future in asked.items():
            try:
                topic_id = str(future.result().topic_id)
            except KafkaException as error:
                log.info("the id of topic %s is not known just now: %s", topic, error.args[0].str())
            else:
                if topic_id != _NONE:
                    found[topic] = topic_id
        return found

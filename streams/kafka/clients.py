"""librdkafka's clients, made so that a property it does not know is said in a sentence, and its log is ours."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from schemas.errors import BadSetting, LoginRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka.admin import ClusterMetadata

log = logging.getLogger("librdkafka")
_unheard = logging.getLogger("librdkafka.admin")  # what an admin client logs, its error says once more
_unheard.addHandler(logging.NullHandler())
_unheard.propagate = False


# A machine that is lost closes no connection: whoever asks it waits so long, and then asks the others who leads now.
# More than a quota makes a client wait (11 s), less than the 40 and 60 s that aiokafka and librdkafka would wait.
ANSWER_MS: Final = 15_000
_REFUSED: Final = frozenset({
    KafkaError._AUTHENTICATION,  # noqa: SLF001  # librdkafka's own code has no other name
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
})  # fmt: skip
_PATIENCE: Final = {"socket.timeout.ms": ANSWER_MS}
_REFUSAL_S: Final = 2.0  # by then a refusal is known, and need not be waited for


def answer_ms(config: Mapping[str, Any]) -> int:
    """How long a broker may take to answer. config: librdkafka properties, whose `socket.timeout.ms` says it."""
    return int(config.get("socket.timeout.ms", ANSWER_MS))


class Admin(AdminClient):  # type: ignore[misc]  # confluent_kafka has no types
    """An admin client that says so when the brokers do not let it in, which librdkafka only tells on the side."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: librdkafka properties."""
        self._config = config
        self._refusal = ""
        super().__init__({**_PATIENCE, **config, "error_cb": self._told}, logger=_unheard)

    def _told(self, error: KafkaError) -> None:
        if error.code() in _REFUSED:
            self._refusal = error.str()

    def list_topics(self, topic: str | None = None, timeout: float = 30.0) -> ClusterMetadata:
        """Ask for the topics; `LoginRefused` where the brokers refuse the login, in which repeating will not help."""
        first_s = min(_REFUSAL_S, timeout)
        try:
            return self._list(topic, first_s)
        except KafkaException:
            if first_s == timeout:
                raise
        return self._list(topic, timeout - first_s)

    def _list(self, topic: str | None, timeout_s: float) -> ClusterMetadata:
        where = () if topic is None else (topic,)
        try:
            return super().list_topics(*where, timeout=timeout_s)
        except KafkaException as error:
            self.poll(0)
            if not self._refusal:
                raise
            msg = (
                f"the brokers at {self._config.get('bootstrap.servers')} refused authentication ({self._refusal}): see "
                "SKUTREND_KAFKA_SECURITY_PROTOCOL, SKUTREND_KAFKA_SASL_MECHANISM, SKUTREND_KAFKA_SASL_USERNAME and "
                "SKUTREND_KAFKA_SASL_PASSWORD"
            )
            raise LoginRefused(msg) from error


def admin(config: Mapping[str, Any]) -> Admin:
    """Make an admin client; it connects when first asked. config: librdkafka properties (`BadSetting` if unusable)."""
    with _sentence():
        return Admin(config)


def producer(config: Mapping[str, Any]) -> Producer:
    """Make a producer, likewise."""
    with _sentence():
        return Producer({**_PATIENCE, **config}, logger=log)


def consumer(config: Mapping[str, Any]) -> Consumer:
    """Make a consumer, likewise."""
    with _sentence():
        return Consumer({**_PATIENCE, **config}, logger=log)


@contextmanager
def _sentence() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        msg = (
            f"a Kafka setting cannot be used: {error.args[0].str()}; see [kafka] and SKUTREND_KAFKA_... in the settings"
        )
        raise BadSetting(msg) from error

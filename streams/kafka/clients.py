"""librdkafka's clients, made so that an unusable property names its setting, and its log goes to ours."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from schemas.errors import BadSetting, LoginRefused
from streams.kafka import broker_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka.admin import ClusterMetadata

log = logging.getLogger("librdkafka")
_muted = logging.getLogger("librdkafka.admin")  # an admin client logs what its errors say as well
_muted.addHandler(logging.NullHandler())
_muted.propagate = False


# A lost machine closes no connection: a client waits so long for its answer, then asks other brokers for the leader.
# More than a quota makes a client wait (11 s), less than the 40 and 60 s that aiokafka and librdkafka would wait.
ANSWER_MS: Final = 15_000
_TIMEOUTS: Final = {"socket.timeout.ms": ANSWER_MS}
_REFUSAL_S: Final = 2.0  # a refusal is known by then, and the full timeout need not be waited for


_NAMED: Final = re.compile(r'property:? "([^"]+)"')


def answer_ms(config: Mapping[str, Any]) -> int:
    """How long a broker may take to answer. config: librdkafka properties, whose `socket.timeout.ms` says it.

    `BadSetting` where that is no number.
    """
    given = config.get("socket.timeout.ms", ANSWER_MS)
    try:
        return int(given)
    except ValueError as error:
        msg = f"{variable('socket.timeout.ms')} is {given!r}: expected a number of milliseconds"
        raise BadSetting(msg) from error


def variable(name: str) -> str:
    """Name the variable of the environment that sets a librdkafka property.

    >>> variable("sasl.username")
    'SKUTREND_KAFKA_SASL_USERNAME'
    """
    return f"SKUTREND_KAFKA_{name.upper().replace('.', '_')}"


class Admin(AdminClient):  # type: ignore[misc]  # confluent_kafka has no types
    """An admin client that raises when authentication is refused, which librdkafka only reports to a callback."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """config: librdkafka properties."""
        self._config = config
        self._refusal = ""
        super().__init__({**_TIMEOUTS, **config, "error_cb": self._reported}, logger=_muted)

    def _reported(self, error: KafkaError) -> None:
        if error.code() in broker_errors.LOGIN:
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
    with setting_named(config, Producer):
        return Admin(config)


def producer(config: Mapping[str, Any]) -> Producer:
    """Make a producer, likewise."""
    with setting_named(config, Producer):
        return Producer({**_TIMEOUTS, **config}, logger=log)


def consumer(config: Mapping[str, Any]) -> Consumer:
    """Make a consumer, likewise."""
    with setting_named(config, Consumer):
        return Consumer({**_TIMEOUTS, **config}, logger=log)


@contextmanager
def setting_named(config: Mapping[str, Any], kind: type[Producer | Consumer]) -> Iterator[None]:
    """Name the setting that librdkafka cannot use, by the variable that an operator would look for."""
    try:
        yield
    except KafkaException as error:
        reason = str(error.args[0].str()).strip()
        name = _culprit(config, kind, reason)
        if name is None:
            msg = f"a Kafka setting cannot be used: {reason}; see [kafka] and SKUTREND_KAFKA_... in the settings"
        else:
            what = "which is no property of librdkafka" if reason.startswith("No such") else f"unusable: {reason}"
            msg = (
                f"{variable(name)} (or [kafka] in the settings file) sets the Kafka property {name!r}, {what}; correct "
                "it or take it out"
            )
        raise BadSetting(msg) from error


def _culprit(config: Mapping[str, Any], kind: type[Producer | Consumer], reason: str) -> str | None:
    """Find which of these properties librdkafka complains of; it may name another, of which ours is an alias."""
    found = _NAMED.search(reason)
    if found is None or found[1] in config:
        return None if found is None else found[1]
    own = {"group.id": "-"} if kind is Consumer else {}
    for name, value in config.items():
        if isinstance(value, str):
            try:
                kind({**own, name: value}, logger=_muted)
            except KafkaException as error:
                if found[1] in str(error.args[0].str()):
                    return name
    return None

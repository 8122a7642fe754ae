"""Why this worker's consumer can never go on as it is: all that aiokafka knows of, as errors that name the remedy.

There are three sources: answers to requests of the group's coordinator (streams/kafka/membership.py), errors that
aiokafka keeps to itself (`of_consumer`), and errors of a fetch (`of_error`). All of them, and an assignment that says
that the group reads other topics, end the app in one way: `BatchThread.refuse`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiokafka.errors import BrokerResponseError, KafkaError, TopicAuthorizationFailedError

from schemas.errors import Broken, BrokerTrouble, Refused
from streams.kafka import broker_errors
from streams.kafka.broker_errors import Attempt, ErrorClass

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)


def of_error(error: KafkaError, *, group: str) -> Refused | None:
    """Translate an error of aiokafka that does not pass with time; None for all others."""
    if not isinstance(error, BrokerResponseError) or broker_errors.classify(error.errno) is not ErrorClass.REFUSED:
        return None
    topic = ", ".join(map(str, error.args)) if isinstance(error, TopicAuthorizationFailedError) else ""
    remedy = Attempt("Read", topic=topic, group=group).remedy(error.errno)
    return Refused(f"the brokers refuse what the worker's consumer needs, {type(error).__name__}: {remedy}")


def of_consumer(consumer: Any) -> Broken | None:  # noqa: ANN401 - aiokafka has no types
    """Give what makes it impossible for an aiokafka consumer to go on; what passes is logged.

    Reads aiokafka's private state, to be called in the consumer's thread.
    """
    coordinator, group = consumer._coordinator, consumer._group_id  # noqa: SLF001  # not public in aiokafka
    unseen = consumer._client.cluster.unauthorized_topics & consumer.subscription()  # noqa: SLF001
    if unseen:
        return of_error(TopicAuthorizationFailedError(*sorted(unseen)), group=group)
    try:
        if coordinator is not None:
            coordinator.check_errors()
    except KafkaError as error:
        refused = of_error(error, group=group)
        if refused is not None:
            return refused
        if coordinator._coordination_task.done():  # noqa: SLF001
            return BrokerTrouble(f"the group's coordination has ended in an error: {error}; start the worker again")
        log.warning("the group's coordinator could not be used, trying again: %s", error)
    return None


def other_topics(read: Iterable[str], *, group: str) -> Refused:
    """Make the error of a worker whose group reads other topics. read: those."""
    return Refused(
        f"the workers of group {group} read {', '.join(read)}, which are not this worker's: give it a "
        "SKUTREND_GROUP of its own, or the same SKUTREND_TOPIC_PREFIX"
    )

"""Rights on topics, as brokers tell them."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from schemas.errors import Refused
from streams.commands import serve
from streams.kafka import clients, rights
from streams.kafka.embedded import EmbeddedBroker
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDED = {"orders": (rights.READ,), "changelog": (rights.READ, rights.WRITE)}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let brokers answer with these operations, or an error code, by topic."""

    def brokers(**answers: list[AclOperation] | int | None) -> None:
        def describe(*_: object, **how: Any) -> dict[str, Future[Any]]:  # noqa: ANN401  # whatever is asked
            assert how["include_authorized_operations"]
            told: dict[str, Future[Any]] = {}
            for topic, answer in answers.items():
                told[topic] = Future()
                if isinstance(answer, int):
                    told[topic].set_exception(KafkaException(KafkaError(answer)))
                else:
                    told[topic].set_result(SimpleNamespace(authorized_operations=answer))
            return told

        monkeypatch.setattr(clients, "admin", lambda _: SimpleNamespace(describe_topics=describe))

    return brokers


def test_all_that_is_missing_is_named_at_once(say: Callable[..., None]) -> None:
    say(orders=[AclOperation.DESCRIBE], changelog=[AclOperation.DESCRIBE, AclOperation.WRITE])
    with pytest.raises(Refused, match=r"Read on the topic 'orders', and Read on the topic 'changelog': grant it"):
        rights.demand({}, NEEDED)


def test_a_topic_that_may_not_even_be_seen_lacks_every_right(say: Callable[..., None]) -> None:
    say(orders=[rights.READ], changelog=KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert rights.missing({}, NEEDED) == ["Read on the topic 'changelog'", "Write on the topic 'changelog'"]


@pytest.mark.parametrize("unknown", [None, [], KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNSUPPORTED_VERSION])
def test_brokers_that_do_not_say_are_no_reason_to_stop(
    say: Callable[..., None], unknown: list[AclOperation] | int | None
) -> None:
    say(orders=unknown, changelog=[rights.READ, rights.WRITE])
    rights.demand({}, NEEDED)


@pytest.mark.slow
def test_a_broker_without_rights_does_not_hold_a_worker_up() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(brokers=broker.bootstrap, kafka={"log_level": "0"})
        rights.demand(settings.client, serve.needed_rights(settings))


def test_a_worker_needs_no_changelog_where_it_keeps_none() -> None:
    with_one, without = Settings(), Settings(changelog="off", guarantee="at_least_once")
    assert serve.needed_rights(with_one)[with_one.changelog_topic] == (rights.READ, rights.WRITE)
    assert without.changelog_topic not in serve.needed_rights(without)

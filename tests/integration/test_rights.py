"""What a worker may do at the least, and how it ends without one of these rights, on a Kafka that asks for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.integration.test_trouble import DAY_MS, FIRST_MS, expected, fails, lines, told
from tests.support.kafka_broker import KafkaBroker, Right, make_certificate, require_kafka
from tests.support.service import Service, skutrend
from tests.support.shop import send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kafka

USER: Final = "worker"
ACCOUNT: Final = {
    "kafka_security_protocol": "SASL_PLAINTEXT",
    "kafka_sasl_mechanism": "PLAIN",
    "kafka_sasl_username": USER,
    "kafka_sasl_password": "secret",
}
INPUTS: Final = ("orders", "clicks", "price-changes")
OUTPUTS: Final = ("windows", "forecasts", "alerts", "late-events", "dead-letters")


def least_rights(settings: dict[str, Any]) -> dict[str, Right]:
    """Rights of a worker, by a name for each; `create` only until the changelog topic is there."""
    prefix, group = settings["topic_prefix"], settings["group"]
    group_id = f"{prefix}{group}"
    changelog = f"{prefix}skutrend-{group}-changelog"
    topic = ResourceType.TOPIC
    return {
        **{f"read {name}": Right(AclOperation.READ, topic, prefix + name) for name in INPUTS},
        **{f"write {name}": Right(AclOperation.WRITE, topic, prefix + name) for name in OUTPUTS},
        "read changelog": Right(AclOperation.READ, topic, changelog),
        "write changelog": Right(AclOperation.WRITE, topic, changelog),
        "create changelog": Right(AclOperation.CREATE, topic, changelog),
        "read group": Right(AclOperation.READ, ResourceType.GROUP, group_id),
        "write ids": Right(AclOperation.WRITE, ResourceType.TRANSACTIONAL_ID, f"{prefix}{group}-", is_prefix=True),
    }


@pytest.fixture(scope="module")
def asking() -> Iterator[KafkaBroker]:
    """A node that gives its user no rights but those that are granted."""
    require_kafka()
    with KafkaBroker(users={USER: "secret"}, is_authorizing=True) as broker:
        yield broker


@pytest.fixture
def shop(asking: KafkaBroker, topic_prefix: str) -> dict[str, Any]:
    """Settings of a worker whose topics, but for the changelog, an administrator has made."""
    settings = {
        "brokers": asking.guarded,
        "group": f"{topic_prefix}g",
        "topic_prefix": topic_prefix,
        "bundle": "none",
        "idle_timeout_ms": 2_000,
        "flush_interval_ms": 100,
        **ACCOUNT,
    }
    admin = {"brokers": asking.bootstrap, "topic_prefix": topic_prefix}
    skutrend("topics", "create", "--partitions", "2", settings=admin)
    send(asking, topic_prefix, lines(range(3)))
    return settings


def test_these_rights_are_enough(asking: KafkaBroker, shop: dict[str, Any], tmp_path: Path) -> None:
    asking.grant(USER, *least_rights(shop).values())
    with Service(shop, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 3 * DAY_MS, partitions=2)
        service.stop("w")
    assert told(asking, shop["topic_prefix"]) == expected(range(3))


@pytest.mark.parametrize(
    ("missing", "right"),
    [
        ("write ids", "Write on the transactional id '{prefix}{group}-"),
        ("write windows", "Write on the topic '{prefix}windows'"),
        ("read group", "Read on the group '{prefix}{group}'"),
        ("read orders", "Read on the topic '{prefix}orders'"),
        ("read changelog", "Read on the topic '{prefix}skutrend-{group}-changelog'"),
        ("write changelog", "Write on the topic '{prefix}skutrend-{group}-changelog'"),
        ("create changelog", "Create on the topic '{prefix}skutrend-{group}-changelog'"),
    ],
)
def test_a_worker_that_lacks_a_right_ends_at_once_and_names_it(
    asking: KafkaBroker, shop: dict[str, Any], tmp_path: Path, missing: str, right: str
) -> None:
    rights = least_rights(shop)
    lacked = rights.pop(missing)
    asking.grant(USER, *rights.values())
    if missing == "read orders":  # seen, but not read: the consumer is the one that hears of it
        asking.grant(USER, lacked._replace(operation=AclOperation.DESCRIBE))
    began_s = time.monotonic()
    sentence = fails(shop, tmp_path)
    assert time.monotonic() - began_s < 15
    assert right.format(prefix=shop["topic_prefix"], group=shop["group"]) in sentence
    assert "the missing right is " in sentence


def test_an_input_that_may_not_even_be_seen_is_no_missing_topic(
    asking: KafkaBroker, shop: dict[str, Any], tmp_path: Path
) -> None:
    rights = least_rights(shop)
    rights.pop("read clicks")
    asking.grant(USER, *rights.values())
    began_s = time.monotonic()
    assert f"Read on the topic '{shop['topic_prefix']}clicks'" in fails(shop, tmp_path)
    assert time.monotonic() - began_s < 15


def test_a_right_that_is_taken_away_ends_the_worker_that_runs(
    asking: KafkaBroker, shop: dict[str, Any], tmp_path: Path
) -> None:
    rights = least_rights(shop)
    asking.grant(USER, *rights.values())
    with Service(shop, tmp_path) as service:
        service.start("w")
        service.await_closed(FIRST_MS + 3 * DAY_MS, partitions=2)
        asking.revoke(USER, rights["read group"])
        process = service.processes.pop("w")
        assert process.wait(timeout=15) == 1, service.log("w")
        (sentence,) = [line for line in service.log("w").splitlines() if line.startswith("skutrend: ")]
        assert f"Read on the group '{shop['topic_prefix']}{shop['group']}'" in sentence


def test_tls_given_as_text_lets_both_clients_in(topic_prefix: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with KafkaBroker(users={USER: "secret"}, certificate=certificate) as broker:
        settings = {
            "brokers": f"SASL_SSL://{broker.guarded}",
            "group": f"{topic_prefix}g",
            "bundle": "none",
            "idle_timeout_ms": 2_000,
            "flush_interval_ms": 100,
            **ACCOUNT,
            "kafka_security_protocol": "sasl_ssl",
            "kafka_ssl_ca_pem": (tmp_path / "ca.pem").read_text(),
        }
        skutrend("topics", "create", "--partitions", "2", settings=settings)
        skutrend("topics", "check", settings=settings)
        with Service(settings, tmp_path) as service:
            service.start("w")
            send(broker, "", lines(range(3)))
            service.await_closed(FIRST_MS + 3 * DAY_MS, partitions=2)
            service.stop("w")
        assert told(broker, "") == expected(range(3))

"""Addresses of brokers: what one client would read otherwise than the other."""

from __future__ import annotations

import pytest
from aiokafka.conn import collect_hosts
from faust.transport.drivers.aiokafka import server_list
from yarl import URL

from schemas.errors import BadSetting
from streams.addresses import normalised
from streams.kafka import transport


@pytest.mark.parametrize(
    ("given", "protocol", "expected"),
    [
        ("host:9092", "PLAINTEXT", "host:9092"),
        ("PLAINTEXT://host:9093", "PLAINTEXT", "host:9093"),
        ("plaintext://host", "plaintext", "host:9092"),
        ("SASL_SSL://one:9093,SASL_SSL://two:9094", "sasl_ssl", "one:9093,two:9094"),
        (" one:9093 , two:9094 ,", "PLAINTEXT", "one:9093,two:9094"),
        (",,one,", "SSL", "one:9092"),
        ("[::1]:9093,[fe80::1]", "PLAINTEXT", "[::1]:9093,[fe80::1]:9092"),
        ("SSL://[::1]:9093", "SSL", "[::1]:9093"),
        ("10.0.0.1:9093,kafka-0.kafka.svc", "PLAINTEXT", "10.0.0.1:9093,kafka-0.kafka.svc:9092"),
    ],
)
def test_one_spelling_comes_out_that_both_clients_read_alike(given: str, protocol: str, expected: str) -> None:
    found = normalised(given, protocol=protocol)
    assert found == expected
    assert normalised(found, protocol=protocol) == found
    servers = server_list([URL(f"{transport.SCHEME}://{broker}") for broker in found.split(",")], 9092)
    hosts = [(f"[{host}]" if ":" in host else host, port) for host, port, _ in collect_hosts(servers, randomize=False)]
    assert [f"{host}:{port}" for host, port in hosts] == expected.split(",")


@pytest.mark.parametrize(
    ("given", "protocol", "told"),
    [
        ("SASL_SSL://host:9092", "PLAINTEXT", r"'SASL_SSL://host:9092', but the security protocol is PLAINTEXT"),
        ("PLAINTEXT://host:9092", "SASL_SSL", r"the security protocol is SASL_SSL: .*SKUTREND_KAFKA_SECURITY_PROTOCOL"),
        ("kafka://host:9092", "PLAINTEXT", r"'kafka://host:9092'"),
        ("one:9092,SSL://two:9092", "PLAINTEXT", r"has 'SSL://two:9092'"),
        ("one:9092 two:9092", "PLAINTEXT", r"'one:9092 two:9092': '9092 two:9092' is no port"),
        ("::1", "PLAINTEXT", r"'::1', which is no address: .*in brackets"),
        ("::1:9092", "PLAINTEXT", r"in brackets"),
        ("[host]:9092", "PLAINTEXT", r"'host' is no IPv6 address"),
        ("[::1", "PLAINTEXT", r"'\[::1'"),
        ("host:", "PLAINTEXT", r"'' is no port"),
        ("host:0", "PLAINTEXT", r"'0' is no port"),
        ("host:65536", "PLAINTEXT", r"'65536' is no port"),
        ("host:9092/topic", "PLAINTEXT", r"'9092/topic' is no port"),
        ("host/topic", "PLAINTEXT", r"'host/topic', which is no address"),
        (":9092", "PLAINTEXT", r"':9092', which is no address"),
        (" , ,", "PLAINTEXT", r"names no broker"),
    ],
)
def test_what_is_no_address_is_named(given: str, protocol: str, told: str) -> None:
    with pytest.raises(BadSetting, match=rf"^SKUTREND_BROKERS .*{told}"):
        normalised(given, protocol=protocol)

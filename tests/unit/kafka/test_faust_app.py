from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import faust
import pytest
from faust.types.auth import AuthProtocol, SASLMechanism
from mode.supervisors import CrashingSupervisor

from schemas.errors import BadSetting
from streams.kafka import transport
from streams.kafka.faust_app import batch_topic, build_app, credentials

if TYPE_CHECKING:
    from pathlib import Path

SASL = {"sasl.mechanism": "plain", "sasl.username": "u", "sasl.password": "p"}


def app_of(tmp_path: Path, **changes: Any) -> faust.App:  # noqa: ANN401 - any argument
    arguments: dict[str, Any] = {"group": "g", "brokers": ["b1:9092", "b2:9093"], "client": {}, "datadir": tmp_path}
    return build_app(**(arguments | changes))


def test_batches_and_an_own_assignor_need_these_settings(tmp_path: Path) -> None:
    conf = app_of(tmp_path).conf
    assert conf.broker_max_poll_records is None, "it would count batches"
    assert conf.table_standby_replicas == 0
    assert conf.topic_disable_leader, "Faust would join a topic of its own"
    assert not conf.topic_allow_declare
    assert conf.stream_wait_empty, "agents finish before partitions go"
    assert conf.consumer_auto_offset_reset == "earliest"
    assert conf.agent_supervisor is CrashingSupervisor
    assert not conf.web_enabled
    assert not conf.worker_redirect_stdouts
    assert not conf.autodiscover


def test_every_broker_is_reached_through_the_batch_transport(tmp_path: Path) -> None:
    app = app_of(tmp_path)
    assert [(url.scheme, url.host, url.port) for url in app.conf.broker] == [
        ("kbatch", "b1", 9092),
        ("kbatch", "b2", 9093),
    ]
    assert isinstance(app.transport, transport.BatchTransport)
    assert app.conf.broker_credentials is None


@pytest.mark.parametrize(("session_ms", "session_s", "heartbeat_s", "request_s"), [
    (6_000, 6, 1.2, 40),
    (10_000, 10, 2, 40),
    (60_000, 60, 3, 60),
])  # fmt: skip
def test_the_session_sets_the_pace_of_heartbeats_and_never_outlasts_a_request(
    tmp_path: Path, session_ms: int, session_s: float, heartbeat_s: float, request_s: float
) -> None:
    conf = app_of(tmp_path, session_timeout_ms=session_ms).conf
    assert conf.broker_session_timeout == session_s
    assert conf.broker_heartbeat_interval == pytest.approx(heartbeat_s)
    assert conf.broker_request_timeout == request_s, "Faust refuses to start with a session longer than a request"
    assert conf.broker_max_poll_interval > 3_600


def test_a_topic_of_batches_decodes_nothing(tmp_path: Path) -> None:
    topic = batch_topic(app_of(tmp_path), "orders")
    assert list(topic.topics) == ["orders"]
    assert (topic.key_serializer, topic.value_serializer) == ("raw", "raw")


@pytest.mark.parametrize("client", [{}, {"security.protocol": "plaintext"}, {"linger.ms": "5"}])
def test_a_plaintext_connection_needs_no_credentials(client: dict[str, str]) -> None:
    assert credentials(client) is None


def test_tls_alone_checks_the_broker_s_name_and_certificate() -> None:
    found = credentials({"security.protocol": "ssl"})
    assert isinstance(found, faust.SSLCredentials)
    assert found.context.check_hostname
    assert found.context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "scram-sha-512"])
def test_sasl_is_handed_over_with_its_name_and_password(name: str, mechanism: str) -> None:
    client = {"security.protocol": "sasl_plaintext", name: mechanism, "sasl.username": "u", "sasl.password": "p"}
    found = credentials(client)
    assert isinstance(found, faust.SASLCredentials)
    assert (found.username, found.password) == ("u", "p")
    assert found.mechanism == SASLMechanism(mechanism.upper())
    assert found.protocol == AuthProtocol.SASL_PLAINTEXT
    assert found.ssl_context is None


def test_sasl_over_tls_has_both() -> None:
    found = credentials({"security.protocol": "SASL_SSL", **SASL})
    assert isinstance(found, faust.SASLCredentials)
    assert found.protocol == AuthProtocol.SASL_SSL
    assert found.ssl_context.verify_mode == ssl.CERT_REQUIRED


def test_checks_are_switched_off_only_where_the_operator_says_so() -> None:
    named = credentials({"security.protocol": "ssl", "ssl.endpoint.identification.algorithm": "none"})
    assert (named.context.check_hostname, named.context.verify_mode) == (False, ssl.CERT_REQUIRED)
    unchecked = credentials({"security.protocol": "ssl", "enable.ssl.certificate.verification": "False"})
    assert (unchecked.context.check_hostname, unchecked.context.verify_mode) == (False, ssl.CERT_NONE)


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ({"security.protocol": "tls"}, r"security\.protocol is 'TLS'; known are PLAINTEXT, SSL"),
        ({"security.protocol": "FOO_SSL"}, r"security\.protocol is 'FOO_SSL'"),
        ({"security.protocol": "sasl_ssl"}, r"sasl\.mechanism is ''; the worker's consumer knows PLAIN, SCRAM"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "GSSAPI"}, r"sasl\.mechanism is 'GSSAPI'"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"}, r"ssl\.ca\.location.*No such file"),
        ({"security.protocol": "ssl", "ssl.ca.location": __file__}, r"ssl\.ca\.location cannot be used"),
        ({"security.protocol": "ssl", "ssl.certificate.location": "/nowhere"}, r"ssl\.certificate\.location"),
    ],
)
def test_what_the_consumer_cannot_do_is_a_bad_setting(client: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        credentials(client)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_client_certificate_is_loaded_with_its_key_and_password(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=t", "-passout", "pass:secret"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)  # noqa: S603
    client = {
        "security.protocol": "ssl",
        "ssl.ca.location": str(certificate),
        "ssl.certificate.location": str(certificate),
        "ssl.key.location": str(key),
        "ssl.key.password": "secret",
    }
    assert len(credentials(client).context.get_ca_certs()) == 1
    with pytest.raises(BadSetting, match=r"ssl\.key\.location"):
        credentials(client | {"ssl.key.password": "wrong"})


@pytest.mark.slow
def test_a_crash_is_raised_from_the_run_and_leaves_no_event_loop_behind(tmp_path: Path) -> None:
    """In a process of its own: Faust takes the signals and the main thread."""
    code = """
import sys
from pathlib import Path
from schemas.errors import BrokerTrouble
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.faust_app import batch_topic, build_app, run
with EmbeddedBroker() as broker:
    app = build_app(group="g", brokers=[broker.bootstrap], client={}, datadir=Path(sys.argv[1]))
    @app.agent(batch_topic(app, "orders"))
    async def orders(batches):
        async for batch in batches:
            pass
    @app.task
    async def fall():
        await app.crash(BrokerTrouble("the floor is wet"))
    try:
        run(app)
    except BrokerTrouble as error:
        print("told:", error)
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "told: the floor is wet\n"

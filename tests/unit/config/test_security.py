"""TLS and SASL for both clients: every property of librdkafka is translated for aiokafka, or refused by its name."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from schemas.errors import BadSetting
from streams import settings
from streams.config import security
from streams.kafka.reach import consumer_trouble

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
TLS = {"security.protocol": "ssl"}
SASL = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607  # our own


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and ca.key; client.pem with client.key (password: secret) and plain.key, the same without one."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "rsa:2048", "-days", "2")
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(folder, "req", "-x509", *new, "-nodes", "-subj", "/CN=ca", *names, "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, "req", "-x509", *new, "-passout", "pass:secret", "-subj", "/CN=c", "-keyout", "client.key",
            "-out", "client.pem")  # fmt: skip
    openssl(folder, "rsa", "-in", "client.key", "-passin", "pass:secret", "-out", "plain.key")
    return folder


def context(client: dict[str, str]) -> ssl.SSLContext:
    found: ssl.SSLContext = security.aiokafka_arguments({**TLS, **client})["ssl_context"]
    return found


# ---------------------------------------------------------------------- translated
@needs_openssl
@pytest.mark.parametrize("given", ["location", "directory", "pem"])
def test_a_certificate_authority_may_be_a_file_a_directory_or_text(made: Path, given: str) -> None:
    client = {
        "location": {"ssl.ca.location": str(made / "ca.pem")},
        "directory": {"ssl.ca.location": str(made)},
        "pem": {"ssl.ca.pem": (made / "ca.pem").read_text()},
    }[given]
    found = context(client)
    assert (found.verify_mode, found.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(found.get_ca_certs()) == (0 if given == "directory" else 1), "and nobody else is trusted"


def test_without_one_the_machine_s_own_are_trusted_also_in_librdkafka_s_word() -> None:
    assert context({}).get_ca_certs() == context({"ssl.ca.location": "probe"}).get_ca_certs()
    assert context({}).verify_mode == ssl.CERT_REQUIRED


@needs_openssl
@pytest.mark.parametrize("key", ["client.key", "plain.key"])
@pytest.mark.parametrize("form", ["location", "pem"])
def test_a_client_s_certificate_may_be_text_whose_files_are_private_and_gone_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, form: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def watched(self: ssl.SSLContext, certfile: str, **how: str) -> None:
        modes.extend(path.stat().st_mode & 0o777 for path in tmp_path.iterdir())
        load(self, certfile, **how)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    as_given = str if form == "location" else Path.read_text
    client = {
        f"ssl.certificate.{form}": as_given(made / "client.pem"),
        f"ssl.key.{form}": as_given(made / key),
        "ssl.key.password": "secret",
    }
    context(client)
    assert modes == ([] if form == "location" else [0o600, 0o600])
    assert list(tmp_path.iterdir()) == []


@needs_openssl
@pytest.mark.parametrize("password", [{}, {"ssl.key.password": "wrong"}])
def test_a_key_without_its_password_is_reported_and_nobody_is_asked_for_it(
    made: Path, password: dict[str, str]
) -> None:
    pem = {"ssl.certificate.pem": (made / "client.pem").read_text(), "ssl.key.pem": (made / "client.key").read_text()}
    with pytest.raises(BadSetting, match=r"ssl\.certificate\.pem or ssl\.key\.pem cannot be used"):
        context({**pem, **password})


@needs_openssl
def test_a_revocation_list_is_heeded(made: Path, tmp_path: Path) -> None:
    (tmp_path / "index.txt").touch()
    (tmp_path / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={tmp_path}/index.txt\ndefault_md=sha256\ndefault_crl_days=2\n"
    )
    openssl(made, "ca", "-config", str(tmp_path / "ca.cnf"), "-gencrl", "-keyfile", "ca.key", "-cert", "ca.pem",
            "-out", str(tmp_path / "crl.pem"))  # fmt: skip
    found = context({"ssl.ca.location": str(made / "ca.pem"), "ssl.crl.location": str(tmp_path / "crl.pem")})
    assert found.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert found.cert_store_stats()["crl"] == 1


def test_cipher_suites_are_those_that_are_asked_for() -> None:
    found = context({"ssl.cipher.suites": "ECDHE-RSA-AES256-GCM-SHA384"})
    older = {cipher["name"] for cipher in found.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert older == {"ECDHE-RSA-AES256-GCM-SHA384"}


@pytest.mark.parametrize("value", ["false", "False", "f", "0"])
def test_verification_is_off_in_every_spelling_that_librdkafka_knows(value: str) -> None:
    found = context({"enable.ssl.certificate.verification": value})
    assert (found.check_hostname, found.verify_mode) == (False, ssl.CERT_NONE)


@pytest.mark.parametrize("value", ["true", "T", "1"])
def test_and_on_likewise(value: str) -> None:
    assert context({"enable.ssl.certificate.verification": value}).verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(("value", "is_checked"), [("https", True), ("HTTPS", True), ("none", False)])
def test_the_name_of_a_broker_is_checked_unless_told_otherwise(value: str, *, is_checked: bool) -> None:
    found = context({"ssl.endpoint.identification.algorithm": value})
    assert (found.check_hostname, found.verify_mode) == (is_checked, ssl.CERT_REQUIRED)


@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_a_mechanism_has_one_spelling_for_both_clients(name: str) -> None:
    given = {**{key: value for key, value in SASL.items() if key != "sasl.mechanism"}, name: "scram-sha-256"}
    loaded = settings.load(environment={}, kafka=given)
    assert loaded.kafka == {**SASL, "sasl.mechanism": "SCRAM-SHA-256"}
    assert security.aiokafka_arguments(given) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }


def test_what_is_not_about_security_is_left_alone() -> None:
    client = {"linger.ms": "5", "socket.timeout.ms": "1000"}
    assert security.normalised(client) == client
    assert security.aiokafka_arguments(client) == {"security_protocol": "PLAINTEXT"}


# ---------------------------------------------------------------------- refused by name
@pytest.mark.parametrize(
    "name",
    [
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.truststore.location",
        "ssl.curves.list",
        "ssl.sigalgs.list",
        "ssl.ca.certificate.stores",
        "ssl.engine.location",
        "ssl.engine.id",
        "ssl.providers",
        "ssl_key",
        "ssl_certificate",
        "ssl_ca",
        "sasl.kerberos.service.name",
        "sasl.kerberos.principal",
        "sasl.kerberos.keytab",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.token.endpoint.url",
        "enable.sasl.oauthbearer.unsecure.jwt",
        "https.ca.location",
        "https.ca.pem",
    ],
)
def test_what_the_consumer_would_ignore_is_refused_by_every_command(name: str) -> None:
    with pytest.raises(BadSetting, match=rf"^{name} \(SKUTREND_KAFKA_.*cannot be honoured by the worker's consumer"):
        settings.load(environment={}, kafka={name: "x"})


@pytest.mark.parametrize("name", ["bootstrap.servers", "metadata.broker.list"])
def test_brokers_for_one_of_the_clients_only_are_refused(name: str) -> None:
    with pytest.raises(BadSetting, match=rf"^{name} is not for here: set SKUTREND_BROKERS"):
        settings.load(environment={}, kafka={name: "elsewhere:9092"})


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ({"ssl.ca.location": "a", "ssl.ca.pem": "b"}, "ssl.ca.location and ssl.ca.pem are both given"),
        ({"ssl.key.location": "a", "ssl.key.pem": "b"}, "ssl.key.location and ssl.key.pem are both given"),
        ({"ssl.certificate.pem": "a"}, "ssl.certificate.pem is given without ssl.key.location or ssl.key.pem"),
        ({"ssl.key.pem": "a"}, "ssl.key.pem is given without ssl.certificate.location or ssl.certificate.pem"),
        ({"enable.ssl.certificate.verification": "no"}, "enable.ssl.certificate.verification is 'no'"),
        ({"ssl.endpoint.identification.algorithm": ""}, "ssl.endpoint.identification.algorithm is ''"),
        ({"security.protocol": "TLS"}, "security.protocol is 'TLS'; known are PLAINTEXT, SSL, SASL_PLAINTEXT"),
        ({**SASL, "sasl.mechanisms": "SCRAM-SHA-256"}, "name different ones (PLAIN, SCRAM-SHA-256)"),
        (
            {**SASL, "sasl.mechanism": "OAUTHBEARER"},
            "sasl.mechanism is 'OAUTHBEARER'; the worker's consumer knows PLAIN",
        ),
        (
            {**SASL, "sasl.password": ""},
            "sasl.password is not set, which PLAIN needs; set SKUTREND_KAFKA_SASL_PASSWORD",
        ),
    ],
)
def test_what_contradicts_itself_or_is_half_given_is_reported(client: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting) as why:
        settings.load(environment={}, kafka={**TLS, **client})
    assert told in str(why.value)


@pytest.mark.parametrize(
    ("client", "told"),
    [
        ({"ssl.ca.pem": "no certificate"}, r"^ssl\.ca\.pem cannot be used"),
        ({"ssl.ca.pem": ""}, r"^ssl\.ca\.pem cannot be used"),
        ({"ssl.ca.location": "/nowhere/ca.pem"}, r"^ssl\.ca\.location cannot be used: .*No such file"),
        ({"ssl.crl.location": "/nowhere/crl.pem"}, r"^ssl\.crl\.location cannot be used: .*No such file"),
        ({"ssl.cipher.suites": "none-such"}, r"^ssl\.cipher\.suites cannot be used"),
        ({"ssl.key.pem": "k", "ssl.certificate.pem": "c"}, r"^ssl\.certificate\.pem or ssl\.key\.pem cannot be used"),
    ],
)
def test_material_that_is_unusable_is_reported_with_its_property(client: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        context(client)


def test_a_broker_that_the_consumer_cannot_reach_is_reported() -> None:
    (told,) = consumer_trouble("127.0.0.1:1", {})
    assert told.startswith("the worker's consumer does not get through to 127.0.0.1:1 (")
    assert "SKUTREND_BROKERS" in told

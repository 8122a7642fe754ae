"""TLS and SASL: librdkafka's properties, which the settings are given in, and the same for aiokafka.

Producers and administration run on librdkafka, the worker's consumer on aiokafka. Each property about security is
either translated here or refused by its name: one that a client silently ignored would let the one in and not the
other, or leave a check off that the operator has asked for.
"""

from __future__ import annotations

import ssl
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_BOOLEANS: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}  # as librdkafka reads
_CA: Final = ("ssl.ca.location", "ssl.ca.pem")
_CERTIFICATE: Final = ("ssl.certificate.location", "ssl.certificate.pem")
_KEY: Final = ("ssl.key.location", "ssl.key.pem")
_MECHANISM: Final = ("sasl.mechanism", "sasl.mechanisms")
_ACCOUNT: Final = ("sasl.username", "sasl.password")
_VERIFICATION: Final = "enable.ssl.certificate.verification"
_IDENTIFICATION: Final = "ssl.endpoint.identification.algorithm"
_TRANSLATED: Final = frozenset({
    *("security.protocol", *_CA, *_CERTIFICATE, *_KEY, "ssl.key.password", "ssl.crl.location", "ssl.cipher.suites"),
    *(_VERIFICATION, _IDENTIFICATION, *_MECHANISM, *_ACCOUNT),
})  # fmt: skip
_ABOUT_SECURITY: Final = ("ssl", "sasl", "https.", "security.", "enable.ssl", "enable.sasl", "oauthbearer")
_ADDRESSES: Final = frozenset({"bootstrap.servers", "metadata.broker.list"})
_INSTEAD: Final[Mapping[str, str]] = {
    "ssl.keystore": (
        "take certificate and key out of it (openssl pkcs12 -in FILE -nodes) and set ssl.certificate.location and "
        "ssl.key.location"
    ),
    "ssl.truststore": "set ssl.ca.location to a PEM file",
    "sasl.oauthbearer": f"use one of the SASL mechanisms {', '.join(MECHANISMS)}",
    "sasl.kerberos": f"use one of the SASL mechanisms {', '.join(MECHANISMS)}",
}


def normalised(client: Mapping[str, str]) -> dict[str, str]:
    """Give librdkafka properties as both clients understand them; `BadSetting` names what one of them would not heed.

    Nothing is read from files yet. Properties that have nothing to do with security are left as they are.
    """
    for name in client:
        _refuse_unknown(name)
    for pair in (_CA, _CERTIFICATE, _KEY):
        if all(name in client for name in pair):
            msg = f"{pair[0]} and {pair[1]} are both given; leave one of them"
            raise BadSetting(msg)
    _one_of(client, "security.protocol", PROTOCOLS, default="PLAINTEXT")
    _check_certificate(client)
    _ = _flag(client), _checks_names(client)
    changed = dict(client)
    if _protocol(client).startswith("SASL"):
        for name in _MECHANISM:
            changed.pop(name, None)
        changed["sasl.mechanism"] = _mechanism(client)
        for name in _ACCOUNT:
            if not client.get(name):
                msg = f"{name} is not set, which {changed['sasl.mechanism']} needs; set {_variable(name)}"
                raise BadSetting(msg)
    return changed


def aiokafka_arguments(client: Mapping[str, str]) -> dict[str, Any]:
    """Translate librdkafka properties to aiokafka's arguments (`BadSetting` for what it cannot do)."""
    client = normalised(client)
    protocol = _protocol(client)
    arguments: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        arguments["ssl_context"] = _context(client)
    if protocol.startswith("SASL"):
        arguments |= {
            "sasl_mechanism": client["sasl.mechanism"],
            "sasl_plain_username": client["sasl.username"],
            "sasl_plain_password": client["sasl.password"],
        }
    return arguments


def _refuse_unknown(name: str) -> None:
    if name in _ADDRESSES:
        msg = f"{name} is not for here: set SKUTREND_BROKERS, which all clients heed"
        raise BadSetting(msg)
    if name.startswith(_ABOUT_SECURITY) and name not in _TRANSLATED:
        instead = next((text for begin, text in _INSTEAD.items() if name.startswith(begin)), "take it out")
        msg = f"{name} ({_variable(name)}) cannot be honoured by the worker's consumer: {instead}"
        raise BadSetting(msg)


def _variable(name: str) -> str:
    return "SKUTREND_KAFKA_" + name.upper().replace(".", "_")


def _protocol(client: Mapping[str, str]) -> str:
    return client.get("security.protocol", "PLAINTEXT").upper()


def _one_of(client: Mapping[str, str], name: str, known: tuple[str, ...], *, default: str) -> str:
    value = client.get(name, default).upper()
    if value not in known:
        msg = f"{name} is {value!r}; known are {', '.join(known[:-1])} and {known[-1]}"
        raise BadSetting(msg)
    return value


def _mechanism(client: Mapping[str, str]) -> str:
    given = {client[name].upper() for name in _MECHANISM if name in client}
    if len(given) > 1:
        msg = f"sasl.mechanism and sasl.mechanisms name different ones ({', '.join(sorted(given))}); leave one of them"
        raise BadSetting(msg)
    mechanism = next(iter(given), "")
    if mechanism not in MECHANISMS:
        msg = f"sasl.mechanism is {mechanism!r}; the worker's consumer knows {', '.join(MECHANISMS)}"
        raise BadSetting(msg)
    return mechanism


def _check_certificate(client: Mapping[str, str]) -> None:
    """Refuse a certificate without its key and a key without its certificate, which would authenticate nobody."""
    for given, lacking in ((_CERTIFICATE, _KEY), (_KEY, _CERTIFICATE)):
        named = next((name for name in given if name in client), None)
        if named is not None and not any(name in client for name in lacking):
            msg = f"{named} is given without {lacking[0]} or {lacking[1]}: set one of these, too"
            raise BadSetting(msg)


def _flag(client: Mapping[str, str]) -> bool:
    """Whether the broker's certificate is checked."""
    value = client.get(_VERIFICATION, "true").lower()
    if value not in _BOOLEANS:
        msg = f"{_VERIFICATION} is {value!r}; known are true and false"
        raise BadSetting(msg)
    return _BOOLEANS[value]


def _checks_names(client: Mapping[str, str]) -> bool:
    """Whether the broker's name must be that of its certificate."""
    return _one_of(client, _IDENTIFICATION, ("HTTPS", "NONE"), default="https") == "HTTPS"


def _context(client: Mapping[str, str]) -> ssl.SSLContext:
    context = _trusting(client)
    _load_certificate(context, client)
    if "ssl.crl.location" in client:
        with _setting_named("ssl.crl.location"):
            context.load_verify_locations(cafile=client["ssl.crl.location"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if "ssl.cipher.suites" in client:
        with _setting_named("ssl.cipher.suites"):
            context.set_ciphers(client["ssl.cipher.suites"])
    context.check_hostname = _checks_names(client)
    if not _flag(client):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _trusting(client: Mapping[str, str]) -> ssl.SSLContext:
    """Make a context that trusts what the settings name, else what this machine does."""
    if "ssl.ca.pem" in client:
        with _setting_named("ssl.ca.pem"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=client["ssl.ca.pem"])
            return context
    where = client.get("ssl.ca.location", "probe")
    with _setting_named("ssl.ca.location"):
        if where == "probe":  # librdkafka's word for what the machine trusts
            return ssl.create_default_context()
        if Path(where).is_dir():
            return ssl.create_default_context(capath=where)
        return ssl.create_default_context(cafile=where)


def _load_certificate(context: ssl.SSLContext, client: Mapping[str, str]) -> None:
    """Load a client's certificate and key; what is given as text lies in files of this user for that long."""
    names = [name for name in (*_CERTIFICATE, *_KEY) if name in client]
    if not names:
        return
    with _setting_named(" or ".join(names)), ExitStack() as files:
        certificate, key = (_path(client, pair, files) for pair in (_CERTIFICATE, _KEY))
        # without a password OpenSSL would ask for one on the terminal
        context.load_cert_chain(certificate, keyfile=key, password=client.get("ssl.key.password", ""))


def _path(client: Mapping[str, str], pair: tuple[str, str], files: ExitStack) -> str:
    location, text = pair
    if location in client:
        return client[location]
    # readable for this user only, and gone with the stack
    file = files.enter_context(tempfile.NamedTemporaryFile("w", prefix="skutrend-", suffix=".pem"))
    file.write(client[text])
    file.flush()
    return file.name


@contextmanager
def _setting_named(name: str) -> Iterator[None]:
    """Turn what Python says about TLS material into a `BadSetting` that names the property."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        msg = f"{name} cannot be used: {error}"
        raise BadSetting(msg) from error

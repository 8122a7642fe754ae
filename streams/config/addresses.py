"""Addresses of brokers, written so that librdkafka and aiokafka read the same out of them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from schemas.errors import BadSetting

PORT: Final = 9092  # Kafka's own, where none is given
_SETTING: Final = "SKUTREND_BROKERS"
_PROTOCOL: Final = re.compile(r"(?P<name>[^/:\[\]]*)://(?P<rest>.*)", re.DOTALL)
_NAMED: Final = re.compile(r"(?P<host>[A-Za-z0-9_.-]+)(?::(?P<port>.*))?", re.DOTALL)
_BRACKETED: Final = re.compile(r"\[(?P<host>[^\]]*)\](?::(?P<port>.*))?", re.DOTALL)


def normalised(brokers: str, *, protocol: str) -> str:
    """Give `host:port` of every broker, comma-separated; `BadSetting` names the entry that is none.

    protocol: `security.protocol`. An entry may begin with it, as in a broker's own `advertised.listeners`: librdkafka
    knows that form, aiokafka takes it for a part of the host's name. Spaces around entries and empty ones go.

    >>> normalised("PLAINTEXT://one:9093, two,", protocol="plaintext")
    'one:9093,two:9092'
    """
    entries = [entry.strip() for entry in brokers.split(",")]
    found = [_address(entry, protocol.upper()) for entry in entries if entry]
    if not found:
        msg = f"{_SETTING} is {brokers!r}: it names no broker; write host:port, several separated by commas"
        raise BadSetting(msg)
    return ",".join(found)


def _address(entry: str, protocol: str) -> str:
    named = _PROTOCOL.fullmatch(entry)
    if named is not None and named["name"].upper() != protocol:
        msg = (
            f"{_SETTING} has {entry!r}, but the security protocol is {protocol}: write host:port and set "
            "SKUTREND_KAFKA_SECURITY_PROTOCOL (PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL)"
        )
        raise BadSetting(msg)
    rest = entry if named is None else named["rest"]
    found = _BRACKETED.fullmatch(rest) or _NAMED.fullmatch(rest)
    if found is None:
        msg = (
            f"{_SETTING} has {entry!r}, which is no address: write host:port, several separated by commas, and an IPv6 "
            "address in brackets, [::1]:9092"
        )
        raise BadSetting(msg)
    host = f"[{_ipv6(found['host'], entry)}]" if rest.startswith("[") else found["host"]
    return f"{host}:{_port(found['port'], entry)}"


def _ipv6(host: str, entry: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        msg = f"{_SETTING} has {entry!r}: {host!r} is no IPv6 address ({error})"
        raise BadSetting(msg) from error


def _port(port: str | None, entry: str) -> int:
    if port is None:
        return PORT
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):  # noqa: PLR2004  # the largest there is
        msg = f"{_SETTING} has {entry!r}: {port!r} is no port; write host:port with a port from 1 to 65535"
        raise BadSetting(msg)
    return int(port)

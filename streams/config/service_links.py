"""Which variables of the environment Kubernetes has put there by itself, for the services of the pod's namespace.

For a Service `skutrend-kafka` with a port 9092 named `metrics`, every container started later is given

    SKUTREND_KAFKA_SERVICE_HOST=10.0.0.1      SKUTREND_KAFKA_PORT=tcp://10.0.0.1:9092
    SKUTREND_KAFKA_SERVICE_PORT=9092          SKUTREND_KAFKA_PORT_9092_TCP=tcp://10.0.0.1:9092
    SKUTREND_KAFKA_SERVICE_PORT_METRICS=9092  SKUTREND_KAFKA_PORT_9092_TCP_{PROTO,PORT,ADDR}=...

which look like settings where the Service is named after this program. `enableServiceLinks: false` in the pod's spec
keeps them out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ADDRESS: Final = re.compile(r"(?:tcp|udp|sctp)://\S+", re.IGNORECASE)
_BY_NAME: Final = re.compile(
    r"(?P<service>.+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_BY_VALUE: Final = re.compile(r"(?P<service>.+)_PORT")
_SHOWN: Final = 3


def service_of(variable: str, value: str) -> str | None:
    """Name the Service that a variable comes from; None for one that somebody has set.

    `..._PORT` alone may well be a setting: there the value tells, since no port is an address.

    >>> service_of("SKUTREND_KAFKA_SERVICE_HOST", "10.0.0.1"), service_of("SKUTREND_HTTP_PORT", "tcp://10.0.0.1:80")
    ('skutrend-kafka', 'skutrend-http')
    >>> service_of("SKUTREND_HTTP_PORT", "8080"), service_of("SKUTREND_KAFKA_SASL_KERBEROS_SERVICE_NAME", "kafka")
    (None, None)
    """
    found = _BY_NAME.fullmatch(variable)
    if found is None and _ADDRESS.fullmatch(value):
        found = _BY_VALUE.fullmatch(variable)
    return None if found is None else found["service"].lower().replace("_", "-")


def skipped(service: str, variables: Iterable[str]) -> str:
    """Say that the variables of a Service are no settings, where they come from and how to be rid of them."""
    names = sorted(variables)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"{', '.join(names[:_SHOWN])}{more} are skipped: Kubernetes sets them for the Service {service}, they are no "
        "settings; `enableServiceLinks: false` in the pod's spec keeps them out"
    )

"""What lies around a record on a bus: a schema registry's frame, CloudEvents, Debezium's before and after.

Of an upsert topic each value is how its row is now, and what it was is known from what its key said before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from schemas.refusals import FRAME_BYTES
from streams.intake.mapping import Envelope

Headers = Sequence[tuple[str, "bytes | None"]]
Decode = Callable[[bytes], Any]
UPDATE: Final = "u"
DELETE: Final = "d"
CE: Final = "ce_"  # how headers begin that tell of a CloudEvent
_POSITION: Final = (  # of PostgreSQL; MySQL and MariaDB; Oracle; SQL Server; Db2
    *("lsn", "file", "pos", "row", "scn", "commit_scn", "change_lsn", "commit_lsn", "event_serial_no"),
)
_DECODE = msgspec.json.Decoder().decode


class Change(NamedTuple):
    """What a message says of one row: how it is, and how it was (None: not there, or not told).

    op: Debezium's letter, "" for messages that are no changes. at_ms: when it changed, None where that is not told.
    position: of the change in the database's log, "" where that is not told. before_is_ours: `before` is what we read
    of the topic ourselves: lines of it that could not be used are counted nowhere.
    """

    after: dict[str, Any] | None
    before: dict[str, Any] | None = None
    op: str = ""
    at_ms: int | None = None
    position: str = ""
    before_is_ours: bool = False


class NotReadable(ValueError):  # noqa: N818 - what it says of a message
    """A message that is not what its envelope should be; `str()` is a sentence."""


def opened(value: bytes, headers: Headers, envelope: Envelope, decode: Decode | None = None) -> Change:
    """Take a message's value out of its envelope; raises `NotReadable`. decode: None for JSON, framed or not."""
    found = _json(value) if decode is None else decode(value)
    if not isinstance(found, dict):
        msg = "the value must be a JSON object" if decode is None else "the value must be a record"
        raise NotReadable(msg)
    return _OPEN[envelope](found, headers)


def _json(value: bytes) -> Any:  # noqa: ANN401 - JSON
    content = value[FRAME_BYTES:] if value[:1] == b"\0" else value
    try:
        return _DECODE(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        framed = " behind a schema registry's frame" if content is not value else ""
        msg = f"the value{framed} is no JSON: {error}"
        raise NotReadable(msg) from None


def _plain(found: dict[str, Any], _: Headers) -> Change:
    return Change(found)


def _cloud_event(found: dict[str, Any], headers: Headers) -> Change:
    """In structured mode the event is the value, with its data inside; in binary mode the value is the data."""
    if "specversion" in found:
        data, about = found.get("data"), {name: value for name, value in found.items() if name != "data"}
    else:
        data = found
        about = attributes(headers)
        if "specversion" not in about:
            msg = "the value is no CloudEvent: it has no specversion, nor a header ce_specversion"
            raise NotReadable(msg)
    if not isinstance(data, dict):
        msg = "data of the CloudEvent must be a JSON object"
        raise NotReadable(msg)
    return Change(data | {"cloudevent": about})


def attributes(headers: Headers) -> dict[str, str]:
    """Give what headers tell of a CloudEvent, by name; {} where they tell of none."""
    return {
        name.removeprefix(CE): (value or b"").decode("utf-8", "replace")
        for name, value in headers
        if name.startswith(CE)
    }


def _debezium(found: dict[str, Any], _: Headers) -> Change:
    """With or without the schema that Kafka Connect's converter puts beside the payload."""
    payload = found["payload"] if isinstance(found.get("payload"), dict) else found
    op = payload.get("op")
    after, before = payload.get("after"), payload.get("before")
    if not isinstance(op, str) or not all(row is None or isinstance(row, dict) for row in (after, before)):
        msg = "the value is no Debezium change: op, before and after are expected"
        raise NotReadable(msg)
    source = payload.get("source")
    # of the database, else of the connector, which is another one when a change is sent again
    times = [each.get("ts_ms") for each in (source, payload) if isinstance(each, dict)]
    at_ms = next((time for time in times if isinstance(time, int) and time > 0), None)
    return Change(after, before, op, at_ms, _position(source))


def _position(source: object) -> str:
    """Name where a change stands in the database's log: the same whenever a connector sends it."""
    if not isinstance(source, dict):
        return ""
    return ".".join(str(source[name]) for name in _POSITION if isinstance(source.get(name), str | int))


_OPEN: Final[Mapping[Envelope, Callable[[dict[str, Any], Headers], Change]]] = {
    "none": _plain,
    "cloudevents": _cloud_event,
    "debezium": _debezium,
    "upsert": _plain,
}

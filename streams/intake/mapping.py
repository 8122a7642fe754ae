"""What a mapping file says: how the records of another system become events, one table per input.

The README has the format with an example; `skutrend mapping show NAME` prints one of the presets to start from. The
file is TOML, read into the types below: an unknown key is an error, so that a misspelt one is not left unheeded.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal

import msgspec

from schemas.errors import BadInput
from schemas.inputs import BY_NAME, INPUT_NAMES, Field, InputName

Format = Literal["csv", "jsonl", "json", "parquet", "avro", "protobuf", "json_schema"]
Envelope = Literal["none", "cloudevents", "debezium", "upsert"]
Constant = str | int | float
NO_CURRENCY: Final = "XXX"
"""ISO 4217's code for "no currency": what a file without prices is in."""


class Rule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"expression": "from"}):
    """How one field of an event is found.

    expression: a column, or JMESPath over the record. constant: the value, whatever the record says. default: the
    value where the record has none. scale: what a number is multiplied with, .01 for cents. divide_by: an expression
    whose number it is divided by, for prices of whole lines. minor_units: an amount is in the smallest unit of the
    event's currency, such as cents. time: "iso", "s", "ms", "us", "ns" or a format of
    strptime. zone: IANA name, of times that tell none. values: what to write for a text that was found; others leave
    the record out.
    """

    expression: str | None = None
    constant: Constant | None = None
    default: Constant | None = None
    scale: float = 1.0
    divide_by: str | None = None
    minor_units: bool = False
    time: str | None = None
    zone: str | None = None
    values: dict[str, str] = {}


class LeftOutRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Records that are no events. when: an expression that holds for them. reason: what the report calls them."""

    when: str
    reason: str


class NoteRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the report says of records for which `when` holds, beside their number: what events do not show of them."""

    when: str
    says: str


class EventRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One event that a record makes. when: an expression, "" always. fields: those that differ from the input's."""

    name: str
    when: str = ""
    fields: dict[str, str | Rule] = {}


class FillDown(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Columns that only the first row of a group holds. by: the column whose equal neighbours are a group."""

    by: str
    columns: tuple[str, ...]


class InputMapping(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the records of one source become events of one input.

    topics: those of the bus that hold such records, by their full names. envelope: what lies around a record there.
    known_by: columns, or keys of a JSON record, that a file of this shape has. records: where the records of a JSON
    document are; "" the document itself, or each element where it is a list. each: an expression that gives the list
    of which each element makes an event; its expressions see the element, and the record as `parent`. missing: texts
    that stand for no value. encoding, delimiter: "" found out. events: "" one event for each record.
    """

    format: Format
    fields: dict[str, str | Rule]
    topics: tuple[str, ...] = ()
    envelope: Envelope = "none"
    known_by: tuple[str, ...] = ()
    records: str = ""
    each: str = ""
    fill_down: FillDown | None = None
    missing: tuple[str, ...] = ("",)
    decimal: str = "."
    thousands: str = ""
    encoding: str = ""
    delimiter: str = ""
    time: str = "iso"
    zone: str = ""
    leave_out: tuple[LeftOutRule, ...] = ()
    notes: tuple[NoteRule, ...] = ()
    events: tuple[EventRule, ...] = (EventRule("event"),)


class MappingFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename="kebab"):
    """One mapping file. title: what it reads, in words. source: where the shape is documented."""

    name: str
    title: str
    source: str = ""
    orders: InputMapping | None = None
    clicks: InputMapping | None = None
    price_changes: InputMapping | None = None

    @property
    def inputs(self) -> dict[InputName, InputMapping]:
        """Give what it has by input."""
        found = dict(zip(INPUT_NAMES, (self.orders, self.clicks, self.price_changes), strict=True))
        return {kind: mapping for kind, mapping in found.items() if mapping is not None}


def load(path: Path) -> MappingFile:
    """Read a mapping file; `BadInput` names the file, the key and what is wrong with it."""
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError as error:
        msg = f"{path} does not exist; `skutrend mapping list` shows the presets"
        raise BadInput(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise BadInput(msg) from error
    return parse(text, str(path))


def parse(text: str, where: str) -> MappingFile:
    """Read the text of a mapping file. where: what errors call it."""
    try:
        found = msgspec.toml.decode(text, type=MappingFile)
    except msgspec.DecodeError as error:  # a ValidationError is one
        msg = f"{where}: {_in_words(str(error))}"
        raise BadInput(msg) from error
    if not found.inputs:
        msg = f"{where} maps nothing: it needs a table [orders], [clicks] or [price-changes]"
        raise BadInput(msg)
    for kind, mapping in found.inputs.items():
        _check(mapping, kind, where)
    return found


def _in_words(said: str) -> str:
    """Say where in a mapping file something is as its author wrote it.

    >>> _in_words("Object contains unknown field `form` - at `$.orders.fields[...]`")
    'Object contains unknown field `form`, in orders.fields'
    """
    what, _, at = said.partition(" - at `$")
    place = at.removesuffix("`").replace("[...]", "").lstrip(".")
    return f"{what}, in {place}" if place else what


def _check(mapping: InputMapping, kind: InputName, where: str) -> None:
    """Raise `BadInput` for a field that events do not have, and for one that they need and nothing gives."""
    known = {each.name: each for each in BY_NAME[kind].fields}
    given = set(mapping.fields).union(*(event.fields for event in mapping.events))
    if unknown := sorted(given - known.keys()):
        msg = f"{where}: [{kind}.fields] names {', '.join(unknown)}; {kind} have {', '.join(known)}"
        raise BadInput(msg)
    for fields in (mapping.fields, *(event.fields for event in mapping.events)):
        for name, rule in fields.items():
            if isinstance(rule, Rule) and (misfit := _misfit(known[name], rule)):
                msg = f"{where}: [{kind}.fields] {name} is no {misfit}"
                raise BadInput(msg)
    names = [event.name for event in mapping.events]
    if len(set(names)) < len(names):
        msg = f"{where}: [[{kind}.events]] have one name, which would be part of one id: {', '.join(names)}"
        raise BadInput(msg)
    needed = [name for name, each in known.items() if not each.nullable and name not in (*MADE_UP, *given)]
    if needed:
        msg = f"{where}: [{kind}.fields] says nothing of {', '.join(needed)}"
        raise BadInput(msg)
    if mapping.decimal == mapping.thousands or len(mapping.decimal) != 1:
        msg = f"{where}: [{kind}] decimal is {mapping.decimal!r} and thousands {mapping.thousands!r}: one sign each"
        raise BadInput(msg)


def _misfit(field: Field, rule: Rule) -> str:
    """Name what a rule says that a field of this type cannot have; "" where all fits."""
    is_amount = field.type == "double"
    if not is_amount and (rule.minor_units or rule.divide_by or rule.scale != 1):
        return "amount, and can have no scale, minor_units or divide_by"
    if field.type != "string" and rule.values:
        return "text, and can have no values"
    if field.name != "event_time_ms" and (rule.time or rule.zone):
        return "time, and can have no time or zone"
    return ""


MADE_UP: Final = ("event_id", "order_id", "session_id", "currency")
"""Fields that a mapping need not give: made from the others, the currency said on the command line."""


@cache
def presets() -> Mapping[str, MappingFile]:
    """Read the mappings that come with skutrend, by name."""
    found = (parse(text, name) for name, text in preset_texts())
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def preset_texts() -> Iterator[tuple[str, str]]:
    """Give name and text of every preset's file."""
    for file in (importlib.resources.files("streams.intake") / "presets").iterdir():
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), file.read_text("utf-8")


def family(name: str) -> dict[str, MappingFile]:
    """Give the preset of that name, or else all whose name begins with it and a dash; `BadInput` lists those there are.

    >>> list(family("online-retail"))
    ['online-retail']
    """
    if name in presets():
        return {name: presets()[name]}
    return {each: found for each, found in presets().items() if each.startswith(f"{name}-")} or {name: named(name)}


def reading(mapping: MappingFile, topics: tuple[str, ...]) -> MappingFile:
    """Give a mapping of one input that reads these topics; `BadInput` where it has several inputs."""
    if len(mapping.inputs) > 1:
        msg = f"{mapping.name} has several inputs ({', '.join(mapping.inputs)}): name the topics of each in the mapping"
        raise BadInput(msg)
    ((kind, rules),) = mapping.inputs.items()
    changes = {kind.replace("-", "_"): msgspec.structs.replace(rules, topics=topics)}
    return msgspec.structs.replace(mapping, **changes)


def changed(mapping: InputMapping, decimal: str, thousands: str) -> InputMapping:
    """Give a mapping with other signs in its numbers."""
    return msgspec.structs.replace(mapping, decimal=decimal, thousands=thousands)


def named(preset: str) -> MappingFile:
    """Give the preset of that name; `BadInput` lists those there are."""
    found = presets().get(preset)
    if found is None:
        msg = f"there is no preset {preset!r}; there are {', '.join(presets())}"
        raise BadInput(msg)
    return found

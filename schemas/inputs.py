"""The inputs, in one table: what each is called, what a message of it looks like, and how it is decoded.

Everything that lists inputs or their columns reads it here: topics, agents, event files, replay, stored counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from schemas.clicks import Click
from schemas.columns import InputColumns, Refusal
from schemas.decoding import decode_clicks, decode_orders, decode_price_changes
from schemas.orders import OrderLine
from schemas.price_changes import PriceChange

InputName = Literal["orders", "clicks", "price-changes"]
FieldType = Literal["string", "double", "int64"]
Decode = Callable[[Sequence[bytes | None]], tuple[InputColumns, list[Refusal]]]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its type, whether it may be null or left out, and the only values it may hold (empty: any).

    `optional` fields are left out of a message when null; a nullable field that is not optional is written as null.
    """

    name: str
    type: FieldType = "string"
    nullable: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """One input. name: of its topic, without prefix, and of its event file.

    rank: of equal event times in a replay, the lowest goes first. optional: fields that are left out when null.
    fields: those of the message, in its order. places: of these, by name.
    """

    name: InputName
    message: type[msgspec.Struct]
    decode: Decode
    rank: int
    optional: tuple[str, ...] = ()
    fields: tuple[Field, ...] = field(init=False)
    places: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Read the fields off the message."""
        types = get_type_hints(self.message)
        fields = tuple(_field(name, types[name], optional=name in self.optional) for name in types)
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "places", {each.name: at for at, each in enumerate(fields)})


def _field(name: str, found: object, *, optional: bool) -> Field:
    """Describe a field of the type `found`: text, number, one of several texts, or one of these and None."""
    kinds = [each for each in get_args(found) if each is not NoneType]
    if get_origin(found) is Literal:
        return Field(name, "string", optional=optional, choices=tuple(map(str, kinds)))
    return Field(name, _TYPES[kinds[0] if kinds else found], nullable=bool(kinds), optional=optional)


_TYPES: Final[Mapping[object, FieldType]] = {str: "string", float: "double", int: "int64"}

ORDERS, CLICKS, PRICES = range(3)
"""Positions in `INPUTS`; part of stored state, so they never change and new inputs come last."""

INPUTS: Final = (
    Input("orders", OrderLine, decode_orders, rank=2, optional=("channel", "category")),
    Input("clicks", Click, decode_clicks, rank=1),
    Input("price-changes", PriceChange, decode_price_changes, rank=0),
)
INPUT_NAMES: Final[tuple[InputName, ...]] = tuple(each.name for each in INPUTS)
BY_NAME: Final[Mapping[InputName, Input]] = {each.name: each for each in INPUTS}

assert get_args(InputName) == INPUT_NAMES  # noqa: S101 - two spellings of one list

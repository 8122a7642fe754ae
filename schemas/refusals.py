"""Why a record cannot be used: the code and the sentence that go to its dead letter.

The codes are stable, and all of them stand in `CODES`, that of a whole record batch (schemas/errors.py) too. A record
that breaks several rules gets the first that applies in this order: size, JSON, SKU, the fields as declared; then what
features/sku_state.py judges: time, currency, partition, id.

Only refused records come here, so the diagnosis takes the value apart field by field (some 10 us a record) in order to
name the field and quote what was found, and rests on no error text of the decoder. Nothing is quoted that may tell of a
person, since dead letters are kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec

from schemas.fields import MAX_SKU_BYTES
from schemas.personal import UNREADABLE, as_raw_fields, may_tell_of_a_person
from schemas.printable import printable

MAX_VALUE_BYTES: Final = 256 * 1024
ID_REUSED: Final = "id_reused"
CODES: Final = (
    "empty",
    "too_large",
    "not_json",
    "wrong_type",
    "out_of_range",
    "missing_sku",
    "control_character",
    "implausible_time",
    "from_the_future",
    "wrong_currency",
    "wrong_partition",
    ID_REUSED,
    "undecodable_batch",
    "unmapped",
)
"""Every code that a dead letter may carry; the README tells what each means."""

FRAME_BYTES: Final = 5
"""What a schema registry puts before a value: 0, and the schema's id in four bytes."""

DECODE_ERRORS: Final = UNREADABLE
"""All that msgspec raises for bytes."""

_SHAPES: Final = {
    str: re.compile(rb'"'),
    float: re.compile(rb"[-0-9]"),
    int: re.compile(rb"-?[0-9]+\Z"),
}
# What a terminal obeys (C0, DEL, C1), what breaks a line in a log (U+2028, U+2029), what shows one SKU as another (the
# embeddings, overrides and isolates of text direction), and what has no UTF-8 (surrogates). Marks and joiners without a
# width stay: Persian, Hindi and Arabic cannot be written without them, and they do no more than look alike
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE: Final = {"Cf", "Zs"}  # Unicode's categories of format characters and spaces
_QUOTED_CHARACTERS: Final = 60
_REMEMBERED_BYTES: Final = 24
# Also said of half a surrogate pair near the end, which is no truncation
_REASONS: Final = {"Input data was truncated": "it ends too early, or within an escape"}

_as_text = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What one field of an input message must be; `decode` raises one of DECODE_ERRORS for JSON that it may not be."""

    name: str
    required: bool
    must_be: str
    shape: re.Pattern[bytes]
    is_personal: bool
    decode: Callable[[bytes], Any]


def rules_of(message: type[msgspec.Struct]) -> tuple[FieldRule, ...]:
    """Rules of the fields of an input message, as schemas/fields.py declares them; the SKU has its own, not here."""
    hints = get_type_hints(message, include_extras=True)
    return tuple(
        _rule(field.name, hints[field.name], required=field.required)
        for field in msgspec.structs.fields(message)
        if field.name != "sku"
    )


def _rule(name: str, hint: object, *, required: bool) -> FieldRule:
    extra = _extra_of(hint)
    return FieldRule(
        name=name,
        required=required,
        must_be=extra["must_be"],
        shape=_SHAPES[extra["shape"]],
        is_personal=extra.get("personal", False),
        decode=msgspec.json.Decoder(hint).decode,
    )


def _extra_of(hint: object) -> dict[str, Any]:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, msgspec.Meta) and note.extra is not None:
                return note.extra
    message = f"a field of an input message is declared with Meta(extra=...) as in schemas/fields.py, not as {hint}"
    raise TypeError(message)


def sku_complaint(sku: str) -> tuple[str, str] | None:
    r"""Code and sentence about a SKU that cannot serve as one, or None if it can.

    >>> sku_complaint("85123A"), sku_complaint("a\x1b[2J")[0]
    (None, 'control_character')
    """
    if not sku or sku.isspace():
        return "missing_sku", f"`sku` must not be blank, found {_quoted(sku)!r}"
    control = None if sku.isprintable() else _CONTROLS.search(sku)
    if control is not None:
        return "control_character", (
            "`sku` must hold no control character, line separator or override of text direction, found "
            f"U+{ord(control[0]):04X} as character {control.start() + 1}: {_quoted(sku[:_REMEMBERED_BYTES])}"
        )
    if not sku.isprintable() and all(unicodedata.category(c) in _INVISIBLE for c in sku):
        return "missing_sku", f"`sku` must not be blank, found {_quoted(sku)!r}"
    size_bytes = len(sku.encode())
    if size_bytes > MAX_SKU_BYTES:
        return "missing_sku", f"`sku` must have at most {MAX_SKU_BYTES} bytes, found {size_bytes:,}: {_quoted(sku)!r}"
    return None


def diagnose(value: bytes | None, rules: tuple[FieldRule, ...], why: Exception) -> tuple[str, str]:
    """Code and sentence for a value that the decoder of these rules refused with `why`. Never raises."""
    if not value:
        return "empty", "the record has no value; an event is a JSON object"
    if len(value) > MAX_VALUE_BYTES:
        return "too_large", f"the value has {len(value):,} bytes; at most {MAX_VALUE_BYTES:,} are read"
    try:
        fields = as_raw_fields(value)
    except msgspec.ValidationError:
        return "wrong_type", f"the value must be a JSON object, found {_kind(value)}"
    except DECODE_ERRORS as error:
        names_visitor = b"session" in value.replace(b"\0", b"").lower()
        is_quoted = not names_visitor and not may_tell_of_a_person(value)
        return "not_json", _not_json(value, error, is_quoted=is_quoted)
    return _about_sku(fields) or _about_fields(fields, rules, value) or _contradiction(why)


def _about_sku(fields: dict[str, msgspec.Raw]) -> tuple[str, str] | None:
    raw = bytes(fields.get("sku", b"null"))
    if raw == b"null":
        return "missing_sku", f"`sku` must name an article, found {'null' if 'sku' in fields else 'no such field'}"
    try:
        complaint = sku_complaint(_as_text(raw))
    except msgspec.ValidationError:
        return "wrong_type", f"`sku` must be text, found {_found(raw)}"
    except DECODE_ERRORS as error:
        return "not_json", f"`sku` cannot be read: {_not_json(raw, error)}"
    return complaint


def _about_fields(fields: dict[str, msgspec.Raw], rules: tuple[FieldRule, ...], value: bytes) -> tuple[str, str] | None:
    for rule in rules:
        if rule.name not in fields:
            if rule.required:
                return "wrong_type", f"`{rule.name}` must be {rule.must_be}, found no such field"
            continue
        raw = bytes(fields[rule.name])
        try:
            rule.decode(raw)
        except msgspec.ValidationError:
            code = "out_of_range" if rule.shape.match(raw) else "wrong_type"
            return code, f"`{rule.name}` must be {rule.must_be}, found {(_kind if rule.is_personal else _found)(raw)}"
        except DECODE_ERRORS as error:
            said = _not_json(raw, error, is_quoted=not rule.is_personal)
            return "not_json", f"`{rule.name}` cannot be read: {said}"
    return None


def _contradiction(why: Exception) -> tuple[str, str]:
    # Every field is right when the last of equal names counts, so an earlier one of them was refused
    return "wrong_type", f"the value names a field twice, once wrongly: {why}"


def _not_json(value: bytes, error: Exception, *, is_quoted: bool = True) -> str:
    if isinstance(error, RecursionError):
        return "the value is nested too deeply to be read"
    if len(value) > FRAME_BYTES and value[0] == 0:
        schema_id = int.from_bytes(value[1:FRAME_BYTES], "big")
        return (
            f"the value begins with a schema registry's frame (a zero byte and schema id {schema_id:,}): "
            "plain JSON is expected"
        )
    try:
        value.decode()
    except UnicodeDecodeError as broken:
        at = broken.start
        return f"the value is not UTF-8: byte 0x{value[at]:02x} at {at:,}{_around(value, at) if is_quoted else ''}"
    reason = _REASONS.get(str(error), str(error).removeprefix("JSON is malformed: "))
    place = re.search(r"\(byte (\d+)\)", reason)
    at = int(place[1]) if place else len(value)
    return f"the value is not JSON: {reason}{_around(value, at) if is_quoted else ''}"


def _around(value: bytes, position: int) -> str:
    start = max(0, position - _REMEMBERED_BYTES)
    return f", found {_quoted(value[start : position + _REMEMBERED_BYTES].decode('utf-8', 'replace'))}"


def _kind(raw: bytes) -> str:
    """Tell of a value that may be personal no more than what kind of JSON it is, and its length."""
    raw = raw.strip()
    kinds = {ord('"'): "text", ord("{"): "an object", ord("["): "an array", ord("t"): "true", ord("f"): "false"}
    kind = "null" if raw == b"null" else kinds.get(raw[0], "a number")
    return kind if kind in {"null", "true", "false"} else f"{kind} of {len(raw):,} bytes"


def _found(raw: bytes) -> str:
    return _quoted(raw[: 4 * _QUOTED_CHARACTERS + 4].decode("utf-8", "backslashreplace").strip())


def _quoted(text: str) -> str:
    return printable(text, _QUOTED_CHARACTERS)

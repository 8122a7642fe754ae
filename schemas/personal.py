"""Which parts of an input record tell of a person, found in its bytes.

`customer_id` does by contract; a producer may write it in another way (`customerId`), or nest it. Orders of a bus tell
of their customers also by name, address, telephone and the like. Names are compared by their letters alone. What
further fields hold, which nobody declared, cannot be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes: RecursionError is deep nesting, UnicodeDecodeError text that is not UTF-8."""

_NAMES: Final = frozenset(
    """
    customerid customer customername customeremail customerphone customernote userid username user
    email emailaddress contactemail buyeremail phone phonenumber telephone mobile mobilephone fax
    firstname lastname middlename fullname surname givenname familyname dateofbirth birthday buyer buyername recipient
    recipientname address street streetaddress addressline postaladdress billing billingaddress billingname
    shippingaddress shippingname deliveryaddress defaultaddress shipto billto shipaddress
    ip ipaddress clientip browserip remoteip useragent clientdetails deviceid anonymousid clientid userpseudoid
    advertisingid xforwardedfor creditcard cardnumber iban vatid taxid taxvat taxids mail city postcode postalcode
    zip zipcode payer shopper receiver consignee cardholder sender customerdetails shippingdetails contactdetails
    invoiceaddress traits
    """.split()
)
_OBJECTS: Final = frozenset("shipping delivery contact contacts client invoice device".split())  # no single values
_WHO: Final = (
    "customer|buyer|shopper|client|payer|recipient|receiver|consignee|sender|cardholder|contact|billing|shipping|"
    "delivery|invoice|shipto|billto|user|guest"
)
_WHAT: Final = (
    "name|firstname|lastname|middlename|surname|prefix|suffix|company|email|emailaddress|mail|phone|phonenumber|"
    "telephone|mobile|fax|address|street|city|postcode|postalcode|zip|ip|ipaddress|useragent|dob|birthday|taxvat|taxid|"
    "vatid"
)
_COMPOUND: Final = re.compile(
    f"(?:{_WHO})(?:{_WHAT})|(?:customer|buyer|guest|user|shopper|client|payer|recipient)s?(?:no|nr|number|ref|id|login)|"
    ".*(?:email|emailaddress|ipaddress|useragent|phonenumber)"
)
_LETTERS_ONLY: Final = bytes(set(range(256)) - set(b"abcdefghijklmnopqrstuvwxyz"))
_BLANK: Final = b" \t\r\n"
_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NAME_OR_TEXT: Final = re.compile(rb"(" + _TEXT + rb")(\s*:\s*)?", re.DOTALL)
_NAME_TEXT_OR_NUMBER: Final = re.compile(rb"(" + _TEXT + rb"|[-0-9][-+.0-9eE]*+)(\s*:\s*)?", re.DOTALL)
_TEXT_OR_BRACKET: Final = re.compile(_TEXT + rb"|[{}\[\]]", re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,}\]\s]+")
# of a record that cannot be read: the name with nothing behind it, whole or torn off at the end
_NOBODY: Final = re.compile(
    rb'"customer_id"\s*+:\s*+(?:null(?![a-z0-9_])|""|(?:n|nu|nul)?\Z)|"cust(?:o(?:m(?:e(?:r[_id]*+)?)?)?)?"?\s*+\Z'
)
# of `customer` either half: the name itself may be what is damaged
_WORDS: Final = (b"cust", b"omer", b"mail", b"phon", b"addr", b"name", b"street", b"@")
_SPELT: Final = re.compile(rb"\\u00[4-7]")  # an ASCII letter as an escape

as_raw_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_as_text: Final = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class PersonalValue:
    """Where a value that tells of a person lies in a record: `record[start:end]`, JSON.

    text: what it says. parts: the texts and numbers it is made of, which may stand elsewhere by themselves.
    """

    start: int
    end: int
    text: bytes
    parts: tuple[bytes, ...]


def is_personal(name: str) -> bool:
    """Whether a field or header of this name tells of a person.

    >>> is_personal("customer_id"), is_personal("customerId"), is_personal("sku")
    (True, True, False)
    """
    return _names_a_person(letters_of(name))


def letters_of(name: str) -> str:
    """Give the letters of a name, in lower case, by which names are compared.

    >>> letters_of("Customer-No_2")
    'customerno'
    """
    return "".join(each for each in name.lower() if "a" <= each <= "z")


@lru_cache(maxsize=4_096)
def _names_a_person(letters: str) -> bool:
    return letters in _NAMES or _COMPOUND.fullmatch(letters) is not None


def personal_values(record: bytes, names: Set[str] = frozenset()) -> Iterator[PersonalValue]:
    """Find what tells of a person in a JSON object that `as_raw_fields` can read, at any depth; null and "" do not.

    names: of further fields that do, by their lower-case letters. A text that is JSON itself, with such a field in it,
    is one value.
    """
    at = 0
    while (found := _NAME_OR_TEXT.search(record, at)) is not None:
        at = found.end()
        if found[2] is None:
            if b'\\"' in found[1] and _holds_json_of_a_person(found[1], names):
                yield PersonalValue(found.start(), at, _said(found[1]), ())
            continue
        if not _is_personal_name(found[1], record[at : at + 1], names):
            continue
        at = _end_of_value(record, found.end())
        raw = record[found.end() : at]
        if raw not in {b"null", b'""'}:
            yield PersonalValue(found.end(), at, _said(raw), tuple(_parts(raw)))


def may_tell_of_a_person(record: bytes) -> bool:
    """Whether a record that cannot be read as a JSON object may tell of a person.

    It may, unless it begins like an object and has the word `customer`, or half of it, only as a name with null or
    nothing behind it, and nothing of a mail, a telephone, an address or a name.
    """
    if not record.lstrip(_BLANK).startswith(b"{") or _SPELT.search(record):
        return True
    plain = record.replace(b"\0", b"").lower()  # without the zeros of UTF-16
    return _names_somebody(plain) and _names_somebody(_NOBODY.sub(b"", plain))


def _names_somebody(text: bytes) -> bool:
    return any(word in text for word in _WORDS)


def _holds_json_of_a_person(raw: bytes, names: Set[str]) -> bool:
    text = _said(raw)
    return text.lstrip(_BLANK)[:1] in {b"{", b"["} and next(personal_values(text, names), None) is not None


def _is_personal_name(raw: bytes, begins: bytes, names: Set[str]) -> bool:
    """Whether the name of a field tells of a person, whose value begins so."""
    if b"\\" in raw:
        try:
            letters = letters_of(_as_text(raw))
        except UNREADABLE:  # a name that cannot be read may be any
            return True
    else:
        letters = raw.lower().translate(None, _LETTERS_ONLY).decode()
    is_object = begins in {b"{", b"["} and letters in _OBJECTS
    return is_object or letters in names or _names_a_person(letters)


def _end_of_value(record: bytes, start: int) -> int:
    if record[start] not in b'{["':
        found = _SCALAR.match(record, start)
        return found.end() if found else start
    depth = 0
    for token in _TEXT_OR_BRACKET.finditer(record, start):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return len(record)


def _parts(raw: bytes) -> Iterator[bytes]:
    for found in _NAME_TEXT_OR_NUMBER.finditer(raw):
        if found[2] is None:
            yield _said(found[1])


def _said(raw: bytes) -> bytes:
    try:
        return _as_text(raw).encode()
    except UNREADABLE:
        return raw

"""Each way in which a record can be unusable gets its code and a sentence, and harms no other record."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.clicks import Click
from schemas.decoding import decode_clicks, decode_orders, decode_price_changes
from schemas.fields import MAX_SKU_BYTES
from schemas.orders import OrderLine
from schemas.price_changes import PriceChange
from schemas.printable import printable
from schemas.refusals import MAX_VALUE_BYTES, rules_of

ORDER: dict[str, Any] = {
    "event_id": "536365-1",
    "order_id": "536365",
    "sku": "85123A",
    "quantity": 6,
    "unit_price": 2.55,
    "currency": "GBP",
    "event_time_ms": 1291191960000,
}
CLICK = {"event_id": "v-1", "session_id": "s-9", "sku": "85123A", "kind": "view", "event_time_ms": 1291191900000}
PRICE = {
    "event_id": "p-1",
    "sku": "85123A",
    "price": 2.95,
    "currency": "GBP",
    "kind": "list",
    "event_time_ms": 1291161600000,
}


def order(**changed: object) -> bytes:
    return json.dumps({**ORDER, **changed}).encode()


def order_without(field: str) -> bytes:
    return json.dumps({name: value for name, value in ORDER.items() if name != field}).encode()


def order_with_text(field: str, text: bytes) -> bytes:
    """An order in which the JSON text of one field is the given one."""
    members = [b'"%b":%b' % (k.encode(), json.dumps(v).encode()) for k, v in ORDER.items() if k != field]
    return b"{" + b",".join([*members, b'"%b":%b' % (field.encode(), text)]) + b"}"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


UNUSABLE: list[tuple[bytes | None, str, str]] = [
    (None, "empty", "no value"),
    (b"", "empty", "no value"),
    (b"x" * 1_000_000, "too_large", "1,000,000 bytes"),
    (order(note="x" * MAX_VALUE_BYTES), "too_large", "at most 262,144 are read"),
    (b" ", "not_json", "not JSON"),
    (b"{", "not_json", "ends too early"),
    (order()[:-1], "not_json", "ends too early"),
    (order()[:-3], "not_json", "ends too early"),
    (order() + b"x", "not_json", "trailing characters"),
    (b"\xef\xbb\xbf" + order(), "not_json", "byte 0"),
    (b"event_id=1&sku=2", "not_json", "not JSON: invalid character (byte 0)"),
    (b"\x80\x04\x95", "not_json", "0x80 at 0"),
    (order_with_text("quantity", b"NaN"), "not_json", '"quantity":NaN'),
    (order_with_text("quantity", b"Infinity"), "not_json", '"quantity":Infinity'),
    (order_with_text("quantity", b"-Infinity"), "not_json", '"quantity":-Infinity'),
    (order_with_text("quantity", b"0x1F"), "not_json", '"quantity":0x1F'),
    (order_with_text("quantity", b"1."), "not_json", '"quantity":1.'),
    (order_with_text("sku", b'"caf\xe9"'), "not_json", "0xe9"),
    (order_with_text("sku", b'"\xed\xa0\x80"'), "not_json", "0xed"),
    (order_with_text("sku", rb'"\ud800"'), "not_json", "it ends too early, or within an escape"),
    (order_with_text("event_id", rb'"\udc00x"'), "not_json", "surrogate"),
    (order_with_text("event_id", b'"\xff"'), "not_json", "0xff"),
    (order_with_text("note", nested(100_000)), "not_json", "nested too deeply"),
    (b'{"a":' * 50_000, "not_json", "nested too deeply"),
    (nested(100_000), "wrong_type", "must be a JSON object, found an array of 200,000 bytes"),
    (b"null", "wrong_type", "must be a JSON object, found null"),
    (b"17", "wrong_type", "must be a JSON object, found a number of 2 bytes"),
    (b'"text"', "wrong_type", "must be a JSON object, found text of 6 bytes"),
    (b"[" + order() + b"]", "wrong_type", "must be a JSON object, found an array of "),
    (b"{}", "missing_sku", "`sku` must name an article, found no such field"),
    (order_without("sku"), "missing_sku", "`sku` must name an article, found no such field"),
    (order(sku=None), "missing_sku", "`sku` must name an article, found null"),
    (order(sku=""), "missing_sku", "`sku` must not be blank, found ''"),
    (order(sku=" \t\u00a0\u3000"), "missing_sku", "`sku` must not be blank"),
    (order(sku="x" * 513), "missing_sku", "at most 512 bytes, found 513"),
    (order(sku="\u83dc" * 171), "missing_sku", "at most 512 bytes, found 513"),
    (order(sku="\u200b\ufeff "), "missing_sku", "`sku` must not be blank"),
    *(
        (order(sku=f"85{c}123"), "control_character", f"found U+{ord(c):04X} as character 3: {printable(f'85{c}123')}")
        for c in "\x00\t\n\x1b\x1f\x7f\x80\x85\x9f\u2028\u2029\u202a\u202e\u2066\u2069"
    ),
    (order(sku="\x1b" * 600), "control_character", "found U+001B as character 1"),
    (order(sku=85123), "wrong_type", "`sku` must be text, found 85123"),
    (order(sku=["85123A"]), "wrong_type", '`sku` must be text, found ["85123A"]'),
    (order_with_text("sku", nested(500)), "wrong_type", "`sku` must be text, found [[["),
    (order_without("event_id"), "wrong_type", "`event_id` must be text of 1 to 512 characters, found no such field"),
    (order_without("order_id"), "wrong_type", "`order_id` must be text, found no such field"),
    (order_without("quantity"), "wrong_type", "`quantity` must be a number from -1e18 to 1e18, found no such field"),
    (order(event_id=""), "out_of_range", '`event_id` must be text of 1 to 512 characters, found ""'),
    (order(event_id="x" * 513), "out_of_range", "`event_id` must be text of 1 to 512 characters"),
    (order(quantity="6"), "wrong_type", '`quantity` must be a number from -1e18 to 1e18, found "6"'),
    (order(quantity=True), "wrong_type", "`quantity` must be a number from -1e18 to 1e18, found true"),
    (order(quantity=None), "wrong_type", "`quantity` must be a number from -1e18 to 1e18, found null"),
    (
        order_with_text("quantity", b"1e400"),
        "out_of_range",
        "`quantity` must be a number from -1e18 to 1e18, found 1e400",
    ),
    (order_with_text("quantity", b"-1e400"), "out_of_range", "found -1e400"),
    (
        order_with_text("quantity", b"1" * 400),
        "out_of_range",
        "`quantity` must be a number from -1e18 to 1e18, found 111",
    ),
    (order(quantity=1.1e18), "out_of_range", "found 1.1e+18"),
    (order(quantity=-1.1e18), "out_of_range", "found -1.1e+18"),
    (order(unit_price=-0.01), "out_of_range", "`unit_price` must be a number from 0 to 1e12, found -0.01"),
    (order(unit_price=1.1e12), "out_of_range", "found 1100000000000.0"),
    (order_with_text("unit_price", b"1e400"), "out_of_range", "found 1e400"),
    (
        order(unit_price={"amount": 3}),
        "wrong_type",
        '`unit_price` must be a number from 0 to 1e12, found {"amount": 3}',
    ),
    (order(currency=None), "wrong_type", "`currency` must be a currency code of 3 letters, found null"),
    (order(currency=""), "out_of_range", '`currency` must be a currency code of 3 letters, found ""'),
    (order(currency="POUND"), "out_of_range", 'found "POUND"'),
    (order(event_time_ms=1.5), "wrong_type", "`event_time_ms` must be a whole number of epoch milliseconds"),
    (order_with_text("event_time_ms", b"1e3"), "wrong_type", "that fits 64 bits, found 1e3"),
    (order_with_text("event_time_ms", b"1e400"), "wrong_type", "found 1e400"),
    (order(event_time_ms="2010-12-01"), "wrong_type", 'found "2010-12-01"'),
    (order(event_time_ms=2**63), "out_of_range", "fits 64 bits, found 9223372036854775808"),
    (order(event_time_ms=-(2**63) - 1), "out_of_range", "found -9223372036854775809"),
    (order_with_text("event_time_ms", b"9" * 400), "out_of_range", "found 999"),
    (order_with_text("event_time_ms", b"9" * 20_000), "out_of_range", "found 999"),
    (order(customer_id=17850), "wrong_type", "`customer_id` must be text or null, found a number of 5 bytes"),
    (order(customer_id={"mail": "jane.doe@example.com"}), "wrong_type", "or null, found an object of 32 bytes"),
    (order(customer_id=["jane"]), "wrong_type", "`customer_id` must be text or null, found an array of 8 bytes"),
    (order(customer_id=True), "wrong_type", "`customer_id` must be text or null, found true"),
    (
        order_with_text("customer_id", rb'"\ud800jane"'),
        "not_json",
        "the value is not JSON: ",
    ),
    (order_with_text("customer_id", b'"jane\xff"'), "not_json", "the value is not UTF-8: byte 0xff at "),
    (order()[:-1] + b',"unit_price":-1,"unit_price":2}', "wrong_type", "names a field twice"),
]


@pytest.mark.parametrize(("value", "code", "fragment"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_an_unusable_order_is_refused_with_its_code_and_a_sentence(
    value: bytes | None, code: str, fragment: str
) -> None:
    columns, refusals = decode_orders([value])
    assert len(columns.sku) == 0
    assert [(refusal.row, refusal.code) for refusal in refusals] == [(0, code)]
    assert fragment in refusals[0].error
    assert len(refusals[0].error) < 300
    assert refusals[0].error.isprintable()


def test_no_sentence_quotes_whom_a_record_tells_of() -> None:
    who = "jane.doe@example.com"
    for value in (
        order(customer_id={"mail": who}),
        order(customer_id=who, sku=None),
        order(customer_id=who)[:-1],
        order(customer_id=who)[:-9],
        order_with_text("customer_id", f'"{who}\\ud800"'.encode()),
        order_with_text("customer_id", f'"{who}'.encode() + b'\xff"'),
        f"3;22423;{who}".encode(),
        json.dumps([who]).encode(),
        json.dumps(who).encode(),
        json.dumps(who).encode()[:-1],
    ):
        (refusal,) = decode_orders([value])[1]
        assert who[4:] not in refusal.error, refusal
    for value in ({**CLICK, "session_id": {"of": who}}, {**CLICK, "session_id": [who]}):
        (refusal,) = decode_clicks([json.dumps(value).encode()])[1]
        assert who[4:] not in refusal.error, refusal
    for name in ("session_id", "SessionID", "SESSION-ID"):
        for encoding in ("utf-8", "utf-16-le"):
            (refusal,) = decode_clicks([json.dumps({name: who}).encode(encoding)[:-4]])[1]
            assert who[4:] not in refusal.error.replace("\\x00", ""), refusal


def test_unusable_records_leave_the_rest_of_the_batch_as_it_would_be_without_them() -> None:
    good = [order(event_id=f"e{i}", sku=f"s{i % 7}", quantity=i / 4) for i in range(len(UNUSABLE) + 1)]
    mixed: list[bytes | None] = [good[0]]
    for (bad, _, _), value in zip(UNUSABLE, good[1:], strict=True):
        mixed += [bad, value]
    columns, refusals = decode_orders(mixed)
    alone, none = decode_orders(good)
    assert none == []
    assert [refusal.row for refusal in refusals] == list(range(1, len(mixed), 2))
    assert [refusal.code for refusal in refusals] == [code for _, code, _ in UNUSABLE]
    assert columns.row.tolist() == list(range(0, len(mixed), 2))
    assert columns.event_id == alone.event_id
    assert columns.sku == alone.sku
    np.testing.assert_array_equal(columns.quantity, alone.quantity)
    np.testing.assert_array_equal(columns.event_time_ms, alone.event_time_ms)


def test_no_value_is_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    decode = msgspec.json.Decoder(OrderLine).decode

    def counting(value: bytes) -> OrderLine:
        seen.append(value)
        return decode(value)

    monkeypatch.setattr("schemas.decoding._ORDERS.decode", counting)
    values = [order(event_id=f"e{i}") if i % 10 else b"{" for i in range(200)]
    _, refusals = decode_orders(values)
    assert len(refusals) == 20
    assert seen == values


def test_columns_have_the_promised_types_also_when_empty() -> None:
    for values in ([], [b"{"], [order()]):
        orders, _ = decode_orders(values)
        assert (orders.row.dtype, orders.event_time_ms.dtype) == (np.int32, np.int64)
        assert (orders.quantity.dtype, orders.unit_price.dtype) == (np.float64, np.float64)
    for values in ([], [b"{"], [json.dumps(CLICK).encode()]):
        clicks, _ = decode_clicks(values)
        assert (clicks.row.dtype, clicks.kind.dtype, clicks.event_time_ms.dtype) == (np.int32, np.int8, np.int64)
    for values in ([], [b"{"], [json.dumps(PRICE).encode()]):
        prices, _ = decode_price_changes(values)
        assert (prices.row.dtype, prices.price.dtype, prices.event_time_ms.dtype) == (np.int32, np.float64, np.int64)


def test_what_is_odd_but_allowed_is_kept() -> None:
    values = [
        order(quantity=-3),
        order(quantity=0.396, unit_price=0),
        order(quantity=1e18, unit_price=1e12, event_time_ms=-(2**63)),
        order(sku="x" * MAX_SKU_BYTES, event_time_ms=2**63 - 1),
        order(sku=" a\u00a0\u200cb ", customer_id=None, channel=None),
        order_with_text("new_field", rb'{"anything": [1e400, null, {"deep": [[]]}]}'),
        order_with_text("new_field", b"1" * 20_000),
        order()[:-1] + b',"quantity":7}',
        b"\n\t " + order() + b" \r\n",
    ]
    columns, refusals = decode_orders(values)
    assert refusals == []
    assert columns.quantity.tolist() == [-3, 0.396, 1e18, 6, 6, 6, 6, 7, 6]
    assert columns.unit_price.tolist()[:3] == [2.55, 0, 1e12]
    assert columns.event_time_ms.tolist()[2:4] == [-(2**63), 2**63 - 1]
    assert columns.sku[3:5] == ["x" * MAX_SKU_BYTES, " a\u00a0\u200cb "]


def test_clicks_count_their_kinds_and_refuse_others() -> None:
    values = [json.dumps({**CLICK, "kind": kind}).encode() for kind in ("purchase", "view", "hover", "cart", 1)]
    columns, refusals = decode_clicks(values)
    assert columns.kind.tolist() == [2, 0, 1]
    assert columns.row.tolist() == [0, 1, 3]
    assert [(refusal.row, refusal.code) for refusal in refusals] == [(2, "out_of_range"), (4, "wrong_type")]
    assert refusals[0].error == '`kind` must be one of "view", "cart", "purchase", found "hover"'


def test_price_changes_must_be_above_zero_and_of_a_known_kind() -> None:
    changes: list[dict[str, object]] = [{}, {"price": 0}, {"price": -1}, {"kind": "gift"}, {"previous_price": "3"}]
    columns, refusals = decode_price_changes([json.dumps({**PRICE, **change}).encode() for change in changes])
    assert columns.price.tolist() == [2.95]
    assert columns.currency == ["GBP"]
    assert [refusal.code for refusal in refusals] == ["out_of_range", "out_of_range", "out_of_range", "wrong_type"]
    assert refusals[0].error == "`price` must be a number above 0 and up to 1e12, found 0"
    assert refusals[3].error == '`previous_price` must be a number or null, found "3"'


@pytest.mark.parametrize("message", [OrderLine, Click, PriceChange])
def test_every_field_of_an_input_has_a_rule_to_be_explained_by(message: type[msgspec.Struct]) -> None:
    fields = [field.name for field in msgspec.structs.fields(message)]
    assert ["sku", *(rule.name for rule in rules_of(message))] == sorted(fields, key=lambda name: name != "sku")


def test_a_field_without_a_rule_is_a_mistake_at_import() -> None:
    class Bare(msgspec.Struct):
        sku: str
        note: str

    with pytest.raises(TypeError, match=r"Meta\(extra=\.\.\.\)"):
        rules_of(Bare)

"""Letters without personal data: pseudonyms, removal, what is kept byte for byte, and what is removed whole."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from schemas.errors import BadSetting
from schemas.refusals import MAX_VALUE_BYTES
from streams.config import personal
from streams.config.personal import Masker, masker
from streams.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Set
    from pathlib import Path

    from schemas.personal import PersonalValue

WHO = "jane.doe@example.com"
KEY = b"0123456789abcdef"
MASKER = Masker(KEY)
REMOVER = Masker()
PSEUDONYM = re.compile(r"hm1:[0-9a-f]{32}")


def order(**changes: Any) -> bytes:  # noqa: ANN401 - JSON values
    return json.dumps({"event_id": "e", "sku": "22423", "customer_id": WHO} | changes, ensure_ascii=False).encode()


def masked(value: bytes, *, by: Masker = MASKER) -> bytes:
    record = by.mask(None, value, [])
    assert record.value is not None
    return record.value


def test_a_customer_becomes_the_same_pseudonym_in_every_letter_and_the_rest_stays_byte_for_byte() -> None:
    one = masked(b'{"sku" : "1","customer_id":\n"' + WHO.encode() + b'", "quantity":"?"} ')
    found = PSEUDONYM.search(one.decode())
    assert found is not None
    assert found[0] == "hm1:" + hmac.new(KEY, WHO.encode(), hashlib.sha256).hexdigest()[:32]
    assert one == b'{"sku" : "1","customer_id":\n"%b", "quantity":"?"} ' % found[0].encode()
    assert json.loads(masked(order()))["customer_id"] == found[0]
    assert json.loads(masked(order(), by=Masker(b"another key of 16 bytes")))["customer_id"] != found[0]


def test_without_a_key_a_customer_is_removed() -> None:
    assert json.loads(masked(order(), by=REMOVER)) == {"event_id": "e", "sku": "22423", "customer_id": None}


@pytest.mark.parametrize(
    "value",
    [
        b'{"sku": "a", "customer_id": null}',
        b'{"customer_id":""}',
        b'{"sku": "customer card", "note": "customer_id"}',
        b'{"sku": {"a": ["customer_id", 1]}}',
        b"{}",
        b' {"quantity": NaN, "customer_id" : null}',
        b'{"quantity": NaN, "customer_id": "", "sku": "caf\xe9"}',
        b'{"sku": "a", "customer_id": nu',
        b'{"sku": "a", "custom',
        b'{"sku": "a", "customer_id',
        b'{"a":' * 50_000,
        b"{not json",
        b"",
        None,
    ],
)
def test_what_tells_of_nobody_is_kept_byte_for_byte(value: bytes | None) -> None:
    headers: list[tuple[str, bytes | None]] = [("trace", b"7"), ("none", None)]
    for by in (MASKER, REMOVER):
        record = by.mask(b"key", value, headers)
        assert (record.key, record.value, record.headers, record.ours) == (b"key", value, headers, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"customer_id": {"mail": WHO, "name": ["x", {"y": WHO}]}},
        {"customer_id": [WHO]},
        {"customerId": WHO},
        {"Customer-ID": WHO},
        {"customer": {"id": WHO}},
        {"event_id": "\N{LATIN SMALL LETTER E WITH ACUTE}", "customer_id": WHO},
        {"order": {"lines": [{"customer_id": WHO}, {"customer_id": WHO}]}},
        {"email": WHO, "phone": "jane.doe", "browser_ip": "jane.doe"},
        {"billing_address": {"first_name": WHO, "address1": WHO, "zip": "jane.doe"}, "shipping": {"address-2": WHO}},
        {"buyer": {"EmailAddress": WHO}, "recipientName": WHO, "client_details": {"user_agent": "jane.doe"}},
        {"customer_firstname": WHO, "customer_dob": "jane.doe", "x_forwarded_for": "jane.doe"},
        {"customer_ip_address": WHO, "shipping": {"company": WHO, "city": "jane.doe", "postcode": "jane.doe"}},
        {"customer_details": {"name": WHO, "tax_ids": ["jane.doe"]}, "shipping_details": {"name": WHO}},
        {"context": {"traits": {"name": WHO}, "device": {"id": "jane.doe"}}, "user_pseudo_id": "jane.doe"},
        {"payload": json.dumps({"email": WHO, "n": [1]}), "contacts": [{"name": "jane.doe"}]},
        {"customer_no": WHO, "guest_id": "jane.doe", "buyer_id": "jane.doe"},
        {"buyer_email_address": WHO, "billing_email": WHO, "client_name": WHO, "ship_to_name": "jane.doe"},
    ],
)
def test_a_customer_is_found_however_it_is_written(changes: dict[str, Any]) -> None:
    for by in (MASKER, REMOVER):
        found = masked(order(**changes), by=by)
        assert WHO[5:] not in found.decode()
        assert json.loads(found)["sku"] == "22423"


@pytest.mark.parametrize(
    "value",
    [
        rb'{"customer_id": "jane", "customer_id": "doe"}',
        rb'{"cust\u006fmer_id": "jane", "c": "doe"}'.replace(b'"doe"', b"0"),
        rb'{"customer_id": "\u006aane", "x": "\\\"customer_id\\\":"}',
        rb'{"customer_id":"jane\"doe"}',
        rb'{"customer_id":12345678}',
        rb'{"a":{"customer_id":true}}',
    ],
)
def test_no_spelling_gets_past(value: bytes) -> None:
    found = masked(value)
    assert not re.search(rb"jane|doe|u006aane|12345678|true", found)
    assert PSEUDONYM.search(found.decode())
    json.loads(found)


@pytest.mark.parametrize(
    "value",
    [
        order()[:-1],
        order()[:-9],
        order() + b"x",
        order().replace(b'"e"', b"NaN"),
        order().replace(b'"e"', b'"\xff"'),
        b'{"sku": "a", "x": {"custo\x80r_id": "' + WHO.encode() + b'"}}',
        order().decode().encode("utf-16-le"),
        order().decode().encode("utf-16"),
        b"\xef\xbb\xbf" + order(),
        b"{'customer_id': '" + WHO.encode() + b"'}",
        b"{customerId: '" + WHO.encode() + b"'}",
        rb'{"c\u0075stomer_id": "%b", "quantity": NaN}' % WHO.encode(),
        b"customer_id=" + WHO.encode(),
        b"3;22423;" + WHO.encode(),
        b"[" + order() + b"]",
        json.dumps(order().decode()).encode(),
        json.dumps(WHO).encode(),
        b"\x00\x01" + WHO.encode(),
        json.dumps({f"{n}": {"customer_id": f"{WHO}{n}"} for n in range(100)}).encode(),
        b'{"sku": "a", "email": "jane',
        b'{"sku": "a", "ShippingAddress": {"zip": "12345", NaN',
        b'{"sku": "a", "note": "ask jane@doe.com", ',
    ],
    ids=range(22),
)
def test_a_record_that_cannot_be_picked_apart_is_removed_with_its_length_told(value: bytes) -> None:
    for by in (MASKER, REMOVER):
        record = by.mask(b"22423", value, [("trace", WHO.encode())])
        assert (record.key, record.value, record.headers) == (b"22423", None, [])
        assert dict(record.ours)["removed_bytes"] == b"%d" % len(value)
        assert ("removed_hmac" in dict(record.ours)) is bool(by.key)


def test_a_record_is_not_taken_apart_where_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """31 MiB of such names held the event loop up for 23 s, on the way to a dead letter `too_large`."""
    sought: list[int] = []
    find = personal.personal_values

    def counting(value: bytes, names: Set[str]) -> Iterator[PersonalValue]:
        for each in find(value, names):
            sought.append(len(value))
            yield each

    monkeypatch.setattr(personal, "personal_values", counting)
    one = b'"customer_id":"%b",' % WHO.encode()
    for count in (5_000, 1_000_000):  # below what an event may have, and far above
        value = b"{" + one * count + b'"sku":"22423"}'
        record = MASKER.mask(b"22423", value, [])
        assert (record.value, dict(record.ours)["removed_bytes"]) == (None, b"%d" % len(value))
    assert len(sought) <= 1_025, "where an event may be"
    assert max(sought) <= MAX_VALUE_BYTES
    harmless = b'{"sku":"22423","note":"' + b"x" * MAX_VALUE_BYTES + b'"}'
    assert MASKER.mask(b"22423", harmless, []).value == harmless


def test_the_key_the_headers_and_the_sentence_are_looked_through_too() -> None:
    who = WHO.encode()
    record = MASKER.mask(who, order(), [("customer-id", who), ("trace", b"of " + who), ("n", None), ("t", b"7")])
    assert WHO not in repr(record.headers)
    assert [name for name, _ in record.headers] == ["customer-id", "trace", "n", "t"]
    assert (record.headers[2:], PSEUDONYM.fullmatch((record.key or b"").decode()) is not None) == (
        [("n", None), ("t", b"7")],
        True,
    )
    assert who not in record.hide(b"event of " + who)
    for nested in ({"mail": WHO, "n": ["x"]}, [[WHO]], {"a": {"b": WHO}}):
        for by in (MASKER, REMOVER):
            found = by.mask(who, order(customer_id=nested), [("trace", b"of " + who)])
            assert WHO not in f"{found.key!r} {found.value!r} {found.headers!r} {found.hide(who)!r}"
    assert REMOVER.mask(b"17850123", order(customer_id={"id": 17850123}), []).key is None
    assert REMOVER.mask(who, order(), []).key is None
    assert MASKER.mask(b"22423", order(customer_id="22423"), []).key == b"22423", "a SKU that a customer is called too"
    assert MASKER.mask(b"17850-x", order(customer_id="1"), [("n", b"101")]).headers == [("n", b"101")]


@pytest.mark.parametrize("name", ["sku", "product_name", "shipping", "delivery", "name", "currency", "device_count"])
def test_what_a_mended_event_needs_is_kept(name: str) -> None:
    assert json.loads(masked(order(**{name: "22423"})))[name] == "22423"


def test_of_a_bus_the_mapping_says_who_else_is_a_person_and_what_cannot_be_read_is_removed() -> None:
    names = frozenset({"kundennr"})
    value = json.dumps({"order": 1, "kunden_nr": WHO, "x": json.dumps({"kundenNr": WHO})}).encode()
    found = MASKER.mask(b'{"id": "jane.doe"}', value, [], names=names)
    assert WHO not in repr(found.value)
    assert "jane" not in repr(found.key)
    assert MASKER.mask(b"1001", value, [], names=names).key == b"1001"
    assert MASKER.mask(None, b'{"order": 1, "q":', [], names=names).value is None


@pytest.mark.parametrize("value", [None, b"", b'{"sku":', b"\0\0\0\0\x01jane.doe"])
def test_headers_and_where_it_may_be_of_a_person_the_key_are_hidden_whatever_the_value_is(value: bytes | None) -> None:
    who = WHO.encode()
    for by in (MASKER, REMOVER):
        found = by.mask(who, value, [("email", who), ("user-id", who), ("trace", b"7")], names=frozenset())
        assert WHO not in repr(found.headers)
        assert WHO not in repr(found.key)
        if value:
            assert found.headers == []
            assert found.hide(b"who is '" + who + b"', which is no number; it's late") == (
                b"who is (not shown), which is no number; it's late"
            )
        else:
            assert ("trace", b"7") in found.headers
    assert MASKER.mask(b"22423", b"\0\0jane.doe", []).key == b"22423", "a SKU"


def test_a_pseudonym_stays_the_same_when_its_record_is_sent_again() -> None:
    once = masked(order())
    assert masked(once) == once


def test_all_is_kept_where_the_settings_say_so() -> None:
    record = masker("keep", "").mask(WHO.encode(), order(), [("customer_id", WHO.encode())])
    assert (record.key, record.value, record.headers) == (WHO.encode(), order(), [("customer_id", WHO.encode())])


def test_the_settings_make_the_masker(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert load(environment={}).masker == REMOVER
    environment = {"SKUTREND_PERSONAL_KEY_FILE": str(path)}
    assert load(environment=environment).masker == MASKER
    assert load(environment={**environment, "SKUTREND_PERSONAL": "remove"}).masker == REMOVER
    assert KEY.decode() not in repr(load(environment=environment).masker)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"short\n", "holds 5 bytes; a key has at least 16")]
)
def test_a_key_file_that_cannot_be_used_is_reported(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSetting, match=rf"{path} of SKUTREND_PERSONAL_KEY_FILE.*{why}"):
        load(environment={"SKUTREND_PERSONAL_KEY_FILE": str(path)})

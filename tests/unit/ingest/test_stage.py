"""Messages of a bus made into events: envelopes, several events of one message, changes and what is gone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoding import decode_orders
from streams.ingest.changes import UNCHANGED
from streams.ingest.stage import NOT_JSON, TOMBSTONE, UNMAPPED, Made, Stage
from streams.intake.convert import Local
from streams.intake.mapping import MappingFile, parse
from tests.support.examples import examples

T0 = 1_700_000_000_000
MAPPING = """
name = "bus"
title = "orders of a bus"
[orders]
format = "json"
topics = ["shop.orders"]
envelope = "ENVELOPE"
each = "lines"
time = "ms"
[orders.fields]
order_id = "parent.id"
sku = "article.sku"
quantity = "pieces"
unit_price = { from = "cents", minor_units = true }
currency = "parent.currency"
event_time_ms = "parent.at"
[[orders.leave_out]]
when = "parent.test"
reason = "test order"
"""


@dataclass
class Said:
    """A message."""

    content: bytes | None
    head: list[tuple[str, bytes | None]] = field(default_factory=list)
    at: int = 0
    of: bytes | None = None
    hours: int | None = None

    def key(self) -> bytes | None:
        return self.of

    def timestamp(self) -> tuple[int, int]:
        return (0, -1) if self.hours is None else (1, T0 + self.hours * 3_600_000)

    def topic(self) -> str:
        return "shop.orders"

    def value(self) -> bytes | None:
        return self.content

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self.at

    def headers(self) -> list[tuple[str, bytes | None]]:
        return self.head


def mapping(envelope: str = "none") -> MappingFile:
    return parse(MAPPING.replace("ENVELOPE", envelope), "bus.toml")


def line(sku: object = "A", pieces: object = 2, cents: object = 1_050) -> dict[str, Any]:
    return {"article": {"sku": sku}, "pieces": pieces, "cents": cents}


def order(number: int = 7, *lines: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"id": number, "currency": "EUR", "at": T0, "lines": list(lines) or [line()], **more}


def run(*values: object, envelope: str = "none", frame: bytes = b"") -> Made:
    said = [
        Said(value if isinstance(value, bytes | None) else frame + json.dumps(value).encode(), at=at)
        for at, value in enumerate(values)
    ]
    return Stage(mapping(envelope), Local()).run(said)


def lines_of(made: Made) -> list[tuple[str, str, float, float, int]]:
    """Id, SKU, quantity, price and hours after T0 of the order lines that go out, as the worker decodes them."""
    keys, values = made.records.get("orders", ([], []))
    found, refused = decode_orders(values)
    assert refused == []
    assert keys == [sku.encode() for sku in found.sku]
    columns = found.quantity.tolist(), found.unit_price.tolist(), found.event_time_ms.tolist()
    return [
        (event_id, sku, quantity, price, (time - T0) // 3_600_000)
        for event_id, sku, quantity, price, time in zip(found.event_id, found.sku, *columns, strict=True)
    ]


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\0\x07"], ids=["plain", "framed by a registry"])
def test_one_message_makes_a_line_each_keyed_by_sku(frame: bytes) -> None:
    made = run(order(7, line("A"), line("B", 1, 300)), order(8), frame=frame)
    assert lines_of(made) == [("7/1", "A", 2, 10.5, 0), ("7/2", "B", 1, 3.0, 0), ("8/1", "A", 2, 10.5, 0)]
    assert (made.letters, made.left_out) == ([], {})


def test_what_cannot_be_used_is_a_letter_each_and_the_other_lines_go_out() -> None:
    bad = order(9, line(""), line("B"), line("C", "many"), line("D", 1, -5), line("E", 10**30))
    made = run(b"no json", b"[1]", order(7), bad, {"id": 1}, b"\0\0\0\0\x07nor this", order(8, test=True))
    assert [event_id for event_id, *_ in lines_of(made)] == ["7/1", "9/2"]
    assert [(letter.at, letter.code) for letter in made.letters] == [
        (0, NOT_JSON), (1, NOT_JSON), (3, UNMAPPED), (4, UNMAPPED), (5, NOT_JSON),
    ]  # fmt: skip
    said = [letter.error for letter in made.letters]
    assert said[2] == "the value, lines 1: no sku"
    assert "no lines: there is no list" in said[3]
    assert "behind a schema registry's frame is no JSON" in said[4]
    assert made.left_out == {"test order": 1}


@pytest.mark.parametrize("order_id", ["7", None], ids=["of an order", "of none"])
def test_messages_without_an_id_are_named_by_their_place_whatever_lies_beside_them(order_id: str | None) -> None:
    """Lines of one order were counted over neighbours: read again from the second on, it was taken for the first."""
    text = MAPPING.replace('each = "lines"\n', "").replace("ENVELOPE", "none").replace("parent.", "")
    one = {"id": order_id, "currency": "EUR", "at": T0, **line("A")}
    messages = [Said(json.dumps(one).encode(), at=at) for at in (5, 6, 7)]
    ids = [
        [event_id for event_id, *_ in lines_of(Stage(parse(text, "x"), Local()).run(messages[n:]))] for n in range(3)
    ]
    assert ids[0][1:] == ids[1]
    assert ids[1][1:] == ids[2]
    assert ids[0] == [f"7/shop.orders/3@{at}" if order_id else f"shop.orders/3@{at}" for at in (5, 6, 7)]


def test_lines_of_a_message_without_an_order_are_named_by_its_place() -> None:
    made = run({"currency": "EUR", "at": T0, "lines": [line("A"), line("A")]})
    assert [event_id for event_id, *_ in lines_of(made)] == ["shop.orders/3@0/1", "shop.orders/3@0/2"]


def test_a_line_that_a_worker_would_refuse_is_a_letter() -> None:
    made = run(order(7, line("A\x07"), line("B")), order(8, line("C", 2e18)))
    assert [event_id for event_id, *_ in lines_of(made)] == ["7/2"]
    assert [(letter.at, letter.code) for letter in made.letters] == [(0, "control_character"), (1, "out_of_range")]


@pytest.mark.parametrize("pieces", [10**400, "nan", "inf", "1e999", -(10**400)])
def test_a_number_that_is_none_makes_a_letter_and_not_an_end(pieces: object) -> None:
    """A whole number of 400 digits ended the stage, and would again after each restart."""
    made = run(order(7, line("A", pieces), line("B")), order(8))
    assert [event_id for event_id, *_ in lines_of(made)] == ["7/2", "8/1"]
    assert [(letter.at, letter.code) for letter in made.letters] == [(0, UNMAPPED)]


@pytest.mark.parametrize("at", ["inf", "-inf", 10**30, 10**400, "1e300"])
def test_a_time_beyond_all_time_makes_a_letter(at: object) -> None:
    made = run(order(7, at=at), order(8))
    assert [event_id for event_id, *_ in lines_of(made)] == ["8/1"]
    assert [(letter.at, letter.code) for letter in made.letters] == [(0, UNMAPPED)]


def test_lines_to_which_a_mapping_gives_one_id_all_go_out() -> None:
    """Whether they are one is for the worker to judge, and to count; the last one alone went out."""
    text = MAPPING.replace("ENVELOPE", "none").replace("order_id =", 'event_id = "parent.id"\norder_id =', 1)
    made = Stage(parse(text, "bus.toml"), Local()).run([Said(json.dumps(order(7, line("A"), line("B"))).encode())])
    assert [(event_id, sku) for event_id, sku, *_ in lines_of(made)] == [("7", "A"), ("7", "B")]


def test_no_letter_quotes_whom_it_tells_of() -> None:
    text = MAPPING.replace("ENVELOPE", "none").replace("[[orders", 'customer_id = "parent.who"\n[[orders', 1)
    said = Said(json.dumps(order(7, who=["ann@example.test"])).encode())
    (letter,) = Stage(parse(text, "bus.toml"), Local()).run([said]).letters
    assert (
        letter.error
        == "the value, lines 1: customer_id cannot be read: parent.who is not shown, which is a list, expected text"
    )
    (letter,) = (
        Stage(parse(text, "bus.toml"), Local()).run([Said(json.dumps(order(7, line("A", "x"))).encode())]).letters
    )
    assert "pieces is 'x', which is no number" in letter.error


def test_cloud_events_are_opened_in_both_modes() -> None:
    structured = {"specversion": "1.0", "type": "order.placed", "source": "/shop", "id": "1", "data": order(7)}
    assert lines_of(run(structured, envelope="cloudevents")) == [("7/1", "A", 2, 10.5, 0)]
    binary = Said(json.dumps(order(8)).encode(), [("ce_specversion", b"1.0"), ("ce_type", b"order.placed")])
    made = Stage(mapping("cloudevents"), Local()).run([binary])
    assert lines_of(made) == [("8/1", "A", 2, 10.5, 0)]
    for bad in (order(7), structured | {"data": "text"}):
        (letter,) = run(bad, envelope="cloudevents").letters
        assert letter.code == NOT_JSON
        assert "CloudEvent" in letter.error


def change(op: str, before: object, after: object, hours: int = 0, **more: object) -> dict[str, Any]:
    return {"op": op, "before": before, "after": after, "ts_ms": T0 + hours * 3_600_000, **more}


def test_rows_that_are_new_or_read_once_are_orders() -> None:
    made = run(change("c", None, order(7)), {"schema": {}, "payload": change("r", None, order(8))}, envelope="debezium")
    assert [event_id for event_id, *_ in lines_of(made)] == ["7/1", "8/1"]


def test_a_status_change_is_no_second_sale() -> None:
    made = run(change("u", order(7, state="new"), order(7, state="paid")), envelope="debezium")
    assert lines_of(made) == []
    assert made.left_out == {UNCHANGED: 1}


def test_a_changed_quantity_is_the_difference_and_a_line_that_is_gone_its_opposite() -> None:
    before = order(7, line("A", 2), line("B", 1), line("C", 1, 300))
    after = order(7, line("A", 5), line("B", 1), line("C", 1, 250), line("D", 4))
    made = run(change("u", before, after, hours=3), envelope="debezium")
    assert lines_of(made) == [
        ("7/1/change/shop.orders/3@0", "A", 3, 10.5, 3),
        ("7/3/change/shop.orders/3@0", "C", 1, 2.5, 3),
        ("7/3/gone/shop.orders/3@0", "C", -1, 3.0, 3),
        ("7/4/change/shop.orders/3@0", "D", 4, 10.5, 3),
    ]


def test_lines_of_one_id_cannot_be_told_apart_when_their_order_changes() -> None:
    text = MAPPING.replace("ENVELOPE", "debezium").replace("order_id =", 'event_id = "parent.id"\norder_id =', 1)
    value = change("u", order(7, line("A"), line("B")), order(7, line("A", 5), line("B", 3)))
    made = Stage(parse(text, "bus.toml"), Local()).run([Said(json.dumps(value).encode())])
    assert lines_of(made) == []
    (letter,) = made.letters
    assert letter.error.endswith("event_id '7' is that of another line, too: it must be unique per line")


def test_a_deleted_order_is_cancelled_and_the_tombstone_after_it_says_nothing_more() -> None:
    made = run(change("d", order(7, line("A", 2), line("B", 1)), None, hours=2), None, envelope="debezium")
    assert lines_of(made) == [
        ("7/1/gone/shop.orders/3@0", "A", -2, 10.5, 2),
        ("7/2/gone/shop.orders/3@0", "B", -1, 10.5, 2),
    ]
    assert made.left_out == {TOMBSTONE: 1}


def test_a_delete_without_the_row_before_says_what_to_set() -> None:
    (letter,) = run(change("d", None, None), envelope="debezium").letters
    assert "REPLICA IDENTITY FULL" in letter.error
    assert run({"op": 7}, envelope="debezium").letters[0].code == NOT_JSON


def test_an_update_without_the_row_before_is_no_new_sale() -> None:
    """PostgreSQL's default: it was counted again."""
    made = run(change("u", None, order(7)), envelope="debezium")
    assert lines_of(made) == []
    (letter,) = made.letters
    assert "REPLICA IDENTITY FULL" in letter.error


def test_a_delete_that_tells_the_key_alone_says_what_to_set() -> None:
    (letter,) = run(change("d", {"id": 7}, None), envelope="debezium").letters
    assert "the row before cannot be read" in letter.error
    assert "REPLICA IDENTITY FULL" in letter.error


def test_what_is_neither_a_row_nor_its_change_is_counted() -> None:
    made = run(change("t", None, None), change("m", None, None), envelope="debezium")
    assert made.left_out == {"change of kind 't'": 1, "change of kind 'm'": 1}


def test_a_change_that_is_sent_again_has_the_same_ids() -> None:
    source = {"lsn": 4711, "txId": 3, "ts_ms": T0}
    again = change("u", order(7, line("A", 2)), order(7, line("A", 5)), source=source)
    first, second = lines_of(run(again, again, envelope="debezium"))
    assert first == second == ("7/1/change/4711", "A", 3, 10.5, 0)
    assert lines_of(run(again | {"source": {"file": "bin.1", "pos": 7, "row": 0}}, envelope="debezium"))[0][0] == (
        "7/1/change/bin.1.7.0"
    )


def test_what_follows_a_row_that_could_not_be_read_is_a_letter_too() -> None:
    """Both of them mended add up to how the row is; the change alone would count a second time."""
    bad, good = order(7, line("A", "many")), order(7, line("A", 5))
    made = run(
        change("c", None, bad), change("u", bad, good), change("c", None, order(7, line("A", 4))), envelope="debezium"
    )
    assert [(event_id, quantity) for event_id, _, quantity, *_ in lines_of(made)] == [("7/1", 4)]
    assert [letter.at for letter in made.letters] == [0, 1]
    both_mended = run(
        change("c", None, order(7, line("A", 4))), change("u", order(7, line("A", 4)), good), envelope="debezium"
    )
    assert sum(quantity for _, _, quantity, *_ in lines_of(both_mended)) == 5


def test_equal_lines_without_ids_are_all_taken_back() -> None:
    text = MAPPING.replace("ENVELOPE", "debezium").replace('order_id = "parent.id"\n', "")
    stage = Stage(parse(text, "bus.toml"), Local())
    value = change("d", order(7, line("A", 2), line("A", 2)), None)
    found = lines_of(stage.run([Said(json.dumps(value).encode())]))
    assert [(sku, quantity) for _, sku, quantity, *_ in found] == [("A", -2), ("A", -2)]
    assert len({event_id for event_id, *_ in found}) == 2


def test_a_difference_of_decimals_is_rounded() -> None:
    made = run(change("u", order(7, line("A", 0.1)), order(7, line("A", 0.3))), envelope="debezium")
    assert [quantity for _, _, quantity, *_ in lines_of(made)] == [0.2]


TWO_INPUTS = """
name = "bus"
title = "orders and clicks in one topic"
[orders]
format = "json"
topics = ["shop.orders"]
[[orders.leave_out]]
when = "type != 'order'"
reason = "other kind"
[orders.fields]
event_id = "id"
order_id = "id"
sku = "sku"
quantity = "pieces"
unit_price = "price"
currency = { constant = "EUR" }
event_time_ms = { from = "at", time = "ms" }
[clicks]
format = "json"
topics = ["shop.orders"]
[[clicks.leave_out]]
when = "type != 'view'"
reason = "other kind"
[clicks.fields]
event_id = "id"
session_id = "visit"
sku = "sku"
kind = { constant = "view" }
event_time_ms = { from = "at", time = "ms" }
"""


def test_a_topic_may_hold_events_of_several_inputs() -> None:
    """Those of the first one were lost without a word."""
    both = [
        {"type": "order", "id": "o", "sku": "A", "pieces": 1, "price": 2.0, "at": T0},
        {"type": "view", "id": "c", "sku": "A", "visit": "v", "at": T0},
    ]
    made = Stage(parse(TWO_INPUTS, "bus.toml"), Local()).run([Said(json.dumps(each).encode()) for each in both])
    assert made.letters == []
    assert {kind: len(keys) for kind, (keys, _) in made.records.items()} == {"orders": 1, "clicks": 1}
    assert made.left_out == {"other kind": 2}


def test_messages_of_two_topics_of_one_input_have_different_ids() -> None:
    text = TWO_INPUTS.replace('topics = ["shop.orders"]', 'topics = ["shop.orders", "shop.more"]', 1)
    text = text[: text.index("[clicks]")].replace('event_id = "id"\n', "")
    value = {"type": "order", "id": "o", "sku": "A", "pieces": 1, "price": 2.0, "at": T0}
    said = [Said(json.dumps(value).encode()) for _ in range(2)]
    said[1].topic = lambda: "shop.more"  # type: ignore[method-assign]
    found = lines_of(Stage(parse(text, "bus.toml"), Local()).run(said))
    assert [event_id for event_id, *_ in found] == ["o/shop.orders/3@0", "o/shop.more/3@0"]


@pytest.mark.parametrize(
    "value",
    [
        order(7, line(cents="5.00")),
        order(7, line("A", [[[]]])),
        order(7, {"article": {"sku": json.loads("[" * 900 + "]" * 900)}, "pieces": 1, "cents": 1}),
    ],
    ids=["a text held against a number", "lists", "very deep lists"],
)
def test_whatever_a_message_holds_the_stage_goes_on(value: dict[str, Any]) -> None:
    text = MAPPING.replace("ENVELOPE", "none").replace('when = "parent.test"', 'when = "cents <= `0`"')
    made = Stage(parse(text, "bus.toml"), Local()).run(
        [Said(json.dumps(value).encode()), Said(json.dumps(order(8)).encode())]
    )
    assert lines_of(made)[-1][0] == "8/1"


def test_amounts_that_are_not_there_have_no_minor_units() -> None:
    text = """
name = "bus"
title = "prices"
[price-changes]
format = "json"
topics = ["shop.orders"]
[price-changes.fields]
event_id = "join('-', [id])"
sku = "sku"
price = { from = "now", minor_units = true }
previous_price = { from = "was", minor_units = true }
currency = { constant = "EUR" }
kind = { constant = "list" }
event_time_ms = { from = "at", time = "ms" }
"""
    value = {"id": "p", "sku": "A", "now": 1050, "at": T0}
    made = Stage(parse(text, "bus.toml"), Local()).run([Said(json.dumps(value).encode())])
    (sent,) = made.records["price-changes"][1]
    assert (json.loads(sent)["price"], json.loads(sent)["previous_price"]) == (10.5, None)


def test_the_number_of_a_message_is_its_place_which_a_restart_does_not_change() -> None:
    text = MAPPING.replace("ENVELOPE", "none").replace(
        'order_id = "parent.id"', "order_id = \"join('/', [file, to_string(row)])\""
    )
    stage = Stage(parse(text, "bus.toml"), Local())
    found = [lines_of(stage.run([Said(json.dumps(order(7)).encode(), at=5)]))[0][0] for _ in range(2)]
    assert found == ["shop.orders/shop.orders/3@5/1"] * 2


def test_what_stands_for_no_value_does_so_in_messages_too() -> None:
    text = MAPPING.replace("ENVELOPE", "none").replace('time = "ms"', 'time = "ms"\nmissing = ["", "NULL"]')
    (letter,) = Stage(parse(text, "bus.toml"), Local()).run([Said(json.dumps(order(7, line("NULL"))).encode())]).letters
    assert "no sku" in letter.error


def test_a_new_row_that_is_sent_again_has_the_same_ids_and_two_rows_of_one_position_have_not() -> None:
    text = MAPPING.replace("ENVELOPE", "debezium").replace('order_id = "parent.id"\n', "")
    stage = Stage(parse(text, "bus.toml"), Local())
    rows = [change("c", None, order(7, line(sku)), source={"lsn": 9}) for sku in ("A", "B", "A")]
    said = [Said(json.dumps(each).encode(), at=at) for at, each in enumerate(rows)]
    first, second, third = (event_id for event_id, *_ in lines_of(stage.run(said)))
    assert first == third != second


def test_the_time_of_a_change_is_the_database_s() -> None:
    source = {"lsn": 4, "ts_ms": T0 + 3_600_000}
    made = run(change("u", order(7), order(7, line("A", 5)), hours=9, source=source), envelope="debezium")
    assert [hours for *_, hours in lines_of(made)] == [1]


def test_topics_are_those_of_the_mapping() -> None:
    assert Stage(mapping(), Local()).topics == ["shop.orders"]


lines_drawn = st.lists(st.builds(line, st.sampled_from("ABC"), st.integers(1, 9), st.integers(1, 999)), max_size=4)


@examples(200)
@given(st.lists(lines_drawn, min_size=1, max_size=6), st.booleans())
def test_changes_of_an_order_add_up_to_how_it_is_in_the_end(
    versions: list[list[dict[str, Any]]], is_deleted: bool
) -> None:
    """By SKU and price, whatever was changed in between."""
    states: list[dict[str, Any] | None] = [None, *({**order(7), "lines": lines} for lines in versions)]
    if is_deleted:
        states.append(None)
    changes = []
    for number, (before, after) in enumerate(pairwise(states)):
        op = "c" if before is None else "d" if after is None else "u"
        changes.append(change(op, before, after, hours=number))
    found = lines_of(run(*changes, envelope="debezium"))
    total: dict[tuple[str, float], float] = {}
    for _, sku, quantity, price, _ in found:
        total[sku, price] = total.get((sku, price), 0) + quantity
    expected: dict[tuple[str, float], float] = {}
    for each in (states[-1] or {"lines": []})["lines"]:
        key = (each["article"]["sku"], each["cents"] / 100)
        expected[key] = expected.get(key, 0) + each["pieces"]
    assert {key: units for key, units in total.items() if units} == expected
    ids = [event_id for event_id, *_ in found]
    assert len(set(ids)) == len(ids)

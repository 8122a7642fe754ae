"""Topics whose values are how the row of their key is now: events are what is different, and what is gone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadSetting
from streams.ingest.changes import UNCHANGED
from streams.ingest.stage import GONE, NOT_JSON, TOMBSTONE, UNMAPPED, Made, Stage
from streams.intake.convert import Local
from streams.intake.mapping import parse
from tests.support.examples import examples
from tests.unit.ingest.test_stage import MAPPING, TWO_INPUTS, Said, line, lines_of, mapping, order

AT = ("shop.orders", 3)


class Bus:
    """One partition of an upsert topic, read batch by batch; `known` is what outlives a batch."""

    def __init__(self) -> None:
        self.stage = Stage(mapping("upsert"), Local())
        self.known: dict[bytes, bytes] = {}
        self.at = 0

    def run(self, *messages: tuple[bytes | None, object], hours: int | None = None) -> Made:
        said = []
        for key, value in messages:
            content = value if isinstance(value, bytes | None) else json.dumps(value).encode()
            said.append(Said(content, at=self.at, of=key, hours=hours))
            self.at += 1
        made = self.stage.run(said, lambda topic, partition, key: self.known.get(key))
        self.known |= made.states.get(AT, {})
        return made


def test_a_status_change_is_no_second_sale_and_a_changed_line_is_its_difference() -> None:
    bus = Bus()
    assert lines_of(bus.run((b"7", order(7, line("A", 2), line("B", 1))))) == [
        ("7/1", "A", 2, 10.5, 0),
        ("7/2", "B", 1, 10.5, 0),
    ]
    made = bus.run((b"7", order(7, line("A", 2), line("B", 1), state="paid")))
    assert (lines_of(made), made.left_out) == ([], {UNCHANGED: 1})
    assert lines_of(bus.run((b"7", order(7, line("A", 5))), hours=4)) == [
        ("7/1/change/shop.orders/3@2", "A", 3, 10.5, 4),
        ("7/2/gone/shop.orders/3@2", "B", -1, 10.5, 4),
    ]


def test_a_tombstone_cancels_what_its_key_said_last_at_the_time_it_was_written() -> None:
    bus = Bus()
    bus.run((b"7", order(7)), (b"8", order(8, line("B"))))
    made = bus.run((b"7", None), hours=5)
    assert lines_of(made) == [("7/1/gone/shop.orders/3@2", "A", -2, 10.5, 5)]
    again = bus.run((b"7", None), (b"9", None))
    assert (lines_of(again), again.left_out, again.letters) == ([], {TOMBSTONE: 2}, [])


def test_states_of_one_batch_follow_each_other() -> None:
    made = Bus().run((b"7", order(7)), (b"8", order(8)), (b"7", order(7, line("A", 3))), (b"7", None))
    assert [(event_id, quantity) for event_id, _, quantity, *_ in lines_of(made)] == [
        ("7/1", 2),
        ("8/1", 2),
        ("7/1/change/shop.orders/3@2", 1),
        ("7/1/gone/shop.orders/3@3", -3),
    ]


def test_an_order_that_comes_again_after_its_removal_counts_again() -> None:
    """With the id that it had it would be a duplicate."""
    bus = Bus()
    found = lines_of(bus.run((b"7", order(7)), (b"7", None), (b"7", order(7))))
    assert [quantity for _, _, quantity, *_ in found] == [2, -2, 2]
    assert len({event_id for event_id, *_ in found}) == 3


def test_what_cannot_be_read_changes_nothing_but_for_its_letter() -> None:
    bus = Bus()
    bus.run((b"7", order(7)))
    made = bus.run((b"7", b"{no json"), (b"7", b""), (None, order(8)))
    assert [(letter.at, letter.code) for letter in made.letters] == [(0, NOT_JSON), (1, NOT_JSON), (2, UNMAPPED)]
    assert "no key" in made.letters[2].error
    assert bus.known == {b"7": json.dumps(order(7)).encode()}
    assert [quantity for _, _, quantity, *_ in lines_of(bus.run((b"7", None)))] == [-2]


@pytest.mark.parametrize("bad", ["many", 2e18], ids=["that no mapping reads", "that a worker refuses"])
def test_a_line_that_was_never_counted_is_not_taken_back(bad: object) -> None:
    bus = Bus()
    first = bus.run((b"7", order(7, line("A", bad), line("B", 1))))
    assert [event_id for event_id, *_ in lines_of(first)] == ["7/2"]
    assert len(first.letters) == 1
    mended = bus.run((b"7", order(7, line("A", 4), line("B", 1))))
    assert [(sku, quantity) for _, sku, quantity, *_ in lines_of(mended)] == [("A", 4)]
    worse = bus.run((b"7", order(7, line("A", bad), line("B", 1))))
    assert [(sku, quantity) for _, sku, quantity, *_ in lines_of(worse)] == [("A", -4)]
    assert len(worse.letters) == 1


def test_orders_that_are_left_out_and_then_are_not_count_from_then_on() -> None:
    bus = Bus()
    assert lines_of(bus.run((b"7", order(7, test=True)))) == []
    assert [quantity for _, _, quantity, *_ in lines_of(bus.run((b"7", order(7))))] == [2]
    assert [quantity for _, _, quantity, *_ in lines_of(bus.run((b"7", order(7, test=True))))] == [-2]


def test_states_are_what_running_would_leave() -> None:
    messages = [(b"7", order(7)), (b"8", b"{no"), (b"7", order(7, line("B"))), (b"9", order(9)), (b"9", None)]
    bus = Bus()
    bus.run(*messages)
    said = [Said(value if isinstance(value, bytes | None) else json.dumps(value).encode(), of=key)
            for key, value in messages]  # fmt: skip
    assert bus.stage.states(said) == {AT: bus.known}
    assert bus.known[b"9"] == GONE


def test_inputs_that_share_a_topic_agree_that_it_holds_states() -> None:
    text = TWO_INPUTS.replace('topics = ["shop.orders"]', 'topics = ["shop.orders"]\nenvelope = "upsert"', 1)
    with pytest.raises(BadSetting, match="must all have it"):
        Stage(parse(text, "bus.toml"), Local())


def test_a_file_s_mapping_may_name_it_too() -> None:
    assert parse(MAPPING.replace("ENVELOPE", "upsert"), "bus.toml").inputs["orders"].envelope == "upsert"


pieces = st.sampled_from([1, 2, 7, 0.25, "many", 2e18, -1])
lines_drawn = st.lists(st.builds(line, st.sampled_from(["A", "B", "C", ""]), pieces, st.integers(1, 99)), max_size=4)
values_drawn = st.one_of(
    st.none(),
    st.just(b"{no json"),
    st.builds(lambda lines, test: {**order(7), "lines": lines, "test": test}, lines_drawn, st.booleans()),
)
batches_drawn = st.lists(st.lists(st.tuples(st.sampled_from([b"7", b"8"]), values_drawn), max_size=5), max_size=5)


def units(made: Made) -> dict[tuple[str, float], float]:
    total: dict[tuple[str, float], float] = {}
    for _, sku, quantity, price, _ in lines_of(made):
        total[sku, price] = total.get((sku, price), 0) + quantity
    return total


@examples(200)
@given(batches_drawn)
def test_events_add_up_to_the_latest_states_however_they_are_batched(
    batches: list[list[tuple[bytes, Any]]],
) -> None:
    """Of each key its last state that can be read, of that its lines that can be used; ids are never the same."""
    bus, total, ids = Bus(), dict[tuple[str, float], float](), list[str]()
    latest: dict[bytes, Any] = {}
    for batch in batches:
        made = bus.run(*((key, value | {"id": int(key)} if isinstance(value, dict) else value) for key, value in batch))
        ids += [event_id for event_id, *_ in lines_of(made)]
        for at, sold in units(made).items():
            total[at] = total.get(at, 0) + sold
        latest |= {key: value for key, value in batch if value != b"{no json"}
    expected: dict[tuple[str, float], float] = {}
    for key, value in latest.items():
        if value is not None:
            for at, sold in units(Bus().run((key, value | {"id": int(key)}))).items():
                expected[at] = expected.get(at, 0) + sold
    assert {at: sold for at, sold in total.items() if sold} == {at: sold for at, sold in expected.items() if sold}
    assert len(set(ids)) == len(ids)

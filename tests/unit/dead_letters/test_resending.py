"""Which files `dead-letters replay` refuses; that happens before a broker is asked, so none runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadInput
from schemas.provenance import LAST_OFFSET, Source, dead_letter_headers, left_out
from streams.dead_letters.letter_files import Letter, as_line, read
from streams.dead_letters.resending import Routes, replay_letters, sku_of
from streams.intake.convert import Local
from streams.intake.mapping import parse
from streams.settings import Settings
from tests.support.partitions import T0, click, order, price_change

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(brokers="127.0.0.1:1", topic_prefix="shop.")


def written(path: Path, *letters: tuple[str, bytes | None]) -> Path:
    lines = [as_line(Letter((0, 0, 0), source, "not_json", "?", b"k", value)) for source, value in letters]
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "letters.jsonl"


@pytest.mark.parametrize("topic", ["orders", "shop.windows", "shop.dead-letters", "shop.late-events"])
def test_a_letter_of_another_topic_than_the_inputs_is_refused(file: Path, topic: str) -> None:
    written(file, ("shop.orders[0]@1", order("1", "a", T0)), (f"{topic}[0]@7", order("2", "a", T0)))
    said = rf"line 2 .* comes from {topic}\[0\]@7, which is none of the topics that are known \(shop\.or"
    with pytest.raises(BadInput, match=said):
        replay_letters(SETTINGS, file, force=True)


def test_letters_that_are_still_unusable_are_refused_by_name(file: Path) -> None:
    good = [("shop.orders", order("1", "a", T0)), ("shop.clicks", click("1", "a", T0))]
    good.append(("shop.price-changes", price_change("1", "a", T0, 2.0)))
    letters = [(f"{topic}[0]@{n}", value) for n, (topic, value) in enumerate(good)]
    bad = [("shop.orders[1]@8", click("1", "a", T0)), ("shop.clicks[1]@9", None)]
    written(file, *letters, *bad)
    with pytest.raises(BadInput) as refused:
        replay_letters(SETTINGS, file)
    told = str(refused.value)
    assert "shop.orders[1]@8 in line 4 (wrong_type: `order_id` must be" in told
    assert "shop.clicks[1]@9 in line 5 (empty: " in told
    assert "[0]@" not in told, "the others are fine"
    assert "--force" in told


def test_of_many_unusable_letters_the_first_are_named_and_the_others_counted(file: Path) -> None:
    written(file, *((f"shop.orders[0]@{n}", b"?") for n in range(5_007)))
    with pytest.raises(BadInput, match=r"@4 in line 5 \(.*\) and 5,002 more; ") as refused:
        replay_letters(SETTINGS, file)
    assert "@5 in" not in str(refused.value)


def test_one_letter_mended_in_two_ways_is_refused(file: Path) -> None:
    written(file, ("shop.orders[0]@1", order("1", "a", T0)), ("shop.orders[0]@01", order("1", "b", T0)))
    with pytest.raises(BadInput, match=r"shop\.orders\[0\]@1 is in .* more than once, and line 2 differs"):
        replay_letters(SETTINGS, file, force=True)


def test_a_file_that_cannot_be_read_is_refused(file: Path) -> None:
    file.write_bytes(b"{")
    with pytest.raises(BadInput, match=r"line 1 of .* cannot be read"):
        replay_letters(SETTINGS, file)


@pytest.mark.parametrize(
    ("value", "sku"),
    [
        (order("1", "a", T0), b"a"),
        ('{"sku": "b\N{DEGREE SIGN}"}'.encode(), "b\N{DEGREE SIGN}".encode()),
        (b'{"sku": "first", "sku": "last"}', b"last"),
        (b'{"sku": " "}', None),
        (b'{"sku": 22423}', None),
        (rb'{"sku": "a\u001bb"}', None),
        (b'{"sku": "' + b"x" * 5_000 + b'"}', None),
        (b'{"sku": "torn"', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_key_is_the_sku_where_the_value_has_one(value: bytes | None, sku: bytes | None) -> None:
    assert sku_of(value) == sku


@pytest.mark.parametrize("force", [False, True])
def test_a_letter_that_is_not_whole_is_refused_also_by_force(file: Path, *, force: bool) -> None:
    whole = Letter((0, 0, 0), "shop.orders[0]@1", "not_json", "?", b"k", order("1", "a", T0))
    cut = Letter((0, 0, 0), "shop.orders[0]@2", "too_large", "?", b"k", b"{", "value (of 9,000,000 bytes)")
    file.write_bytes(as_line(whole) + as_line(cut))
    told = r"^line 2 of .* is not all of shop\.orders\[0\]@2, .* lacks value \(of 9,000,000 bytes\): take the line out"
    with pytest.raises(BadInput, match=told):
        replay_letters(SETTINGS, file, force=force)


def test_a_letter_for_a_range_of_offsets_is_refused(file: Path) -> None:
    headers = dead_letter_headers(
        code="too_large", error="much", source=Source(topic="shop.orders", partition=0, offset=2)
    )
    lacks = left_out([*headers, (LAST_OFFSET, b"500")])
    file.write_bytes(as_line(Letter((0, 0, 0), "shop.orders[0]@2", "too_large", "much", None, None, lacks)))
    with pytest.raises(BadInput, match="lacks all of its records, up to offset 500: take the line out"):
        replay_letters(SETTINGS, file, force=True)


def test_a_letter_that_was_made_whole_is_as_good_as_any(file: Path) -> None:
    cut = Letter((0, 0, 0), "shop.orders[0]@2", "too_large", "?", b"k", order("1", "a", T0), "value (of 9 bytes)")
    file.write_bytes(as_line(cut).replace(b'"cut":"value (of 9 bytes)",', b""))
    (mended,) = read(file)
    assert (mended.cut, mended.value) == ("", cut.value)


CLOUD = """
name = "bus"
title = "orders in CloudEvents"
[orders]
format = "json"
topics = ["bus"]
envelope = "cloudevents"
[orders.fields]
event_id = "cloudevent.id"
sku = "sku"
quantity = "pieces"
unit_price = "price"
currency = { constant = "EUR" }
event_time_ms = { from = "at", time = "ms" }
"""


def test_a_letter_of_a_cloudevent_in_binary_mode_keeps_its_attributes(file: Path) -> None:
    value = b'{"sku": "A", "pieces": 2, "price": 2.5, "at": %d}' % T0
    about = {"specversion": "1.0", "id": "e7"}
    file.write_bytes(as_line(Letter((0, 0, 0), "bus[0]@1", "unmapped", "?", b"k", value, cloudevent=about)))
    (letter,) = read(file)
    assert letter.cloudevent == about
    routes = Routes(SETTINGS, (parse(CLOUD, "bus.toml"), Local()))
    assert routes.complaints(letter) == []
    ((topic, key, sent),) = routes.events(letter)
    assert (topic, key) == ("shop.orders", b"A")
    assert b'"event_id":"e7"' in (sent or b"")


def test_a_letter_of_which_no_event_can_be_made_is_not_taken_for_sent_by_force(file: Path) -> None:
    written(file, ("bus[0]@1", b'{"sku": "A"}'))
    with pytest.raises(BadInput, match=r"no event can be made of bus\[0\]@1 in line 1 \("):
        replay_letters(SETTINGS, file, force=True, bus=(parse(CLOUD, "bus.toml"), Local()))


def test_a_letter_of_a_bus_whose_value_was_removed_is_not_taken_for_sent(file: Path) -> None:
    written(file, ("bus[0]@1", None))
    with pytest.raises(BadInput, match="its value was removed, since it may tell of a person: take it from its source"):
        replay_letters(SETTINGS, file, force=True, bus=(parse(CLOUD, "bus.toml"), Local()))

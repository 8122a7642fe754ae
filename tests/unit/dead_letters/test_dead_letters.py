"""What a person sees of the dead letters, and that a file of them keeps every byte."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInput
from schemas.inputs import ORDERS
from streams.dead_letters import letter_files
from streams.dead_letters.letter_files import Letter, Newest, as_line
from streams.dead_letters.listing import UNREADABLE, WIDTH, as_letter, describe, list_letters
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.output_producer import OutputProducer
from tests.support.partitions import T0, order, settings_for
from tests.support.partitions import read_topic as read_embedded
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.settings import Settings

SOURCE = "orders[3]@17"


def letter(
    value: bytes | None = b"{}", *, at_ms: int = T0, offset: int = 0, key: bytes | None = b"k", error: str = "no good"
) -> Letter:
    return Letter((at_ms, 0, offset), SOURCE, "not_json", error, key, value)


# ---------------------------------------------------------------------- on the screen
def test_a_letter_is_reported_with_time_code_source_key_error_and_value() -> None:
    assert list(describe(letter(b'{"sku": "a"', error="the value is not JSON: it ends too early"))) == [
        "2023-11-14 00:00:00 UTC  not_json  orders[3]@17  key k",
        "    the value is not JSON: it ends too early",
        '    {"sku": "a"',
    ]


def test_what_is_not_there_is_named() -> None:
    head, _, value = describe(letter(None, key=None))
    assert head.endswith("no key")
    assert value == "    (no value)"
    assert list(describe(letter(b"")))[-1] == "    (empty value)"
    assert next(describe(letter(at_ms=2**62))).startswith(f"{2**62} ms")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"x" * 76, "x" * 76),
        (b"x" * 77, "x" * 61 + "...  (77 bytes)"),
        ("\N{EURO SIGN}".encode() * 76, "\N{EURO SIGN}" * 76),
        (b"y" * 1_000_000, "y" * 54 + "...  (1,000,000 bytes)"),
        (b"\x1b[2J\n\xff", "\\x1b[2J\\n\\xff"),
    ],
    ids=["fits", "one too many", "characters, not bytes", "large", "nothing that steers a terminal"],
)
def test_of_a_value_the_beginning_is_shown(value: bytes, shown: str) -> None:
    assert list(describe(letter(value)))[-1] == "    " + shown


@given(
    st.none() | st.binary(max_size=400) | st.text().map(str.encode),
    st.none() | st.binary(max_size=400),
    st.text(max_size=300),
)
def test_no_line_is_wider_than_the_screen_or_broken(value: bytes | None, key: bytes | None, error: str) -> None:
    for line in describe(Letter((T0, 0, 0), "p" * 240 + "orders[3]@17", error, error, key, value)):
        assert len(line) <= WIDTH
        assert line.isprintable()


def test_a_letter_that_is_not_whole_says_what_it_lacks() -> None:
    cut = Letter(
        (T0, 0, 0), SOURCE, "too_large", "much", b"k", b"{", "key (of 5,000 bytes), value (of 9,000,000 bytes)"
    )
    assert list(describe(cut))[-2:] == [
        "    not whole, it lacks key (of 5,000 bytes), value (of 9,000,000 bytes)",
        "    {",
    ]


def test_a_value_that_was_removed_is_reported_with_its_length() -> None:
    told = list(describe(Letter((T0, 0, 0), SOURCE, "not_json", "?", b"k", None, removed_bytes=300_000)))
    assert told[-1] == "    (300,000 bytes removed that may tell of a person; see the source)"


# ---------------------------------------------------------------------- in a file
@given(st.lists(st.tuples(st.none() | st.binary(), st.none() | st.binary() | st.text().map(str.encode))))
def test_a_file_gives_keys_and_values_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, letters: list[tuple[bytes | None, bytes | None]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "letters.jsonl"
    made = [letter(value, key=key) for key, value in letters]
    assert letter_files.write(path, map(as_line, made)) == len(letters)
    read = list(letter_files.read(path))
    assert [(each.key, each.value) for each in read] == letters
    assert [(each.line, str(each.source)) for each in read] == [(n, SOURCE) for n in range(1, len(letters) + 1)]


def test_what_editors_do_to_a_file_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + as_line(letter(b"1")).replace(b"\n", b"\r\n") + b"\r\n  \n" + as_line(letter())[:-1]
    )
    assert [(each.line, each.value) for each in letter_files.read(path)] == [(1, b"1"), (4, b"{}")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"source": "orders[3]@17", "value": "{}"', "truncated"),
        (b"null", "Expected `object`"),
        (b'{"value": "{}"}', "missing required field `source`"),
        (b'{"source": "orders 3", "value": "{}"}', r"a source reads topic\[partition\]@offset"),
        (b'{"source": "orders[3]@17", "value": {"sku": "a"}}', r"got `object` - at `\$\.value`"),
        (b'{"source": "orders[3]@17", "vlaue": "{}"}', "unknown field `vlaue`"),
        (b'{"source": "orders[3]@17"}', "it has no `value` and `value_base64`"),
        (b'{"source": "orders[3]@17", "value": "", "value_base64": ""}', "it has both `value` and `value_base64`"),
        (b'{"source": "orders[3]@17", "value_base64": "?"}', "Invalid base64"),
        (b'{"source": "orders[3]@17", "value": "\xff"}', "can't decode byte 0xff|UTF-8|utf-8"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"source": "orders[%s]@17", "value": "{}"}' % (b"9" * 5_000), "digits"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_bytes(as_line(letter()) + line + b"\n")
    with pytest.raises(BadInput, match=rf"line 2 of .*letters\.jsonl cannot be read: .*({why})"):
        list(letter_files.read(path))


def test_a_file_that_cannot_be_written_is_reported_and_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*nowhere.*: No such file or directory"):
        letter_files.write(tmp_path / "nowhere" / "f", [])
    with pytest.raises(BadInput, match="cannot write"), letter_files.spool(tmp_path / "nowhere" / "f"):
        pass
    path = tmp_path / "letters.jsonl"
    path.write_bytes(b"mended by hand")

    def breaking() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(BadInput, match="No space left on device"):
        letter_files.write(path, breaking())
    assert path.read_bytes() == b"mended by hand"
    assert list(tmp_path.iterdir()) == [path]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 50), st.randoms(use_true_random=False))
def test_the_newest_come_last_whatever_the_order_of_reading(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], limit: int, dice: random.Random
) -> None:
    letters = [letter(b"%d" % n, at_ms=at, offset=n) for n, at in enumerate(times)]
    wanted = sorted(letters, key=lambda each: each.place)
    dice.shuffle(letters)
    newest = Newest(limit)
    with letter_files.spool(tmp_path_factory.getbasetemp() / "f") as spool:
        for each in letters:
            newest.add(each)
            spool.add(each)
        assert list(spool.lines()) == [as_line(each) for each in wanted]
    assert newest.ordered() == wanted[-limit:]


# ---------------------------------------------------------------------- from a broker
@pytest.fixture(scope="module")
def dead_lettered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Thirty letters that a worker has written, and one record that somebody else has put among them."""
    with EmbeddedBroker() as broker:
        settings = settings_for(broker.bootstrap, tmp_path_factory.mktemp("state"))
        bench = Bench(settings)
        bench.take(ORDERS, *(b"?%d" % n for n in range(20)), *(order("1", "", T0) for _ in range(10)))
        bench.close()
        foreign = OutputProducer(settings.client, on_error=lambda _: None)
        foreign.put_one(settings.topic("dead-letters"), b"key", b"\xff", [("code", b"mine")])
        foreign.commit(10)
        foreign.close()
        yield settings


def test_letters_are_shown_and_counted_by_code(dead_lettered: Settings) -> None:
    topic = dead_lettered.topic("dead-letters")
    lines = list(list_letters(dead_lettered, code=None, limit=20))
    assert lines[-4:] == [
        f"31 dead letters in {topic}, the newest 20 shown",
        "       20  not_json",
        "       10  missing_sku",
        f"        1  {UNREADABLE}",
    ]
    assert sum(" UTC  " in line for line in lines) == 20


def test_letters_of_one_code_are_picked(dead_lettered: Settings, tmp_path: Path) -> None:
    lines = list(list_letters(dead_lettered, code="missing_sku", limit=20))
    assert lines[-2:] == [
        f"10 dead letters of code missing_sku in {dead_lettered.topic('dead-letters')}",
        "       10  missing_sku",
    ]
    assert "    `sku` must not be blank, found ''" in lines
    out = tmp_path / "none.jsonl"
    none = list(list_letters(dead_lettered, code="nobody", limit=20, out=out, all_out=True))
    assert none[0] == f"0 dead letters of code nobody in {dead_lettered.topic('dead-letters')}"
    assert out.read_bytes() == b""


@pytest.mark.parametrize(("all_out", "count"), [(True, 31), (False, 5)])
def test_the_file_holds_all_letters_or_as_many_as_asked_for(
    dead_lettered: Settings, tmp_path: Path, *, all_out: bool, count: int
) -> None:
    out = tmp_path / "letters.jsonl"
    lines = list(list_letters(dead_lettered, code=None, limit=5, out=out, all_out=all_out))
    assert lines[-1].startswith(f"{count} written to {out}")
    written = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert len(written) == count
    assert sum(" UTC  " in line for line in lines) == 5
    places = [each["source"] for each in written]
    assert len(set(places)) == count
    assert list(tmp_path.iterdir()) == [out], "nothing else is left"


def test_a_line_of_the_file_says_what_the_letter_said(dead_lettered: Settings, tmp_path: Path) -> None:
    out = tmp_path / "letters.jsonl"
    list(list_letters(dead_lettered, code="missing_sku", limit=1, out=out, all_out=True))
    fields = {"code": "missing_sku", "error": "`sku` must not be blank, found ''", "value": order("1", "", T0).decode()}
    assert sorted(map(msgspec.json.decode, out.read_bytes().splitlines()), key=lambda each: each["source"]) == [
        {"source": f"{dead_lettered.topic('orders')}[0]@{n}", "key": f"key{n}", **fields} for n in range(20, 30)
    ]


def test_a_record_that_is_no_letter_of_ours_is_named_by_its_own_place(dead_lettered: Settings) -> None:
    topic = dead_lettered.topic("dead-letters")
    foreign = [m for m in read_embedded(dead_lettered.brokers, topic) if m.value() == b"\xff"]
    (found,) = map(as_letter, foreign)
    assert found.code == UNREADABLE
    assert found.source == f"{topic}[{foreign[0].partition()}]@{foreign[0].offset()}"

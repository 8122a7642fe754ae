"""Dead letters and late events say where they came from, and can be read back."""

import msgspec
import pytest

from schemas.errors import Malformed
from schemas.provenance import (
    DeadLetterHeaders,
    LateEventHeaders,
    Source,
    dead_letter_headers,
    late_event_headers,
    read_dead_letter_headers,
    read_late_event_headers,
)

SOURCE = Source(topic="shop-a.orders", partition=3, offset=17)


def test_a_source_is_written_as_topic_partition_offset_and_read_back() -> None:
    assert str(SOURCE) == "shop-a.orders[3]@17"
    assert Source.parse("shop-a.orders[3]@17") == SOURCE


@pytest.mark.parametrize(
    "text", ["", "orders", "orders[1]", "orders[-1]@2", "orders[1]@2 ", "orders[1]@", "ord ers[1]@2"]
)
def test_anything_else_is_no_source_and_is_quoted(text: str) -> None:
    with pytest.raises(Malformed, match="topic\\[partition\\]@offset") as refused:
        Source.parse(text)
    assert repr(text) in str(refused.value)


def test_dead_letter_headers_are_bytes_and_read_back() -> None:
    headers = dead_letter_headers(code="missing_sku", error="`sku` must name an article, found null", source=SOURCE)
    assert headers == [
        ("code", b"missing_sku"),
        ("error", b"`sku` must name an article, found null"),
        ("source", b"shop-a.orders[3]@17"),
    ]
    assert read_dead_letter_headers([*headers, ("traceparent", None)]) == DeadLetterHeaders(
        code="missing_sku", error="`sku` must name an article, found null", source="shop-a.orders[3]@17"
    )


def test_late_event_headers_write_numbers_in_decimal_and_read_back() -> None:
    headers = late_event_headers(late_by_ms=5, window_start_ms=-86_400_000, source=SOURCE)
    assert headers == [
        ("late_by_ms", b"5"),
        ("window_start_ms", b"-86400000"),
        ("source", b"shop-a.orders[3]@17"),
        ("corrected", b"0"),
    ]
    assert read_late_event_headers(headers) == LateEventHeaders(
        late_by_ms=5, window_start_ms=-86_400_000, source="shop-a.orders[3]@17", corrected=0
    )
    assert read_late_event_headers(headers[:-1]).corrected is msgspec.UNSET, "as earlier versions wrote it"


def test_a_lone_surrogate_in_a_sentence_still_becomes_bytes() -> None:
    assert dead_letter_headers(code="c", error="\ud800", source=SOURCE)[1] == ("error", b"\\ud800")


def test_missing_and_unreadable_headers_are_malformed() -> None:
    with pytest.raises(Malformed, match="source"):
        read_dead_letter_headers([("code", b"c"), ("error", b"e")])
    with pytest.raises(Malformed, match="late_by_ms"):
        read_late_event_headers([("late_by_ms", b"soon"), ("window_start_ms", b"0"), ("source", b"s")])
    with pytest.raises(Malformed, match="late_by_ms"):
        read_late_event_headers([("late_by_ms", b"\xff"), ("window_start_ms", b"0"), ("source", b"s")])

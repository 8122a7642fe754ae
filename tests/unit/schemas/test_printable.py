"""Text of others is shown without doing anything."""

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.printable import printable


@given(st.text(), st.none() | st.integers(3, 40))
@example("\x1b" * 12, 40)
@example("\u202e\ud800\n\U000e0001", None)
@example("a" * 41, 40)
def test_it_is_one_printable_line_within_the_limit_that_says_whether_it_was_cut(text: str, limit: int | None) -> None:
    shown = printable(text, limit)
    whole = printable(text)
    assert shown.isprintable()
    if limit is None or len(whole) <= limit:
        assert shown == whole
    else:
        assert len(shown) <= limit
        assert shown.endswith("...")
        assert whole.startswith(shown.removesuffix("..."))


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" ")))
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    assert printable(text) == text

"""Whatever a record holds beside, a customer is in no letter, and what is kept of the record means what it meant."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.personal import is_personal, letters_of
from streams.config.personal import Masker

CANARY = "canary-7f3a"
NAMES = ["customer_id", "customerId", "CUSTOMER_ID", "customer"]
names = st.text(max_size=6).filter(lambda name: not is_personal(name) and letters_of(name) not in {"client", "device"})
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
somebody = st.just(CANARY) | st.just([CANARY]) | st.just({"mail": f'"{CANARY}\\'})
objects = st.recursive(
    st.dictionaries(names, plain, max_size=3),
    lambda inner: st.dictionaries(names, plain | inner | st.lists(inner, max_size=2), max_size=3),
    max_leaves=4,
).flatmap(lambda d: st.sampled_from(NAMES).flatmap(lambda name: somebody.map(lambda value: {**d, name: value})))
records = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    ),
    objects | st.dictionaries(names, objects, max_size=3),
    st.booleans(),
    st.none() | st.just(1),
)


def without(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same without whom it tells of."""
    if isinstance(value, dict):
        return {k: None if k in NAMES and v not in (None, "") else without(v) for k, v in value.items()}
    return [without(each) for each in value] if isinstance(value, list) else value


@given(records)
def test_a_readable_record_loses_its_customer_and_nothing_else(record: bytes) -> None:
    kept = Masker().mask(None, record, []).value
    if kept is not None:
        assert CANARY.encode() not in kept
        assert without(json.loads(kept)) == without(json.loads(record))
    pseudonyms = Masker(b"0123456789abcdef").mask(None, record, []).value
    assert CANARY.encode() not in (pseudonyms or b"")


@given(records, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3))
def test_a_damaged_record_loses_its_customer_too(record: bytes, at: int, gone: int, put: bytes) -> None:
    damaged = record[: at % (len(record) + 1)] + put + record[at % (len(record) + 1) + gone :]
    for cut in (damaged, record[: at % (len(record) + 1)]):
        kept = Masker().mask(None, cut, []).value or b""
        try:
            is_named = any(name in NAMES for name in json.loads(cut))
        except (ValueError, RecursionError, TypeError):
            is_named = True
        is_named &= b"cust" in cut.lower() or b"omer" in cut.lower()  # else nothing is left of the name
        assert CANARY.encode() not in kept or not is_named

"""Hashing many keys in step gives what hashing each by itself gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.murmur2 import murmur2
from tests.support.examples import examples
from tests.support.java_murmur2 import java_murmur2


@examples(100)
@given(st.lists(st.binary(max_size=40) | st.text(max_size=12).map(lambda text: text.encode(errors="replace"))))
def test_any_keys_hash_as_in_java(keys: list[bytes]) -> None:
    assert murmur2(keys).tolist() == [java_murmur2(key) for key in keys]

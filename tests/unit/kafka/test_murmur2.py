"""Partition numbers against Kafka's own test vectors and a scalar re-implementation of its Java code."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streams.kafka.murmur2 import murmur2, partitions_of
from streams.worker.recent_share import JUDGED, RecentShare
from tests.support.java_murmur2 import MASK, java_murmur2

# org.apache.kafka.common.utils.UtilsTest.testMurmur2, as signed 32-bit numbers
KAFKA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", sorted(KAFKA))
def test_a_hash_is_the_one_in_kafkas_own_tests(key: bytes) -> None:
    assert java_murmur2(key) == KAFKA[key] & MASK
    assert murmur2([key]).tolist() == [KAFKA[key] & MASK]


def test_keys_of_every_length_hash_together_as_each_does_alone() -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    keys = [rng.randbytes(length) for length in range(41) for _ in range(6)]
    keys += [bytes([255]) * length for length in range(41)] + [b"\0" * length for length in range(41)]
    rng.shuffle(keys)
    found = murmur2(keys)
    assert found.dtype == np.uint32
    assert found.tolist() == [java_murmur2(key) for key in keys]


def test_no_keys_have_no_hashes() -> None:
    assert murmur2([]).tolist() == partitions_of([], count=3).tolist() == []
    assert murmur2([b"", b""]).tolist() == [java_murmur2(b"")] * 2


@pytest.mark.parametrize("count", [1, 2, 7, 8, 1000])
def test_a_partition_is_the_positive_hash_modulo_the_count(count: int) -> None:
    keys = [f"sku-{i}".encode() for i in range(500)]
    found = partitions_of(keys, count=count)
    assert found.dtype == np.int32
    assert found.tolist() == [(java_murmur2(key) & 0x7FFFFFFF) % count for key in keys]


@pytest.mark.parametrize("count", [0, -1])
def test_a_topic_without_partitions_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        partitions_of([b"a"], count=count)


def test_a_thousand_records_are_seen_before_anything_is_said_of_their_placement() -> None:
    placement = RecentShare()
    placement.note(seen=JUDGED - 1, counted=JUDGED - 1)
    assert not placement.is_beyond(0.25)
    placement.note(seen=1, counted=1)
    assert placement.is_beyond(0.25)


def test_a_share_is_exceeded_by_more_than_it_only_and_all_of_them_never() -> None:
    placement = RecentShare()
    placement.note(seen=1_000, counted=250)
    assert not placement.is_beyond(0.25)
    placement.note(seen=1, counted=1)
    assert placement.is_beyond(0.25)
    wholly = RecentShare()
    wholly.note(seen=5_000, counted=5_000)
    assert not wholly.is_beyond(1.0)


def test_a_good_year_does_not_hide_a_bad_minute() -> None:
    placement = RecentShare()
    for _ in range(1_000):
        placement.note(seen=500, counted=0)
    for _ in range(3):
        placement.note(seen=100, counted=100)
    assert (placement.seen, placement.counted) == (1_300, 300)
    assert not placement.is_beyond(0.25)
    placement.note(seen=0, counted=0)
    placement.note(seen=200, counted=200)
    assert (placement.seen, placement.counted) == (1_000, 500)
    assert placement.is_beyond(0.25)

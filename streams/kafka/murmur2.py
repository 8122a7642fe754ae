"""To which partition a key belongs: Kafka's default partitioner, for many keys at once.

The Java client, aiokafka, and librdkafka with `partitioner=murmur2_random` hash a key with 32-bit murmur2 and take the
positive remainder by the partition count. Source: Austin Appleby, MurmurHash2, with the seed of
org.apache.kafka.common.utils.Utils.murmur2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SEED: Final = np.uint32(0x9747B28C)
MIX: Final = np.uint32(0x5BD1E995)
ROTATE: Final = np.uint32(24)


def partitions_of(keys: Sequence[bytes], *, count: int) -> NDArray[np.int32]:
    """Return int32 (n,), the partition in [0, count) of each key; count >= 1.

    A record without a key has no partition of its own and has no place here.

    >>> partitions_of([b"85123A", b"22423"], count=8).tolist()
    [4, 5]
    """
    if count < 1:
        msg = f"a topic has at least one partition, not {count}"
        raise ValueError(msg)
    return ((murmur2(keys) & np.uint32(0x7FFFFFFF)) % np.uint32(count)).astype(np.int32)


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return uint32 (n,), the murmur2 hash of each key as Kafka computes it.

    The keys are laid end to end and hashed in step, a word of every key at a time; sorted by length, so that those with
    words left are always a prefix.
    """
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    order = np.argsort(-lengths, kind="stable")
    starts = (np.cumsum(lengths) - lengths)[order]
    lengths = lengths[order]
    text = np.frombuffer(b"".join((*keys, b"\0\0\0\0")), dtype=np.uint8)
    # the four bytes from every position on, as one little-endian word
    words = np.lib.stride_tricks.as_strided(text[:4].view("<u4"), shape=(len(text) - 3,), strides=(1,), writeable=False)

    hashes = SEED ^ lengths.astype(np.uint32)
    longest = int(lengths[0]) if len(lengths) else 0
    for at in range(0, longest - longest % 4, 4):
        live = int(np.searchsorted(-lengths, -(at + 4), side="right"))
        word = words[starts[:live] + at] * MIX
        word ^= word >> ROTATE
        hashes[:live] = (hashes[:live] * MIX) ^ (word * MIX)
    left = lengths % 4
    tail = words[starts + lengths - left] & ((np.uint32(1) << (8 * left).astype(np.uint32)) - np.uint32(1))
    hashes = np.where(left > 0, (hashes ^ tail) * MIX, hashes)
    hashes ^= hashes >> np.uint32(13)
    hashes *= MIX
    hashes ^= hashes >> np.uint32(15)

    found = np.empty_like(hashes)
    found[order] = hashes
    return found

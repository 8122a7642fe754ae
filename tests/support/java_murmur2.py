"""Kafka's murmur2, one key and one word at a time, as org.apache.kafka.common.utils.Utils.murmur2 has it."""

from __future__ import annotations

MASK = 0xFFFFFFFF


def java_murmur2(data: bytes) -> int:
    """Hash as Utils.murmur2 does: a word at a time, then the bytes left over, from the last to the first."""
    m, h = 0x5BD1E995, (0x9747B28C ^ len(data)) & MASK
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = data[i] + (data[i + 1] << 8) + (data[i + 2] << 16) + (data[i + 3] << 24)
        k = k * m & MASK
        k ^= k >> 24
        k = k * m & MASK
        h = h * m & MASK
        h ^= k
    rest = data[whole:]
    for i in reversed(range(len(rest))):
        h ^= rest[i] << (8 * i)
    if rest:
        h = h * m & MASK
    h ^= h >> 13
    h = h * m & MASK
    return h ^ (h >> 15)

"""Decompression with a limit, which replaces aiokafka's.

A broker looks at the size of a record batch as it is sent, which says nothing about what it decompresses to: 0.9 MB of
gzip may be 900 MB of zeros. aiokafka decompresses whatever comes, whole and at once. The decoders here stop at a limit,
before memory or time is spent on more, and raise `TooLarge`, as opposed to `Undecodable` for damaged bytes.

aiokafka's record modules import their decoders by name, so these names are replaced there; tests hold them.
"""

from __future__ import annotations

import importlib
import struct
from typing import TYPE_CHECKING, Final

import cramjam
import numpy as np

from schemas.errors import TooLarge, Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_LIMIT_BYTES: Final = 32 << 20  # Kafka's own producers fill batches of 16 kB to some MB
_USUAL_RATIO: Final = 16  # a buffer of the whole limit for every small batch would cost more than decompressing it
_LEAST_BYTES: Final = 64 << 10
_FULL: Final = "failed to write whole buffer"  # what cramjam says where the output does not fit
_SNAPPY: Final = "snappy"
_XERIAL_MARK: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_BLOCK_SIZE: Final = struct.Struct(">i")
_USERS: Final = (
    "aiokafka.codec",
    "aiokafka.record.default_records",
    "aiokafka.record.legacy_records",
    "aiokafka.record._crecords.default_records",
    "aiokafka.record._crecords.legacy_records",
)


class Decoders:
    """The four codecs of Kafka; each takes the compressed bytes and gives the others, at most `limit_bytes` of them."""

    def __init__(self, limit_bytes: int) -> None:
        """limit_bytes: of one decompressed record batch; at least 1."""
        self.limit_bytes = limit_bytes

    def gzip(self, payload: bytes | memoryview) -> memoryview:
        """Decompress gzip, of one member or several."""
        return self._whole("gzip", cramjam.gzip.decompress_into, payload)

    def lz4(self, payload: bytes | memoryview) -> memoryview:
        """Decompress LZ4 frames."""
        return self._whole("lz4", cramjam.lz4.decompress_into, payload)

    def zstd(self, payload: bytes | memoryview) -> memoryview:
        """Decompress Zstandard frames."""
        return self._whole("zstd", cramjam.zstd.decompress_into, payload)

    def snappy(self, payload: bytes | memoryview) -> memoryview:
        """Decompress Snappy: one raw block, or the framing of xerial that Java's and many other producers use.

        The size of each block is read before it is decompressed.
        """
        raw = bytes(payload)
        blocks = _xerial_blocks(raw) if raw.startswith(_XERIAL_MARK) else [memoryview(raw)]
        try:
            sizes = [int(cramjam.snappy.decompress_raw_len(block)) for block in blocks]
            if sum(sizes) > self.limit_bytes:
                raise self._too_large(_SNAPPY, raw)
            out, at = _buffer(sum(sizes)), 0
            for block, size in zip(blocks, sizes, strict=True):
                at += cramjam.snappy.decompress_raw_into(block, out[at : at + size])
        except cramjam.DecompressionError as error:
            raise _damaged(_SNAPPY, raw, error) from error
        return out[:at]

    def _whole(
        self,
        codec: str,
        decompress_into: Callable[[bytes | memoryview, memoryview], int],
        payload: bytes | memoryview,
    ) -> memoryview:
        """Decompress into a buffer of a usual size, and where that is too small into one of the limit."""
        usual = min(self.limit_bytes, _USUAL_RATIO * len(payload) + _LEAST_BYTES)
        for size in (usual, self.limit_bytes):
            out = _buffer(size)
            try:
                return out[: decompress_into(payload, out)]
            except cramjam.DecompressionError as error:
                if str(error) != _FULL:
                    raise _damaged(codec, payload, error) from error
        raise self._too_large(codec, payload)

    def _too_large(self, codec: str, payload: bytes | memoryview) -> TooLarge:
        return TooLarge(f"{len(payload):,} bytes of {codec} decompress to more than {self.limit_bytes:,}")


def _buffer(size: int) -> memoryview:
    """Make a buffer that is not zeroed: what is not written to takes no memory."""
    return np.empty(size, np.uint8).data


def _xerial_blocks(raw: bytes) -> list[memoryview]:
    """Take the framing apart: after the header, each block with its size before it."""
    view, blocks, at = memoryview(raw), list[memoryview](), _XERIAL_HEADER_BYTES
    while at < len(view):
        if at + _BLOCK_SIZE.size > len(view):
            raise _damaged(_SNAPPY, raw, "it ends within the size of a block")
        (size,) = _BLOCK_SIZE.unpack_from(view, at)
        at += _BLOCK_SIZE.size
        if not 0 < size <= len(view) - at:
            raise _damaged(_SNAPPY, raw, f"a block of {size} bytes where {len(view) - at} are left")
        blocks.append(view[at : at + size])
        at += size
    return blocks


def _damaged(codec: str, payload: bytes | memoryview, why: object) -> Undecodable:
    return Undecodable(f"{len(payload):,} bytes of {codec} cannot be decompressed: {why}")


def install(limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
    """Let every consumer of aiokafka in this process decompress with this limit; the last call counts."""
    decoders = Decoders(limit_bytes)
    for name in _USERS:
        module = importlib.import_module(name)
        for codec in ("gzip", "lz4", "zstd", "snappy"):
            decoder = f"{codec}_decode"
            if hasattr(module, decoder):
                setattr(module, decoder, getattr(decoders, codec))

"""Record batches that are small as they are sent and large once decompressed, written straight to a broker."""

from __future__ import annotations

import asyncio
import gzip
import io
import struct
from typing import TYPE_CHECKING, Any, Final

import cramjam
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import snappy_encode
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable

CODECS: Final = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CHUNK: Final = bytes(1 << 20)
HEADER: Final = struct.Struct(">qiibIhiqqqhii")


def bomb(codec: str, size: int) -> bytes:
    """One record of so many zeros as a record batch; built without having them in memory. size: whole MiB."""
    body = _varint(0) * 3 + _varint(-1) + _varint(size)  # attributes, time, offset; no key; how long the value is
    head = _varint(len(body) + size + 1) + body
    compressed = _COMPRESSED[codec](head, size, b"\0")  # no headers
    after_crc = HEADER.pack(0, 0, 0, 2, 0, CODECS[codec], 0, 0, 0, -1, -1, -1, 1)[21:] + compressed
    start = struct.pack(">qiibI", 0, 9 + len(after_crc), -1, 2, calc_crc32c(after_crc))
    return start + after_crc


def _varint(value: int) -> bytes:
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


def _gzip(head: bytes, size: int, end: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as file:
        file.write(head)
        for _ in range(size // len(CHUNK)):
            file.write(CHUNK)
        file.write(end)
    return out.getvalue()


def _streamed(make: Callable[[], Any], head: bytes, size: int, end: bytes) -> bytes:
    compressor = make()
    compressor.compress(head)
    for _ in range(size // len(CHUNK)):
        compressor.compress(CHUNK)
    compressor.compress(end)
    return bytes(compressor.finish())


def _snappy(head: bytes, size: int, end: bytes) -> bytes:
    start = snappy_encode(b"")
    blocks = [snappy_encode(part)[len(start) :] for part in (head, CHUNK, end)]
    return start + blocks[0] + blocks[1] * (size // len(CHUNK)) + blocks[2]


_COMPRESSED: Final[dict[str, Callable[[bytes, int, bytes], bytes]]] = {
    "gzip": _gzip,
    "snappy": _snappy,
    # as Kafka wants it: blocks that do not refer to each other
    "lz4": lambda *parts: _streamed(
        lambda: cramjam.lz4.Compressor(level=9, content_checksum=False, block_linked=False), *parts
    ),
    "zstd": lambda *parts: _streamed(cramjam.zstd.Compressor, *parts),
}


def publish(bootstrap: str, topic: str, partition: int, batch: bytes) -> int:
    """Write a record batch as it is; returns its offset. The broker decompresses it, in parts, before it takes it."""
    return asyncio.run(_publish(bootstrap, topic, partition, batch))


async def _publish(bootstrap: str, topic: str, partition: int, batch: bytes) -> int:
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=60_000)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        request = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=60_000, topics=[(topic, [(partition, batch)])]
        )
        answer = await client.send(next(iter(client.cluster.brokers())).nodeId, request)
        ((_, ((_, error, offset, *_),)),) = answer.topics
        assert error == 0, f"the broker refused it with error code {error}"
        return int(offset)
    finally:
        await client.close()

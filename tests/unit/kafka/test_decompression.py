"""The limited decoders against the encoders of Python, cramjam and aiokafka, and in aiokafka's place."""

from __future__ import annotations

import gzip
import importlib
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from aiokafka import codec
from aiokafka.record import default_records, legacy_records
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import TooLarge, Undecodable
from streams.kafka import decompression
from streams.kafka.decompression import Decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "lz4": codec.lz4_encode,
    "zstd": codec.zstd_encode,
    "snappy": codec.snappy_encode,  # as xerial frames it
    "snappy raw": lambda plain: bytes(cramjam.snappy.compress_raw(plain)),
}
EACH = pytest.mark.parametrize("name", ENCODERS)


def decode(name: str, payload: bytes | memoryview, *, limit_bytes: int = 1 << 20) -> bytes:
    decoder: Callable[[bytes | memoryview], memoryview] = getattr(Decoders(limit_bytes), name.partition(" ")[0])
    return bytes(decoder(payload))


@EACH
@given(st.binary(max_size=2_000), st.integers(0, 100))
def test_what_was_compressed_comes_back(name: str, some: bytes, times: int) -> None:
    plain = some * times + b"."
    compressed = ENCODERS[name](plain)
    assert decode(name, compressed) == plain
    assert decode(name, memoryview(compressed)) == plain


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd"])
def test_members_that_follow_each_other_are_one(name: str) -> None:
    assert decode(name, ENCODERS[name](b"first,") + ENCODERS[name](b"second")) == b"first,second"


@EACH
@pytest.mark.parametrize("limit_bytes", [1_000, 100_000, 3_000_000])
def test_the_limit_itself_is_read_and_one_byte_more_is_not(name: str, limit_bytes: int) -> None:
    assert decode(name, ENCODERS[name](bytes(limit_bytes)), limit_bytes=limit_bytes) == bytes(limit_bytes)
    bomb = ENCODERS[name](bytes(limit_bytes + 1))
    with pytest.raises(TooLarge, match=rf"^{len(bomb):,} bytes of {name[:4]}.* to more than {limit_bytes:,}$"):
        decode(name, bomb, limit_bytes=limit_bytes)


@EACH
def test_what_is_damaged_says_so(name: str) -> None:
    whole = ENCODERS[name](bytes(range(256)) * 20)
    for damaged in (b"", b"garbage" * 10, whole[:-3], whole[: len(whole) // 2]):
        with pytest.raises(Undecodable, match=rf"^{len(damaged):,} bytes of {name[:4]}.* cannot be decompressed: "):
            decode(name, damaged)


@EACH
@given(st.data())
def test_any_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = bytearray(ENCODERS[name](b"abcdefgh" * 50))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5)):
        raw[at] = data.draw(st.integers(0, 255))
    payload = data.draw(st.binary(max_size=40)) if data.draw(st.booleans()) else bytes(raw)
    try:
        assert len(decode(name, payload, limit_bytes=10_000)) <= 10_000
    except (TooLarge, Undecodable):
        pass


@pytest.mark.parametrize("size", [-4, -20, 0, 1_000, 0x7FFFFFFF])
def test_a_block_of_an_impossible_size_is_damage_and_no_endless_loop(size: int) -> None:
    framed = codec.snappy_encode(b"x" * 100)[:16] + size.to_bytes(4, "big", signed=True) + b"\x01\x00x"
    with pytest.raises(Undecodable, match=f"a block of {size} bytes where 3 are left"):
        decode("snappy", framed)


@pytest.fixture
def installed() -> Iterator[None]:
    decompression.install(10_000)
    yield
    decompression.install()


def written(module: Any, builder: str, compression: int, plain: bytes) -> Any:  # noqa: ANN401 - aiokafka has no types
    """Write one compressed batch as `module` does, and open it with the class that reads such."""
    if module is legacy_records:
        made = getattr(module, builder)(magic=1, compression_type=compression, batch_size=1 << 30)
    else:
        made = getattr(module, builder)(
            magic=2,
            compression_type=compression,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=1 << 30,
        )
    made.append(0, timestamp=1, key=None, value=plain, headers=[])
    return bytes(made.build())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("suffix", ["", "Py"], ids=["compiled", "python"])
@pytest.mark.parametrize("compression", [1, 2, 3, 4], ids=["gzip", "snappy", "lz4", "zstd"])
def test_aiokafka_decompresses_no_more_than_the_limit(compression: int, suffix: str) -> None:
    kind = getattr(default_records, f"{'_' if suffix else ''}DefaultRecordBatch{suffix}")
    builder = f"{'_' if suffix else ''}DefaultRecordBatchBuilder{suffix}"
    (record,) = kind(written(default_records, builder, compression, bytes(9_000)))
    assert record.value == bytes(9_000)
    with pytest.raises(TooLarge, match="decompress to more than 10,000"):
        list(kind(written(default_records, builder, compression, bytes(10_000))))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("suffix", ["", "Py"], ids=["compiled", "python"])
@pytest.mark.parametrize("compression", [1, 2, 3], ids=["gzip", "snappy", "lz4"])
def test_so_it_does_for_the_message_format_before(compression: int, suffix: str) -> None:
    kind = getattr(legacy_records, f"{'_' if suffix else ''}LegacyRecordBatch{suffix}")
    builder = f"{'_' if suffix else ''}LegacyRecordBatchBuilder{suffix}"
    (record,) = kind(written(legacy_records, builder, compression, bytes(9_000)), 1)
    assert record.value == bytes(9_000)
    with pytest.raises(TooLarge, match="decompress to more than 10,000"):
        list(kind(written(legacy_records, builder, compression, bytes(10_000)), 1))


def test_every_decoder_that_aiokafka_imports_is_replaced() -> None:
    assert importlib.import_module("aiokafka.record._crecords.default_records").gzip_decode is not None
    decompression.install()
    for name in decompression._USERS:  # noqa: SLF001 - the very list
        module = importlib.import_module(name)
        decoders = [each for each in vars(module) if each.endswith("_decode")]
        assert len(decoders) >= 3, name
        for each in decoders:
            assert getattr(module, each).__module__ == decompression.__name__, f"{name}.{each}"

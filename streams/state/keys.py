"""The keys of a partition's records, in its RocksDB and in its changelog.

A key begins with one byte for its family. Numbers are big-endian, so that a range of keys is a range of windows:

    c <window:8> <sku>         what a SKU had in a closed window that late events can still change
    d <window:8> <input:1> <sequence:8> <part:4>   event ids admitted into a window since the previous flush, kept as
                               long as late events can change it: their hashes (features/id_table.py), 16 bytes each,
                               up to 64 KiB a part
    h <model> NUL <sku>        recurrent state of a SKU in one model (`Bundle.id`), as of the last closed window
    m                          the meta record (msgpack of streams.state.meta.Meta): what everything else has absorbed
    o <window:8> <sku>         what an open window has folded for a SKU
    s <sku>                    row of a SKU, as of the last closed window
    v <window:8> <group:1>     forecasts of the panel that come true when that window closes (inference/aggregation.py)
    p                          how far the changelog is contained in this (next offset, msgpack); never in the changelog
    t                          id of the changelog topic that `p` is of (UTF-8); never in the changelog

All but the last two are also the records of the changelog (streams/state/changelog.py).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from features.id_table import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLOSED: Final = b"c"
IDS: Final = b"d"
MODEL: Final = b"h"
META: Final = b"m"
OPEN: Final = b"o"
SKU: Final = b"s"
POSITION: Final = b"p"
TOPIC: Final = b"t"
PENDING: Final = b"v"
LOGGED: Final = (CLOSED, IDS, MODEL, META, OPEN, SKU, PENDING)
"""The families that the changelog has too, ascending."""
OF_OPEN: Final = (OPEN, PENDING)
"""The families whose records go when their window closes, ascending."""
IN_REACH: Final = (CLOSED, IDS)
"""The families whose records go when their window is out of reach of late events, ascending."""
IDS_PART_BYTES: Final = 4_096 * HASH_BYTES
"""Of event ids in a record, however many a flush holds: far below a topic's limit."""
_NUL: Final = b"\0"  # in no SKU, so that the last one of a key ends the model's name


def window_bytes(number: int) -> bytes:
    """Write the number of a window as it is in keys."""
    return struct.pack(">q", number)


def sku_key(sku: bytes) -> bytes:
    """Key of a SKU's row."""
    return SKU + sku


def open_key(number: int, sku: bytes) -> bytes:
    """Key of a SKU's row of an open window."""
    return OPEN + window_bytes(number) + sku


def ids_keys(number: int, source: int, *, sequence: int, size_bytes: int) -> Iterator[bytes]:
    """Give the keys of the event ids of one input in one window that a flush writes, ascending: one a part."""
    prefix = IDS + window_bytes(number) + bytes([source]) + struct.pack(">Q", sequence)
    for part in range(-(-size_bytes // IDS_PART_BYTES)):
        yield prefix + struct.pack(">L", part)


def closed_key(number: int, sku: bytes) -> bytes:
    """Key of a SKU's row of a closed window."""
    return CLOSED + window_bytes(number) + sku


def pending_key(number: int, group: int) -> bytes:
    """Key of forecasts that come true when window `number` closes."""
    return PENDING + window_bytes(number) + bytes([group])


def model_prefix(model: str) -> bytes:
    """Give what the keys of a model's state begin with."""
    return MODEL + model.encode() + _NUL


def beside_models(models: Iterable[str]) -> Iterator[tuple[bytes, bytes]]:
    r"""Give the ranges of keys, the upper bound not included, of the state in all models but these.

    >>> list(beside_models(["b", "a"]))
    [(b'h', b'ha\x00'), (b'ha\x01', b'hb\x00'), (b'hb\x01', b'i')]
    """
    low = MODEL
    for own in sorted(map(model_prefix, models)):
        yield low, own
        low = after(own)
    yield low, after(MODEL)


def after(prefix: bytes) -> bytes:
    """Give the first key behind all that begin with `prefix`, whose last byte is below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def model_of(key: bytes) -> tuple[str, bytes]:
    """Take the key of a model's state apart: (model, SKU).

    >>> model_of(model_prefix("net@1") + b"A")
    ('net@1', b'A')
    """
    model, _, sku = key[1:].rpartition(_NUL)
    return model.decode("utf-8", "backslashreplace"), sku


def window_of(key: bytes) -> int | None:
    """Give the number of the window with which a key goes; None for one that stays."""
    return int(struct.unpack(">q", key[1:9])[0]) if key[:1] in (*OF_OPEN, *IN_REACH) else None


def name_of(key: bytes) -> str:
    """Name a record for a person."""
    if key[:1] == SKU:
        return f"the row of SKU {_text(key[1:])!r}"
    if key[:1] in {OPEN, CLOSED}:
        kind = "open" if key[:1] == OPEN else "closed"
        return f"the row of SKU {_text(key[9:])!r} in {kind} window {window_of(key)}"
    if key[:1] == IDS:
        return f"event ids {key[9:].hex()} of window {window_of(key)}"
    if key[:1] == PENDING:
        return f"forecasts of the panel, group {key[9]}, for window {window_of(key)}"
    if key[:1] == MODEL:
        model, sku = model_of(key)
        return f"the state of SKU {_text(sku)!r} in model {model}"
    return "the changelog's offset" if key == POSITION else "the meta record"


def _text(sku: bytes) -> str:
    return sku.decode("utf-8", "backslashreplace")

"""State under a changing model: rows, windows and alerts stay, the state of a model is its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from features.encoding import fingerprint
from inference.bundle import load
from inference.pipeline import ROW_COLUMNS
from inference.session import Session
from inference.training.export import export
from schemas.errors import FlushFailed, StateCorrupt
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.state import show, verify
from streams.state import keys
from streams.state.changelog import Changelog
from streams.state.flush import FlushChannel
from streams.state.flush_record import Flush
from streams.state.rows import model_row
from streams.state.store import Store
from tests.support.models import manifest_for, untrained
from tests.support.partitions import (
    DAY_MS,
    T0,
    click,
    close_all,
    open_partition,
    order,
    price_change,
    published,
    settings_for,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path

    from streams.partition.partition import Partition
    from streams.settings import Settings

Damage = Callable[[bytes, bytes], dict[bytes, "bytes | None"]]
LATER_MS = T0 + 1_000 * DAY_MS
SKUS = ("a", "b", "Größe/7")
Nets = dict[int, "Session | None"]


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    """Sessions by the size of their state; 0: none."""
    found: Nets = {0: None}
    for hidden in (8, 16):
        folder = tmp_path_factory.mktemp(f"net{hidden}")
        network = untrained(hidden=hidden)
        export(network, folder, manifest=manifest_for(network))
        found[hidden] = Session(load(folder, expected_fingerprint=fingerprint()), provider="cpu")
    return found


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_for(broker, tmp_path, window_ms=DAY_MS)


def sell(partition: Partition, day: int, *, units: int = 3, name: str = "") -> None:
    """Sell each SKU on a day, and close the days before it."""
    at_ms = T0 + day * DAY_MS + DAY_MS // 2
    sold = [order(f"{name}{sku}{day}", sku, at_ms, quantity=units + n) for n, sku in enumerate(SKUS)]
    take(partition, ORDERS, *sold, now_ms=LATER_MS)
    take(partition, CLICKS, click(f"{name}c{day}", "a", at_ms), now_ms=LATER_MS)
    take(partition, PRICES, price_change(f"{name}p{day}", "a", at_ms, 2.0), now_ms=LATER_MS)
    close_all(partition, now_ms=LATER_MS)


def known(partition: Partition) -> dict[str, Any]:
    """All that is no matter of the model."""
    table, count = partition.sku_state.table, len(partition.sku_state.table)
    slots = table.slots(sorted(table.skus))
    assert count == len(SKUS)
    windows = partition.sku_state.windows
    return {
        "columns": {c.name: table[c.name][slots].tolist() for c in ROW_COLUMNS},
        "open": {n: repr(windows.get(n).folded[windows.get(n).row_of(slots)]) for n in windows},
        "season": partition.meta.season,
        "counts": msgspec.to_builtins(partition.meta.counts),
    }


def models_in(store: Store) -> set[str]:
    return {keys.model_of(key)[0] for key, _ in store.scan.records() if key[:1] == keys.MODEL}


def forecasts(settings: Settings, model: str) -> list[dict[str, Any]]:
    return [f for f in published(settings, "forecasts") if f["model"] == model]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(8, 16), (8, 0, 8), (8, 16, 8), (0, 8), (16, 0)], ids=str)
def test_a_partition_keeps_what_it_knows_under_any_model_and_forecasts_with_the_present_one(
    settings: Settings, nets: Nets, sizes: tuple[int, ...]
) -> None:
    before: dict[str, Any] = {}
    for turn, hidden in enumerate(sizes):
        session = nets[hidden]
        partition = open_partition(settings, session=session)
        if before:
            found = known(partition)
            for name in ("next_net", "next_mean"):  # what the model before has expected
                is_forgotten = np.isnan(found["columns"].pop(name)).all()
                assert is_forgotten or session is None
                before["columns"].pop(name)
            np.testing.assert_equal(found, before)
        for day in range(4 * turn, 4 * turn + 4):
            # an outlier in the first turn opens an alert
            sell(partition, day, units=80_000 if day == 2 else 3)
        partition.flush(now_ms=LATER_MS)
        model = "none" if session is None else session.model
        assert models_in(partition.store) == (set() if session is None else {model})
        assert partition.meta.model == model
        if session is not None:
            made = forecasts(settings, model)
            days = {(f["window_start_ms"] - T0) // DAY_MS for f in made}
            assert days >= set(range(max(4 * turn - 1, 0), 4 * turn + 3))
        before = known(partition)
        if session is None:
            assert np.isnan(before["columns"]["next_naive"]).all(), "nobody has forecast the window to come"
        is_open = partition.sku_state.table["alert_open"][: len(SKUS)]
        if sizes[0]:
            assert (is_open > 0).any() or turn, "a test without an open alert shows less"
        partition.close()


def test_state_of_a_model_that_comes_back_before_a_window_has_closed_is_still_its_own(
    settings: Settings, nets: Nets
) -> None:
    first = open_partition(settings, session=nets[8])
    for day in range(5):
        sell(first, day)
    first.flush(now_ms=LATER_MS)
    slots = first.sku_state.table.slots(SKUS)
    before = {name: first.sku_state.table[name][slots].copy() for name in ("h", "c", "next_net")}
    live = first.pipeline.live
    first.close()

    other = open_partition(settings, session=nets[16])
    sell(other, 4, name="more")  # closes nothing
    other.flush(now_ms=LATER_MS)
    assert models_in(other.store) == {first.meta.model}
    other.close()

    again = open_partition(settings, session=nets[8])
    slots = again.sku_state.table.slots(SKUS)
    for name, value in before.items():
        np.testing.assert_array_equal(again.sku_state.table[name][slots], value, err_msg=name)
    assert again.pipeline.live == live
    again.close()


def test_the_state_of_another_model_is_rebuilt_from_the_windows_of_each_sku(settings: Settings, nets: Nets) -> None:
    first = open_partition(settings, session=nets[8])
    for day in range(6):
        sell(first, day)
    first.flush(now_ms=LATER_MS)
    first.close()
    other = open_partition(settings, session=nets[16])
    h = other.sku_state.table["h"][: len(SKUS)]
    assert h.shape == (len(SKUS), 2, 16)
    assert np.isfinite(h).all()
    assert (np.abs(h).max(axis=(1, 2)) > 1e-3).all()
    other.close()


def test_the_state_of_another_model_that_a_crash_has_left_goes_with_the_next_closed_window(
    settings: Settings, nets: Nets, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_partition(settings, session=nets[8])
    for day in range(3):
        sell(first, day)
    first.flush(now_ms=LATER_MS)
    first.close()
    monkeypatch.setattr("streams.partition.capture.BULK_ROWS", 1)
    died = open_partition(settings, session=nets[16])
    sell(died, 3)

    def die(_: object) -> None:
        msg = "killed between what is put and what is removed"
        raise FlushFailed(msg)

    monkeypatch.setattr(died.store.db, "write", die)
    with pytest.raises(FlushFailed):
        died.flush(now_ms=LATER_MS)
    died.close()

    again = open_partition(settings, session=nets[16])
    own = again.meta.model
    assert models_in(again.store) == {first.meta.model, own}
    sell(again, 4)
    again.flush(now_ms=LATER_MS)
    assert models_in(again.store) == {own}
    again.close()


def test_a_forgotten_sku_leaves_nothing_in_the_model(settings: Settings, nets: Nets) -> None:
    settings = msgspec.structs.replace(settings, dormant_after_ms=3 * DAY_MS)
    session = nets[8]
    assert session is not None
    partition = open_partition(settings, session=session)
    take(partition, ORDERS, order("old", "old", T0), now_ms=LATER_MS)
    for day in range(3):
        sell(partition, day)
    partition.flush(now_ms=LATER_MS)
    assert partition.store.scan.model_row(session.model, "old") is not None
    for day in range(3, 8):
        sell(partition, day)
    partition.flush(now_ms=LATER_MS)
    assert partition.store.scan.sku_row("old") is None
    assert partition.store.scan.model_row(session.model, "old") is None
    assert partition.store.scan.model_row(session.model, "a") is not None
    partition.close()
    open_partition(settings, session=session).close()


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (lambda key, _: {key: None}, StateCorrupt, "has 3 SKUs, of which 2 have their state in model"),
        (lambda key, row: {key + b"x": row}, StateCorrupt, "1 stored SKUs have the state of a model, but no row"),
        (lambda key, row: {key: row[:-4]}, StateCorrupt, r"of \[124\] bytes, expected 128 each"),
    ],
    ids=["missing", "of no SKU", "too short"],
)
def test_state_of_the_present_model_that_is_not_whole_is_noticed(
    settings: Settings,
    nets: Nets,
    damage: Callable[[bytes, bytes], dict[bytes, bytes | None]],
    kind: type[Exception],
    said: str,
) -> None:
    partition = open_partition(settings, session=nets[8])
    for day in range(3):
        sell(partition, day)
    partition.flush(now_ms=LATER_MS)
    partition.close()
    (line,) = verify(settings)
    assert f", 3 SKUs, all with their state in model {partition.meta.model}, " in line
    assert f"state in model {partition.meta.model}: 32 numbers, largest " in "\n".join(show(settings, "a"))
    store = Store(settings.partition_dir(0))
    key, row = next(each for each in store.scan.records() if each[0][:1] == keys.MODEL)
    store.apply(damage(key, row))
    store.close()
    with pytest.raises(kind, match=said):
        open_partition(settings, session=nets[8])
    open_partition(settings, session=nets[16]).close()  # which does not read it


def test_the_changelog_is_reported_what_goes_with_another_model(settings: Settings, nets: Nets) -> None:
    """In the same flush that writes the state of the present one."""
    session, sent = nets[16], Sent()
    assert session is not None
    first = open_partition(settings, session=nets[8])
    for day in range(3):
        sell(first, day)
    first.flush(now_ms=LATER_MS)
    old = {key for key, _ in first.store.scan.records() if key[:1] == keys.MODEL}
    first.close()
    other = open_partition(settings, session=session)
    channel = FlushChannel(other.store, sent, Changelog(sent, "log", 0))  # type: ignore[arg-type]  # stands in
    meta = msgspec.structs.replace(other.meta, model=session.model)
    size = model_row(session).dtype.itemsize
    rows = [([b"a"], [bytes(size)])]
    channel.begin(Flush(meta, models={session.model: rows}, retired=[b"b"], drops_models=True), within_s=10)
    channel.end()
    own = keys.model_prefix(session.model)
    assert len(old) == len(SKUS)
    assert {key for key, value in sent.records.items() if value is None} == old | {keys.sku_key(b"b"), own + b"b"}
    assert sent.records[own + b"a"] == bytes(size)
    assert models_in(other.store) == {session.model}
    assert not other.store.scan.has_models_beside(session.model)
    other.close()


class Sent:
    """Stands in for a producer: keeps what it is given."""

    marked_offset = None

    def __init__(self) -> None:
        self.records: dict[bytes, bytes | None] = {}

    def begin(self, deadline: object) -> None:
        pass

    def put(self, topic: str, keys: list[bytes], values: list[bytes | None], partition: int) -> None:
        self.records |= dict(zip(keys, values, strict=True))

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self.records[key] = value


@pytest.mark.parametrize("names", [("a", "b"), ("net@1", "net@1+2"), ("net@1+2", "net@1"), ("n", "n\x01"), ("ä", "z")])
def test_models_are_told_apart_whatever_their_names_begin_with(tmp_path: Path, names: tuple[str, str]) -> None:
    store = Store(tmp_path / "partition-0")
    one, two = names
    store.apply({keys.model_prefix(one) + b"sku": b"1", b"i": b"", keys.sku_key(b"sku"): b"row"})
    assert not store.scan.has_models_beside(one)
    assert store.scan.has_models_beside(two)
    store.apply({keys.model_prefix(two) + b"sku": b"2"})
    for own, other, value in ((one, two, b"1"), (two, one, b"2")):
        assert list(store.scan.model_rows(own)) == [(["sku"], [value])]
        assert store.scan.has_models_beside(own)
        assert list(store.scan.model_keys_beside(own)) == [keys.model_prefix(other) + b"sku"]
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("bulk_rows", [1, 2_048], ids=["table files", "batches"])
def test_a_partition_that_is_opened_anew_again_and_again_forecasts_as_one_that_never_was(
    broker: str, tmp_path: Path, nets: Nets, monkeypatch: pytest.MonkeyPatch, bulk_rows: int
) -> None:
    """Weights of experts, and forecasts that have not come true yet, are stored with the rest."""
    monkeypatch.setattr("streams.partition.capture.BULK_ROWS", bulk_rows)
    made = []
    for every in (1_000, 3):
        settings = settings_for(broker, tmp_path / str(every), window_ms=DAY_MS)
        partition = open_partition(settings, session=nets[8])
        for day in range(32):
            sell(partition, day, units=2 + day * day % 5)
            if day % every == every - 1:
                partition.flush(now_ms=LATER_MS)
                kept = {key[:1] for key, _ in partition.store.scan.records()}
                assert keys.PENDING in kept
                partition.close()
                partition = open_partition(settings, session=nets[8])
        partition.flush(now_ms=LATER_MS)
        first = partition.sku_state.windows.first_open or 0
        due = {keys.window_of(key) for key, _ in partition.store.scan.records() if key[:1] == keys.PENDING}
        assert due == set(range(first, first + 14)), "and what has come true is gone"
        partition.close()
        made.append([{**each, "emitted_ms": 0} for each in published(settings, "forecasts")])
    assert len(made[0]) == 31 * len(SKUS)
    assert {each["source"] for each in made[0]} != {"ewnb"}, "a test in which nothing is learnt shows less"
    assert made[0] == made[1]

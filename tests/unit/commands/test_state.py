"""What the `state` commands say about a state that a real worker has left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from features.grid import WindowGrid
from features.sku_state import SkuState
from inference.pipeline import JUDGING
from schemas.errors import BadInput, StateMismatch
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.state import show, verify
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.murmur2 import partitions_of
from streams.state.flush_record import Flush
from streams.state.rows import SKU_ROW
from streams.state.store import Store
from tests.support.partitions import HOUR_MS, MINUTE_MS, T0, batch, click, order, price_change, settings_for
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """State of one partition: `a` sold in two closed windows and an open one, `new` only in the open one."""
    with EmbeddedBroker() as broker:
        settings = settings_for(broker.bootstrap, tmp_path_factory.mktemp("state"))
        bench = Bench(settings)
        end = T0 + 3 * HOUR_MS + 10 * MINUTE_MS
        bench.take(ORDERS, order("1", "a", T0, quantity=4), order("2", "a", T0 + 2 * HOUR_MS, quantity=7), b"?")
        bench.take(CLICKS, click("1", "a", T0), click("2", "b", end))
        bench.take(PRICES, price_change("1", "a", T0, 2.5), price_change("2", "b", end, 9.0))
        bench.take(ORDERS, order("3", "a", end, quantity=2), order("4", "a", end, quantity=-1), order("5", "new", end))
        bench.close()
        yield settings


@pytest.fixture
def state(left: Settings, tmp_path: Path) -> Settings:
    """A copy that a test may damage."""
    shutil.copytree(left.state_dir, tmp_path / "state")
    return msgspec.structs.replace(left, state_dir=str(tmp_path / "state"))


def partition(settings: Settings, number: int = 0) -> Path:
    return settings.partition_dir(number)


def rewrite(settings: Settings, **changes: object) -> None:
    """Change the meta record."""
    store = Store(partition(settings))
    meta = store.meta()
    assert meta is not None
    store.write(Flush(msgspec.structs.replace(meta, **changes)))
    store.close()


def test_a_sku_is_shown_with_its_closed_windows_its_price_and_what_is_open(left: Settings) -> None:
    where, *facts = show(left, "a")
    assert where == "a is in partition-0, as of flush 2"
    text = "\n".join(facts)
    assert "windows closed since its first event: 3, of which the shop was open in " in text
    assert "price: 2.5" in text
    assert "11 in all, largest 7" in text
    assert (
        "still open, on Tuesday 14 November 2023 from 03:00 to 04:00 (UTC): 2 units in 1 lines, 0 views, 1 returned"
        in text
    )


def test_a_sku_that_is_new_says_so(left: Settings) -> None:
    _, first, second = show(left, "new")
    assert first == "no window of it has closed yet"
    assert second.startswith("still open, on ")


def test_a_sku_that_nobody_knows_is_reported(left: Settings) -> None:
    with pytest.raises(BadInput, match=r"no partition under .* knows the SKU 'A'"):
        show(left, "A")


@pytest.mark.parametrize("sku", ["a\x1b[2J", "a\udcff", "a\u202eb", " "])
def test_what_can_be_no_sku_is_reported_in_printable_words(left: Settings, sku: str) -> None:
    with pytest.raises(BadInput, match=r"`sku` must ") as told:
        show(left, sku)
    assert str(told.value).isprintable()


def test_looking_changes_nothing(state: Settings) -> None:
    assert (show(state, "a"), verify(state)) == (show(state, "a"), verify(state))


def test_a_whole_state_is_reported_with_its_counts(left: Settings) -> None:
    (line,) = verify(left)
    assert line == (
        "partition-0: whole; flush 2, 1 SKUs, 3 open rows, 2 rows of closed windows, 9 event ids, "
        "10 records = folded + duplicate + late + rejected"
    )


@pytest.mark.parametrize("look", [verify, lambda settings: show(settings, "a")], ids=["verify", "show"])
def test_a_directory_without_state_says_which_settings_to_look_at(tmp_path: Path, look: object) -> None:
    empty = settings_for("127.0.0.1:1", tmp_path)
    with pytest.raises(BadInput, match="check SKUTREND_STATE_DIR, SKUTREND_GROUP and SKUTREND_TOPIC_PREFIX"):
        look(empty)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == [], "looking makes no directories"


def test_records_that_are_unaccounted_for_are_reported(state: Settings) -> None:
    store = Store(partition(state))
    meta = store.meta()
    store.close()
    assert meta is not None
    meta.counts["orders"].records += 3
    rewrite(state, counts=meta.counts)
    with pytest.raises(StateMismatch, match=r"3 records of orders are unaccounted for; .* new SKUTREND_GROUP"):
        verify(state)


def test_a_torn_row_is_reported(state: Settings) -> None:
    store = Store(partition(state))
    meta = store.meta()
    assert meta is not None
    store.write(Flush(meta, skus=[([b"a"], [b"too short"])]))
    store.close()
    with pytest.raises(StateMismatch, match="delete the state directory to rebuild it"):
        verify(state)
    with pytest.raises(StateMismatch, match="delete the state directory to rebuild it"):
        show(state, "a")


def test_a_scale_that_is_no_number_is_reported(state: Settings) -> None:
    sku_state = SkuState(WindowGrid(window_ms=HOUR_MS), extra_columns=JUDGING)
    slots = sku_state.table.add(["a"])
    sku_state.table["nu"][slots] = float("nan")
    store = Store(partition(state))
    meta = store.meta()
    assert meta is not None
    store.write(Flush(meta, skus=[([b"a"], SKU_ROW.pack(sku_state.table, slots))]))
    store.close()
    with pytest.raises(StateMismatch, match=r"1 SKUs in .* have no finite scale"):
        verify(state)


def test_state_of_other_settings_is_reported_with_both(state: Settings) -> None:
    other = msgspec.structs.replace(state, window_ms=2 * HOUR_MS)
    with pytest.raises(StateMismatch, match=r"window_ms=3600000 .* works with 'window_ms=7200000"):
        verify(other)


def test_after_an_error_the_state_is_free_again(state: Settings) -> None:
    with pytest.raises(StateMismatch):
        verify(msgspec.structs.replace(state, window_ms=2 * HOUR_MS))
    Store(partition(state)).close()


def test_a_sku_is_found_in_whichever_partition_it_is(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        settings = settings_for(broker.bootstrap, tmp_path)
        bench = Bench(settings, partitions=2)
        names = [f"sku{n}" for n in range(6)]
        numbers = partitions_of([name.encode() for name in names], count=2).tolist()
        assert set(numbers) == {0, 1}
        for number in (0, 1):
            values = [order(f"e{n}", name, T0) for n, name in enumerate(names) if numbers[n] == number]
            bench.deliver(ORDERS, batch(bench.worker.environment.topics[ORDERS], values, partition=number))
        bench.close()
    for name, number in zip(names, numbers, strict=True):
        assert show(settings, name)[0] == f"{name} is in partition-{number}, as of flush 1"
    assert [line.split(":")[0] for line in verify(settings)] == ["partition-0", "partition-1"]


def test_a_partition_without_an_event_does_not_spoil_the_others(state: Settings) -> None:
    """A worker opens the stores of all its partitions at once, and flushes each when its first event comes."""
    partition(state).rename(partition(state, 1))
    Store(partition(state, 0)).close()
    assert show(state, "a")[0] == "a is in partition-1, as of flush 2"
    assert any(line.startswith("partition-1: whole") for line in verify(state))

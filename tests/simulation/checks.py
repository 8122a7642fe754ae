"""Where the worker and the oracle are held against each other."""

from __future__ import annotations

import json
import struct
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from features.id_table import HASH_BYTES, hashed
from schemas.inputs import INPUT_NAMES
from schemas.provenance import read_dead_letter_headers, read_late_event_headers
from streams.observe.metrics import Metrics
from streams.partition.partition import Geometry, Partition
from streams.state import keys, recovery
from streams.state.snapshots import Snapshots
from streams.state.store import Store
from tests.simulation.inputs import batch_of
from tests.simulation.oracle import INPUTS, WINDOW_MS, Oracle, grouped
from tests.simulation.world import Log, OutputProducer, Process, Reader
from tests.support.sku_states import known_by, remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streams.state.meta import Meta
    from tests.simulation.schedule import Simulation
    from tests.simulation.world import Entry

OUTPUTS = ("windows", "late-events", "dead-letters")


class PromiseError(AssertionError):
    """A promise was not kept."""


def require(kept: object, promise: str) -> None:
    if not kept:
        raise PromiseError(promise)


def equal(found: object, expected: object, what: str) -> None:
    require(found == expected, f"{what}: found {found!r}, expected {expected!r}")


def same(found: Sequence[Any], expected: Sequence[Any], what: str) -> None:
    """Compare without regard to order."""
    extra, missing = Counter(found) - Counter(expected), Counter(expected) - Counter(found)
    require(not extra and not missing, f"{what}: too much {list(extra)[:5]}, missing {list(missing)[:5]}")


# ---------------------------------------------------------------------- state
def compare(partition: Partition, oracle: Oracle) -> None:
    """The state in memory after a step."""
    compare_meta(partition.meta, oracle, flushed=False)
    sku_state, where = partition.sku_state, f"of partition {oracle.number}"
    equal(sku_state.windows.first_open, oracle.first_open, f"first open window {where}")
    reached = oracle.watermark_ms
    equal(partition.watermark.value_ms, -(1 << 62) if reached is None else reached, f"watermark {where}")
    equal(set(sku_state.windows), set(oracle.windows), f"open windows {where}")
    for number in sku_state.windows:
        window = sku_state.windows.get(number)
        found = {sku_state.table.skus[window.slots[i]]: _folded(window.folded[i]) for i in range(window.count)}
        expected = {sku: _summed(sums) for sku, sums in oracle.windows[number].items()}
        equal(found, expected, f"open window {number} {where}")
    for source, seen in enumerate(sku_state.seen):
        ids = {known_by(hashed([event_id])) for event_id in oracle.seen[source]}
        equal(remembered(seen), ids, f"ids of input {source} {where}")


def _folded(row: Any) -> tuple[float, ...]:  # noqa: ANN401 - a numpy record
    names = ("order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts")
    price = float(row["price"]) if row["price"] == row["price"] else -1.0
    return (*(round(float(row[name]), 4) for name in names), price)


def _summed(sums: Any) -> tuple[float, ...]:  # noqa: ANN401 - oracle.Sums, or a row like it
    names = ("order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts")
    return (*(round(float(getattr(sums, name)), 4) for name in names), -1.0 if sums.price is None else sums.price)


def compare_meta(meta: Meta, oracle: Oracle, *, flushed: bool = True) -> None:
    """What the state has absorbed. flushed: whether the record was made by a flush, which fills the rest of it in."""
    where = f"of partition {oracle.number}"
    offsets = {INPUTS[source]: offset for source, offset in oracle.offsets.items()}
    equal(meta.offsets, offsets, f"offsets {where}")
    equal(meta.windows_closed, oracle.closed, f"windows closed {where}")
    for source, name in enumerate(INPUT_NAMES):
        counts = msgspec.structs.asdict(meta.counts[name])
        equal(+Counter(counts), oracle.counts[source], f"counts of {name} {where}")
        equal(meta.counts[name].balance, 0, f"records of {name} {where} that were not accounted for")
    if flushed:
        newest = [oracle.newest_ms.get(source, -(1 << 62)) for source in range(3)]
        equal(meta.newest_ms, newest, f"newest event times {where}")
        equal(meta.first_open, oracle.first_open, f"first open window {where}")


# ---------------------------------------------------------------------- outputs
def heard(topic: str, entry: Entry) -> tuple[Any, ...]:
    """What a committed output says."""
    if topic == "windows":
        said = json.loads(entry.data or b"")
        require(
            said["observed"] and said["id"].endswith(f"/{said['revision']}"), f"{said['id']} is not as it should be"
        )
        equal(entry.name, said["sku"].encode(), "key of a window")
        names = ("order_lines", "units", "revenue", "returned_units", "free_units", "views", "carts")
        price = None if said["price"] is None else round(said["price"], 4)
        return (topic, said["id"], *(round(said[name], 4) for name in names), price)
    if topic == "dead-letters":
        dead = read_dead_letter_headers(entry.headers)
        return topic, dead.source, dead.code, entry.data
    late = read_late_event_headers(entry.headers)
    return topic, late.source, late.window_start_ms, late.late_by_ms, late.corrected, entry.data


def expected(said: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the oracle said, in the same form."""
    if said[0] != "windows":
        return said
    topic, name, sums, price = said
    return (topic, name, *_summed(sums)[:-1], None if price is None else round(price, 4))


def none_missing(log: Log, said: Iterable[tuple[Any, ...]]) -> None:
    """With at_least_once: what the state has absorbed is there already, perhaps more than once."""
    visible = {heard(topic, entry) for topic in OUTPUTS for entry in log.visible[topic, -1]}
    for each in said:
        require(each in visible, f"the state is ahead of its output {each}")


# ---------------------------------------------------------------------- the end
def at_the_end(run: Simulation) -> None:
    """All that was written has been read, all windows are closed: compare topics, disks and changelog."""
    _outputs(run)
    for process in run.alive:
        run.loop.run_until_complete(process.worker.close())
    for number in range(run.count):
        oracle = run.committed[number]
        require(not oracle.windows, f"windows {sorted(oracle.windows)} of {number} stay open")
        _fates(run, oracle)
        calm = _calm(run, oracle)
        _no_remains(run.log.latest(run.changelog, number), oracle, run.within_ms)
        run.tally["scale moved"] += calm["meta"].get("prior_nu", 1.0) != 1.0
        for process in run.alive:
            if number in process.worker.assignment.owned:
                _on_disk(run, process, number, calm)
        names = [*run.processes, "new"]
        if run.keeps_snapshots:
            snapshots = Snapshots(run.settings_of("fetched"), Metrics(), in_background=False)
            run.tally["restored from a snapshot"] += snapshots.fetch_newest(number, run.path("fetched", number))
            names.append("fetched")
        for name in names:
            equal(_recovered(run, name, number), calm, f"state of {number} as {name} would restore it")


def _outputs(run: Simulation) -> None:
    found = [heard(topic, entry) for topic in OUTPUTS for entry in run.log.visible[topic, -1]]
    if run.exactly_once:
        same(found, list(run.owed.elements()), "all outputs")
        windows = Counter(each[1] for each in found if each[0] == "windows")
        require(all(n == 1 for n in windows.values()), "a window was published twice")
    newest: dict[str, tuple[int, tuple[Any, ...]]] = {}
    for each in run.owed:
        if each[0] == "windows":
            name, _, revision = each[1].rpartition("/")
            newest[name] = max(newest.get(name, (-1, ())), (int(revision), each[2:]), key=lambda told: told[0])
    sums = {name: told for name, (_, told) in newest.items()}
    run.tally["windows corrected"] += sum(revision > 0 for revision, _ in newest.values())
    expected_sums: dict[str, tuple[float, ...]] = {}
    for number, oracle in run.committed.items():
        records = {source: run.inputs.records[number, source] for source in range(3)}
        expected_sums |= grouped(oracle, records)
    for name, happened in sums.items():
        lines, units, _, returned, _, views, carts, _ = happened
        equal((lines, units, returned, views, carts), expected_sums.pop(name, (0,) * 5), f"group-by of {name}")
    require(not expected_sums, f"windows never published: {list(expected_sums)[:5]}")
    run.tally["windows published"] += len(sums)


def _fates(run: Simulation, oracle: Oracle) -> None:
    """Every record has met one fate, and a duplicate is one of something that counted."""
    written = {(source, offset) for source in range(3) for offset in run.inputs.records[oracle.number, source]}
    equal(set(oracle.fates), written, f"records of {oracle.number} that met a fate")
    folded: set[tuple[int, str]] = set()
    repeated: set[tuple[int, str]] = set()
    for (source, offset), fate in oracle.fates.items():
        run.tally[fate] += 1
        event = run.inputs.records[oracle.number, source][offset].event
        if event is not None and fate in ("folded", "duplicate"):
            (folded if fate == "folded" else repeated).add((source, event.event_id))
    require(repeated <= folded, "a duplicate of nothing")


def _calm(run: Simulation, oracle: Oracle) -> dict[str, Any]:
    """State after the same records and closes in the same order, without flush or crash in between."""
    settings, path = run.settings_of("calm"), run.path("calm", oracle.number)
    log = Log(lambda _: None)
    process: Any = Process(
        "calm",
        settings,
        log,
        count=run.count,
        ends={},
        clock=lambda: run.now_ms,
        monotonic=lambda: run.up_ms,
        watch=lambda *_: None,
        tally=Counter(),
        eager=False,
    )
    store: Any = Store(path)
    producer: Any = OutputProducer(log, process, None)
    geometry = Geometry(oracle.number, run.count)
    partition = Partition(geometry, settings, store=store, producer=producer, session=None, metrics=Metrics())
    for kind, *what in oracle.journal:
        if kind == "close":
            partition.watermark.value_ms = what[1]
            require(partition.closer.close_due(now_ms=run.now_ms), "a window closes")
            continue
        source, records, following, now_ms = what
        start = partition.next_offset(INPUTS[source])
        places = sorted({start, following, *(o for o in records if o % 5 == 0)})  # cut as no fetch has cut it
        for low, high in pairwise(places):
            some = {offset: record for offset, record in records.items() if low <= offset < high}
            partition.absorb(source, batch_of(oracle.number, source, low, high, some), now_ms=now_ms)
    partition.watermark.value_ms = -(1 << 62) if oracle.watermark_ms is None else oracle.watermark_ms
    partition.flush(now_ms=run.up_ms)
    found = _dump(store, run.within_ms)
    partition.close()
    return found


def _dump(store: Store, within_ms: int) -> dict[str, Any]:
    """All that a restart would read, and late events."""
    meta = store.meta()
    first = meta.first_open if meta is not None and meta.first_open is not None else -1
    in_reach = first - -(-within_ms // WINDOW_MS)
    stored = {} if meta is None else msgspec.structs.asdict(meta)
    stored.pop("sequence", None)  # counts flushes
    rows = {sku: row for skus, packed in store.scan.sku_rows() for sku, row in zip(skus, packed, strict=True)}
    opened = {each.number: dict(zip(each.skus, each.rows, strict=True)) for each in store.scan.open_rows()}
    return {
        "meta": stored,
        "skus": rows,
        "open": {number: found for number, found in opened.items() if number >= first},
        "closed": {
            (number, sku): row
            for number, skus, rows_ in store.scan.all_closed_rows()
            if number >= in_reach
            for sku, row in zip(skus, rows_, strict=True)
        },
        "ids": {
            (number, source, hashes[i : i + HASH_BYTES])
            for number, source, hashes in store.scan.ids()
            if number >= in_reach
            for i in range(0, len(hashes), HASH_BYTES)
        },
    }


def _on_disk(run: Simulation, process: Process, number: int, calm: dict[str, Any]) -> None:
    """What the owner has left: the state, and where it has flushed, nothing of closed windows."""
    life = run.oracles[process, number]
    store = Store(run.path(process.name, number))
    equal(
        _dump(store, run.within_ms),
        calm,
        f"state of {number} on the disk of {process.name}, against an undisturbed run",
    )
    if life.commits > life.inherited:
        first = life.first_open or 0
        remains = list(store.scan.closed_keys(0, first))
        reach = max(0, first - -(-run.within_ms // WINDOW_MS))
        remains += store.scan.closed_keys(0, reach, families=keys.IN_REACH)
        require(not remains, f"the store of {number} keeps {remains[:3]} of closed windows")
    store.close()


def _recovered(run: Simulation, name: str, number: int) -> dict[str, Any]:
    """What a process would find that opens the partition now; its own copy of it may be old, or there may be none."""
    store = Store(run.path(name, number))
    reader: Any = Reader(run.log, run.changelog, number, at_once=1_000)
    recovery.recover(store, reader, topic=run.changelog, partition=number)
    found = _dump(store, run.within_ms)
    store.close()
    return found


def _no_remains(latest: dict[bytes, bytes], oracle: Oracle, within_ms: int) -> None:
    """What a window had in the changelog goes with it, or a compacted topic would grow for ever."""
    for key in latest:
        if key[:1] in b"cod" and oracle.first_open is not None:
            number = struct.unpack(">q", key[1:9])[0]
            first = oracle.first_open - (0 if key[:1] == b"o" else -(-within_ms // WINDOW_MS))
            require(number >= first, f"the changelog of {oracle.number} keeps {key!r} of a closed window")

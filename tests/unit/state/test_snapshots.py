"""Snapshots of a real RocksDB: what is kept can be had again, what is not as written is passed over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadSetting, Fenced
from streams.observe.metrics import Metrics
from streams.settings import Settings
from streams.state.snapshots import SnapshotRepository, Snapshots, SnapshotWriter, checkpoint_folder
from streams.state.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE_MS = 60_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "partition-0")
    yield opened
    opened.close()


@pytest.fixture(params=["directory", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "directory":
        yield str(tmp_path / "kept")
        return
    yield f"memory://{tmp_path.name}/kept"


def settings(url: str) -> Settings:
    return Settings(snapshot_dir=url, snapshot_interval_ms=MINUTE_MS)


def snapshots(url: str) -> Snapshots:
    return Snapshots(settings(url), Metrics(), in_background=False)


def repository(url: str) -> SnapshotRepository:
    return SnapshotRepository(url, settings(url).changelog_topic)


def grow(store: Store, offset: int) -> None:
    """Write a table file that overlaps with all before, so that compacting means rewriting."""
    store.apply({b"s000000": b"%d" % offset, b"s%06d" % offset: b"x" * 1_000})
    store.set_position(offset)


def keep(snapshot_writer: SnapshotWriter, store: Store, *offsets: int) -> None:
    """Take a snapshot at each of these positions, which serve as sequences and minutes too."""
    for offset in offsets:
        grow(store, offset)
        snapshot_writer.write_if_due(store, offset, now_ms=offset * MINUTE_MS)


def names(url: str) -> list[str]:
    there = repository(url)
    return [path.rpartition("/")[2] for owner in there.owners(0) for path in there.ls(owner)]


def test_the_newest_snapshot_comes_back_as_the_state_was(url: str, store: Store, tmp_path: Path) -> None:
    keep(snapshots(url).snapshot_writer(0), store, 1, 2, 3)
    grow(store, 4)
    assert not checkpoint_folder(store.path).exists()
    place = tmp_path / "elsewhere" / "partition-0"
    assert snapshots(url).fetch_newest(0, place)
    copy = Store(place)
    assert copy.position() == 3
    assert [sku for skus, _ in copy.sku_rows() for sku in skus] == ["000000", "000001", "000002", "000003"]
    copy.close()


def test_none_is_taken_before_the_interval_is_over(url: str, store: Store) -> None:
    snapshot_writer = snapshots(url).snapshot_writer(0)
    snapshot_writer.write_if_due(store, 1, now_ms=0)
    snapshot_writer.write_if_due(store, 2, now_ms=MINUTE_MS - 1)
    assert repository(url).newest(0) is None
    snapshot_writer.write_if_due(store, 3, now_ms=MINUTE_MS)
    snapshot_writer.write_if_due(store, 4, now_ms=2 * MINUTE_MS - 1)
    newest = repository(url).newest(0)
    assert newest is not None
    assert newest[1] == 3


def test_a_table_file_is_copied_once_and_goes_when_no_kept_snapshot_needs_it(url: str, store: Store) -> None:
    snapshot_writer = snapshots(url).snapshot_writer(0)
    keep(snapshot_writer, store, 1, 2)
    first = {name for name in names(url) if name.endswith(".sst")}
    store.commit()  # one new table file takes the place of all
    keep(snapshot_writer, store, 3, 4)
    left = {name for name in names(url) if name.endswith(".sst")}
    assert first
    assert not first & left
    assert sum(name.endswith(".manifest") for name in names(url)) == 2


def test_a_new_owner_clears_away_what_earlier_ones_left_and_never_the_other_way_round(url: str, store: Store) -> None:
    old, new = snapshots(url).snapshot_writer(0), snapshots(url).snapshot_writer(0)
    keep(old, store, 1, 2, 3)
    keep(new, store, 4, 5)
    assert len(repository(url).owners(0)) == 2, "one snapshot of one's own is no reason yet"
    keep(new, store, 6)
    (only,) = repository(url).owners(0)
    keep(old, store, 7)  # it was paused and wakes up; its flushes are fenced, but suppose that one was not
    assert only in repository(url).owners(0)
    newest = repository(url).newest(0)
    assert newest is not None


@pytest.mark.parametrize("harm", ["truncated", "gone", "no manifest", "foreign format"])
def test_what_is_not_as_it_was_written_is_passed_over_with_a_warning(
    url: str, store: Store, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep(snapshots(url).snapshot_writer(0), store, 1, 2)
    there = repository(url)
    (owner,) = there.owners(0)
    at = {Path(path).suffix: path for path in there.ls(owner)}
    if harm == "truncated":
        there.fs.pipe_file(at[".sst"], there.fs.cat_file(at[".sst"])[:-1])
    elif harm == "gone":
        there.fs.rm_file(at[".sst"])
    elif harm == "no manifest":
        there.fs.pipe_file(at[".manifest"], b'{"format": 1, "seq')
    else:
        there.fs.pipe_file(at[".manifest"], there.fs.cat_file(at[".manifest"]).replace(b'"format":1', b'"format":9'))
    place = tmp_path / "elsewhere" / "partition-0"
    assert not snapshots(url).fetch_newest(0, place)
    assert not place.exists()
    assert not list(place.parent.glob(".*"))
    assert "is restored without a snapshot" in caplog.text


def test_a_place_that_cannot_be_written_costs_a_snapshot_and_nothing_else(store: Store, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file, where a directory should be")
    metrics = Metrics()
    snapshot_writer = Snapshots(settings(str(tmp_path / "kept")), metrics, in_background=False).snapshot_writer(0)
    keep(snapshot_writer, store, 1, 2)
    assert metrics.registry.get_sample_value("skutrend_snapshots_total", {"partition": "0", "outcome": "failed"}) == 1
    assert not checkpoint_folder(store.path).exists()


def test_a_url_of_no_known_kind_is_one_sentence() -> None:
    with pytest.raises(BadSetting, match=r"SKUTREND_SNAPSHOT_DIR is 'nowhere://x', which cannot be used"):
        SnapshotRepository("nowhere://x", "group")


def test_no_snapshot_is_no_news(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not snapshots(url).fetch_newest(0, tmp_path / "elsewhere" / "partition-0")
    assert not caplog.text


def test_a_worker_that_is_to_stop_leaves_off_in_the_midst_of_a_snapshot(url: str, store: Store, tmp_path: Path) -> None:
    keep(snapshots(url).snapshot_writer(0), store, 1, 2)

    def told(_: str) -> None:
        raise Fenced

    place = tmp_path / "elsewhere" / "partition-0"
    with pytest.raises(Fenced):
        snapshots(url).fetch_newest(0, place, told=told)
    assert not place.exists()


def test_a_partition_that_is_closed_during_an_upload_leaves_no_manifest(store: Store, tmp_path: Path) -> None:
    url, gate = str(tmp_path / "kept"), threading.Semaphore(0)
    snapshot_writer = SnapshotWriter(repository(url), 0, interval_ms=MINUTE_MS, metrics=Metrics(), gate=gate)
    keep(snapshot_writer, store, 1, 2)
    snapshot_writer.close()
    gate.release()
    thread = snapshot_writer._thread  # noqa: SLF001  # to wait for its end
    assert thread is not None
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert repository(url).newest(0) is None
    assert not checkpoint_folder(store.path).exists()

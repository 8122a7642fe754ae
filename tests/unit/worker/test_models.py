"""A new bundle is taken over while the worker runs: between two windows, in all partitions, or refused in words."""

from __future__ import annotations

import asyncio
import logging
import shutil
from typing import TYPE_CHECKING

import fsspec
import msgspec
import numpy as np
import pytest

from inference.bundle import MANIFEST, STEP
from inference.shadow import verdict
from schemas.errors import BadSetting, BundleMismatch
from schemas.inputs import CLICKS, ORDERS, PRICES
from streams.commands.serve import make_session, source_of, watched
from streams.config.bundle_source import BundleSource
from streams.settings import load
from streams.state import keys
from streams.worker.models import Models, Watched
from tests.support.models import bundle_in
from tests.support.partitions import (
    DAY_MS,
    T0,
    click,
    open_partition,
    order,
    price_change,
    published,
    reach,
    settings_for,
)
from tests.support.scripted import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from inference.session import Session
    from streams.settings import Settings

SKUS = ("a", "b", "c")
MINUTES_30 = 1_800_000


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of a net, one of another name, and one that is damaged."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {"one": {}, "two": {"version": "2"}, "other": {"name": "another"}, "hours": {"window_ms": 3_600_000}}
    for seed, (name, changes) in enumerate(made.items()):
        bundle_in(folder / name, seed=seed, **changes)
    shutil.copytree(folder / "two", folder / "damaged")
    (folder / "damaged" / STEP).write_bytes(b"half a gra")
    return {path.name: path for path in folder.iterdir()}


def put(bundles: dict[str, Path], name: str, served: Path) -> None:
    shutil.rmtree(served, ignore_errors=True)
    shutil.copytree(bundles[name], served)


@pytest.fixture
def served(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """The directory that the worker is told of, with the first version in it."""
    put(bundles, "one", tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def settings(broker: str, tmp_path: Path, served: Path) -> Settings:
    return settings_for(broker, tmp_path, window_ms=DAY_MS, bundle=str(served), flush_interval_ms=1_000)


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings, session=make_session(settings), watched=watched(settings))


def look(bench: Bench) -> None:
    asyncio.run(bench.worker.models.look())


def sell(bench: Bench, day: int, *, number: int = 0) -> None:
    at_ms = T0 + day * DAY_MS + MINUTES_30
    bench.now_ms = max(bench.now_ms, at_ms)
    lines = [order(f"{sku}{day}", sku, at_ms, quantity=2 + n) for n, sku in enumerate(SKUS)]
    for source, values in (
        (ORDERS, lines), (CLICKS, [click(f"c{day}", "a", at_ms)]), (PRICES, [price_change(f"p{day}", "a", at_ms, 2.0)]),
    ):  # fmt: skip
        fetched = bench.next(source, *values, number=number)
        bench.consumer.ends[bench.tp(source, number)] = fetched.next
        bench.deliver(source, fetched)
    bench.tick(after_ms=1_000)


def models_by_day(settings: Settings) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for forecast in published(settings, "forecasts"):
        day = (forecast["window_start_ms"] - T0) // DAY_MS
        found.setdefault(day, set()).add(forecast["model"].partition("+")[0])
    return found


def test_a_new_version_serves_from_the_next_window_on_and_no_window_is_missed(
    bench: Bench, settings: Settings, bundles: dict[str, Path], served: Path
) -> None:
    for day in range(4):
        sell(bench, day)
    table = bench.partition.sku_state.table
    expected = table["next_mean"][: len(SKUS)].copy()
    weights = bench.partition.pipeline.aggregation.weights()
    put(bundles, "two", served)
    look(bench)
    bench.tick(after_ms=1_000)
    np.testing.assert_array_equal(table["next_mean"][: len(SKUS)], expected, err_msg="what was served stays served")
    np.testing.assert_array_equal(bench.partition.pipeline.aggregation.weights(), weights)
    for day in range(4, 7):
        sell(bench, day)
    bench.flush()
    assert models_by_day(settings) == {
        **{day: {"test@1"} for day in range(3)},
        **{day: {"test@2"} for day in range(3, 6)},
    }
    assert len(published(settings, "forecasts")) == 6 * len(SKUS)
    model = bench.worker.environment.serving.session.model
    (sample,) = bench.worker.environment.metrics.provider.collect()[0].samples
    assert sample.labels["model"] == model
    bench.close()
    again = open_partition(settings, session=make_session(settings))
    assert again.meta.model == model
    assert {sku for skus, _ in again.store.scan.model_rows(model) for sku in skus} == set(SKUS)
    assert not again.store.scan.has_models_beside(model)
    again.close()


def test_all_partitions_go_over_before_the_same_window(
    broker: str, tmp_path: Path, bundles: dict[str, Path], served: Path
) -> None:
    settings = settings_for(broker, tmp_path, window_ms=DAY_MS, bundle=str(served))
    bench = Bench(
        settings,
        partitions=2,
        session=make_session(settings),
        watched=watched(settings),
    )
    for partition in bench.worker.partitions.values():
        partition.sku_state.admission.owns = None  # type: ignore[assignment]  # SKUs wherever the test puts them
    for day in range(5):
        sell(bench, day, number=0)
    for day in range(3):
        sell(bench, day, number=1)
    put(bundles, "two", served)
    look(bench)
    for day in range(3, 7):
        sell(bench, day, number=1)
    for day in range(5, 7):
        sell(bench, day, number=0)
    bench.flush()
    assert {day: len(models) for day, models in models_by_day(settings).items()} == dict.fromkeys(range(6), 1)
    assert models_by_day(settings)[3] == {"test@1"}, "the first had closed it with that"
    assert models_by_day(settings)[4] == {"test@2"}
    bench.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("damaged", "step.onnx is damaged"), ("hours", "learnt windows of 3600000 ms"), ("", "cannot be read: step.onnx")],
)
def test_a_bundle_that_cannot_serve_is_refused_once_in_words_and_the_old_one_stays(  # noqa: PLR0917 - by pytest
    bench: Bench,
    settings: Settings,
    bundles: dict[str, Path],
    served: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    said: str,
) -> None:
    sell(bench, 0)
    look(bench)
    if name:
        put(bundles, name, served)
    else:
        shutil.rmtree(served)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        look(bench)
        assert not caplog.records, "it may still be on its way"
        for _ in range(3):
            look(bench)
    (line,) = caplog.messages
    assert said in line
    assert line.endswith(f"{bench.worker.environment.serving.session.model} goes on serving")
    refused = bench.worker.environment.metrics.bundles_refused._value.get()  # noqa: SLF001
    assert refused == 3
    for day in range(1, 4):
        sell(bench, day)
    bench.flush()
    assert set().union(*models_by_day(settings).values()) == {"test@1"}
    put(bundles, "two", served)
    look(bench)
    for day in range(4, 6):
        sell(bench, day)
    bench.flush()
    assert models_by_day(settings)[4] == {"test@2"}, "once it is mended"
    bench.close()


def test_another_net_begins_with_the_weight_of_one_that_is_new(
    bench: Bench, bundles: dict[str, Path], served: Path
) -> None:
    for day in range(20):
        sell(bench, day)
    aggregation = bench.partition.pipeline.aggregation
    aggregation.losses[..., 0] -= 2  # the net has been best by far
    aggregation._now = aggregation._weights()  # noqa: SLF001
    assert aggregation.weights()[..., 0].min() > 0.5
    put(bundles, "other", served)
    look(bench)
    bench.tick(after_ms=1_000)
    now = bench.partition.pipeline.aggregation
    assert now is not aggregation
    assert now.weights()[..., 0].max() < 0.1
    assert not now.pending, "what the other net has forecast says nothing of this one"
    bench.close()


def test_the_same_files_are_not_loaded_twice(bench: Bench, settings: Settings) -> None:
    loaded = []

    def make(source: BundleSource) -> Session:
        loaded.append(source)
        return make_session(settings, source)

    source = source_of(settings.bundle, settings)
    models = Models(bench.worker.environment, bench.worker.opened, Watched(source, None, make))
    for _ in range(3):
        asyncio.run(models.look())
    assert len(loaded) == 1
    bench.close()


def test_a_bundle_may_lie_behind_a_url(bundles: dict[str, Path], tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("one", "two"):
        for path in bundles[name].iterdir():
            fs.pipe_file(f"/{name}/{path.name}", path.read_bytes())
    fs.copy("/one", "/served", recursive=True)
    source = BundleSource("memory://served", copies=tmp_path / "copies")
    before, folder = source.stamp(), source.local()
    assert (folder / MANIFEST).read_bytes() == (bundles["one"] / MANIFEST).read_bytes()
    for path in bundles["two"].iterdir():
        fs.pipe_file(f"/served/{path.name}", path.read_bytes())
    assert source.stamp() != before
    assert source.local() != folder
    assert len(list((tmp_path / "copies").iterdir())) == 2
    with pytest.raises(BundleMismatch, match=r"memory://nowhere cannot be read: step\.onnx: FileNotFoundError"):
        BundleSource("memory://nowhere", copies=tmp_path / "copies").stamp()


# ---------------------------------------------------------------------- the shadow
@pytest.fixture
def shadowed(settings: Settings, bundles: dict[str, Path]) -> Settings:
    return msgspec.structs.replace(settings, shadow_bundle=str(bundles["two"]))


def test_a_shadow_forecasts_beside_the_model_that_serves_and_changes_nothing(
    settings: Settings, shadowed: Settings, broker: str, tmp_path: Path
) -> None:
    alone = settings_for(broker, tmp_path / "alone", window_ms=DAY_MS, bundle=settings.bundle)
    made = []
    for each in (alone, shadowed):
        bench = Bench(each, session=make_session(each), watched=watched(each))
        look(bench)
        bench.tick(after_ms=1_000)
        for day in range(6):
            sell(bench, day)
        bench.flush()
        bench.close()
        made.append([{**f, "emitted_ms": 0} for f in published(each, "forecasts")])
    assert made[0] == made[1]
    beside = published(shadowed, "forecasts-shadow")
    assert {f["model"].partition("+")[0] for f in beside} == {"test@2"}
    assert sorted(f["id"] for f in beside) == sorted(f["id"] for f in made[1])


def test_with_the_net_that_serves_as_its_shadow_it_would_say_the_same(
    settings: Settings, bundles: dict[str, Path], tmp_path: Path
) -> None:
    put(bundles, "one", tmp_path / "same")
    manifest = msgspec.json.decode((tmp_path / "same" / MANIFEST).read_bytes())
    manifest["created_by"] = "somebody else"
    (tmp_path / "same" / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    settings = msgspec.structs.replace(settings, shadow_bundle=str(tmp_path / "same"))
    bench = Bench(settings, session=make_session(settings), watched=watched(settings))
    look(bench)
    for day in range(20):
        sell(bench, day)
    bench.flush()
    served, beside = published(settings, "forecasts"), published(settings, "forecasts-shadow")
    names = ("id", "quantiles", "mean", "sums", "trend", "source")
    of_served = {f["id"]: [f[name] for name in names] for f in served}
    assert len(beside) >= 18 * len(SKUS)
    for forecast in beside:
        assert [forecast[name] for name in names] == of_served[forecast["id"]]
    found = verdict([bench.partition.pipeline.shadow_score])
    assert found is not None
    assert (found.windows, found.mean, found.high) == (14, 0, 0)
    bench.close()


def test_a_restart_changes_nothing_of_what_the_shadow_says_nor_of_the_comparison(
    shadowed: Settings, broker: str, tmp_path: Path
) -> None:
    """A worker that is deployed daily would never compare enough windows, were it to begin anew."""
    told, scores = [], []
    for folder, restarts in (("through", ()), ("restarted", (4, 5, 9))):
        settings = settings_for(
            broker, tmp_path / folder, window_ms=DAY_MS, bundle=shadowed.bundle, shadow_bundle=shadowed.shadow_bundle
        )
        bench = begun(settings)
        for day in range(12):
            sell(bench, day)
            if day in restarts:
                bench.flush()
                bench.close()
                bench = begun(settings, after=bench)
        bench.flush()
        told.append([{**f, "emitted_ms": 0} for f in published(settings, "forecasts-shadow")])
        scores.append(bench.partition.pipeline.shadow_score.rows())
        model = bench.partition.meta.model
        bench.close()
        assert settings.shadow_bundle
        again = open_partition(settings, session=make_session(settings))
        assert again.store.scan.has_models_beside(model)
        again.close()
        without = msgspec.structs.replace(settings, shadow_bundle="")
        bench = begun(without, after=bench)
        sell(bench, 12)
        bench.flush()
        assert bench.partition.meta.shadow is None
        assert not bench.partition.store.scan.has_models_beside(model), "a shadow that is gone leaves nothing"
        bench.close()
    assert told[0] == told[1]
    assert len(told[0]) == 11 * len(SKUS)
    assert scores[0] == scores[1]
    assert len(scores[0]) == 10


def begun(settings: Settings, *, after: Bench | None = None) -> Bench:
    """A worker that has its shadow from before its first partition; after: the one whose place it takes."""
    bench = Bench(settings, session=make_session(settings), watched=watched(settings))
    asyncio.run(bench.worker.models.begin())
    if after is not None:
        bench.now_ms = after.now_ms
    bench.tick(after_ms=1_000)
    return bench


@pytest.mark.parametrize("stale", ["closed without it", "a row is missing", "cut rows"])
def test_what_is_stored_of_a_shadow_and_does_not_fit_is_built_anew(shadowed: Settings, stale: str) -> None:
    bench = begun(shadowed)
    for day in range(6):
        sell(bench, day)
    bench.flush()
    bench.close()
    shadow = make_session(shadowed, source_of(shadowed.shadow_bundle, shadowed))
    partition = open_partition(shadowed, session=make_session(shadowed))
    stored = next(partition.store.scan.model_rows(shadow.model))
    key = keys.model_prefix(shadow.model) + stored[0][0].encode()
    if stale == "a row is missing":
        partition.store.apply({key: None})
    elif stale == "cut rows":
        partition.store.apply({key: b"short"})
    else:
        reach(partition, T0 + 8 * DAY_MS, now_ms=T0 + 8 * DAY_MS)
    partition.change_shadow(shadow)
    table = partition.sku_state.table
    assert np.isnan(table["shadow_next"][: len(SKUS)]).all(), "what it would have served is not known any more"
    assert np.abs(table["shadow_h"][: len(SKUS)]).max() > 0
    assert len(partition.pipeline.shadow_score.rows()) == 4, "the comparison goes on all the same"
    partition.close()


@pytest.mark.parametrize("wish", ["off", "advise", "automatic"])
def test_a_shadow_that_is_not_worse_is_advised_or_put_in_the_place_of_what_serves(
    shadowed: Settings, bundles: dict[str, Path], served: Path, caplog: pytest.LogCaptureFixture, wish: str
) -> None:
    settings = msgspec.structs.replace(shadowed, shadow_promotion=wish)
    bench = Bench(settings, session=make_session(settings), watched=watched(settings))
    look(bench)
    bench.tick(after_ms=1_000)
    for day in range(8):
        sell(bench, day)
    look(bench)
    assert "is not worse" not in caplog.text
    score = bench.partition.pipeline.shadow_score
    score.by_window = {number: np.array([9.0 + number % 2 / 10, 10, 30]) for number in range(14)}
    for _ in range(3):
        look(bench)
    bounds = bench.worker.environment.metrics.shadow_loss.collect()[0].samples
    assert {s.labels["bound"]: round(s.value, 2) for s in bounds} == {"low": -0.1, "mean": -0.1, "high": -0.09}
    said = [line for line in caplog.messages if "is not worse" in line]
    assert len(said) == (wish != "off")
    assert all("loss -9.5% (-9.8% to -9.2%) over 14 windows; " in line for line in said)
    assert all(line.endswith("put in its place") == (wish == "automatic") for line in said)
    for day in range(8, 10):
        sell(bench, day)
    bench.flush()
    serves = {"test@2"} if wish == "automatic" else {"test@1"}
    assert models_by_day(settings)[8] == serves
    same = (served / MANIFEST).read_bytes() == (bundles["two"] / MANIFEST).read_bytes()
    assert same == (wish == "automatic")
    if wish == "automatic":
        assert bench.partition.shadow is None, "it is no shadow any more"
    bench.close()


@pytest.mark.parametrize(
    ("bundle", "wish", "said"),
    [("none", "advise", "nothing to compare it with"), ("shipped", "automatic", "a directory of your own")],
)
def test_settings_that_leave_a_shadow_nothing_to_do_are_refused(bundle: str, wish: str, said: str) -> None:
    env = {"BUNDLE": bundle, "SHADOW_BUNDLE": "x", "SHADOW_PROMOTION": wish}
    with pytest.raises(BadSetting, match=said):
        load(environment={f"SKUTREND_{name}": value for name, value in env.items()})

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoding import FEATURES
from inference import providers
from inference.bundle import Bundle
from inference.session import CPU_BUCKETS, CUDA_BUCKETS, Session, StepOutput, cut
from inference.training.export import reference
from schemas.errors import BadSetting
from tests.support.examples import examples
from tests.support.models import bundle_in, step_arrays, untrained

SKUS = 1100
SHARED = ("calendar", "season_next", "season_sums")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session(bundle, provider="cpu")


@pytest.fixture(scope="module")
def whole(session: Session) -> StepOutput:
    return session.run_step(**step_arrays(SKUS))


def pick(rows: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # noqa: ANN401 - slice or indices
    return {name: value if name in SHARED else value[rows] for name, value in arrays.items()}


def equal(found: StepOutput, wanted: StepOutput) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@examples(60)
@given(begin=st.integers(0, SKUS - 1), count=st.integers(0, 700))
def test_a_sku_does_not_notice_its_batch_its_padding_or_its_bucket(
    begin: int, count: int, session: Session, whole: StepOutput
) -> None:
    rows = slice(begin, begin + count)
    found = session.run_step(**pick(rows, step_arrays(SKUS)))
    assert equal(found, StepOutput(*(value[rows] for value in whole)))


@examples(20)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_skus_does_not_matter(seed: int, session: Session, whole: StepOutput) -> None:
    order = np.random.default_rng(seed).permutation(SKUS)
    found = session.run_step(**pick(order, step_arrays(SKUS)))
    assert equal(found, StepOutput(*(value[order] for value in whole)))


@pytest.mark.parametrize("threads", [2, 3])
def test_more_threads_change_nothing(threads: int, bundle: Bundle) -> None:
    arrays = step_arrays(3 * CPU_BUCKETS[-1] + 5)
    one = Session(bundle, provider="cpu").run_step(**arrays)
    assert equal(Session(bundle, provider="cpu", threads=threads).run_step(**arrays), one)


def test_a_sku_with_broken_features_spoils_only_itself(session: Session, whole: StepOutput) -> None:
    arrays = step_arrays(SKUS)
    arrays["x"][700] = np.nan
    found = session.run_step(**arrays)
    others = np.arange(SKUS) != 700
    assert np.isnan(found.mean[700]).any()
    assert equal(StepOutput(*(v[others] for v in found)), StepOutput(*(v[others] for v in whole)))
    assert equal(session.run_step(**step_arrays(SKUS)), whole)


def test_it_says_what_the_network_says(session: Session) -> None:
    arrays = step_arrays(300)
    found, wanted = session.run_step(**arrays), reference(untrained(), arrays)
    np.testing.assert_allclose(found.h, wanted["h_next"], atol=1e-5)
    np.testing.assert_allclose(found.c, wanted["c_next"], atol=1e-5)
    np.testing.assert_allclose(found.mean, wanted["mean"], atol=0.000_51, rtol=2e-5)
    assert (np.diff(found.quantiles, axis=2) >= 0).all()
    assert (np.diff(found.sums, axis=2) >= 0).all()


def test_inputs_are_left_alone_and_outputs_are_the_callers_own(session: Session) -> None:
    arrays = step_arrays(700)
    before = {name: value.copy() for name, value in arrays.items()}
    first = session.run_step(**arrays)
    kept = StepOutput(*(value.copy() for value in first))
    session.run_step(**step_arrays(700, seed=1))
    assert equal(first, kept)
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)
    first.quantiles[:] = 0.0


def test_any_dtype_and_stride_of_the_right_shape_will_do(session: Session) -> None:
    arrays = step_arrays(50)
    loose = {name: np.asfortranarray(value) for name, value in arrays.items()}
    loose["x"] = loose["x"].astype(np.float64)
    assert equal(session.run_step(**loose), session.run_step(**arrays))


@pytest.mark.parametrize("name", ["x", "h", "c", "calendar", "scale", "season_next", "season_sums", "integer_units"])
def test_a_wrong_shape_is_named(name: str, session: Session) -> None:
    arrays = step_arrays(10)
    arrays[name] = np.zeros((10, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match=rf"{name} has shape \(10, 3, 3, 3\), the model asks for"):
        session.run_step(**arrays)


def test_no_skus_are_no_work(session: Session) -> None:
    found = session.run_step(**step_arrays(0))
    assert found.quantiles.shape == (0, 14, 7)
    assert found.h.shape == (0, 2, 48)


@settings(deadline=None)
@given(n=st.integers(0, 60_000), buckets=st.sampled_from([CPU_BUCKETS, CUDA_BUCKETS, (8,)]))
def test_a_batch_is_cut_without_gap_or_overlap(n: int, buckets: tuple[int, ...]) -> None:
    parts = list(cut(n, buckets))
    assert [row for begin, end, _ in parts for row in (begin, end)] == sorted(
        [0, *(end for _, end, _ in parts for _ in (0, 1))][: 2 * len(parts)]
    )
    assert sum(end - begin for begin, end, _ in parts) == n
    assert all(0 < end - begin <= bucket for begin, end, bucket in parts)
    assert {bucket for *_, bucket in parts} <= set(buckets)


def steps(session: Session, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    arrays = step_arrays(x.shape[1])
    for row in x:
        out = session.run_step(**(arrays | {"x": row, "h": h, "c": c}))
        h, c = out.h, out.c
    return h, c


def test_a_replay_ends_where_the_steps_end(session: Session) -> None:
    rng, arrays = np.random.default_rng(5), step_arrays(150)
    x = rng.normal(size=(20, 150, arrays["x"].shape[1])).astype(np.float32)
    h, c = session.run_replay(x, arrays["h"], arrays["c"])
    h_steps, c_steps = steps(session, x, arrays["h"], arrays["c"])
    np.testing.assert_allclose(h, h_steps, atol=2e-5)
    np.testing.assert_allclose(c, c_steps, atol=2e-5)


def test_a_replay_takes_each_sku_from_its_own_birth(session: Session) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(12, 40, len(FEATURES))).astype(np.float32)
    lengths = rng.integers(0, 13, 40)
    lengths[:3] = [0, 12, 5]
    zero = np.zeros((40, 2, 48), np.float32)
    h, c = session.run_replay(x, zero, zero, lengths=lengths)
    for sku in (0, 1, 2, 17, 39):
        own = x[12 - lengths[sku] :, sku : sku + 1]
        h_own, c_own = steps(session, own, zero[:1], zero[:1])
        np.testing.assert_allclose(h[sku], h_own[0], atol=2e-5)
        np.testing.assert_allclose(c[sku], c_own[0], atol=2e-5)
    assert not h[0].any()
    assert not zero.any()


@pytest.mark.parametrize("lengths", [[1, 2], [0, 1, 5], [-1, 0, 0]])
def test_lengths_that_cannot_be_are_refused(lengths: list[int], session: Session) -> None:
    x, state = np.zeros((4, 3, len(FEATURES)), np.float32), np.zeros((3, 2, 48), np.float32)
    with pytest.raises(ValueError, match="lengths has shape"):
        session.run_replay(x, state, state, lengths=np.array(lengths))


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Let all begin at the same moment, each in a thread; returns what they return, in this order."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:  # noqa: ANN401
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


class Watched:
    """A graph that takes its time, and counts how many callers are in it."""

    def __init__(self, graph: Any, *, until: threading.Event | None = None) -> None:  # noqa: ANN401
        self._graph, self._until = graph, until
        self.inside = self.most = 0
        self.entered = threading.Event()

    def run(self, *how: Any) -> Any:  # noqa: ANN401
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.set()
        time.sleep(0.005)
        assert self._until is None or self._until.wait(30)
        found = self._graph.run(*how)
        self.inside -= 1
        return found


def test_partitions_that_are_restored_together_are_warmed_up_one_at_a_time(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = np.zeros((40, 2, 48), np.float32)
    x = [np.random.default_rng(seed).normal(size=(6, 40, len(FEATURES))).astype(np.float32) for seed in range(4)]
    lengths = np.arange(40) % 7
    wanted = [session.run_replay(each, zero, zero, lengths=lengths) for each in x]
    watched = Watched(session._replay)  # noqa: SLF001 - what must not be shared
    monkeypatch.setattr(session, "_replay", watched)
    found = at_once(*(partial(session.run_replay, each, zero, zero, lengths=lengths) for each in x))
    assert watched.most == 1
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(ours, theirs)


def test_a_window_closes_while_another_partition_is_warmed_up(
    session: Session, whole: StepOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    watched = Watched(session._replay, until=go)  # noqa: SLF001
    monkeypatch.setattr(session, "_replay", watched)
    x, zero = np.zeros((2, 3, len(FEATURES)), np.float32), np.zeros((3, 2, 48), np.float32)
    with ThreadPoolExecutor(1) as pool:
        warming = pool.submit(session.run_replay, x, zero, zero)
        assert watched.entered.wait(30)
        assert equal(session.run_step(**step_arrays(SKUS)), whole)
        assert not warming.done()
        go.set()
        warming.result(timeout=30)


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_of_several_threads_do_not_mix(threads: int, bundle: Bundle, whole: StepOutput) -> None:
    session, arrays = Session(bundle, provider="cpu", threads=threads), step_arrays(SKUS)
    rows = [slice(low, low + 90 + low % 7) for low in range(0, 900, 150)]

    def step(some: slice) -> bool:
        wanted = StepOutput(*(value[some] for value in whole))
        return all(equal(session.run_step(**pick(some, arrays)), wanted) for _ in range(30))

    assert all(at_once(*(partial(step, some) for some in rows)))


def test_the_provider_is_the_one_that_runs(session: Session, bundle: Bundle) -> None:
    assert session.provider == "CPU"
    assert session.buckets == CPU_BUCKETS
    assert session.model == bundle.id
    assert (session.layers, session.hidden) == (2, 48)


def test_auto_without_a_gpu_serves_on_the_cpu_and_says_why_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(providers, "no_gpu", lambda: "no NVIDIA driver is installed")
    with caplog.at_level(logging.INFO):
        assert Session(bundle).provider == "CPU"
    assert [r.getMessage() for r in caplog.records] == ["inference runs on the CPU: no NVIDIA driver is installed"]
    assert capfd.readouterr() == ("", "")


def test_auto_with_a_gpu_but_no_cuda_libraries_falls_back_quietly(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_libraries(*_: object, **__: object) -> None:
        print("Failed to load libcudnn.so.9")

    real = providers.ort.InferenceSession

    def without_cuda(graph: bytes, options: object, *, providers: list[Any]) -> object:
        return real(graph, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(providers, "no_gpu", lambda: None)
    monkeypatch.setattr(providers.ort, "preload_dlls", no_libraries)
    monkeypatch.setattr(providers.ort, "InferenceSession", without_cuda)
    with caplog.at_level(logging.INFO):
        assert Session(bundle).provider == "CPU"
    assert [r.getMessage() for r in caplog.records] == [
        "inference runs on the CPU: Failed to load libcudnn.so.9; install skutrend[gpu]"
    ]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(BadSetting, match=r"provider is cuda.*libcudnn\.so\.9.*skutrend\[gpu\]"):
        Session(bundle, provider="cuda")


def test_cuda_by_name_is_never_the_cpu_in_silence(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "no_gpu", lambda: "the NVIDIA driver sees no device")
    with pytest.raises(BadSetting, match=r"provider is cuda.*sees no device; set provider to auto or cpu"):
        Session(bundle, provider="cuda")


def test_this_machine_is_asked_without_noise(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    assert Session(bundle).provider in {"CPU", "CUDA"}
    assert capfd.readouterr() == ("", "")


def test_a_bundle_directory_may_go_away_once_it_was_loaded(tmp_path: Path) -> None:
    loaded = bundle_in(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    assert Session(loaded, provider="cpu").run_step(**step_arrays(3)).mean.shape == (3, 14)

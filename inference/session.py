"""Running a bundle: one window of many SKUs at a time, on the CPU or on CUDA.

A batch is cut into buckets, a few fixed sizes, so that ONNX Runtime plans its memory once per size and CUDA never
meets a new shape. Whole buckets are read from and written to the caller's arrays in place; only the last, partly
filled one is copied through a padded buffer. On the CPU small buckets win: what passes through stays in the cache.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import onnxruntime as ort

from features.cadence import LEVELS
from inference import providers, weights
from inference.bundle import LAYERS, REPLAY, STEP, replay_inputs, replay_outputs, step_inputs, step_outputs
from schemas.errors import BundleMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from features.cadence import Cadence
    from features.grid import WindowGrid
    from inference.bundle import Bundle, Manifest, Shapes
    from inference.providers import Choice

# Measured on a core with 1 MiB of level-2 cache, 24 features, 2 x 48: 2.0 us a SKU at 512, 2.2 at 1024, 3.2 at 64.
CPU_BUCKETS: Final = (16, 64, 128, 256, 512)
CUDA_BUCKETS: Final = (256, 1024, 4096, 16384)
# a replay holds T inputs of every SKU at once, so it takes fewer SKUs
REPLAY_SKUS: Final = {"CPU": 128, "CUDA": 4096}
PROBED_SKUS: Final = 16
SHARED_BY_ALL: Final = frozenset({"calendar", "season_next", "season_sums"})

Arrays = dict[str, "NDArray[Any]"]


class StepOutput(NamedTuple):
    """What one window close expects of n SKUs, in units, and their state after it; fresh arrays, the caller's own.

    quantiles f4[n, K, Q], sums f4[n, S, Q]: ascending, >= 0, whole where `integer_units`, else to 3 decimals;
    mean f4[n, K] >= 0 to 3 decimals; h, c f4[n, 2, H].
    """

    quantiles: NDArray[np.float32]
    sums: NDArray[np.float32]
    mean: NDArray[np.float32]
    h: NDArray[np.float32]
    c: NDArray[np.float32]

    @classmethod
    def none(cls, n: int, cadence: Cadence, state: tuple[NDArray[np.float32], NDArray[np.float32]]) -> StepOutput:
        """Say nothing, NaN, of n SKUs, and leave their state as it is."""
        shapes = (n, cadence.horizon, len(LEVELS)), (n, len(cadence.spans), len(LEVELS)), (n, cadence.horizon)
        quantiles, sums, mean = (np.full(shape, np.nan, np.float32) for shape in shapes)
        return cls(quantiles, sums, mean, *state)


class Session:
    """A bundle made ready to run; every bucket has been run once when the constructor returns.

    `threads` CPU cores work on different buckets; results do not depend on how many, nor on a SKU's neighbours (on CUDA
    up to a millionth: its kernels differ by bucket).
    Callers in several threads take turns, one step and one replay at a time, which do not wait for each other: a window
    closes while another partition is warmed up. Raises BundleMismatch when the graphs are not what the manifest says,
    or give what is no finite number, BadSetting when `provider` is "cuda" and CUDA cannot be used.
    """

    def __init__(self, bundle: Bundle, *, provider: Choice = "auto", threads: int = 1) -> None:
        """Open both graphs, assert where they run, warm up, and see that they answer in finite numbers."""
        manifest = bundle.manifest
        self.bundle, self.model = bundle, bundle.id
        self.layers, self.hidden = LAYERS, manifest.hidden
        self._step = _open(bundle, STEP, provider, (step_inputs(manifest), step_outputs(manifest)))
        self.provider: str = providers.SHORT[self._step.get_providers()[0]]
        chosen: Choice = "cuda" if self.provider == "CUDA" else "cpu"
        self._replay = _open(bundle, REPLAY, chosen, (replay_inputs(manifest), replay_outputs(manifest)))
        self.buckets = CUDA_BUCKETS if self.provider == "CUDA" else CPU_BUCKETS
        workers = max(1, threads) if self.provider == "CPU" else 1
        self._lanes = [_Lane(self._step, manifest) for _ in range(workers)]
        self._pool = ThreadPoolExecutor(workers, "inference") if workers > 1 else None
        self._stepping, self._replaying = threading.Lock(), threading.Lock()
        for name, graph in ((STEP, bundle.step), (REPLAY, bundle.replay)):
            bad = weights.not_finite(graph)
            if bad:
                raise _no_numbers(bundle, f"in {name} the weights {', '.join(bad)} hold NaN or infinity")
        self._warm_up()
        self._probe()

    def fits(self, grid: WindowGrid) -> bool:
        """Whether it has learnt such windows, and forecasts as many of them."""
        manifest = self.bundle.manifest
        return (manifest.window_ms, manifest.horizon) == (grid.window_ms, grid.cadence.horizon)

    def horizon_for(self, grid: WindowGrid) -> int | None:
        """Say how many windows to forecast: as the grid says, else as many as it does if it has learnt such windows."""
        manifest = self.bundle.manifest
        learnt = manifest.horizon if manifest.window_ms == grid.window_ms else None
        return learnt if grid.horizon is None else grid.horizon

    def run_step(  # noqa: PLR0913 - the graph's inputs, all but three by name
        self,
        x: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        *,
        calendar: NDArray[np.float32],
        scale: NDArray[np.float32],
        season_next: NDArray[np.float32],
        season_sums: NDArray[np.float32],
        integer_units: NDArray[np.bool_],
    ) -> StepOutput:
        """Advance n SKUs by the window they have just closed, and forecast.

        x f4[n, F], h and c f4[n, 2, H], calendar f4[C], scale f4[n] (nu, units per window), season_next f4[K],
        season_sums f4[S] (season summed over the first 7, 14 windows), integer_units bool[n]. Inputs are left as they
        are; n may be 0. Wrong shapes raise ValueError; other dtypes and strides are copied.
        """
        manifest, n = self.bundle.manifest, len(x)
        given = {
            "x": x,
            "h": h,
            "c": c,
            "calendar": calendar,
            "scale": scale,
            "season_next": season_next,
            "season_sums": season_sums,
            "integer_units": integer_units,
        }
        inputs = {name: _fitting(name, given[name], shape, n) for name, shape in step_inputs(manifest).items()}
        outputs = {
            name: np.empty((n, *_sizes(shape[1:])), np.float32) for name, shape in step_outputs(manifest).items()
        }
        parts = list(cut(n, self.buckets))
        with self._stepping:  # each lane has one binding, and one padded buffer a bucket
            if self._pool is None or len(parts) == 1:
                self._lanes[0].run(parts, inputs, outputs)
            else:
                lanes = [(lane, parts[i :: len(self._lanes)]) for i, lane in enumerate(self._lanes)]
                for done in [self._pool.submit(lane.run, share, inputs, outputs) for lane, share in lanes if share]:
                    done.result()
        return StepOutput(*outputs.values())

    def run_replay(
        self,
        x: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        *,
        lengths: NDArray[np.integer[Any]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Advance n SKUs by T windows, states only: x f4[T, n, F], h and c f4[n, 2, H] -> h, c f4[n, 2, H].

        Where `lengths` i[n] is given, SKU i reads only its last `lengths[i]` windows (0: its state stays), so SKUs of
        different ages can share one array. Wrong shapes raise ValueError.
        """
        windows, n = x.shape[:2]
        names = replay_inputs(self.bundle.manifest)
        x = _fitting("x", x, (windows, n, *names["x"][2:]), n, contiguous=False)
        after = [_fitting(name, value, names[name], n).copy() for name, value in (("h", h), ("c", c))]
        own = np.full(n, windows) if lengths is None else np.asarray(lengths)
        if own.shape != (n,) or (n and (own.min() < 0 or own.max() > windows)):
            message = f"lengths has shape {own.shape} and must have ({n},), each from 0 to {windows}"
            raise ValueError(message)
        most = REPLAY_SKUS[self.provider]
        for length in np.unique(own[own > 0]).tolist():
            alike = np.flatnonzero(own == length)
            for begin in range(0, len(alike), most):
                at = alike[begin : begin + most]
                feeds = {
                    "x": np.ascontiguousarray(x[windows - length :, at]), "h": after[0][at], "c": after[1][at],
                }  # fmt: skip
                with self._replaying:  # part by part, so that partitions restored together get on together
                    after[0][at], after[1][at] = self._replay.run(["h_next", "c_next"], feeds)
        return after[0], after[1]

    def _warm_up(self) -> None:
        manifest = self.bundle.manifest
        for lane in self._lanes:
            for bucket in self.buckets:
                inputs, outputs = _zeros(step_inputs(manifest), bucket), _zeros(step_outputs(manifest), bucket)
                lane.run([(0, bucket, bucket)], inputs, outputs)
        inputs = _zeros(replay_inputs(manifest), 1)
        self._replay.run(None, inputs)

    def _probe(self) -> None:
        """Run both graphs on made-up SKUs: a diverged training leaves weights whose answers are no numbers."""
        manifest, rng = self.bundle.manifest, np.random.default_rng(1)
        n, state = PROBED_SKUS, (PROBED_SKUS, LAYERS, manifest.hidden)
        x = rng.normal(size=(3, n, len(manifest.features))).astype(np.float32)
        season_next = np.ones(manifest.horizon, np.float32)
        given = {
            "calendar": rng.normal(size=len(manifest.calendar)).astype(np.float32),
            "scale": np.geomspace(1e-2, 1e4, n).astype(np.float32),
            "season_next": season_next,
            "season_sums": np.array([season_next[:span].sum() for span in manifest.sum_windows], np.float32),
            "integer_units": np.arange(n) % 2 == 0,
        }
        h, c = self.run_replay(x[:2], np.zeros(state, np.float32), np.zeros(state, np.float32))
        made = {"replayed h": h, "replayed c": c, **self.run_step(x[2], h, c, **given)._asdict()}
        for name, value in made.items():
            bad = n - int(np.isfinite(value.reshape(n, -1)).all(axis=1).sum())
            if bad:
                raise _no_numbers(self.bundle, f"{name} of {bad} of {n} SKUs of a probe are NaN or infinite")


class _Lane:
    """One caller of the step graph at a time: its binding, and padded buffers for each bucket it has met."""

    def __init__(self, session: ort.InferenceSession, manifest: Manifest) -> None:
        self._session, self._binding = session, session.io_binding()
        self._inputs, self._outputs = step_inputs(manifest), step_outputs(manifest)
        self._padded: dict[int, tuple[Arrays, Arrays]] = {}

    def run(self, parts: list[tuple[int, int, int]], inputs: Arrays, outputs: Arrays) -> None:
        """Run (begin, end, bucket) parts of `inputs` into the same rows of `outputs`."""
        for begin, end, bucket in parts:
            own = {name: value if name in SHARED_BY_ALL else value[begin:end] for name, value in inputs.items()}
            into = {name: value[begin:end] for name, value in outputs.items()}
            if end - begin == bucket:
                self._bind_and_run(own, into)
            else:
                self._run_padded(bucket, own, into)

    def _run_padded(self, bucket: int, own: Arrays, into: Arrays) -> None:
        if bucket not in self._padded:
            self._padded[bucket] = _zeros(self._inputs, bucket), _zeros(self._outputs, bucket)
        wide_in, wide_out = self._padded[bucket]
        for name, value in own.items():
            wide_in[name][: len(value)] = value
        self._bind_and_run(wide_in, wide_out)
        for name, value in into.items():
            value[:] = wide_out[name][: len(value)]

    def _bind_and_run(self, inputs: Arrays, outputs: Arrays) -> None:
        for name, value in inputs.items():
            self._binding.bind_input(name, "cpu", 0, value.dtype.type, value.shape, value.ctypes.data)
        for name, value in outputs.items():
            self._binding.bind_output(name, "cpu", 0, value.dtype.type, value.shape, value.ctypes.data)
        self._session.run_with_iobinding(self._binding)


def cut(n: int, buckets: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Cut n rows into (begin, end, bucket): whole largest buckets, then the smallest that holds the rest.

    >>> list(cut(1100, (64, 256, 512)))
    [(0, 512, 512), (512, 1024, 512), (1024, 1100, 256)]
    """
    largest = buckets[-1]
    for begin in range(0, n, largest):
        end = min(begin + largest, n)
        yield begin, end, next(bucket for bucket in buckets if bucket >= end - begin)


def _open(bundle: Bundle, name: str, wanted: Choice, shapes: tuple[Shapes, Shapes]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # One core a run: at these sizes handing every node to a thread pool costs more than it brings.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = name == STEP  # a replay's T and n vary: a plan for each would pile up
    path = bundle.directory / name
    graph = bundle.step if name == STEP else bundle.replay
    try:
        session = providers.open_session(graph, options, wanted=wanted)
    except providers.OPEN_ERRORS as error:
        said, helps = providers.reason(error), providers.remedy(error)
        message = f"{path} cannot be opened by ONNX Runtime {ort.__version__}: {said}; {helps}"
        raise BundleMismatch(message) from error
    sides = (("input", session.get_inputs(), shapes[0]), ("output", session.get_outputs(), shapes[1]))
    for side, found, wanted_shapes in sides:
        have = {node.name: tuple(None if isinstance(s, str) else s for s in node.shape) for node in found}
        for value in sorted(have.keys() | wanted_shapes.keys()):
            if have.get(value) != wanted_shapes.get(value):
                message = (
                    f"{path}: {side} {value} has shape {have.get(value)}, the manifest asks for "
                    f"{wanted_shapes.get(value)} (None: any); its files are of different bundles: copy the whole one"
                )
                raise BundleMismatch(message)
    return session


def _no_numbers(bundle: Bundle, what: str) -> BundleMismatch:
    return BundleMismatch(
        f"bundle {bundle.directory} cannot be served: {what}, as after a training that diverged; train it anew with "
        "`skutrend train` (another --seed, or fewer --iterations), or set SKUTREND_BUNDLE=shipped"
    )


def _fitting(
    name: str, value: NDArray[Any], shape: tuple[int | None, ...], n: int, *, contiguous: bool = True
) -> NDArray[Any]:
    wanted = tuple(n if size is None else size for size in shape)
    if value.shape != wanted:
        message = f"{name} has shape {value.shape}, the model asks for {wanted}"
        raise ValueError(message)
    dtype = np.bool_ if name == "integer_units" else np.float32
    return np.ascontiguousarray(value, dtype) if contiguous else np.asarray(value, dtype)


def _zeros(shapes: Shapes, n: int) -> Arrays:
    """Make arrays of zeros for every name, each unknown dimension being n."""
    return {
        name: np.zeros(
            [n if size is None else size for size in shape], np.bool_ if name == "integer_units" else np.float32
        )
        for name, shape in shapes.items()
    }


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size is not None)

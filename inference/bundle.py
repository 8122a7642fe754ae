"""A model bundle: a directory with two ONNX graphs and a manifest that says what they were made from and for.

    step.onnx       one window of n SKUs: inputs and recurrent state in, forecasts in units and next state out
    replay.onnx     T windows of n SKUs: recurrent state only, to warm up a new model
    manifest.json   everything else; the SHA-256 of both graphs, so that a half-copied bundle is noticed

The graphs' names and shapes are in `step_inputs` and its siblings; `inference.session` checks them once more against
what ONNX Runtime reads. Nothing here imports it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from features import dates
from features.cadence import DAY_MS, HORIZON, LEVELS, MOST_HOURS, spans_of
from schemas.errors import BundleMismatch
from schemas.refusals import DECODE_ERRORS

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
STEP: Final = "step.onnx"
REPLAY: Final = "replay.onnx"
LAYERS: Final = 2
SHIPPED: Final = Path(__file__).parent / "shipped"

Shapes = dict[str, tuple[int | None, ...]]


class Span(msgspec.Struct, frozen=True):
    """The event time a model has seen: epoch ms, half-open."""

    start_ms: int
    end_ms: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is. `horizon`, `sum_windows` count windows of `window_ms`; `sha256` is by file name, hex.

    windows: signature of the grid it has learnt from (features.grid); older bundles do not say. calendar: names of what
    it is told of the windows to come.
    """

    format: int = FORMAT
    name: str
    version: str
    feature_fingerprint: str
    features: tuple[str, ...]
    calendar: tuple[str, ...] = ()
    window_ms: int
    horizon: int
    quantile_levels: tuple[float, ...]
    sum_windows: tuple[int, ...]
    hidden: int
    training_span: Span
    metrics: dict[str, float]
    created_by: str
    sha256: dict[str, str] = {}
    windows: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read whole and found sound; the graphs are the very bytes that were hashed."""

    directory: Path
    manifest: Manifest
    step: bytes
    replay: bytes

    @property
    def id(self) -> str:
        """Name this model on every forecast: `name@version+hash8`, the hash covering both graphs and the manifest."""
        digest = hashlib.sha256(msgspec.json.encode(self.manifest)).hexdigest()
        return f"{self.manifest.name}@{self.manifest.version}+{digest[:8]}"


def load(path: Path | None = None, *, expected_fingerprint: str) -> Bundle:
    """Read and check the bundle in directory `path` (None: the shipped one).

    `expected_fingerprint` is that of the features this build computes. Raises BundleMismatch when a file is missing,
    damaged, of another format, or made for other features, quantile levels, steps or sums.
    """
    directory = SHIPPED if path is None else Path(path)
    manifest = _read_manifest(directory)
    _check(manifest, directory, expected_fingerprint)
    graphs = {}
    for name in (STEP, REPLAY):
        content = _read(directory, name)
        stated, found = manifest.sha256.get(name), hashlib.sha256(content).hexdigest()
        if stated != found:
            message = (
                f"{directory / name} is damaged: its SHA-256 is {found[:12]}..., {MANIFEST} says "
                f"{(stated or 'nothing')[:12]}...; copy the whole bundle again or train a new one"
            )
            raise BundleMismatch(message)
        graphs[name] = content
    return Bundle(directory, manifest, graphs[STEP], graphs[REPLAY])


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json for the graphs that are in `directory`, with their hashes filled in, and return it."""
    hashes = {name: hashlib.sha256(_read(directory, name)).hexdigest() for name in (STEP, REPLAY)}
    whole = msgspec.structs.replace(manifest, sha256=hashes)
    content = msgspec.json.format(msgspec.json.encode(whole), indent=2)
    (directory / MANIFEST).write_bytes(content + b"\n")
    return whole


def describe(bundle: Bundle) -> list[str]:
    """Say what is in a bundle, one fact a line."""
    m = bundle.manifest
    size_kb = (len(bundle.step) + len(bundle.replay)) / 1024
    return [
        f"bundle       {bundle.id} in {bundle.directory}",
        f"made by      {m.created_by}",
        f"trained on   {dates.stamp(m.training_span.start_ms)} to {dates.stamp(m.training_span.end_ms)}",
        f"learnt       windows of {m.window_ms} ms{f' ({m.windows})' if m.windows else ''}",
        f"features     {len(m.features)} a SKU, {len(m.calendar)} of the calendar, "
        f"fingerprint {m.feature_fingerprint} (as this build computes them)",
        f"forecasts    {m.horizon} steps, sums over {', '.join(map(str, m.sum_windows))} windows",
        f"quantiles    {', '.join(f'{level:g}' for level in m.quantile_levels)}",
        f"network      {LAYERS} layers of {m.hidden}, {size_kb:.0f} KiB",
        *(f"metric       {name} = {value:g}" for name, value in m.metrics.items()),
    ]


def step_inputs(manifest: Manifest) -> Shapes:
    """Name the inputs of step.onnx and their shapes; None is the number of SKUs."""
    hidden, features = manifest.hidden, len(manifest.features)
    return {
        "x": (None, features),
        "h": (None, LAYERS, hidden),
        "c": (None, LAYERS, hidden),
        "calendar": (len(manifest.calendar),),
        "scale": (None,),
        "season_next": (manifest.horizon,),
        "season_sums": (len(manifest.sum_windows),),
        "integer_units": (None,),
    }


def step_outputs(manifest: Manifest) -> Shapes:
    """Name the outputs of step.onnx and their shapes; None is the number of SKUs."""
    levels, hidden = len(manifest.quantile_levels), manifest.hidden
    return {
        "quantiles": (None, manifest.horizon, levels),
        "sums": (None, len(manifest.sum_windows), levels),
        "mean": (None, manifest.horizon),
        "h_next": (None, LAYERS, hidden),
        "c_next": (None, LAYERS, hidden),
    }


def replay_inputs(manifest: Manifest) -> Shapes:
    """Name the inputs of replay.onnx and their shapes; None is the number of windows, then of SKUs."""
    state = (None, LAYERS, manifest.hidden)
    return {"x": (None, None, len(manifest.features)), "h": state, "c": state}


def replay_outputs(manifest: Manifest) -> Shapes:
    """Name the outputs of replay.onnx and their shapes; None is the number of SKUs."""
    state = (None, LAYERS, manifest.hidden)
    return {"h_next": state, "c_next": state}


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        where = "the shipped bundle" if directory == SHIPPED else f"bundle {directory}"
        message = (
            f"{where} cannot be read: {name}: {error.strerror}; "
            f"point SKUTREND_BUNDLE at a directory that `skutrend train` has written"
        )
        raise BundleMismatch(message) from error


def _read_manifest(directory: Path) -> Manifest:
    content = _read(directory, MANIFEST)
    try:
        stated = msgspec.json.decode(content, type=dict[str, object]).get("format")
        if stated == FORMAT:
            return msgspec.json.decode(content, type=Manifest)
    except DECODE_ERRORS as error:
        message = f"{directory / MANIFEST} is not a bundle's manifest: {error}; copy the whole bundle again"
        raise BundleMismatch(message) from error
    message = (
        f"{directory / MANIFEST} has format {stated!r}, this build reads {FORMAT}; "
        f"run the version of skutrend that wrote it, or train the bundle again with this one"
    )
    raise BundleMismatch(message)


def _check(manifest: Manifest, directory: Path, expected_fingerprint: str) -> None:
    most = MOST_HOURS if manifest.window_ms < DAY_MS else HORIZON
    horizon = min(max(manifest.horizon, HORIZON), most)
    expected: list[tuple[str, object, object]] = [
        ("feature fingerprint", manifest.feature_fingerprint, expected_fingerprint),
        ("number of steps", manifest.horizon, horizon),
        ("quantile levels", manifest.quantile_levels, LEVELS),
        ("sums", manifest.sum_windows, spans_of(horizon)),
    ]
    for what, found, wanted in expected:
        if found != wanted:
            message = (
                f"bundle {directory} ({manifest.name}@{manifest.version}, by {manifest.created_by}) was made for "
                f"{what} {found}, this build has {wanted}; train it again, or run the skutrend it was made with"
            )
            raise BundleMismatch(message)
    if manifest.hidden < 1 or manifest.window_ms < 1 or not (manifest.features and manifest.calendar):
        message = (
            f"{directory / MANIFEST} says hidden {manifest.hidden}, window_ms {manifest.window_ms}, "
            f"{len(manifest.features)} features, {len(manifest.calendar)} of the calendar: none may be zero; "
            "copy the whole bundle again"
        )
        raise BundleMismatch(message)

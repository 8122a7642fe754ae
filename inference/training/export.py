"""From a trained network to a bundle on disk, checked against torch before anybody serves it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from inference.bundle import (
    LAYERS,
    MANIFEST,
    REPLAY,
    STEP,
    replay_inputs,
    replay_outputs,
    step_inputs,
    step_outputs,
    write_manifest,
)
from inference.training.graphs import GRID_PER_UNIT, replay_graph, step_graph
from inference.training.loss import lead_sums
from inference.training.network import States
from schemas.errors import BundleMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference.bundle import Manifest
    from inference.training.network import Network

    Arrays = dict[str, NDArray[np.generic]]

TOLERANCE = 1e-4
RELATIVE = 1e-5
BATCHES = (1, 7, 1025)
STEPS = 16
_SEED = 20


def export(network: Network, directory: Path, *, manifest: Manifest) -> Manifest:
    """Write step.onnx, replay.onnx and manifest.json into `directory`, made if need be; return the whole manifest.

    `manifest.sha256` is filled in here; its features, horizon, levels, sums and hidden size must be the network's.
    Both graphs are checked first: by onnx.checker, against torch for batches of 1, 7 and 1025 (within 1e-4 of the scale
    and 1e-5 of what is forecast), and step by step against one replay. Raises BundleMismatch, and leaves `directory` as
    it was, when any of that fails.
    """
    _same_sizes(network, manifest)
    graphs = {
        STEP: step_graph(network, step_inputs(manifest), step_outputs(manifest)),
        REPLAY: replay_graph(network, replay_inputs(manifest), replay_outputs(manifest)),
    }
    content = {}
    for name, graph in graphs.items():
        try:
            onnx.checker.check_model(graph, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            message = (
                f"{name} is not valid ONNX: {error}; this is a fault of skutrend's export, not of the training data"
            )
            raise BundleMismatch(message) from error
        content[name] = graph.SerializeToString(deterministic=True)
    check_parity(network, step=content[STEP], replay=content[REPLAY])
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as fresh:
        for name, graph_bytes in content.items():
            (Path(fresh) / name).write_bytes(graph_bytes)
        whole = write_manifest(Path(fresh), manifest)
        # the manifest last: a reader of a half-moved bundle sees hashes that do not fit, and refuses
        for name in (STEP, REPLAY, MANIFEST):
            (Path(fresh) / name).replace(directory / name)
    return whole


def check_parity(network: Network, *, step: bytes, replay: bytes) -> None:
    """Compare both graphs on ONNX Runtime's CPU with torch; BundleMismatch names the worst output."""
    stepper, replayer = _session(step), _session(replay)
    network.eval()
    for batch in BATCHES:
        given = _example(network, batch)
        found = dict(zip((o.name for o in stepper.get_outputs()), stepper.run(None, given), strict=True))
        wanted = reference(network, given)
        scale = np.asarray(given["scale"], np.float64)
        for name, value in wanted.items():
            unit = np.ones(batch) if name.endswith("_next") else scale
            # served values sit on a grid, so half a step of it is allowed for
            slack = 0.0 if name.endswith("_next") else 1 / GRID_PER_UNIT
            # sums of fast and restless SKUs are so large that float32 holds no ten-thousandth of their scale
            allowed = (TOLERANCE * unit + slack).reshape(-1, *[1] * (value.ndim - 1)) + RELATIVE * np.abs(value)
            _compare(f"step.onnx, {batch} SKUs, {name}", found[name], value, allowed)
    _check_replay(network, stepper, replayer)


def reference(network: Network, given: Arrays) -> dict[str, NDArray[np.float32]]:
    """Say with torch what step.onnx says of the inputs `given`, but for the rounding."""
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in given.items()}
    states = States(*(tensors[name].transpose(0, 1).contiguous() for name in "hc"))
    with torch.no_grad():
        calendar = tensors["calendar"].expand(1, len(given["x"]), -1)
        outlook, after = network(tensors["x"][None], calendar, states)
    nu = tensors["scale"]
    quantiles, sums = outlook.units(nu[None], tensors["season_next"], tensors["season_sums"])
    result = {
        "quantiles": quantiles[0],
        "sums": sums[0],
        "mean": outlook.mean[0] * nu[:, None] * tensors["season_next"],
        "h_next": after.h.transpose(0, 1),
        "c_next": after.c.transpose(0, 1),
    }
    return {name: value.numpy() for name, value in result.items()}


def _check_replay(
    network: Network, stepper: onnxruntime.InferenceSession, replayer: onnxruntime.InferenceSession
) -> None:
    for batch in BATCHES:
        given = _example(network, batch)
        rng = np.random.default_rng(_SEED + batch)
        x = rng.normal(size=(STEPS, batch, network.layout.n_features)).astype(np.float32)
        states = {name: given[name] for name in "hc"}
        once = replayer.run(["h_next", "c_next"], {"x": x, **states})
        for row in x:
            h, c = stepper.run(["h_next", "c_next"], {**given, **states, "x": row})
            states = {"h": h, "c": c}
        for index, name in enumerate("hc"):
            allowed = np.full((batch, 1, 1), TOLERANCE)
            _compare(f"replay.onnx, {batch} SKUs, {STEPS} windows, {name}", once[index], states[name], allowed)


def _compare(what: str, found: NDArray[np.generic], wanted: NDArray[np.generic], allowed: NDArray[np.float64]) -> None:
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    over = difference / allowed
    if found.shape != wanted.shape or not (over <= 1.0).all():
        message = (
            f"{what}: off by {np.max(difference):.3g}, {np.max(over):.3g} times what is allowed; "
            f"no bundle was written: train again, and report it if it stays"
        )
        raise BundleMismatch(message)


def _same_sizes(network: Network, manifest: Manifest) -> None:
    layout = network.layout
    pairs = {
        "features": (len(manifest.features), layout.n_features),
        "calendar": (len(manifest.calendar), layout.n_calendar),
        "horizon": (manifest.horizon, layout.horizon),
        "quantile_levels": (manifest.quantile_levels, layout.levels),
        "sum_windows": (manifest.sum_windows, layout.sum_windows),
        "hidden": (manifest.hidden, layout.hidden),
    }
    for name, (stated, actual) in pairs.items():
        if stated != actual:
            message = f"the manifest says {name} {stated}, the network has {actual}; export it with its own sizes"
            raise BundleMismatch(message)


def _example(network: Network, batch: int) -> Arrays:
    """Make inputs of every kind: large scales, so that the output grid does not hide a difference; a closed window."""
    layout, rng = network.layout, np.random.default_rng(_SEED)
    season_next = rng.uniform(0.5, 1.5, layout.horizon).astype(np.float32)
    season_next[2] = 0.0
    sums = lead_sums(torch.from_numpy(season_next), layout.sum_windows).numpy()
    state = (batch, LAYERS, layout.hidden)
    return {
        "x": rng.normal(size=(batch, layout.n_features)).astype(np.float32),
        "h": np.tanh(rng.normal(size=state)).astype(np.float32),
        "c": rng.normal(size=state).astype(np.float32),
        "calendar": rng.normal(size=layout.n_calendar).astype(np.float32),
        "scale": rng.uniform(100, 1000, batch).astype(np.float32),
        "season_next": season_next,
        "season_sums": sums,
        "integer_units": np.zeros(batch, np.bool_),
    }


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

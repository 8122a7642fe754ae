from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from features.cadence import HOUR_MS
from features.encoding import FEATURES, NOISE, calendar_names, fingerprint
from features.grid import WindowGrid
from inference.bundle import MANIFEST, REPLAY, STEP, load
from inference.session import Session
from inference.training import export as exporting
from inference.training.export import export, reference
from inference.training.network import Layout, Network
from schemas.errors import BundleMismatch
from tests.support.models import manifest_for, step_arrays, untrained


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = untrained()
    path: Path = tmp_path_factory.mktemp("bundle") / "made" / "by export"
    export(network, path, manifest=manifest_for(network))
    return path


def run(directory: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(directory / STEP, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))


def test_a_bundle_is_three_small_files_without_external_data(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == [MANIFEST, REPLAY, STEP]
    assert sum(path.stat().st_size for path in directory.iterdir()) < 2_000_000
    for name in (STEP, REPLAY):
        model = onnx.load(directory / name)
        assert not [tensor.name for tensor in model.graph.initializer if tensor.external_data]
        assert [opset.version for opset in model.opset_import] == [20]


def test_a_network_for_hours_is_exported_with_its_own_horizon_and_one_head(tmp_path: Path) -> None:
    """Export compares both graphs with torch."""
    names = calendar_names(24)
    network = Network(Layout(len(FEATURES), len(names), noise=NOISE, horizon=24, sum_windows=(7, 14, 24), heads=1))
    export(network.eval(), tmp_path, manifest=manifest_for(network, window_ms=HOUR_MS, calendar=names))
    bundle = load(tmp_path, expected_fingerprint=fingerprint())
    assert Session(bundle).fits(WindowGrid(window_ms=HOUR_MS))
    assert not Session(bundle).fits(WindowGrid())


def test_step_is_decomposed_and_only_the_number_of_skus_is_open(directory: Path) -> None:
    model = onnx.load(directory / STEP)
    assert not {node.op_type for node in model.graph.node} & {"LSTM", "If", "Loop", "Scan"}
    opened = {d.dim_param for v in (*model.graph.input, *model.graph.output) for d in v.type.tensor_type.shape.dim}
    assert opened == {"", "n"}


def test_replay_is_made_of_lstm_nodes_in_the_layout_onnxruntime_knows(directory: Path) -> None:
    nodes = [node for node in onnx.load(directory / REPLAY).graph.node if node.op_type == "LSTM"]
    assert len(nodes) == 2
    assert not [a.name for node in nodes for a in node.attribute if a.name == "layout" and a.i != 0]


def test_pieces_are_whole_and_other_units_in_thousandths(directory: Path) -> None:
    given = step_arrays(300)
    found, exact = run(directory, **given), reference(untrained(), given)
    by_piece = given["integer_units"]
    for name in ("quantiles", "sums"):
        whole, fine = found[name][by_piece], found[name][~by_piece]
        assert (whole == np.rint(whole)).all()
        np.testing.assert_allclose(whole, exact[name][by_piece], atol=0.501, rtol=1e-5)
        np.testing.assert_allclose(fine, np.rint(fine.astype(np.float64) * 1000) / 1000, rtol=1e-6)
        np.testing.assert_allclose(fine, exact[name][~by_piece], atol=0.000_51, rtol=2e-5)
        assert fine.max() > 1
    np.testing.assert_allclose(found["mean"], exact["mean"], atol=0.000_51, rtol=2e-5)
    assert (found["mean"][by_piece] != np.rint(found["mean"][by_piece])).any()


def test_closed_windows_are_forecast_as_exactly_nothing(directory: Path) -> None:
    given = step_arrays(20)
    found = run(directory, **given)
    closed = given["season_next"] == 0
    assert closed.sum() == 2
    assert not found["quantiles"][:, closed].any()
    assert not found["mean"][:, closed].any()
    assert found["quantiles"][:, ~closed].any()


def test_the_same_network_gives_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    network = untrained()
    export(network, tmp_path, manifest=manifest_for(network))
    for name in (MANIFEST, REPLAY, STEP):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()


@pytest.mark.parametrize("name", ["step_graph", "replay_graph"])
def test_a_graph_that_disagrees_with_torch_is_not_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, other, build = untrained(), untrained(seed=1), getattr(exporting, name)
    monkeypatch.setattr(exporting, name, lambda _network, *shapes: build(other, *shapes))
    with pytest.raises(BundleMismatch, match=rf"{name.removesuffix('_graph')}\.onnx.*off by"):
        export(network, tmp_path, manifest=manifest_for(network))
    assert not list(tmp_path.iterdir())


def test_broken_weights_are_not_written(tmp_path: Path) -> None:
    network = untrained()
    network.inner.weight.data[3, 4] = float("nan")
    with pytest.raises(BundleMismatch, match="no bundle was written"):
        export(network, tmp_path, manifest=manifest_for(network))


@pytest.mark.parametrize(
    "changes",
    [{"features": ("a", "b")}, {"calendar": ("a",)}, {"horizon": 7}, {"hidden": 64}, {"quantile_levels": (0.5,)}],
)
def test_a_manifest_of_another_network_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    network = untrained()
    with pytest.raises(BundleMismatch, match=f"the manifest says {next(iter(changes))}"):
        export(network, tmp_path, manifest=manifest_for(network, **changes))


def test_an_older_bundle_in_the_same_directory_is_replaced_whole(tmp_path: Path) -> None:
    for seed in (3, 4):
        network = untrained(seed=seed)
        manifest = export(network, tmp_path, manifest=manifest_for(network, version=str(seed)))
    assert manifest.version == "4"
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, REPLAY, STEP]
    given = step_arrays(5)
    np.testing.assert_allclose(run(tmp_path, **given)["h_next"], reference(network, given)["h_next"], atol=1e-5)

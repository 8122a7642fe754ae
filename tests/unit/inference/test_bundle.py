import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from features.encoding import fingerprint
from inference.bundle import MANIFEST, REPLAY, STEP, describe, load
from inference.session import Session
from schemas.errors import BundleMismatch
from tests.support.models import bundle_in


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    bundle_in(tmp_path)
    return tmp_path


def change_manifest(directory: Path, **changes: object) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_what_is_loaded(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path, name="shop", version="2026.11", metrics={"wql_step": 0.41})
    assert bundle.step == (tmp_path / STEP).read_bytes()
    assert bundle.replay == (tmp_path / REPLAY).read_bytes()
    assert bundle.manifest.metrics == {"wql_step": 0.41}
    assert bundle.id.startswith("shop@2026.11+")
    assert len(bundle.id) == len("shop@2026.11+") + 8


def test_the_id_follows_the_weights_and_the_manifest(tmp_path: Path) -> None:
    first = bundle_in(tmp_path / "a", seed=1)
    assert bundle_in(tmp_path / "b", seed=1).id == first.id
    assert bundle_in(tmp_path / "c", seed=2).id != first.id
    assert bundle_in(tmp_path / "d", seed=1, metrics={}).id != first.id


@pytest.mark.parametrize("name", [STEP, REPLAY])
def test_one_flipped_bit_of_a_graph_is_noticed(name: str, directory: Path) -> None:
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(BundleMismatch, match=rf"{name} is damaged.*copy the whole bundle again"):
        load(directory, expected_fingerprint=fingerprint())


@pytest.mark.parametrize("name", [STEP, REPLAY, MANIFEST])
def test_a_missing_file_is_named_with_what_to_do(name: str, directory: Path) -> None:
    (directory / name).unlink()
    with pytest.raises(BundleMismatch, match=rf"{name}: No such file.*SKUTREND_BUNDLE"):
        load(directory, expected_fingerprint=fingerprint())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"format": 1}', b'{"format": 1, "name": 3}', b"\xff\xfe", b'"' * 9]
)
def test_a_manifest_that_is_none_is_refused(content: bytes, directory: Path) -> None:
    (directory / MANIFEST).write_bytes(content)
    with pytest.raises(BundleMismatch, match="is not a bundle's manifest"):
        load(directory, expected_fingerprint=fingerprint())


def test_a_bundle_for_other_features_names_both_fingerprints(directory: Path) -> None:
    with pytest.raises(BundleMismatch, match=rf"{fingerprint()}, this build has 0123456789abcdef; train it again"):
        load(directory, expected_fingerprint="0123456789abcdef")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "has format 2, this build reads 1"),
        ({"horizon": 7}, "number of steps 7, this build has 14"),
        ({"quantile_levels": [0.1, 0.5, 0.9]}, "quantile levels"),
        ({"sum_windows": [7]}, "sums"),
        ({"window_ms": 0}, "none may be zero"),
        ({"hidden": 0}, "none may be zero"),
    ],
)
def test_a_foreign_manifest_is_refused(changes: dict[str, object], said: str, directory: Path) -> None:
    change_manifest(directory, **changes)
    with pytest.raises(BundleMismatch, match=said):
        load(directory, expected_fingerprint=fingerprint())


def test_a_manifest_of_a_later_build_with_more_fields_is_read(directory: Path) -> None:
    change_manifest(directory, licence="of a later build")
    assert load(directory, expected_fingerprint=fingerprint()).manifest.name == "test"


def test_a_manifest_beside_the_graphs_of_another_bundle_is_refused_by_the_session(directory: Path) -> None:
    change_manifest(directory, hidden=64)
    with pytest.raises(BundleMismatch, match=r"input c has shape \(None, 2, 48\), the manifest asks for \(None, 2, 64"):
        Session(load(directory, expected_fingerprint=fingerprint()), provider="cpu")


def test_bytes_that_onnxruntime_cannot_open_are_refused_by_the_session(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path)
    broken = type(bundle)(bundle.directory, bundle.manifest, bundle.step[:5000], bundle.replay)
    with pytest.raises(BundleMismatch, match=r"step\.onnx cannot be opened by ONNX Runtime"):
        Session(broken, provider="cpu")


def test_describe_says_what_is_in_it(tmp_path: Path) -> None:
    bundle = bundle_in(tmp_path, metrics={"wql_step": 0.4125})
    lines = "\n".join(describe(bundle))
    for fact in (bundle.id, str(tmp_path), fingerprint(), "14 steps", "0.95", "wql_step = 0.4125", "skutrend tests"):
        assert fact in lines


def test_the_manifest_keeps_its_meaning_through_json(tmp_path: Path) -> None:
    manifest = bundle_in(tmp_path).manifest
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest


def test_serving_imports_neither_torch_nor_pandas_nor_onnx() -> None:
    code = (
        "import sys, inference.session, inference.bundle;"
        "print(sorted({'torch', 'pandas', 'onnx', 'onnxscript', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
    assert not done.stderr

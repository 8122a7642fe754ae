"""What a newcomer sees first is the demo, not what a build tool has to say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "features", "inference", "streams")


def test_an_editable_install_warns_of_nothing(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.parquet", "*.onnx", "__pycache__")
        )
    build = "import setuptools.build_meta as backend; print(backend.build_editable('.'))"  # what pip asks for
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1].startswith("skutrend-")
    assert "!!" not in done.stderr, done.stderr

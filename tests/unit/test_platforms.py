"""What an installer is told on each platform; the markers of pyproject.toml are evaluated, nothing is fetched."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

PROJECT: Final = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
PLATFORMS: Final = {
    "Linux on x86_64": {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    "Linux on ARM": {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    "macOS on Apple's chips": {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
    "macOS on Intel": {"sys_platform": "darwin", "platform_machine": "x86_64", "platform_system": "Darwin"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows"},
}
WITH_CUDA: Final = "Linux on x86_64"
"""The only platform here for which onnxruntime-gpu is published as skutrend asks for it."""


def wanted(platform: str, requirements: list[str]) -> list[Requirement]:
    """Give the requirements that hold on a platform."""
    parsed = [Requirement(each) for each in requirements]
    return [each for each in parsed if each.marker is None or each.marker.evaluate(dict(PLATFORMS[platform]))]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_exactly_one_build_of_onnxruntime_is_asked_for_and_it_is_one_that_exists(platform: str) -> None:
    names = [each.name for each in wanted(platform, PROJECT["dependencies"])]
    assert [name for name in names if name.startswith("onnxruntime")] == [
        "onnxruntime-gpu" if platform == WITH_CUDA else "onnxruntime"
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_no_extra_asks_for_cuda_where_there_is_none(platform: str, extra: str) -> None:
    names = {each.name for each in wanted(platform, PROJECT["optional-dependencies"][extra])}
    assert ("onnxruntime-gpu" in names) == (extra == "gpu" and platform == WITH_CUDA)
    assert "onnxruntime" not in names, "two builds in one environment overwrite each other"


def test_the_two_builds_are_of_the_same_versions() -> None:
    every = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gpu"]]
    builds = [each for each in map(Requirement, every) if each.name.startswith("onnxruntime")]
    assert len(builds) == 3
    assert len({str(each.specifier) for each in builds}) == 1

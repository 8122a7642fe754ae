"""The lock files from which `make` installs hold what pyproject.toml asks for, with hashes and no addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final = {"run": (), "dev": ("train", "dev"), "mutants": ("train", "dev", "mutants")}
PIN: Final = re.compile(r"^(\S+)==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


def pins(name: str) -> dict[str, set[str]]:
    """Give the versions of each package in a lock: more than one where platforms differ."""
    found: dict[str, set[str]] = {}
    for package, version, _ in PIN.findall((ROOT / f"deploy/lock/{name}.txt").read_text()):
        found.setdefault(canonicalize_name(package.partition("[")[0]), set()).add(version)
    assert len(found) > 30
    return found


def wanted(name: str) -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [Requirement(each) for each in (*PROJECT["dependencies"], *(r for e in EXTRAS[name] for r in extras[e]))]


@pytest.mark.parametrize("name", EXTRAS)
def test_every_direct_dependency_is_pinned_within_its_range(name: str) -> None:
    have = pins(name)
    for requirement in wanted(name):
        versions = have[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), requirement


@pytest.mark.parametrize("name", EXTRAS)
def test_every_pin_has_a_hash_and_nothing_says_where_from(name: str) -> None:
    text = (ROOT / f"deploy/lock/{name}.txt").read_text()
    assert not re.search(r"https?:|^--(?:extra-)?index", text, re.MULTILINE)
    for block in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block


def test_what_the_larger_locks_share_with_the_smaller_is_of_one_version() -> None:
    run, dev, mutants = pins("run"), pins("dev"), pins("mutants")
    assert {name: dev[name] for name in run} == run
    assert {name: mutants[name] for name in dev} == dev

"""The documents are complete, name nothing that is not there, and agree with the code."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Final, get_args

import click
import pytest
from packaging.version import Version

from schemas.alerts import AlertKind
from schemas.inputs import INPUT_NAMES
from schemas.refusals import CODES
from streams.cli import cli
from streams.kafka.topics import OUTPUTS
from streams.settings import KAFKA_PREFIX, REGISTRY_PREFIX, Described, Settings, describe
from tests.support.every_metric import every_metric

ROOT: Final = Path(__file__).parents[2]
PATHS: Final = ("README.md", "deploy/RUNBOOK.md", ".github/CONTRIBUTING.md")
DOCS: Final = {path: (ROOT / path).read_text() for path in PATHS}
README: Final = DOCS["README.md"]
CODE: Final = {
    path: [fenced or span for fenced, span in re.findall(r"```sh\n(.*?)```|(?<!`)`([^`\n]+)`", text, re.DOTALL)]
    for path, text in DOCS.items()
}
"""Blocks of commands and what stands between backticks."""
SETTINGS: Final = describe(Settings())


def rows(heading: str) -> list[list[str]]:
    """Give the cells of the table with this first line, without backticks."""
    table = README[README.index(f"{heading}\n") :].split("\n\n")[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" |")] for line in table.splitlines()[2:]]


def in_code(pattern: str) -> list[tuple[str, str]]:
    """Find what is named in code: document and match."""
    return [(path, found) for path, spans in CODE.items() for span in spans for found in re.findall(pattern, span)]


# ---------------------------------------------------------------------- complete
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_every_setting_is_in_the_table_with_its_default_and_meaning(setting: Described) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{setting.variable}` |")]
    assert setting.default == "" or f"`{setting.default}`" in row
    assert setting.meaning in row


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    families = [family for family in every_metric().registry.collect() if family.name.startswith("skutrend_")]
    documented = {
        f"{family.name}_total" if family.type == "counter" else family.name: sorted(
            {label for sample in family.samples for label in sample.labels} - {"le"}
        )
        for family in families
    }
    assert len(documented) > 15
    table = rows("| metric | labels | meaning |")
    assert {name: sorted(filter(None, labels.split(", "))) for name, labels, _ in table} == documented


def test_every_code_of_a_dead_letter_is_in_the_table() -> None:
    assert [code for code, _ in rows("| code | the record |")] == [*CODES]


def test_every_kind_of_alert_is_in_the_table() -> None:
    assert [kind for kind, _ in rows("| kind of alert | what has happened |")] == list(get_args(AlertKind))


def test_every_topic_is_in_the_table() -> None:
    named = [name for cell, *_ in rows("| topic | one record per | key |") for name in re.findall(r"[\w-]+", cell)]
    assert named == [*INPUT_NAMES, *OUTPUTS]


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Give every command that does something by its words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        words = (*path, name)
        found |= leaves(command, words) if isinstance(command, click.Group) else {" ".join(words): command}
    return found


def test_every_command_is_in_the_documents() -> None:
    told = " ".join(found for _, found in in_code(r"(?:skutrend|make) [a-z -]+")) + " "
    for words in leaves(cli):
        assert f"skutrend {words}" in told or f"make {words} " in told, words


def test_every_word_of_the_glossary_is_reported_once() -> None:
    words = [word for word, _ in rows("| word | meaning |")]
    assert len(words) > 25
    assert len(set(words)) == len(words)


# ---------------------------------------------------------------------- nothing that is not there
def test_every_setting_that_is_named_is_one() -> None:
    known = {setting.variable for setting in SETTINGS} | {"SKUTREND_CONFIG"}
    named = in_code(r"SKUTREND_[A-Z_]*[A-Z]")
    assert len(named) > 60
    properties = (KAFKA_PREFIX[:-1], REGISTRY_PREFIX[:-1])
    assert not [(path, name) for path, name in named if name not in known and not name.startswith(properties)]


def test_every_metric_that_is_named_is_one() -> None:
    known = {name for name, *_ in rows("| metric | labels | meaning |")}
    named = in_code(r"skutrend_\w+")
    assert len(named) > 30
    assert not [(path, name) for path, name in named if name not in known]


def test_every_code_that_is_named_is_one() -> None:
    named = in_code(r'code="(\w+)"')
    assert named
    assert not [(path, code) for path, code in named if code not in CODES]


def test_every_command_that_is_named_exists_with_its_options() -> None:
    known, seen = leaves(cli), 0
    for path, line in in_code(r"(?m)(?:^|\s)skutrend ((?:[^|&\n\\]|\\\n)+)"):
        words = line.replace("\\\n", " ").split()
        if words[0].startswith("-"):
            continue
        name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)
        assert name, f"{path} names skutrend {line}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"{path}: skutrend {line}"
        seen += 1
    assert seen > 15


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = in_code(r"\bmake ([a-z][\w-]*)")
    assert len({target for _, target in named}) > 8
    assert not [(path, target) for path, target in named if target not in targets]


def test_every_file_and_module_that_is_named_exists() -> None:
    named = in_code(r"(?<![\w./-])((?:tests|streams|schemas|features|inference|deploy|\.github)/[\w./-]*)")
    assert len(named) > 25
    assert not [(path, name) for path, name in named if not (ROOT / name).exists()]
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert not [(path, name) for path, name in in_code(r"(?<![\w./-])test_\w+\.py") if name not in tests]
    modules = in_code(r"python -m ([\w.]+)")
    assert len(modules) > 2
    assert not [(path, module) for path, module in modules if importlib.util.find_spec(module) is None]


def test_every_package_of_streams_is_in_the_table_in_the_order_of_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["streams"]]
    cells = [re.findall(r"(\w+)(?:/|\.py)", cell) for cell, _ in rows("| in `streams/` | what is in it |")]
    assert [sorted(cell) for cell in cells] == [sorted(layer.split(" | ")) for layer in layers]


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PATHS)
def test_every_link_leads_somewhere(path: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", DOCS[path]) if not link.startswith("http")]
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / path).parent / name if name else ROOT / path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


# ---------------------------------------------------------------------- the changelog
def test_the_changelog_goes_with_the_version() -> None:
    """Its first heading is the version of the project; all below it are released ones, with their day."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    parts = [re.fullmatch(r"(\S+) \((unreleased|\d{4}-\d\d-\d\d)\)", heading) for heading in headings]
    assert all(parts), headings
    versions = [Version(part[1]) for part in parts if part]
    assert versions == sorted(set(versions), reverse=True)
    assert str(versions[0]) == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(part[2] != "unreleased" for part in parts[1:] if part)

"""Change one operator at a time and run the tests of that module's room: what no test notices is told as a diff.

A random sample, repeatable by its seed, of all that cosmic-ray can change in the modules given; each change is made in
a copy of the repository. A change may be an equal twin (no input tells it apart): those a person has to judge. Exit
code 1 when fewer than `--noticed` of the sample were noticed.

    python -m tests.mutants --count 84 --seed 1
    python -m tests.mutants --count 20 streams/state/changelog.py
"""

from __future__ import annotations

import argparse
import random
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parents[2]
MODULES = (
    "features/*.py",
    "inference/*.py",
    "streams/partition/*.py",
    "streams/state/changelog.py",
    "streams/state/recovery.py",
)
COPIED = ("schemas", "features", "inference", "streams", "tests", "pyproject.toml", "README.md", "deploy/RUNBOOK.md")
# what changes nothing that is run: annotations are strings, and pytest takes no note of a missing decorator's cache
LEFT_OUT = ("core/RemoveDecorator", "core/ExceptionReplacer", "core/ReplaceBinaryOperator_BitOr")
_DATACLASS = "@dataclass("  # whether a class has slots, or lets its fields be set, is no matter of what is computed
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Change:
    """One change: of which module, by which of cosmic-ray's operators, the how manieth place it fits, and where."""

    module: str
    operator: str
    occurrence: int
    start: tuple[int, int]
    end: tuple[int, int]

    def __str__(self) -> str:
        """Name it as an editor would."""
        return f"{self.module}:{self.start[0]} {self.operator.removeprefix('core/')}"


def changes_of(module: str) -> list[Change]:
    """Find every change that can be made in a module."""
    text = (ROOT / module).read_text()
    tree, lines = get_ast(text), text.splitlines()
    found = []
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments() or name.startswith(LEFT_OUT):
            continue
        operator = operator_class()
        places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        changes = [Change(module, name, number, *place) for number, place in enumerate(places)]
        found += [change for change in changes if not lines[change.start[0] - 1].startswith(_DATACLASS)]
    return found


def tests_of(module: str) -> list[str]:
    """Name the tests of a module's room, and the doctests in it."""
    path = Path(module)
    room = path.parent.name
    known = [f"tests/{kind}/{room}" for kind in ("unit", "properties")]
    return [*(each for each in known if (ROOT / each).is_dir()), module]


def copy_to(folder: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def command_for(module: str, folder: Path) -> str:
    """Give the shell command that runs the tests of a module's room in the copy."""
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not kafka and not slow", "-p", "no:cacheprovider"]
    quick = "HYPOTHESIS_PROFILE=quick"  # fewer examples of each property
    return shlex.join(["env", "-C", str(folder), quick, *pytest, *tests_of(module)])


def check_unchanged(modules: list[str], folder: Path) -> None:
    """Raise RuntimeError unless the tests of every room pass while nothing is changed: else all would be noticed."""
    for module in {str(tests_of(module)[:-1]): module for module in modules}.values():
        outcome, output = run_tests(command_for(module, folder), TIMEOUT_S)
        if outcome is not TestOutcome.SURVIVED:
            msg = f"the tests of {module} fail without any change: {output}"
            raise RuntimeError(msg)


def is_noticed(change: Change, folder: Path) -> tuple[bool, str]:
    """Make a change in the copy and run its room's tests; returns whether one failed, and the change as a diff."""
    spec = MutationSpec(
        module_path=folder / change.module,
        operator_name=change.operator,
        occurrence=change.occurrence,
        start_pos=change.start,
        end_pos=change.end,
    )
    result = mutate_and_test([spec], command_for(change.module, folder), TIMEOUT_S)
    if result.test_outcome is TestOutcome.INCOMPETENT or result.diff is None:
        msg = f"{change} could not be tried: {result.output}"
        raise RuntimeError(msg)
    return result.test_outcome is TestOutcome.KILLED, result.diff


def main() -> int:
    """Try a sample and tell what was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="modules to change  [default: the pure rooms, partition, changelog]")
    parser.add_argument("--count", type=int, default=84, help="changes to try")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--noticed", type=float, default=0.0, help="least share for exit code 0")
    given = parser.parse_args()
    modules = given.modules or sorted(str(p.relative_to(ROOT)) for each in MODULES for p in ROOT.glob(each))
    possible = [change for module in modules for change in changes_of(module)]
    sample = random.Random(given.seed).sample(possible, min(given.count, len(possible)))  # noqa: S311 - no secret
    print(f"{len(sample)} of {len(possible):,} changes in {len(modules)} modules, seed {given.seed}")
    noticed, began_s = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_to(Path(folder))
        check_unchanged(sorted({change.module for change in sample}), Path(folder))
        for number, change in enumerate(sample, 1):
            found, diff = is_noticed(change, Path(folder))
            noticed += found
            passed_s = time.monotonic() - began_s
            print(
                f"[{number}/{len(sample)}, {passed_s:.0f} s] {'noticed' if found else 'NOT NOTICED'}: {change}",
                flush=True,
            )
            if not found:
                print(diff)
    share = noticed / len(sample) if sample else 1.0
    print(f"{noticed} of {len(sample)} noticed ({share:.1%})")
    return 0 if share >= given.noticed else 1


if __name__ == "__main__":
    sys.exit(main())

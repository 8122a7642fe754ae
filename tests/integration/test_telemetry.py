"""Nobody is told that this service runs: ONNX Runtime, which would, is kept from it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.kafka_broker import ROOT
from tests.support.no_network import KILLED

REPORTS_AFTER_S = 8  # from the first session on, as measured with 1.31
FIRST = """
    from tests.support.no_network import take_the_network_away
    take_the_network_away()
"""
OPEN = """
    from streams.commands.serve import open_session
    from streams.settings import Settings
    assert open_session(Settings(provider="cpu")) is not None
"""


def child(program: str, home: Path, **more: str) -> int:
    """Run a program as at a user's, where nothing is switched off; returns its exit code."""
    hidden = {"CI", "ORT_DISABLE_TELEMETRY"}  # the former silences it too
    env = {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("XDG_")}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=env | {"HOME": str(home)} | more, cwd=ROOT, check=False).returncode  # noqa: S603


@pytest.mark.parametrize("said", ["", "0"], ids=["nobody says anything", "the environment switches it on"])
def test_a_session_leaves_no_file_and_looks_no_host_up(tmp_path: Path, said: str) -> None:
    wait = f"""
    import time
    time.sleep({REPORTS_AFTER_S + 4})
    """
    more = {"ORT_DISABLE_TELEMETRY": said} if said else {}
    assert child(FIRST + OPEN + (wait if not said else ""), tmp_path, **more) == 0
    assert [str(path) for path in tmp_path.rglob("*")] == []


def test_whoever_looks_a_host_up_would_be_noticed(tmp_path: Path) -> None:
    look = """
    import socket
    socket.getaddrinfo("example.invalid", 443)
    """
    assert child(FIRST + look, tmp_path) == KILLED


def test_onnxruntime_is_imported_by_the_package_that_switches_its_reports_off_and_by_no_other() -> None:
    found = {
        path.relative_to(ROOT).parts[0]
        for folder in ("schemas", "features", "inference", "streams")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if any(name.partition(".")[0] == "onnxruntime" for name in _imported(node))
    }
    assert found == {"inference"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []

"""promtool, which knows what Prometheus takes and what its makers advise against."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def check_metrics(text: bytes) -> str:
    """Return what `promtool check metrics` has to say of a scrape: nothing, if all is well.

    Skips the test where there is no promtool; in CI, where none may be skipped, it fails.
    """
    beside = Path(sys.executable).parent / "promtool"
    promtool = str(beside) if beside.exists() else shutil.which("promtool")
    if promtool is None:
        reason = "promtool is missing: `make check` unpacks it, or `deploy/promtool.sh DIR`; or install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (CI may not skip this)")
        pytest.skip(reason)
    done = subprocess.run(  # noqa: S603 - found above
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode()
    return said if done.returncode == 0 else f"{said}(exit code {done.returncode})"

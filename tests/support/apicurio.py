"""A real schema registry, Apicurio, as a child process that keeps its schemas in memory."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest

from tests.support.kafka_broker import ROOT, free_ports
from tests.support.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

APP = ROOT / "deploy" / "registry" / "app"


def require_apicurio() -> Path:
    """Give its jar; skips the test where `make check` could not fetch it."""
    found = sorted(APP.glob("*-runner.jar"))
    if not found:
        pytest.skip("Apicurio is not there: make deploy/registry/app/.complete")
    return found[0]


class Apicurio:
    """Run it for the length of a `with`. url: of its Confluent API."""

    def __init__(self, folder: Path) -> None:
        """folder: takes its log."""
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self._jar, self._log = require_apicurio(), folder / "apicurio.log"

    def __enter__(self) -> Self:
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the jar that our own project fetched
                ["java", *options, f"-Dquarkus.http.port={self.port}", "-jar", str(self._jar)],  # noqa: S607
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, within_s=60, told=self._log.read_text)
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:  # noqa: S310 - our own child
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

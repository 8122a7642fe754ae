from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from inference.bundle import SHIPPED
from schemas.errors import BundleMismatch
from streams.commands import serve
from streams.kafka.embedded import PARTITIONS, EmbeddedBroker
from streams.settings import Settings
from streams.worker.worker import Worker
from tests.support.kafka_broker import free_ports
from tests.support.partitions import settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as embedded:
        yield embedded.bootstrap


def test_serving_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, streams.commands.serve, streams.worker.app, streams.cli; print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"


def test_the_command_line_loads_what_the_command_needs_only() -> None:
    heavy = "{'faust', 'aiokafka', 'onnxruntime', 'confluent_kafka', 'rocksdict', 'pyarrow', 'torch', 'pandas'}"
    code = f"import sys, streams.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "[]\n"


def test_a_bundle_is_opened_by_the_word_or_the_directory() -> None:
    assert serve.open_session(Settings(bundle="none")) is None
    shipped = serve.open_session(Settings(provider="cpu"))
    named = serve.open_session(Settings(bundle=str(SHIPPED), provider="cpu"))
    assert shipped is not None
    assert named is not None
    assert shipped.model == named.model
    assert shipped.provider == "CPU"


def test_a_bundle_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    for name in ("manifest.json", "step.onnx", "replay.onnx"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    (tmp_path / "step.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleMismatch, match=r"step\.onnx is damaged"):
        serve.open_session(Settings(bundle=str(tmp_path)))
    with pytest.raises(BundleMismatch, match=r"step\.onnx is damaged"):
        serve.check_bundle(tmp_path)


def test_checking_a_bundle_ends_with_where_it_is_served() -> None:
    lines = serve.check_bundle(None)
    assert lines[-1] in {"this machine serves it on CPU", "this machine serves it on CUDA"}
    assert lines == serve.check_bundle(SHIPPED)


def test_the_partitions_of_each_input_are_asked_of_the_brokers(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    counts = serve.partition_counts(settings)
    assert counts == dict.fromkeys((settings.topic(n) for n in ("orders", "clicks", "price-changes")), PARTITIONS)


def test_a_port_that_is_taken_costs_the_probes_and_not_the_worker(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    worker = Worker(settings_for(broker, tmp_path, http_port=port, http_host="127.0.0.1"), None, 1, tp=TP)
    first = serve._http(worker.settings, worker)  # noqa: SLF001 - nothing else shows what comes of a taken port
    assert first is not None
    assert first.port == port
    with caplog.at_level(logging.ERROR):
        assert serve._http(worker.settings, worker) is None  # noqa: SLF001
    assert f"port {port}" in caplog.text
    assert "SKUTREND_HTTP_PORT" in caplog.text
    first.stop()
    assert serve._http(settings_for(broker, tmp_path, http_port=0), worker) is None  # noqa: SLF001 - 0: none wanted


def test_opening_a_model_leaves_the_arithmetic_of_the_process_as_it_was() -> None:
    """The decoder holds `price > 0` as `price >= 5e-324`; where that is read as 0, a price of 0 is taken."""
    code = """
import threading
from schemas.decoding import decode_price_changes
from streams.commands.serve import open_session
from streams.settings import Settings
free = b'{"event_id": "1", "sku": "a", "price": 0.0, "currency": "GBP", "kind": "list", "event_time_ms": 1}'
def look():
    print([refusal.code for refusal in decode_price_changes([free])[1]], 5e-324 > 0)
look()
session = open_session(Settings(provider="cpu"))
look()
thread = threading.Thread(target=look)
thread.start()
thread.join()
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["['out_of_range'] True"] * 3

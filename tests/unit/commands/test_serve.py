from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faust.types import TP

from inference.bundle import SHIPPED
from schemas.errors import BundleMismatch, Unavailable
from streams.cli import cli
from streams.commands import serve
from streams.kafka import topics
from streams.kafka.embedded import PARTITIONS
from streams.settings import Settings
from streams.worker.environment import Environment
from streams.worker.worker import Worker
from tests.support.kafka_broker import free_ports
from tests.support.partitions import settings_for

if TYPE_CHECKING:
    pass


def test_serving_imports_neither_torch_nor_pandas() -> None:
    serving = "streams.commands.serve, streams.worker.app, streams.cli"
    code = f"import sys, {serving}; print(sorted({{'torch', 'pandas'}} & set(sys.modules)))"
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


def test_a_bundle_for_other_windows_is_refused_with_a_command_that_there_is(tmp_path: Path) -> None:
    for name in ("manifest.json", "step.onnx", "replay.onnx"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    with pytest.raises(BundleMismatch, match=r"train one for these windows \(`skutrend (train --window-ms 3600000)`\)"):
        serve.open_session(Settings(bundle=str(tmp_path), window_ms=3_600_000))
    assert "--window-ms" in {name for option in cli.commands["train"].params for name in option.opts}


def test_checking_a_bundle_ends_with_where_it_is_served() -> None:
    lines = serve.check_bundle(None)
    assert lines[-1] in {"this machine serves it on CPU", "this machine serves it on CUDA"}
    assert lines == serve.check_bundle(SHIPPED)


def test_the_partitions_of_each_input_are_asked_of_the_brokers(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    counts = serve.partition_counts(settings)
    assert counts == dict.fromkeys((settings.topic(n) for n in ("orders", "clicks", "price-changes")), PARTITIONS)


def test_brokers_that_go_while_a_worker_starts_are_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setattr(topics, "ANSWER_S", 0.2)
    monkeypatch.setattr(serve, "BROKERS_WAIT_S", 0.5)
    monkeypatch.setattr(serve, "_RETRY_S", 0.05)
    with pytest.raises(Unavailable, match=f"no answer from the brokers 127.0.0.1:{port}"):
        serve.ensure_changelog(settings_for(f"127.0.0.1:{port}", tmp_path), partitions=1)
    assert "no answer from the brokers" in caplog.messages[0]
    assert "trying again" in caplog.messages[0]


def test_state_that_lies_where_it_was_before_the_prefix_was_in_its_name_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(state_dir=str(tmp_path), topic_prefix="eu-")
    serve.warn_of_moved_state(settings)
    (tmp_path / "skutrend").mkdir()
    serve.warn_of_moved_state(Settings(state_dir=str(tmp_path)))
    assert not caplog.messages
    serve.warn_of_moved_state(settings)
    (message,) = caplog.messages
    assert f"kept in {tmp_path}/eu-skutrend now, and there is older state in {tmp_path}/skutrend" in message
    (tmp_path / "eu-skutrend").mkdir()
    serve.warn_of_moved_state(settings)
    assert len(caplog.messages) == 1


def test_a_port_that_is_taken_costs_the_probes_and_not_the_worker(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    settings = settings_for(broker, tmp_path, http_port=port, http_host="127.0.0.1")
    worker = Worker(Environment(settings, None, 1, tp=TP))
    metrics, probes = worker.environment.metrics, {"live": worker.live, "ready": worker.ready}
    first = serve.start_http(settings, metrics, **probes)
    assert first is not None
    assert first.port == port
    with caplog.at_level(logging.ERROR):
        assert serve.start_http(settings, metrics, **probes) is None
    assert f"port {port}" in caplog.text
    assert "SKUTREND_HTTP_PORT" in caplog.text
    first.stop()
    assert serve.start_http(settings_for(broker, tmp_path, http_port=0), metrics, **probes) is None, "0: none wanted"


@pytest.mark.slow
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

from __future__ import annotations

import platform
import re
import socket
import urllib.error
import urllib.request
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.observe.metrics import Health, HttpServer, Metrics
from tests.support.every_metric import every_metric
from tests.support.promtool import check_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator


class Probes:
    """What a worker says of itself, to be set by a test."""

    def __init__(self) -> None:
        self.live = (True, "live")
        self.ready = (True, "ready")

    def health(self) -> Health:
        return Health(live=lambda: self.live, ready=lambda: self.ready)


@pytest.fixture(scope="module")
def probes() -> Probes:
    return Probes()


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def server(probes: Probes, metrics: Metrics) -> Iterator[HttpServer]:
    running = HttpServer(host="127.0.0.1", port=0, metrics=metrics, health=probes.health()).start()
    yield running
    running.stop()


def get(server: HttpServer, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_probes_answer_with_a_status_and_the_sentence_that_says_why(server: HttpServer, probes: Probes) -> None:
    probes.live, probes.ready = (True, "live"), (False, "no partitions assigned yet")
    assert get(server, "/livez") == (200, "text/plain; charset=utf-8", "live\n")
    assert get(server, "/readyz") == (503, "text/plain; charset=utf-8", "no partitions assigned yet\n")
    probes.live, probes.ready = (False, "orders[3] stands at offset 5 since 400 s; Größe"), (True, "partitions [0]")
    assert get(server, "/livez") == (
        503,
        "text/plain; charset=utf-8",
        "orders[3] stands at offset 5 since 400 s; Größe\n",
    )
    assert get(server, "/readyz")[0] == 200


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/livez/x", "/favicon.ico"])
def test_any_other_path_is_not_found_and_says_what_there_is(server: HttpServer, path: str) -> None:
    status, _, body = get(server, path)
    assert status == 404
    assert all(known in body for known in ("/metrics", "/livez", "/readyz"))


def test_a_scrape_is_parsed_by_prometheus_and_names_what_every_metric_is(server: HttpServer, metrics: Metrics) -> None:
    metrics.records.labels("orders", "0").inc(3)
    metrics.watermark.labels("0").set(1.7e9)
    metrics.loss.labels("0", "lstm").set(float("nan"))
    metrics.refusals.labels('top"ic\n', "not_json").inc()
    status, kind, body = get(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert len(families) >= 13
    for name, family in families.items():
        assert name.startswith(("skutrend_", "process_", "python_"))
        assert len(family.documentation) > 10, name
    sample = next(s for s in families["skutrend_records"].samples if s.name == "skutrend_records_total")
    assert (sample.labels, sample.value) == ({"topic": "orders", "partition": "0"}, 3.0)
    refused = next(s for s in families["skutrend_refusals"].samples if s.name.endswith("_total"))
    assert refused.labels == {"topic": 'top"ic\n', "code": "not_json"}


def test_prometheus_has_nothing_to_say_against_a_scrape() -> None:
    assert check_metrics(every_metric().render()) == ""


def test_the_process_and_the_build_are_reported() -> None:
    told = Metrics()
    told.set_build(provider="CUDA")
    text = told.render().decode()
    assert "process_resident_memory_bytes " in text
    assert "process_cpu_seconds_total " in text
    assert "python_gc_collections_total{" in text
    build = next(line for line in text.splitlines() if line.startswith("skutrend_build_info{"))
    assert f'version="{version("skutrend")}"' in build
    assert f'python="{platform.python_version()}"' in build
    assert 'provider="CUDA"' in build
    assert re.search(r'onnxruntime="\d+\.\d+', build)


def test_what_is_reported_a_partition_goes_with_it() -> None:
    gone = Metrics()
    for number in ("1", "2"):
        gone.coverage.labels(number).set(0.9)
        gone.open_alerts.labels(number, "silence", "page").set(3)
        gone.loss.labels(number, "lstm").set(0.5)
    gone.forget(1)
    text = gone.render().decode()
    assert 'partition="1"' not in text
    assert text.count('partition="2"') == 3


def test_a_scrape_shows_what_has_happened_since_the_last(server: HttpServer, metrics: Metrics) -> None:
    assert 'skutrend_skus{partition="4"}' not in get(server, "/metrics")[2]
    metrics.skus.labels("4").set(17)
    assert 'skutrend_skus{partition="4"} 17.0' in get(server, "/metrics")[2]


def test_two_workers_of_one_process_keep_their_metrics_apart() -> None:
    one, other = Metrics(), Metrics()
    one.windows.labels("0").inc()
    assert b'skutrend_windows_closed_total{partition="0"} 1.0' in one.render()
    assert b"skutrend_windows_closed_total{" not in other.render()


def test_a_probe_is_answered_while_a_client_that_says_nothing_holds_a_connection(
    server: HttpServer, probes: Probes
) -> None:
    probes.live = (True, "live")
    with socket.create_connection(("127.0.0.1", server.port)):
        assert get(server, "/livez")[0] == 200


def test_stopping_frees_the_port(metrics: Metrics) -> None:
    probes = Probes()
    first = HttpServer(host="127.0.0.1", port=0, metrics=metrics, health=probes.health()).start()
    port = first.port
    with pytest.raises(OSError, match="in use"):
        HttpServer(host="127.0.0.1", port=port, metrics=metrics, health=probes.health())
    assert get(first, "/livez")[0] == 200
    first.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    second = HttpServer(host="127.0.0.1", port=port, metrics=metrics, health=probes.health()).start()
    assert get(second, "/livez")[0] == 200
    second.stop()

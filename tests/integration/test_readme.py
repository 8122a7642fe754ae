"""The README may be believed: its commands run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests.support.kafka_broker import ROOT, free_ports
from tests.support.service import environment, values

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def script(first_command: str) -> str:
    """Return the one block of commands that begins so."""
    (block,) = [block for block in BLOCKS if block.startswith(first_command)]
    assert isinstance(block, str)
    return block


def run(commands: str, folder: Path) -> str:
    """Run commands as a person would, in a directory of their own, and return what they printed."""
    (folder / "streams").symlink_to(ROOT / "streams")
    env = {**environment(), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(  # noqa: S603  # our own README
        ["bash", "-euo", "pipefail", "-m", "-c", commands],  # noqa: S607
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_every_block_of_commands_is_run_by_a_test() -> None:
    known = (
        *("make demo", "export SKUTREND_BROKERS", "skutrend train", "SKUTREND_COUNTRY=GB skutrend train"),
        *("skutrend mapping list", "skutrend convert"),
    )
    assert sorted(block for block in BLOCKS if block.startswith(known)) == sorted(BLOCKS)
    assert len(BLOCKS) == len(known)


@pytest.mark.kafka
def test_the_commands_for_your_own_kafka_work_in_this_order(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    commands = script("export SKUTREND_BROKERS").replace("localhost:9092", kafka.bootstrap).replace("8080", str(port))
    said = run(f"export SKUTREND_TOPIC_PREFIX={topic_prefix} SKUTREND_GROUP={topic_prefix}g\n{commands}", tmp_path)
    assert "all topics are as they should be" in said
    assert f"{topic_prefix}orders: 538,959 records" in said
    assert "skutrend_records_total" in said
    assert said.count("whole; flush") == 4
    assert "85123A is in partition-" in said


def test_the_commands_for_your_own_sales_work_in_this_order(tmp_path: Path) -> None:
    """On a Shopify export of eight months."""
    rows = [
        "Name,Financial Status,Currency,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Source"
    ]
    for n in range(240):
        day = date(2026, 1, 1) + timedelta(days=n)
        rows.append(f"#{n},paid,EUR,{day} 12:00:00 +0100,{1 + n % 3},Fern Print,16.00,FERN-1,web")
        rows.append(f"#{n},,,,{1 + n % 2},Moss,5.00,MOSS,")
    (tmp_path / "orders_export_1.csv").write_text("\n".join(rows) + "\n", "utf-8-sig")
    said = run(script("skutrend mapping list"), tmp_path)
    assert "480 records make 480 orders, 0 left out" in said
    assert "480 records: 480 orders" in said
    assert (tmp_path / "events" / "orders.parquet").exists()
    assert (tmp_path / "forecasts.parquet").stat().st_size > 1_000


@pytest.mark.kafka
def test_the_commands_for_going_live_next_to_history_work_in_this_order(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> None:
    """An export of 120 days up to now; the bus has written since the day before yesterday."""
    now, (port,) = datetime.now(ZoneInfo("Europe/Berlin")), free_ports(1)
    moments = [now - timedelta(days=days, minutes=1) for days in range(120)]
    rows = [
        "Name,Financial Status,Currency,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Source"
    ]
    rows += [
        f"#{n},paid,EUR,{at:%Y-%m-%d %H:%M:%S %z},{n % 3 + 1},Fern,16.00,FERN-1,web" for n, at in enumerate(moments)
    ]
    (tmp_path / "orders_export_1.csv").write_text("\n".join(rows) + "\n", "utf-8-sig")
    live = "event_id,order_id,sku,quantity,unit_price,currency,event_time_ms,customer_id\n" + "".join(
        f"live{n},o{n},FERN-1,{n % 3 + 1},16.0,EUR,{round(at.timestamp() * 1000)},\n"
        for n, at in enumerate(moments[:3])
    )
    (tmp_path / "live.csv").write_text(live)
    commands = script("skutrend convert").replace("localhost:9092", kafka.bootstrap)
    for command, more in (
        ("topics create --partitions 4", "{} && skutrend replay --orders live.csv"),
        ("--out my-bundle", "{} --iterations 3"),
        (
            "skutrend worker",
            "{} & for i in $(seq 60); do curl -fs localhost:$SKUTREND_HTTP_PORT/readyz && break; sleep 1; done",
        ),
    ):
        assert command in commands
        commands = commands.replace(command, more.format(command))
    settings = f"SKUTREND_TOPIC_PREFIX={topic_prefix} SKUTREND_GROUP=g SKUTREND_HTTP_PORT={port}"
    said = run(f"export {settings}\n{commands}\nkill -TERM %1 && wait %1\nskutrend state show FERN-1", tmp_path)
    assert "4 of 4 partitions" in said
    assert "120 records: 120 orders" in said
    began = moments[2]  # the bus; the day after it is the first that it has whole
    last_ms = round(began.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
    windows = [(w["window_start_ms"], w["units"]) for w in values(kafka.bootstrap, f"{topic_prefix}windows")]
    assert windows == [(last_ms, 3.0)], "the export and the bus tell of the same order"
    (forecast,) = values(kafka.bootstrap, f"{topic_prefix}forecasts")
    assert (forecast["sku"], forecast["window_start_ms"]) == ("FERN-1", last_ms)
    assert "units" in said.rsplit("FERN-1 is in partition-", 1)[1]


def test_the_commands_for_your_own_model_work_in_this_order(tmp_path: Path) -> None:
    commands = script("skutrend train")
    assert "--iterations 600" in commands
    said = run(commands.replace("--iterations 600", "--iterations 3"), tmp_path)
    assert "this machine serves it on C" in said
    assert (tmp_path / "forecasts.parquet").stat().st_size > 10_000


def test_the_command_that_made_the_shipped_bundle_works(tmp_path: Path) -> None:
    commands = script("SKUTREND_COUNTRY=GB skutrend train")
    assert commands.count("--iterations 800") == 1
    run(f"{commands.replace('--iterations 800', '--iterations 2')}\nskutrend bundle check for-any-shop", tmp_path)
    made, shipped = (
        json.loads((folder / "manifest.json").read_text())
        for folder in (tmp_path / "for-any-shop", ROOT / "inference" / "shipped")
    )
    for field in ("name", "features", "calendar", "feature_fingerprint", "training_span", "windows", "hidden"):
        assert made[field] == shipped[field], field


def test_the_demo_ends_by_itself_with_forecasts_and_explained_alerts(tmp_path: Path) -> None:
    assert "skutrend demo" in (ROOT / "Makefile").read_text()
    said = run("skutrend demo", tmp_path)
    for heading in (
        "what is trending",
        "what was alerted, and why",
        "how good the forecasts were",
        "where everything is",
    ):
        assert heading in said
    assert "735,536 events" in said
    assert "▁" in said
    assert "were not read in time" not in said
    assert len((tmp_path / "skutrend-demo" / "forecasts.jsonl").read_text().splitlines()) == 3_942
    assert '"status":"open"' in (tmp_path / "skutrend-demo" / "alerts.jsonl").read_text()

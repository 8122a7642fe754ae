"""The command line: what it explains, how it refuses, and that a failure is one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner, Result

from inference.bundle import SHIPPED
from streams.cli import cli
from streams.kafka.embedded import EmbeddedBroker
from streams.kafka.topics import names
from streams.settings import Settings, describe
from tests.support.partitions import T0, order, settings_for
from tests.support.scripted import Bench
from tests.support.service import environment

if TYPE_CHECKING:
    from collections.abc import Iterator


def skutrend(*arguments: str, **settings: object) -> Result:
    """Run a command in this process with these settings and no others."""
    return CliRunner().invoke(cli, arguments, env=only(settings), prog_name="skutrend")


def only(settings: dict[str, object]) -> dict[str, str | None]:
    wanted = environment(**settings)
    return {name: wanted.get(name) for name in {*os.environ, *wanted} if name.startswith("SKUTREND_")}


def assert_one_sentence(done: Result, *, about: str) -> None:
    """Assert that it ended with exit code 1 and a sentence on stderr, nothing else; not with a traceback."""
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith("skutrend: ")
    assert re.search(about, line), line


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(cli))


@pytest.fixture
def orders(tmp_path: Path) -> str:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b"\n".join(order(f"e{n}", "a", T0 + n * 86_400_000) for n in range(3)) + b"\n")
    return str(path)


# ---------------------------------------------------------------------- help
def test_every_promised_command_is_there() -> None:
    promised = {
        "demo", "worker", "replay", "topics create", "topics check", "train", "backtest", "bundle check",
        "state show", "state verify", "dead-letters list", "dead-letters replay", "settings",
    }  # fmt: skip
    assert promised <= {" ".join(path) for path in ALL}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_says_what_a_command_does_and_what_each_option_means(path: tuple[str, ...]) -> None:
    done = skutrend(*path, "--help")
    assert (done.exit_code, done.stderr) == (0, "")
    command = ALL[path]
    assert command.help
    said = " ".join(done.stdout.split())
    assert " ".join(command.help.split())[:60] in said
    assert "Usage: skutrend" in said
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in said
            assert parameter.help or parameter.show_default, f"{parameter.opts[0]} of {path} is not explained"


def test_the_version_is_that_of_the_package() -> None:
    assert version("skutrend") in skutrend("--version").stdout


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams", "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: skutrend")


# ---------------------------------------------------------------------- misuse
@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["topics", "no-such-command"],
        ["worker", "--no-such-option"],
        ["replay"],
        ["replay", "--orders", "/nowhere/orders.parquet"],
        ["--config", "/nowhere/skutrend.toml", "settings"],
        ["topics", "create", "--partitions", "0"],
        ["topics", "create", "--replication", "three"],
        ["train", "--orders", __file__],
        ["train", "--orders", __file__, "--out", "x", "--until", "yesterday"],
        [
            "backtest",
            "--orders",
            __file__,
            "--out",
            "x",
            "--first-origin",
            "2011-01-01",
            "--every",
            "0",
            "--count",
            "1",
        ],
        ["state", "show"],
        ["bundle", "check", "one", "two"],
        ["dead-letters", "list", "--limit", "0"],
        ["dead-letters", "replay"],
        ["dead-letters", "replay", "/nowhere/letters.jsonl"],
    ],
    ids=" ".join,
)
def test_misuse_exits_with_2_and_says_how_it_is_meant(arguments: list[str]) -> None:
    done = skutrend(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Usage: skutrend" in done.stderr
    assert "Error: " in done.stderr


# ---------------------------------------------------------------------- settings
def test_settings_lists_every_variable_with_its_value() -> None:
    done = skutrend("settings", group="mine", window_ms=3_600_000)
    assert (done.exit_code, done.stderr) == (0, "")
    for each in describe(Settings()):
        assert f"\n{each.variable} = " in done.stdout
        assert each.meaning in done.stdout
    assert "SKUTREND_GROUP = mine  (default skutrend)" in done.stdout
    assert "SKUTREND_WINDOW_MS = 3600000 ms  (default 86400000)" in done.stdout
    assert "SKUTREND_KAFKA_" in done.stdout


def test_the_environment_wins_over_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('group = "of-the-file"\ntopic_prefix = "shop."')
    done = skutrend("--config", str(tmp_path / "s.toml"), "settings", group="of-the-env")
    assert "of-the-env" in done.stdout
    assert "shop." in done.stdout
    assert "of-the-file" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["settings"],
        ["worker"],
        ["topics", "check"],
        ["topics", "create"],
        ["state", "verify"],
        ["state", "show", "a"],
        ["dead-letters", "list"],
        ["dead-letters", "replay", __file__],
    ],
    ids=" ".join,
)
def test_a_bad_setting_is_one_sentence_whatever_the_command(arguments: list[str]) -> None:
    assert_one_sentence(skutrend(*arguments, threads="many"), about="SKUTREND_THREADS is 'many'")


def test_a_settings_file_that_is_no_toml_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("group = ")
    assert_one_sentence(skutrend("--config", str(tmp_path / "s.toml"), "settings"), about="is not TOML")


# ---------------------------------------------------------------------- bundles, files
def test_the_shipped_bundle_is_described_and_can_be_served() -> None:
    for arguments in (["bundle", "check"], ["bundle", "check", str(SHIPPED)]):
        done = skutrend(*arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        assert re.search(r"^this machine serves it on (CPU|CUDA)$", done.stdout, re.MULTILINE)
        assert "quantiles    0.05" in done.stdout


def test_a_directory_that_is_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(skutrend("bundle", "check", str(tmp_path / "nowhere")), about=r"manifest\.json: No such file")
    (tmp_path / "manifest.json").write_text("{")
    assert_one_sentence(skutrend("bundle", "check", str(tmp_path)), about="not a bundle's manifest")
    assert_one_sentence(skutrend("worker", bundle=str(tmp_path)), about="not a bundle's manifest")


def test_a_file_that_is_no_event_file_is_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "orders.parquet"
    other.write_text("no parquet")
    assert_one_sentence(skutrend("replay", "--orders", str(other)), about=r"orders\.parquet")


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan"])
def test_a_speed_that_is_none_is_one_sentence(orders: str, speed: str) -> None:
    assert_one_sentence(skutrend("replay", "--orders", orders, "--speed", speed), about="speed is")


def test_a_backtest_whose_origins_lie_outside_the_events_says_so(orders: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out.parquet")
    options = ["--orders", orders, "--out", out, "--first-origin", "2030-01-01", "--every", "1", "--count", "1"]
    done = skutrend("backtest", *options)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(
        "skutrend: no origin lies within the events: the first is 2030-01-01"
    )
    assert not Path(out).exists()


def test_a_backtest_tells_which_money_it_leaves_out_and_heeds_the_rates(tmp_path: Path) -> None:
    changes = [{"currency": "JPY", "unit_price": 15_000.0} if n % 3 == 2 else {} for n in range(60)]
    rows = [order(f"e{n}", "a", T0 + n * 21_600_000, **change) for n, change in enumerate(changes)]
    file, rates = tmp_path / "orders.jsonl", tmp_path / "rates.toml"
    file.write_bytes(b"\n".join(rows))
    rates.write_text("[rates]\nJPY = 0.005\n")
    options = ["--orders", str(file), "--out", str(tmp_path / "out.parquet"), "--every", "1", "--count", "1"]
    options += ["--first-origin", "2023-11-28"]
    left_out = skutrend("backtest", *options)
    assert "20 records with money in JPY left out, since the shop's is GBP" in " ".join(left_out.stderr.split())
    converted = skutrend("backtest", *options, currency="GBP", rates=str(rates))
    assert (left_out.exit_code, converted.exit_code) == (0, 0), converted.stderr
    assert "left out" not in converted.stderr
    rates.write_text("[rates]\nJPY = -1\n")
    for command in (["backtest", *options], ["settings"]):
        assert_one_sentence(skutrend(*command, currency="GBP", rates=str(rates)), about="JPY = -1")


def test_a_backtest_into_a_directory_that_is_not_there_is_reported(orders: str, tmp_path: Path) -> None:
    out = str(tmp_path / "nowhere" / "out.parquet")
    options = ["--orders", orders, "--out", out, "--first-origin", "2023-11-16", "--every", "1", "--count", "1"]
    done = skutrend("backtest", *options)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in {1, 2}


# ---------------------------------------------------------------------- brokers
@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker() as embedded:
        embedded.make(names())
        yield embedded.bootstrap


def test_a_replay_prints_the_number_of_records_per_topic(broker: str, orders: str) -> None:
    done = skutrend("replay", "--orders", orders, brokers=broker)
    assert done.exit_code == 0, done.output
    assert done.stdout == "orders: 3 records\n"


def test_a_replay_of_microseconds_does_not_end_in_a_traceback(broker: str, tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(order("e", "a", T0 * 1_000))
    done = skutrend("replay", "--orders", str(path), brokers=broker)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def run_impatiently(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own that gives brokers half a second."""
    code = (
        "import sys, streams.kafka.topics, streams.events.replay, streams.commands.serve\n"
        "streams.kafka.topics.ANSWER_S = streams.events.replay._BROKER_TIMEOUT_S = 0.5\n"
        "from streams.cli import main\n"
        "sys.argv[0] = 'skutrend'; main()"
    )
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code, *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["topics", "create"], ["topics", "check"], ["dead-letters", "list"]], ids=" ".join
)
def test_a_broker_that_does_not_answer_is_one_sentence(arguments: list[str]) -> None:
    done = run_impatiently(*arguments, brokers="127.0.0.1:1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("skutrend: no answer from the brokers 127.0.0.1:1")


@pytest.mark.slow
def test_a_replay_to_a_broker_that_does_not_answer_ends_in_a_sentence(orders: str) -> None:
    done = run_impatiently("replay", "--orders", orders, brokers="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    *_progress, line = done.stderr.splitlines()
    assert line.startswith("skutrend: no answer from Kafka at 127.0.0.1:1")
    assert "FAIL" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_state_directory_that_cannot_be_is_reported_before_any_broker_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_impatiently("worker", brokers="127.0.0.1:1", bundle="none", state_dir=str(tmp_path / "file" / "state"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"skutrend: the state directory {tmp_path}/file/state/skutrend (SKUTREND_STATE_DIR) cannot")
    assert f"{tmp_path}/file is a file" in line


@pytest.mark.parametrize("name", ["shop:eu", "größe", "../outside", "g" * 240])
def test_a_group_that_cannot_name_a_topic_is_one_sentence(name: str) -> None:
    for arguments in (["worker"], ["topics", "check"], ["state", "verify"]):
        assert_one_sentence(skutrend(*arguments, group=name), about="SKUTREND_GROUP")


@pytest.mark.parametrize("command", ["demo", "train", "backtest"])
def test_what_cannot_be_written_in_the_end_is_reported_in_the_beginning(
    orders: str, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "out")
    options = {
        "demo": [],
        "train": ["--orders", orders],
        "backtest": ["--orders", orders, "--first-origin", "2011-01-01", "--every", "1", "--count", "1"],
    }[command]
    assert_one_sentence(skutrend(command, *options, "--out", out), about=r"(no directory|file is a file)")


@pytest.mark.parametrize("arguments", [["topics", "create"], ["topics", "check"]], ids=" ".join)
def test_a_kafka_property_that_nobody_knows_is_one_sentence(arguments: list[str]) -> None:
    assert_one_sentence(skutrend(*arguments, kafka_foo="1"), about=r"SKUTREND_KAFKA_FOO .*'foo'")


def test_a_kubernetes_service_of_our_name_does_no_harm(broker: str) -> None:
    links = {"kafka_service_host": "10.0.0.1", "http_port": "tcp://10.0.0.1:80", "kafka_port_9092_tcp_addr": "10.0.0.1"}
    done = skutrend("topics", "check", brokers=broker, topic_prefix="nowhere-", **links)
    assert "topic nowhere-orders is missing" in done.stderr
    assert "unusable" not in done.stderr
    shown = skutrend("settings", **links)
    assert shown.exit_code == 0
    assert "SKUTREND_HTTP_PORT = 8080  (default)" in shown.stdout


# ---------------------------------------------------------------------- dead letters
def test_dead_letters_are_listed_and_all_written_unless_a_limit_is_given(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    bench = Bench(settings)
    bench.take(0, *(b"?%d" % n for n in range(25)))
    bench.close()
    mine: dict[str, object] = {"brokers": broker, "topic_prefix": settings.topic_prefix}
    out = tmp_path / "letters.jsonl"
    for limit, shown, written in (([], 20, 25), (["--limit", "3"], 3, 3), (["--limit", "20"], 20, 20)):
        done = skutrend("dead-letters", "list", "--out", str(out), *limit, **mine)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.count(" UTC  not_json  ") == shown
        assert len(out.read_bytes().splitlines()) == written
    refused = skutrend("dead-letters", "replay", str(out), **mine)
    assert_one_sentence(refused, about="nothing was sent, since .* still unusable: .* and 15 more")


def test_a_file_for_dead_letters_that_cannot_be_written_is_one_sentence(broker: str, tmp_path: Path) -> None:
    prefix = settings_for(broker, tmp_path).topic_prefix
    done = skutrend("dead-letters", "list", "--out", str(tmp_path / "no" / "f"), brokers=broker, topic_prefix=prefix)
    assert_one_sentence(done, about="cannot write .*/no/f: No such file or directory")


# ---------------------------------------------------------------------- state
def test_the_state_commands_read_what_a_worker_left(broker: str, tmp_path: Path) -> None:
    settings = settings_for(broker, tmp_path)
    bench = Bench(settings)
    bench.take(0, order("1", "a", T0, quantity=3), order("2", "b", T0))
    mine: dict[str, object] = {"state_dir": tmp_path, "window_ms": settings.window_ms, "bundle": "none"}
    mine["topic_prefix"] = settings.topic_prefix
    held = skutrend("state", "verify", **mine)
    assert_one_sentence(held, about="another worker using SKUTREND_STATE_DIR")
    bench.close()
    shown = skutrend("state", "show", "a", **mine)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "3 units in 1 lines" in shown.stdout
    verified = skutrend("state", "verify", **mine)
    assert (verified.exit_code, verified.stderr) == (0, "")
    assert verified.stdout.startswith("partition-0: whole; flush 1, ")
    assert_one_sentence(skutrend("state", "show", "nobody", **mine), about="no partition .* knows the SKU 'nobody'")
    compared = skutrend("state", "verify", "--changelog", **mine, guarantee="at_least_once", changelog="off")
    assert_one_sentence(compared, about="no changelog to compare with")
    assert_one_sentence(
        skutrend("state", "verify", **mine | {"group": "other"}),
        about=f"no state of group '{settings.topic_prefix}other'",
    )


@pytest.mark.parametrize(
    ("options", "settings", "timezone", "day_start"),
    [
        ([], {}, "UTC", "00:00"),
        ([], {"timezone": "Europe/London", "day_start": "04:00"}, "Europe/London", "04:00"),
        (["--timezone", "Asia/Tokyo", "--day-start", "05:00"], {"timezone": "Europe/London"}, "Asia/Tokyo", "05:00"),
    ],
)
def test_training_and_backtests_start_days_when_the_worker_does(
    monkeypatch: pytest.MonkeyPatch,
    orders: str,
    options: list[str],
    settings: dict[str, object],
    timezone: str,
    day_start: str,
) -> None:
    asked: list[dict[str, Any]] = []
    for command in ("streams.commands.train.train_bundle", "streams.commands.backtest.run"):
        monkeypatch.setattr(command, lambda _, **how: asked.append(how))
    origins = ["--first-origin", "2023-11-16", "--every", "1", "--count", "1"]
    for command in (["train", "--out", "x"], ["backtest", "--out", "x", *origins]):
        done = skutrend(*command, "--orders", orders, *options, **settings)
        assert done.exit_code == 0, done.output
    assert [(how["grid"].timezone, how["grid"].day_start) for how in asked] == [(timezone, day_start)] * 2


def test_training_with_a_day_that_starts_at_no_time_is_one_sentence(orders: str, tmp_path: Path) -> None:
    done = skutrend("train", "--orders", orders, "--out", str(tmp_path / "b"), "--day-start", "4am")
    assert_one_sentence(done, about="SKUTREND_DAY_START is '4am'")

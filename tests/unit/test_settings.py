from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from schemas.errors import BadSetting
from streams.settings import KAFKA_PREFIX, PREFIX, Settings, describe, load

if TYPE_CHECKING:
    from pathlib import Path


def toml(folder: Path, text: str) -> Path:
    path = folder / "skutrend.toml"
    path.write_text(text)
    return path


def test_without_a_file_and_an_environment_the_defaults_hold() -> None:
    assert load(environment={}) == Settings()


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'group = "of-the-file"\nthreads = 3\nalert_min_impact = 7')
    settings = load(path, {"SKUTREND_GROUP": "of-the-environment"})
    assert (settings.group, settings.threads, settings.alert_min_impact) == ("of-the-environment", 3, 7.0)
    assert settings.state_dir == Settings().state_dir


def test_an_option_of_the_command_wins_over_all_and_none_means_not_given(tmp_path: Path) -> None:
    path = toml(tmp_path, 'timezone = "Europe/London"')
    environment = {"SKUTREND_TIMEZONE": "Europe/Paris"}
    assert load(path, environment, timezone="Asia/Tokyo").timezone == "Asia/Tokyo"
    assert load(path, environment, timezone=None).timezone == "Europe/Paris"


def test_the_file_may_be_named_by_the_environment_and_an_argument_wins(tmp_path: Path) -> None:
    by_environment = toml(tmp_path, 'group = "one"')
    (tmp_path / "other").mkdir()
    by_argument = toml(tmp_path / "other", 'group = "two"')
    environment = {"SKUTREND_CONFIG": str(by_environment)}
    assert load(None, environment).group == "one"
    assert load(by_argument, environment).group == "two"


def test_the_process_s_own_environment_is_read_when_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKUTREND_GROUP", "mine")
    assert load().group == "mine"


def test_a_variable_that_is_no_setting_is_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """Kubernetes puts such variables there by itself."""
    settings = load(environment={"SKUTREND_SERVICE_HOST": "10.0.0.1", "PATH": "/bin", "skutrend_group": "x"})
    assert settings == Settings()
    (message,) = caplog.messages
    assert "SKUTREND_SERVICE_HOST" in message


def test_a_name_in_the_file_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="window_mss"):
        load(toml(tmp_path, "window_mss = 1"), {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SKUTREND_BROKERS", ""),
        ("SKUTREND_THREADS", "many"),
        ("SKUTREND_THREADS", "0"),
        ("SKUTREND_THREADS", "1.5"),
        ("SKUTREND_WINDOW_MS", "-1"),
        ("SKUTREND_WINDOW_MS", "86400001000"),
        ("SKUTREND_WINDOW_MS", "7000000"),  # does not divide a day
        ("SKUTREND_ALLOWED_LATENESS_MS", "soon"),
        ("SKUTREND_FLUSH_INTERVAL_MS", "1"),
        ("SKUTREND_GUARANTEE", "at_most_once"),
        ("SKUTREND_PROVIDER", "tpu"),
        ("SKUTREND_SILENT_WINDOWS", "maybe"),
        ("SKUTREND_ALERT_MIN_IMPACT", "-1"),
        ("SKUTREND_HTTP_PORT", "65536"),
        ("SKUTREND_SESSION_TIMEOUT_MS", "100"),
        ("SKUTREND_LOG_LEVEL", "loud"),
        ("SKUTREND_TIMEZONE", "Mars/Olympus"),
        ("SKUTREND_TIMEZONE", "../etc/passwd"),
        ("SKUTREND_TIMEZONE", ""),
        ("SKUTREND_WINDOW_MS", "259200000"),  # three days
        ("SKUTREND_ALERT_MIN_IMPACT", "nan"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_variable_s_name(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        load(environment={variable: value})


def test_a_refusal_says_what_was_found_and_what_was_expected() -> None:
    with pytest.raises(BadSetting, match=r"^SKUTREND_THREADS is 'many': expected `int`.*`skutrend settings`"):
        load(environment={"SKUTREND_THREADS": "many"})


def test_a_wrong_type_in_the_file_is_refused_with_the_setting_s_name(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="SKUTREND_GROUP is 5"):
        load(toml(tmp_path, "group = 5"), {})


def test_a_file_that_is_missing_or_no_toml_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"cannot read .*nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml", {})
    with pytest.raises(BadSetting, match=r"skutrend\.toml is not TOML"):
        load(toml(tmp_path, "group = "), {})


@pytest.mark.parametrize("content", [b'group = "\xff"', b'kafka = "localhost:9092"'])
def test_a_file_of_another_kind_is_told_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "skutrend.toml"
    path.write_bytes(content)
    with pytest.raises(BadSetting, match=r"skutrend\.toml"):
        load(path, {})


def test_kafka_properties_come_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        '[kafka]\nsasl.username = "file"\n"security.protocol" = "SASL_SSL"\n'
        'sasl.mechanism = "plain"\n'
        "socket.keepalive.enable = true\nlinger.ms = 5",
    )
    settings = load(path, {"SKUTREND_KAFKA_SASL_USERNAME": "env", "SKUTREND_KAFKA_SASL_PASSWORD": "s=e_c"})
    assert settings.kafka == {
        "sasl.username": "env",
        "sasl.password": "s=e_c",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "socket.keepalive.enable": "True",
        "linger.ms": "5",
    }
    assert settings.client == {"bootstrap.servers": "localhost:9092", **settings.kafka}


def test_a_topic_s_full_name_has_the_prefix() -> None:
    assert load(environment={"SKUTREND_TOPIC_PREFIX": "shop1."}).topic("orders") == "shop1.orders"


def test_settings_say_which_windows_they_ask_for() -> None:
    grid = load(environment={"SKUTREND_WINDOW_MS": "3600000", "SKUTREND_WINDOW_OFFSET_MS": "60000"}).grid
    assert (grid.start_ms(5), grid.end_ms(5)) == (5 * 3_600_000 + 60_000, 6 * 3_600_000 + 60_000)


def test_every_setting_is_described_with_unit_default_and_meaning() -> None:
    settings = load(environment={"SKUTREND_GROUP": "other"})
    described = {each.name: each for each in describe(settings)}
    assert [*described, "kafka"] == [item.name for item in msgspec.structs.fields(Settings)]
    for name, each in described.items():
        assert each.variable == PREFIX + name.upper()
        assert each.default == getattr(Settings(), name)
        assert each.value == getattr(settings, name)
        assert len(each.meaning.split()) >= 3, name
        assert each.meaning[0].islower() or each.meaning[:4] in {"CPU ", "IANA", "Kafk"} or each.meaning[0] in "/`", (
            name
        )
        assert each.unit == ("ms" if name.endswith("_ms") else "money" if name == "alert_min_impact" else "")
    assert described["group"].value == "other"


def test_every_described_variable_is_one_that_is_read() -> None:
    for each in describe(Settings()):
        assert getattr(load(environment={each.variable: str(each.default) or ""}), each.name) == each.default
    assert KAFKA_PREFIX.startswith(PREFIX)


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Settings().group = "other"  # type: ignore[misc]

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    settings = load(environment={"SKUTREND_GRUOP": "mine", "PATH": "/bin", "skutrend_group": "x"})
    assert settings == Settings()
    (message,) = caplog.messages
    assert "SKUTREND_GRUOP" in message


def links(service: str, port: int, name: str = "", protocol: str = "tcp") -> dict[str, str]:
    """Return what Kubernetes puts into every container for a Service, as of its docs on service links."""
    at, variable = f"{protocol}://10.0.0.1:{port}", service.upper().replace("-", "_")
    by_port = f"{variable}_PORT_{port}_{protocol.upper()}"
    return {
        f"{variable}_SERVICE_HOST": "10.0.0.1",
        f"{variable}_SERVICE_PORT": str(port),
        **({f"{variable}_SERVICE_PORT_{name.upper()}": str(port)} if name else {}),
        f"{variable}_PORT": at,
        by_port: at,
        f"{by_port}_PROTO": protocol,
        f"{by_port}_PORT": str(port),
        f"{by_port}_ADDR": "10.0.0.1",
    }


@pytest.mark.parametrize("service", ["skutrend", "skutrend-kafka", "skutrend-http", "skutrend-group", "skutrend-state"])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_links_to_a_kubernetes_service_are_no_settings_and_told_once(
    service: str, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load(environment=links(service, 9092, "metrics", protocol)) == Settings()
    (message,) = caplog.messages
    assert f"the Service {service}," in message
    assert "enableServiceLinks: false" in message


def test_a_property_named_like_a_service_is_still_a_property() -> None:
    name = "SKUTREND_KAFKA_SASL_KERBEROS_SERVICE_NAME"
    with pytest.raises(BadSetting, match=name):
        load(environment={**links("skutrend-other", 9093, "broker"), name: "kafka"})


def test_each_service_is_reported_and_settings_beside_their_links_are_read(caplog: pytest.LogCaptureFixture) -> None:
    settings = load(
        environment={
            **links("skutrend-kafka", 9093, "broker"),
            **links("skutrend-http", 80),
            "SKUTREND_BROKERS": "b:9092",
            "SKUTREND_KAFKA_SOCKET_TIMEOUT_MS": "9000",
            "SKUTREND_KAFKA_CLIENT_ID": "a",
        }
    )
    assert settings == Settings(brokers="b:9092", kafka={"socket.timeout.ms": "9000", "client.id": "a"}), (
        "the port of the Service does not become ours"
    )
    assert sorted(message.partition("the Service ")[2].split(",")[0] for message in caplog.messages) == [
        "skutrend-http",
        "skutrend-kafka",
    ]


def test_a_port_that_is_a_number_is_a_setting_and_one_that_is_neither_is_refused() -> None:
    assert load(environment={"SKUTREND_HTTP_PORT": "9000"}).http_port == 9_000
    with pytest.raises(BadSetting, match="SKUTREND_HTTP_PORT is 'web'"):
        load(environment={"SKUTREND_HTTP_PORT": "web"})


def test_a_port_in_the_file_holds_where_the_environment_has_a_link(tmp_path: Path) -> None:
    assert load(toml(tmp_path, "http_port = 9000"), links("skutrend-http", 80)).http_port == 9_000


@pytest.mark.parametrize("name", ["stats_cb", "default.topic.config", "logger"])
def test_what_no_text_can_set_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSetting, match=name):
        load(toml(tmp_path, f'[kafka]\n"{name}" = "x"'), {})


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
        ("SKUTREND_DAY_START", "4 a.m."),
        ("SKUTREND_WEEK_START", "someday"),
        ("SKUTREND_WEEK_START", "sunday"),  # of days
        ("SKUTREND_WINDOW_OFFSET_MS", "14400000"),  # of days
        ("SKUTREND_ALERT_MIN_IMPACT", "nan"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_variable_s_name(variable: str, value: str) -> None:
    with pytest.raises(BadSetting, match=variable):
        load(environment={variable: value})


@pytest.mark.parametrize(
    "variable", ["SKUTREND_GROUP", "SKUTREND_INSTANCE", "SKUTREND_TOPIC_PREFIX", "SKUTREND_OUTPUT_PREFIX"]
)
@pytest.mark.parametrize("name", ["shop:eu", "größe", "../outside", "a/b", "a b", "x\n", "a\x00", "..", "."])
def test_what_cannot_name_a_topic_and_a_directory_is_refused(variable: str, name: str) -> None:
    with pytest.raises(BadSetting, match=rf"^{variable} is .*topics, directories and transactional ids"):
        load(environment={variable: name})


@given(st.text(max_size=300), st.text("ab.-_", max_size=260), st.text("ab.-_", max_size=260))
def test_every_name_that_is_taken_is_one_for_kafka_and_for_the_disk(group: str, prefix: str, instance: str) -> None:
    try:
        settings = load(None, {}, group=group, topic_prefix=prefix, instance=instance)
    except BadSetting:
        return
    for name in (settings.changelog_topic, settings.topic("orders"), settings.group, *([instance] if instance else [])):
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name)
        assert name not in {".", ".."}


def test_a_group_may_be_as_long_as_its_changelog_s_name_and_no_longer() -> None:
    longest = "g" * (249 - len("skutrend--changelog"))
    assert load(None, {}, group=longest).group == longest
    with pytest.raises(BadSetting, match=r"SKUTREND_GROUP make the name .* of 250 characters.*shorten them by 1"):
        load(None, {}, group=longest + "g")
    with pytest.raises(BadSetting, match="SKUTREND_TOPIC_PREFIX make"):
        load(None, {}, topic_prefix="p" * 240)
    with pytest.raises(BadSetting, match="SKUTREND_INSTANCE make"):
        load(None, {}, instance="i" * 250)


def test_a_refusal_says_what_was_found_and_what_was_expected() -> None:
    with pytest.raises(BadSetting, match=r"^SKUTREND_THREADS is 'many': expected `int`.*`skutrend settings`"):
        load(environment={"SKUTREND_THREADS": "many"})


def test_a_wrong_type_in_the_file_is_refused_with_the_setting_s_name(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="SKUTREND_GROUP is 5"):
        load(toml(tmp_path, "group = 5"), {})


def test_a_file_that_is_missing_or_no_toml_is_reported_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"cannot read .*nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml", {})
    with pytest.raises(BadSetting, match=r"skutrend\.toml is not TOML"):
        load(toml(tmp_path, "group = "), {})


@pytest.mark.parametrize("content", [b'group = "\xff"', b'kafka = "localhost:9092"'])
def test_a_file_of_another_kind_is_reported_too(tmp_path: Path, content: bytes) -> None:
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


def test_without_a_prefix_the_names_are_the_group_s_alone() -> None:
    settings = Settings(group="g", state_dir="here")
    assert (settings.group_id, settings.changelog_topic) == ("g", "skutrend-g-changelog")
    assert (settings.topic("orders"), settings.output("forecasts")) == ("orders", "forecasts")
    assert settings.transactional_id(3) == "g-3"
    assert str(settings.partition_dir(3)) == "here/g/partition-3"


def test_a_topic_prefix_is_in_every_name_and_an_output_prefix_before_all_but_the_inputs() -> None:
    shop = load(environment={"SKUTREND_TOPIC_PREFIX": "eu."})
    shadow = load(environment={"SKUTREND_TOPIC_PREFIX": "eu.", "SKUTREND_OUTPUT_PREFIX": "new-"})
    assert shop.topic("orders") == shadow.topic("orders") == "eu.orders"
    for settings, before in ((shop, "eu."), (shadow, "new-eu.")):
        assert settings.output("forecasts") == f"{before}forecasts"
        assert settings.changelog_topic == f"{before}skutrend-skutrend-changelog"
        assert settings.group_id == f"{before}skutrend"
        assert settings.transactional_id("replay") == f"{before}skutrend-replay"
        assert str(settings.partition_dir(0)) == f"skutrend-state/{before}skutrend/partition-0"


def test_settings_say_which_windows_they_ask_for() -> None:
    grid = load(environment={"SKUTREND_WINDOW_MS": "3600000", "SKUTREND_WINDOW_OFFSET_MS": "60000"}).grid
    assert (grid.start_ms(5), grid.end_ms(5)) == (5 * 3_600_000 + 60_000, 6 * 3_600_000 + 60_000)


def test_every_setting_is_described_with_unit_default_and_meaning() -> None:
    settings = load(environment={"SKUTREND_GROUP": "other"})
    described = {each.name: each for each in describe(settings)}
    assert [*described, "kafka", "schema_registry"] == [item.name for item in msgspec.structs.fields(Settings)]
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


def test_properties_of_the_schema_registry_come_as_those_of_kafka_do(tmp_path: Path) -> None:
    path = tmp_path / "skutrend.toml"
    path.write_text('[schema_registry]\nurl = "http://r:8081"\nmax.retries = 2\n')
    environment = {"SKUTREND_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": "a:b", "SKUTREND_SCHEMA_REGISTRY_URL": "https://r"}
    assert load(path, environment).schema_registry == {
        "url": "https://r",
        "max.retries": "2",
        "basic.auth.user.info": "a:b",
    }
    path.write_text("schema_registry = 5\n")
    with pytest.raises(BadSetting, match=r"`schema_registry` in the settings file .* must be a table of properties"):
        load(path, {})


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Settings().group = "other"  # type: ignore[misc]


def test_days_and_weeks_start_where_the_settings_say() -> None:
    chosen = {"SKUTREND_WINDOW_MS": "604800000", "SKUTREND_WEEK_START": "sunday", "SKUTREND_DAY_START": "04:00"}
    grid = load(environment=chosen).grid
    assert (grid.week_start, grid.day_start) == ("sunday", "04:00")
    assert grid.signature == "week timezone=UTC from=sunday day_start=04:00"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MESSAGES", "1000", "too little for a worker's outputs: set at least 100000, or none"),
        ("KBYTES", "1024", "too little for a worker's outputs: set at least 262144, or none"),
        ("KBYTES", "0x400", "expected a whole number"),
    ],
)
def test_a_producers_queue_that_would_hold_the_worker_up_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(BadSetting) as raised:
        load(environment={f"SKUTREND_KAFKA_QUEUE_BUFFERING_MAX_{name}": value})
    assert f"the Kafka property queue.buffering.max.{name.lower()} is " in str(raised.value)
    assert said in str(raised.value)
    load(environment={f"SKUTREND_KAFKA_QUEUE_BUFFERING_MAX_{name}": "300000"})
    load(environment={f"SKUTREND_KAFKA_QUEUE_BUFFERING_MAX_{name}": "0"})

"""Every setting of the service, in one frozen object, read once.

Sources, later ones win: the defaults here, a TOML file (`--config`, or SKUTREND_CONFIG), the environment
(`SKUTREND_<NAME>`). Anything Kafka clients need beyond that (TLS, SASL) is a librdkafka property: `[kafka]` in the TOML
file, or `SKUTREND_KAFKA_<PROPERTY>` with underscores for dots. What Kubernetes puts into the environment by itself is
told apart from settings (streams/config/service_links.py).
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from features.cadence import DAY_MS, DORMANT_AFTER_MS, MOST_HOURS
from features.currency import ShopCurrency
from features.grid import MIDNIGHT, WEEKDAYS, WindowGrid
from features.known_days import check_country
from schemas.errors import BadSetting
from streams.config import addresses, closing_days, naming, queue, security, service_links
from streams.config.personal import Masker, masker
from streams.config.rates import read as read_rates

log = logging.getLogger(__name__)
PREFIX = "SKUTREND_"
KAFKA_PREFIX = PREFIX + "KAFKA_"
REGISTRY_PREFIX = PREFIX + "SCHEMA_REGISTRY_"
_TABLES: Final = {KAFKA_PREFIX: "kafka", REGISTRY_PREFIX: "schema_registry"}
"""Variables that begin so are properties of a client: `_` stands for a dot."""
_LONGEST_TOPIC = "replenishment-policies"  # of all that are or will be read or written
# what the Kafka client of Python takes as an object, which a text cannot be
_NO_TEXT = frozenset({
    "default.topic.config", "error_cb", "logger", "oauth_cb", "on_commit", "on_delivery", "stats_cb", "throttle_cb"
})  # fmt: skip

Text = Annotated[str, Meta(min_length=1)]
Milliseconds = Annotated[int, Meta(ge=0)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings; each annotation's description is its one line of documentation."""

    brokers: Annotated[Text, Meta(description="Kafka bootstrap servers, host:port, comma-separated")] = "localhost:9092"
    group: Annotated[Text, Meta(description="consumer group; workers of one group share the partitions")] = "skutrend"
    instance: Annotated[
        str,
        Meta(
            description="name of this worker in its group, unique and kept over restarts (a StatefulSet's pod name): a "
            "restart within the session timeout then moves no partition"
        ),
    ] = ""
    topic_prefix: Annotated[
        str,
        Meta(
            description="put before every topic name, the group, transactional ids and the state's directory: tells "
            "shops on one cluster apart"
        ),
    ] = ""
    output_prefix: Annotated[
        str,
        Meta(
            description="put before all of these but the inputs: a second worker on the same inputs, whose outputs "
            "nobody takes for the shop's (a shadow)"
        ),
    ] = ""
    state_dir: Annotated[
        Text, Meta(description="directory of the RocksDB state; one per worker, kept across restarts")
    ] = "skutrend-state"
    bundle: Annotated[
        Text,
        Meta(
            description="model bundle: a directory, an fsspec URL (`s3://...` with s3fs installed), `shipped`, or "
            "`none` (windows only, no forecasts)"
        ),
    ] = "shipped"
    bundle_check_ms: Annotated[
        Milliseconds,
        Meta(
            description="how often the bundle is looked at: another one that is there serves from the next window on; "
            "`0`: only at the start"
        ),
    ] = 30_000
    shadow_bundle: Annotated[
        str,
        Meta(
            description="second bundle, whose forecasts go to `forecasts-shadow` and are held against those that are "
            "served; empty: none"
        ),
    ] = ""
    shadow_promotion: Annotated[
        Literal["off", "advise", "automatic"],
        Meta(
            description="what follows when 14 windows say, with 95 % confidence, that the shadow's loss is at most 1 % "
            "higher: `advise`: a line in the log; `automatic`: its files are put in the place of `SKUTREND_BUNDLE`, "
            "which all workers then take over"
        ),
    ] = "advise"
    provider: Annotated[
        Literal["auto", "cuda", "cpu"], Meta(description="where the model runs; `cuda` refuses to start without a GPU")
    ] = "auto"
    threads: Annotated[int, Meta(ge=1, le=256, description="CPU threads of one model run")] = 1
    window_ms: Annotated[
        Milliseconds,
        Meta(
            description="window length: a divisor of a day, 86400000 (shop-local day), 604800000 (week), "
            "or 28 to 31 days (month)"
        ),
    ] = DAY_MS
    window_offset_ms: Annotated[int, Meta(description="shifts windows below a day from the epoch; longer ones: 0")] = 0
    day_start: Annotated[
        Text,
        Meta(
            description="shop-local time, HH:MM, at which days start, and with them weeks and months; where the clock "
            "leaves it out, as much later as the clock was put forward; for windows below a day: 00:00"
        ),
    ] = MIDNIGHT
    week_start: Annotated[
        Text, Meta(description="weekday on which week windows start, `monday` to `sunday`; for all others: monday")
    ] = WEEKDAYS[0]
    timezone: Annotated[Text, Meta(description="IANA time zone of the shop's days")] = "UTC"
    horizon: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST_HOURS,
            description="windows to forecast, 14 to 168 of those below a day; 0: as many as the bundle does, without a "
            "bundle for these windows 24, of a day and longer always 14",
        ),
    ] = 0
    country: Annotated[
        str,
        Meta(
            pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?\Z",
            description="the shop's country (ISO 3166, `GB`, or with a part, `DE-BY`), whose holidays forecasts then "
            "know of; also heeded by `train` and `backtest`; empty: none",
        ),
    ] = ""
    closing_days: Annotated[
        str,
        Meta(
            description="file of days on which the shop does not sell, which forecasts then know of: one date a line, "
            "`2026-12-25`, or a stretch, `2026-12-24..2026-12-26`; empty: none"
        ),
    ] = ""
    allowed_lateness_ms: Annotated[
        Milliseconds,
        Meta(description="how far behind the newest event of its partition an event may come and still count"),
    ] = 3_600_000
    correct_within_ms: Annotated[
        Milliseconds,
        Meta(
            description="how long after its end, in event time, a window that has closed is still changed by late "
            "events, and published again with a higher `revision`; `0`: never"
        ),
    ] = 7 * DAY_MS
    max_ahead_ms: Annotated[
        Milliseconds, Meta(description="how far ahead of the clock an event time may lie before the record is refused")
    ] = 3_600_000
    idle_timeout_ms: Annotated[
        Milliseconds,
        Meta(
            description="an input whose event time has stood for so long, polled and without lag, stops holding "
            "windows open"
        ),
    ] = 60_000
    alignment_ms: Annotated[
        Milliseconds,
        Meta(description="an input so far ahead of the slowest in event time is paused until that catches up"),
    ] = 2 * DAY_MS
    flush_interval_ms: Annotated[
        int, Meta(ge=10, description="how often state, offsets and outputs are made durable")
    ] = 1_000
    guarantee: Annotated[
        Literal["exactly_once", "at_least_once"],
        Meta(
            description="`exactly_once`: outputs, state and offsets are one Kafka transaction; `at_least_once`: "
            "outputs are seen at once, and after a crash may repeat with the same `id`"
        ),
    ] = "exactly_once"
    changelog: Annotated[
        Literal["on", "off"],
        Meta(
            description="whether state is also kept in Kafka, where it survives the machine; `off` only with "
            "`at_least_once`: then a lost disk means reading the inputs again"
        ),
    ] = "on"
    lost_offsets: Annotated[
        Literal["fail", "earliest", "latest"],
        Meta(description="what to do when retention has deleted input records that were not read yet"),
    ] = "fail"
    max_batch_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            le=1 << 30,
            description="how much a record batch of an input may decompress to; a larger one is not read, and becomes "
            "one dead letter that names its offsets",
        ),
    ] = 32 << 20
    misplaced_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of an input's latest 1,000 records on partitions where their SKU does not belong, "
            "beyond which the worker stops instead of burying the topic; `1`: never, all become dead letters",
        ),
    ] = 0.25
    dormant_after_ms: Annotated[
        Milliseconds,
        Meta(
            description="event time after which a SKU without any event is forgotten, with all its state; or after "
            "10,000 windows, if that is sooner"
        ),
    ] = DORMANT_AFTER_MS
    snapshot_dir: Annotated[
        str,
        Meta(
            description="where copies of the state are kept, a directory or an fsspec URL (`s3://...` with s3fs "
            "installed): a new machine then reads only what the changelog has since; empty: nowhere"
        ),
    ] = ""
    snapshot_interval_ms: Annotated[
        int, Meta(ge=1_000, description="how often each partition's state is copied to `SKUTREND_SNAPSHOT_DIR`")
    ] = 900_000
    silent_windows: Annotated[
        Literal["publish", "skip"], Meta(description="whether windows without events make a `windows` record")
    ] = "publish"
    currency: Annotated[
        str,
        Meta(
            pattern=r"^([A-Z]{3})?\Z",
            description="the shop's currency (ISO 4217): money in another one is converted by `SKUTREND_RATES`, or its "
            "record is a dead letter; empty: that of the first record seen",
        ),
    ] = ""
    rates: Annotated[
        str,
        Meta(
            description="file of exchange rates, TOML with a table `[rates]`: `EUR = 0.86` says that one EUR is worth "
            "0.86 of the shop's currency; empty: no rates"
        ),
    ] = ""
    personal: Annotated[
        Literal["pseudonym", "remove", "keep"],
        Meta(
            description="what becomes of `customer_id` in dead letters and late events: `pseudonym`: a keyed hash, or "
            "null without a key; `remove`: null; `keep`: as it came"
        ),
    ] = "pseudonym"
    personal_key_file: Annotated[
        str,
        Meta(
            description="file with the key of the pseudonyms, at least 16 bytes, the same on all workers; empty: none"
        ),
    ] = ""
    alert_min_impact: Annotated[
        float, Meta(ge=0, description="money at stake, in the shop's currency, below which nothing is alerted")
    ] = 50.0
    http_host: Annotated[Text, Meta(description="address of /metrics, /livez and /readyz")] = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from outside
    http_port: Annotated[int, Meta(ge=0, le=65_535, description="port of /metrics, /livez and /readyz; 0: none")] = 8080
    stalled_after_ms: Annotated[
        Milliseconds, Meta(description="/livez fails when lag has stood without progress for so long")
    ] = 300_000
    session_timeout_ms: Annotated[
        int, Meta(ge=6_000, description="after so long without a sign of life a worker's partitions go to the others")
    ] = 10_000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severity that is logged")
    ] = "info"
    kafka: dict[str, str] = {}
    schema_registry: dict[str, str] = {}

    @property
    def grid(self) -> WindowGrid:
        """The windows these settings ask for (`BadSetting` when they do not tile the calendar)."""
        return WindowGrid(
            window_ms=self.window_ms,
            timezone=self.timezone,
            offset_ms=self.window_offset_ms,
            day_start=self.day_start,
            week_start=self.week_start,
            country=self.country,
            closing_days=closing_days.read(Path(self.closing_days)) if self.closing_days else frozenset(),
            horizon=self.horizon or None,
        )

    @property
    def money(self) -> ShopCurrency:
        """What these settings say of the shop's currency; reads the file of rates (`BadSetting`)."""
        return ShopCurrency(self.currency, read_rates(Path(self.rates)) if self.rates else {})

    @property
    def masker(self) -> Masker:
        """What these settings make of personal data in letters; reads the key file (`BadSetting`)."""
        return masker(self.personal, self.personal_key_file)

    @property
    def client(self) -> dict[str, Any]:
        """Properties with which librdkafka reaches the brokers."""
        return {"bootstrap.servers": self.brokers, **self.kafka}

    @property
    def group_id(self) -> str:
        """Name of the consumer group in Kafka: the prefixes are in it, for its members must read the same topics."""
        return self.output(self.group)

    @property
    def group_dir(self) -> Path:
        """Directory of the group's partitions."""
        return Path(self.state_dir) / self.group_id

    @property
    def ingest_dir(self) -> Path:
        """Directory of what `ingest` knows of upsert topics."""
        return Path(self.state_dir) / f"{self.group_id}-ingest"

    @property
    def changelog_topic(self) -> str:
        """Where the state of this group is kept in Kafka."""
        return self.output(f"skutrend-{self.group}-changelog")

    def partition_dir(self, number: int) -> Path:
        """Directory of one partition's state."""
        return self.group_dir / f"partition-{number}"

    def transactional_id(self, what: object) -> str:
        """Name what only one producer of the group may hold at a time. what: a partition number, or a purpose."""
        return f"{self.group_id}-{what}"

    def topic(self, name: str) -> str:
        """Full name of an input topic."""
        return f"{self.topic_prefix}{name}"

    def output(self, name: str) -> str:
        """Full name of a topic that is written, or of anything else that is this worker's own."""
        return f"{self.output_prefix}{self.topic_prefix}{name}"


def load(config: Path | None = None, environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings. Unknown names, wrong types and impossible values are a `BadSetting` that names the setting."""
    env = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    path = config or (Path(env[PREFIX + "CONFIG"]) if env.get(PREFIX + "CONFIG") else None)
    if path is not None:
        values |= _from_toml(path)
    values |= _from_environment(env, {name: values.get(name, {}) for name in _TABLES.values()})
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        msg = _sentence(str(error), values)
        raise BadSetting(msg) from error
    check_country(settings.country)
    _ = settings.grid, settings.money, settings.masker
    _check_names(settings)
    _check_shadow(settings)
    unusable = sorted(_NO_TEXT.intersection(settings.kafka))
    if unusable:
        msg = f"the Kafka property {unusable[0]!r} cannot be set by a text; take it out of [kafka] or the environment"
        raise BadSetting(msg)
    queue.check(settings.kafka)
    kafka = security.normalised(settings.kafka)
    protocol = kafka.get("security.protocol", "PLAINTEXT")
    brokers = addresses.normalised(settings.brokers, protocol=protocol)
    settings = msgspec.structs.replace(settings, brokers=brokers, kafka=kafka)
    if settings.guarantee == "exactly_once" and settings.changelog == "off":
        msg = (
            "SKUTREND_GUARANTEE is exactly_once, which needs the changelog: set SKUTREND_CHANGELOG=on, or at_least_once"
        )
        raise BadSetting(msg)
    return settings


def _check_shadow(settings: Settings) -> None:
    """Refuse a shadow that has nothing beside it, or no place to be promoted to."""
    if settings.shadow_bundle and settings.bundle == "none":
        msg = "SKUTREND_SHADOW_BUNDLE is set while SKUTREND_BUNDLE is none: there is nothing to compare it with"
        raise BadSetting(msg)
    if settings.shadow_bundle and settings.shadow_promotion == "automatic" and settings.bundle == "shipped":
        msg = (
            "SKUTREND_SHADOW_PROMOTION is automatic while SKUTREND_BUNDLE is shipped: copy that to a directory of your "
            "own, which a better bundle can be put into"
        )
        raise BadSetting(msg)


def _check_names(settings: Settings) -> None:
    """Refuse what cannot be part of a topic, a group, a transactional id or a directory, before anything is made."""
    for name in ("group", "instance", "topic_prefix", "output_prefix"):
        naming.check_part(PREFIX + name.upper(), getattr(settings, name))
    naming.check_lengths(f"{PREFIX}INSTANCE", [settings.instance])
    prefixes = f"{PREFIX}OUTPUT_PREFIX and {PREFIX}TOPIC_PREFIX" if settings.output_prefix else f"{PREFIX}TOPIC_PREFIX"
    naming.check_lengths(prefixes, [settings.output(_LONGEST_TOPIC)])
    naming.check_lengths(f"{prefixes} and {PREFIX}GROUP", [settings.changelog_topic])


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        msg = f"cannot read the settings file {path}: {error.strerror}"
        raise BadSetting(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"the settings file {path} is not TOML: {error}"
        raise BadSetting(msg) from error
    for table in _TABLES.values():
        if not isinstance(values.get(table, {}), dict):
            msg = f"`{table}` in the settings file {path} must be a table of properties, found {values[table]!r}"
            raise BadSetting(msg)
        if table in values:
            values[table] = {str(name): str(value) for name, value in _flat(values[table])}
    return values


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Undo TOML's reading of `a.b = 1` as nested tables."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _from_environment(env: Mapping[str, str], given: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Read the environment. given: the tables of properties of a settings file, which it wins over."""
    names = set(Settings.__struct_fields__) - {*_TABLES.values()}
    values: dict[str, Any] = {}
    tables = {name: dict(table) for name, table in given.items()}
    links: defaultdict[str, list[str]] = defaultdict(list)
    for variable, value in env.items():
        if not variable.startswith(PREFIX) or variable == PREFIX + "CONFIG":
            continue
        name = variable.removeprefix(PREFIX).lower()
        service = service_links.service_of(variable, value)
        table = next((each for each in _TABLES if variable.startswith(each)), None)
        if service is not None:
            links[service].append(variable)
        elif table is not None:
            tables[_TABLES[table]][variable.removeprefix(table).lower().replace("_", ".")] = value
        elif name in names:
            values[name] = value
        else:  # not refused: whoever runs the worker may have uses of his own for the prefix
            log.warning("there is no setting %s, it is ignored; `skutrend settings` lists them all", variable)
    for service, variables in links.items():
        log.warning("%s", service_links.skipped(service, variables))
    return values | {name: table for name, table in tables.items() if table}


def _sentence(error: str, values: Mapping[str, Any]) -> str:
    """Turn msgspec's words into the setting's name, its value and what was expected."""
    what, _, where = error.partition(" - at `$.")
    name = where.rstrip("`").split("[")[0]
    if not name:
        return f"{error}; `skutrend settings` lists all settings"
    return (
        f"{PREFIX}{name.upper()} is {values.get(name)!r}: {what[0].lower()}{what[1:]}; `skutrend settings` explains it"
    )


@dataclass(frozen=True)
class Described:
    """One setting for `skutrend settings` and the README's table."""

    name: str
    variable: str
    value: object
    default: object
    unit: str
    meaning: str


def describe(settings: Settings) -> list[Described]:
    """List every setting with its value, default, unit and meaning."""
    described = []
    for item in msgspec.structs.fields(Settings):
        if item.name in _TABLES.values():
            continue
        meaning = next(m.description for m in _metas(item.type) if m.description)
        unit = "ms" if item.name.endswith("_ms") else "money" if item.name.endswith("impact") else ""
        value = getattr(settings, item.name)
        described.append(Described(item.name, PREFIX + item.name.upper(), value, item.default, unit, meaning))
    return described


def _metas(annotation: object) -> Iterator[Meta]:
    """Find the msgspec metadata of an annotation, outermost first."""
    for part in getattr(annotation, "__metadata__", ()):
        if isinstance(part, Meta):
            yield part
    for part in get_args(annotation)[:1]:
        yield from _metas(part)

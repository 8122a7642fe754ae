"""The `skutrend` command. Exit 0 on success, 2 on misuse, 1 on failure with one sentence on stderr."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from schemas.errors import SkutrendError
from streams import cli_intake
from streams import settings as settings_module
from streams.cli_intake import FILE, bus_mapping, bus_options, event_files, event_options
from streams.settings import Settings


class _Group(click.Group):
    """A command group that turns our own errors into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SkutrendError as error:
            click.echo(f"skutrend: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="skutrend")
@click.option("--config", type=FILE, help="TOML file with settings; the environment (SKUTREND_...) wins over it.")
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Follow the demand of every SKU: Kafka events in; forecasts with bands and explained alerts out.

    Start with `skutrend demo`. To run beside your own Kafka: `skutrend topics create`, then `skutrend worker`.
    """
    ctx.obj = lambda: settings_module.load(config)


def _settings(ctx: click.Context) -> Settings:
    loaded: Settings = ctx.obj()
    return loaded


def _shop_days(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say when the shop's days start; see `_days_of`."""
    for option in (
        click.option("--day-start", help="Shop-local time, HH:MM, at which days start.  [default: SKUTREND_DAY_START]"),
        click.option("--timezone", help="IANA time zone of the shop's days.  [default: SKUTREND_TIMEZONE]"),
    ):
        command = option(command)
    return command


def _days_of(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Make one `grid` of the options, of days where they name no length; settings say what they leave open."""
    from features.cadence import DAY_MS, HORIZON  # noqa: PLC0415
    from features.grid import WindowGrid  # noqa: PLC0415

    s = _settings(ctx)
    days: dict[str, Any] = {"timezone": s.timezone, "day_start": s.day_start}
    given = {name: value for name in days if (value := options.pop(name)) is not None}
    days |= given
    window_ms = options.pop("window_ms", DAY_MS)
    if window_ms < DAY_MS and "day_start" not in given:
        days.pop("day_start")  # those of the worker's settings are for its own windows
    known: dict[str, Any] = {"country": s.country, "closing_days": s.grid.closing_days}
    if window_ms < DAY_MS:  # of days there is one horizon
        known["horizon"] = options.pop("steps", None) or s.horizon or None
    elif options.pop("steps", None) not in {None, HORIZON}:
        msg = f"of windows of a day and longer {HORIZON} are forecast; leave --horizon out"
        raise click.UsageError(msg)
    return options | {"grid": WindowGrid(window_ms=window_ms, **known, **days)}


@cli.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("skutrend-demo"),
    show_default=True,
    help="Where the demo leaves its state and outputs.",
)
def demo(out: Path) -> None:
    """Replay real sales through the whole service on an embedded broker, and show what it says."""
    from streams.demo.demo import run  # noqa: PLC0415 - commands load what they need only

    run(out)


@cli.command()
@click.pass_context
def worker(ctx: click.Context) -> None:
    """Join the group and serve until SIGTERM; then flush and leave with exit code 0."""
    # until the app has handlers of its own: process 1 of a container would not even die of it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from streams.commands.serve import serve  # noqa: PLC0415

    serve(_settings(ctx))


@cli.command()
@event_options
@click.option(
    "--speed", default="max", show_default=True, help="`max`, or event time per wall time: 3600 is an hour a second."
)
@click.option(
    "--from-row",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="First event to send, after a replay that broke.",
)
@click.pass_context
def replay(ctx: click.Context, /, speed: str, from_row: int, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Publish event files to the input topics, in event-time order, keyed and partitioned by SKU.

    Exports of other systems are made into such first, as `skutrend convert` does.
    """
    from streams.commands.replay import replay_files  # noqa: PLC0415

    with event_files(options) as files:
        replay_files(_settings(ctx), files, speed, from_row=from_row)


@cli.command()
@event_options
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
    help="Shop-local start of the first window that the live topics tell.  [default: found out from both]",
)
@click.pass_context
def seed(ctx: click.Context, /, until: datetime | None, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Put history behind a live start: the state that the workers would have, had they read these files.

    Before the first start of the workers, with their settings. The files go through the same fold as live events, and
    end where the live topics begin, so that every event counts once. What the last closed window says is published:
    forecasts are there before the first worker is.
    """
    from streams.commands.seed import seed as run  # noqa: PLC0415

    with event_files(options) as files:
        run(_settings(ctx), files, until=until)


cli.add_command(cli_intake.convert)
cli.add_command(cli_intake.ingest)
cli.add_command(cli_intake.mapping)


@cli.group()
def topics() -> None:
    """Create the topics, or say what is wrong with them."""


@topics.command("create")
@click.option("--partitions", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--replication", type=click.IntRange(1), default=None, help="Copies of each partition.  [default: the cluster's]"
)
@click.pass_context
def topics_create(ctx: click.Context, partitions: int, replication: int | None) -> None:
    """Create the topics that are missing."""
    from streams.kafka.topics import create  # noqa: PLC0415

    s = _settings(ctx)
    made = create(
        s.client,
        partitions=partitions,
        replication=replication,
        prefix=s.topic_prefix,
        output_prefix=s.output_prefix,
        shadow=bool(s.shadow_bundle),
    )
    for topic, is_new in made:
        click.echo(f"{topic}: {'created' if is_new else 'already there'}")


@topics.command("check")
@click.pass_context
def topics_check(ctx: click.Context) -> None:
    """Say what is wrong with the topics; exit 1 if anything is."""
    from streams.kafka.reach import consumer_trouble  # noqa: PLC0415
    from streams.kafka.topics import check  # noqa: PLC0415

    s = _settings(ctx)
    problems = check(s.client, prefix=s.topic_prefix, output_prefix=s.output_prefix, shadow=bool(s.shadow_bundle))
    problems += consumer_trouble(s.brokers, s.kafka)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(1)
    click.echo("all topics are as they should be")


@cli.command()
@event_options
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory for the bundle."
)
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), help="Learn only from what happened before this local date."
)
@_shop_days
@click.option(
    "--window-ms",
    type=click.IntRange(1),
    default=86_400_000,
    show_default=True,
    help="Window length that the bundle is for, as SKUTREND_WINDOW_MS.",
)
@click.option(
    "--horizon",
    "steps",
    type=click.IntRange(14, 168),
    help="Windows that it is to forecast, of those below a day (default: SKUTREND_HORIZON, else 24).",
)
@click.option(
    "--iterations", type=click.IntRange(1), default=None, help="Training iterations, at most (default: the recipe's)."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--any-shop", is_flag=True, help="Learn from remixed and synthetic shops, too: a bundle for shops it never saw."
)
@click.pass_context
def train(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Train on event files, export to ONNX, check, and write a bundle. Needs the `train` extra."""
    from streams.commands.train import train_bundle  # noqa: PLC0415

    with event_files(options) as files:
        train_bundle(files, money=_settings(ctx).money, **_days_of(ctx, options))


@cli.command()
@event_options
@click.option(
    "--bundle", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Bundle (default: the shipped one)."
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Parquet file to write.")
@click.option(
    "--first-origin", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Local date of the first forecast window."
)
@click.option("--every", type=click.IntRange(1), required=True, help="Windows between origins.")
@click.option("--count", type=click.IntRange(1), required=True, help="Number of origins.")
@click.option("--horizon", type=click.IntRange(1, 168), help="Windows to forecast; default: as many as are.")
@click.option(
    "--references",
    type=click.Choice(["autoets", "lightgbm"]),
    multiple=True,
    help="Hold these beside ours, too (repeat it for both). Needs the `references` extra, and minutes.",
)
@click.option(
    "--window-ms",
    "length_ms",
    type=click.IntRange(1),
    help="Window length, as SKUTREND_WINDOW_MS (default: the bundle's; of others there are plain forecasts only).",
)
@click.option("--scores", type=click.Path(dir_okay=False, path_type=Path), help="JSON file for every measure.")
@_shop_days
@click.pass_context
def backtest(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401
    """Forecast at rolling origins with the code that serves, offline."""
    from streams.commands.backtest import run  # noqa: PLC0415

    window_ms = options.pop("length_ms")
    if window_ms is not None:
        options["window_ms"] = window_ms
    with event_files(options) as files:
        run(files, money=_settings(ctx).money, window_ms=window_ms, **_days_of(ctx, options))


@cli.group()
def bundle() -> None:
    """Look at a model bundle."""


@bundle.command("check")
@click.argument("directory", type=click.Path(path_type=Path), required=False)
def bundle_check(directory: Path | None) -> None:
    """Say what is in a bundle (default: the shipped one) and whether this machine can serve it."""
    from streams.commands.serve import check_bundle  # noqa: PLC0415

    for line in check_bundle(directory):
        click.echo(line)


@cli.group()
def state() -> None:
    """Look at the stored state of this machine's worker (while it is stopped)."""


@state.command("show")
@click.argument("sku")
@click.pass_context
def state_show(ctx: click.Context, sku: str) -> None:
    """Show what is known about a SKU."""
    from streams.commands.state import show  # noqa: PLC0415

    for line in show(_settings(ctx), sku):
        click.echo(line)


@state.command("verify")
@click.option("--changelog", is_flag=True, help="Also compare every stored record with the changelog in Kafka.")
@click.pass_context
def state_verify(ctx: click.Context, *, changelog: bool) -> None:
    """Say whether the stored state is whole; exit 1 if not."""
    from streams.commands.state import verify  # noqa: PLC0415

    for line in verify(_settings(ctx), changelog=changelog):
        click.echo(line)


@cli.group("dead-letters")
def dead_letters() -> None:
    """Look at the records that could not be used, and send them again once mended."""


@dead_letters.command("list")
@click.option("--code", help="Only letters of this code, e.g. `not_json`.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Show the newest so many. Unless it is given, --out writes all.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the letters to this file, one JSON object a line, for an editor and `dead-letters replay`.",
)
@click.pass_context
def dead_letters_list(ctx: click.Context, code: str | None, limit: int, out: Path | None) -> None:
    """Show the dead letters, newest last, and how many there are of each code."""
    from streams.dead_letters.listing import list_letters  # noqa: PLC0415

    is_limit_given = ctx.get_parameter_source("limit") is not ParameterSource.DEFAULT
    for line in list_letters(_settings(ctx), code=code, limit=limit, out=out, all_out=not is_limit_given):
        click.echo(line)


@dead_letters.command("replay")
@click.argument("file", type=FILE)
@click.option("--force", is_flag=True, help="Send also letters whose value is still unusable.")
@bus_options
@click.pass_context
def dead_letters_replay(ctx: click.Context, /, file: Path, *, force: bool, **options: Any) -> None:  # noqa: ANN401
    """Send the mended letters of FILE (of `dead-letters list --out`) to the topics they came from, each once.

    Letters of a bus's topics (of `skutrend ingest`) need its mapping: they go to the input topics, as events.

    Letters that an earlier run has sent are skipped, however that run ended: events and markers are one transaction. An
    event whose window has closed meanwhile becomes a late event.
    """
    from streams.dead_letters.resending import replay_letters  # noqa: PLC0415

    done = replay_letters(_settings(ctx), file, force=force, bus=bus_mapping(**options))
    click.echo(f"{done.sent:,} sent, {done.skipped:,} skipped (sent before)")


@cli.command("settings")
@click.pass_context
def show_settings(ctx: click.Context) -> None:
    """List every setting with its value, unit, default and meaning."""
    described = settings_module.describe(_settings(ctx))
    click.echo("From the environment, or lower-case without SKUTREND_ from a --config TOML file.\n")
    for item in described:
        unit = f" {item.unit}" if item.unit else ""
        default = "default" if item.value == item.default else f"default {item.default}"
        shown = item.value if item.value != "" else "(empty)"
        click.echo(f"{item.variable} = {shown}{unit}  ({default})\n    {item.meaning}")
    click.echo(f"{settings_module.KAFKA_PREFIX}...\n    any librdkafka property, e.g. SECURITY_PROTOCOL, SASL_USERNAME")
    click.echo(
        f"{settings_module.REGISTRY_PREFIX}...\n    any property of confluent-kafka's SchemaRegistryClient, e.g. URL, "
        "BASIC_AUTH_USER_INFO"
    )


def main() -> None:
    """Run the command line."""
    cli(prog_name="skutrend")

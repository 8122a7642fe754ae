"""Commands that read other systems' records, and the options by which other commands take event files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.inputs import INPUT_NAMES

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from schemas.inputs import InputName
    from streams.intake.convert import Local
    from streams.intake.mapping import MappingFile

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
Command = Callable[..., None]

_ZONE = click.option("--zone", default="", help="IANA time zone of times that tell none, e.g. Europe/London.")
_CURRENCY = click.option("--currency", default="", help="Currency of records that tell none, e.g. EUR.")
_MAPPED = (
    click.option("--preset", help="The mapping of that name (`skutrend mapping list`), or of that family: `shopify`."),
    click.option("--mapping", type=FILE, help="TOML file that says how records become events."),
    _ZONE,
    _CURRENCY,
    click.option("--decimal", type=click.Choice([".", ","]), help="Decimal sign of numbers.  [default: the mapping's]"),
    click.option(
        "--max-errors",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        help="Share of events that may be unusable.",
    ),
    click.option("--yes", is_flag=True, help="Do not ask whether a file is what it looks like."),
)


def mapped(command: Command) -> Command:
    """Add the options that say how exports are to be read."""
    for option in reversed(_MAPPED):
        command = option(command)
    return command


def event_options(command: Command) -> Command:
    """Add the options that name event files, or exports to be made into such."""
    for option in (
        mapped,
        click.option("--price-changes", type=FILE, help="Price changes: Parquet, CSV or JSON lines."),
        click.option("--clicks", type=FILE, help="Clicks: Parquet, CSV or JSON lines."),
        click.option("--orders", type=FILE, help="Order lines: Parquet, CSV or JSON lines."),
        click.argument("exports", nargs=-1, type=FILE),
    ):
        command = option(command)
    return command


def event_files(options: dict[str, Any]) -> AbstractContextManager[dict[InputName, Path]]:
    """Take the options of `event_options` out and give the event files that they name."""
    from streams.commands import intake  # noqa: PLC0415 - commands load what they need only

    named = dict(zip(INPUT_NAMES, (options.pop(name) for name in ("orders", "clicks", "price_changes")), strict=True))
    given = {kind: path for kind, path in named.items() if path is not None}
    exports, wanted = options.pop("exports"), _wanted(options)
    if not exports and "orders" not in given:
        msg = "Missing option '--orders', or an export as an argument."
        raise click.UsageError(msg)
    return intake.event_files(given, exports, wanted, _confirm)


def _wanted(options: dict[str, Any], kind: InputName | None = None) -> Any:  # noqa: ANN401 - commands.intake.Wanted
    from streams.commands.intake import Wanted  # noqa: PLC0415
    from streams.intake.convert import Local  # noqa: PLC0415

    if options["preset"] and options["mapping"]:
        msg = "--preset and --mapping exclude each other."
        raise click.UsageError(msg)
    return Wanted(
        preset=options.pop("preset"),
        mapping=options.pop("mapping"),
        kind=kind,
        local=Local(options.pop("zone"), options.pop("currency")),
        decimal=options.pop("decimal"),
        max_errors=options.pop("max_errors"),
        is_sure=options.pop("yes"),
    )


def _confirm(question: str) -> bool:
    return sys.stdin.isatty() and click.confirm(f"{question}. Go on?", default=True)


@click.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the event files, which are Parquet.",
)
@click.option("--input", "kind", type=click.Choice(INPUT_NAMES), help="What the files are of.  [default: found out]")
@mapped
def convert(files: tuple[Path, ...], out: Path, kind: InputName | None, **options: Any) -> None:  # noqa: ANN401
    """Make event files of other systems' exports: Shopify, WooCommerce, plain CSV and more.

    Says how much became events, what was left out and why, and what looks wrong. A file of a known shape needs neither
    --preset nor --mapping.
    """
    from streams.commands.intake import convert_files  # noqa: PLC0415

    convert_files(files, out, _wanted(options, kind), _confirm)


@click.group()
def mapping() -> None:
    """Say how other systems' records become events: the presets, and mappings of your own."""


@mapping.command("list")
def mapping_list() -> None:
    """List the mappings that come with skutrend."""
    from streams.commands.intake import list_mappings  # noqa: PLC0415

    list_mappings()


@mapping.command("show")
@click.argument("preset")
def mapping_show(preset: str) -> None:
    """Print a preset's file, to start a mapping of your own from."""
    from streams.commands.intake import show_mapping  # noqa: PLC0415

    click.echo(show_mapping(preset), nl=False)


@mapping.command("check")
@click.argument("name", metavar="FILE|PRESET")
@click.option("--sample", type=FILE, help="Data to try it on.")
@click.option("--input", "kind", type=click.Choice(INPUT_NAMES), help="What the sample is of.  [default: found out]")
@_ZONE
@_CURRENCY
def mapping_check(name: str, sample: Path | None, kind: InputName | None, zone: str, currency: str) -> None:
    """Check a mapping; with a sample, show the first ten events it makes, and what it leaves out and why."""
    from streams.commands.intake import Wanted, check_mapping  # noqa: PLC0415
    from streams.intake.convert import Local  # noqa: PLC0415

    check_mapping(name, sample, Wanted(kind=kind, local=Local(zone, currency)))


_OF_THE_BUS = (
    click.option(
        "--preset", help="The mapping of that name (`skutrend mapping list`); its topics are given by --topic."
    ),
    click.option("--mapping", "mapping_file", type=FILE, help="TOML file that says how records become events."),
    click.option("--topic", "topics", multiple=True, help="Topic of the bus, for the mapping's own; may be repeated."),
    _ZONE,
    _CURRENCY,
)


def bus_options(command: Command) -> Command:
    """Add the options that say how messages of a bus are to be read."""
    for option in reversed(_OF_THE_BUS):
        command = option(command)
    return command


def bus_mapping(
    preset: str | None, mapping_file: Path | None, topics: tuple[str, ...], zone: str, currency: str
) -> tuple[MappingFile, Local] | None:
    """Read what these options name; None where they name no mapping."""
    from streams.intake import mapping as mappings  # noqa: PLC0415
    from streams.intake.convert import Local  # noqa: PLC0415

    if preset is not None and mapping_file is not None:
        msg = "Give --preset or --mapping, not both."
        raise click.UsageError(msg)
    if preset is None and mapping_file is None:
        return None
    found = mappings.named(preset) if preset is not None else mappings.load(mapping_file or Path())
    return mappings.reading(found, topics) if topics else found, Local(zone, currency)


@click.command()
@bus_options
@click.pass_context
def ingest(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Make events of a bus's topics, exactly once, until SIGTERM: run beside the worker, as often as needed.

    Reads orders as the bus has them (nested lines, other keys, envelopes), and writes the input topics, keyed and
    partitioned by SKU. What cannot be used goes to the dead letters.
    """
    from streams.commands.ingest import ingest as run  # noqa: PLC0415

    found = bus_mapping(**options)
    if found is None:
        msg = "Give --preset or --mapping."
        raise click.UsageError(msg)
    run(ctx.obj(), *found)

"""The meta record of a partition: what everything stored beside it has absorbed, and whether it may be used here.

It has a format number and the signature of the row layout: rows are only read by a build that lays them out in the same
way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from features.festivals import Festivals, Seen
from features.known_days import Festival
from features.watermark import NEVER_MS
from inference.live_state import LiveState
from schemas.errors import StateCorrupt, StateMismatch
from schemas.inputs import INPUT_NAMES
from schemas.refusals import DECODE_ERRORS
from streams.state.rows import SKU_ROW

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from features.sku_state import SkuState

ANEW: Final = "a new SKUTREND_GROUP, which computes everything anew from the input topics"
FORMAT: Final = 4


class _Stated(msgspec.Struct):
    """What every format has in common: that it says which one it is."""

    format: int


class Counts(msgspec.Struct):
    """What became of the records of one input: `records = folded + duplicate + late + rejected`, always."""

    records: int = 0
    folded: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0

    @property
    def balance(self) -> int:
        """Records unaccounted for; anything but 0 is a bug."""
        return self.records - self.folded - self.duplicate - self.late - self.rejected


class FestivalsState(msgspec.Struct):
    """`features.festivals.Festivals`, as it is stored; seen: by name, (day, times, mean)."""

    seen: dict[str, list[tuple[int, int, float]]]
    bias: float
    square: float


class SeasonState(msgspec.Struct):
    """`season.Season`, as it is stored."""

    lines: list[float]
    units: list[float]
    visits: list[int]
    missed: list[int]
    fast: float
    slow: float
    open_windows: int
    ratio: list[float]
    level: float
    weight: float
    # None: stored by a version that did not keep it
    slower: float | None = None
    festivals: FestivalsState | None = None


class ShadowState(msgspec.Struct):
    """The bundle beside the one that serves, `Bundle.id`, and how it compares: see `ShadowScore.rows`.

    first_open: number of the oldest window that was not closed when the state of the SKUs in it was written.
    """

    model: str
    first_open: int
    windows: list[tuple[int, float, float, float]]


class Meta(msgspec.Struct, omit_defaults=True):
    """The record that makes a flush whole: what the rows beside it have absorbed.

    offsets: per input, the next offset to read; first_open: number of the oldest window not closed; newest_ms: per
    input, its newest event time; windows_closed: also those without any live SKU, which are closed many at a time;
    skus: how many SKU rows there are beside it; topic_ids: per input, the id of the topic that its offset is of, as far
    as brokers gave one. model: whose state is beside the SKU rows, `Bundle.id` or "none"; live: how good its forecasts
    were; None where that is not known; blend: how its experts are weighted and calibrated. corrected_from: window
    before which late events change nothing, because a history has told its events under other ids. shadow: what is
    compared with that model; None: nothing.
    """

    format: int
    layout: str
    grid: str
    sequence: int
    offsets: dict[str, int]
    first_open: int | None
    watermark_ms: int
    newest_ms: list[int]
    season: SeasonState
    prior_nu: float
    currency: str
    counts: dict[str, Counts]
    model: str
    expected_open: bool
    windows_closed: int
    skus: int
    topic_ids: dict[str, str] = {}
    live: LiveState | None = None
    blend: bytes = b""
    corrected_from: int | None = None
    shadow: ShadowState | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Name the models whose state is stored, ascending as in `keys`: that which serves, and its shadow."""
        return tuple(sorted({self.model} | ({self.shadow.model} if self.shadow else set())))


def season_state(sku_state: SkuState) -> SeasonState:
    """Write the partition's season down."""
    s = sku_state.season
    return SeasonState(
        lines=s.lines.tolist(),
        units=s.units.tolist(),
        visits=s.visits.tolist(),
        missed=s.missed.tolist(),
        fast=s.fast,
        slow=s.slow,
        open_windows=s.open_windows,
        ratio=s.ratio.tolist(),
        level=s.level,
        weight=s.weight,
        slower=s.slower,
        festivals=_festivals_state(s.festivals),
    )


def _festivals_state(festivals: Festivals) -> FestivalsState:
    seen: dict[str, list[tuple[int, int, float]]] = {}
    for (name, day), what in festivals.seen.items():
        seen.setdefault(name, []).append((day, *what))
    return FestivalsState(seen, festivals.bias, festivals.square)


def restore_season(sku_state: SkuState, stored: SeasonState) -> None:
    """Put a stored season back."""
    s = sku_state.season
    # of windows below a day earlier versions had one day for all
    times = s.length // len(stored.lines) if stored.lines and s.length % len(stored.lines) == 0 else 1
    s.lines, s.units = np.tile(stored.lines, times), np.tile(stored.units, times)
    s.visits, s.missed = (np.tile(np.array(each, np.int64), times) for each in (stored.visits, stored.missed))
    s.fast, s.slow, s.open_windows = stored.fast, stored.slow, stored.open_windows
    s.ratio, s.level, s.weight = np.tile(stored.ratio, times), stored.level, stored.weight
    s.slower = stored.slow if stored.slower is None else stored.slower
    if (known := stored.festivals) is not None:
        seen = {
            Festival(name, day): Seen(times, mean) for name, days in known.seen.items() for day, times, mean in days
        }
        s.festivals = Festivals(seen, known.bias, known.square)


def fresh_meta(sku_state: SkuState, *, model: str) -> Meta:
    """Describe a partition that has absorbed nothing."""
    return Meta(
        format=FORMAT,
        layout=SKU_ROW.signature,
        grid=sku_state.grid.signature,
        sequence=0,
        offsets={},
        first_open=None,
        watermark_ms=NEVER_MS,
        newest_ms=[NEVER_MS] * len(INPUT_NAMES),
        season=season_state(sku_state),
        prior_nu=sku_state.prior_nu,
        currency="",
        counts={name: Counts() for name in INPUT_NAMES},
        model=model,
        expected_open=False,
        windows_closed=0,
        skus=0,
    )


# Made at import and not when they are first needed: partitions are restored in threads, and msgspec crashes the process
# where two of them look at a type for the first time.
_DECODE_STATED = msgspec.msgpack.Decoder(_Stated).decode
_DECODE_META = msgspec.msgpack.Decoder(Meta).decode


def read_meta(raw: bytes, *, where: str) -> Meta:
    """Decode a stored meta record. Another format is a `StateMismatch`, bytes that are none are `StateCorrupt`.

    The format comes first: what another version wrote is not damaged, and must not be thrown away.
    """
    try:
        stated = _DECODE_STATED(raw).format
        if stated == FORMAT:
            return _DECODE_META(raw)
    except DECODE_ERRORS as error:
        msg = f"the meta record of {where} is unreadable ({error})"
        raise StateCorrupt(msg) from error
    age = "a later" if stated > FORMAT else "an earlier"
    msg = (
        f"{where} has format {stated}, which {age} version of skutrend wrote, this one reads format {FORMAT}: start "
        f"the version that wrote it, or go on with this one under {ANEW}; nothing was changed"
    )
    raise StateMismatch(msg)


def check(meta: Meta, sku_state: SkuState, *, where: str) -> None:
    """Refuse state that these settings would misread (`StateMismatch`); its format is known to be ours."""
    expected = (SKU_ROW.signature, sku_state.grid.signature)
    found = (meta.layout, meta.grid)
    for name, have, want in zip(("row layout", "windows"), found, expected, strict=True):
        if have != want:
            msg = (
                f"state in {where} has {name} {have!r}, this worker works with {want!r}; start it with the settings "
                f"and version that wrote it, or with these under {ANEW}; nothing was changed"
            )
            raise StateMismatch(msg)


def check_count(meta: Meta, found: int, *, where: str) -> None:
    """Refuse state that has lost SKU rows, or kept some that are long gone (`StateCorrupt`).

    The latter is what becomes of a disk that was away for longer than the changelog remembers what was deleted.
    """
    if found != meta.skus:
        msg = (
            f"the state in {where} has {found:,} SKUs, flush {meta.sequence} left {meta.skus:,}; "
            "delete that directory to rebuild it"
        )
        raise StateCorrupt(msg)


def check_model_count(meta: Meta, found: int, *, where: str) -> None:
    """Refuse state of `meta.model` that some SKU has not, or that has more than there are SKUs (`StateCorrupt`)."""
    if found != meta.skus:
        msg = (
            f"the state in {where} has {meta.skus:,} SKUs, of which {found:,} have their state in model {meta.model}; "
            "delete that directory to rebuild it"
        )
        raise StateCorrupt(msg)


def check_inputs(meta: Meta, topics: Collection[str], *, where: str) -> None:
    """Refuse state that was made of other topics than those that are read now (`StateMismatch`)."""
    if meta.offsets and meta.offsets.keys().isdisjoint(topics):
        msg = (
            f"the state in {where} was made of {', '.join(sorted(meta.offsets))}, this worker reads "
            f"{', '.join(topics)}; set SKUTREND_TOPIC_PREFIX as it was, or give this worker a SKUTREND_GROUP or "
            "SKUTREND_STATE_DIR of its own"
        )
        raise StateMismatch(msg)


def check_topics(meta: Meta, ids: Mapping[str, str], *, where: str) -> None:
    """Refuse to go on in a topic that is another one than that which our offset is of (`StateMismatch`).

    ids: of the topics as they are now; of those that are not in it nothing is known.
    """
    for topic, now in ids.items():
        before, offset = meta.topic_ids.get(topic), meta.offsets.get(topic, 0)
        if before is not None and before != now and offset > 0:
            msg = (
                f"topic {topic} was deleted and made again: {where} has absorbed it up to offset {offset} when its id "
                f"was {before}, now it is {now}; start with a new SKUTREND_GROUP to have it read from its beginning"
            )
            raise StateMismatch(msg)

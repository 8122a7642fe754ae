"""What is served: a blend of all that forecasts, weighted by how good each has turned out to be.

Every expert's forecasts of a few hundred SKUs, the panel, are kept until they come true. Their pinball losses beyond
those of the best, relative to what was sold, add up by horizon group, quantile level and velocity class, fading with a
half-life. An expert's weight is exp(-rate * loss), so that a bad one vanishes, and the blend is hardly ever worse than
the best. All begins with the plain forecast. Source: exponentially weighted aggregation (Cesa-Bianchi and Lugosi 2006,
ch. 2), with forgetting.

What the blend says is calibrated as it comes true: each level is multiplied by a factor, by group and class, which
moves up where too much lay above the level and down where too little did. Half of the move is made, which hardly costs
sharpness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest

from features import closing
from features.cadence import DAY, LEVELS, RING, SUM_WINDOWS, Cadence
from inference.arrays import as_float32
from inference.scoring import pinball
from inference.trend import Belief, chance, exceeds, odds
from schemas.errors import StateCorrupt
from schemas.refusals import DECODE_ERRORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from features.table import SkuTable
    from inference.ew_nb import Forecast

NET, PLAIN, FAST, WINDOWS, NAIVE = range(5)
EXPERTS: Final = ("lstm", "ewnb", "ewnb_fast", "window_quantiles", "seasonal_naive")
CLASSES: Final = ("slow", "medium", "fast")
CLASS_LIMITS: Final = (0.5, 3.0)
"""Units per open window from which a SKU is of the next class."""

PANEL: Final = 100
"""SKUs of a class, in a partition, whose forecasts are kept until they come true; about so many, by chance."""

RATE: Final = 20.0
HALF_LIFE: Final = 60.0  # windows
FLOOR: Final = 0.01
"""Weight from which an expert that was bad starts when it turns out to be good."""

_TAKES_PART: Final = 0.05
"""Experts of less weight are left out: each costs as much as any, and the blend is the same to a thousandth."""

CALIBRATION_RATE: Final = (0.01, 0.02)
"""Steps of the logarithm of a factor, of single windows and of sums, for a level that is never hit where it should."""

_MOST_OFFSET: Final = np.float32(np.log(3.0))
_KEEP: Final = np.float32(2 ** (-1 / HALF_LIFE))
_PRIOR: Final = np.log(np.array([1.0 if at == PLAIN else 0.005 for at in range(len(EXPERTS))], np.float32))
_LAST_STEPS: Final = (1, 5, 9, 14, 24, 72, 168)  # of a group
_TRIED_STEPS: Final = (1, 3, 7, 14, 24, 48, 168)  # the step that stands for its group, were its horizon long enough
_MOST_HELD_BACK: Final = 94  # windows until all groups have come true, beyond which the panel is smaller
SERVED: Final = len(EXPERTS)
"""Position of what was served in `Pending.quantiles`, behind the experts."""

_TAU: Final = np.asarray(LEVELS, np.float32)
_CAUTION: Final = 10.0  # of so many SKUs the losses count half
_ZERO: Final = np.float32(1e-3)  # below this a quantile is none
_MOST_HELD: Final = 1.0  # against an expert, of one window
_LEAST_VOLUME: Final = 0.05  # units per SKU and window by which losses are divided at least

_OF_GROUPS: Final = ("losses", "offsets", "hit", "seen")
_LEARNT: Final = (*_OF_GROUPS, "slopes", "shifts")
_SLOPE_RATE, _SHIFT_RATE = 0.03, 0.05
_MOST_SHIFT: Final = 1.5

COLUMNS: Final[tuple[tuple[str, str, tuple[int, ...], float], ...]] = (
    ("draw", "<f4", (), float("nan")),  # by the SKU's name, 0 to 1: it is of the panel where that is low enough
)
_Part = tuple[list[bytes], "NDArray[np.int8]", "NDArray[np.float32]"]  # as `Pending`, but of all groups at once
Due = tuple[int, int]
"""Number of the window at whose close forecasts have come true, and their group."""


class Groups(NamedTuple):
    """Steps and sums that have weights of their own. G of them.

    names: such as "1", "2-5", "sum7", "sum24-168". of: int (K + S,), the group of each step and sum. tried: int (G,),
    the step or sum that stands for its group. spans: windows until that has come true. horizon: K.
    """

    names: tuple[str, ...]
    of: NDArray[np.intp]
    tried: NDArray[np.intp]
    spans: tuple[int, ...]
    horizon: int

    def is_sum(self, group: int) -> bool:
        """Whether a group is one of sums."""
        return bool(self.tried[group] >= self.horizon)

    @property
    def panel(self) -> float:
        """SKUs of a class whose forecasts are kept: fewer where they have to be kept for long."""
        return PANEL * min(1.0, _MOST_HELD_BACK / sum(self.spans))

    def steps(self, name: str) -> slice:
        """Give the places of a group among steps and sums.

        >>> [(s.start, s.stop) for s in map(groups_of(DAY).steps, ("1", "10-14", "sum7"))]
        [(0, 1), (9, 14), (14, 15)]
        """
        at = np.flatnonzero(self.of == self.names.index(name))
        return slice(int(at[0]), int(at[-1]) + 1)


@lru_cache(maxsize=64)
def groups_of(cadence: Cadence) -> Groups:
    """Group the steps and sums of a cadence.

    >>> groups_of(DAY).names
    ('1', '2-5', '6-9', '10-14', 'sum7', 'sum14')
    """
    names: list[str] = []
    of: list[int] = []
    tried: list[int] = []
    first = 1
    for last, stands_for in zip(_LAST_STEPS, _TRIED_STEPS, strict=True):
        last = min(last, cadence.horizon)  # noqa: PLW2901 - the last group may be cut
        if first > last:
            break
        of += [len(names)] * (last + 1 - first)
        names.append(f"{first}" if first == last else f"{first}-{last}")
        tried.append(min(stands_for, last) - 1)
        first = last + 1
    spans = [step + 1 for step in tried]
    for at, span in enumerate(cadence.spans):
        if span > RING:  # what was sold in so many windows nobody keeps: it goes with the sum before
            of.append(len(names) - 1)
            names[-1] += f"-{span}"
            continue
        of.append(len(names))
        names.append(f"sum{span}")
        tried.append(cadence.horizon + at)
        spans.append(span)
    return Groups(tuple(names), np.array(of), np.array(tried), tuple(spans), cadence.horizon)


class Pending(NamedTuple):
    """Forecasts that have not come true yet: keys of n SKUs, their class int8 (n,), float32 (n, Q, experts + 1).

    The last ones are those that were served.
    """

    skus: list[bytes]
    classes: NDArray[np.int8]
    quantiles: NDArray[np.float32]

    def packed(self, model: str) -> bytes:
        """Write it down. model: whose forecasts are those of the net."""
        arrays = self.classes.tobytes(), self.quantiles.astype("<f4").tobytes()
        return msgspec.msgpack.encode((model, self.skus, *arrays))

    @classmethod
    def unpacked(cls, raw: bytes, model: str) -> Pending | None:
        """Read what `packed` wrote, None where another model's; anything else is `StateCorrupt`."""
        try:
            whose, skus, classes, quantiles = _DECODE_PENDING(raw)
            if family(whose) != family(model):
                return None
            shaped = np.frombuffer(quantiles, "<f4").reshape(len(skus), len(LEVELS), len(EXPERTS) + 1)
        except (*DECODE_ERRORS, ValueError) as error:
            msg = f"stored forecasts of the panel are unreadable ({error}); delete the state directory to rebuild it"
            raise StateCorrupt(msg) from error
        return cls(skus, np.frombuffer(classes, np.int8), shaped)


# made at import, see `streams.state.meta`
_DECODE_PENDING: Final = msgspec.msgpack.Decoder(tuple[str, list[bytes], bytes, bytes]).decode


class Served(NamedTuple):
    """What is served of n SKUs: quantiles float32 (n, K + S, Q), mean float32 (n, K), source int8 (n,)."""

    quantiles: NDArray[np.float32]
    mean: NDArray[np.float32]
    source: NDArray[np.int8]

    @classmethod
    def empty(cls, n: int, cadence: Cadence) -> Served:
        """Make room for n SKUs."""
        quantiles = np.empty((n, cadence.outputs, len(LEVELS)), np.float32)
        return cls(quantiles, np.empty((n, cadence.horizon), np.float32), np.empty(n, np.int8))

    def put(self, at: slice, part: Served) -> None:
        """Put some SKUs in their place."""
        for whole, some in zip(self, part, strict=True):
            whole[at] = some  # type: ignore[index]  # arrays all


BLEND: Final = len(EXPERTS)
"""Stands for more than one expert in `Served.source`; else it is the expert's position."""

Ask = Callable[[int, "NDArray[np.intp]"], "Forecast"]
"""Gives the forecast of an expert for some rows."""


@dataclass(frozen=True)
class _Weights:
    """By class, and again by class where the net may not serve, 2 x C in all.

    served: (experts, 2C, K + S, Q), calibrated; means: (experts, 2C, K); takes_part: (2C, experts), whether an expert
    has any weight; source: (2C,).
    """

    served: NDArray[np.float32]
    means: NDArray[np.float32]
    takes_part: NDArray[np.bool_]
    source: NDArray[np.int8]


class Aggregation:
    """The weights of one partition's experts, and the forecasts of its panel.

    losses: float32 (groups, classes, Q, experts). offsets: float32 (groups, classes, Q), logarithms of factors. hit:
    float32 (groups, Q), how many of the panel lay below each level, by the randomised PIT, and seen: float32 (groups,),
    of how many; both fade. slopes, shifts: float32 (classes,), how far the probability of an increase is believed, see
    `trend.believed`. pending: what has not come true yet. groups: of the steps and sums.
    """

    def __init__(self, cadence: Cadence = DAY, *, model: str = "") -> None:
        """Trust the plain forecast. cadence: of the windows. model: whose forecasts are those of the net."""
        self.model, self.groups = model, groups_of(cadence)
        shape = (len(self.groups.names), len(CLASSES), len(LEVELS), len(EXPERTS))
        self.losses = np.zeros(shape, np.float32)
        self.offsets = np.zeros(shape[:-1], np.float32)
        self.hit = np.zeros((len(self.groups.names), len(LEVELS)), np.float32)
        self.seen = np.zeros(len(self.groups.names), np.float32)
        self.slopes = np.ones(len(CLASSES), np.float32)
        self.shifts = np.zeros(len(CLASSES), np.float32)
        self.pending: dict[Due, Pending] = {}
        self._fresh: dict[Due, None] = {}  # of `pending`, not yet taken
        self._chance = np.ones(len(CLASSES))
        self._made: list[_Part] = []
        self._now = self._weights()

    def begin(self, levels: NDArray[np.float32], *, newcomers: int = 0) -> None:
        """Begin the forecasts of a close, which is of n SKUs and some newcomers, that may be of any class.

        levels: (n,), units per open window.
        """
        count = np.bincount(class_of(levels), minlength=len(CLASSES)) + newcomers
        self._chance = self.groups.panel / np.maximum(count, self.groups.panel)
        self._now = self._weights()

    def weights(self) -> NDArray[np.float32]:
        """Give the weights, float32 (groups, classes, Q, experts); they add up to one over the experts."""
        return _softmax(_PRIOR - np.float32(RATE) * self.losses)

    def serve(
        self,
        levels: NDArray[np.float32],
        draw: NDArray[np.float32],
        net_ok: NDArray[np.bool_],
        skus: list[str],
        fractional: NDArray[np.bool_],
        ask: Ask,
    ) -> Served:
        """Blend the forecasts of n SKUs, and keep those of the panel.

        levels: (n,), units per open window. draw: (n,), column "draw". net_ok: (n,), where the net may serve. skus:
        their names. fractional: (n,), whether they are sold in fractions; others in whole units. ask: gives the
        forecast of an expert for some rows.
        """
        n, classes = len(levels), class_of(levels)
        panel = np.flatnonzero(draw < self._chance[classes])
        weights = self._now
        kind = classes + np.where(net_ok, 0, len(CLASSES)).astype(np.int8)
        takes_part = weights.takes_part
        quantiles = np.zeros((n, len(self.groups.of), len(LEVELS)), np.float32)
        mean = np.zeros((n, self.groups.horizon), np.float32)
        kept = np.empty((len(panel), len(self.groups.names), len(LEVELS), len(EXPERTS) + 1), np.float32)
        is_panel = np.zeros(n, np.bool_)
        is_panel[panel] = True
        for expert in range(len(EXPERTS)):
            rows = np.flatnonzero(takes_part[kind, expert] | is_panel)
            if not len(rows):
                continue
            found = ask(expert, rows)
            kept[..., expert] = found.quantiles[is_panel[rows]][:, self.groups.tried]
            used: Any = takes_part[kind[rows], expert]
            into: Any = rows[used]
            own = kind[into]
            if len(into) == n:  # slices make no copies
                into, used = slice(None), slice(None)
            for total, of_kind, said in (
                (quantiles, weights.served[expert], found.quantiles), (mean, weights.means[expert], found.mean)
            ):  # fmt: skip
                part = of_kind.take(own, axis=0)
                part *= said[used]
                total[into] += part
        for level in range(1, len(LEVELS)):  # levels have weights of their own, and may cross
            np.maximum(quantiles[:, :, level], quantiles[:, :, level - 1], out=quantiles[:, :, level])
        _round(quantiles, fractional)
        kept[..., SERVED] = quantiles[panel][:, self.groups.tried]
        keys, kinds = [skus[row].encode() for row in panel.tolist()], classes[panel].astype(np.int8)
        if keys:
            self._made.append((keys, kinds, kept))
        return Served(quantiles, mean, weights.source[kind])

    def end(self, number: int, table: SkuTable) -> None:
        """End the close of window `number`: hold against it what was forecast of it, and let that weigh."""
        self.fade()
        for group, span in enumerate(self.groups.spans):
            due = self.pending.pop((number, group), None)
            self._fresh.pop((number, group), None)
            if due is not None:
                self._verify(group, span, due, number, table)
        for group, pending in enumerate(_by_group(self._made, len(self.groups.names))):
            due_at = number + self.groups.spans[group], group
            self.pending[due_at] = pending
            self._fresh[due_at] = None
        self._made = []
        self._now = self._weights()

    def fade(self, windows: int = 1) -> None:
        """Let so many windows pass."""
        for _ in range(windows):
            before = self.losses, self.hit, self.seen
            for name in ("losses", "hit", "seen"):
                setattr(self, name, getattr(self, name) * _KEEP)
            if all(map(np.array_equal, before, (self.losses, self.hit, self.seen))):
                break

    def cross(self, stop: int) -> None:
        """Pass over windows up to `stop` (without it), in which no SKU is live: what was forecast of them is void."""
        for due in [due for due in self.pending if due[0] < stop]:
            del self.pending[due]
            self._fresh.pop(due, None)

    def take_fresh(self) -> dict[Due, bytes]:
        """Hand over what has been added since the last call, and has not come true yet."""
        found = {due: self.pending[due].packed(self.model) for due in self._fresh}
        self._fresh = {}
        return found

    def renew(self) -> None:
        """Let the next `take_fresh` hand over everything."""
        self._fresh = dict.fromkeys(self.pending)

    def packed(self) -> bytes:
        """Write down what was learnt."""
        return b"".join(getattr(self, name).astype("<f4").tobytes() for name in _LEARNT)

    def belief(self, levels: NDArray[np.float32]) -> Belief:
        """Give how far the probability of an increase is believed, of SKUs of these levels, (n,)."""
        kinds = class_of(levels)
        return Belief(self.slopes[kinds], self.shifts[kinds])

    def hit_shares(self) -> NDArray[np.float32]:
        """Give the share of the panel below each level, float32 (groups, Q); NaN where nothing has come true."""
        seen = np.where(self.seen > 0, self.seen, np.nan)[:, None]
        return (self.hit / seen).astype(np.float32)

    def restore(self, packed: bytes, pending: Iterator[tuple[Due, bytes]]) -> None:
        """Go on where what was stored stands; `StateCorrupt` where it is not whole. packed: b"" for nothing."""
        if packed and not self._unpack(packed):
            return
        found = ((due, Pending.unpacked(raw, self.model)) for due, raw in pending)
        self.pending = {due: each for due, each in found if each is not None}
        self._now = self._weights()

    def _unpack(self, packed: bytes) -> bool:
        """Take in what `packed` wrote; False where that is of another horizon: then it is learnt anew."""
        of_groups = sum(getattr(self, name).nbytes for name in _OF_GROUPS)
        size = len(packed) - self.slopes.nbytes
        if size not in {of_groups, of_groups + self.shifts.nbytes}:  # at first there were no shifts
            of_group = of_groups // len(self.groups.names)
            if size > 0 and size % of_group in {0, self.shifts.nbytes}:
                return False
            msg = f"stored losses of experts have {len(packed)} bytes; delete the state directory to rebuild it"
            raise StateCorrupt(msg)
        start = 0
        for name in _LEARNT:
            if start == len(packed):
                break
            empty = getattr(self, name)
            stored = np.frombuffer(packed, "<f4", empty.size, start)
            setattr(self, name, stored.reshape(empty.shape).astype(np.float32))
            start += empty.nbytes
        return True

    def take_over(self, before: Aggregation) -> None:
        """Go on where the blend of another model stands: see `trust`."""
        for name in _LEARNT:
            setattr(self, name, getattr(before, name).copy())
        self.pending = dict(before.pending)
        self.trust(before.model)
        self.renew()

    def trust(self, before: str) -> None:
        """Trust a new version of a net as its predecessor was, another net as little as one that is new.

        before: the model whose weights and pending forecasts these are.
        """
        if family(before) != family(self.model):
            self.losses[..., NET] = self.losses[..., PLAIN]
            self.pending, self._fresh = {}, {}
        self._now = self._weights()

    def _verify(self, group: int, span: int, due: Pending, number: int, table: SkuTable) -> None:
        """Hold what was forecast of a group against what was sold in the `span` windows up to `number`."""
        is_sum = self.groups.is_sum(group)
        slots = table.slots([sku.decode() for sku in due.skus])
        known = np.flatnonzero(slots >= 0)
        ring = table["ring"][slots[known]]
        units = closing.last_windows({"ring": ring}, number, span if is_sum else 1)
        fine = table["age"][slots[known]] >= span
        if not is_sum:  # of a sum, windows in which the shop was closed add nothing
            fine &= np.isfinite(units[:, 0])
        known, ring, sold = known[fine], ring[fine], np.nansum(units[fine], axis=1).astype(np.float32)
        for kind in range(len(CLASSES)):
            some = due.classes[known] == kind
            if some.any():
                quantiles = due.quantiles[known[some]]
                self._learn((group, kind), sold[some], quantiles, windows=span if is_sum else 1)
                if is_sum and span == SUM_WINDOWS[0]:
                    before = closing.last_windows({"ring": ring[some]}, number - span, span)
                    self._believe(kind, sold[some], np.nansum(before, axis=1), quantiles[:, :, SERVED])

    def _believe(
        self, kind: int, sold: NDArray[np.float32], before: NDArray[np.float32], quantiles: NDArray[np.float32]
    ) -> None:
        """Learn how far an increase that was announced came true: a step down the gradient of the log loss."""
        announced = odds(exceeds(quantiles, before))
        rose = np.where(sold == before, 0.5, sold > before)
        off = chance(self.slopes[kind] * announced + self.shifts[kind]) - rose
        for learnt, rate, by, least, most in (
            (self.slopes, _SLOPE_RATE, announced, 0.0, 1.0), (self.shifts, _SHIFT_RATE, 1.0, -_MOST_SHIFT, _MOST_SHIFT)
        ):  # fmt: skip
            step = rate * _trust(len(sold)) * float((off * by).mean())
            learnt[kind] = np.clip(learnt[kind] - step, least, most)

    def _learn(
        self, at: tuple[int, int], sold: NDArray[np.float32], quantiles: NDArray[np.float32], *, windows: int
    ) -> None:
        """Let what n SKUs of a class sold weigh. quantiles: (n, Q, experts + 1). windows: that were summed."""
        count = len(sold)
        trust = _trust(count)
        experts = range(len(EXPERTS))
        loss = np.stack([2 * pinball(sold, quantiles[:, :, expert]).sum(axis=0) for expert in experts], axis=-1)
        # on a day on which next to nothing is sold all are wrong alike: then what was expected is the measure
        volumes = sold.sum(dtype=np.float64), quantiles[:, :, PLAIN].mean(axis=1).sum(dtype=np.float64)
        held = trust * loss / max(*volumes, _LEAST_VOLUME * count * windows)
        held -= held.min(axis=-1, keepdims=True)  # only differences weigh
        self.losses[at] += as_float32(np.minimum(held, _MOST_HELD))
        hit = hits(sold, quantiles[:, :, SERVED])
        self.hit[at[0]] += hit.sum(axis=0)
        self.seen[at[0]] += count
        self._calibrate(at, hit.mean(axis=0), trust, is_sum=windows > 1)

    def _calibrate(self, at: tuple[int, int], hit: NDArray[np.float32], trust: float, *, is_sum: bool) -> None:
        """Move the factors towards where each level is hit as often as it should."""
        moved = self.offsets[at] + np.float32(CALIBRATION_RATE[is_sum] * trust) * (_TAU - hit)
        self.offsets[at] = np.clip(moved, -_MOST_OFFSET, _MOST_OFFSET)

    def _weights(self) -> _Weights:
        """Give the weights that serve, with the factors in them, so that nothing is left to multiply."""
        factors = np.exp(self.offsets / 2)[..., None]
        parts = []
        shares = self.weights()
        for has_net in (True, False):
            found = shares.copy()
            if not has_net:
                found[..., NET] = 0
            found[found < _TAKES_PART] = 0
            found[found.sum(axis=-1) == 0, PLAIN] = 1
            found /= found.sum(axis=-1, keepdims=True)
            parts.append(found)
        of = self.groups.of
        plain = np.concatenate(parts, axis=1)[of].swapaxes(0, 1)
        served = np.concatenate([part * factors for part in parts], axis=1)[of].swapaxes(0, 1)
        takes_part = plain.max(axis=(1, 2)) > 0
        source = np.where(takes_part.sum(axis=1) == 1, takes_part.argmax(axis=1), BLEND).astype(np.int8)
        means = plain[:, : self.groups.horizon].mean(axis=2)
        served, means = (np.ascontiguousarray(np.moveaxis(each, -1, 0)) for each in (served, means))
        return _Weights(served, means, takes_part, source)


def family(model: str) -> str:
    """Give the name of a model without its version.

    >>> family("lstm-1d@0.1.0.15199+0b3f")
    'lstm-1d'
    """
    return model.partition("@")[0]


def class_of(levels: NDArray[np.float32]) -> NDArray[np.intp]:
    """Give the velocity class of SKUs, by units per open window.

    >>> class_of(np.float32([0.1, 0.5, 7])).tolist()
    [0, 1, 2]
    """
    return np.searchsorted(np.asarray(CLASS_LIMITS, np.float32), levels, side="right")


def draws(skus: list[str]) -> NDArray[np.float32]:
    """Draw a number in [0, 1) for each SKU, the same for the same name."""
    return np.array([xxh3_64_intdigest(sku.encode()) >> 40 for sku in skus], np.float32) / np.float32(1 << 24)


def hits(sold: NDArray[np.float32], quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give how far each level was hit, 0 to 1: the expected hit of the randomised PIT; float32 (n, Q).

    sold: (n,). quantiles: (n, Q), ascending. A level is hit where what was sold lies below its quantile. Where it is
    equal to some, as counts often are, its PIT lies anywhere between the level below all of these and the one above.

    >>> found = hits(np.float32([0, 4]), np.float32([[0, 0, 0, 0, 1, 1, 2], [1, 2, 3, 5, 6, 7, 8]]))
    >>> found.astype(float).round(2).tolist()
    [[0.08, 0.16, 0.4, 0.8, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]
    """
    y, q = sold[:, None], np.where(quantiles < _ZERO, 0, quantiles)
    low, high = np.where(q < y, _TAU, 0).max(axis=1), np.where(q > y, _TAU, 1).min(axis=1)
    equal = q == y
    first, last = np.where(equal, _TAU, 2).min(axis=1), np.where(equal, _TAU, -1).max(axis=1)
    is_equal = equal.any(axis=1)
    start = np.where(is_equal, np.where(sold == 0, 0, (low + first) / 2), np.where(sold == 0, 0, low))
    stop = np.where(is_equal, (last + high) / 2, high)
    share = (_TAU - start[:, None]) / np.maximum(stop - start, _ZERO)[:, None]
    found: NDArray[np.float32] = np.clip(share, 0, 1).astype(np.float32)
    return found


def _by_group(parts: Sequence[_Part], groups: int) -> Iterator[Pending]:
    """Put the parts of a panel together, ascending by name, and give what is pending of each group; of none, nothing.

    The order in which SKUs lie in memory is another one after a restart: sums over them would differ by a bit.
    """
    skus = [sku for skus, *_ in parts for sku in skus]
    if not skus:
        return
    order = sorted(range(len(skus)), key=skus.__getitem__)
    classes, quantiles = (np.concatenate([part[at] for part in parts])[order] for at in (1, 2))
    ordered = [skus[at] for at in order]
    for group in range(groups):
        yield Pending(ordered, classes, quantiles[:, group].copy())  # each goes when it has come true


def _trust(count: int) -> float:
    """Say how much so many SKUs weigh, beside as many as anybody could want."""
    return count / (count + _CAUTION)


def _round(quantiles: NDArray[np.float32], fractional: NDArray[np.bool_]) -> None:
    """Round to whole units, in place, and those of SKUs that are sold in fractions to 3 decimals."""
    some = np.flatnonzero(fractional)
    exact = quantiles[some]
    np.rint(quantiles, out=quantiles)
    quantiles[some] = np.round(exact, 3)


def _softmax(logs: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(logs - logs.max(axis=-1, keepdims=True))
    shares = raised / raised.sum(axis=-1, keepdims=True)
    found: NDArray[np.float32] = ((1 - FLOOR * len(EXPERTS)) * shares + FLOOR).astype(np.float32)
    return found


def as_metrics(blend: Aggregation) -> Mapping[tuple[str, str], float]:
    """Average weights over the levels and classes: {(expert, group): weight}."""
    mean, names = blend.weights().mean(axis=(1, 2)), blend.groups.names
    return {(expert, group): float(mean[i, j]) for j, expert in enumerate(EXPERTS) for i, group in enumerate(names)}

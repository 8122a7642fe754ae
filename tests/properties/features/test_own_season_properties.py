"""What the ring tells of a SKU's own season: against one window after the other, and whatever its neighbours are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.cadence import RING
from features.encoding import FEATURES, NOISE, PROFILE, encode
from tests.support.closings import fresh, happened, window_context

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = FEATURES.index("size")
units = st.one_of(st.just(math.nan), st.just(0.0), st.floats(0.0009765625, 1e6, width=32))


def encoded(
    ring: NDArray[np.float32],
    nu: NDArray[np.float32],
    window: int,
    **shop: Any,  # noqa: ANN401 - fields of Context
) -> NDArray[np.float32]:
    rows = fresh(len(ring)) | {"ring": ring, "nu": nu}
    return encode(rows, happened(np.zeros(len(ring))), window_context(window, **shop))


@given(
    rings=st.lists(st.lists(units, min_size=RING, max_size=RING), min_size=1, max_size=4),
    window=st.integers(0, 200),
    index=st.lists(st.one_of(st.just(0.0), st.floats(0.25, 5, width=32)), min_size=14, max_size=14),
    data=st.data(),
)
def test_it_is_what_going_through_the_windows_says(
    rings: list[list[float]], window: int, index: list[float], data: st.DataObject
) -> None:
    ring = np.array(rings, np.float32)
    scales = st.lists(st.floats(0.03125, 1e4, width=32), min_size=len(ring), max_size=len(ring))
    nu = np.array(data.draw(scales), np.float32)
    shop: dict[str, Any] = {"season_next": np.array(index, np.float32)}
    found = encoded(ring, nu, window, **shop)
    assert np.isfinite(found).all()
    number = window_context(window).number

    def sold(row: int, back: int) -> float:
        """Units `back` windows before this one, in scales."""
        return min(float(ring[row, (number - back) % RING]) / float(nu[row]), 8.0)

    for row in range(len(ring)):
        seen = [sold(row, back) for back in range(RING)]
        sales = [value for value in seen if value > 0]
        size = math.log(max(sum(sales) / max(len(sales), 1), 0.05)) / 2
        assert math.isclose(found[row, SIZE], size, abs_tol=2e-3)
        changes = [a - b for a, b in zip(seen[:-7], seen[7:], strict=True) if not math.isnan(a - b)]
        square = sum(change * change for change in changes) / 2 + 2 * (0.5 + 1 / float(nu[row]))
        noise = math.log(min(max(math.sqrt(square / (len(changes) + 2)), 0.02), 8.0))
        assert math.isclose(found[row, NOISE], noise, abs_tol=2e-3)
        for ahead in range(1, PROFILE + 1):
            usual, total, weight = index[ahead - 1], 0.3 * index[ahead - 1], 0.3
            for seasons in range(1, RING // 7 + 1):
                value = sold(row, 7 * seasons - ahead)
                if not math.isnan(value):
                    total, weight = total + 0.88 ** (seasons - 1) * value, weight + 0.88 ** (seasons - 1)
            wanted = math.log(total / weight + 0.05) - math.log(usual + 0.05) if usual > 0 else 0.0
            assert math.isclose(found[row, NOISE + ahead], wanted, abs_tol=2e-3)


@given(
    rings=st.lists(st.lists(units, min_size=RING, max_size=RING), min_size=2, max_size=6),
    window=st.integers(0, 200),
    season_windows=st.sampled_from([1, 7, 24, 96]),
)
def test_no_neighbour_changes_a_bit(rings: list[list[float]], window: int, season_windows: int) -> None:
    ring, nu = np.array(rings, np.float32), np.geomspace(0.02, 1e4, len(rings)).astype(np.float32)
    together = encoded(ring, nu, window, season_windows=season_windows)
    assert np.isfinite(together).all()
    for row in range(len(ring)):
        alone = encoded(ring[[row]], nu[[row]], window, season_windows=season_windows)
        assert np.array_equal(alone[0], together[row])

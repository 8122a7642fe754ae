"""Decoding each encoded record gives the struct built from its row of the columns."""

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from schemas.columns import ForecastColumns, WindowColumns
from schemas.encoding import encode_forecasts, encode_windows
from schemas.forecasts import DIRECTIONS, SHIFTS, SOURCES, Forecast, Trend
from schemas.numerals import json_arrays
from schemas.windows import WindowClosed
from tests.support.examples import examples

LIMIT_OF_FLOAT32_NEIGHBOURS = 2**-22  # two neighbours: what a row of three decimals may be off

skus = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
times = st.integers(-(2**62), 2**62)
doubles = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
like_models = st.integers(0, 1_100_000).map(lambda k: k / 1000) | st.integers(0, 1100).map(float)
model_numbers = like_models.map(np.float32).map(float) | singles


def column(elements: st.SearchStrategy[Any], dtype: type, *shape: int) -> st.SearchStrategy[Any]:
    return arrays(dtype, shape, elements=elements)


def unknown_as_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


@st.composite
def windows(draw: st.DrawFn) -> WindowColumns:
    sku = draw(st.lists(skus, max_size=5))
    counts, amounts = column(times, np.int64, len(sku)), column(doubles, np.float64, len(sku))
    return WindowColumns(
        sku=sku,
        window_start_ms=draw(times),
        window_end_ms=draw(times),
        revision=draw(st.integers(0, 9)),
        order_lines=draw(counts),
        units=draw(amounts),
        revenue=draw(amounts),
        returned_units=draw(amounts),
        free_units=draw(amounts),
        views=draw(counts),
        carts=draw(counts),
        price=draw(column(doubles | st.just(np.nan), np.float64, len(sku))),
        observed=draw(column(st.booleans(), np.bool_, len(sku))),
    )


@given(columns=windows())
def test_window_records_are_the_structs_of_their_rows(columns: WindowColumns) -> None:
    decoded = [msgspec.json.decode(value, type=WindowClosed) for value in encode_windows(columns)]
    assert decoded == [
        WindowClosed(
            id=f"{sku}/{columns.window_start_ms}/{columns.revision}",
            sku=sku,
            window_start_ms=columns.window_start_ms,
            window_end_ms=columns.window_end_ms,
            revision=columns.revision,
            order_lines=int(columns.order_lines[i]),
            units=float(columns.units[i]),
            revenue=float(columns.revenue[i]),
            returned_units=float(columns.returned_units[i]),
            free_units=float(columns.free_units[i]),
            views=int(columns.views[i]),
            carts=int(columns.carts[i]),
            price=unknown_as_none(columns.price[i]),
            observed=bool(columns.observed[i]),
        )
        for i, sku in enumerate(columns.sku)
    ]


@st.composite
def forecasts(draw: st.DrawFn) -> ForecastColumns:
    sku = draw(st.lists(skus, max_size=4))
    n, steps, levels = len(sku), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sum_windows = draw(st.sampled_from([(), (7,), (7, 14)]))
    return ForecastColumns(
        sku=sku,
        window_start_ms=draw(times),
        window_end_ms=draw(times),
        revision=draw(st.integers(0, 9)),
        actual_units=draw(column(doubles, np.float64, n)),
        step_ms=draw(times),
        step_starts_ms=tuple(draw(st.lists(times, min_size=steps, max_size=steps))),
        quantile_levels=tuple(draw(st.lists(st.floats(0, 1), min_size=levels, max_size=levels))),
        quantiles=draw(column(model_numbers, np.float32, n, steps, levels)),
        mean=draw(column(model_numbers, np.float32, n, steps)),
        sum_windows=sum_windows,
        sums=draw(column(model_numbers, np.float32, n, len(sum_windows), levels)),
        direction=draw(column(st.integers(-1, 1), np.int8, n)),
        change_pct=draw(column(singles | st.just(np.nan), np.float32, n)),
        change_units=draw(column(singles, np.float32, n)),
        change_money=draw(column(singles | st.just(np.nan), np.float32, n)),
        usual_change_units=draw(column(singles, np.float32, n)),
        usual_change_money=draw(column(singles | st.just(np.nan), np.float32, n)),
        shift=draw(column(st.integers(-1, 1), np.int8, n)),
        probability=draw(column(singles, np.float32, n)),
        source=draw(column(st.integers(0, len(SOURCES) - 1), np.int8, n)),
        model=draw(skus),
        provider=draw(skus),
        emitted_ms=draw(times),
    )


def as_singles(forecast: Forecast) -> Forecast:
    """The forecast with numbers as float32 says them: the shortest text of a float32 is another float64."""
    return msgspec.structs.replace(
        forecast,
        quantiles=(),
        mean=(),
        sums=dict.fromkeys(forecast.sums, ()),
        trend=msgspec.structs.replace(
            forecast.trend,
            **{
                name: None if value is None else float(np.float32(value))
                for name in (
                    *("change_pct", "change_units", "change_money", "probability"),
                    *("usual_change_units", "usual_change_money"),
                )
                for value in [getattr(forecast.trend, name)]
            },
        ),
    )


@given(columns=forecasts())
def test_forecast_records_are_the_structs_of_their_rows(columns: ForecastColumns) -> None:
    decoded = [msgspec.json.decode(value, type=Forecast) for value in encode_forecasts(columns)]
    assert [as_singles(forecast) for forecast in decoded] == [
        Forecast(
            id=f"{sku}/{columns.window_start_ms}/{columns.revision}",
            sku=sku,
            window_start_ms=columns.window_start_ms,
            window_end_ms=columns.window_end_ms,
            revision=columns.revision,
            actual_units=float(columns.actual_units[i]),
            step_ms=columns.step_ms,
            step_starts_ms=columns.step_starts_ms,
            quantile_levels=columns.quantile_levels,
            quantiles=(),
            mean=(),
            sums={str(count): () for count in columns.sum_windows},
            trend=Trend(
                direction=DIRECTIONS[columns.direction[i] + 1],  # type: ignore[arg-type]
                change_pct=unknown_as_none(columns.change_pct[i]),
                probability=float(columns.probability[i]),
                change_units=float(columns.change_units[i]),
                change_money=unknown_as_none(columns.change_money[i]),
                usual_change_units=float(columns.usual_change_units[i]),
                usual_change_money=unknown_as_none(columns.usual_change_money[i]),
                shift=SHIFTS[columns.shift[i] + 1],  # type: ignore[arg-type]
            ),
            source=SOURCES[columns.source[i]],
            model=columns.model,
            provider=columns.provider,
            emitted_ms=columns.emitted_ms,
        )
        for i, sku in enumerate(columns.sku)
    ]
    for i, forecast in enumerate(decoded):
        same(forecast.quantiles, columns.quantiles[i])
        same(forecast.mean, columns.mean[i])
        for position, count in enumerate(columns.sum_windows):
            same(forecast.sums[str(count)], columns.sums[i, position])


def same(read: object, written: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(np.array(read, dtype=np.float32), written, rtol=LIMIT_OF_FLOAT32_NEIGHBOURS, atol=0)


@given(
    thousandths=arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.integers(0, 1_500_000))
)
def test_decimals_of_three_places_are_written_exactly(thousandths: NDArray[np.int32]) -> None:
    rounded = (thousandths / 1000).astype(np.float32)
    read = np.array([msgspec.json.decode(text) for text in json_arrays(rounded)])
    np.testing.assert_array_equal(read.astype(np.float32), rounded)
    small = (thousandths < 1_000_000).all(axis=1)
    np.testing.assert_array_equal(read[small], thousandths[small] / 1000)


@examples(50)
@given(thousandths=arrays(np.int32, (3, 4), elements=st.integers(0, 999_999)))
def test_rounding_by_a_multiplication_counts_as_decimals_too(thousandths: NDArray[np.int32]) -> None:
    rounded = thousandths.astype(np.float32) * np.float32(0.001)
    read = np.array([msgspec.json.decode(text) for text in json_arrays(rounded)])
    np.testing.assert_array_equal(read, thousandths / 1000)

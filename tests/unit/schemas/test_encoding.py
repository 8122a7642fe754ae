"""Output records are what the struct of each row says, and no number leaves that JSON cannot say."""

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.alerts import Alert, Contributor
from schemas.columns import ForecastColumns, WindowColumns
from schemas.encoding import encode_alert, encode_forecasts, encode_windows
from schemas.forecasts import Forecast, Trend
from schemas.numerals import json_arrays
from schemas.windows import WindowClosed

WINDOWS = WindowColumns(
    sku=["85123A", 'a"b\\c/100%b\u00e9\u83dc\U0001f381\n'],
    window_start_ms=1291161600000,
    window_end_ms=1291248000000,
    revision=2,
    order_lines=np.array([2, 0]),
    units=np.array([38.0, 0.396]),
    revenue=np.array([96.9, 0.0]),
    returned_units=np.array([1.0, 0.0]),
    free_units=np.array([0.0, 0.25]),
    views=np.array([24, 0]),
    carts=np.array([3, 0]),
    price=np.array([2.55, np.nan]),
    observed=np.array([True, False]),
)
FORECASTS = ForecastColumns(
    sku=["85123A", 'a"b\\c/100%b\u00e9'],
    window_start_ms=1291161600000,
    window_end_ms=1291248000000,
    revision=0,
    actual_units=np.array([38.0, 0.396]),
    step_ms=86_400_000,
    step_starts_ms=(1291248000000, 1291334400000, 1291420800000),
    quantile_levels=(0.05, 0.5),
    quantiles=np.array([[[0, 1], [2, 3], [0, 999]], [[0.5, 1.25], [0.001, 999.999], [0, 1000.5]]], dtype=np.float32),
    mean=np.array([[0.1, 2.5, 1], [0.25, 0.5, 1e-7]], dtype=np.float32),
    sum_windows=(7, 14),
    sums=np.array([[[3, 4], [5, 6]], [[1.5, 2.5], [3.5, 1e30]]], dtype=np.float32),
    direction=np.array([1, -1], dtype=np.int8),
    change_pct=np.array([12.5, np.nan], dtype=np.float32),
    change_units=np.array([4.5, -0.25], dtype=np.float32),
    change_money=np.array([11.25, np.nan], dtype=np.float32),
    usual_change_units=np.array([-1.5, 0.0], dtype=np.float32),
    usual_change_money=np.array([-3.75, np.nan], dtype=np.float32),
    shift=np.array([-1, 0], dtype=np.int8),
    probability=np.array([0.75, 0.5], dtype=np.float32),
    source=np.array([0, 1], dtype=np.int8),
    model='shipped "1" 100%',
    provider="CPU",
    emitted_ms=1291248060000,
)
ALERT = Alert(
    id="a-1",
    alert_key="k",
    status="open",
    kind="demand_spike",
    severity="page",
    sku="85123A",
    window_start_ms=0,
    window_end_ms=86_400_000,
    observed=410.0,
    expected=13.5,
    interval=(0.0, 40.0),
    p_value=1e-9,
    impact=1011.5,
    currency="GBP",
    summary="85123A sold 410 units.",
    contributors=(Contributor("price", 0.5),),
    opened_ms=86_400_000,
)


def test_windows_are_the_structs_of_their_rows() -> None:
    values = encode_windows(WINDOWS)
    assert [msgspec.json.decode(value, type=WindowClosed) for value in values] == [
        WindowClosed(
            id=f"{WINDOWS.sku[0]}/1291161600000/2",
            sku=WINDOWS.sku[0],
            window_start_ms=1291161600000,
            window_end_ms=1291248000000,
            revision=2,
            order_lines=2,
            units=38.0,
            revenue=96.9,
            returned_units=1.0,
            free_units=0.0,
            views=24,
            carts=3,
            price=2.55,
            observed=True,
        ),
        WindowClosed(
            id=f"{WINDOWS.sku[1]}/1291161600000/2",
            sku=WINDOWS.sku[1],
            window_start_ms=1291161600000,
            window_end_ms=1291248000000,
            revision=2,
            order_lines=0,
            units=0.396,
            revenue=0.0,
            returned_units=0.0,
            free_units=0.25,
            views=0,
            carts=0,
            price=None,
            observed=False,
        ),
    ]


def test_the_first_window_in_full() -> None:
    assert encode_windows(WINDOWS)[0] == (
        b'{"id":"85123A/1291161600000/2","sku":"85123A","window_start_ms":1291161600000,"window_end_ms":1291248000000,'
        b'"revision":2,"order_lines":2,"units":38.0,"revenue":96.9,"returned_units":1.0,"free_units":0.0,"views":24,'
        b'"carts":3,"price":2.55,"observed":true}'
    )


def test_the_first_forecast_is_the_struct_of_its_row() -> None:
    first = msgspec.json.decode(encode_forecasts(FORECASTS)[0], type=Forecast)
    assert first == Forecast(
        id="85123A/1291161600000/0",
        sku="85123A",
        window_start_ms=1291161600000,
        window_end_ms=1291248000000,
        revision=0,
        actual_units=38.0,
        step_ms=86_400_000,
        step_starts_ms=(1291248000000, 1291334400000, 1291420800000),
        quantile_levels=(0.05, 0.5),
        quantiles=((0.0, 1.0), (2.0, 3.0), (0.0, 999.0)),
        mean=(0.1, 2.5, 1.0),
        sums={"7": (3.0, 4.0), "14": (5.0, 6.0)},
        trend=Trend(
            direction="up",
            change_pct=12.5,
            probability=0.75,
            change_units=4.5,
            change_money=11.25,
            usual_change_units=-1.5,
            usual_change_money=-3.75,
            shift="down",
        ),
        source="lstm",
        model='shipped "1" 100%',
        provider="CPU",
        emitted_ms=1291248060000,
    )


def test_numbers_of_every_size_and_an_unknown_change_survive() -> None:
    second = msgspec.json.decode(encode_forecasts(FORECASTS)[1], type=Forecast)
    assert second.sku == 'a"b\\c/100%b\u00e9'
    assert second.quantiles == ((0.5, 1.25), (0.001, 999.999), (0.0, 1000.5))
    assert second.mean == (0.25, 0.5, 1e-7)
    assert second.sums == {"7": (1.5, 2.5), "14": (3.5, 1e30)}
    assert second.trend == Trend(
        direction="down",
        change_pct=None,
        probability=0.5,
        change_units=-0.25,
        change_money=None,
        usual_change_units=0.0,
        usual_change_money=None,
        shift=None,
    )
    assert second.source == "seasonal_naive"


def test_no_skus_make_no_records() -> None:
    def emptied(columns: WindowColumns | ForecastColumns) -> dict[str, Any]:
        fields = {field.name: getattr(columns, field.name) for field in dataclasses.fields(columns)}
        return {n: v[:0] if isinstance(v, np.ndarray) else v for n, v in fields.items()} | {"sku": []}

    assert encode_windows(WindowColumns(**emptied(WINDOWS))) == []
    assert encode_forecasts(ForecastColumns(**emptied(FORECASTS))) == []


@pytest.mark.parametrize("field", ["units", "revenue", "returned_units", "free_units", "price"])
@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_infinity_in_a_window_is_refused_by_name(field: str, number: float) -> None:
    with pytest.raises(ValueError, match=rf"{field}\[1\] is -?inf"):
        encode_windows(dataclasses.replace(WINDOWS, **{field: np.array([1.0, number])}))


def test_nan_is_null_only_where_a_number_may_be_unknown() -> None:
    with pytest.raises(ValueError, match=r"units\[0\] is nan"):
        encode_windows(dataclasses.replace(WINDOWS, units=np.array([np.nan, 1.0])))
    with pytest.raises(ValueError, match=r"probability\[1\] is nan"):
        encode_forecasts(dataclasses.replace(FORECASTS, probability=np.array([1.0, np.nan], dtype=np.float32)))


@pytest.mark.parametrize("field", ["quantiles", "mean", "sums", "change_pct", "actual_units"])
def test_infinity_in_a_forecast_is_refused_by_name(field: str) -> None:
    numbers = getattr(FORECASTS, field).copy()
    numbers[(-1,) * numbers.ndim] = np.inf
    with pytest.raises(ValueError, match=rf"{field}\[.*\] is inf"):
        encode_forecasts(dataclasses.replace(FORECASTS, **{field: numbers}))


@pytest.mark.parametrize("field", ["units", "order_lines", "observed"])
def test_a_window_column_of_another_length_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} must have the shape \(2,\), found \(1,\)"):
        encode_windows(dataclasses.replace(WINDOWS, **{field: getattr(WINDOWS, field)[:1]}))


@pytest.mark.parametrize("field", ["quantiles", "sums", "direction", "source", "probability"])
def test_a_forecast_column_of_another_length_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} must have the shape"):
        encode_forecasts(dataclasses.replace(FORECASTS, **{field: getattr(FORECASTS, field)[:1]}))


def test_a_mean_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mean must have the shape"):
        encode_forecasts(dataclasses.replace(FORECASTS, mean=FORECASTS.mean[0, 0]))


def test_a_step_without_a_start_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step_starts_ms must have one start for each of \[3\] steps, found 2"):
        encode_forecasts(dataclasses.replace(FORECASTS, step_starts_ms=FORECASTS.step_starts_ms[:2]))


def test_codes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="direction must count from -1 to 1, found 0 to 2"):
        encode_forecasts(dataclasses.replace(FORECASTS, direction=np.array([0, 2], dtype=np.int8)))
    with pytest.raises(ValueError, match="source must count from 0 to 5, found -1 to 0"):
        encode_forecasts(dataclasses.replace(FORECASTS, source=np.array([-1, 0], dtype=np.int8)))


def test_an_alert_is_its_struct() -> None:
    assert msgspec.json.decode(encode_alert(ALERT), type=Alert) == ALERT


@pytest.mark.parametrize(
    "changed",
    [
        {"observed": float("nan")},
        {"expected": float("inf")},
        {"p_value": float("nan")},
        {"impact": float("-inf")},
        {"interval": (0.0, float("inf"))},
        {"contributors": (Contributor("price", float("nan")),)},
    ],
)
def test_an_alert_with_a_number_that_json_cannot_say_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"of alert 'a-1' is (nan|-?inf), which JSON cannot say"):
        encode_alert(msgspec.structs.replace(ALERT, **changed))


def test_rows_keep_their_order_across_chunks_and_ways_of_writing() -> None:
    count = 5000
    rows = np.arange(count, dtype=np.float32)[:, np.newaxis] + np.array([0, 0.5, 0.1], dtype=np.float32)
    rows[::3] = np.rint(rows[::3])
    rows[1::3] = np.round(rows[1::3] % 900, 3)
    read = np.array([msgspec.json.decode(text) for text in json_arrays(rows)], dtype=np.float32)
    np.testing.assert_array_equal(read, rows)


@pytest.mark.parametrize(
    "number",
    [0.0, -0.0, 0.001, 0.9995, 1.0, 999.0, 999.4, 999.999, 999.9995, 1000.0, 1e6, -1.0, -0.5, 1e-30, 3e38, -3e38],
)
def test_numbers_at_the_edges_of_the_tables_are_read_back_alike(number: float) -> None:
    for values in (np.full((2, 3), number, dtype=np.float32), np.full((2, 1, 1), number, dtype=np.float32)):
        read = np.array([msgspec.json.decode(text) for text in json_arrays(values)], dtype=np.float32)
        np.testing.assert_array_equal(read, values)


def test_rows_without_numbers_are_empty_arrays() -> None:
    assert json_arrays(np.zeros((2, 0), dtype=np.float32)) == [b"[]", b"[]"]
    assert json_arrays(np.zeros((1, 2, 0), dtype=np.float32)) == [b"[[],[]]"]
    assert json_arrays(np.zeros((0, 3, 2), dtype=np.float32)) == []


@pytest.mark.parametrize("decimal", [0.001, 0.125, 1.25, 17.003, 640.5])
def test_a_number_near_a_decimal_is_not_taken_for_it(decimal: float) -> None:
    near = np.float32(decimal) + 8 * np.spacing(np.float32(decimal))
    values = np.array([[0.5, near], [near, 0.5]], dtype=np.float32)
    read = np.array([msgspec.json.decode(text) for text in json_arrays(values)], dtype=np.float32)
    np.testing.assert_array_equal(read, values)

"""The file of rates: read, or refused with its name and the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadSetting
from streams.config.rates import read
from streams.settings import load

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "rates.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_rates_are_read_by_code(tmp_path: Path) -> None:
    assert read(written(tmp_path, "[rates]\nEUR = 0.86\nJPY = 0.0053 # of 2026\nKWD = 2\n")) == {
        "EUR": 0.86,
        "JPY": 0.0053,
        "KWD": 2.0,
    }
    assert read(written(tmp_path, "[rates]\n")) == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[rates\nEUR = 1", r"rates\.toml of SKUTREND_RATES is not TOML: .*EUR = 0\.86"),
        (b"\xff\xfe", "is not TOML"),
        ("[rates]\nEUR = 1\nEUR = 2", "is not TOML"),
        ("EUR = 0.86", r"has `EUR`; it must hold a table \[rates\]"),
        ("", r"has no table \[rates\]"),
        ("rates = 1", r"has no table \[rates\]"),
        ("[rates]\n[others]", "has `others`"),
        ("[rates]\nEUR = 0", r"has EUR = 0: a rate is a number above 0"),
        ("[rates]\nEUR = -0.86", r"has EUR = -0\.86: "),
        ("[rates]\nEUR = nan", r"has EUR = nan: "),
        ("[rates]\nEUR = inf", r"has EUR = inf: "),
        ("[rates]\nEUR = -inf", r"has EUR = -inf: "),
        ("[rates]\nEUR = 1e13", r"has EUR = 1.*e\+?13|10000000000000"),
        ("[rates]\nEUR = true", r"has EUR = True: "),
        ('[rates]\nEUR = "0.86"', r"has EUR = '0\.86': "),
        ("[rates]\nEUR.from = 1", r"has EUR = \{'from': 1\}"),
        ("[rates]\nEURO = 1", r"has the key 'EURO' in \[rates\]: .* 3 upper-case letters"),
        ("[rates]\neur = 1", r"has the key 'eur'"),
        ('[rates]\n"€€€" = 1', r"has the key '€€€'"),
    ],
)
def test_a_file_that_cannot_be_used_is_reported_with_the_key(tmp_path: Path, content: str | bytes, why: str) -> None:
    with pytest.raises(BadSetting, match=why) as told:
        read(written(tmp_path, content))
    assert str(tmp_path / "rates.toml") in str(told.value)


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"cannot read the file .*nowhere\.toml of SKUTREND_RATES: No such file"):
        read(tmp_path / "nowhere.toml")
    with pytest.raises(BadSetting, match="Is a directory"):
        read(tmp_path)


def test_the_settings_say_what_the_shop_s_money_is(tmp_path: Path) -> None:
    path = written(tmp_path, "[rates]\nEUR = 0.86\n")
    money = load(environment={"SKUTREND_CURRENCY": "GBP", "SKUTREND_RATES": str(path)}).money
    assert (money.code, money.is_set, money.rates) == ("GBP", True, {"EUR": 0.86})
    assert (load(environment={}).money.code, load(environment={}).money.is_set) == ("", False)


@pytest.mark.parametrize("rates", ["[rates]\nEUR = 0", "[rates]\nGBP = 2"])
def test_a_file_that_cannot_be_used_is_reported_when_the_settings_are_read(tmp_path: Path, rates: str) -> None:
    path = written(tmp_path, rates)
    with pytest.raises(BadSetting, match="SKUTREND_RATES"):
        load(environment={"SKUTREND_CURRENCY": "GBP", "SKUTREND_RATES": str(path)})


@pytest.mark.parametrize("code", ["gbp", "GBP ", "GBP\n", "POUND", "£"])
def test_a_currency_that_is_no_code_is_reported_when_the_settings_are_read(code: str) -> None:
    with pytest.raises(BadSetting, match="SKUTREND_CURRENCY"):
        load(environment={"SKUTREND_CURRENCY": code})

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadSetting
from streams import settings
from streams.config.closing_days import read

if TYPE_CHECKING:
    from pathlib import Path


def test_days_stretches_and_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "closed.txt"
    path.write_text("# the shop\n\n2026-12-24..2026-12-26  # Christmas\n 2027-01-01 \n")
    wanted = {date(2026, 12, 24), date(2026, 12, 25), date(2026, 12, 26), date(2027, 1, 1)}
    assert read(path) == wanted
    grid = settings.load(environment={"SKUTREND_CLOSING_DAYS": str(path), "SKUTREND_COUNTRY": "GB"}).grid
    assert grid.closing_days == wanted
    assert grid.country == "GB"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("24.12.2026", "line 1 of .* is '24.12.2026': expected a date"),
        ("2026-12-24\n2026-12-26..2026-12-24", "line 2 of .*: -1 days"),
        ("2026-12-24..2028-12-24", "732 days"),
        ("2026-02-30", "expected a date"),
    ],
)
def test_what_is_no_date_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "closed.txt"
    path.write_text(text)
    with pytest.raises(BadSetting, match=said):
        settings.load(environment={"SKUTREND_CLOSING_DAYS": str(path)})


def test_a_file_that_is_not_there_and_a_country_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="cannot read the file of closing days"):
        settings.load(environment={"SKUTREND_CLOSING_DAYS": str(tmp_path / "none")})
    for country in ("QQ", "gb", "DE-XX", "GBR"):
        with pytest.raises(BadSetting, match="SKUTREND_COUNTRY"):
            settings.load(environment={"SKUTREND_COUNTRY": country})

"""The codes of dead letters are told to their readers, all of them and no other."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.refusals import CODES
from tests.support.hostile import unusable

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_the_readme_tells_what_each_code_means() -> None:
    table = README[README.index("| code | the record |") : README.index("### Topics")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(CODES)


def test_every_hostile_record_has_a_code_that_is_told() -> None:
    assert {bad.code for bad in unusable()} == set(CODES) - {"wrong_partition"}

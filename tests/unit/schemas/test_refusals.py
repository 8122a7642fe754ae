"""Every code of a dead letter has records that get it."""

from __future__ import annotations

from schemas.errors import Undecodable
from schemas.refusals import CODES, ID_REUSED
from tests.support.hostile import unusable


def test_every_hostile_record_has_a_code_that_is_reported() -> None:
    """But for those that take a partition, another event, a whole batch, or a mapping (tests/unit/ingest)."""
    assert {bad.code for bad in unusable()} == set(CODES) - {"wrong_partition", ID_REUSED, Undecodable.code, "unmapped"}

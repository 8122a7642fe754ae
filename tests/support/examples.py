"""How many examples of a property are tried: all of those that a test asks for, or with `make unit` a part of them."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

IS_QUICK = os.environ.get("HYPOTHESIS_PROFILE") == "quick"
_QUICK_SHARE = 8
_LEAST = 5


def examples(count: int, **more: Any) -> settings:  # noqa: ANN401 - whatever `settings` takes
    """Try so many examples, a part of them where it must be quick, however long one takes. more: as `settings`."""
    tried = max(_LEAST, count // _QUICK_SHARE) if IS_QUICK else count
    return settings(max_examples=tried, deadline=None, **more)

"""The file of SKUTREND_RATES: what money in other currencies is worth in the shop's.

```toml
[rates]
EUR = 0.86    # one EUR is worth 0.86 of the shop's currency
JPY = 0.0053
```
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from features.currency import MAX_RATE, currency_code
from schemas.errors import BadSetting

_EXAMPLE: Final = "a table [rates] of lines such as EUR = 0.86, for one EUR is worth 0.86 of the shop's currency"


def read(path: Path) -> dict[str, float]:
    """Read the rates by currency code; a file that cannot be used is a `BadSetting` naming it and the key."""
    where = f"the file {path} of SKUTREND_RATES"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read {where}: {error.strerror}"
        raise BadSetting(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{where} is not TOML: {error}; it must hold {_EXAMPLE}"
        raise BadSetting(msg) from error
    strange = sorted(found.keys() - {"rates"})
    if strange or not isinstance(found.get("rates"), dict):
        what = f"has `{strange[0]}`" if strange else "has no table [rates]"
        msg = f"{where} {what}; it must hold {_EXAMPLE}, and nothing else"
        raise BadSetting(msg)
    return {_code(key, where): _rate(key, value, where) for key, value in found["rates"].items()}


def _code(key: str, where: str) -> str:
    code = currency_code(key)
    if code != key:
        msg = f"{where} has the key {key!r} in [rates]: a currency is a code of 3 upper-case letters (ISO 4217)"
        raise BadSetting(msg)
    return code


def _rate(key: str, value: Any, where: str) -> float:  # noqa: ANN401 - any TOML value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_RATE:
        msg = f"{where} has {key} = {value!r}: a rate is a number above 0 and up to {MAX_RATE:g}"
        raise BadSetting(msg)
    return float(value)

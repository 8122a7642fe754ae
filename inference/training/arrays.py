"""What a network is trained on: one shop's history as rectangular arrays, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TrainingArrays:
    """T windows of N SKUs, encoded by the same code that serves.

    * x f4[T, N, F]: the features known once window t has closed; finite wherever `live`
    * calendar f4[T, C]: what is known, once window t has closed, of the windows after it
    * nu f4[T, N]: the scale after window t, units per open window; > 0 wherever `live`
    * season_next f4[T, K]: the shop's index of the K windows after t; 0 = known to be closed
    * y f4[T, N]: units sold in window t; NaN while the SKU is not yet live
    * live bool[T, N]: the SKU is served after window t

    Raises ValueError, naming the array, when shapes or dtypes disagree.
    """

    x: NDArray[np.float32]
    calendar: NDArray[np.float32]
    nu: NDArray[np.float32]
    season_next: NDArray[np.float32]
    y: NDArray[np.float32]
    live: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other."""
        windows, skus = self.y.shape
        expected = {
            "x": ((windows, skus, self.x.shape[-1]), np.float32),
            "calendar": ((windows, self.calendar.shape[-1]), np.float32),
            "nu": ((windows, skus), np.float32),
            "season_next": ((windows, self.season_next.shape[-1]), np.float32),
            "y": ((windows, skus), np.float32),
            "live": ((windows, skus), np.bool_),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                message = f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}"
                raise ValueError(message)

    @property
    def windows(self) -> int:
        """Count the windows, T."""
        return int(self.y.shape[0])

    @property
    def horizon(self) -> int:
        """Count the windows ahead that are forecast, K."""
        return int(self.season_next.shape[1])

    @property
    def n_features(self) -> int:
        """Count the features of one encoded input, F."""
        return int(self.x.shape[2])

    @property
    def n_calendar(self) -> int:
        """Count what is known of the windows to come, C."""
        return int(self.calendar.shape[1])

    def whole_units(self, *, until_index: int) -> NDArray[np.bool_]:
        """Find the SKUs sold by the piece: bool[N], no fractional sale before window `until_index`."""
        seen = np.nan_to_num(self.y[:until_index])
        whole: NDArray[np.bool_] = (seen == np.rint(seen)).all(axis=0)
        return whole

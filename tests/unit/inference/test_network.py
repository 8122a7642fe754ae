import numpy as np
import pytest
import torch

from inference.training.network import MEDIAN_OFFSET, Layout, Network, States, positive
from tests.support.models import untrained


def test_quantiles_ascend_whatever_the_input() -> None:
    network = untrained(n_features=5, n_calendar=2)
    x = torch.from_numpy(np.random.default_rng(1).normal(0, 30, (6, 200, 7)).astype(np.float32))
    outlook, _ = network(x[..., :5], x[..., 5:])
    assert (outlook.quantiles.diff(dim=-1) >= 0).all()
    assert (outlook.sums.diff(dim=-1) >= 0).all()
    assert outlook.flat is not None
    assert (outlook.flat.diff(dim=-1) >= 0).all()
    assert (outlook.mean > 0).all()
    assert outlook.quantiles.shape == outlook.flat.shape == (6, 200, 14, 7)
    assert outlook.sums.shape == (6, 200, 2, 7)
    assert outlook.mean.shape == (6, 200, 14)


def test_window_by_window_says_what_the_whole_sequence_says() -> None:
    network = untrained(n_features=5, n_calendar=2)
    both = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 4, 7)).astype(np.float32))
    x, calendar = both[..., :5], both[..., 5:]
    with torch.no_grad():
        whole, last = network(x, calendar)
        states = States(torch.zeros(2, 4, 48), torch.zeros(2, 4, 48))
        for t in range(9):
            outlook, states = network(x[t : t + 1], calendar[t : t + 1], states)
            torch.testing.assert_close(outlook.quantiles[0], whole.quantiles[t])
    torch.testing.assert_close(states.h, last.h)
    torch.testing.assert_close(states.c, last.c)


def test_an_untrained_network_expects_about_the_level_of_the_sku() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        outlook, _ = Network(Layout(n_features=3))(torch.zeros(1, 1, 3), torch.zeros(1, 1, 0))
    assert outlook.quantiles[..., 3].mean() == pytest.approx(0.9, abs=0.2)
    assert outlook.mean.mean() == pytest.approx(1.0, abs=0.2)


def test_mixing_adds_outwards_from_the_median() -> None:
    layout = Layout(n_features=1, levels=(0.1, 0.5, 0.8, 0.9), horizon=2, sum_windows=(2,))
    parts = torch.tensor([0.25, 2.0, 0.5, 1.0])  # below, the median, above, further above
    assert (parts @ layout.mixing).tolist() == [1.75, 2.0, 2.5, 3.5]


def test_quantiles_lie_apart_in_units_of_the_noise_of_the_sku() -> None:
    torch.manual_seed(0)
    network = Network(Layout(n_features=3, noise=1))
    with torch.no_grad():
        network.inner.weight.zero_()
        noise = torch.tensor([0.25, 1.0, 4.0])
        x = torch.stack([torch.zeros(3), noise.log(), torch.zeros(3)], dim=1)[None]
        outlook, _ = network(x, torch.zeros(1, 3, 0))
    for quantiles in (outlook.quantiles[0], outlook.sums[0]):
        apart = quantiles.diff(dim=-1)
        torch.testing.assert_close(apart, noise[:, None, None] * apart[1])
        torch.testing.assert_close(quantiles[0, :, 3], quantiles[2, :, 3])


def test_what_is_served_is_the_mean_of_both_heads_and_of_closed_windows_nothing() -> None:
    network = untrained(n_features=5, n_calendar=2)
    given = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 8, 7)).astype(np.float32))
    with torch.no_grad():
        outlook, _ = network(given[..., :5], given[..., 5:])
    season = torch.linspace(0.2, 2.0, 14)
    season[3] = 0
    nu = torch.arange(1.0, 9.0)[None]
    steps, sums = outlook.units(nu, season, season[:7].sum().expand(2))
    assert outlook.flat is not None
    own = outlook.quantiles.clamp_min(0) * season[:, None]
    flat = outlook.flat.clamp_min(0) * (season > 0)[:, None]
    torch.testing.assert_close(steps, nu[..., None, None] * (own + flat) / 2)
    assert (steps[..., 3, :] == 0).all()
    assert (steps.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(sums, nu[..., None, None] * outlook.sums.clamp_min(0) * season[:7].sum())
    alone = outlook._replace(flat=None).units(nu, season, season[:7].sum().expand(2))
    torch.testing.assert_close(alone[0], nu[..., None, None] * own)


def test_windows_below_a_day_have_one_head() -> None:
    layout = Layout(n_features=3, heads=1, horizon=24, sum_windows=(7, 14, 24))
    with torch.no_grad():
        outlook, _ = Network(layout)(torch.zeros(1, 2, 3), torch.zeros(1, 2, 0))
    assert outlook.flat is None
    assert outlook.quantiles.shape == (1, 2, 24, 7)
    assert outlook.sums.shape == (1, 2, 3, 7)


def test_a_quantile_can_be_below_zero_so_that_its_floor_is_exactly_zero() -> None:
    assert positive(torch.tensor(-5.0)) < MEDIAN_OFFSET


@pytest.mark.parametrize(
    "changes",
    [{"levels": (0.5, 0.1)}, {"levels": (0.1, 0.9)}, {"sum_windows": (7, 15)}],
    ids=["unsorted", "no median", "sum beyond the horizon"],
)
def test_a_layout_the_head_cannot_say_is_refused(changes: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"levels|horizon"):
        Layout(n_features=3, **changes)

"""The dynamic learning rate: every factor of a known sequence of losses."""

import pytest
import torch
from torch import nn

from compress.frank_wolfe import DynamicLR


def optimizer() -> torch.optim.SGD:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=1.0)


def rates(epochs: int, losses: list[float]) -> list[float]:
    used = optimizer()
    schedule = DynamicLR(used, epochs)
    found = []
    for loss in losses:
        schedule.step(loss)
        assert used.param_groups[1]["lr"] == pytest.approx(used.param_groups[0]["lr"] / 2)
        found.append(used.param_groups[0]["lr"])
    return found


def test_a_tenth_at_the_thirds_as_in_the_paper() -> None:
    found = rates(180, [1.0] * 180)  # equal means: neither up nor down
    drops = [epoch + 1 for epoch, (a, b) in enumerate(zip([1.0, *found], found, strict=False)) if b != a]
    assert drops == [60, 120]  # so epochs 61 and 121 are the first with the new rate
    assert found[-1] == pytest.approx(0.01)


def test_falling_losses_raise_it_and_rising_ones_lower_it() -> None:
    falling = rates(90, [10.0 - epoch for epoch in range(20)])
    assert falling[8:20] == pytest.approx([1.0] + [1.06] * 5 + [1.06**2] * 5 + [1.06**3])
    rising = rates(90, [1.0 + epoch for epoch in range(20)])
    assert rising[-1] == pytest.approx(0.7**3)


def test_the_means_are_over_five_and_ten_epochs() -> None:
    # The last epoch is far above, but five of ten are below the mean of all ten.
    assert rates(90, [3.0] * 5 + [1.0] * 4 + [4.0])[-1] == pytest.approx(1.06)
    assert rates(90, [3.0] * 5 + [1.0] * 4 + [12.0])[-1] == pytest.approx(0.7)


def test_without_the_dynamics_only_the_tenths_are_left() -> None:
    used = optimizer()
    schedule = DynamicLR(used, 30, dynamic=False)
    found = [schedule.step(30.0 - epoch) for epoch in range(30)]
    assert [epoch + 1 for epoch, factor in enumerate(found) if factor != 1] == [10, 20]


def test_it_resumes() -> None:
    losses = [2.0, 1.5, 1.7, 1.6, 1.9, 1.2, 1.3, 1.1, 1.8, 1.0, 0.9, 1.4, 1.5, 1.6, 2.0, 2.5, 2.6, 2.7, 2.8, 2.9]
    whole = rates(30, losses)
    used = optimizer()
    schedule = DynamicLR(used, 30)
    for loss in losses[:12]:
        schedule.step(loss)
    after, state = optimizer(), schedule.state_dict()
    after.load_state_dict(used.state_dict())
    resumed = DynamicLR(after, 30)
    resumed.load_state_dict(state)
    for loss in losses[12:]:
        resumed.step(loss)
    assert after.param_groups[0]["lr"] == whole[-1]
    with pytest.raises(ValueError, match="saved with epochs=30, this schedule has 31"):
        DynamicLR(after, 31).load_state_dict(state)


def test_short_trainings_and_wrong_values() -> None:
    assert rates(1, [1.0]) == [1.0]
    assert rates(2, [1.0, 1.0]) == pytest.approx([0.1, 0.1])
    with pytest.raises(ValueError, match="epochs: -1"):
        DynamicLR(optimizer(), -1)
    with pytest.raises(ValueError, match="loss: nan is not a finite number"):
        DynamicLR(optimizer(), 3).step(float("nan"))

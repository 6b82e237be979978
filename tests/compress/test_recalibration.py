"""Statistics equal a direct computation; nothing else moves."""

import copy

import pytest
import torch
from torch import nn

from compress.recalibration import recalibrate


def test_statistics_are_the_plain_average_over_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 2)
    ).train()
    before = copy.deepcopy(model.state_dict())
    batches = [(torch.randn(8, 2, 4, 4), torch.zeros(8).long()) for _ in range(5)]
    state = torch.get_rng_state()
    assert recalibrate(model, batches, limit=4) == 4
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        outputs = [model[0](x).transpose(0, 1).flatten(1) for x, _ in batches[:4]]
    torch.testing.assert_close(model[1].running_mean, torch.stack([o.mean(1) for o in outputs]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([o.var(1) for o in outputs]).mean(0))
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "running" not in k and "tracked" not in k)
    assert all(module.training for module in model.modules())
    assert model[1].momentum == 0.1


def test_no_batchnorm_and_no_batches() -> None:
    assert recalibrate(nn.Linear(2, 2), []) == 0
    with pytest.raises(ValueError, match="batches: empty"):
        recalibrate(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), [])

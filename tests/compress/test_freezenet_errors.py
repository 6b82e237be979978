"""FreezeNet with settings, data or calls that are wrong: the argument is named, the model stays as it was."""

from typing import Any

import pytest
import torch
from method_checks import DATA, network

from compress.methods import AtInit, FreezeNet


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.01}, r"sparsity: 1.01 is not a fraction in \[0, 1\]"),
        ({"sparsity": 1, "weight_decay": True}, "sparsity: 1 leaves nothing"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 2**32}, "seed: 4294967296 is not a 32-bit number"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"initialisation": "normal"}, "initialisation: 'normal' is not one of xavier_normal"),
        ({"reinit": 1}, "reinit: 1 is not true or false"),
        ({"weight_decay": 5e-4}, "weight_decay: 0.0005 is not true or false"),
        ({"score": "snop"}, "score: there is no 'snop'; did you mean 'snip'"),
    ],
)
def test_wrong_settings_name_the_argument(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreezeNet(**settings)


def test_others_refuse_to_cut_everything() -> None:
    with pytest.raises(ValueError, match=r"sparsity: 1 is not a fraction in \[0, 1\)"):
        AtInit(sparsity=1)


def test_masks_of_frozen_weights_cannot_be_replaced() -> None:
    pruner = FreezeNet(sparsity=0.8)
    pruner.attach(network(), DATA)
    before = pruner.run.masks()
    with pytest.raises(ValueError, match="masks: which weights are frozen is decided on attach"):
        pruner.run.set_masks([~mask for mask in before])
    assert all(torch.equal(a, b) for a, b in zip(before, pruner.run.masks(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"reinit": True}, {"weight_decay": True}])
def test_an_attach_that_fails_leaves_the_model_as_it_was(settings: dict[str, Any]) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="batches: there are none"):
        FreezeNet(**settings).attach(model, [])
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], after[key]) for key in before)

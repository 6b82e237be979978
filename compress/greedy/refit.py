"""A least-squares refit of the layers that read thinned channels: an addition to the paper, off unless asked for.

The shares of an imitation give every channel one factor, the same for all that is computed of it. Where channels are
far from parallel, as in trained networks they are, that leaves most of the error standing, and Σ a_i = 1 makes the
kept ones larger than they should be. With all weights of the kept columns free the best ones solve a linear system in
the second moments C = E[x xᵀ] of the reader's unfolded input, which the local search has summed up already:

    min_X E‖(V + X) x_S − W x‖² + λ‖X‖²,        X (C_SS + λ I) = (W − V_full) C_:S

W are the reader's weights, S the kept columns, V = N·a_i W_S those of the imitation (V_full has zeros elsewhere). What
the data do not determine stays with the imitation. He et al. 2017 (Channel pruning for accelerating very deep neural
networks, section 3.1) reconstruct layers in this way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.greedy.groups import ChannelGroup
from compress.greedy.local import Imitation
from compress.greedy.moments import Moments
from compress.shrink.layers import layer_size, weight_blocks, weight_from_blocks

Weights = Mapping[str, Tensor]  # layer name -> its weight, of the size before the cut
RIDGE = 1e-4  # λ as a fraction of the mean of the diagonal of C_SS


@torch.no_grad()
def refitted(
    model: nn.Module, group: ChannelGroup, moments: Mapping[str, Moments], imitation: Imitation
) -> dict[str, Tensor]:
    """New weights of the group's consumers; columns of units that go are 0.

    Args:
        model: the network in which the moments were taken.
        group: what is thinned.
        moments: second moments of every consumer's input.
        imitation: units that stay, and their shares.

    Returns:
        Consumer -> weight in its own shape and dtype. One whose second moments did not fit (`Moments`) is absent: there
        the scales stay.
    """
    found = {}
    for name, taken in moments.items():
        if all(part.covariance is not None for part in taken.parts):
            found[name] = _refit(model.get_submodule(name), taken, group.units * imitation.dense(group.units))
    return found


def _refit(module: nn.Module, moments: Moments, factors: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    old = weight_blocks(module)
    blocks = old.double().clone()
    width = layer_size(module).inputs // layer_size(module).groups
    for part in moments.parts:
        inside = factors[part.members]
        kept = np.flatnonzero(inside)
        scaled = part.weight * torch.from_numpy(inside).to(part.weight.device)
        if len(kept):
            columns = part.covariance_of(kept)  # [offsets · units, offsets · kept]
            start = scaled[:, :, kept]
            missing = (part.weight - scaled).permute(1, 0, 2).flatten(1) @ columns
            system = columns.reshape(len(scaled), part.units, -1)[:, kept].flatten(0, 1)
            del columns  # as large as the system, its factor and what the solver copies of that: never three of them
            ridge = RIDGE * float(system.diagonal().mean())
            if ridge > 0:
                system.diagonal().add_(ridge)
                system = torch.linalg.cholesky(system)
                correction = torch.cholesky_solve(missing.T, system)
                scaled[:, :, kept] = start + correction.reshape(len(scaled), len(kept), -1).permute(0, 2, 1)
        group = int(part.columns[0, 0]) // width
        picked = part.columns - group * width  # [M, units]
        outputs = scaled.shape[1]
        blocks[group][:, picked] = scaled.reshape(len(picked), -1, outputs, part.units).permute(2, 0, 3, 1)
    return weight_from_blocks(module, blocks.to(old.dtype))

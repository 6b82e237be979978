"""Opened attention computes what torch's and torchvision's does, and its heads are really removed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from greedy_checks import choose
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from compress.attention import OpenAttention, PlainAttention, open_attention, opened, opened_copy
from compress.greedy.costs import COSTS, Costs
from compress.greedy.groups import find_groups
from compress.greedy.thinning import scales, shrink_plan
from compress.greedy.trial import proven
from compress.methods import GreedyImitation
from compress.shrink import HeadCut, LayerCut, PlanError, ShrinkPlan, apply_plan, load_shrunk, save_shrunk, shrink
from compress_then_export.vision import torchvision

SWIN = torchvision.models.swin_transformer
BATCH, TOKENS, HEADS, WIDTH = 2, 5, 4, 12


def randomised(module: nn.Module) -> nn.Module:
    """In float64, no bias zero and no embedding the same everywhere."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return module.double().eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny_vit() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=HEADS, hidden_dim=16, mlp_dim=24, num_classes=5
    )
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tiny_swin(version: int) -> nn.Module:
    torch.manual_seed(0)
    more = {}
    if version == 2:
        more = {"block": SWIN.SwinTransformerBlockV2, "downsample_layer": SWIN.PatchMergingV2}
    model: nn.Module = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=[3, 3], num_classes=5, **more
    )
    return model.eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "vit": (tiny_vit, 16, 2),
    "swin": (lambda: tiny_swin(1), 32, 4),
    "swin v2": (lambda: tiny_swin(2), 32, 4),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"bias": False}, {"kdim": 7, "vdim": 6}], ids=["self", "no bias", "other dimensions"]
)
@pytest.mark.parametrize("masked", ["no", "bool", "float", "each head", "padding", "both"])
def test_plain_attention_is_multi_head_attention(
    batch_first: bool, need_weights: bool, settings: dict[str, Any], masked: str
) -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, **settings)
    twin = opened(randomised(module))
    assert isinstance(twin, PlainAttention)
    sizes = (WIDTH, settings.get("kdim", WIDTH), settings.get("vdim", WIDTH))
    inputs = [draw(BATCH, TOKENS + (n > 0), size, seed=n) for n, size in enumerate(sizes)]
    masks: dict[str, Tensor] = {}
    if masked == "bool":
        masks["attn_mask"] = torch.ones(TOKENS, TOKENS + 1, dtype=torch.bool).triu(1)
    if masked in ("float", "both"):
        masks["attn_mask"] = draw(TOKENS, TOKENS + 1, seed=7)
    if masked == "each head":
        masks["attn_mask"] = draw(BATCH * HEADS, TOKENS, TOKENS + 1, seed=7)
    if masked in ("padding", "both"):
        late = torch.arange(TOKENS + 1).expand(BATCH, -1) >= 3
        masks["key_padding_mask"] = late if masked == "padding" else late.double() * -9
    if not batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    for average in (True, False):
        expected = module(*inputs, need_weights=need_weights, average_attn_weights=average, **masks)
        found = twin(*inputs, need_weights=need_weights, average_attn_weights=average, **masks)
        assert torch.allclose(expected[0], found[0], atol=1e-12)
        if need_weights:
            assert torch.allclose(expected[1], found[1], atol=1e-12)
        else:
            assert found[1] is None
    if masked == "no":
        alone = [x[0] if batch_first else x[:, 0] for x in inputs]
        assert torch.allclose(module(*alone)[0], twin(*alone)[0], atol=1e-12)


@pytest.mark.parametrize("kind", [SWIN.ShiftedWindowAttention, SWIN.ShiftedWindowAttentionV2])
@pytest.mark.parametrize("size", [(8, 8), (10, 7), (4, 4), (4, 9)], ids=str)
@pytest.mark.parametrize("shift", [(0, 0), (2, 2), (2, 0), (1, 3)], ids=str)
def test_window_attention_is_that_of_swin(kind: Any, size: tuple[int, int], shift: tuple[int, int]) -> None:
    module = kind(dim=WIDTH, window_size=[4, 4], shift_size=list(shift), num_heads=3)
    twin = opened(randomised(module))
    x = draw(BATCH, *size, WIDTH)
    assert twin is not None
    assert torch.allclose(module(x), twin(x), atol=1e-12)


def test_opening_leaves_no_trace() -> None:
    model = tiny_vit().train()
    model.encoder.layers[0].self_attention.requires_grad_(False)  # type: ignore[index,union-attr]
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    twin = opened_copy(model, torch.zeros(1, 3, 16, 16))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True] * len(list(model.modules()))
    first, second = (module for module in twin.modules() if isinstance(module, OpenAttention))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert all(parameter.requires_grad for parameter in second.parameters())
    assert opened(first) is first
    with torch.no_grad():
        assert all(parameter.requires_grad for parameter in opened(model.encoder.layers[1].self_attention).parameters())  # type: ignore[index,union-attr]


class Own(nn.MultiheadAttention):
    """Who knows what it does."""


def test_what_is_not_opened() -> None:
    parametrized = nn.MultiheadAttention(8, 2)
    register_parametrization(parametrized.out_proj, "weight", nn.Identity())
    closed = [
        nn.MultiheadAttention(8, 2, add_bias_kv=True),
        nn.MultiheadAttention(8, 2, add_zero_attn=True),
        parametrized,
        Own(8, 2),
        nn.Linear(8, 2),
    ]
    assert [opened(module) for module in closed] == [None] * 5
    shared = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2)})
    shared["b"] = shared["a"]
    assert open_attention(shared)["a"] is shared["b"]
    assert isinstance(shared["a"], nn.MultiheadAttention)
    tied = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)])
    tied[1].in_proj_weight = tied[0].in_proj_weight  # type: ignore[assignment]
    assert [type(module) for module in open_attention(tied)] == [nn.MultiheadAttention] * 2  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="attn_mask: is_causal is a hint"):
        opened(nn.MultiheadAttention(8, 2))(*[torch.zeros(1, 3, 8)] * 3, is_causal=True)  # type: ignore[misc]


def test_inside_torchs_transformer() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 20, batch_first=True)
    model = randomised(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    twin = open_attention(copy.deepcopy(model))
    x = draw(BATCH, TOKENS, WIDTH)
    with torch.no_grad():  # where torch takes its fused path
        assert torch.allclose(model(x), twin(x), atol=1e-10)
    assert sum(isinstance(module, PlainAttention) for module in twin.modules()) == 2


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_removed_heads_are_those_scaled_by_zero(name: str, tmp_path: Path) -> None:
    """The oracle is the closed network: a head is a block of columns of the projection behind it."""
    make, size, attentions = MODELS[name]
    model, x = make(), torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    twin = opened_copy(model, x)
    network = proven(twin, find_groups(twin, x), x)
    of_heads = [group for group in network.groups if "attn" in group.name or "attention" in group.name]
    assert len(of_heads) == attentions
    rng = np.random.default_rng(0)
    thinned = [(group, choose(group, rng)) for group in of_heads]
    plan = shrink_plan(twin, network, thinned)
    assert len(plan.heads) == attentions
    masked = copy.deepcopy(model)
    for group, imitation in thinned:
        (consumer,) = group.consumers
        weight = masked.get_submodule(consumer).weight
        factors = torch.from_numpy(scales(group, imitation)).float()
        weight.mul_(factors.repeat_interleave(weight.shape[1] // group.units))  # type: ignore[operator,union-attr]
    cut = apply_plan(copy.deepcopy(model), ShrinkPlan.from_json(plan.to_json()))
    expected, found = masked(x), cut(x)
    assert (expected - found).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected - model(x)).abs().max() > 1e-3 * expected.abs().max()
    again = apply_plan(copy.deepcopy(twin), plan)  # one that is open already
    assert torch.equal(again(x), found)

    widths = [len(plan.heads[f"{group.name.rpartition('.')[0]}"].kept) if group in of_heads else group.units
              for group in network.groups]  # fmt: skip
    costs = Costs(twin, network)
    state = [*cut.parameters(), *cut.buffers()]
    assert costs.of("parameters", widths) == sum(p.numel() for p in cut.parameters())
    assert costs.of("size", widths) == sum(t.numel() * t.element_size() for t in state)
    assert all(costs.fraction(cost, [g.units for g in network.groups]) == 1 for cost in COSTS)

    save_shrunk(cut, plan, tmp_path)
    loaded = load_shrunk(make(), tmp_path).eval()
    assert torch.equal(loaded(x), found)


def test_macs_count_what_attention_multiplies_by_weights() -> None:
    model, x = tiny_vit(), torch.zeros(1, 3, 16, 16)
    twin = opened_copy(model, x)
    network = find_groups(twin, x)
    tokens, width = 5, 16
    block = 4 * width**2 + 2 * width * 24
    whole = 4 * (3 * 8 * 8) * width + tokens * 2 * block + width * 5
    costs = Costs(twin, network)
    full = [group.units for group in network.groups]
    assert costs.of("macs", full) == whole
    assert full == [4, 24, 4, 24]
    assert costs.of("macs", [1, 24, 4, 24]) == whole - tokens * 4 * width * 12


def test_greedy_imitation_removes_heads_of_a_plain_vit() -> None:
    model = tiny_vit().train()
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(8, 3, 16, 16, generator=generator), torch.arange(8) % 5)]
    pruner = GreedyImitation(width=0.5)
    pruner.attach(model, data)
    found = [module for module in model.modules() if isinstance(module, PlainAttention)]
    assert [module.heads for module in found] == [2, 2]
    assert [module.query.weight.shape for module in found] == [(8, 16)] * 2
    assert model.training
    assert model.encoder.layers[0].mlp[0].out_features == 12  # type: ignore[index,union-attr]
    model(data[0][0]).sum().backward()  # an ordinary network, which trains on
    assert all(parameter.grad is not None for parameter in model.parameters())
    pruner.finish()


def test_attention_that_stays_closed_says_so() -> None:
    model = tiny_vit()
    model.encoder.layers[1].self_attention = Own(16, HEADS, batch_first=True)  # type: ignore[index,union-attr]
    pruner = GreedyImitation(width=0.5, imitation="local")
    pruner.attach(model, [(torch.randn(4, 3, 16, 16), torch.arange(4))])
    (note,) = [note for note in pruner.run.plan.notes if "layer_1.self_attention" in note]  # type: ignore[union-attr]
    assert note.endswith("its channels stay, it is attention of a kind that cannot be opened, or shared")
    assert [type(layer.self_attention) for layer in model.encoder.layers] == [PlainAttention, Own]  # type: ignore[union-attr]


def test_dead_heads_of_opened_attention_are_shrunk_away() -> None:
    model, x = open_attention(tiny_vit()), torch.randn(2, 3, 16, 16)
    attention = model.encoder.layers[0].self_attention  # type: ignore[index,union-attr]
    with torch.no_grad():
        attention.out_proj.weight[:, 4:8] = 0
        expected = model(x)
    plan = shrink(model, x)
    assert plan.heads == {"encoder.layers.encoder_layer_0.self_attention": HeadCut(heads=4, kept=(0, 2, 3))}
    with torch.no_grad():
        assert torch.allclose(expected, model(x), atol=1e-5)
    assert model.encoder.layers[0].self_attention.heads == 3  # type: ignore[index,union-attr]


NAME = "encoder.layers.encoder_layer_0.self_attention"
ROWS = LayerCut(outputs=16, inputs=16, kept_outputs=tuple(range(8)), kept_inputs=tuple(range(16)))
COLUMNS = LayerCut(outputs=16, inputs=16, kept_outputs=tuple(range(16)), kept_inputs=tuple(range(8)))
LAYERS = {f"{NAME}.{layer}": ROWS for layer in ("query", "key", "value")} | {f"{NAME}.out_proj": COLUMNS}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ShrinkPlan(heads={"conv_proj": HeadCut(heads=4, kept=(0,))}), "'conv_proj': the plan removes attention heads"),
        (ShrinkPlan(heads={"": HeadCut(heads=4, kept=(0,))}), "'': the plan removes attention heads"),
        (ShrinkPlan(heads={NAME: HeadCut(heads=3, kept=(0,))}), "the plan is for 3 heads, this model has 4"),
        (ShrinkPlan(heads={NAME: HeadCut(heads=4, kept=(0,))}), "query: its kept outputs are not those of the heads"),
        (ShrinkPlan(heads={NAME: HeadCut(heads=4, kept=(0, 2))}, layers=LAYERS), "query: its kept outputs are not"),
        (ShrinkPlan(layers=LAYERS), "which this model does not have"),
        (
            ShrinkPlan(heads={NAME: HeadCut(heads=4, kept=(0, 1))}, layers=LAYERS | {"nowhere": ROWS}),
            "the plan names the module 'nowhere'",
        ),
    ],
)
def test_plans_of_other_models_change_nothing(plan: ShrinkPlan, message: str) -> None:
    model = tiny_vit()
    before = [type(module) for module in model.modules()]
    with pytest.raises(PlanError, match=message):
        apply_plan(model, plan)
    assert [type(module) for module in model.modules()] == before


def test_head_cuts_check_themselves() -> None:
    for heads, kept, message in ((0, (0,), "heads"), (2, (), "kept"), (2, (2,), "index"), (3, (1, 1), "ascending")):
        with pytest.raises(PlanError, match=message):
            HeadCut(heads=heads, kept=kept)
    document = ShrinkPlan(heads={"a": HeadCut(heads=4, kept=(1, 3))}).to_document()
    assert ShrinkPlan.from_document({**document, "heads": {"a": {"heads": 4, "kept": [1, 3]}}}).heads == {
        "a": HeadCut(heads=4, kept=(1, 3))
    }
    del document["heads"]  # a plan from before there were any
    assert ShrinkPlan.from_document(document).heads == {}
    with pytest.raises(PlanError, match="a has the unknown key 'more'"):
        ShrinkPlan.from_document({**document, "heads": {"a": {"heads": 4, "kept": [1], "more": 1}}})
    with pytest.raises(PlanError, match="twice, as layer and as heads"):
        ShrinkPlan(layers={"a": ROWS}, heads={"a": HeadCut(heads=1, kept=(0,))})

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_then_export.data import DataError, Dataset, Normalisation
from compress_then_export.data.augmentation import Augmentation
from compress_then_export.data.normalisation import measure
from compress_then_export.data.resize import resize
from compress_then_export.data.split import StreamSplit, TensorSplit


def tensor_split(count: int = 23, shape: tuple[int, int, int] = (3, 8, 8)) -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)  # names the item
    return TensorSplit(images=images, labels=torch.arange(count) % 5)


class Noisy(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Items whose augmentation draws from torch's global state, as torchvision's transforms do."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 4, 4), float(index)), index % 5


def add_noise(image: torch.Tensor, augment: bool) -> torch.Tensor:
    return image + torch.rand(image.shape) / 2 if augment else image


def dataset(train: object = None, *, workers: int = 0, augment: bool = True) -> Dataset:
    stream = train == "stream"
    split = (
        StreamSplit(items=Noisy(), indices=range(11), prepare=add_noise, shape=(1, 4, 4), workers=workers)
        if stream
        else (train or tensor_split())
    )
    channels = 1 if stream else split.images.shape[1]
    return Dataset(
        source="test",
        num_classes=5,
        input_shape=(1, 4, 4) if stream else tuple(split.images.shape[1:]),
        class_names=None,
        normalisation=Normalisation(mean=(0.5,) * channels, std=(0.25,) * channels),
        train=split,
        test=split,
        augmentation=None if stream else Augmentation(shift=2, mirror=True, fill=7),
        augment=augment,
        seed=3,
    )


def collect(batches: object) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = list(batches)  # type: ignore[call-overload]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_an_epoch_depends_on_seed_and_number_alone(kind: str) -> None:
    data = dataset("stream" if kind == "stream" else None)
    loader = data.loader("train", batch_size=4)
    first = [collect(loader.epoch(epoch)) for epoch in range(3)]
    torch.manual_seed(99)
    np.random.seed(99)
    state = torch.get_rng_state()
    again = collect(data.loader("train", batch_size=4, seed=3).epoch(2))
    assert torch.equal(torch.get_rng_state(), state), "reading data must leave torch's random state alone"
    assert torch.equal(first[2][0], again[0]) and torch.equal(first[2][1], again[1])
    assert not torch.equal(first[0][0], first[1][0])
    other = collect(data.loader("train", batch_size=4, seed=4).epoch(2))
    assert not torch.equal(other[0], again[0])
    assert torch.equal(collect(data.loader("train", batch_size=4, epoch=2))[0], again[0])
    assert torch.equal(collect(loader.at(2))[0], again[0])


def test_workers_change_nothing() -> None:
    alone = collect(dataset("stream").loader("train", batch_size=4).epoch(1))
    shared = collect(dataset("stream", workers=2).loader("train", batch_size=4).epoch(1))
    assert torch.equal(alone[0], shared[0]) and torch.equal(alone[1], shared[1])


def test_an_epoch_holds_every_item_once_with_its_label() -> None:
    data = dataset(augment=False)
    images, labels = collect(data.loader("train", batch_size=5, drop_last=False).epoch(4))
    names = ((images[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long()
    assert sorted(names.tolist()) == list(range(23)) and names.tolist() != list(range(23))
    assert torch.equal(names % 5, labels)


@pytest.mark.parametrize(
    ("split", "batch_size", "options", "batches", "samples"),
    [
        ("train", 5, {}, 4, 20),
        ("train", 23, {}, 1, 23),
        ("train", 64, {}, 1, 23),
        ("train", 5, {"drop_last": False}, 5, 23),
        ("test", 5, {}, 5, 23),
        ("test", 5, {"drop_last": True}, 4, 20),
    ],
)
def test_number_of_batches(split: str, batch_size: int, options: dict[str, bool], batches: int, samples: int) -> None:
    loader = dataset().loader(split, batch_size=batch_size, **options)  # type: ignore[arg-type]
    read = [len(labels) for _, labels in loader]
    assert (len(loader), loader.samples) == (batches, samples)
    assert len(read) == batches and sum(read) == samples


def test_test_split_comes_in_order_and_unaugmented() -> None:
    data = dataset()
    images, labels = collect(data.loader("test", batch_size=4))
    assert torch.equal(images, Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)(data.test.images))
    assert torch.equal(labels, data.test.labels)
    items = data.items("test")
    image, label = items[7]
    assert len(items) == 23 and torch.equal(image, images[7]) and label == 2
    assert torch.equal(items[-1][0], images[-1])
    with pytest.raises(IndexError):
        items[23]


def test_float_images_are_not_written_to() -> None:
    split = TensorSplit(images=torch.rand(6, 1, 4, 4), labels=torch.zeros(6, dtype=torch.int64))
    before = split.images.clone()
    collect(dataset(split).loader("train", batch_size=2, augment=False).epoch(0))
    assert torch.equal(split.images, before)


@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_sample_is_fixed_without_repeats_and_unaugmented(kind: str) -> None:
    data = dataset("stream" if kind == "stream" else None)
    everything, _ = collect(data.loader("test", batch_size=50))
    inputs, labels = data.sample("test", 6, seed=1)
    again, _ = data.sample("test", 6, seed=1)
    assert inputs.shape[0] == len(labels) == 6 and torch.equal(inputs, again)
    positions = [[i for i, whole in enumerate(everything) if torch.equal(whole, one)] for one in inputs]
    assert all(len(found) == 1 for found in positions) and positions == sorted(positions)
    assert data.sample("test", 1000)[0].shape[0] == len(data.test)
    with pytest.raises(DataError, match="count=0"):
        data.sample("test", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"epoch": -1}, "epoch=-1"),
    ],
)
def test_loader_settings_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset().loader("train", **options)


def test_unknown_split_and_negative_epoch() -> None:
    with pytest.raises(DataError, match="split='validation'"):
        dataset().loader("validation")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="epoch=-2"):
        dataset().loader("train").epoch(-2)


def naive_augmentation(images: torch.Tensor, how: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """Image by image, with the random numbers drawn in the same order."""
    count, _, height, width = images.shape
    offsets = rng.integers(0, 2 * how.shift + 1, size=(2, count, 1))
    mirrored = rng.random(count) < 0.5 if how.mirror else np.zeros(count, bool)
    result = []
    for index, image in enumerate(images):
        padded = torch.full((image.shape[0], height + 2 * how.shift, width + 2 * how.shift), how.fill)
        padded[:, how.shift : how.shift + height, how.shift : how.shift + width] = image
        top, left = int(offsets[0, index, 0]), int(offsets[1, index, 0])
        crop = padded[:, top : top + height, left : left + width]
        result.append(crop.flip(2) if mirrored[index] else crop)
    return torch.stack(result).to(images.dtype)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 6),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    shift=st.integers(0, 3),
    mirror=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_augmentation_equals_the_naive_one(
    count: int, height: int, width: int, shift: int, mirror: bool, seed: int
) -> None:
    images = torch.arange(count * 3 * height * width).reshape(count, 3, height, width) % 251
    how = Augmentation(shift=shift, mirror=mirror, fill=9.0)
    fast = how(images.to(torch.uint8), np.random.default_rng(seed))
    slow = naive_augmentation(images.to(torch.uint8), how, np.random.default_rng(seed))
    assert fast.dtype == torch.uint8 and torch.equal(fast, slow)


def test_augmentation_reaches_every_shift_and_both_mirrorings() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 1] = 1.0
    how = Augmentation(shift=1, mirror=True)
    out = how(image.expand(2000, 1, 5, 5), np.random.default_rng(0))
    places = {tuple(place) for place in out[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in range(5)}


def test_measured_mean_and_std_match_numpy() -> None:
    images = tensor_split(3000, (3, 4, 4)).images
    normalisation = measure(images)
    values = images.double().numpy() / 255
    np.testing.assert_allclose(normalisation.mean, values.mean(axis=(0, 2, 3)), atol=1e-7)
    np.testing.assert_allclose(normalisation.std, values.std(axis=(0, 2, 3)), atol=1e-7)
    done = normalisation(images)
    assert done.dtype == torch.float32
    torch.testing.assert_close(done.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_constant_images_do_not_divide_by_zero() -> None:
    images = torch.full((4, 1, 2, 2), 0.5)
    assert bool(measure(images)(images).isfinite().all())


def test_resize_keeps_type_and_converts_channels() -> None:
    images = tensor_split(5, (1, 8, 8)).images
    rgb = resize(images, (3, 8, 8))
    assert rgb.dtype == torch.uint8 and torch.equal(rgb, images.expand(5, 3, 8, 8))
    assert torch.equal(resize(rgb, (1, 8, 8)), images)
    assert resize(images, (3, 28, 20)).shape == (5, 3, 28, 20)
    flat = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    assert bool((resize(flat, (1, 5, 13)) == 200).all())
    with pytest.raises(DataError, match="cannot make 2 channels out of 1"):
        resize(images, (2, 8, 8))
    with pytest.raises(DataError, match="GiB"):
        resize(images[:, :1].expand(5, 1, 8, 8), (3, 20_000, 20_000))


def test_stream_errors_name_the_item() -> None:
    class Odd(Noisy):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            if index == 2:
                raise OSError("broken image")
            shape = (1, 4, 5) if index == 3 else (1, 4, 4)
            value = float("nan") if index == 4 else 0.0
            return torch.full(shape, value), 9 if index == 5 else 0

    def read(index: int) -> None:
        data = dataset("stream")
        split = StreamSplit(items=Odd(), indices=[index], prepare=add_noise, shape=(1, 4, 4))
        object.__setattr__(data, "test", split)
        list(data.loader("test"))

    read(0)
    with pytest.raises(DataError, match="item 2 cannot be read: broken image"):
        read(2)
    with pytest.raises(DataError, match=r"item 3 has shape \(1, 4, 5\)"):
        read(3)
    with pytest.raises(DataError, match="NaN"):
        read(4)
    with pytest.raises(DataError, match=r"outside 0\.\.4"):
        read(5)

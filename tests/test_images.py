"""Value ranges, resampling and equalisation, held against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from simgan_core.images import equalise, resize, tensor_of, to_float, to_grey, to_uint8


def test_float_and_back_is_exact_for_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = to_float(levels)
    assert values.dtype == torch.float32 and values.min() == -1 and values.max() == 1
    assert torch.equal(to_uint8(values), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


@pytest.mark.parametrize("levels", [(0, 256), (90, 140), (0, 3), (255, 256), (17, 18)])
def test_equalise_is_bit_equal_to_opencv(levels: tuple[int, int]) -> None:
    rng = np.random.default_rng(levels[1])
    images = rng.integers(*levels, (64, 1, 36, 60)).astype(np.uint8)
    smooth = cv2.GaussianBlur(images.transpose(1, 2, 3, 0)[0], (0, 0), 3).transpose(2, 0, 1)[:, None]
    for batch in (images, smooth):
        expected = np.stack([cv2.equalizeHist(image[0])[None] for image in batch])
        assert np.array_equal(equalise(torch.from_numpy(batch)).numpy(), expected)


def test_equalise_in_colour_acts_on_luma_and_keeps_colour_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 130, (4, 3, 35, 55), generator=generator, dtype=torch.uint8)
    out = equalise(images)
    inside = ((out > 0) & (out < 255)).all(dim=1)
    before = images[:, 0].int() - images[:, 2].int()
    after = out[:, 0].int() - out[:, 2].int()
    assert torch.equal(before[inside], after[inside]) and inside.float().mean() > 0.5
    assert to_grey(out).float().std() > 3 * to_grey(images).float().std()


def test_resize_is_bilinear_with_half_pixel_centres() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 1, 36, 60)).astype(np.uint8)
    got = resize(torch.from_numpy(images), (35, 55)).numpy()
    expected = np.stack([cv2.resize(i[0].astype(np.float32), (55, 35), interpolation=cv2.INTER_LINEAR) for i in images])
    assert got.dtype == np.uint8 and got.shape == (3, 1, 35, 55)
    assert np.abs(got[:, 0] - expected).max() <= 0.51
    floats = to_float(torch.from_numpy(images))
    assert torch.equal(resize(floats, (36, 60)), floats)


def test_strong_reduction_does_not_alias() -> None:
    stripes = (torch.arange(800) % 2 * 255).to(torch.uint8).expand(1, 1, 600, 800)
    assert (resize(stripes, (35, 55)).float() - 127.5).abs().max() < 3


def test_grey_has_the_luma_of_opencv() -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    grey = to_grey(torch.from_numpy(colour).permute(2, 0, 1)[None])[0, 0].numpy()
    assert np.abs(grey.astype(int) - cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)).max() <= 1


def test_errors_say_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"\(35, 55\) found; \[B, 1 or 3, H, W\] expected"):
        to_float(torch.zeros(35, 55, dtype=torch.uint8))
    with pytest.raises(TypeError, match="uint8, 0 to 255, expected"):
        to_float(torch.zeros(1, 1, 2, 2))
    with pytest.raises(TypeError, match="to_float first"):
        to_uint8(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least 1"):
        resize(torch.zeros(1, 1, 2, 2), (0, 5))


def test_arrays_that_may_not_be_written_become_tensors_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    array = np.arange(6, dtype=np.uint8)
    array.flags.writeable = False
    tensor = tensor_of(array)
    tensor += 1
    assert array[0] == 0 and not recwarn.list

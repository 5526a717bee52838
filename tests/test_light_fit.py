"""The light across the face: its field, its terms in pictures, and the fit to unlabelled images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from simgan_core.evaluation.light_fit import fit_light, light_terms
from simgan_core.simulators import EyeRanges, EyeSimulator
from simgan_core.simulators.light import falloff_field
from simgan_core.simulators.simulate import finish, load_assets


@pytest.fixture(scope="module")
def simulator() -> EyeSimulator:
    return EyeSimulator(load_assets(None), EyeRanges())


def test_the_field_is_brighter_where_its_terms_say() -> None:
    field = falloff_field(torch.eye(5), (36, 60))
    assert field.shape == (5, 1, 36, 60)
    x, y, xx, yy, xy = field[:, 0]
    assert (x.diff(dim=1) > 0).all() and (x.diff(dim=0) == 0).all()
    assert (y.diff(dim=0) > 0).all()
    assert xx[0, 0] == xx[0, -1] > 1 > xx[0, 30]
    assert yy[0, 0] == yy[-1, 0] > 1 > yy[18, 0]
    assert xy[0, 0] > 1 > xy[0, -1]
    assert torch.equal(falloff_field(torch.zeros(2, 5), (36, 60)), torch.ones(2, 1, 36, 60))


def test_renders_are_lit_by_the_field_and_keep_their_labels(simulator: EyeSimulator) -> None:
    plain = simulator.sample(0, range(8))
    assert not plain.falloff.any()
    lit = replace(plain, falloff=torch.tensor([0.8, 0, 0, 0, 0]).expand(8, 5))
    before, after = simulator.render(plain), simulator.render(lit)
    assert torch.equal(before.labels.pupil, after.labels.pupil)
    as_bytes = [finish(batch.image, (35, 55), equalise=True).numpy() for batch in (before, after)]
    rise = light_terms(as_bytes[1]) - light_terms(as_bytes[0])
    assert (rise[:, 0] > 15).all()  # grey levels from the middle to the edge
    assert np.abs(rise[:, 1:].mean(0)).max() < rise[:, 0].mean() / 2


def test_terms_of_known_pictures() -> None:
    x = np.linspace(-1, 1, 55)
    ramp = np.broadcast_to(128 + 100 * x, (3, 1, 35, 55)).astype(np.uint8)
    assert light_terms(ramp)[0] == pytest.approx([100, 0, 0, 0, 0], abs=2)


def test_a_hidden_light_is_found_again(simulator: EyeSimulator) -> None:
    hidden = replace(simulator.ranges, falloff_x_normal=(0.6, 0.5), falloff_yy_normal=(0.5, 0.0))
    photographs = [
        finish(simulator.render(simulator.sample(9, range(start, start + 32), hidden)).image, (35, 55), equalise=True)
        for start in range(0, 256, 32)
    ]
    found = fit_light(simulator, torch.cat(photographs).numpy(), renders=128, evaluations=120)
    assert found.distance_after < 0.1 * found.distance_before
    assert found.ranges.falloff_x_normal == pytest.approx((0.6, 0.5), abs=0.2)
    assert found.ranges.falloff_yy_normal[0] == pytest.approx(0.5, abs=0.25)
    assert set(found.to_dict()) == {"light_distance_before", "light_distance_after"} | {
        f"falloff_{term}_normal" for term in ("x", "y", "xx", "yy", "xy")
    }


def test_the_same_light_is_found_in_images_that_are_not_equalised(simulator: EyeSimulator) -> None:
    """A unit of light is twice as many grey levels there as at the fifth of the exposure that serves equalised ones."""
    hidden = replace(simulator.ranges, falloff_x_normal=(0.5, 0.2))
    drawn = [simulator.sample(9, range(start, start + 32), hidden) for start in range(0, 256, 32)]
    photographs = torch.cat([finish(simulator.render(one).image, (35, 55), equalise=False) for one in drawn]).numpy()
    found = fit_light(simulator, photographs, equalise=False, renders=128, evaluations=120)
    assert found.ranges.falloff_x_normal[0] == pytest.approx(0.5, abs=0.15)


def test_too_few_photographs_are_refused(simulator: EyeSimulator) -> None:
    with pytest.raises(ValueError, match="at least 2 expected"):
        fit_light(simulator, np.zeros((1, 1, 35, 55), np.uint8))

"""Configuration: strict reading, honest provenance, profiles that differ in sizes only."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_args

import pytest

from simgan_core import config as c
from simgan_core import profiles
from simgan_core.deviations import page

SIZES = {"steps", "batch", "width", "blocks", "history_images", "seeds", "ablation_seeds", "profile"}
SIZES |= {"stops", "ablation_stop"}
SIZES |= {"pretrain_refiner", "pretrain_discriminator", "log_every", "sample_every", "checkpoint_every"}
SIZES |= {"synthetic_images", "real_images", "test_images"}


def leaves(node: object, prefix: str = "") -> dict[str, tuple[object, dict]]:
    found: dict[str, tuple[object, dict]] = {}
    for f in fields(node):
        value = getattr(node, f.name)
        name = f"{prefix}{f.name}"
        found |= leaves(value, name + ".") if is_dataclass(value) else {name: (value, dict(f.metadata))}
    return found


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_profiles_survive_json(name: str) -> None:
    profile = profiles.profile(name)
    assert profile.profile == name
    assert c.from_json(c.to_json(profile)) == profile


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_profiles_differ_in_sizes_only(name: str) -> None:
    ours, reference = leaves(profiles.profile(name)), leaves(profiles.cpu())
    differing = {key for key in ours if ours[key][0] != reference[key][0]}
    assert {key.rsplit(".", 1)[-1] for key in differing} <= SIZES


def test_every_hyperparameter_has_a_source_and_a_reason() -> None:
    for name, (_, metadata) in leaves(c.Config()).items():
        assert metadata["source"] in get_args(c.Source), name
        assert len(metadata["reason"]) > 5, name
        assert metadata["paper"], name


def test_paper_profile_has_the_papers_numbers() -> None:
    paper = profiles.paper()
    assert (paper.refiner.width, paper.refiner.blocks, paper.refiner.kernel) == (64, 4, 3)
    assert (paper.training.batch, paper.training.k_g, paper.training.k_d) == (512, 2, 1)
    assert (paper.training.pretrain_refiner, paper.training.pretrain_discriminator) == (1000, 200)
    assert paper.training.learning_rate == 0.001
    assert paper.data.size == (35, 55) and paper.gaze.width == 1.0


def test_lambda_is_converted_by_pixels_per_patch() -> None:
    assert c.patch_grid((35, 55)) == (9, 14)
    assert c.lambda_sum_to_mean(0.01, (35, 55)) == pytest.approx(0.01 * 1925 / 126)
    assert c.lambda_sum_to_mean(1.0, (36, 60)) == pytest.approx(16.0)
    assert profiles.cpu().lambda_mean == pytest.approx(profiles.cpu().loss.lambda_mean)


def test_overrides_read_text_as_the_fields_type() -> None:
    changed = c.with_overrides(
        profiles.cpu(), {"loss.lambda_sum": "0.3", "data.size": "36x60", "training.steps": 7, "loss.psi": "derivatives"}
    )
    assert changed.loss.lambda_sum == 0.3 and changed.data.size == (36, 60)
    assert changed.training.steps == 7 and changed.loss.psi == "derivatives"
    assert profiles.cpu().training.steps != 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"loss.lamda_sum": 1}, "Did you mean 'loss.lambda_sum'"),
        ({"lambda_sum": 1}, "Did you mean 'loss.lambda_sum'"),
        ({"los.lambda_sum": 1}, "no section 'los'"),
        ({"loss": 1}, "is a section"),
        ({"training.steps": 2.5}, "whole number"),
        ({"training.steps": True}, "whole number"),
        ({"training.steps": -1}, "0 or more"),
        ({"training.batch": 3}, "even number"),
        ({"training.batch": 2000}, "at least half a batch"),
        ({"training.learning_rate": "nan"}, "a number"),
        ({"training.learning_rate": 0}, "more than 0"),
        ({"loss.psi": "pixels"}, "one of 'identity'"),
        ({"loss.psi": "learned"}, "file of weights"),
        ({"refiner.channels": 3}, "channels differ"),
        ({"refiner.kernel": 4}, "odd number"),
        ({"data.size": 35}, "2 numbers"),
    ],
)
def test_wrong_overrides_name_the_remedy(override: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c.with_overrides(profiles.cpu(), override)


def test_unknown_names_raise_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'cpu'"):
        profiles.profile("cpuu")
    with pytest.raises(ValueError, match="'loss.lambda_sun'. Did you mean 'lambda_sum'"):
        c.from_dict({"loss": {"lambda_sun": 1.0}})
    with pytest.raises(ValueError, match="not JSON"):
        c.from_json("{")
    with pytest.raises(ValueError, match="an object"):
        c.from_json('{"loss": 3}')


def test_data_decide_the_number_of_seeds_and_nothing_else() -> None:
    """The claims are of real images, and refiners of two seeds differ by about what refining gains."""
    for name in profiles.PROFILES:
        plain, real = profiles.profile(name), profiles.profile(name, "mini")
        assert real.seeds >= plain.seeds and replace(real, seeds=plain.seeds) == plain
    assert profiles.profile("cpu", "mini").seeds == 5 and profiles.profile("cpu").seeds == 3


def test_colour_takes_the_papers_psi_for_colour() -> None:
    colour = c.with_channels(profiles.cpu(), 3)
    assert colour.loss.psi == "channel_mean"
    assert (colour.data.channels, colour.refiner.channels, colour.discriminator.channels) == (3, 3, 3)


def test_the_page_of_deviations_is_up_to_date() -> None:
    written = Path(__file__).parents[1] / "docs" / "deviations.md"
    assert written.read_text() == page(), "run: python -m simgan_core.deviations"


def test_the_page_names_every_hyperparameter_once() -> None:
    text = page()
    for name in leaves(c.Config()):
        if name not in ("profile",):
            assert text.count(f"| `{name}` |") == 1, name

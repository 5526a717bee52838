"""What can be moved in the notebooks: an eye from sliders to refined, live; samples over the steps of a training.

The pictures are made by plain functions of numbers (`EyeBench.picture`, `StepViewer.picture`), which headless runs use
for their static figures; the widgets only call them. Legend: C H W image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from simgan_core.checkpoints import load_refiner
from simgan_core.models import Refiner
from simgan_core.refine import refine_images
from simgan_core.run_folder import RunFolder
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES
from simgan_core.simulators.ranges import EyeParameters, EyeRanges
from simgan_core.simulators.simulate import finish, load_assets

Images = NDArray[np.uint8]
HEADLESS = "SIMGAN_HEADLESS"
"""Set by `simgan_core.execution`: nobody is there to move a slider."""
ZOOM = 6
GAP = 4  # pixels between pictures, before zooming

SLIDERS: Mapping[str, tuple[str, float, float, float]] = {
    "gaze_pitch": ("gaze up / down (°)", -25.0, 10.0, -8.0),
    "gaze_yaw": ("gaze left / right (°)", -25.0, 25.0, 0.0),
    "head_pitch": ("head up / down (°)", -20.0, 20.0, 0.0),
    "head_yaw": ("head left / right (°)", -20.0, 20.0, 0.0),
    "light_azimuth": ("light from the side (°)", -80.0, 80.0, 0.0),
    "light_elevation": ("light from above (°)", -30.0, 80.0, 15.0),
    "light_intensity": ("strength of the light", 0.0, 2.0, 0.9),
}
"""Name of each setting: what the slider says, its ends and where it starts."""


@dataclass
class EyeBench:
    """Renders one eye from the sliders' values and refines it.

    Attributes:
        simulator: draws and renders; its seed gives the identities.
        refiners: per label (e.g. 'λ = 0.2') and seed, the folder of a training.
        size: (height, width) of the images.
        equalise: as in the training's images.

    """

    simulator: EyeSimulator
    refiners: Mapping[str, Mapping[int, Path]]
    size: tuple[int, int] = (35, 55)
    equalise: bool = True
    seed: int = 7
    _loaded: dict[Path, Refiner] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunFolder, refiners: Mapping[str, Mapping[int, Path]]) -> EyeBench:
        """With the synthetic eyes of a run: UnityEyes' assets or procedural ones."""
        folder = run.data_root / "unityeyes2"
        unityeyes = run.data != "embedded" and folder.is_dir()
        ranges = MPIIGAZE_RANGES if unityeyes else EyeRanges()
        simulator = EyeSimulator(load_assets(folder if unityeyes else None), ranges)
        return cls(simulator, refiners, run.config.data.size)

    def parameters(self, identity: int, values: Mapping[str, float]) -> EyeParameters:
        """Eye number `identity` of the bench's seed, with the given settings in the place of its own.

        Raises:
            KeyError: a setting that no slider has.

        """
        unknown = set(values) - set(SLIDERS)
        if unknown:
            raise KeyError(f"settings {sorted(unknown)} found; expected some of {', '.join(SLIDERS)}")
        chosen = {name: start for name, (_, _, _, start) in SLIDERS.items()} | dict(values)
        rad = {name: float(np.deg2rad(value)) for name, value in chosen.items()}
        drawn = self.simulator.sample(self.seed, [identity])
        azimuth, elevation = rad["light_azimuth"], rad["light_elevation"]
        light = [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), -np.cos(azimuth) * np.cos(elevation)]
        return replace(
            drawn,
            gaze=torch.tensor([[rad["gaze_pitch"], rad["gaze_yaw"]]], dtype=torch.float32),
            head=torch.tensor([[rad["head_pitch"], rad["head_yaw"], float(drawn.head[0, 2])]], dtype=torch.float32),
            light=torch.tensor([light], dtype=torch.float32),
            light_intensity=torch.tensor([chosen["light_intensity"]], dtype=torch.float32),
        )

    def images(self, label: str, seed: int, identity: int, **values: float) -> tuple[Images, Images]:
        """The render and its refined version, uint8 [C, H, W] each."""
        eyes = self.simulator.render(self.parameters(identity, values))
        render = finish(eyes.image, self.size, self.equalise).numpy()
        return render[0], refine_images(self.refiner(label, seed), render)[0]

    def refiner(self, label: str, seed: int) -> Refiner:
        """The refiner of that label and seed; KeyError names the seeds that the label has."""
        folders = self.refiners[label]
        if seed not in folders:
            raise KeyError(f"seed {seed} of {label!r} found; trained are {', '.join(map(str, folders))}")
        folder = folders[seed]
        if folder not in self._loaded:
            self._loaded[folder] = load_refiner(folder)
        return self._loaded[folder]

    def seeds_of(self, label: str) -> list[int]:
        """Seeds that were trained with that label."""
        return sorted(self.refiners[label])

    def picture(self, label: str, seed: int, identity: int, **values: float) -> Images:
        """Render, refined and what changed (grey = nothing), side by side."""
        render, refined = self.images(label, seed, identity, **values)
        return beside([_hwc(render), _hwc(refined), difference(_hwc(render), _hwc(refined))])

    def sweep(self, label: str, seed: int, identity: int, name: str, count: int = 8) -> tuple[Images, Images]:
        """Renders and refined versions [count, C, H, W] while one slider goes from end to end: for a static figure."""
        _, low, high, _ = SLIDERS[name]
        pairs = [self.images(label, seed, identity, **{name: float(v)}) for v in np.linspace(low, high, count)]
        return np.stack([render for render, _ in pairs]), np.stack([refined for _, refined in pairs])


@dataclass(frozen=True)
class StepViewer:
    """Sample eyes over the steps of several trainings.

    Attributes:
        iterations: [T] where samples were written.
        renders: [n, H, W] or [n, H, W, 3].
        refined: per training's title, [T, n, H, W] or with a last axis of 3.

    """

    iterations: Sequence[int]
    renders: Images
    refined: Mapping[str, Images]

    @classmethod
    def of(cls, samples: Mapping[str, tuple[Sequence[int], Images, Images]]) -> StepViewer:
        """From `Ablation.samples` of trainings of equal length.

        Raises:
            ValueError: their iterations differ.

        """
        iterations, renders, _ = next(iter(samples.values()))
        if any(list(found) != list(iterations) for found, _, _ in samples.values()):
            listed = {title: list(found) for title, (found, _, _) in samples.items()}
            raise ValueError(f"samples at {listed}; expected the same iterations; train with the same steps")
        return cls(list(iterations), renders, {title: refined for title, (_, _, refined) in samples.items()})

    def picture(self, sample: int, step: int) -> Images:
        """Render, then refined and what changed for each training, for sample number and place of the step."""
        render = self.renders[sample]
        parts = [render]
        for refined in self.refined.values():
            parts += [refined[step, sample], difference(render, refined[step, sample])]
        return beside(parts)

    @property
    def titles(self) -> list[str]:
        """What the pictures of `picture` show, in their order."""
        return ["synthetic"] + [text for title in self.refined for text in (title, f"{title}: change")]


def _hwc(image: Images) -> Images:
    """[C, H, W] as [H, W] or [H, W, 3]."""
    return image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))


def difference(before: Images, after: Images) -> Images:
    """What changed, with 128 for nothing."""
    change = after.astype(np.int16) - before.astype(np.int16)
    return np.clip(128 + change, 0, 255).astype(np.uint8)


def beside(pictures: Sequence[Images]) -> Images:
    """Pictures of equal height in a row on white, enlarged without smoothing."""
    gap = np.full((pictures[0].shape[0], GAP, *pictures[0].shape[2:]), 255, np.uint8)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(row, axis=1).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def png(picture: Images) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()


def bench_widget(bench: EyeBench, identities: int = 40) -> Any:
    """Sliders for gaze, head, light and identity, a slider over the refiners, a seed picker, and the picture."""
    import ipywidgets as w  # type: ignore[import-untyped]

    controls: dict[str, Any] = {
        "label": w.SelectionSlider(options=list(bench.refiners), description="refiner"),
        "seed": w.Dropdown(options=bench.seeds_of(next(iter(bench.refiners))), description="seed"),
        "identity": w.IntSlider(0, 0, identities - 1, description="identity"),
    }
    for name, (text, low, high, start) in SLIDERS.items():
        controls[name] = w.FloatSlider(start, min=low, max=high, step=(high - low) / 100, description=text)

    def offer(change: Any) -> None:  # before the picture is drawn: only seeds that this refiner has
        controls["seed"].options = bench.seeds_of(change["new"])

    controls["label"].observe(offer, names="value")
    return _live(controls, bench.picture, "render · refined · change")


def steps_widget(viewer: StepViewer) -> Any:
    """Sliders over samples and steps, and the picture."""
    import ipywidgets as w

    steps = [(str(iteration), place) for place, iteration in enumerate(viewer.iterations)]
    controls = {
        "sample": w.IntSlider(0, 0, len(viewer.renders) - 1, description="sample"),
        "step": w.SelectionSlider(options=steps, value=len(steps) - 1, description="iteration"),
    }
    return _live(controls, viewer.picture, " · ".join(viewer.titles))


def _live(controls: Mapping[str, Any], picture: Callable[..., Images], text: str) -> Any:
    """The controls above the picture of their values, drawn again at every change."""
    import ipywidgets as w

    image = w.Image(format="png")

    def draw(_change: object = None) -> None:
        image.value = png(picture(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.style.description_width = "11em"
        control.layout.width = "30em"
        control.observe(draw, names="value")
    draw()
    half = -(-len(controls) // 2)
    listed = list(controls.values())
    return w.VBox([w.HBox([w.VBox(listed[:half]), w.VBox(listed[half:])]), w.Label(text), image])


def live(make: Callable[[], Any]) -> Any:
    """The widget that `make` builds; in a headless run a line that says where it lives, as the figure stands for it."""
    if not os.environ.get(HEADLESS):
        return make()
    from IPython.display import Markdown

    text = "*Live in JupyterLab (`make lab`); the figure stands for it here.*"
    return Markdown(text)  # type: ignore[no-untyped-call]

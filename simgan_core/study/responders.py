"""Programs that take a study: for tests, and to show the analysis where nobody has been asked. Never evidence.

Every trace of them is stamped: they answer only studies created with `simulated=True`, and each subject's `responder`
begins with 'simulated', in the database, in exports, in the analysis and in what it says of claim C1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simgan_core.study.pictures import UInt8, decode_png
from simgan_core.study.plan import Source, Trial, right_answer
from simgan_core.study.storage import StudyStore

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDS = 2
TRAINING_STEPS = 100
BATCH = 64


class Responder(Protocol):
    """Answers trials; `name` begins with 'simulated'."""

    @property
    def name(self) -> str:
        """What the database calls it."""
        ...

    def evidence(self, trial: Trial, rng: np.random.Generator) -> float:
        """How much the image looks real: above 0 it is called real."""
        ...


@dataclass(frozen=True)
class IdealObserver:
    """Signal detection's observer: evidence ~ N(±d'/2, 1), 'real' above the criterion. Knows the truth, sees no image.

    Attributes:
        d_prime: between real and refined images.
        criterion: positive: prefers to answer 'refined'.
        control_d_prime: between real and unrefined synthetic images (the paper's 162 of 200 are d' = 1.76).

    """

    d_prime: float
    criterion: float = 0.0
    control_d_prime: float = 1.76

    @property
    def name(self) -> str:
        """Its name with its settings."""
        return f"simulated: ideal observer, d' {self.d_prime:g}, criterion {self.criterion:g}"

    def evidence(self, trial: Trial, rng: np.random.Generator) -> float:
        """Drawn anew for every trial."""
        if trial.kind == "attention":
            return math.inf if trial.right_answer == "real" else -math.inf
        d_prime = self.control_d_prime if trial.kind == "control" else self.d_prime
        side = 0.5 if trial.right_answer == "real" else -0.5
        return float(rng.normal(side * d_prime)) - self.criterion


class Classifier:
    """A small convolutional network, trained on the study's own pictures and asked only about those it has not seen.

    The pictures of each source are cut into folds; a picture is judged by the network that was trained without its
    fold. It learns real against refined and real against synthetic with one label, 'made by a computer'.
    """

    def __init__(self, pictures: dict[str, bytes], sources: dict[str, Source], *, seed: int) -> None:
        shown = [name for name, source in sources.items() if source in ("real", "refined", "synthetic")]
        ids = sorted(shown, key=lambda name: (sources[name], pictures[name]))  # ids are random in every study
        images = np.stack([decode_png(pictures[name]) for name in ids])
        real = np.array([right_answer(sources[name]) == "real" for name in ids])
        folds = _folds([sources[name] for name in ids], np.random.default_rng(seed))
        logits = np.zeros(len(ids))
        for fold in range(FOLDS):
            network = _trained(images[folds != fold], real[folds != fold], seed=seed * FOLDS + fold)
            logits[folds == fold] = _logits(network, images[folds == fold])
        self.seed = seed
        self.logits: dict[str, float] = dict(zip(ids, logits.tolist(), strict=True))

    @property
    def name(self) -> str:
        """Its name with its seed."""
        return f"simulated: classifier, held-out pictures, seed {self.seed}"

    def evidence(self, trial: Trial, rng: np.random.Generator) -> float:
        """The held-out logit of 'real'; attention checks are read off their word."""
        if trial.kind == "attention":
            return math.inf if trial.right_answer == "real" else -math.inf
        return self.logits[trial.image.id]


def classifier_of(study: StudyStore, *, seed: int) -> Classifier:
    """Train a classifier on the pictures of a study."""
    planned = study.plan().images()
    return Classifier(study.pictures(list(planned)), {name: image.source for name, image in planned.items()}, seed=seed)


def respond(study: StudyStore, responders: Sequence[Responder], *, seed: int = 0) -> None:
    """Let responders take the study of subject 0, 1, ... through the same calls as a screen; each finishes.

    Raises:
        ValueError: the study is one of people, or has fewer subjects.

    """
    tokens = study.tokens()
    if len(responders) > len(tokens):
        raise ValueError(f"{len(responders)} responders for {len(tokens)} subjects; expected at most as many.")
    plan = study.plan()
    for number, (responder, (participant, token)) in enumerate(zip(responders, tokens.items(), strict=False)):
        study.name_responder(participant, responder.name)
        rng = np.random.default_rng([seed, number])
        session = study.open_session(token, browser=responder.name)
        study.give_consent(session.key)
        following = study.next_trial(session.key)
        while following is not None:
            found = responder.evidence(plan.subjects[number][following.number], rng)
            reaction_ms = _reaction_ms(found, rng)
            answer = "real" if found > 0 else "refined"
            following = study.record_answer(session.key, following.number, answer, reaction_ms=reaction_ms).next
        study.end_session(session.key)


def rehearse(study: StudyStore, *, d_prime: float, criterion: float, classifiers: int = 0, seed: int = 0) -> list[str]:
    """Let ideal observers, and classifiers as the last subjects, take a whole study; returns their names in order.

    Raises:
        ValueError: the study is one of people, or has fewer subjects than classifiers.

    """
    subjects = study.settings.subjects
    if not study.simulated:
        raise ValueError(f"{study.settings.title!r} is a study of people; expected one made with --simulated.")
    if classifiers > subjects:
        raise ValueError(f"{classifiers} classifiers found; expected at most {subjects}, one for each subject.")
    observers: list[Responder] = [IdealObserver(d_prime, criterion)] * (subjects - classifiers)
    responders = [*observers, *(classifier_of(study, seed=seed + number) for number in range(classifiers))]
    respond(study, responders, seed=seed)
    return [responder.name for responder in responders]


def _reaction_ms(evidence: float, rng: np.random.Generator) -> float:
    """Slower where the evidence is weak, as people are; made up, like all that these responders do."""
    return float(350 + rng.exponential(150) + 500 * math.exp(-abs(evidence)))


def _folds(sources: Sequence[Source], rng: np.random.Generator) -> UInt8:
    """Fold of each picture: every source is shared out evenly."""
    folds = np.zeros(len(sources), np.uint8)
    for source in sorted(set(sources)):
        members = np.flatnonzero(np.array(sources) == source)
        folds[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    return folds


def _trained(images: UInt8, real: np.ndarray, *, seed: int) -> nn.Module:
    """Train on uint8 [N, C, H, W]; real and other pictures are drawn equally often, half of them mirrored."""
    import torch
    from torch.nn import functional as F

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images.shape[1])
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = _standardised(images), torch.from_numpy(real.astype(np.float32))
    groups = [torch.nonzero(targets == label)[:, 0] for label in (0.0, 1.0)]
    if not all(len(group) for group in groups):
        return network  # nothing to learn from one kind alone: its logits are noise
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(TRAINING_STEPS):
        rows = torch.cat([group[torch.randint(len(group), (BATCH // 2,), generator=generator)] for group in groups])
        batch = inputs[rows]
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        loss = F.binary_cross_entropy_with_logits(network(batch)[:, 0], targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network


def _network(channels: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(192, 1),
    )  # fmt: skip


def _logits(network: nn.Module, images: UInt8) -> np.ndarray:
    import torch

    network.eval()
    with torch.no_grad():
        logits: np.ndarray = network(_standardised(images))[:, 0].double().numpy()
    return logits


def _standardised(images: UInt8) -> Tensor:
    import torch

    from simgan_core.images import to_float

    return to_float(torch.from_numpy(np.ascontiguousarray(images)))

"""Plan of a visual Turing test (section 3.1, table 1): which subject sees which image when. Knows no screen.

A subject takes a practice block (with feedback), the main block (real and refined images mixed, attention checks among
them) and, as in the paper's control, a block of unrefined synthetic images among as many real ones. Everything follows
from the settings, their seed and a secret of the study: image ids are keyed hashes and orders are drawn by a key, so
that neither says anything about an image even to a subject who knows this code and the seed.

Only the standard library is used: the page starts one Python process per subject.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import random
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Answer = Literal["real", "refined"]
Kind = Literal["practice", "main", "attention", "control"]
Source = Literal["real", "refined", "synthetic", "attention_real", "attention_refined"]
SOURCES: tuple[Source, ...] = ("real", "refined", "synthetic", "attention_real", "attention_refined")

CONSENT = (
    "You will see pictures of eyes and decide for each whether it is a photograph. Taking part is voluntary, and you "
    "may stop at any time by closing this window. Your answers, their times, and the kind and size of your browser "
    "window are stored under a random number, without your name or address."
)
INSTRUCTIONS = (
    "Each picture is either a photograph of a real eye or was made by a computer. Decide which, by key, mouse or "
    "touch. Be as accurate as you can; both answers are right about equally often. First a few pictures to practise, "
    "for which you are told whether you were right."
)
# The stand-in target of the embedded data is no photograph, and is never called real.
STANDIN_TITLE = "Target or imitation?"
STANDIN_LABELS = ("Target", "Imitation")
STANDIN_CONSENT = CONSENT.replace("whether it is a photograph", "which of two kinds it is")
STANDIN_INSTRUCTIONS = (
    "All pictures were made by a computer, in two ways: 'target' pictures come from one program, 'imitations' from "
    "another one that was to resemble it. Decide which each is, by key, mouse or touch. Be as accurate as you can; "
    "both answers are right about equally often. First a few pictures to practise, for which you are told whether you "
    "were right."
)
END = "That was all. Thank you for taking part! You may close this window."


@dataclass(frozen=True)
class StudySettings:
    """Everything that an experimenter chooses. Times in milliseconds; `None` switches a limit off.

    Attributes:
        title: heading of the page.
        seed: seed of the choice of images; of orders too, together with the study's secret.
        subjects: number of subjects that the plan is made for.
        real, refined: images of each kind in the main block of each subject (the paper: 50 and 50).
        control: unrefined synthetic images in the control block, among as many further real ones (the paper: 10).
        practice: practice trials before, half of them real, with feedback.
        attention: attention checks within the main block: pictures of a word that names the answer to give.
        max_run: in no block do more than this many trials in a row have the same right answer.
        images: 'same' images for all subjects, or the images 'split' over subjects (nobody sees another's).
        fixation_ms: how long the fixation cross stands before each image.
        exposure_ms: how long an image is shown; None: until the answer.
        deadline_ms: after that long without an answer the trial counts as a timeout; None: no deadline.
        break_every: a break is offered after this many trials; None: none but between blocks.
        keys: keys for 'real' and for 'refined', one character each.
        labels: what subjects read on the buttons for 'real' and for 'refined'.
        scale: screen pixels (CSS) per image pixel; narrow screens take less.
        consent, instructions, end: texts of the page, plain text.

    Raises:
        ValueError: a setting that cannot be meant; the message says found, expected, remedy.

    """

    title: str = "Real or synthetic?"
    seed: int = 0
    subjects: int = 10
    real: int = 50
    refined: int = 50
    control: int = 10
    practice: int = 6
    attention: int = 2
    max_run: int = 4
    images: Literal["same", "split"] = "same"
    fixation_ms: int = 500
    exposure_ms: int | None = None
    deadline_ms: int | None = None
    break_every: int | None = 40
    keys: tuple[str, str] = ("f", "j")
    labels: tuple[str, str] = ("Real", "Synthetic")
    scale: int = 6
    consent: str = CONSENT
    instructions: str = INSTRUCTIONS
    end: str = END

    def __post_init__(self) -> None:
        _check_settings(self)

    @property
    def trials(self) -> int:
        """Trials of one subject, practice included."""
        return sum(len(block) for block in _blocks(self).values())

    def to_json(self) -> str:
        """The settings as one JSON object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> StudySettings:
        """Settings from JSON; missing ones take their defaults.

        Raises:
            ValueError: not a JSON object, an unknown name, or a value that cannot be meant.

        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"settings are not JSON ({error}); expected one object of names and values.") from error
        if not isinstance(values, dict):
            raise ValueError(f"settings are {type(values).__name__}; expected one object of names and values.")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}.")
        _check_texts(values)
        pairs = {name: tuple(values[name]) for name in ("keys", "labels") if name in values}
        return cls(**(values | pairs))


@dataclass(frozen=True)
class PlannedImage:
    """An image of the study: its opaque id, where it comes from, and its index among that source's images."""

    id: str
    source: Source
    index: int


@dataclass(frozen=True)
class Trial:
    """One trial of one subject. Knows the truth: it never leaves the server before the answer."""

    number: int  # from 0, practice included
    kind: Kind
    image: PlannedImage

    @property
    def right_answer(self) -> Answer:
        """'real' for photographs, 'refined' for everything that a computer made."""
        return right_answer(self.image.source)


@dataclass(frozen=True)
class Plan:
    """The trials of all subjects, in order."""

    settings: StudySettings
    subjects: tuple[tuple[Trial, ...], ...]

    def images(self) -> dict[str, PlannedImage]:
        """All images that somebody sees, by id."""
        return {trial.image.id: trial.image for trials in self.subjects for trial in trials}


def standin_texts(settings: StudySettings) -> StudySettings:
    """The settings for pictures of the stand-in target: texts that the experimenter left at the default call it so."""
    standin: dict[str, Any] = {
        "title": STANDIN_TITLE, "labels": STANDIN_LABELS, "consent": STANDIN_CONSENT,
        "instructions": STANDIN_INSTRUCTIONS,
    }  # fmt: skip
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    left = {name: text for name, text in standin.items() if getattr(settings, name) == defaults[name]}
    return dataclasses.replace(settings, **left)


def right_answer(source: Source) -> Answer:
    """The right answer to an image of that source."""
    return "real" if source in ("real", "attention_real") else "refined"


def make_plan(
    settings: StudySettings, available: Mapping[Source, int], secret: bytes, *, open_order: bool = False
) -> Plan:
    """The plan for `available` images of each source. Equal settings, numbers and secret give an equal plan.

    `open_order`: orders follow from the seed alone, so that programs answer alike in every study of it. Not for people:
    who knows the seed, usually 0, would know all answers.

    Raises:
        ValueError: fewer images than the plan needs.

    """
    pools = _choose(settings, available)
    key = b"" if open_order else secret
    return Plan(settings, tuple(_subject(settings, pools, number, secret, key) for number in range(settings.subjects)))


def images_needed(settings: StudySettings) -> dict[Source, int]:
    """How many different images of each source a plan needs."""
    blocks, shares = _blocks(settings), settings.subjects if settings.images == "split" else 1
    needed: dict[Source, int] = {}
    for source in SOURCES[:3]:
        needed[source] = blocks["practice"].count(source) + shares * _per_subject(blocks, source)
    for source in SOURCES[3:]:
        needed[source] = min(1, blocks["main"].count(source))  # one picture serves all checks of that answer
    return needed


def image_id(secret: bytes, source: Source, index: int) -> str:
    """32 hexadecimal digits that only the holder of the secret can tell from chance."""
    return hmac.new(secret, f"{source}/{index}".encode(), hashlib.sha256).hexdigest()[:32]


def ordered(right: Sequence[Answer], max_run: int, rng: random.Random) -> list[Answer]:
    """`right` in an order drawn uniformly from all orders without a run longer than `max_run`.

    Each next value is drawn in proportion to the number of valid ways to go on. Shuffling until it fits would take for
    ever for short runs, and repairing a shuffle is not uniform.

    Raises:
        ValueError: no such order exists.

    """
    left: dict[Answer, int] = {"real": right.count("real"), "refined": right.count("refined")}
    max_run = min(max_run, max(1, len(right)))
    _check_run(left["real"], left["refined"], max_run)
    ways = _ways(len(right), max_run)
    order: list[Answer] = []
    run = 0
    while left["real"] or left["refined"]:
        same: Answer = order[-1] if order else "real"
        other: Answer = "refined" if same == "real" else "real"
        go_on = ways[left[same] - 1, left[other]][max_run - run - 1] if left[same] and run < max_run else 0
        change = ways[left[other] - 1, left[same]][max_run - 1] if left[other] else 0
        stays = rng.randrange(go_on + change) < go_on
        order.append(same if stays else other)
        run = run + 1 if stays else 1
        left[order[-1]] -= 1
    return order


@lru_cache(maxsize=16)
def _ways(total: int, max_run: int) -> dict[tuple[int, int], list[int]]:
    """Numbers of valid orders: [same, other][room], where `same` repeats the last trial, at most `room` times more."""
    ways = {(0, 0): [1] * max_run}
    for trials in range(1, total + 1):
        for same in range(trials + 1):
            other = trials - same
            change = ways[other - 1, same][max_run - 1] if other else 0
            go_on = ways[same - 1, other] if same else [0] * max_run
            ways[same, other] = [change] + [change + go_on[room - 1] for room in range(1, max_run)]
    return ways


def _blocks(settings: StudySettings) -> dict[Kind, list[Source]]:
    """What each block holds, in the order of the blocks; attention checks lie in the main block."""
    half, checks = settings.practice // 2, settings.attention // 2
    counts: dict[Kind, dict[Source, int]] = {
        "practice": {"real": settings.practice - half, "refined": half},
        "main": {
            "real": settings.real, "refined": settings.refined,
            "attention_real": settings.attention - checks, "attention_refined": checks,
        },
        "control": {"real": settings.control, "synthetic": settings.control},
    }  # fmt: skip
    return {kind: [name for name, count in block.items() for _ in range(count)] for kind, block in counts.items()}


def _per_subject(blocks: Mapping[Kind, list[Source]], source: Source) -> int:
    """Images of `source` that one subject sees after the practice."""
    return blocks["main"].count(source) + blocks["control"].count(source)


def _choose(settings: StudySettings, available: Mapping[Source, int]) -> dict[Source, list[int]]:
    """Which images are used, in random order: those of the practice first."""
    rng = random.Random(f"simgan study {settings.seed} images")
    pools: dict[Source, list[int]] = {}
    for source, needed in images_needed(settings).items():
        found = available.get(source, 0)
        if found < needed:
            raise ValueError(
                f"{found} {source} images found; expected at least {needed} for {settings.subjects} subjects with "
                f"images={settings.images!r}. Give more images, or plan fewer trials"
                + (", or show the same images to all subjects." if settings.images == "split" else ".")
            )
        pools[source] = rng.sample(range(found), needed)
    return pools


def _subject(
    settings: StudySettings, pools: Mapping[Source, list[int]], number: int, secret: bytes, order_key: bytes
) -> tuple[Trial, ...]:
    """The trials of one subject; their order depends on seed, number and `order_key`."""
    name = f"simgan study {settings.seed} subject {number}"
    rng = random.Random(hmac.new(order_key, name.encode(), hashlib.sha256).digest())
    trials: list[Trial] = []
    for block, sources in _blocks(settings).items():
        own = {source: _own(settings, pools[source], block, source, number) for source in set(sources)}
        for source in SOURCES:  # in a fixed order: that of a set differs between processes
            rng.shuffle(own.get(source, []))
        for source in _arranged(sources, settings.max_run, rng):
            kind: Kind = "attention" if source in SOURCES[3:] else block
            index = own[source][0] if kind == "attention" else own[source].pop()
            trials.append(Trial(len(trials), kind, PlannedImage(image_id(secret, source, index), source, index)))
    return tuple(trials)


def _own(settings: StudySettings, pool: list[int], block: Kind, source: Source, number: int) -> list[int]:
    """The part of a source's images that belongs to this block of this subject."""
    if source in SOURCES[3:]:
        return list(pool)
    blocks = _blocks(settings)
    count = {name: blocks[name].count(source) for name in blocks}
    if block == "practice":
        return pool[: count["practice"]]
    start = count["practice"] + (number * _per_subject(blocks, source) if settings.images == "split" else 0)
    start += count["main"] if block == "control" else 0
    return pool[start : start + count[block]]


def _arranged(sources: Sequence[Source], max_run: int, rng: random.Random) -> list[Source]:
    """The sources of a block in an order without long runs of one right answer."""
    waiting: dict[Answer, list[Source]] = {"real": [], "refined": []}
    for source in sources:
        waiting[right_answer(source)].append(source)
    for same in waiting.values():
        rng.shuffle(same)
    return [waiting[answer].pop() for answer in ordered([right_answer(s) for s in sources], max_run, rng)]


def _check_run(real: int, refined: int, max_run: int) -> None:
    more, fewer = max(real, refined), min(real, refined)
    if more > (fewer + 1) * max_run:
        raise ValueError(
            f"a block of {real} real and {refined} other trials has no order without runs longer than {max_run}; "
            "raise max_run, or bring the two numbers closer together."
        )


def _check_settings(settings: StudySettings) -> None:
    for name in ("subjects", "max_run", "scale"):
        _check_least(settings, name, 1)
    for name in ("seed", "real", "refined", "control", "practice", "attention", "fixation_ms"):
        _check_least(settings, name, 0)
    for name in ("exposure_ms", "deadline_ms", "break_every"):
        if getattr(settings, name) is not None:
            _check_least(settings, name, 1)
    if settings.real + settings.refined == 0:
        raise ValueError("real and refined are 0; expected at least one trial in the main block.")
    if settings.images not in ("same", "split"):
        raise ValueError(f"images is {settings.images!r}; expected 'same' (for all subjects) or 'split' (over them).")
    if any(len(key.lower()) != 1 or not key.isprintable() or key == " " for key in settings.keys):
        raise ValueError(f"keys are {settings.keys}; expected two single characters, such as 'f' and 'j'.")
    if len({_script(key) for key in settings.keys if key.isalpha()}) > 1:
        raise ValueError(f"keys are {settings.keys}; expected letters of one script, as one keyboard types both.")
    for name in ("keys", "labels"):
        pair = getattr(settings, name)
        if len(pair) != 2 or pair[0].strip().casefold() == pair[1].strip().casefold() or not all(map(str.strip, pair)):
            raise ValueError(f"{name} are {pair}; expected two different ones, for 'real' and for 'refined'.")
    for block in _blocks(settings).values():
        right = [right_answer(source) for source in block]
        _check_run(right.count("real"), right.count("refined"), settings.max_run)


def _script(letter: str) -> str:
    """LATIN, CYRILLIC, GREEK, ...: the first word of the character's name."""
    return unicodedata.name(letter, "?").split()[0]


def _check_least(settings: StudySettings, name: str, least: int) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}.")


def _check_texts(values: Mapping[str, Any]) -> None:
    """The types that JSON may get wrong and that `_check_settings` does not look at."""
    for name in ("title", "consent", "instructions", "end"):
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"{name} is {values[name]!r}; expected text.")
    for name in ("keys", "labels"):
        pair = values.get(name, ["a", "b"])
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise ValueError(f"{name} are {pair!r}; expected two texts, for 'real' and for 'refined'.")

"""The history buffer: a contract that the real one meets and that every known way to break it fails."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simgan_core.history import HistoryBuffer

BATCH, CAPACITY = 8, 24


def numbered(first: int, count: int) -> Tensor:
    """Images whose single pixel is their serial number, so that each can be followed."""
    return torch.arange(first, first + count, dtype=torch.float32).view(count, 1, 1, 1)


def serials(images: Tensor) -> list[int]:
    return [int(v) for v in images.flatten().tolist()]


def check_contract(kind: type[HistoryBuffer]) -> None:
    """Section 2.3 as assertions: b/2 fresh, b/2 history, b/2 random entries replaced after each update."""
    buffer = kind(CAPACITY, seed=0)
    half = BATCH // 2
    born: dict[int, int] = {}  # serial -> update that made it
    drawn_rows: set[int] = set()
    next_serial = 1
    for update in range(60):
        before = serials(buffer.images) if len(buffer) else []
        needed = buffer.fresh_needed(BATCH)
        fresh = numbered(next_serial, needed)
        next_serial += needed
        born |= dict.fromkeys(serials(fresh), update)
        batch = serials(buffer.mix(fresh, BATCH))
        after = serials(buffer.images)

        assert len(batch) == BATCH and len(set(batch)) == BATCH, "no image twice in a batch"
        assert batch[:needed] == serials(fresh), "fresh images come first"
        assert set(batch[needed:]) <= set(before), "the others come from the history, not from R's newest output"
        assert needed == BATCH - min(half, len(before)), "half of the batch is history as soon as it holds as many"
        assert len(after) == min(CAPACITY, len(before) + half), "it fills up to its capacity"
        assert len(set(after)) == len(after), "no image twice in the buffer"
        assert set(after) - set(before) == set(serials(fresh)[:half]), "b/2 fresh images enter"
        if len(before) == CAPACITY:
            assert len(set(before) - set(after)) == half, "b/2 entries leave"
            drawn_rows |= {before.index(serial) for serial in batch[needed:]}
    ages = [60 - born[serial] for serial in serials(buffer.images)]
    assert max(ages) < 50, "the oldest entries are replaced in the end"
    assert max(ages) > 6, "but not first in, first out: some stay longer than the buffer's length"
    assert drawn_rows == set(range(CAPACITY)), "every entry is drawn some time"


def test_the_buffer_meets_the_contract() -> None:
    check_contract(HistoryBuffer)


class AlwaysEmpty(HistoryBuffer):
    """The commonest bug elsewhere: the result of an append is dropped."""

    def replace(self, fresh: Tensor) -> None:
        pass


class Frozen(HistoryBuffer):
    """Fills once and is never renewed."""

    def replace(self, fresh: Tensor) -> None:
        if len(self) < self.capacity:
            super().replace(fresh)


class FirstHalf(HistoryBuffer):
    """Draws the same first rows each time."""

    def _draw(self, count: int, below: int | None = None) -> Tensor:
        return torch.arange(count)


class FirstInFirstOut(HistoryBuffer):
    """Replaces the oldest entries in place of random ones."""

    def replace(self, fresh: Tensor) -> None:
        rows = torch.cat([self.images, fresh]) if len(self) else fresh
        self._images, self._filled = rows[-self.capacity :], min(self.capacity, len(rows))


class FreshOnly(HistoryBuffer):
    """Keeps a buffer and shows D none of it."""

    def fresh_needed(self, batch: int) -> int:
        return batch

    def mix(self, fresh: Tensor, batch: int) -> Tensor:
        self.replace(fresh[: batch // 2])
        return fresh[:batch]


class ReplacesBeforeItDraws(HistoryBuffer):
    """R's newest output comes back as history."""

    def mix(self, fresh: Tensor, batch: int) -> Tensor:
        needed = self.fresh_needed(batch)
        self.replace(fresh[: batch // 2])
        return torch.cat([fresh[:needed], self.sample(batch - needed)])


class WithRepetition(HistoryBuffer):
    """Draws with repetition."""

    def _draw(self, count: int, below: int | None = None) -> Tensor:
        return torch.randint(self._filled if below is None else below, (count,), generator=self._generator)


MUTANTS = [AlwaysEmpty, Frozen, FirstHalf, FirstInFirstOut, FreshOnly, ReplacesBeforeItDraws, WithRepetition]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_buffer_fails_the_contract(mutant: type[HistoryBuffer]) -> None:
    with pytest.raises(AssertionError):
        check_contract(mutant)


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(0, 20),
    seed=st.integers(0, 5),
    calls=st.lists(st.integers(1, 25), max_size=12),
)
def test_replace_keeps_what_it_should(capacity: int, seed: int, calls: list[int]) -> None:
    buffer = HistoryBuffer(capacity, seed)
    first = 1
    for count in calls:
        before, fresh = set(serials(buffer.images)), numbered(first, count)
        first += count
        buffer.replace(fresh)
        after = serials(buffer.images)
        kept = set(serials(fresh)[:capacity])
        assert len(after) == len(set(after)) == min(capacity, len(before) + count)
        assert kept <= set(after) <= before | kept


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30))
def test_sample_draws_different_images(held: int, wanted: int) -> None:
    buffer = HistoryBuffer(30, seed=1)
    if held:
        buffer.replace(numbered(1, held))
    drawn = serials(buffer.sample(wanted))
    assert len(drawn) == len(set(drawn)) == min(held, wanted)
    assert set(drawn) <= set(range(1, held + 1))


def test_all_entries_are_drawn_equally_often() -> None:
    buffer = HistoryBuffer(12, seed=2)
    buffer.replace(numbered(0, 12))
    counts = torch.zeros(12)
    for _ in range(600):
        counts[serials(buffer.sample(4))] += 1
    assert (counts - 200).abs().max() < 50  # six standard deviations are 69, of a bug that skips one row 200


def test_the_buffer_keeps_values_not_references() -> None:
    buffer = HistoryBuffer(4, seed=0)
    images = numbered(1, 4)
    buffer.replace(images)
    drawn = buffer.sample(4)
    images.fill_(-1)
    drawn.fill_(-2)
    assert sorted(serials(buffer.images)) == [1, 2, 3, 4]


def test_history_carries_no_gradient() -> None:
    buffer = HistoryBuffer(8, seed=0)
    fresh = numbered(1, 8).requires_grad_()
    assert not buffer.mix(fresh, 8).requires_grad
    assert not buffer.mix(fresh, 8).requires_grad


def test_off_means_fresh_only() -> None:
    buffer = HistoryBuffer(0, seed=0)
    for update in range(3):
        fresh = numbered(10 * update, BATCH)
        assert buffer.fresh_needed(BATCH) == BATCH
        assert serials(buffer.mix(fresh, BATCH)) == serials(fresh)
    assert len(buffer) == 0


def test_resumes_to_the_same_images() -> None:
    def play(buffer: HistoryBuffer, updates: range) -> list[int]:
        return [s for u in updates for s in serials(buffer.mix(numbered(100 * u, BATCH), BATCH))]

    whole, half, resumed = (HistoryBuffer(CAPACITY, seed=4) for _ in range(3))
    expected = play(whole, range(14))
    begun = play(half, range(5))  # not yet full
    resumed.load_state_dict(half.state_dict())
    assert begun + play(resumed, range(5, 14)) == expected
    late = HistoryBuffer(CAPACITY, seed=9)
    late.load_state_dict(whole.state_dict())
    assert play(late, range(14, 18)) == play(whole, range(14, 18))


def test_errors() -> None:
    with pytest.raises(ValueError, match="expected 0"):
        HistoryBuffer(-1, seed=0)
    with pytest.raises(ValueError, match="capacity 4"):
        HistoryBuffer(5, seed=0).load_state_dict(HistoryBuffer(4, seed=0).state_dict())
    with pytest.raises(ValueError, match="expected 8 or more"):
        HistoryBuffer(5, seed=0).mix(numbered(0, 3), 8)


def test_nonsense_is_refused() -> None:
    history = HistoryBuffer(6, seed=0)
    history.replace(torch.zeros(6, 1, 35, 55))
    with pytest.raises(ValueError, match="-1 images asked for"):
        history.sample(-1)
    with pytest.raises(ValueError, match=r"\(1, 1, 55\) for a history of \(1, 35, 55\)"):
        history.replace(torch.ones(2, 1, 1, 55))
    assert not history.images.any()

"""The choice of test images: shares, groups, seeds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rml_search.splitting import choose_test_images


def test_every_class_gives_its_share() -> None:
    classes = ["benign"] * 437 + ["malignant"] * 210 + ["normal"] * 133
    chosen = choose_test_images(classes, range(780), 0.1, seed=0)
    counts = Counter(name for name, test in zip(classes, chosen, strict=True) if test)
    assert counts == {"benign": 44, "malignant": 21, "normal": 13}


def test_seed_decides() -> None:
    classes, groups = ["a"] * 100, range(100)
    assert choose_test_images(classes, groups, 0.2, 1) == choose_test_images(classes, groups, 0.2, 1)
    assert choose_test_images(classes, groups, 0.2, 1) != choose_test_images(classes, groups, 0.2, 2)


@pytest.mark.parametrize("seed", range(20))
def test_the_share_is_met_where_some_choice_of_groups_meets_it(seed: int) -> None:
    """5 of 25 from groups of 2 and 3: taking three pairs, or a pair first and no triple, would miss."""
    groups = [number // 2 for number in range(16)] + [8 + number // 3 for number in range(9)]
    assert sum(choose_test_images(["a"] * 25, groups, 0.2, seed)) == 5


def test_nearest_share_where_none_meets_it() -> None:
    groups = [number // 4 for number in range(20)]
    assert sum(choose_test_images(["a"] * 20, groups, 0.25, 0)) == 4  # 5 wanted, 4 or 8 to be had


def test_groups_of_several_classes_are_for_training() -> None:
    classes = ["a", "b"] * 10
    groups = [number // 2 for number in range(10)] + list(range(5, 15))
    chosen = choose_test_images(classes, groups, 0.5, 0)
    assert not any(chosen[:10])
    assert Counter(name for name, test in zip(classes, chosen, strict=True) if test) == {"a": 5, "b": 5}


@given(
    images=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_no_group_is_split(images: list[tuple[str, int]], fraction: float, seed: int) -> None:
    classes, groups = zip(*images, strict=True)
    chosen = choose_test_images(classes, groups, fraction, seed)
    assert len(set(zip(groups, chosen, strict=True))) == len(set(groups))

"""Choosing test images: in every class the same share, and no group of near-duplicates on both sides."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def choose_test_images(
    class_names: Sequence[str], groups: Sequence[int], test_fraction: float, seed: int
) -> tuple[bool, ...]:
    """Says of every image whether it becomes a test image.

    Args:
        class_names, groups: of each image; images of one group stay together. Groups with images of several
            classes are always for training: their labels contradict each other, so nothing should be measured
            on them.
        test_fraction: the share of each class that becomes test images, in (0, 1): the number of a class is the
            one nearest to it that whole groups can make.
        seed: the same seed chooses the same images.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    pure_groups: defaultdict[str, list[list[int]]] = defaultdict(list)
    for indices in members.values():
        classes = {class_names[index] for index in indices}
        if len(classes) == 1:
            pure_groups[classes.pop()].append(indices)
    in_test = [False] * len(groups)
    generator = random.Random(seed)  # noqa: S311 (no secret)
    for class_name in sorted(pure_groups):
        candidates = pure_groups[class_name]
        generator.shuffle(candidates)
        for indices in _pick(candidates, round(test_fraction * class_names.count(class_name))):
            for index in indices:
                in_test[index] = True
    return tuple(in_test)


def _pick(groups: Sequence[list[int]], wanted: int) -> list[list[int]]:
    """Takes groups, the first ones first, whose sizes add up as nearly to ``wanted`` as any choice of them does.

    ``reachable[i]`` is the set of sums that the groups from i on can make, as the bits of an integer.
    """
    reachable = [1]
    for group in reversed(groups):
        reachable.append(reachable[-1] | reachable[-1] << len(group))
    reachable.reverse()
    sums = [total for total in range(reachable[0].bit_length()) if reachable[0] >> total & 1]
    missing = min(sums, key=lambda total: (abs(total - wanted), total))
    picked = []
    for group, reachable_after in zip(groups, reachable[1:], strict=True):
        if len(group) <= missing and reachable_after >> (missing - len(group)) & 1:
            picked.append(group)
            missing -= len(group)
    return picked

"""``prepare`` on the real breast-ultrasound images, whose near-duplicates were listed by other means.

``splits/duplicates.csv`` holds pairs found by correlating speckle after aligning every image with every other, and
weak ones judged by eye; 219 of them are copies of one frame (``duplicate``), 31 neighbouring frames (``related``).
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from rml_search.dataset import check_data_set
from rml_search.prepare import PrepareSummary

pytestmark = [pytest.mark.busi, pytest.mark.slow]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows(prepared_busi: tuple[Path, PrepareSummary]) -> dict[str, dict[str, str]]:
    """Row of ``split.csv`` by the name of the image."""
    return {row["name"].removesuffix(".png"): row for row in read(prepared_busi[0] / "split.csv")}


def test_numbers(prepared_busi: tuple[Path, PrepareSummary]) -> None:
    """702 and 78 images, of each class as many as the reference split has; 17 images have several masks."""
    out, summary = prepared_busi
    assert [(one.name, one.num_train, one.num_test) for one in summary.classes] == [
        ("benign", 393, 44),
        ("malignant", 189, 21),
        ("normal", 120, 13),
    ]
    assert summary.num_united_masks == 17
    checked = check_data_set(out)
    assert (checked.train.num_images, checked.test.num_images) == (702, 78)
    assert checked.train.num_masks_of_other_size == checked.test.num_masks_of_other_size == 0


def test_recall_of_known_duplicates(busi_dir: Path, rows: dict[str, dict[str, str]]) -> None:
    """Measured: 219 of 219 copies and 29 of 31 neighbouring frames."""
    found: Counter[str] = Counter()
    pairs = read(busi_dir / "splits/duplicates.csv")
    for pair in pairs:
        found[pair["kind"]] += rows[pair["name_a"]]["group"] == rows[pair["name_b"]]["group"]
    assert Counter(pair["kind"] for pair in pairs) == {"duplicate": 219, "related": 31, "reviewed": 7}
    assert found["duplicate"] >= 217
    assert found["related"] >= 26


def test_precision(busi_dir: Path, rows: dict[str, dict[str, str]]) -> None:
    """Measured: every group is part of a listed one. One false merge would cost a split nothing; many would."""
    listed = {row["name"]: row["group"] for row in read(busi_dir / "splits/groups.csv")}
    merged = {(row["group"], listed[name]) for name, row in rows.items()}
    assert len(merged) - len({group for group, _ in merged}) <= 2


def test_no_copy_is_on_both_sides(busi_dir: Path, rows: dict[str, dict[str, str]]) -> None:
    leaks = [
        pair
        for pair in read(busi_dir / "splits/duplicates.csv")
        if pair["kind"] == "duplicate" and rows[pair["name_a"]]["split"] != rows[pair["name_b"]]["split"]
    ]
    assert leaks == []

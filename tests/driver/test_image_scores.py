"""Scores of images: which class, which mean, and the file that others read."""

from __future__ import annotations

import csv

import pytest

from rml_search.errors import WriteError
from rml_search.image_scores import (
    ImageScores,
    find_classes,
    mean_scores,
    means_by_class,
    worst_first,
    write_scores,
)
from rml_search.plain_output import scores_table
from rml_search.segmentation_scores import Overlap

GOOD = ImageScores("benign (1)", "benign", Overlap(90, 100, 100), 2.0)
POOR = ImageScores("benign (2)", "benign", Overlap(5, 10, 10), 8.0)
MISSED = ImageScores("malignant (1)", "malignant", Overlap(0, 0, 50), None)
NOTHING = ImageScores("normal (1)", None, Overlap(0, 0, 0), None)


def test_means_of_images_and_of_pixels_by_hand() -> None:
    """Dice 0.9 and 0.5, IoU 90/110 and 5/15; pooled 2 * 95 / 220 and 95 / 125."""
    means = mean_scores([GOOD, POOR])
    assert means.dice == pytest.approx(0.7)
    assert means.iou == pytest.approx((90 / 110 + 5 / 15) / 2)
    assert means.pooled_dice == pytest.approx(190 / 220)
    assert means.pooled_iou == pytest.approx(95 / 125)
    assert (means.hd95, means.num_with_distance, means.num_images) == (5, 2, 2)


def test_images_without_a_distance_count_for_dice_alone() -> None:
    means = mean_scores([GOOD, MISSED, NOTHING])
    assert means.dice == pytest.approx((0.9 + 0 + 1) / 3)
    assert (means.hd95, means.num_with_distance, means.num_images) == (2, 1, 3)
    assert mean_scores([MISSED]).hd95 is None


def test_pooled_scores_need_a_lesion() -> None:
    false_alarm = ImageScores("normal (2)", "normal", Overlap(0, 3, 0), None)
    assert mean_scores([NOTHING, false_alarm]).pooled_dice is None
    assert mean_scores([NOTHING, false_alarm]).pooled_iou is None
    assert mean_scores([NOTHING, false_alarm, GOOD]).pooled_dice == pytest.approx(2 * 90 / 203)
    row = scores_table([mean_scores([NOTHING, false_alarm], "normal")]).splitlines()[-2]
    assert row.split() == ["|", "normal", "|", "2", "|", "0.500", "|", "0.500", "|", "-", "|", "-", "|", "-", "|"]


def test_no_scores() -> None:
    with pytest.raises(ValueError, match="no scores"):
        mean_scores([])


def test_means_of_each_class_and_of_all() -> None:
    means = means_by_class([MISSED, GOOD, NOTHING, POOR])
    assert [(one.name, one.num_images) for one in means] == [("benign", 2), ("malignant", 1), ("other", 1), ("all", 4)]
    assert [one.dice for one in means] == pytest.approx([0.7, 0, 1, 0.6])


def test_without_classes_there_is_one_mean() -> None:
    assert [one.name for one in means_by_class([NOTHING])] == ["all"]


def test_worst_first() -> None:
    """Of two with a Dice of 0 the one that found nothing comes first, then the one that is farther off."""
    near, far = (ImageScores(f"{distance}", None, Overlap(0, 5, 5), distance) for distance in (3.0, 9.0))
    assert worst_first([GOOD, near, NOTHING, far, MISSED, POOR]) == [MISSED, far, near, POOR, GOOD, NOTHING]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["benign (1)", "benign (12)", "normal (1)", "normal (2)"], ["benign", "benign", "normal", "normal"]),
        (["benign_1", "benign_2", "normal-03", "normal4"], ["benign", "benign", "normal", "normal"]),
        (["cyst/a", "cyst/b", "solid/a", "solid/b"], ["cyst", "cyst", "solid", "solid"]),
        (
            ["benign (1)", "benign (2)", "normal (1)", "normal (2)", "0007"],
            ["benign", "benign", "normal", "normal", None],
        ),
        (["scan_0000", "scan_0001"], [None, None]),
        (["0001", "0002"], [None, None]),
        (["anna_1", "bert_1", "carl_1", "carl_2"], [None, None, None, None]),
        (["anna", "bert"], [None, None]),
    ],
)
def test_classes(names, classes) -> None:
    assert find_classes(names) == dict(zip(names, classes, strict=True))


def test_file(tmp_path) -> None:
    write_scores([GOOD, NOTHING], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        good, nothing = csv.DictReader(file)
    assert good["name"] == "benign (1)"
    assert good["class"] == "benign"
    assert [float(good[key]) for key in ("dice", "iou", "hd95_pixels")] == pytest.approx([0.9, 90 / 110, 2], abs=1e-6)
    assert [good[f"{key}_pixels"] for key in ("common", "predicted", "true")] == ["90", "100", "100"]
    assert (nothing["class"], nothing["hd95_pixels"], float(nothing["dice"])) == ("", "", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_file_that_cannot_be_written(tmp_path) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*scores\.csv"):
        write_scores([GOOD], tmp_path / "missing" / "scores.csv")

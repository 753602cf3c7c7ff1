"""A split that somebody else has made: what it may look like, what it decides, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from rml_search.errors import DataSetError
from rml_search.plain_output import prepare_table

from .test_prepare import noise, run, save, splits, write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def write_split(file: Path, *rows: str, header: str = "name,split") -> Path:
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def test_a_split_of_another_time_gives_the_same_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "a", seed=3, test_fraction=0.3)
    assert run(source, tmp_path / "b", file=tmp_path / "a" / "split.csv").num_left_out == 0
    assert splits(tmp_path / "b") == splits(tmp_path / "a")


def test_a_published_split_takes_what_it_lists_and_tells_of_leaks(source: Path, tmp_path: Path) -> None:
    save(source / "benign" / "benign (1).png", noise(2))  # the pixels of benign (2)
    published = write_split(
        tmp_path / "published.csv",
        "0,benign (1),train",
        "1,benign (2),val",
        "2,malignant (3).png,Validation",
        "3,normal (1),train",
        header="index,name,split",
    )
    summary = run(source, tmp_path / "data", file=published)
    assert splits(tmp_path / "data") == {
        "benign (1).png": "train",
        "benign (2).png": "test",
        "malignant (3).png": "test",
        "normal (1).png": "train",
    }
    assert (summary.num_train, summary.num_test, summary.num_left_out, summary.num_leaking) == (2, 2, 36, 1)
    told = prepare_table(summary).splitlines()
    assert told[-2] == "36 images are not in the split and were left out"
    assert told[-1].startswith("1 test image has a copy among the training images")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["benign (1),train"], "lists no test images"),
        (["benign (1),train", "benign (1).png,test"], r"line 3 of .*: benign \(1\) is listed twice"),
        (["benign (1),train", "benign (21),test"], r"line 3 of .*: there is no image 'benign \(21\)'"),
        (["benign (1),left"], "line 2 of .*: the split must be train or test, not 'left'"),
        (["benign (1)"], "line 2 of .*: the split must be train or test, not ''"),
        ([], "lists no train images"),
        (["benign (1),train", "", ",", "benign (21),test"], r"line 5 of .*: there is no image"),
    ],
)
def test_splits_that_cannot_be_used(source: Path, tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataSetError, match=f"--split: .*{message}"):
        run(source, tmp_path / "data", file=write_split(tmp_path / "split.csv", *rows))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffname,split\r\nbenign (1),train\r\n,\r\n\r\nbenign (2).png,test\r\n",
        "name;split;\nbenign (1);train;\nbenign (2);test;\n;;\n",
        "Split\t Name\ntrain\tbenign (1)\ntest\t benign (2)\n",
    ],
)
def test_what_spreadsheets_write_is_read(source: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "split.csv").write_bytes(text.encode())
    run(source, tmp_path / "data", file=tmp_path / "split.csv")
    assert splits(tmp_path / "data") == {"benign (1).png": "train", "benign (2).png": "test"}


def test_files_that_are_no_split(source: Path, tmp_path: Path) -> None:
    for name in ("missing.csv", "long" * 100):
        with pytest.raises(DataSetError, match="there is no file"):
            run(source, tmp_path / "data", file=tmp_path / name)
    for header in ("benign (1),train", "name", ""):
        with pytest.raises(DataSetError, match="must name the columns, among them name and split"):
            run(source, tmp_path / "data", file=write_split(tmp_path / "split.csv", "benign (2),test", header=header))
    (tmp_path / "split.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataSetError, match="cannot read"):
        run(source, tmp_path / "data", file=tmp_path / "split.csv")

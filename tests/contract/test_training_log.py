"""The lines of the log and of its histories: what is written is read back, and published lines are understood."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmldnn_contract.training_log import (
    EpochReader,
    EpochRecord,
    EvalBatch,
    Failure,
    Finished,
    TrainBatch,
    format_test_file_line,
    format_train_file_line,
    parse_line,
    parse_test_file,
    read_epochs,
    stamp,
    without_stamp,
)

# A published log of the tutorial's kind (contract, section 7), with the lines around it that a reader must pass over.
PUBLISHED = """\
[2022-Mar-24 21:44:12.182169] Neural Network
[2022-Mar-24 21:44:12.182169]    Total parameters: 32513559
[2022-Mar-24 21:44:12.182169] Loading model checkpoint from HDF5 file: ./model_resunet_imagenet.h5
[2022-Mar-24 21:44:12.182169]    Skipping parameter bn_data.weight (bn_data/gamma:0): not found in model
[2022-Mar-24 21:44:12.182169] *** CUDA available! Will train on GPU ***
[2022-Mar-24 21:44:13.182169] Train Epoch [  1/ 10] : Batch [    1/   13] (Loss = 0.7028; |g| = 0.5123) [Data: 27%; Compute: 72%]
[2022-Mar-24 21:44:14.182169] Train Epoch [  1/ 10] : Batch [   13/   13] (Loss = 0.6001; |g| = 0.4000) [Data: 20%; Compute: 80%]
[2022-Mar-24 21:44:14.182169] ---------------------------------------------
[2022-Mar-24 21:44:15.182169] Eval  Epoch [  1/ 10] : Batch [    1/    2] (Loss: 0.9000) | Accuracy: 0.100
[2022-Mar-24 21:44:15.182169] Eval  Epoch [  1/ 10] : Batch [    2/    2] (Loss: 0.6603) | Accuracy: 1.000
[2022-Mar-24 21:44:15.182169] ---------------------------------------------
[2022-Mar-24 21:44:16.182169] Train Epoch [  2/ 10] : Batch [   13/   13] (Loss = 0.5000; |g| = 0.3000) [Data: 20%; Compute: 80%]
[2022-Mar-24 21:44:17.182169] Eval  Epoch [  2/ 10] : Batch [    2/    2] (Loss: 0.5512) | Accuracy: 0.875
[2022-Mar-24 21:44:18.182169] All done (return value = 0).
""".splitlines(keepends=True)  # noqa: E501

counts = st.integers(1, 10**6)
four_decimals = st.integers(-(10**9), 10**9).map(lambda number: number / 10**4)
fractions = st.integers(0, 1000).map(lambda number: number / 1000)
percents = st.integers(0, 100)
train_batches = st.builds(
    TrainBatch, counts, counts, counts, counts, four_decimals, four_decimals.map(abs), percents, percents
)
eval_batches = st.builds(EvalBatch, counts, counts, counts, counts, st.none() | four_decimals, st.none() | fractions)
one_line_texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
times = st.datetimes(min_value=datetime(1900, 1, 1))


@given(train_batches | eval_batches | st.builds(Finished, st.integers()) | st.builds(Failure, one_line_texts), times)
def test_what_is_written_is_read_back(line: TrainBatch | EvalBatch | Finished | Failure, when: datetime) -> None:
    assert parse_line(line.format()) == line
    assert parse_line(stamp(line.format(), when)) == line
    assert parse_line(stamp(line.format(), when) + "\r\n") == line


@given(st.text(), times)
def test_the_time_comes_off_again(text: str, when: datetime) -> None:
    text = text.rstrip("\r\n").lstrip()
    assert without_stamp(stamp(text, when)) == text


@given(st.text())
def test_any_line_can_be_read(text: str) -> None:
    parse_line(text)


def test_published_lines() -> None:
    assert parse_line(PUBLISHED[5]) == TrainBatch(1, 10, 1, 13, 0.7028, 0.5123, 27, 72)
    assert parse_line(PUBLISHED[9]) == EvalBatch(1, 10, 2, 2, 0.6603, 1.0)
    assert parse_line(PUBLISHED[-1]) == Finished(0)
    assert [parse_line(line) for line in PUBLISHED[:5]] == [None] * 5


def test_our_lines_are_the_published_ones() -> None:
    when = datetime(2022, 3, 24, 21, 44, 13, 182169)
    assert stamp(TrainBatch(1, 10, 1, 13, 0.7028, 0.5123, 27, 72).format(), when) == PUBLISHED[5].rstrip("\n")
    assert EvalBatch(1, 10, 2, 2, 0.6603, 1.0).format() == without_stamp(PUBLISHED[9])
    assert Finished().format() == without_stamp(PUBLISHED[-1])


def test_the_month_is_english_whatever_the_locale() -> None:
    assert stamp("x", datetime(2022, 5, 1)) == "[2022-May-01 00:00:00.000000] x"


def test_an_inference_without_targets_has_no_numbers() -> None:
    line = EvalBatch(1, 1, 2, 2)
    assert line.format() == "Eval  Epoch [  1/  1] : Batch [    2/    2]"
    assert parse_line(line.format()) == line


@pytest.mark.parametrize("text", ["nan", "-nan", "-nan(ind)", "NaN"])
def test_not_a_number_as_c_prints_it(text: str) -> None:
    line = parse_line(f"Eval  Epoch [  1/  2] : Batch [    1/    1] (Loss: {text}) | Accuracy: 0.500")
    assert isinstance(line, EvalBatch)
    assert line.loss is not None
    assert math.isnan(line.loss)
    assert line.accuracy == 0.5


def test_infinite_losses() -> None:
    line = parse_line("Train Epoch [  1/  2] : Batch [    1/    1] (Loss = inf; |g| = -inf) [Data: 1%; Compute: 99%]")
    assert isinstance(line, TrainBatch)
    assert (line.loss, line.gradient_norm) == (math.inf, -math.inf)


def test_an_epoch_has_the_numbers_of_its_last_line() -> None:
    assert list(read_epochs(PUBLISHED)) == [
        EpochRecord(1, 10, accuracy=1.0, test_loss=0.6603, train_loss=0.6001),
        EpochRecord(2, 10, accuracy=0.875, test_loss=0.5512, train_loss=0.5),
    ]


def test_an_epoch_whose_last_line_is_missing_ends_with_the_next_one() -> None:
    lines = [line for line in PUBLISHED if "2/    2" not in line]
    assert list(read_epochs(lines)) == [EpochRecord(1, 10, accuracy=0.1, test_loss=0.9, train_loss=0.6001)]


def test_an_epoch_is_told_as_soon_as_it_is_over() -> None:
    reader = EpochReader()
    records = [reader.feed(line) for line in PUBLISHED[:10]]
    assert records[:-1] == [[]] * 9
    assert [record.epoch for record in records[-1]] == [1]


@given(st.lists(eval_batches, max_size=5))
def test_histories_are_read_back(evaluations: list[EvalBatch]) -> None:
    known = [replace(line, epoch=number, accuracy=line.accuracy or 0.0) for number, line in enumerate(evaluations)]
    text = "\n".join(format_test_file_line(1.5, line) for line in known)
    assert parse_test_file(text) == {line.epoch: line.accuracy for line in known}


def test_a_line_of_the_training_history() -> None:
    assert format_train_file_line(1.25, TrainBatch(2, 10, 3, 13, 0.5, 0.25)) == "1.250 2 3 0.500000 0.250000"
    assert format_train_file_line(1.25, TrainBatch(2, 10, 3, 13, 0.5)) == "1.250 2 3 0.500000 nan"


@pytest.mark.parametrize(
    "text",
    [
        "1 0.66 0.5\n2 0.55 0.75\n",  # epoch, loss, accuracy
        "# epoch time loss accuracy\n1 12.5 0.66 0.5\n\n2 25.1 0.55 0.75\n",
        "1\t6.6e-01\t0.5\r\n2\t5.5e-01\t0.75\r\n",
        "1, 1, 0.66, 0.500000\n2, 1, 0.55, 0.750000\n",
        "Epoch 1: loss 0.66, accuracy 0.5\nEpoch 2: loss nan, accuracy 0.75\n",
        "1.0 0.66 .5\n2.0 -nan .75",
        "inference: information\nepoch loss accuracy of an inference by nanoseconds\n1 inf 0.5\n2 nan(ind) 0.75\n",
        "nan nan\ninf 0.1\n1 0.66 0.5\n2 0.55 0.75\n",
    ],
)
def test_plausible_forms_of_a_foreign_history(text: str) -> None:
    assert parse_test_file(text) == {1: 0.5, 2: 0.75}


def test_the_share_of_the_training_that_a_batch_completes():
    assert TrainBatch(1, 50, 11, 22, 0.5).share_of_training == 0.01
    assert TrainBatch(50, 50, 22, 22, 0.5).share_of_training == 1.0
    assert TrainBatch(3, 2, 1, 1, 0.5).share_of_training == 1.0  # a resumed training may count on
    assert TrainBatch(1, 0, 1, 0, 0.5).share_of_training == 0.0


@pytest.mark.parametrize("place", range(4))
def test_a_count_of_thousands_of_digits_is_passed_over_like_any_rubbish(place):
    counts = ["1", "3", "2", "5"]
    counts[place] = "9" * 5000  # Python refuses to make a number of more than 4300
    line = "Train Epoch [{}/{}] : Batch [{}/{}] (Loss = 0.7028; |g| = 0.5123)".format(*counts)
    assert parse_line(line) is None
    assert parse_line(line.replace("Train", "Eval ")) is None

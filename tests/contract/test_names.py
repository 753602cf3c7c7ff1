"""Names in any case, and the nearest known one for a mistyped one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmldnn_contract.config import LOSSES
from rmldnn_contract.names import canonical_name, nearest_name, unknown_name
from rmldnn_contract.optimizer import OPTIMIZERS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("adam", "Adam"), (" RMSPROP ", "RMSprop"), ("sgd", "SGD"), ("AdamW", "AdamW"), ("lamb", "LAMB")],
)
def test_names_are_known_in_any_case_and_with_blanks(typed: str, meant: str) -> None:
    assert canonical_name(typed, OPTIMIZERS) == meant


def test_a_name_that_is_not_known_has_no_spelling() -> None:
    assert canonical_name("adamx", OPTIMIZERS) is None
    assert canonical_name("", OPTIMIZERS) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("addam", "Adam"),
        ("rms", "RMSprop"),
        ("adagrd", "Adagrad"),
        ("SDG", "SGD"),
        ("hess", "Hessian"),
        ("lar", "LARS"),
    ],
)
def test_the_nearest_optimizer_is_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert nearest_name(typed, OPTIMIZERS) == meant


@pytest.mark.parametrize(
    ("typed", "meant"), [("dise", "Dice"), ("jacard", "Jaccard"), ("lovas", "Lovasz"), ("foc", "Focal")]
)
def test_the_nearest_loss_is_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert nearest_name(typed, LOSSES) == meant


def test_a_name_far_from_all_gets_the_whole_list() -> None:
    assert nearest_name("zzzz", LOSSES) is None
    message = unknown_name("loss", " zzzz ", LOSSES)
    assert message == "unknown loss 'zzzz': known are NLL, BCE, MSE, Dice, Jaccard, Focal, Lovasz"
    assert unknown_name("loss", "dise", LOSSES) == "unknown loss 'dise': did you mean 'Dice'?"


@given(st.text())
def test_any_text_has_an_answer_among_the_known(text: str) -> None:
    assert nearest_name(text, OPTIMIZERS) in {None, *OPTIMIZERS}
    assert "\n" not in unknown_name("optimizer", text.replace("\n", " "), OPTIMIZERS) or "\n" in repr(text)

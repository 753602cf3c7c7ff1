"""Failures that every trial would share end a search; those that another network or size could mend do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rml_optuna import open_study
from rml_search.base_config import BaseConfig
from rml_search.errors import AllTrialsFailedError, EngineFailedError
from rml_search.hyperparameters import Hyperparameters
from rml_search.limits import Limits
from rml_search.network_file import NetworkFile
from rml_search.observer import SilentObserver
from rml_search.options import StudyChoice
from rml_search.results import TrialResult, TrialState, read_list_acc
from rml_search.search import Search
from rml_search.search_space import Choices, Dimension
from rml_search.shared_failure import shared_failure
from rmldnn_contract.config import Configuration
from rmldnn_contract.exit_status import ExitStatus

MISFIT = "Error: The network in './trials/layers.json' cannot be used: 44x44x64 and 45x45x32 differ"
TRANSFORMS = Dimension("size", "data.transforms", Choices(("a", "b"), ([{"resize": [90, 90]}], [{"resize": [96, 96]}])))
MOMENTUM = Dimension("optimizer.momentum", "optimizer.momentum", Choices((0.5, 0.9)), (("optimizer", ("sgd",)),))


def run(workspace, options, runtime, **limits):
    study = open_study(workspace, options, StudyChoice(), lambda text: None)
    search = Search(options, workspace, runtime, study, SilentObserver(), Limits(**limits))
    try:
        search.run()
    finally:
        study.close()


def test_a_network_that_does_not_fit_is_named_with_the_size_in_one_line(workspace, make_options, scripted, script):
    with pytest.raises(EngineFailedError) as caught:
        run(workspace, make_options(image_size=(90, 80)), scripted(script(code=66, words=[MISFIT])))
    layers = workspace.root / "layers.json"
    assert str(caught.value) == (
        f"trial 0 failed, as every trial would: The network in '{layers}' cannot be used: 44x44x64 and 45x45x32 differ"
        f": check --image-size 90 80 and --layers {layers}"
    )
    assert caught.value.exit_code == 66


def test_sizes_and_network_of_a_configuration_are_to_be_looked_for_there(workspace, make_options):
    document = {"neural_network": {"layers": "a.json", "data": {"type": "images", "test_input_path": "images/"}}}
    options = make_options(
        image_size=None, layers=(), base=BaseConfig(Path("mine.json"), Configuration.model_validate(document))
    )
    failed = TrialResult(
        3,
        Hyperparameters("adam", "bce", 0.01),
        TrialState.FAILED,
        (),
        1.0,
        reason="it does not fit",
        exit_status=ExitStatus.NETWORK,
    )
    error = shared_failure(failed, options, workspace)
    assert str(error) == "trial 3 failed, as every trial would: it does not fit: check --config mine.json"


@pytest.mark.parametrize(
    ("code", "searched"),
    [(65, "networks"), (66, "networks"), (67, "networks"), (65, "transforms"), (66, "transforms")],
)
def test_a_search_of_networks_or_transforms_goes_on_after_one_that_does_not_fit(
    workspace, make_options, scripted, script, code, searched
):
    (workspace.root / "other.json").write_text((workspace.root / "layers.json").read_text())
    two = (workspace.root / "layers.json", workspace.root / "other.json")
    several = {"layers": two, "networks": (NetworkFile(3, "sigmoid"),) * 2}
    options = make_options(**(several if searched == "networks" else {"dimensions": (TRANSFORMS,)}))
    run(workspace, options, scripted(script(code=code, words=[MISFIT]), script([0.7])))
    assert [record.state.value for record in read_list_acc(workspace)] == ["failed", "complete"]


def test_it_ends_when_none_of_them_fits(workspace, make_options, scripted, script):
    options = make_options(num_trials=9, dimensions=(TRANSFORMS,))
    runtime = scripted(*[script(code=66, words=[MISFIT])] * 9)
    with pytest.raises(AllTrialsFailedError):
        run(workspace, options, runtime, max_consecutive_failures=2)
    assert len(runtime.runs) == 2


@pytest.mark.parametrize(("code", "dimension"), [(66, MOMENTUM), (67, TRANSFORMS), (69, TRANSFORMS), (73, TRANSFORMS)])
def test_what_the_searched_values_cannot_change_ends_it_at_once(
    workspace, make_options, scripted, script, code, dimension
):
    runtime = scripted(script(code=code, words=[MISFIT]))
    with pytest.raises(EngineFailedError) as caught:
        run(workspace, make_options(dimensions=(dimension,)), runtime)
    assert caught.value.exit_code == code
    assert len(runtime.runs) == 1

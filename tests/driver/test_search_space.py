"""Search spaces of a person's own: files, grids, conditions, documents, and whole searches over them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rml_optuna import open_study
from rml_search.base_config import read_base_config
from rml_search.errors import DataSetError, OptionError
from rml_search.gallery_rows import check_images_in_place
from rml_search.hyperparameters import Hyperparameters
from rml_search.network_file import NetworkFile
from rml_search.options import Objective, PrunerName, SamplerName, StudyChoice, parse_layers, parse_objectives
from rml_search.plain_output import PlainObserver, best_table, pareto_table
from rml_search.request import SearchRequest
from rml_search.results import pareto_front
from rml_search.search import Search
from rml_search.search_space import Choices, Dimension, FloatRange, IntRange, SearchSpace, spread
from rml_search.space_check import check_space
from rml_search.space_file import read_search_space
from rml_search.trial_config import inference_configuration, training_configuration
from rmldnn_contract.exit_status import ConfigurationError

SPACE = """
["optimizer.weight_decay"]
low = 1e-6
high = 1e-2
log = true

["optimizer.momentum"]
low = 0.0
high = 0.9
step = 0.3
when = { optimizer = "SGD" }

[data.batch_size]
low = 8
high = 32
step = 8

["data.transforms".choices]
plain = [{ resize = [64, 64] }]
flipped = [{ resize = [64, 64] }, { random_horizontal_flip = 0.5 }]

["optimizer.lr_scheduler".choices]
off = {}
decay = { type = "Exponential", gamma = 0.9 }
"""


@pytest.fixture
def space_file(tmp_path):
    """Writes a file of a search space."""

    def write(text: str) -> Path:
        (tmp_path / "space.toml").write_text(text)
        return tmp_path / "space.toml"

    return write


def test_a_file_is_read_into_dimensions(space_file):
    decay, momentum, batch, transforms, scheduler = read_search_space(space_file(SPACE))
    assert decay == Dimension("optimizer.weight_decay", "optimizer.weight_decay", FloatRange(1e-6, 1e-2, log=True))
    assert momentum.domain == FloatRange(0.0, 0.9, step=0.3)
    assert momentum.when == (("optimizer", ("sgd",)),)
    assert batch.domain == IntRange(8, 32, step=8)
    assert transforms.domain.values == ("plain", "flipped")
    assert scheduler.domain.in_document("off") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no dimension"),
        ("x = 1", "x is not a table"),
        ("[a", "is not valid TOML"),
        ("[x]\nlow = 1", "x: needs low and high, or choices"),
        ("[x]\nlow = 2\nhigh = 1", r"low \(2\) is above high \(1\)"),
        ("[x]\nlow = 0.0\nhigh = 1.0\nlog = true", "needs a low above 0"),
        ("[x]\nlow = 0.0\nhigh = inf", "high must be finite"),
        ("[x]\nlow = true\nhigh = 1", "low must be a number, not True"),
        ("[x]\nlow = 0\nhigh = 1\nstep = 2", "step must be above 0 and fit"),
        ("[x]\nlow = 0\nhigh = 1\nhihg = 2", "unknown key 'hihg': did you mean 'high'"),
        ("[x]\nchoices = []", "must be a non-empty list"),
        ("[x]\nchoices = [1, 1]", "contains a value twice"),
        ("[x]\nchoices = [[1]]", "need names"),
        ("[x]\nchoices = [1]\nlow = 1", "choices and low cannot be combined"),
        ("[loss]\nchoices = ['dise']", "unknown loss 'dise': did you mean 'Dice'"),
        ("[optimizer]\nlow = 1\nhigh = 2", "takes names, not numbers"),
        ("[learning_rate]\nlow = 1.0\nhigh = 2.0\nwhen = {loss = 'bce'}", "every trial has one"),
        ("[a]\nchoices=[1,2]\nwhen={b=1}\n[b]\nchoices=[1,2]\nwhen={a=1}", "are circular"),
        ("['optimizer.type']\nchoices=['adam']\n[optimizer]\nchoices=['sgd']", "optimizer is there twice"),
    ],
)
def test_what_cannot_be_is_one_line(space_file, text, message):
    with pytest.raises(OptionError, match=message) as caught:
        read_search_space(space_file(text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(OptionError, match="there is no file"):
        read_search_space(tmp_path / "none.toml")


def test_grid_has_every_combination_and_conditions_hold():
    momentum = Dimension("m", "optimizer.momentum", FloatRange(0.0, 1.0, step=0.5), (("o", ("sgd",)),))
    space = SearchSpace((Dimension("o", "optimizer.type", Choices(("adam", "sgd"))), momentum))
    assert space.grid() == [
        {"o": "adam"},
        {"o": "sgd", "m": 0.0},
        {"o": "sgd", "m": 0.5},
        {"o": "sgd", "m": 1.0},
    ]
    assert space.is_finite
    assert space.is_whole({"o": "adam"})
    assert not space.is_whole({"o": "sgd"})
    assert not space.is_whole({})


def test_learning_rates_of_a_grid_stand_in_equal_ratios():
    rates = spread(0.001, 0.1, log=True)
    assert (rates[0], rates[-1]) == (0.001, 0.1)
    assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([math.sqrt(10)] * 4)


@given(st.floats(1e-6, 1.0), st.floats(0.9, 1.1))
def test_numbers_within_half_a_percent_are_the_same_point(value, factor):
    domain = FloatRange(1e-7, 2.0, log=True)
    distance = abs(math.log(factor))
    if abs(distance - math.log(1.005)) > 1e-9:
        assert domain.is_same(value, value * factor) == (distance < math.log(1.005))


@given(st.integers(-50, 50), st.integers(0, 300), st.integers(1, 7))
def test_whole_numbers_of_a_grid_are_of_the_range(low, width, step):
    domain = IntRange(low, low + width, step=step)
    numbers = domain.grid()
    assert 1 <= len(numbers) <= 5
    assert len(set(numbers)) == len(numbers)
    assert all(domain.contains(number) for number in numbers)


def test_a_trial_gets_its_values_where_the_document_has_them(workspace, make_options, scripted, script, space_file):
    dimensions = read_search_space(space_file(SPACE))
    options = make_options(num_trials=12, dimensions=dimensions, networks=())
    check_space(options, workspace)
    runtime = scripted(*[script([0.5])] * 12)
    running = search(workspace, options, runtime)
    running.run()
    for document, record in zip(runtime.documents, running.records, strict=True):
        point = record.hyperparameters
        optimizer = document["optimizer"]
        assert 1e-6 <= optimizer["weight_decay"] == point["optimizer.weight_decay"] <= 1e-2
        assert ("momentum" in optimizer) == (optimizer["type"] == "SGD") == ("optimizer.momentum" in point)
        assert document["data"]["batch_size"] in {8, 16, 24, 32}
        assert len(document["data"]["transforms"]) == {"plain": 1, "flipped": 2}[point["data.transforms"]]
        assert ("lr_scheduler" in optimizer) == (point["optimizer.lr_scheduler"] == "decay")
    assert len({document["optimizer"]["type"] for document in runtime.documents}) == 2
    assert "optimizer.weight_decay" in best_table(running.records)


def test_inference_on_the_best_model_moves_no_pixels(workspace, make_options, space_file):
    text = """
        ["data.input_transforms".choices]
        best = [{ random_horizontal_flip = 0.5 }, { resize = [64, 64] }, { random_rotate = 9 }, { normalize = {} }]
        ["data.target_transforms".choices]
        best = [{ random_horizontal_flip = 0.5 }, { resize = [64, 64] }, { random_rotate = 9 }]
    """
    options = make_options(dimensions=read_search_space(space_file(text)), image_size=None)
    others = (("data.input_transforms", "best"), ("data.target_transforms", "best"))
    point = Hyperparameters("adam", "bce", 0.01, others)
    training = json.loads(training_configuration(options, point, workspace.trial(0), workspace).to_json())
    inference = inference_configuration(options, point, workspace)
    assert len(training["neural_network"]["data"]["input_transforms"]) == 4
    document = json.loads(inference.to_json())["neural_network"]["data"]
    assert document["input_transforms"] == [{"resize": [64, 64]}, {"normalize": {}}]
    assert document["target_transforms"] == [{"resize": [64, 64]}]
    check_images_in_place(inference)  # so that it can be scored, drawn and exported


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("['optimizer.momentum']\nlow=0.0\nhigh=0.9", r"with the optimizer adam .* does not belong here.*when ="),
        ("['optimizer.weigth_decay']\nlow=0.0\nhigh=0.9", "did you mean 'weight_decay'"),
        ("['data.batch_size']\nlow=0\nhigh=4", "data.batch_size = 0"),
        ("['data.transforms.7.resize']\nchoices={a=[1,1]}", "there is no 7"),
        ("['checkpoints.save']\nchoices=['x']", "is set by the search itself"),
        ("['optimizer.eps']\nlow=0.0\nhigh=1.0\nwhen={optimiser='adam'}", "unknown hyperparameter 'optimiser'"),
        ("['optimizer.eps']\nlow=0.0\nhigh=1.0\nwhen={optimizer='lamb'}", "optimizer is never lamb: it is adam, sgd"),
    ],
)
def test_a_space_that_fits_no_configuration_is_one_line(workspace, make_options, space_file, text, message):
    options = make_options(dimensions=read_search_space(space_file(text)))
    with pytest.raises(OptionError, match=message) as caught:
        check_space(options, workspace)
    assert "\n" not in str(caught.value)


def test_values_that_exclude_each_other_are_a_failed_trial(workspace, make_options, scripted, script, space_file):
    text = "['optimizer.nesterov']\nchoices=[true,false]\n['optimizer.momentum']\nchoices=[0.0,0.9]"
    dimensions = read_search_space(space_file(text))
    options = make_options(
        optimizers=("sgd",), losses=("bce",), lr_range=(0.01, 0.01), num_trials=4, dimensions=dimensions
    )
    running = search(workspace, options, scripted(*[script([0.5])] * 3))
    running.run()
    reasons = [record.reason for record in running.records if record.state.value == "failed"]
    assert len(reasons) == 1
    assert "nesterov needs a momentum above 0" in reasons[0]


def test_a_grid_over_the_whole_space_ends_the_search(workspace, make_options, scripted, script, space_file):
    text = "['data.batch_size']\nchoices=[8,16]\n['optimizer.momentum']\nchoices=[0.5,0.9]\nwhen={optimizer='sgd'}"
    dimensions = read_search_space(space_file(text))
    options = make_options(num_trials=100, losses=("bce",), lr_range=(0.01, 0.01), dimensions=dimensions)
    running = search(workspace, options, scripted(*[script([0.5])] * 6), StudyChoice(sampler=SamplerName.GRID))
    running.run()
    assert running.ended_early == "every point of the search space has been tried"
    assert len(running.records) == 2 + 4  # adam has no momentum


def test_networks_to_choose_from(workspace, make_options, scripted, script):
    other = workspace.root / "other.json"
    other.write_text(json.dumps([{"class_name": "Conv2D", "config": {"name": "b", "activation": "softmax"}}]))
    options = make_options(
        num_trials=8,
        layers=(workspace.root / "layers.json", other),
        networks=(NetworkFile(1, "sigmoid"), NetworkFile(3, "softmax")),
    )
    runtime = scripted(*[script([0.1 * number]) for number in range(8)])
    running = search(workspace, options, runtime)
    running.run()
    for document, record in zip(runtime.documents, running.records, strict=True):
        is_other = record.hyperparameters["layers"] == "other.json"
        assert document["layers"] == ("./trials/layers_2.json" if is_other else "./trials/layers.json")
        assert document["loss"]["source"] == ("softmax" if is_other else "sigmoid")
        assert ("input_grayscale" in document["data"]) != is_other
    assert {record.hyperparameters["layers"] for record in running.records} == {"layers.json", "other.json"}
    wanted = workspace.root / running.records[-1].hyperparameters["layers"]
    assert workspace.best_layers.read_text() == wanted.read_text()


def test_two_objectives_give_a_pareto_front(workspace, make_options, scripted, script):
    options = make_options(num_trials=3, objectives=(Objective.ACCURACY, Objective.SECONDS))
    running = search(workspace, options, scripted(script([0.5]), script([0.9], seconds=0.3), script([0.4])))
    running.run()
    front = pareto_front(running.records)
    assert front[0].max_acc == 0.9
    assert 0.4 not in {record.max_acc for record in front} or front[-1].seconds < running.records[0].seconds
    assert "Pareto front" in pareto_table(running.records)
    assert running.study.study.directions == [2, 1]
    assert [trial.values[0] for trial in running.study.study.trials] == [0.5, 0.9, 0.4]


def test_a_persons_own_configuration_stays_but_for_what_is_searched(workspace, tmp_path, scripted, script, monkeypatch):
    monkeypatch.chdir(workspace.root)
    own = {
        "num_epochs": 4,
        "outfile": "mine.txt",
        "layers": [{"class_name": "Conv2D", "config": {"name": "a", "activation": "softmax"}}],
        "checkpoints": {"save": "elsewhere/", "interval": 3},
        "data": {
            "input_type": "numpy", "target_type": "numpy", "input_path": "data/train/inputs",
            "target_path": "data/train/targets", "test_input_path": "data/test/inputs",
            "test_target_path": "data/test/targets", "test_output_path": "out/", "batch_size": 5,
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.2, "momentum": 0.9},
        "loss": {"function": "NLL", "weight": [1.0, 2.0]},
    }  # fmt: skip
    (tmp_path / "base.json").write_text(json.dumps({"neural_network": own}))
    request = SearchRequest(num_trials=2, config=tmp_path / "base.json", optimizers="adam,sgd", seed=1)
    options = request.resolve()
    assert (options.num_epochs, options.losses, options.lr_range) == (4, ("nll",), (0.2, 0.2))
    runtime = scripted(script([0.5]), script([0.6]))
    running = search(workspace, options, runtime)
    running.run()
    for document in runtime.documents:
        assert document["checkpoints"] == {
            "save": document["checkpoints"]["save"],
            "interval": 1,
        }
        assert "elsewhere" not in document["checkpoints"]["save"]
        assert document["data"] == {k: v for k, v in own["data"].items() if k != "test_output_path"} | {
            "test_batch_size": 64
        }
        assert document["loss"] == own["loss"]
        assert document["optimizer"].get("momentum") == (0.9 if document["optimizer"]["type"] == "SGD" else None)
        assert json.loads((workspace.root / document["layers"]).read_text()) == own["layers"]
    inference = json.loads(workspace.best_config.read_text())["neural_network"]
    assert inference["data"]["test_output_path"] == "./predictions/"
    assert "input_path" not in inference["data"]
    assert "optimizer" not in inference


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"type": "images", "test_input_path": "data/test/inputs"}}, OptionError, "no data.input_path"),
        (
            {"data": {"type": "images", "input_path": "nowhere", "test_input_path": "data/test/inputs"}},
            DataSetError,
            "names nowhere, which does not exist",
        ),
        (
            {"data": {"type": "images", "inptu_path": "data/train/inputs"}},
            ConfigurationError,
            "did you mean 'input_path'",
        ),
    ],
)
def test_a_configuration_that_cannot_be_searched_is_one_line(workspace, tmp_path, monkeypatch, change, error, message):
    monkeypatch.chdir(workspace.root)
    own = {"layers": "layers.json", "optimizer": {"type": "Adam"}, "loss": {"function": "BCE"}, **change}
    (tmp_path / "base.json").write_text(json.dumps({"neural_network": own}))
    with pytest.raises(error, match=message):
        read_base_config(tmp_path / "base.json")


def test_what_is_said_twice_is_one_line(space_file):
    file = space_file("[optimizer]\nchoices = ['adam']")
    with pytest.raises(OptionError, match="remove one"):
        SearchRequest(num_trials=1, num_epochs=1, optimizers="sgd", loss="bce", search_space=file).resolve()
    options = SearchRequest(num_trials=1, num_epochs=1, loss="bce", search_space=file).resolve()
    assert options.optimizers == ("adam",)


@pytest.mark.parametrize("text", ["", ",", "seconds", "speed"])
def test_objectives_that_cannot_be(text):
    with pytest.raises(OptionError, match="--objective"):
        parse_objectives(text)


def test_layers_are_files_with_commas_between_them(tmp_path):
    assert parse_layers("a.json, b.json") == (Path("a.json"), Path("b.json"))
    odd = tmp_path / "a,b.json"
    odd.write_text("[]")
    assert parse_layers(str(odd)) == (odd,)
    with pytest.raises(OptionError, match="twice"):
        parse_layers("a.json,a.json")
    with pytest.raises(OptionError, match="no network file"):
        parse_layers(",")


def test_hyperparameters_are_told_in_one_line():
    point = {"optimizer": "adam", "loss": "bce", "learning_rate": 0.001234, "data.batch_size": 8, "x": True}
    hyperparameters = Hyperparameters.from_point(point)
    assert str(hyperparameters) == "adam, bce, learning rate 0.00123, data.batch_size 8, x true"
    assert hyperparameters.point == point


def search(workspace, options, runtime, choice=None):
    """A search over scripts that shows nothing."""
    study = open_study(workspace, options, choice or StudyChoice(pruner=PrunerName.NONE), lambda _: None)
    return Search(options, workspace, runtime, study, PlainObserver(options, lambda _: None))

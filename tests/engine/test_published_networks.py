"""Counts of the published networks, as rmldnn's own logs print them (contract, section 9)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_torch.architectures import resunet

from .published_networks import birds_classifier, published, satellite_classifier
from .runs import Document, Runs
from .test_keras_graph import smoke_test_layers

# The two ResNet-50 have different trunks: so say the counts, and the files bear it out. With biases the trunk has
# 23534592 parameters; 24354192 is that and a head of 2048 * 400 + 400, which alone is trainable. Without the biases of
# its 26560 filters it has 23508032; 23528512 is that and a head of 2048 * 10 without bias. To these 20480 the gamma and
# beta of 26560 channels, 53120, make 73600: all BatchNormalization layers are trainable, and count though the file
# gives them neither scale nor center.
COUNTS: dict[str, tuple[Any, int, int, int]] = {
    "ResUNet": (resunet(), 32513559, 32513559, 231),
    "pets": (published("xception"), 2055203, 2055203, 73),
    "satellite": (satellite_classifier(10), 23528512, 73600, 178),
    "birds": (birds_classifier(400), 24354192, 819600, 178),
    "MNIST": (published("mnist"), 34826, 34826, 11),
    "smoke test": (smoke_test_layers(), 21432, 21432, 14),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str, run: Runs) -> None:
    layers, total, trainable, operations = COUNTS[name]
    Path("layers.json").write_text(json.dumps(layers), encoding="utf-8")
    # The network is built and told of before the data are looked for.
    document: Document = {"layers": "layers.json", "data": {"type": "images", "test_input_path": "nowhere"}}
    run({"neural_network": document}, status=ExitStatus.DATA)
    start = run.lines.index("Neural Network:")
    assert run.lines[start + 2 : start + 5] == [
        f"   Total parameters: {total}",
        f"   Trainable parameters: {trainable}",
        f"   Num of operations: {operations}",
    ]

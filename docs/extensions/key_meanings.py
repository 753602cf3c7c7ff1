"""What each key of the configuration means; its type, range and default stand in the code."""

from __future__ import annotations

_PAIRED = "if it differs from ``type``"

_OPTIMIZER = {
    "type": "Which optimizer.",
    "learning_rate": "The learning rate of the first epoch. A search sets it.",
    "weight_decay": "L2 penalty: adds this value times the weight to the gradient; AdamW decays the weights instead.",
    "lr_scheduler": "Learning rate schedule; absent: constant learning rate. See below.",
    "momentum": "Momentum factor.",
    "dampening": "Dampening for momentum.",
    "nesterov": "Use Nesterov momentum; needs a momentum above 0 and a dampening of 0.",
    "beta1": "Decay rate of the running mean of the gradient.",
    "beta2": "Decay rate of the running mean of the squared gradient.",
    "eps": "Added to the denominator for numerical stability.",
    "amsgrad": "Use the AMSGrad variant: divide by the largest running mean of the squared gradient so far.",
    "alpha": "Decay rate of the running mean of the squared gradient.",
    "centered": "Center it: subtract the squared running mean of the gradient.",
    "lr_decay": "The learning rate of step n is divided by 1 + n times this value.",
    "eta": "Trust coefficient: the norm of a step as a fraction of the norm of the layer's weights.",
    "max_iterations": "Maximum number of iterations per step.",
    "max_func_eval": "Maximum number of loss evaluations per step.",
    "absolute_tolerance": "A step ends when no component of the gradient is larger than this value.",
    "relative_tolerance": "A step ends when the loss, or every weight, changes by less than this value.",
}

_SCHEDULER = {
    "type": "Which scheduler.",
    "verbose": "Print each change of the learning rate.",
    "gamma": "Multiplicative factor of the learning rate.",
    "step_size": "Number of epochs between changes.",
    "milestones": "Epochs after which the learning rate changes.",
    "num_epochs": "Length of the warm-up in epochs.",
    "start_factor": "Factor of the learning rate at the start of the warm-up.",
}

_MEANINGS: dict[str, dict[str, str]] = {
    "NeuralNetwork": {
        "outfile": "Base name of two logs: ``out.txt`` gives ``out_train.txt`` and ``out_test.txt``. Absent: no logs.",
        "num_epochs": "Number of training epochs.",
        "layers": "Path of a Keras network file (``model.to_json()``), or its list of layers.",
        "checkpoints": "See below.",
        "data": "See below.",
        "optimizer": "See below. Required with ``data.input_path``.",
        "loss": "See below. Required for training; without it, inference reports no loss or accuracy.",
        "debug": "Write a drawing of the network in Graphviz format.",
        "debug_interval": "Accepted, but has no effect: the drawing is written once.",
    },
    "Checkpoints": {
        "save": "Folder for ``model_checkpoint_N.pt``, written after epoch N (from 1). Absent: no checkpoints.",
        "interval": "Number of epochs between checkpoints.",
        "load": "A ``.pt`` or Keras ``.h5`` file to start from. Parameters are matched by layer name; the log has a "
        "line for each that is skipped.",
    },
    "Data": {
        "type": "Type of inputs and targets: image files, labels (the class is the name of the file's folder), NumPy "
        "arrays, or HDF5.",
        "input_type": f"Type of the inputs, {_PAIRED}.",
        "target_type": f"Type of the targets, {_PAIRED}.",
        "input_path": "Folder or file of the training inputs. Absent: no training.",
        "target_path": "Folder or file of the training targets, paired with the inputs by sorted file name.",
        "test_input_path": "Folder or file of the test inputs. Absent: no evaluation.",
        "test_target_path": "Folder or file of the test targets.",
        "test_output_path": "Folder for predictions, ``output_1.h5`` (one file per process).",
        "batch_size": "Training samples per optimizer step, over all processes.",
        "test_batch_size": "Test samples per batch, over all processes.",
        "preload": "Keep all samples in memory instead of reading them for each batch.",
        "grayscale": "Read images with one channel instead of three.",
        "input_grayscale": "The same for inputs only; absent: as ``grayscale``.",
        "target_grayscale": "The same for targets only; absent: as ``grayscale``.",
        "target_is_mask": "Targets are masks: resize with nearest-neighbour instead of bilinear interpolation.",
        "training_tag": "For labels: the class is the folder directly below the folder of this name.",
        "test_tag": "The same for the test samples. ``testing_tag`` is accepted too.",
        "transforms": "Transforms of both inputs and targets. See below.",
        "input_transforms": "Transforms of inputs only; excludes ``transforms``.",
        "target_transforms": "Transforms of targets only; excludes ``transforms``.",
        "slicers": "How to cut samples out of large arrays. See below.",
        "hdf5_outfile": "HDF5 file into which the predictions of slices are merged; needs ``slicers``.",
        "hdf5_precision": "Its precision, 32-bit or 16-bit.",
    },
    "Slicer": {
        "sizes": "Size of a block in each dimension; 1 drops the dimension.",
        "name": "Name of the predictions, as a path in an HDF5 file.",
        "padding": "Padding on both sides of each dimension.",
        "padded_sizes": "Size after padding in each dimension; excludes ``padding``.",
        "strides": "Distance between blocks in each dimension; absent: as ``sizes``.",
        "discard_remainders": "Drop the remainder at the end of a dimension instead of padding it.",
        "transpose": "Transpose each two-dimensional slice before it enters the network.",
    },
    "Loss": {
        "function": "Which loss: negative log-likelihood, binary cross-entropy, mean squared error, 1 - Dice, "
        "1 - Jaccard, focal loss, Lovasz hinge. A search sets it.",
        "source": "The final activation of the network; absent: inferred from its last layer.",
        "weight": "For NLL: a weight for each class.",
        "ignore_index": "For NLL: the class to ignore in targets.",
    },
}


def meaning_of(section: str, key: str) -> str:
    """What a key means.

    Raises:
        LookupError: the code has a key that nobody has explained here.
    """
    meanings = _MEANINGS.get(section) or (_SCHEDULER if section.endswith("Scheduler") else _OPTIMIZER)
    if key not in meanings:
        raise LookupError(f"docs/extensions/key_meanings.py does not explain {section}.{key}")
    return meanings[key]

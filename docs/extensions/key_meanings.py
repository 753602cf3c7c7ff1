"""What each key of the configuration means; its type, range and default stand in the code."""

from __future__ import annotations

_PAIRED = "else that of ``type``"

_OPTIMIZER = {
    "type": "Which optimizer.",
    "learning_rate": "The learning rate of the first epoch. A search sets it.",
    "weight_decay": "So many times a weight is added to its gradient; AdamW shrinks the weights by it instead.",
    "lr_scheduler": "How the learning rate changes; absent: not at all. See below.",
    "momentum": "How much of the last step goes into the next.",
    "dampening": "By how much the gradient counts less where there is momentum.",
    "nesterov": "Nesterov's momentum; needs a momentum above 0 and a dampening of 0.",
    "beta1": "Decay of the mean of gradients.",
    "beta2": "Decay of the mean of squared gradients.",
    "eps": "Added to the denominator of a step.",
    "amsgrad": "Divide by the largest mean of squared gradients so far.",
    "alpha": "Decay of the mean of squared gradients.",
    "centered": "Subtract the squared mean of gradients from it.",
    "lr_decay": "The rate of step n is divided by 1 + n times this.",
    "eta": "Trust coefficient: the share of the norm of a layer's weights that a step may have.",
    "max_iterations": "Iterations of one step at most.",
    "max_func_eval": "Evaluations of the loss in one step at most.",
    "absolute_tolerance": "A step ends when the gradient is smaller.",
    "relative_tolerance": "A step ends when the gradient has become smaller by this factor.",
}

_SCHEDULER = {
    "type": "Which scheduler.",
    "verbose": "Print each change of the learning rate.",
    "gamma": "The factor.",
    "step_size": "Epochs from one change to the next.",
    "milestones": "Epochs after which it changes.",
    "num_epochs": "How many epochs the warm-up takes.",
    "start_factor": "The share of the learning rate that it begins with.",
}

_MEANINGS: dict[str, dict[str, str]] = {
    "NeuralNetwork": {
        "outfile": "Base name of two logs: ``out.txt`` gives ``out_train.txt`` and ``out_test.txt``. Absent: none.",
        "num_epochs": "Passes over the training samples.",
        "layers": "Path of a Keras network file (``model.to_json()``), or its list of layers.",
        "checkpoints": "See below.",
        "data": "See below.",
        "optimizer": "See below. Required where there is ``data.input_path``.",
        "loss": "See below. Required for training; without it inference has neither loss nor accuracy.",
        "debug": "Write a drawing of the network, in Graphviz's language.",
        "debug_interval": "Read, and without effect here: the drawing is written once.",
    },
    "Checkpoints": {
        "save": "Folder; ``model_checkpoint_N.pt`` is written there after epoch N (from 1). Absent: none is kept.",
        "interval": "Save every so many epochs.",
        "load": "A ``.pt`` file or a Keras ``.h5`` to start from. Parameters are matched by the names of layers; the "
        "log has a line for each that is skipped.",
    },
    "Data": {
        "type": "What inputs and targets are: image files, labels (the class is the name of the folder that holds the "
        "file), NumPy arrays, or HDF5.",
        "input_type": f"That of inputs, {_PAIRED}.",
        "target_type": f"That of targets, {_PAIRED}.",
        "input_path": "Folder or file of the training inputs. Absent: nothing is trained.",
        "target_path": "That of the training targets; they pair with the inputs by sorted file name.",
        "test_input_path": "Folder or file of the test inputs. Absent: nothing is evaluated.",
        "test_target_path": "That of the test targets.",
        "test_output_path": "Folder for predictions, ``output_1.h5`` (one file for each process).",
        "batch_size": "Training samples of an optimizer step, over all processes.",
        "test_batch_size": "Test samples at a time, over all processes.",
        "preload": "Keep all samples in memory instead of reading them for each batch.",
        "grayscale": "Read images with one channel instead of three.",
        "input_grayscale": "The same of inputs alone; absent: as ``grayscale``.",
        "target_grayscale": "The same of targets alone; absent: as ``grayscale``.",
        "target_is_mask": "Targets are masks: resized by the nearest neighbour instead of linearly.",
        "training_tag": "For labels: the class is the folder right below the folder of this name.",
        "test_tag": "The same of the test samples. ``testing_tag`` is read too.",
        "transforms": "Of inputs and targets alike. See below.",
        "input_transforms": "Of inputs alone; excludes ``transforms``.",
        "target_transforms": "Of targets alone; excludes ``transforms``.",
        "slicers": "How samples are cut out of large arrays. See below.",
        "hdf5_outfile": "One HDF5 file into which the predictions of slices are put together; needs ``slicers``.",
        "hdf5_precision": "Its numbers: of 32 or of 16 bits.",
    },
    "Slicer": {
        "sizes": "Size of a block in each dimension; 1 drops the dimension.",
        "name": "Name of the predictions, as a path in an HDF5 file.",
        "padding": "Added to both sides in each dimension.",
        "padded_sizes": "Size after padding in each dimension; excludes ``padding``.",
        "strides": "From one block to the next; absent: as ``sizes``.",
        "discard_remainders": "Leave out what is left over at the end of a dimension, instead of padding it.",
        "transpose": "Show the network each two-dimensional slice transposed.",
    },
    "Loss": {
        "function": "Which loss: negative log-likelihood, binary cross-entropy, mean squared error, 1 - Dice, "
        "1 - Jaccard, focal loss, Lovasz hinge. A search sets it.",
        "source": "The activation that the network ends in; absent: its last layer tells it.",
        "weight": "For NLL: a weight for each class.",
        "ignore_index": "For NLL: targets of this class do not count.",
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

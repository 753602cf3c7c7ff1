"""How the commands of the pages are run: what is made small in them, and which are not run, with the reason."""

from __future__ import annotations

#: A small search, where a page leaves the options of one to its reader.
_SOME_SEARCH = (
    "--num-trials 2 --num-epochs 1 --optimizers adam --loss dice --layers layers_small_unet.json "
    "--image-size 32 32 --batch-size 4"
)

#: What a page says -> what is run. Nothing else is changed.
SMALLER: dict[str, str] = {
    "--num-trials 6 ": "--num-trials 2 ",
    "--num-trials 8 ": "--num-trials 2 ",
    "--num-trials 9 ": "--num-trials 3 ",
    "--num-trials 10 ": "--num-trials 1 ",
    "--num-trials 20 ": "--num-trials 2 ",
    "--num-trials 30 ": "--num-trials 2 ",
    "--num-trials 40 ": "--num-trials 3 ",
    "--num-trials 50 ": "--num-trials 3 ",
    "--num-epochs 8 ": "--num-epochs 1 ",
    "--num-epochs 10 ": "--num-epochs 1 --no-report ",
    "--num-epochs 20 ": "--num-epochs 1 --no-report ",
    "--num-epochs 50 ": "--num-epochs 1 --no-report ",
    "--confirm 3 --confirm-seeds 3": "--confirm 1 --confirm-seeds 2",
    "--image-size 128 128": "--image-size 32 32",
    "--image-size 96 96": "--image-size 32 32",
    "--image-size 64 64": "--image-size 32 32",
    "--size 96 96": "--size 32 32",
    "--batch-size 16": "--batch-size 4",
    "--batch-size 8": "--batch-size 4",
    "[64, 64]": "[32, 32]",
    '"num_epochs": 20': '"num_epochs": 1',
    "--storage /shared/study.journal": "--storage shared/study.journal --image-size 32 32",
    "rml_optimization.py ... ": f"rml_optimization.py {_SOME_SEARCH} ",
    "python benchmarks/tutorial_search.py --data data": "python benchmarks/tutorial_search.py --data data --trials 2 "
    "--epochs 1 --size 32 --batch-size 4 --layers layers_small_unet.json --pruners none -- --no-gpu",
    "--trials 24 --epochs 24 ": "--trials 2 --epochs 1 ",
    "python benchmarks/replay.py": "python benchmarks/replay.py --searches 2 --trials 8 --samplers random",
}

_DOCKER_RUN = 'docker run -u $(id -u):$(id -g) -v "${PWD}":/home/ubuntu -w /home/ubuntu'
_RUN_BY_CI = "CI runs it, or what it stands for"
_GPUS = "needs NVIDIA GPUs"
_ROCKETML = "needs RocketML's image, which is not public, and weights that it links to"
_DATABASE = "needs a database server; tests/driver/shared starts one"
_APPTAINER = "needs Apptainer"
_SHELL = "changes the shell that it is typed into"
_INSTALLS = "installs packages from the internet"

#: A command of a page, as it stands there -> why it is not run. Its options are parsed all the same.
NOT_RUN: dict[str, str] = {
    "make demo": f"{_RUN_BY_CI}: tests/test_demo.py",
    "make test": f"{_RUN_BY_CI}: it is what runs this",
    "make lint": _RUN_BY_CI,
    "make format": "changes the checkout",
    "make docs": _RUN_BY_CI,
    "make image": _RUN_BY_CI,
    "make image-cuda": "downloads PyTorch for CUDA",
    'python -m pytest -m "not slow and not docker and not browser"': f"{_RUN_BY_CI}: with all the others",
    "python -m build --no-isolation": f"{_RUN_BY_CI}: tests/test_distribution.py",
    "python -m zipfile -l dist/rml_optimization-*.whl": f"{_RUN_BY_CI}: tests/test_distribution.py reads the wheel",
    "source .venv/bin/activate": _SHELL,
    "pip install .": _INSTALLS,
    "pip install '.[engine]'": _INSTALLS,
    "pip install '.[postgres]'": _INSTALLS,
    "pip install '.[tensorboard,mlflow]'": _INSTALLS,
    "pip install optuna-dashboard": _INSTALLS,
    "optuna-dashboard sqlite:///study.db": "serves until it is stopped; tests/driver/report starts it",
    "rml-optimization --install-completion": "changes the settings of the person's shell",
    "pip install '.[slurm]'": _INSTALLS,
    "python rml_optimization.py --num-trials 500 --num-epochs 50 --optimizers adam,sgd --loss dice,bce "
    "--executor slurm --workers 32 --slurm-gpus 1 --slurm-cpus 8 --slurm-memory 32G --slurm-time 12:00:00 "
    "--slurm-partition gpu --slurm-account lab --singularity-image rmldnn.sif": "needs Slurm; tests/slurm starts one",
    "rml-optimization --num-trials 50 --num-epochs 50 --optimizers adam,rmsprop,sgd --loss bce,dice "
    "--layers layers_resunet.json --executor slurm --workers 8 --slurm-gpus 1 --slurm-cpus 8 --slurm-memory 32G "
    "--slurm-time 12:00:00": "needs Slurm; tests/slurm starts one",
    "apptainer build rmldnn.sif docker-daemon:rmldnn-torch:cuda": _APPTAINER,
    "rml-optimization --num-trials 6 --num-epochs 8 --optimizers adam,sgd --loss bce,dice "
    "--layers layers_small_unet.json --image-size 128 128 --singularity-image rmldnn.sif": _APPTAINER,
    "python rml_optimization.py --num-trials 50 --num-epochs 50 --docker-image rocketml/rmldnn:latest "
    "--optimizers adam,rmsprop,sgd --loss bce,dice --layers ./layers_resunet.json --lr-scheduler "
    "--transfer-learning ./model_resunet_imagenet.h5": _ROCKETML,
    "rml-optimization --num-trials 50 --num-epochs 50 --docker-image rocketml/rmldnn:latest "
    "--optimizers adam,rmsprop,sgd --loss bce,dice --layers layers_resunet.json --lr-scheduler "
    "--transfer-learning model_resunet_imagenet.h5": _ROCKETML,
    "rml-optimization --num-trials 50 --num-epochs 50 --optimizers adam,rmsprop,sgd --loss bce,dice "
    "--layers layers_resunet.json --jobs 4 --devices 0,1,2,3": _GPUS,
    "rml-optimization --num-trials 50 --num-epochs 50 --optimizers adam,rmsprop,sgd --loss bce,dice "
    "--layers layers_resunet.json --num_procs 4": f"{_GPUS}, or mpirun; the Docker tests run several processes",
    "python rml_optimization.py ... --storage postgresql://USER@HOST/DATABASE --artifacts /shared/models": _DATABASE,
    "rml-optimization --num-trials 50 --num-epochs 50 --optimizers adam,rmsprop,sgd --loss bce,dice "
    "--layers layers_resunet.json --storage postgresql://USER@HOST/DATABASE --artifacts /shared/models": _DATABASE,
}

#: Commands that need Docker and our image: run where there are both.
IN_DOCKER: dict[str, str] = {
    f"{_DOCKER_RUN} --rm IMAGE rmldnn --config=best_model/config_test.json": f"{_DOCKER_RUN} --rm rmldnn-torch:latest "
    "rmldnn --config=best_model/config_test.json",
    f"{_DOCKER_RUN} --rm rmldnn-torch:latest rmldnn --config=best_model/config_test.json": f"{_DOCKER_RUN} --rm "
    "rmldnn-torch:latest rmldnn --config=best_model/config_test.json",
    "rml-optimization --num-trials 6 --num-epochs 8 --optimizers adam,sgd --loss bce,dice "
    "--layers layers_small_unet.json --image-size 128 128 --docker-image rmldnn-torch:latest": "rml-optimization "
    f"{_SOME_SEARCH} --fresh --docker-image rmldnn-torch:latest",
    "rml-optimization infer --docker-image rmldnn-torch:latest": "rml-optimization infer "
    "--docker-image rmldnn-torch:latest",
}

#: A line of a Python snippet -> why the snippet is not run.
SNIPPETS_NOT_RUN: dict[str, str] = {"from tensorflow import keras": "needs TensorFlow, which the project does without"}

#: Pages that begin with what a search has left.
AFTER_A_SEARCH = frozenset({"how-to/inference"})

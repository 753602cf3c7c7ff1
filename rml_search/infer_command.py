"""What ``infer`` does once its options are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rml_search.image_scores import means_by_class
from rml_search.inference import (
    choose_inference_config,
    move_predictions_aside,
    read_inference_configuration,
    run_inference,
)
from rml_search.inference_scores import score_inference
from rml_search.links import check_links
from rml_search.options import RuntimeChoice, check_num_procs
from rml_search.paths import Workspace, shown
from rml_search.plain_output import inference_table, scores_table
from rml_search.retraining import telling_how_to_restore
from rml_search.runtime.choice import prepare_runtime


@dataclass(frozen=True)
class InferOptions:
    """An inference: the configuration (None: that of the best model), pictures and masks to write, processes."""

    config: Path | None = None
    gallery: Path | None = None
    num_procs: int = 1
    worst_first: bool = False  #: the gallery shows the worst predictions alone
    masks: Path | None = None  #: a new folder for the predicted masks

    def __post_init__(self) -> None:
        check_num_procs(self.num_procs)


def infer_and_show(
    options: InferOptions,
    workspace: Workspace,
    choice: RuntimeChoice,
    gpu: bool | None,
    show: Callable[[str], None],
) -> None:
    """Runs inference, shows loss and accuracy, and writes masks and gallery; earlier predictions move aside.

    Raises:
        SearchError: there is no model, nothing can be drawn of its images, or the engine could not run it.
    """
    document = choose_inference_config(workspace, options.config)
    with telling_how_to_restore(document, workspace):
        configuration = read_inference_configuration(document)
    if options.gallery is not None:
        from rml_search.gallery import check_gallery

        check_gallery(configuration, options.gallery)
    if options.masks is not None:
        from rml_search.mask_files import check_masks

        check_masks(configuration, options.masks)
    ready = prepare_runtime(choice, workspace, gpu, options.num_procs, show)
    if ready.runtime.in_container:
        data = configuration.neural_network.data
        check_links([Path(path) for path in (data.test_input_path, data.test_target_path) if path], workspace)
    aside = move_predictions_aside(workspace, document, datetime.now())
    if aside is not None:
        show(f"Earlier predictions were moved to {shown(aside)}")
    show(f"Running {shown(document)}")
    show(f"Runtime: {ready.runtime.describe()}, because {ready.reason}")
    show(f"Device: {ready.device}")
    with telling_how_to_restore(document, workspace):
        result = run_inference(document, workspace, ready.runtime, num_procs=options.num_procs)
    show(inference_table(result))
    scores = score_inference(result, workspace)
    if scores:
        show(scores_table(means_by_class(scores)))
        show(f"The scores of each image are in {shown(workspace.scores(result.predictions[0].parent))}")
    if options.masks is not None:
        from rml_search.mask_files import write_masks

        show(f"{write_masks(result, workspace, options.masks)} masks are in {shown(options.masks)}")
    if options.gallery is not None:
        from rml_search.gallery import Order, draw_gallery_of_inference

        replaced = " (replacing an earlier one)" if options.gallery.exists() else ""
        order = Order.WORST if options.worst_first else Order.SPREAD
        draw_gallery_of_inference(result, workspace, options.gallery, order)
        show(f"The gallery is in {shown(options.gallery)}{replaced}")
    if options.config is None and workspace.report_page.is_file():
        show(f"To show these predictions in {shown(workspace.report_page)}, run report again")

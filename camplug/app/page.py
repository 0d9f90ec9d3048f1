"""Web page made with Gradio: a thin layer over `camplug.app.service`."""

from __future__ import annotations

import os
import socket
from typing import Any

from camplug.app.pictures import draw_mask, make_download_links
from camplug.app.service import LAYERS, MOST_METHODS, WRAPPERS, Answer, Choices, MapService, format_report
from camplug.errors import CamplugError, InputError
from camplug.images.sample import find_sample_photo

HOUR = 3600
TOP = 3
PREDICTED = ("predicted", "")
ADVICE = "Runs the model some hundred times."
ERRORS = (CamplugError, RuntimeError, MemoryError)
MOST_BYTES = "30mb"
STYLE = """
.gradio-container { max-width: 80rem !important; }
.camplug-download { display: inline-block; margin: 0 .5rem .5rem 0; padding: .4rem .8rem; }
.camplug-download { border: 1px solid; border-radius: .4rem; }
#maps .grid-wrap { min-height: 0 !important; height: auto !important; }
#maps .thumbnail-item { aspect-ratio: auto; height: auto; }
#maps .caption-label { position: static; max-width: none; white-space: normal; text-align: left; border: 0; }
@media (max-width: 640px) { #maps .grid-container { grid-template-columns: 1fr !important; } }
"""


def make_page(service: MapService, title: str) -> Any:
    """Return the page as Gradio's `Blocks`; requests of all visitors wait in one queue for the model.

    Args:
        service: model and its answers.
        title: heading of the page.

    Raises:
        InputError: Gradio is not installed.
    """
    gr = _import_gradio()
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.Markdown(f"# {title}")
        state = gr.State([], time_to_live=HOUR)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                inputs = _add_inputs(gr, service)
            with gr.Column(scale=3, min_width=320):
                results = _add_results(gr)
        _connect(gr, service, state, inputs, results)
    return page


def launch_page(page: Any, host: str, port: int, *, browser: bool = False) -> str:
    """Serve a page on a thread of its own, without a public link, and return its address; `page.close()` ends it.

    Raises:
        InputError: the address is taken or does not exist.
    """
    gr = _import_gradio()
    check_address(host, port)
    _, address, _ = page.queue(default_concurrency_limit=None, max_size=200).launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        max_file_size=MOST_BYTES,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    return str(address)


def check_address(host: str, port: int) -> None:
    """Raise `InputError` if a server cannot listen at an address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(found[4])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} of {host} cannot be used ({reason}); give another with --port.") from None


def _import_gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise InputError('the app needs Gradio; install it with: pip install "camplug[app]".') from None
    return gradio


def _add_inputs(gr: Any, service: MapService) -> dict[str, Any]:
    photo = gr.Image(
        label="Photograph",
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        height=300,
        buttons=["fullscreen"],
        elem_id="photo",
    )
    photo.preprocess = lambda file: None if file is None else file.path  # camplug reads it, and says what is wrong
    found = {"photo": photo, "sample": gr.Button("Sample photograph", size="sm", visible=_has_sample())}
    found["prompts"] = gr.Textbox(
        label="Texts as classes, with commas between them",
        value=", ".join(service.prompts),
        placeholder="a dog, a cat, grass",
        visible=service.needs_prompts,
        elem_id="prompts",
    )
    found["cls"] = gr.Dropdown([PREDICTED], value="", allow_custom_value=True, label="Class", elem_id="class")
    found["methods"] = gr.Dropdown(
        service.list_methods(),
        value=list(Choices.methods),
        multiselect=True,
        max_choices=MOST_METHODS,
        label="Methods",
        elem_id="methods",
    )
    with gr.Accordion("Wrapper and layers", open=False):
        found["wrapper"] = gr.Dropdown(list(WRAPPERS), value="none", label="Around the methods", elem_id="wrapper")
        found["layers"] = gr.Dropdown(
            list(LAYERS), value="default", allow_custom_value=True, label="Layers (name or glob)", elem_id="layers"
        )
    return found | {"run": gr.Button("Explain", variant="primary", elem_id="explain")}


def _has_sample() -> bool:
    try:
        find_sample_photo()
    except InputError:
        return False
    return True


def _add_results(gr: Any) -> dict[str, Any]:
    found = {
        "gallery": gr.Gallery(
            label="Maps",
            format="png",
            columns=2,
            height="auto",
            object_fit="contain",
            fit_columns=False,
            buttons=["fullscreen"],
            elem_id="maps",
        ),
        "notes": gr.Markdown(elem_id="notes"),
        "top": gr.Label(label="Predicted classes", num_top_classes=TOP, elem_id="top"),
    }
    with gr.Tab("Mask"):
        found["method"] = gr.Radio([], label="Map", elem_id="method")
        found["threshold"] = gr.Slider(
            0.05, 0.95, 0.5, step=0.05, label="Threshold (share of the map's maximum)", elem_id="threshold"
        )
        found["boxes"] = gr.Checkbox(True, label="Boxes", elem_id="boxes")
        found["mask"] = gr.Image(label="Mask", format="png", interactive=False, buttons=["fullscreen"], elem_id="mask")
        found["links"] = gr.HTML(elem_id="links")
    with gr.Tab("Is the map trustworthy?"):
        found["check"] = gr.Button("Check the first method", elem_id="check")
        found["verdict"] = gr.Markdown(ADVICE, elem_id="verdict")
        found["report"] = gr.Image(label="Check", interactive=False, buttons=["fullscreen"], elem_id="report")
    return found


def _connect(gr: Any, service: MapService, state: Any, inputs: dict[str, Any], results: dict[str, Any]) -> None:
    def read(cls: str, methods: list[str], wrapper: str, layers: str, prompts: str) -> Choices:
        texts = tuple(text.strip() for text in prompts.split(",") if text.strip())
        return Choices(cls or "", tuple(methods), wrapper, (layers or "").strip(), texts)

    def explain(photo: Any, *given: Any) -> list[Any]:
        try:
            return _show_answer(gr, service.explain(photo, read(*given)), given[0])
        except ERRORS as error:  # the sentence stays, and no maps of another request beside it
            return _show_nothing(gr, describe_error(error))

    def start(photo: Any, *given: Any) -> list[Any]:
        return _show_nothing(gr) if photo is None else explain(photo, *given)

    def mask(explanations: list[Any], k: int | None, threshold: float, boxes: bool) -> tuple[Any, str]:
        if k is None or k >= len(explanations):
            return None, ""
        shown = explanations[k]
        return draw_mask(shown, threshold, boxes), make_download_links(shown, threshold, boxes)

    def check(photo: Any, *given: Any) -> tuple[str, Any]:
        try:
            report = service.check(photo, read(*given))
        except ERRORS as error:
            return describe_error(error), None
        return format_report(report), report.picture()

    photo, run = inputs["photo"], inputs["run"]
    choices = [photo, *(inputs[name] for name in ("cls", "methods", "wrapper", "layers", "prompts"))]
    answers = ("gallery", "notes", "top", "method", "verdict", "report")
    shown = [state, inputs["cls"], *(results[name] for name in answers)]
    masks = [state, results["method"], results["threshold"], results["boxes"]]
    masked = {"inputs": masks, "outputs": [results["mask"], results["links"]], "show_progress": "hidden"}
    queued = {"concurrency_id": "model", "concurrency_limit": 1}
    hidden = {"api_visibility": "private"}
    forgotten = {"fn": lambda: gr.Dropdown([PREDICTED], value=""), "outputs": inputs["cls"], **hidden}
    inputs["sample"].click(lambda: str(find_sample_photo()), outputs=photo, **hidden)
    photo.change(**forgotten).success(start, choices, shown, **queued, **hidden).success(mask, **masked, **hidden)
    inputs["prompts"].input(**forgotten)
    run.click(explain, choices, shown, api_name="explain", **queued).success(mask, **masked, **hidden)
    for control in (results["method"], results["threshold"], results["boxes"]):
        control.input(mask, trigger_mode="always_last", **masked, **hidden)
    results["check"].click(check, choices, [results["verdict"], results["report"]], api_name="check", **queued)


def describe_error(error: BaseException) -> str:
    """Return an error as one sentence in Markdown."""
    return f"**Error:** {str(error).strip() or type(error).__name__}"


def _show_answer(gr: Any, answer: Answer, cls: str) -> list[Any]:
    """Return values of the outputs: state, class, gallery, notes, probabilities, maps to choose from, verdict."""
    labels = [PREDICTED, *((f"{c.name} ({c.probability:.1%})", c.code) for c in answer.classes)]
    titles = [f"{r.method}, {r.title()}".replace("\n", ": ") for r in answer.explanations]
    names = [(r.method, k) for k, r in enumerate(answer.explanations)]
    return [
        answer.explanations,
        gr.Dropdown(labels, value=cls or ""),
        [(r.overlay(), title) for r, title in zip(answer.explanations, titles, strict=True)],
        "\n\n".join(answer.notes),
        {c.name: c.probability for c in answer.classes[:TOP]},
        gr.Radio(names, value=0),
        ADVICE,
        None,
    ]


def _show_nothing(gr: Any, note: str = "") -> list[Any]:
    """Return values of the outputs without maps; the class stays."""
    return [[], gr.skip(), None, note, None, gr.Radio([], value=None), ADVICE, None]

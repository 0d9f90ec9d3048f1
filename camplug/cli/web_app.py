"""Command `camplug app`: a web page that explains photographs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from torch import nn

from camplug.cli import common
from camplug.cli.explanations import ExplainerOptions
from camplug.cli.options import add_options, read_options
from camplug.settings import apply_values

if TYPE_CHECKING:
    from camplug.app.service import MapService


def make_service(chosen: ExplainerOptions) -> MapService:
    """Return the service of a model; one of images and texts may do without prompts at first."""
    from camplug.app.service import MapService
    from camplug.models.towers import has_text_tower

    network = common.load_bare_network(chosen.model, chosen.checkpoint, chosen.num_classes, chosen.device)

    def load(prompts: tuple[str, ...]) -> tuple[nn.Module, dict[str, Any]]:
        texts = replace(chosen.prompt_options, prompts=prompts) if prompts else common.PromptOptions()
        model = texts.apply(network)
        return model, chosen.make_options(model)

    return MapService(
        load,
        needs_prompts=has_text_tower(network),
        prompts=chosen.prompt_options.prompts,
        multi_label=chosen.multi_label,
    )


@add_options(ExplainerOptions())
def web_app(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in, without a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the default browser.")] = False,
    **given: Any,
) -> None:
    """Serve a web page that explains photographs, without a network (extra app).

    Upload a photograph, take one by the camera or take the sample; choose class, methods, layers and wrapper; see the
    maps side by side, masks with boxes and a verdict, and save them. Nothing is sent anywhere. Ctrl+C ends it.
    """
    with common.report_errors():
        from camplug.app.page import check_address, launch_page, make_page

        check_address(host, port)
        chosen = apply_values(ExplainerOptions(), read_options(given, None, ExplainerOptions()))
        service = make_service(chosen)
        page = make_page(service, f"Where does {'the demo model' if chosen.model == 'demo' else chosen.model} look?")
        address = launch_page(page, host, port, browser=browser)
        common.out.print(f"camplug app: {address} (Ctrl+C ends it)", soft_wrap=True)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)

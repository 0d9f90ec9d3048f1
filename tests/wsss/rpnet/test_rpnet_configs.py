"""The configurations of the paper's tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from camplug.settings import apply_values, list_settings
from camplug.settings_files import read_settings_file
from camplug.wsss.classifier import LearningSettings, SpanSettings
from camplug.wsss.rpnet import RPNet

FOLDER = Path(__file__).parents[3] / "configs" / "rpnet"
WANTED = {
    "table4_block2": RPNet(stages="8"),
    "table4_block3": RPNet(stages="16"),
    "table4_block4": RPNet(stages="last"),
    "table4_block2_block3": RPNet(stages="16,8"),
    "table4_block2_block4": RPNet(),
    "table4_block3_block4": RPNet(stages="last,16"),
    "table4_block2_block3_block4": RPNet(stages="last,16,8"),
    "table5_discard_0.1": RPNet(random_part=0.9),
    "table5_discard_0.3": RPNet(random_part=0.7),
    "table5_discard_0.5": RPNet(),
    "table5_discard_0.7": RPNet(random_part=0.3),
    "table5_discard_0.9": RPNet(random_part=0.1),
    "table6_gaussian": RPNet(),
    "table6_no_gaussian": RPNet(smooth=False),
    "table7_images_1": RPNet(images=1),
    "table7_images_2": RPNet(),
    "table7_images_3": RPNet(images=3),
    "table7_images_4": RPNet(images=4),
}


def test_all_are_known():
    assert {path.stem for path in FOLDER.iterdir()} == WANTED.keys()


@pytest.mark.parametrize("name", WANTED)
def test_config(name):
    chosen = read_settings_file(FOLDER / f"{name}.toml", SpanSettings(), LearningSettings(), RPNet())
    method, span = apply_values(RPNet(), chosen), apply_values(SpanSettings(), chosen)
    assert method == WANTED[name]
    assert span.batch % method.group == 0


def test_options_have_names_of_their_own():
    """No field is called like one of another group, or like an option of the command."""
    names = [set(list_settings(settings)) for settings in (SpanSettings(), LearningSettings(), RPNet())]
    assert sum(map(len, names)) == len(set().union(*names))
    assert not names[-1] & {"data", "split", "keep", "out", "model", "head", "log", "output_stride", "preset", "mean"}

"""Overlays of labels: colours, outlines, ignored pixels, legend, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from camplug.errors import InputError
from camplug.show.labels import make_class_colors, overlay_labels

PHOTO = np.full((40, 60, 3), 100, np.uint8)


def test_colours_by_hand():
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:50] = 2
    pixels = np.asarray(overlay_labels(PHOTO, labels, ["cat", "dog"], legend=False))
    assert pixels[20, 35].tolist() == [76, 106, 178]  # (100 + [51, 111, 255]) / 2, halves to even
    assert pixels[2, 2].tolist() == [100, 100, 100]  # background
    assert pixels[20, 20].tolist() == [255, 255, 255]  # outline
    assert pixels[20, 19].tolist() == [0, 0, 0]
    assert PHOTO.min() == PHOTO.max() == 100


def test_a_class_keeps_its_colour_and_colours_differ():
    many = make_class_colors(30)
    assert np.array_equal(many[:3], make_class_colors(3))
    assert len(np.unique(many, axis=0)) == 30
    assert make_class_colors(0).shape == (0, 3)


def test_ignored_pixels_are_hatched():
    pixels = np.asarray(overlay_labels(PHOTO, np.full((40, 60), 255, np.uint8), ["cat"], legend=False))
    assert sorted(np.unique(pixels)) == [100, 150]


def test_the_legend_names_the_classes_of_the_picture():
    labels = np.zeros((40, 60), np.uint8)
    heights = []
    for value in (0, 1, 3):
        labels[:, :10] = value
        labels[:, 50:] = 1 if value == 3 else labels[0, 50]
        picture = overlay_labels(PHOTO, labels, ["cat", "dog", "cow"])
        heights.append(picture.height)
        colours = {tuple(p) for p in np.asarray(picture)[41:].reshape(-1, 3).tolist()}
        named = {tuple(c) for c in make_class_colors(3)[np.unique(labels[labels > 0]) - 1].tolist()}
        assert named <= colours
    assert heights[0] == heights[1] < heights[2]


def test_refusals():
    with pytest.raises(InputError, match="give one size"):
        overlay_labels(PHOTO, np.zeros((4, 4), np.uint8), ["cat"])
    with pytest.raises(InputError, match="labels \\[2\\], and 1 class names"):
        overlay_labels(PHOTO, np.full((40, 60), 2, np.uint8), ["cat"])
    with pytest.raises(InputError, match="opacity=2"):
        overlay_labels(PHOTO, np.zeros((40, 60), np.uint8), ["cat"], opacity=2)

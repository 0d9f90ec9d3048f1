"""The sample photograph."""

from __future__ import annotations

import pytest

import camplug
from camplug.images import sample


def test_the_sample_photo_is_a_cat_of_scikit_image():
    skimage = pytest.importorskip("skimage")
    photo = camplug.sample_photo()
    assert photo.size == (451, 300)
    assert photo.mode == "RGB"
    assert sample.find_sample_photo().is_relative_to(skimage.__path__[0])


def test_without_scikit_image_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sample, "find_spec", lambda name: None)
    with pytest.raises(camplug.InputError, match=r"pip install \"camplug\[demo\]\", or give a photograph"):
        camplug.sample_photo()

"""Files are written whole or not at all."""

from __future__ import annotations

import pytest
from PIL import Image

from camplug.errors import InputError
from camplug.images.save import save_picture, write_atomically


def test_a_picture_format_that_pillow_only_reads_is_refused(tmp_path):
    for name in ("a.fli", "a.xyz", "a"):
        with pytest.raises(InputError, match=r"pictures are written as \.png, \.jpg or \.webp"):
            save_picture(Image.new("RGB", (4, 4)), str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "e.npz"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot be written.*No space left"):
        write_atomically(str(path), half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

    def interrupted(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(path), interrupted)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

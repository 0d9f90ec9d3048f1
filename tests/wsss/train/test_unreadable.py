"""Images that trainings leave out: the rule of 5 %, before and during a training, with and without workers."""

from __future__ import annotations

import warnings

import pytest
import trainable
from heads import photos

from camplug.errors import InputError
from camplug.wsss.train.unreadable import MAX_MISSING, Substitutes, check_share, find_readable

NAMES = [f"{c}{n}" for c in "abcd" for n in range(5)]


@pytest.fixture
def data(tmp_path):
    """Twenty photographs, each of one of two classes."""
    return photos(tmp_path / "data", {f"{n}.png": ["cat" if n[0] in "ab" else "dog"] for n in NAMES}, size=(40, 40))


def damage(data, *names):
    """Photographs whose beginning is whole, so that only decoding tells."""
    for name in names:
        file = data.root / "images" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:60])


def test_one_rule_for_photographs_and_labels(tmp_path, data, monkeypatch):
    (data.root / "images" / "a1.png").unlink()
    kept, missing = find_readable(data)
    assert kept == [i for i in range(20) if i != 1]
    assert [name for name, _ in missing] == ["a1"]
    assert "there is no file" in missing[0][1]
    (data.root / "images" / "b0.png").write_bytes(b"")
    with pytest.raises(InputError) as refusal:
        find_readable(data)
    first, second = (str(data.root / "images" / name) for name in ("a1.png", "b0.png"))
    assert str(refusal.value) == (
        f"2 of 20 images cannot be read, more than 5%: there is no file {first!r}; {second!r} is not an image that "
        "Pillow can read (JPEG, PNG, WebP, TIFF, ...). Mend them, or train without them with --allow-missing "
        "(allow_missing in Python and in recipes)."
    )
    kept, missing = find_readable(data, allow_missing=True)
    assert (len(kept), [name for name, _ in missing]) == (18, ["a1", "b0"])

    def labels(i):
        if i > 16:
            raise InputError(f"no annotation {i}.")
        return (0,)

    monkeypatch.setattr(data, "labels", labels)
    assert len(find_readable(data, allow_missing=True)[0]) == 18  # labels are not needed
    assert len(find_readable(data, labels=True, allow_missing=True)[0]) == 15


def test_nothing_left_is_refused_also_when_any_share_may_be_missing(data):
    for name in NAMES:
        (data.root / "images" / f"{name}.png").unlink()
    with pytest.raises(InputError, match="none of the 20 images can be read; the first one: there is no file"):
        find_readable(data, allow_missing=True)


def test_the_share_is_of_all_images():
    broken = [("x", "it is gone.")] * 5
    assert MAX_MISSING == 0.05
    check_share(broken, 100, allow_missing=False)
    with pytest.raises(InputError, match=r"^5 of 99 .*: it is gone; it is gone; it is gone; \.\.\.\. Mend"):
        check_share(broken, 99, allow_missing=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photograph_that_breaks_off_is_told_at_the_end(tmp_path, data, workers):
    damage(data, "c2")
    out = tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with workers it is they who tell
        done = trainable.trained(out, data=data, workers=workers)
    assert [name for name, _ in done.broken] == ["c2"]
    assert "is damaged or too large to decode" in done.broken[0][1]
    assert done.images == 20


def test_a_training_ends_when_it_cannot_read_more_than_5_percent(tmp_path, data):
    damage(data, "a0", "b3", "c2")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(InputError, match=r"[23] of 20 images cannot be read, more than 5%"),
    ):
        trainable.trained(tmp_path / "out", data=data)
    with pytest.warns(UserWarning, match="damaged"):
        done = trainable.trained(tmp_path / "out", data=data, allow_missing=True)
    assert [name for name, _ in done.broken] == ["a0", "b3", "c2"]


def test_the_share_is_of_those_missing_before_and_met_in_the_training(tmp_path, data):
    (data.root / "images" / "a0.png").unlink()
    trainable.trained(tmp_path / "fine", data=data)
    damage(data, "c2")
    with (
        pytest.warns(UserWarning, match="c2.*damaged"),
        pytest.raises(InputError, match="2 of 20 images cannot be read"),
    ):
        trainable.trained(tmp_path / "out", data=data)
    with pytest.warns(UserWarning, match="c2.*damaged"):
        done = trainable.trained(tmp_path / "out", data=data, allow_missing=True)
    assert [name for name, _ in done.broken] == ["a0", "c2"]
    assert "there is no file" in done.broken[0][1]
    assert done.images == 19


def test_missing_photographs_of_a_validation_are_told(tmp_path, data):
    held_out = photos(tmp_path / "other", {f"v{n}.png": [["cat"], ["dog"]][n % 2] for n in range(20)}, size=(40, 40))
    (held_out.root / "images" / "v3.png").unlink()
    done = trainable.trained(tmp_path / "out", data=data, validation=held_out)
    assert [name for name, _ in done.broken] == ["v3"]
    assert 0 <= done.losses["val_map"] <= 1


def test_what_came_back_is_said(data):
    substitutes = Substitutes(data, data.photo)
    with pytest.warns(UserWarning, match="a3: it is gone"):
        substitutes.note(3, InputError("it is gone."))
    substitutes.note(3, InputError("told once"))
    assert substitutes.list_broken() == [("a3", "it could not be read in the middle of the training; by now it can.")]

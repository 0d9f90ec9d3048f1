"""Training a classifier: it learns, stops and goes on, is chosen by image labels alone, and becomes a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from moved import without_waits
from torch import nn
from trainable import LEARNING, SPAN, Net, net, same, scenes, trained

import camplug
from camplug.errors import InputError, ModelError
from camplug.wsss.classifier import ClassifierCrops, ClassifierTraining, Method, build_classifier, load_classifier
from camplug.wsss.classifier.checkpoint import read_made_with, save_classifier
from camplug.wsss.classifier.crops import ClassifierCrop
from camplug.wsss.train import fit


def test_it_learns_what_is_to_be_learned(tmp_path):
    """Images whose class is their colour: two epochs tell red from blue."""
    from PIL import Image

    class Colours(type(scenes(1))):
        def labels(self, i):
            return (i % 2,)

        def photo(self, i):
            return Image.new("RGB", (48, 48), ((255, 30, 0), (0, 30, 255))[i % 2])

        def mask(self, i):
            raise AssertionError("a mask was read")

    data = Colours(32, (48, 48), classes=2)
    done = trained(tmp_path, data, span=replace(SPAN, epochs=4), validation=data)
    assert done.losses["val_map"] == 1
    assert done.losses["classification"] < 0.5
    x = torch.stack([ClassifierCrops(data, crop=48, sides=(48, 48), deterministic=True)[0, i].pixels for i in range(2)])
    module = ClassifierTraining(done.network, LEARNING)
    assert done.network(module.normalize(x)).argmax(1).tolist() == [0, 1]


class Killed(Callback):
    """Ends without a word after the first epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            raise GeneratorExit


class Dropping(Net):
    """Draws from the global generator in every step."""

    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


def parts():
    network = build_classifier(net(), scenes().classes)
    pictures = ClassifierCrops(scenes(), crop=48, sides=(40, 60))
    torch.manual_seed(0)
    return ClassifierTraining(network, LEARNING, ids=pictures.data.ids), pictures


def test_killed_and_going_on_is_the_same_as_not_stopped(tmp_path):
    def run(out, callbacks=(), epochs=3):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = build_classifier(Dropping(), scenes().classes)
        pictures = ClassifierCrops(scenes(), crop=48, sides=(40, 60))
        module = ClassifierTraining(network, LEARNING)
        fit(module, pictures, out, epochs=epochs, batch=4, device="cpu", progress=False, callbacks=callbacks)
        return network

    torch.manual_seed(5)
    whole = run(tmp_path / "whole")
    with pytest.raises(GeneratorExit):
        run(tmp_path / "killed", (Killed(),))
    torch.manual_seed(9)  # another state of the process must not matter
    assert same(run(tmp_path / "killed"), whole)
    assert not same(run(tmp_path / "shorter", epochs=2), whole)


def test_the_same_call_finds_its_file_and_another_one_is_refused(tmp_path):
    done = trained(tmp_path)
    again = trained(tmp_path)
    assert again.losses == {}
    assert same(again.network, done.network)
    with pytest.raises(InputError, match=r"holds a training of other settings: span.seed differs"):
        trained(tmp_path, span=replace(SPAN, seed=1))
    assert not same(trained(tmp_path / "seed", span=replace(SPAN, seed=1)).network, done.network)


def test_the_best_epoch_is_chosen_by_image_labels(tmp_path, monkeypatch):
    precisions = iter([0.2, 0.9, 0.5])

    class Blind(type(scenes(1))):
        def mask(self, i):
            raise AssertionError("a mask was read")

    kept = []

    def told(self):
        self.average_precision.reset()
        self.log("val_map", torch.tensor(next(precisions)))
        kept.append({k: v.clone() for k, v in self.network.state_dict().items()})

    monkeypatch.setattr(ClassifierTraining, "on_validation_epoch_end", told)
    done = trained(
        tmp_path,
        Blind(16, (48, 48), classes=3),
        span=replace(SPAN, epochs=3),
        validation=Blind(8, (48, 48), seed=1, classes=3),
        keep="best",
    )
    assert all(torch.equal(kept[1][k], v) for k, v in done.network.state_dict().items())
    assert not torch.equal(kept[1]["head.weight"], kept[2]["head.weight"])


def test_mean_average_precision_is_over_classes_with_an_image():
    from sklearn.metrics import average_precision_score

    module, _ = parts()
    logits, present = torch.randn(30, 3), (torch.rand(30, 3) > 0.5).int()
    present[:, 2] = 0
    logged = {}
    module.all_gather = lambda x: x
    module.log = lambda name, value, **_: logged.__setitem__(name, float(value))
    module.average_precision.update(logits[:20], present[:20])
    module.average_precision.update(logits[20:], present[20:])
    module.on_validation_epoch_end()
    wanted = sum(average_precision_score(present[:, c], logits[:, c]) for c in range(2)) / 2
    assert logged["val_map"] == pytest.approx(wanted, abs=1e-6)


def test_a_batch_of_small_logits_is_ranked_among_the_others(device, monkeypatch):
    """Logits of one batch all in 0 to 1 are no probabilities, whatever torchmetrics thinks; nothing is waited for."""
    from sklearn.metrics import average_precision_score

    module, _ = parts()
    batches = torch.tensor([[0.9, 0.2, 0.1]]), torch.tensor([[2.0, 0.3, -1.0]])
    present = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    pixels, logged = torch.zeros(1, 3, 48, 48, dtype=torch.uint8).to(device), {}
    module.to(device).all_gather = lambda x: x
    module.log = lambda name, value, **_: logged.__setitem__(name, float(value))
    found = iter([b.to(device) for b in batches])
    monkeypatch.setattr(module, "_compute_logits", lambda x: next(found))
    shown = [ClassifierCrop(pixels, y.to(device), torch.zeros(1, dtype=torch.int64)) for y in present]
    with without_waits(device):
        for i, batch in enumerate(shown):
            module.validation_step(batch, i)
    module.on_validation_epoch_end()
    z, y = torch.cat(batches), torch.cat(present)
    assert logged["val_map"] == pytest.approx(sum(average_precision_score(y[:, c], z[:, c]) for c in range(3)) / 3)


def test_files(tmp_path):
    network = build_classifier(net(), ["a", "b", "c"], neck={"kind": "fum", "width": 4})
    file = tmp_path / "classifier.pt"
    save_classifier(file, network, {"model": None})
    x = torch.rand(2, 3, 48, 48)
    found = load_classifier(file, Net())
    torch.testing.assert_close(found(x), network.eval()(x))
    assert found.classes == ["a", "b", "c"]
    assert found.preprocess == network.preprocess
    with pytest.raises(ModelError, match=r"a module of one's own; give it: load_classifier\(path, model\)"):
        load_classifier(file)
    with pytest.raises(ModelError, match="does not fit Net: "):
        load_classifier(file, Net(width=12))
    with pytest.raises(InputError, match="there is no file"):
        load_classifier(tmp_path / "none.pt")
    torch.save(network.state_dict(), tmp_path / "state.pt")
    with pytest.raises(InputError, match="is no classifier that camplug has trained"):
        load_classifier(tmp_path / "state.pt")


def test_load_model_and_explainers_take_the_file(tmp_path):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=5)
    made = {"model": "timm:resnet10t", "num_classes": 5}
    done = trained(tmp_path, model=model, made_with=made, span=replace(SPAN, epochs=1))
    assert repr(done).startswith(f"TrainingResult(file={done.file!r}, images=")
    found = camplug.load_model(str(done.file))
    x = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(found(x), done.network(x))
    for method in (camplug.CAM, camplug.FullyCAM, camplug.GradCAM):
        maps = method(found, normalize=None).maps(x, [1])
        torch.testing.assert_close(maps, method(done.network, normalize=None).maps(x, [1]), rtol=1e-4, atol=1e-6)
    with pytest.raises(ModelError, match="has 3 classes, not 4; leave their number out"):
        camplug.load_model(str(done.file), num_classes=4)


def test_a_model_by_name_is_found_again(tmp_path):
    model = camplug.load_model("timm:resnet10t", num_classes=5, pretrained=False)
    done = trained(tmp_path, model=model, span=replace(SPAN, epochs=1))
    x = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(load_classifier(done.file)(x), done.network(x))


def test_a_loss_that_is_no_number_names_the_images():
    module, pictures = parts()
    items = [pictures[0, i] for i in (3, 5)]
    batch = type(items[0])(*map(torch.stack, zip(*items, strict=True)))
    with torch.no_grad():
        module.network.head.weight.fill_(torch.nan)
    type(module).global_step = property(lambda self: 7)
    try:
        with pytest.raises(ModelError, match="the loss at step 7 is nan on the images scene0_000003, scene0_000005;"):
            module.training_step(batch, 0)
    finally:
        del type(module).global_step


def test_what_is_refused_and_warned_of(tmp_path):
    class One(type(scenes(1))):
        def labels(self, i):
            return (0,)

    with pytest.warns(UserWarning, match=r"no image shows .* \(2 of 3 classes\): the classifier cannot learn"):
        trained(tmp_path / "one", One(8, (48, 48), classes=3), span=replace(SPAN, epochs=1))
    with pytest.raises(InputError, match="keep='best' chooses by validation images"):
        trained(tmp_path, keep="best")
    with pytest.raises(InputError, match="keep='first'; allowed are last and best"):
        trained(tmp_path, keep="first")
    with pytest.raises(InputError, match="the data to train on, whose classes are"):
        trained(tmp_path, validation=scenes(8, classes=4))
    with pytest.raises(InputError, match="16 images do not fill a batch of 32"):
        trained(tmp_path, span=replace(SPAN, batch=32))
    with pytest.raises(InputError, match="log='paper'; allowed are csv and tensorboard"):
        trained(tmp_path / "log", log="paper")
    assert not (tmp_path / "settings.json").exists()


def test_batches_of_absent_classes_only(tmp_path):
    class Nothing(type(scenes(1))):
        def labels(self, i):
            return ()

    with pytest.warns(UserWarning, match="3 of 3 classes"):
        done = trained(tmp_path, Nothing(8, (48, 48), classes=3), span=replace(SPAN, epochs=1))
    assert all(v.isfinite().all() for v in done.network.state_dict().values())


def test_the_model_and_the_random_state_stay_as_they_are(tmp_path):
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    trained(tmp_path, model=model, method=Method())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_single_class(tmp_path):
    class Half(type(scenes(1))):
        def labels(self, i):
            return (0,) * (i % 2)

    data = Half(8, (48, 48), classes=1)
    done = trained(tmp_path, data, span=replace(SPAN, epochs=1), validation=data)
    assert 0 < done.losses["val_map"] <= 1


def test_a_checkpoint_of_a_running_training_is_a_model(tmp_path):
    """After any epoch, last.ckpt is the classifier of then; it needs no file of another training."""
    data, short = scenes(8), replace(SPAN, epochs=1)
    model = camplug.load_model("timm:test_resnet", pretrained=False)
    done = trained(tmp_path, data, model, span=short, learning=replace(LEARNING, batch_norm="fixed"))
    found = load_classifier(tmp_path / "checkpoints" / "last.ckpt")
    assert same(found, done.network)
    assert found.classes == list(data.classes)
    assert same(camplug.load_model(str(tmp_path / "checkpoints" / "last.ckpt")), done.network)
    assert read_made_with(str(tmp_path / "checkpoints" / "last.ckpt"), None) == {
        "model": "timm:test_resnet",
        "num_classes": None,
    }


def test_a_model_of_load_model_gives_a_file_that_needs_no_model(tmp_path):
    model = camplug.load_model("timm:test_resnet", pretrained=False, num_classes=5)
    done = trained(tmp_path / "one", scenes(8), model, span=replace(SPAN, epochs=1))
    assert same(load_classifier(done.file), done.network)
    again = trained(tmp_path / "two", scenes(8), load_classifier(done.file), span=replace(SPAN, epochs=1))
    assert same(load_classifier(again.file), again.network)
    own = trained(tmp_path / "own", scenes(8), net(), span=replace(SPAN, epochs=1))
    with pytest.raises(ModelError, match="was trained on a module of one's own"):
        load_classifier(own.file)


STEADY = replace(LEARNING, schedule=replace(LEARNING.schedule, power=0.0))


def test_more_epochs_go_on_from_those_that_are_done(tmp_path):
    """With a learning rate that stays the same, two epochs and two more are four."""
    data = scenes(8)
    whole = trained(tmp_path / "whole", data, span=replace(SPAN, epochs=4), learning=STEADY)
    few = trained(tmp_path / "more", data, learning=STEADY)
    more = trained(tmp_path / "more", data, span=replace(SPAN, epochs=4), learning=STEADY)
    assert same(more.network, whole.network)
    assert same(load_classifier(more.file, net()), whole.network)
    assert same(load_classifier(tmp_path / "more" / "classifier_2_epochs.pt", net()), few.network)
    rows = (tmp_path / "more" / "checkpoints" / "losses" / "version_1" / "metrics.csv").read_text()
    assert [row.split(",")[1] for row in rows.splitlines()[1:]].count("0") == 0  # no epoch was made again


@pytest.mark.parametrize("learning", [LEARNING, replace(STEADY, schedule=replace(STEADY.schedule, warmup=0.5))])
def test_more_epochs_of_another_schedule_are_refused_with_the_way(tmp_path, learning):
    done = trained(tmp_path / "a", scenes(8), learning=learning, span=replace(SPAN, epochs=1))
    with pytest.raises(InputError, match=r"holds a training of 1 epoch, whose learning rate .* one of 3; --model") as e:
        trained(tmp_path / "a", scenes(8), learning=learning, span=replace(SPAN, epochs=3))
    assert f"--model {done.file} --out ANOTHER goes on from its result, and --overwrite begins anew." in str(e.value)
    with pytest.raises(InputError, match=r"of other settings: span\.epochs, span\.seed differ"):
        trained(tmp_path / "a", scenes(8), learning=learning, span=replace(SPAN, epochs=3, seed=1))
    assert done.file.exists()

"""The pass for prototypes: what it sees, what it leaves alone, how much it holds, and how processes share it."""

from __future__ import annotations

import random
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import start
from heads import photos
from PIL import Image
from torch import nn
from trainable import net, scenes

from camplug.errors import InputError
from camplug.wsss.classifier import ClassifierCrops, build_classifier
from camplug.wsss.data import Scenes
from camplug.wsss.fpr import Collector, PrototypePass
from camplug.wsss.fpr.gather import average_features

pytestmark = pytest.mark.filterwarnings("ignore:the model does not say")
MEAN, STD = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


HERE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _on_the_device(request, monkeypatch, device):
    monkeypatch.setattr(request.module, "HERE", device)


def normalized(pixels):
    return ((pixels / 255 - MEAN) / STD).to(HERE)


@pytest.fixture
def network():
    """Three classes, running statistics that differ from a batch's, a frozen part."""
    network = balanced(build_classifier(net(), ["a", "b", "c"]))
    network.train()
    network.body.model.one.eval()
    return network.to(HERE)


@torch.no_grad()
def balanced(network):
    """A head whose maps are positive in one half of most images and negative in the other."""
    torch.manual_seed(1)
    data = scenes(8)
    features = [
        network.features(normalized(torch.from_numpy(np.array(data.photo(i))).permute(2, 0, 1)[None]).cpu())
        for i in range(8)
    ]
    mean = torch.cat(features).mean((0, 2, 3))
    weight = torch.randn(len(network.head.weight), len(mean))
    weight -= (weight @ mean)[:, None] * mean / mean.square().sum()
    network.head.weight.copy_(weight[:, :, None, None])
    return network


def pictures(data=None, crop=48):
    return ClassifierCrops(scenes(8) if data is None else data, crop=crop, sides=(20, 60))


def equal(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_pass_equals_a_loop(network):
    """Each scale and mirror image alone; features and class maps turned back and averaged one by one."""
    data, scales = scenes(8), (0.8, 1.4)
    found = PrototypePass(pictures(data), clusters=3, negatives=4, scales=scales)(network, normalized)
    network.eval()
    collector = Collector(3, clusters=3, negatives=4)
    for i in range(8):
        scores, features = [], []
        for scale in scales:
            side = round(48 * scale)
            photo = np.array(data.photo(i).resize((side, side), Image.Resampling.BICUBIC))
            x = normalized(torch.from_numpy(photo).permute(2, 0, 1)[None])
            for mirrored in (False, True):
                with torch.no_grad():
                    f = network.features(x.flip(3) if mirrored else x)
                    m = network.head(f)
                f, m = (y.flip(3) if mirrored else y for y in (f, m))
                size = (features[0] if features else f).shape[2:]
                features.append(F.interpolate(f, size, mode="bilinear", align_corners=True))
                scores.append(F.interpolate(m, size, mode="bilinear", align_corners=True))
        present = torch.tensor([[float(c in data.labels(i)) for c in range(3)]])
        collector.add(sum(features) / 4, sum(scores) / 4, present, [i])
    wanted = collector.prototypes()
    assert sum(map(len, wanted.negative)) > 3
    for part in ("positive", "negative", "usable"):
        for mine, theirs in zip(getattr(found, part), getattr(wanted, part), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_photographs_keep_their_shape_and_masks_are_not_read(tmp_path, network):
    data = photos(tmp_path, {"x.png": ["cat"], "y.png": ["dog"]}, size=(20, 14))
    data.mask = None  # whoever asks for one falls over
    sizes = []
    network.body.register_forward_hook(lambda m, args, out: sizes.append(tuple(args[0].shape)))
    PrototypePass(pictures(data, crop=60), scales=(1.0, 0.5), flip=False)(network, normalized)
    assert sizes == [(1, 3, 42, 60), (1, 3, 21, 30)] * 2
    sizes.clear()
    PrototypePass(pictures(data, crop=60))(network, normalized)
    assert sizes == [(2, 3, 42, 60)] * 2
    sizes.clear()
    object.__setattr__(network.preprocess, "keep_aspect", False)
    PrototypePass(pictures(data, crop=60), flip=False)(network, normalized)
    assert sizes == [(1, 3, 60, 60)] * 2


def test_a_broken_photograph_is_left_out(tmp_path, network):
    data = photos(tmp_path, {"x.png": ["cat"], "y.png": ["dog"], "z.png": ["dog"]})
    whole = PrototypePass(pictures(data))
    whole.crops.indices = [0, 2]
    wanted = whole(network, normalized)
    (tmp_path / "images" / "y.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"^y: .*y\.png"):
        assert equal(PrototypePass(pictures(data))(network, normalized), wanted)


def test_nothing_changes(network):
    before = {name: x.clone() for name, x in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    assert len(set(modes)) == 2
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    found = PrototypePass(pictures())(network, normalized)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert all(p.grad is None for p in network.parameters())
    assert not any(x.requires_grad for x in found.positive)
    with pytest.raises(RuntimeError, match="same"):
        PrototypePass(pictures())(network, lambda x: x)
    assert [m.training for m in network.modules()] == modes


def test_the_modes_of_the_network_do_not_count(network):
    one = PrototypePass(pictures())(network, normalized)
    assert equal(one, PrototypePass(pictures())(network.eval(), normalized))


def test_workers_read_the_same(network):
    assert equal(
        PrototypePass(pictures())(network, normalized), PrototypePass(pictures())(network, normalized, workers=2)
    )


class Watched(nn.Module):
    """Counts the maps of earlier images that are still alive when the next one comes."""

    def __init__(self, network):
        super().__init__()
        self.network, self.refs, self.alive, self.preprocess = network, [], [], network.preprocess
        self.class_maps = network.class_maps

    def features(self, x):
        self.alive.append(sum(ref() is not None for ref in self.refs))
        out = self.network.features(x)
        self.refs.append(weakref.ref(out))
        return out


def test_no_map_outlives_its_image(network, monkeypatch):
    watched, kept = Watched(network), []
    monkeypatch.setattr(Collector, "prototypes", lambda self, groups: kept.append(self.bytes))
    PrototypePass(pictures(scenes(12)), negatives=2)(watched, normalized)
    assert watched.alive == [0] * 12
    labels = sum(len(scenes(12).labels(i)) for i in range(12))
    assert 0 < kept[0] <= 4 * 16 * labels + (4 * 16 + 3) * 2 * 3


def test_one_view_is_what_the_network_sees(network):
    x = torch.randn(1, 3, 40, 48).to(HERE)
    network.eval()
    assert torch.equal(average_features(network, iter([x]), flip=False), network.features(x))


def test_a_network_that_diverged(network):
    nn.init.constant_(network.head.weight, float("nan"))
    with pytest.raises(InputError, match="image 0 are not finite"):
        PrototypePass(pictures())(network, normalized)


def test_refused():
    for scales in ((), (0.0,), (1.0, float("nan"))):
        with pytest.raises(InputError, match="give at least one, each above 0"):
            PrototypePass(pictures(), scales=scales)
    with pytest.raises(InputError, match="clusters=0; give at least 1"):
        PrototypePass(pictures(), clusters=0)


def settings(count=7):
    """A training of seven images, of which two processes get four and three."""
    from trainable import LEARNING

    from camplug.wsss.fpr import FPR, FPRTraining

    network = balanced(build_classifier(net(), ["a", "b", "c"]))
    data = ClassifierCrops(Scenes(count, (48, 48), classes=3), crop=48, sides=(48, 48))
    fpr = FPR(clusters=2, negatives=3, pixel_rectification=0.1)
    return FPRTraining(network, LEARNING, fpr, data).eval()


def gradients(module, rank, world):
    """Of a batch of four, of which this process has its share, by the prototypes of a pass."""
    assert module.gather is not None
    module.prototypes = module.gather(module.network, module.normalize)
    pixels, present, image = (torch.stack(x) for x in zip(*(module.gather.crops[0, i] for i in range(4))))
    present[0] = 0  # the processes have different numbers of regions
    mine = [x[rank * 4 // world : (rank + 1) * 4 // world] for x in (pixels, present, image)]
    parts = module.compute_losses(module.normalize(mine[0]), type(module.gather.crops[0, 0])(*mine), 0)
    sum(weight * value for weight, value in parts.values()).backward()
    counts = {name: float(parts[name][1]) for name in ("pairs", "false_positives")}
    return module.prototypes.state_dict(), [p.grad for p in module.network.parameters()], counts


PROCESS = """
import importlib.util, os, sys
import torch, torch.distributed as dist
spec = importlib.util.spec_from_file_location("gathering", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2] + "/meet", rank=rank, world_size=2)
prototypes, grads, counts = tests.gradients(tests.settings(), rank, 2)
for grad in grads:
    dist.all_reduce(grad)
torch.save([prototypes, [grad / 2 for grad in grads], counts], f"{sys.argv[2]}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_get_what_one_gets(tmp_path):
    """The same prototypes to the last bit, and the mean of their gradients is that of all regions and pixels."""
    started = [start(__file__, tmp_path, code=PROCESS, RANK=rank) for rank in range(2)]
    wanted, grads, counts = gradients(settings(), 0, 1)
    ended = [process.wait() for process in started]
    assert [code for code, _, _ in ended] == [0, 0], ended
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for prototypes, mean, _ in found:
        assert prototypes.keys() == wanted.keys()
        assert all(torch.equal(prototypes[k], wanted[k]) for k in wanted)
        for mine, theirs in zip(mean, grads, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
    for name, total in counts.items():
        parts = [part[name] for _, _, part in found]
        assert sum(parts) == total > 0
        assert parts[0] != parts[1]

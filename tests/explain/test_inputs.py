"""Models of several inputs: every explainer equals itself on the model of one image with its other inputs built in."""

from __future__ import annotations

import pytest
import torch
from cases import CNN_METHODS
from reference import FORMULAS, relative_error
from torch import nn

import camplug
from camplug import IMAGE, Aligned, InputError, Inputs, LayerError, PerImage, Shared
from camplug.explain.registry import get_method
from camplug.explain.tensor_ops import resize_aligned

METHODS = [m for m in CNN_METHODS if m != "cam" and issubclass(get_method(m), camplug.LayerExplainer)]
WRAPPERS = {
    "multiview": lambda e: camplug.MultiView(e, scales=(0.5, 1.0, 1.5)),
    "splitunite": camplug.SplitUnite,
    "erasing": lambda e: camplug.IterativeErasing(e, threshold=0.3, stop=0.0, max_iter=3),
    "conditional": camplug.ClassConditional,
    "compete": lambda e: camplug.Compete(e, judge=camplug.GradCAM(e.model, "last")),
    "dense": lambda e: camplug.Dense(e, 1),
}


class Gated(nn.Module):
    """Scores of an image, of a vector that belongs to it, and of weights that belong to nobody."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x, gate, *, table=None):
        x = self.stem(x).relu() * gate[:, :, None, None].sigmoid()
        x = self.last(x).relu()
        scores = self.head((x * gate.cos()[:, :, None, None]).mean((2, 3)))
        return scores if table is None else scores @ table


class BuiltIn(nn.Module):
    """A model of one image whose other inputs are built in; made by hand, without `Inputs`."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


@pytest.fixture
def gated(device):
    torch.manual_seed(0)
    model = Gated().double().eval().to(device)
    nn.init.zeros_(model.head.bias)
    return model, torch.randn(3, 3, 16, 12).double().to(device), torch.randn(3, 6).double().to(device)


def gate_of(gate):
    return lambda model, x: model(x, gate.expand(len(x), -1))


def layers_in(model, names):
    return [dict(model.named_modules())[name] for name in names]


def agree(got, want):
    return all(relative_error(g, w) <= 1e-9 for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_other_inputs(method, gated):
    model, x, gate = gated
    explainer = camplug.create(method, model)
    got = explainer.maps(x, [2, 0, 1], inputs=(gate,))
    with explainer.tape() as tape:
        model(x, gate)
        names = list(dict.fromkeys(layer.name for layer, _ in tape.captures))
    for i, c in enumerate([2, 0, 1]):
        alone = BuiltIn(model, gate_of(gate[i : i + 1]))
        want = camplug.create(method, alone, layers=layers_in(model, names)).maps(x[i : i + 1], c)
        assert agree(got[i : i + 1], want)
    assert names == (["stem", "last"] if method == "fully" else ["last"])


def test_grad_cam_is_that_of_plain_autograd(gated):
    model, x, gate = gated
    got = camplug.GradCAM(model, "last", normalize=None).maps(x, 1, size=(8, 6), inputs={"gate": gate})
    for i in range(3):
        hidden = model.last(model.stem(x[i : i + 1]).relu() * gate[i, :, None, None].sigmoid())
        score = model.head((hidden.relu() * gate[i].cos()[:, None, None]).mean((2, 3)))[0, 1]
        (gradient,) = torch.autograd.grad(score, hidden)
        assert relative_error(got[i], FORMULAS["gradcam"](hidden[0].detach(), gradient[0])) <= 1e-9


def test_cam_takes_other_inputs(gated):
    class Pooled(Gated):
        def forward(self, x, gate):
            x = self.stem(x).relu() * gate[:, :, None, None].sigmoid()
            return self.head(self.last(x).mean((2, 3)))

    _, x, gate = gated
    model = Pooled().double().eval().to(x.device)
    got = camplug.CAM(model).maps(x, [2, 0, 1], inputs=(gate,))
    for i, c in enumerate([2, 0, 1]):
        features = model.last(model.stem(x[i : i + 1]).relu() * gate[i, :, None, None].sigmoid())
        one = (model.head.weight[c][:, None, None] * features[0]).sum(0).clamp_min(0).detach()
        want = nn.functional.interpolate(one[None, None], x.shape[2:], mode="bilinear")[0, 0]
        assert relative_error(got[i], want / want.max()) <= 1e-9


@pytest.mark.parametrize("line", [("occlusion", {}), ("rise", {"masks": 20})])
def test_methods_without_layers_take_other_inputs(line, gated):
    model, x, gate = gated
    got = camplug.create(line[0], model, **line[1]).maps(x, [2, 0, 1], inputs=(gate,))
    for i, c in enumerate([2, 0, 1]):
        alone = BuiltIn(model, gate_of(gate[i : i + 1]))
        assert agree(got[i : i + 1], camplug.create(line[0], alone, **line[1]).maps(x[i : i + 1], c))


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_inputs_follow_their_images_through_wrappers(wrapper, gated):
    model, x, gate = gated
    classes = [[2, 0], [1], [0, 1, 2]]
    got = WRAPPERS[wrapper](camplug.GradCAM(model, "last")).maps(x, classes, inputs=(gate,))
    for i in range(3):
        alone = BuiltIn(model, gate_of(gate[i : i + 1]))
        want = WRAPPERS[wrapper](camplug.GradCAM(alone, model.last)).maps(x[i : i + 1], [classes[i]])
        assert agree(got[i], want[0])


def test_predicted_classes_are_those_with_the_inputs(gated):
    model, x, gate = gated
    predicted = model(x, gate).argmax(1)
    assert len(predicted.unique()) > 1
    want = camplug.GradCAM(model).maps(x, predicted, inputs=(gate,))
    assert torch.equal(camplug.GradCAM(model).maps(x, inputs=(gate,)), want)
    mirrored = camplug.MultiView(camplug.GradCAM(model), scales=(1.0,))
    assert agree(mirrored.maps(x, inputs=(gate,)), mirrored.maps(x, predicted, inputs=(gate,)))


def test_shared_inputs_go_in_as_they_are(gated):
    model, x, gate = gated
    table = torch.randn(3, 3).double().to(x.device)  # as many rows as images, by accident
    explainer = camplug.MultiView(camplug.GradCAM(model, "last"))
    got = explainer.maps(x, 1, inputs=Inputs(gate, table=Shared(table)))
    for i in range(3):
        alone = BuiltIn(model, lambda m, x, i=i: m(x, gate[i : i + 1].expand(len(x), -1), table=table))
        want = camplug.MultiView(camplug.GradCAM(alone, model.last)).maps(x[i : i + 1], 1)
        assert agree(got[i : i + 1], want)


class Second(nn.Module):
    """Takes the images by name, within a dict, or behind another batch of images."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, first, *, pixels=None):
        if self.how == "behind":
            raise TypeError("takes two")
        if self.how == "dict":
            return self.model(first["pixels"], first["gate"])
        return self.model(pixels, first)


class Behind(Second):
    def forward(self, other, pixels, gate):
        return self.model(pixels, gate) + other.mean((2, 3))


@pytest.mark.parametrize("method", ["gradcam", "fully"])
def test_images_that_are_not_the_first_argument(method, gated):
    model, x, gate = gated
    other = torch.randn(3, 3, 8, 8).double().to(x.device)
    plain = camplug.create(method, model)
    want = plain.maps(x, 1, inputs=(gate,))
    for wrapped, inputs in [
        (Second(model, "name"), Inputs(gate, pixels=IMAGE)),
        (Second(model, "name"), {"first": gate, "pixels": IMAGE}),
        (Second(model, "dict"), Inputs({"gate": gate, "pixels": IMAGE})),
        (Behind(model, "behind"), (other, IMAGE, gate)),
    ]:
        explainer = camplug.create(method, wrapped.eval())
        assert agree(explainer.maps(x, 1, inputs=inputs), want)
        both = camplug.MultiView(explainer, scales=(1.0,)), camplug.MultiView(plain, scales=(1.0,))
        assert agree(both[0].maps(x, 1, inputs=inputs), both[1].maps(x, 1, inputs=(gate,)))


class Depth(nn.Module):
    """Reads an image and its depth, which are concatenated."""

    def __init__(self):
        super().__init__()
        self.last, self.head = nn.Conv2d(4, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x, depth=None):
        x = x if depth is None else torch.cat([x, depth], 1)
        return self.head(self.last(x).relu().mean((2, 3)))


@pytest.fixture
def deep(device):
    torch.manual_seed(0)
    model = Depth().double().eval().to(device)
    return model, torch.randn(2, 3, 16, 12).double().to(device), torch.randn(2, 1, 16, 12).double().to(device)


@pytest.mark.parametrize("wrapper", ["multiview", "splitunite"])
def test_aligned_inputs_are_changed_with_their_images(wrapper, deep):
    model, x, depth = deep
    explainer = WRAPPERS[wrapper](camplug.GradCAM(model, "last"))
    got = explainer.maps(x, [[0, 2], [1]], inputs=(Aligned(depth),))
    want = explainer.maps(torch.cat([x, depth], 1), [[0, 2], [1]])
    assert all(agree(g, w) for g, w in zip(got, want, strict=True))


def test_an_aligned_mask_keeps_its_values(device):
    mask = torch.tensor([[[0, 7], [255, 3]]]).to(device)
    made = Inputs(Aligned(mask)).for_images(1).align(lambda t: resize_aligned(t, (4, 4)), (2, 2))
    args, _ = made.make_arguments(torch.zeros(1, 3, 4, 4))
    assert args[1].tolist() == [[[0, 0, 7, 7], [0, 0, 7, 7], [255, 255, 3, 3], [255, 255, 3, 3]]]


@pytest.mark.parametrize("wrapper", ["multiview", "splitunite", "conditional"])
def test_an_input_that_may_have_to_follow_is_asked_for(wrapper, deep):
    model, x, depth = deep
    explainer = WRAPPERS[wrapper](camplug.GradCAM(model, "last"))
    with pytest.raises(InputError, match=r"\[.*1, 16, 12\] may belong to their positions; give camplug.Aligned"):
        explainer.maps(x, 1, inputs=(depth,))


def test_an_input_per_image_stays_as_it_is(deep):
    model, x, depth = deep
    explainer = camplug.MultiView(camplug.GradCAM(model, "last"), scales=(1.0,))
    got = explainer.maps(x, 1, inputs=(PerImage(depth),))
    for i in range(2):
        alone = BuiltIn(model, lambda m, x, i=i: m(x, depth[i : i + 1].expand(len(x), -1, -1, -1)))
        want = camplug.MultiView(camplug.GradCAM(alone, model.last), scales=(1.0,)).maps(x[i : i + 1], 1)
        assert agree(got[i : i + 1], want)


class Pair(nn.Module):
    """Two images through one encoder."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, a, b):
        return self.head(torch.cat([self.encoder(a).mean((2, 3)), self.encoder(b).mean((2, 3))], 1))


@pytest.mark.parametrize("method", ["gradcam", "layercam", "hirescam", "fully"])
@pytest.mark.parametrize(("call", "which"), [(0, 0), (1, 1), (-1, 1), (-2, 0)])
def test_one_call_of_an_encoder_is_chosen(method, call, which, device):
    torch.manual_seed(0)
    model = Pair().double().eval().to(device)
    a, b = (torch.randn(2, 3, 8, 8).double().to(device) for _ in range(2))
    got = camplug.create(method, model, layers="encoder.0", call=call).maps(a, 2, inputs=(PerImage(b),))
    for i in range(2):
        hidden = [model.encoder[0](x[i : i + 1]) for x in (a, b)]
        score = model.head(torch.cat([h.relu().mean((2, 3)) for h in hidden], 1))[0, 2]
        gradients = torch.autograd.grad(score, hidden)
        one = FORMULAS[method](hidden[which][0].detach(), gradients[which][0])
        assert relative_error(got[i], one / one.max()) <= 1e-9


def test_eigen_cam_of_one_call(device):
    torch.manual_seed(0)
    model = Pair().double().eval().to(device)
    a, b = (torch.randn(2, 3, 8, 8).double().to(device) for _ in range(2))
    got = [camplug.EigenCAM(model, "encoder.0", call=k).maps(a, 0, inputs=(PerImage(b),)) for k in (0, 1)]
    for maps, x in zip(got, (a, b), strict=True):
        assert agree(maps, camplug.EigenCAM(model.encoder, model.encoder[0]).maps(x, lambda y: y.mean((1, 2, 3))))


def test_a_call_that_did_not_happen(gated):
    model, x, gate = gated
    with pytest.raises(LayerError, match="call=1: the wanted layers ran at most 1 times"):
        camplug.GradCAM(model, "last", call=1).maps(x, 0, inputs=(gate,))
    with pytest.raises(InputError, match="call='first'; give a whole number"):
        camplug.GradCAM(model, "last", call="first")


def test_a_call_that_feeds_no_score(device):
    class Aside(Pair):
        def forward(self, a, b):
            self.encoder(b)
            return self.head(torch.cat([self.encoder(a).mean((2, 3))] * 2, 1))

    model, x = Aside().eval().to(device), torch.randn(1, 3, 8, 8, device=device)
    with pytest.raises(LayerError, match="call=0: this call of the wanted layers does not feed the score"):
        camplug.GradCAM(model, "encoder.0", call=0).maps(x, 0, inputs=(PerImage(x),))


def test_a_model_may_overwrite_its_inputs(gated):
    class Overwrites(Gated):
        def forward(self, x, gate, *, table=None):
            x /= 2
            gate += 0.25
            return super().forward(x, gate, table=table)

    model, x, gate = gated
    rude = Overwrites().double().eval().to(x.device)
    rude.load_state_dict(model.state_dict())
    before = x.clone(), gate.clone()
    got = [camplug.FullyCAM(rude).maps(x, 1, inputs=(gate,)) for _ in range(2)]
    assert torch.equal(x, before[0])
    assert torch.equal(gate, before[1])
    assert agree(got[0], got[1])
    assert agree(got[0], camplug.FullyCAM(model).maps(x / 2, 1, inputs=(gate + 0.25,)))


def test_photographs_with_other_inputs(gated):
    model, _, gate = gated
    photos = [torch.randn(3, *size).double().to(gate.device) for size in [(16, 12), (16, 12), (10, 10)]]
    many = camplug.GradCAM(model).explain(photos, [0, 1, 2], batch_size=2, inputs=(gate,))
    for i, photo in enumerate(photos):
        one = camplug.GradCAM(model).explain(photo, i, inputs=(gate[i : i + 1],))
        assert agree(many[i].maps, one.maps)
        assert torch.equal(many[i].logits, model(photo[None], gate[i : i + 1])[0].detach().cpu().float())


def test_inputs_that_do_not_fit(gated):
    model, x, gate = gated
    explainer = camplug.GradCAM(model, "last")
    with pytest.raises(InputError, match=r"camplug.PerImage needs one entry for each of 3 images; got \[2, 6\]"):
        explainer.maps(x, 0, inputs=(PerImage(gate[:2]),))
    with pytest.raises(InputError, match=r"camplug.Aligned has \[3, 1, 4, 4\], and the images .* have 16x12 pixels"):
        explainer.maps(x, 0, inputs=(Aligned(torch.zeros(3, 1, 4, 4)),))
    with pytest.raises(InputError, match="holds IMAGE 2 times"):
        Inputs(IMAGE, IMAGE)
    with pytest.raises(InputError, match="inputs= belong to 3 images, and there are 2"):
        explainer.maps(x[:2], 0, inputs=Inputs(gate).for_images(3))


def test_a_method_of_images_alone_says_so(gated):
    class Plain(camplug.Explainer):
        name = "plain"

        def run(self, x, classes, size=None):
            raise AssertionError("never reached")

    model, x, gate = gated
    with pytest.raises(InputError, match="plain explains models of images alone; leave out inputs="):
        Plain(model).maps(x, 0, inputs=(gate,))


def test_a_list_with_one_entry_per_image_follows(gated):
    model, x, gate = gated

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, names):
            return self.model(x, torch.stack([gate["abc".index(name)] for name in names]))

    explainer = camplug.MultiView(camplug.GradCAM(Named().eval(), "model.last"))
    got = explainer.maps(x, 1, inputs=(PerImage(["b", "a", "c"]),))
    want = camplug.MultiView(camplug.GradCAM(model, "last")).maps(x, 1, inputs=(gate[[1, 0, 2]],))
    assert agree(got, want)

"""The plug itself: activations and gradients of any layers, one after another."""

import torch
import torchvision

import camplug

model = torchvision.models.resnet18(weights=None)
x = torch.randn(2, 3, 224, 224)

with camplug.Tape(model, layers=["layer*", "conv1"]) as tape:
    logits = model(x)
    for layer, activation, gradient in tape.gradients(logits[:, 281]):
        share = (activation.relu() * gradient.relu() > 0).float().mean()
        print(f"{layer!s:8} {tuple(activation.shape)!s:20} positions with positive evidence: {share:.0%}")

# with grad=True the activations stay in the graph, for losses on features
with camplug.Tape(model, layers="layer4", grad=True) as tape:
    loss = model(x).logsumexp(1).mean() + 0.01 * tape["layer4"].abs().mean()
loss.backward()
print("gradient of the first convolution:", f"{model.conv1.weight.grad.norm():.4f}")

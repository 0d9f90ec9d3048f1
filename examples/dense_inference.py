"""The same trained network at a finer output stride: finer maps without training."""

import sys

import torch

import camplug
from camplug.images.sample import find_sample_photo

model = camplug.load_model("demo")
photo = sys.argv[1] if len(sys.argv) > 1 else find_sample_photo()

camplug.CAM(model).explain(photo, "Egyptian cat").save("stride_32.png")
camplug.Dense(camplug.CAM(model), output_stride=8).explain(photo, "Egyptian cat").save("stride_8.png")

# the context manager is for whatever else one does with the model
x = torch.zeros(1, 3, 224, 224)
print("as built:", tuple(model.forward_features(x).shape[2:]))
with camplug.dense(model, output_stride=8):
    print("at output stride 8:", tuple(model.forward_features(x).shape[2:]))
print("afterwards:", tuple(model.forward_features(x).shape[2:]))

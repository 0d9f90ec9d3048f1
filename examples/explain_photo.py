"""Explain a photograph with a trained classifier: python examples/explain_photo.py [photo.jpg]"""

import sys

import camplug
from camplug.images.sample import find_sample_photo

model = camplug.load_model("demo")  # or any trained classifier of your own
photo = sys.argv[1] if len(sys.argv) > 1 else find_sample_photo()

result = camplug.FullyCAM(model).explain(photo)
for index, name, probability in result.top(3):
    print(f"{probability:6.1%}  {name} ({index})")
print("boxes around the explained class:", result.boxes(0.5)[0])
result.overlay().save("explained.png")

both = camplug.FullyCAM(model).explain(photo, ["tabby", "Egyptian cat"])
both.grid().save("two_classes.png")

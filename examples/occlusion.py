"""Find out what must stay visible of a photograph for the network to keep its opinion."""

from __future__ import annotations

import numpy as np

import onnxviz as ov

network = ov.embedded_sets()[0]
model = ov.load(network.model)
photos = network.load_images(model)
photo = photos[photos.names.index("chelsea.jpg")]

found = ov.occlusion(model, photo, target="top1", window=32, stride=16)
row, column = np.unravel_index(found.probability.argmin(), found.probability.shape)
print(
    f"{found.target}: {found.clean:.3f} clean, {found.probability.min():.3f} with a patch at {found.boxes[row, column]}"
)
print(found.provenance.parameters["method"], found.provenance.parameters["plan"])
ov.save_figure(ov.plot(found), "occlusion.png")

# Panel (b) of Zeiler and Fergus: what the strongest feature map of an inner layer looks at, step by step.
for step in ov.occlusion_steps(model, photo, target=("fire9/concat", "strongest"), window=32, stride=32):
    print(f"{step.done} of {step.total} positions")
ov.save_figure(ov.plot(step.result), "strongest.png")

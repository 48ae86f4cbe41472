"""Draw, for some channels of a layer, the image patches that excite them most."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model)

patches = ov.top_patches(model, images, value="relu3", k=9)
strongest = patches.scores[:, 0].argmax()
where = patches.boxes[strongest, 0]
print(
    f"channel {patches.channels[strongest]} answers {patches.names[patches.image_index[strongest, 0]]} most, at {where}"
)
ov.save_figure(ov.plot(patches), "top-patches.png")

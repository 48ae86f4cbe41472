"""Find images that are nearly the same picture: across two sets, as training and test are, and within one."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model)
training, test = images.subset(range(1000)), images.subset(range(1000, 2000))
learned, tested = ov.features(model, training), ov.features(model, test)

leaked = ov.near_duplicates(tested, learned, images=test, second_images=training)
print(f"{len(leaked.affected)} of {len(test)} test images have a near-duplicate among the training images")
ov.save_figure(ov.plot(leaked), "leaked.png")

twice = ov.near_duplicates(learned, images=training)
for (first, second), ratio in zip(twice.pairs, twice.ratios, strict=True):
    print(f"{twice.names[first]} and {twice.names[second]}: {ratio:.3f} of the scale apart")
ov.save_figure(ov.plot(twice), "near-duplicates.png")

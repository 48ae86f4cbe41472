"""Give some images a wrong label, and see how many of them lead the list of suspects."""

from __future__ import annotations

import dataclasses

import numpy as np

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model)
features = ov.features(model, images)

random = np.random.default_rng(0)
wrong = random.choice(len(images), 100, replace=False)
labels = features.classes.copy()
labels[wrong] = (labels[wrong] + random.integers(1, 10, 100)) % 10

suspects = ov.label_suspects(dataclasses.replace(features, classes=labels), images=images)
found = np.isin(suspects.ranking[:100], wrong).sum()
print(f"{found} of the 100 most suspicious images have a wrong label; at random it would be 5")
ov.save_figure(ov.plot(suspects), "suspects.png")

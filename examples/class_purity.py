"""Measure for each class how far its nearest neighbours are of the same class, and of which they are otherwise."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
features = ov.features(model, network.load_images(model))

found = ov.class_purity(features, n_neighbors=20)
for row, number in enumerate(found.classes):
    print(f"{found.class_names[number]}: {found.purity[row]:.3f}, by chance {found.chance[row]:.3f}")
ov.save_figure(ov.plot(found), "purity.png")

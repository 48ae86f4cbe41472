"""Count how often each image is a neighbour of others, by two metrics, and show the hubs."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model)
features = ov.features(model, images)

for metric in ("euclidean", "cosine"):
    found = ov.hubness(features, metric=metric, images=images)
    print(f"{metric}: skewness {found.skewness:.2f}, {len(found.hubs)} hubs, {len(found.antihubs)} antihubs")
ov.save_figure(ov.plot(found), "hubness.png")

"""Compare the nearest images in feature space with those in pixel space, and search a matrix of features directly."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model).sample(500, 0)

strips = ov.neighbors(model, images, n_neighbors=5)
print(f"leave-one-out: {strips.feature_accuracy:.3f} in feature space, {strips.pixel_accuracy:.3f} in pixel space")
ov.save_figure(ov.plot(strips), "neighbors.png")

features = ov.features(model, images)
distances, indices = ov.NearestNeighbors(n_neighbors=3, metric="cosine").fit(features.array).kneighbors()
print(f"nearest to {features.names[0]} by cosine: {[features.names[i] for i in indices[0]]} at {distances[0].round(4)}")

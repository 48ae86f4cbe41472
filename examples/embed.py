"""Reduce the feature vectors of images to two dimensions, and lay the images on a grid by them."""

from __future__ import annotations

from PIL import Image

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model).sample(500, 0)
features = ov.features(model, images)

for method in ("pca", "tsne"):
    embedding = ov.embed(features, method=method)
    print(f"{method}: trustworthiness {embedding.trustworthiness:.3f}")
    ov.save_figure(ov.plot(embedding), f"embedding-{method}.png")

grid = ov.image_grid(embedding, images, features=features, size=2048)
Image.fromarray(ov.grid_image(grid, size=2048, seams=True)).save("image-grid.png")

"""Collect features on disk in two halves, as two machines would, merge them, and look at what a stopped run leaves."""

from __future__ import annotations

import shutil

import numpy as np

import onnxviz as ov

network = ov.embedded_sets()[1]
model = ov.load(network.model)
images = network.load_images(model).sample(600, 0)
for folder in ("first", "second"):
    shutil.rmtree(folder, ignore_errors=True)

# Were this killed at any time, the same call would go on where it was.
first = ov.collect_features(model, images.subset(np.arange(256)), "first", shard_rows=128)
second = ov.collect_features(model, images.subset(np.arange(256, 600)), "second", shard_rows=128)
with first:
    first.append_bank(second)
first.verify()
print(f"{first}: {len(first.shards)} shards, digest {first.digest[:16]}...")

# Any rows can be read without the others; a small bank also becomes what every method takes.
print(f"rows 3, 400 and 17 of {first.names[3]}, ...: {first[[3, 400, 17]].mean(axis=1).round(4)}")
embedding = ov.embed(first.features(), method="pca")
ov.save_figure(ov.plot(embedding), "feature-bank.png")

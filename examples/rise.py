"""Explain a decision without any derivative: random masks hide parts of a photograph; the map says how sure it is."""

from __future__ import annotations

import onnxviz as ov

network = ov.embedded_sets()[0]
model = ov.load(network.model)
photos = network.load_images(model)
photo = photos[photos.names.index("chelsea.jpg")]

found = ov.rise(model, photo, target="top1", masks=400, seed=0)
print(f"{found.target}: {found.clean:.3f} clean; {found.masks} masks, largest error {found.standard_error.max():.4f}")

# Masks of other seeds, on another machine perhaps, add to it: the merged map is that of all masks together.
other = ov.rise(model, photo, target="top1", masks=400, seed=1)
both = ov.merge_rise(found, other)
print(f"{both.masks} masks, largest error {both.standard_error.max():.4f}")
ov.save_figure(ov.plot(both), "rise.png")

# How good is the map? Pixels come and go in its order; the areas of two controls stand beside its own.
ov.save_figure(
    ov.plot(ov.insertion_deletion(model, photo, both.map, step=2048, controls=True)), "insertion_deletion.png"
)

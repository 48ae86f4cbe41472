"""Make the picture that the README begins with, ``microscope.jpg``, from the networks that come with onnxviz."""

from __future__ import annotations

import io

from PIL import Image

import onnxviz as ov
from onnxviz.pictures import to_png_bytes

WIDTH, GAP = 1600, 24


def panel(result: object, width: int, **options: object) -> Image.Image:
    """Draw one result ``width`` pixels wide."""
    image = Image.open(io.BytesIO(to_png_bytes(ov.plot(result, **options)))).convert("RGB")
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def row(panels: list[Image.Image]) -> Image.Image:
    """Put panels beside each other."""
    whole = Image.new("RGB", (WIDTH, max(part.height for part in panels)), "white")
    left = 0
    for part in panels:
        whole.paste(part, (left, 0))
        left += part.width + GAP
    return whole


imagenet, fashion, cifar = ov.embedded_sets()
squeezenet, clothes, colours = (ov.load(one.model) for one in (imagenet, fashion, cifar))
photos, garments = imagenet.load_images(squeezenet), fashion.load_images(clothes)
cat = photos[photos.names.index("chelsea.jpg")]

half, third = (WIDTH - GAP) // 2, (WIDTH - 2 * GAP) // 3
above = row(
    [
        panel(ov.occlusion(squeezenet, cat), half),
        panel(ov.top_patches(squeezenet, photos, value="fire5/concat", k=9), half, max_channels=10, max_patches=9),
    ]
)
below = row(
    [
        panel(ov.filters(colours), third),
        panel(ov.neighbors(clothes, garments, n_neighbors=5), third, max_queries=5),
        panel(ov.embed(ov.features(clothes, garments)), third),
    ]
)
picture = Image.new("RGB", (WIDTH, above.height + below.height), "white")
picture.paste(above, (0, 0))
picture.paste(below, (0, above.height))
picture.save("microscope.jpg", quality=85, optimize=True)

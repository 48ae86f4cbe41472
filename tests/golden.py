"""Golden pictures: small PNG files under ``tests/golden``, written anew by ``pytest --update-golden``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "golden"

MEAN_TOLERANCE = 1.5
"""Mean absolute difference allowed, of 255: what another build of FreeType changes along the edges of letters."""
PIXEL_TOLERANCE = 48
SHARE_TOLERANCE = 0.02
"""Share of the pixels that may differ by more than PIXEL_TOLERANCE, of 255, in some channel."""


def assert_golden(png: bytes, name: str, *, update: bool) -> None:
    """Compare a PNG with ``golden/<name>.png``; on failure the new one lies beside it as ``<name>.new.png``."""
    path = FOLDER / f"{name}.png"
    if update:
        FOLDER.mkdir(exist_ok=True)
        Image.open(io.BytesIO(png)).save(path, optimize=True)
        return
    assert path.exists(), f"{path.name} is missing: look at the picture, then run pytest --update-golden"
    got = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    with Image.open(path) as stored:
        wanted = np.asarray(stored.convert("RGB")).astype(int)
    difference = np.abs(got - wanted) if got.shape == wanted.shape else None
    alike = (
        difference is not None
        and difference.mean() <= MEAN_TOLERANCE
        and (difference.max(axis=2) > PIXEL_TOLERANCE).mean() <= SHARE_TOLERANCE
    )
    if not alike:
        path.with_suffix(".new.png").write_bytes(png)
    assert got.shape == wanted.shape, f"{name}: {got.shape} instead of {wanted.shape}"
    assert alike, f"{name}: mean difference {np.abs(got - wanted).mean():.2f} of 255; compare {name}.new.png"

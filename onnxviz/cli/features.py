"""``onnxviz features``: the feature vectors of any number of images in a folder on disk; a stopped run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxviz.cli.options import Device, Images, Limit, ModelPath, Preprocess, Quiet, Seed, Threads, Timeout, Value
from onnxviz.cli.single import Steps, read_images
from onnxviz.cli.supervise import supervise
from onnxviz.cli.terminal import printable, progress, tolerant

if TYPE_CHECKING:
    from onnxviz.inputs.feature_bank import FeatureBank

__all__ = ["features"]


def features(
    model: ModelPath,
    images: Images,
    value: Value = None,
    limit: Limit = 0,
    preprocess: Preprocess = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Feature bank to make, or to go on with.")
    ] = Path("features"),
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    timeout: Timeout = None,
    quiet: Quiet = False,
) -> None:
    """Collect the features of all images in a feature bank on disk; started again, it goes on where it was stopped."""

    def work() -> None:
        with progress(quiet=quiet) as show:
            steps = Steps(show, 2)
            steps("opening " + model.name)
            from onnxviz.methods.collect_features import collect_features
            from onnxviz.runtime.opening import load

            opened = load(model, preprocess=preprocess, device=device, threads=threads, timeout=timeout)
            shown = read_images(images, opened, limit, seed)
            steps("features")
            bank = collect_features(opened, shown, out, value=value, progress=steps.within)
        if not quiet:
            with tolerant():
                _print(bank)

    raise typer.Exit(supervise(work, timeout=timeout))


def _print(bank: FeatureBank) -> None:
    rows, columns = bank.shape
    size = rows * columns * bank.dtype.itemsize
    print(f"rows     {rows}")
    print(f"columns  {columns} {bank.dtype}")
    print(f"size     {size / 1e6:.1f} MB")
    print(f"skipped  {len(bank.skipped)}")
    print(f"digest   {bank.digest}")
    print(printable(str(bank.folder)))

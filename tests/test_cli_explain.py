"""``onnxviz explain``: what it writes, and one sentence for whatever it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphs import save, tiny_network
from onnxviz.cli import main
from onnxviz.methods.explanations import EXPLANATIONS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with tiny.onnx and three pictures in images/."""
    save(tiny_network(), tmp_path / "tiny.onnx")
    (tmp_path / "images").mkdir()
    random_pixels = np.random.default_rng(1)
    for index in range(3):
        pixels = random_pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["explain", "tiny.onnx", *map(str, arguments), "--preprocess", "unit"])
        assert isinstance(left.value.code, int)
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_every_method_writes_its_picture_and_its_numbers(method: str, place: Path, command: Command) -> None:
    code, out, err = command("images/0.png", "--method", method, "-o", "map.png", "--json", "map.json", "--target", 1)
    assert code == 0, err
    assert out.splitlines() == ["map.png", "map.json"]
    with Image.open(place / "map.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    numbers = json.loads((place / "map.json").read_bytes())
    assert numbers["class_index"] == 1
    assert numbers["name"] == "0.png"
    assert np.shape(numbers["coarse"] if "coarse" in numbers else numbers["values"][0]) == (8, 8)
    assert numbers["provenance"]["method"] == EXPLANATIONS[method].__name__


def test_several_images_give_a_picture_each(place: Path, command: Command) -> None:
    code, out, err = command("images", "--method", "gradcam", "--value", "conv", "-o", "cam.png", "--limit", 2)
    assert code == 0, err
    assert out.splitlines() == ["cam.png", "cam-2.png"]
    assert (place / "cam.png").read_bytes() != (place / "cam-2.png").read_bytes()


def test_the_options_reach_the_method(place: Path, command: Command) -> None:
    code, out, _ = command(
        "images/1.png", "--method", "integrated-gradients", "--steps", 7, "--baseline", "grey", "--json", "-",
        "--target", "conv[2,0,5]",
    )  # fmt: skip
    assert code == 0
    numbers = json.loads(out)
    assert (numbers["steps"], numbers["baseline"], numbers["target"]) == (7, "grey", "conv[2, 0, 5]")
    code, out, _ = command("images/1.png", "--method", "smoothgrad", "--steps", 3, "--seed", 5, "--json", "-")
    numbers = json.loads(out)
    assert (numbers["samples"], numbers["provenance"]["parameters"]["seed"]) == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["images/0.png", "--method", "saliancy"], "'saliency'"),
        (["images/0.png", "--method", "saliency", "--value", "conv"], "'gradcam'"),
        (["images/0.png", "--method", "gradcam", "--steps", "5"], "'smoothgrad'"),
        (["images/0.png", "--method", "smoothgrad", "--baseline", "mean"], "'integrated-gradients'"),
        (["images/0.png", "--baseline", "purple"], "purple"),
        (["images/0.png", "--method", "gradcam", "--value", "pooled"], "no rows and columns"),
        (["images/0.png", "--target", "7"], "0 to 2"),
        (["missing", "--method", "saliency"], "missing"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], said: str, place: Path, command: Command) -> None:
    code, out, err = command(*arguments, "-q")
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert not list(place.glob("*.png"))

"""The command: what it writes and prints, its exit codes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from graphs import build, save, tiny_network
from onnxviz.cli import main
from onnxviz.cli.supervise import supervise
from onnxviz.errors import InputError
from onnxviz.report.sections import SECTIONS

RUN = "from onnxviz.cli import main; main()"
STEPS = len(SECTIONS) + 2
"""Of an audit of one model: opening it and writing the report count too."""


def pictures(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    random_pixels = np.random.default_rng(1)
    for index in range(count):
        Image.fromarray(random_pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def classed_pictures(folder: Path) -> Path:
    """Two class folders of six pictures each; those of ``b`` are redder."""
    random_pixels = np.random.default_rng(2)
    for number, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            pixels = random_pixels.integers(0, 128, (8, 8, 3), dtype=np.uint8)
            pixels[..., 0] += np.uint8(90 * number + 5 * index)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with tiny.onnx and images/."""
    save(tiny_network(), tmp_path / "tiny.onnx")
    pictures(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Run the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip


def endless_network() -> onnx.ModelProto:
    """A loop whose condition stays true."""

    def described(name: str, dtype: int, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, shape)

    boolean, real = onnx.TensorProto.BOOL, onnx.TensorProto.FLOAT
    body = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["still"]), helper.make_node("Identity", ["state"], ["same"])],
        "body",
        [
            described("turn", onnx.TensorProto.INT64, []),
            described("again", boolean, []),
            described("state", real, None),
        ],
        [described("still", boolean, []), described("same", real, None)],
    )
    return build(
        [
            helper.make_node("Loop", ["", "true", "image"], ["looped"], body=body),
            helper.make_node("Conv", ["looped", "w"], ["conv"]),
            helper.make_node("GlobalAveragePool", ["conv"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        inputs={"image": ("float", [1, 3, 8, 8])},
        outputs={"logits": ("float", [1, 4])},
        weights={"true": np.array(True), "w": np.ones((4, 3, 3, 3), np.float32)},
    )


# -- Audit --------------------------------------------------------------------------------------------------------


def test_audit_without_findings(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command("audit", "tiny.onnx", "--preprocess", "unit", "-o", "r")
    assert code == 0
    assert out.splitlines()[-2:] == ["0 findings, 4 checks passed, 11 not checked", str(Path("r", "index.html"))]
    # In a pipe, one plain line for each step.
    lines = err.splitlines()
    assert lines[0] == f"[ 1/{STEPS}] tiny.onnx: opening"
    assert lines[-1] == f"[{STEPS}/{STEPS}] writing the report"
    assert all(re.fullmatch(rf"\[ ?\d+/{STEPS}\] [ -~]+", line) for line in lines)
    assert (place / "r" / "results.json").is_file()


def test_audit_with_findings_and_options(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    (place / "labels.txt").write_text("ant\nbee\ncat\n")
    (place / "images" / "broken.png").write_bytes(b"x")
    code, out, _ = command(
        "audit", "tiny.onnx", "images", "-o", "r", "--labels", "labels.txt", "--values", "relu", "--values", "conv*",
        "--target", "bee", "--limit", 4, "--seed", 3, "--threads", 1, "--occlusion-budget", 1, "--timeout", 300,
    )  # fmt: skip
    assert code == 1
    assert out.count("finding  ") == int(out.splitlines()[-2].split()[0]) >= 2
    assert "finding  Preprocessing is known: guessed" in out
    assert "finding  Every image file was read: 1 of 5" in out
    content = json.loads((place / "r" / "results.json").read_bytes())
    assert content["exit_code"] == 1
    assert content["parameters"] == {
        "values": ["relu", "conv*"], "target": "bee", "limit": 4, "seed": 3, "threads": 1, "device": "auto",
        "occlusion_budget": 10**9,
    }  # fmt: skip
    (model,) = content["models"]
    assert model["labels"] == ["ant", "bee", "cat"]
    assert [entry["value"] for entry in model["sections"]["activations"]["numbers"]["drawn"]] == ["relu", "conv"]
    for found in model["sections"]["occlusion"]["numbers"]["maps"]:
        assert found["target"] == "bee (1)"


def test_quiet_prints_nothing(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command("audit", "tiny.onnx", "--preprocess", "unit", "-o", "r", "-q")
    assert (code, out, err) == (0, "", "")
    code, out, err = command("filters", "tiny.onnx", "-o", "f.png", "--quiet")
    assert (code, out, err) == (0, "", "")


# -- One method each ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["filters", "tiny.onnx"], "Filters"),
        (["activations", "tiny.onnx", "images", "--values", "relu"], "Activations"),
        (["patches", "tiny.onnx", "images", "--value", "relu", "-k", "2", "--channel", "1"], "TopPatches"),
        (["occlusion", "tiny.onnx", "images/0.png", "--window", "3", "--stride", "2"], "Occlusion"),
        (["neighbors", "tiny.onnx", "images", "-k", "2", "--queries", "3"], "Neighbors"),
        (["embed", "tiny.onnx", "images", "--method", "pca"], "Embedding"),
        (["embed", "tiny.onnx", "images", "--grid", "assignment", "--size", "64"], "ImageGrid"),
    ],
)
def test_a_method_writes_its_picture_and_its_numbers(
    arguments: list[str], result: str, place: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    preprocess = [] if arguments[0] == "filters" else ["--preprocess", "unit"]
    code, out, err = command(*arguments, *preprocess, "-o", "picture.png", "--json", "numbers.json", "--timeout", 300)
    assert code == 0, err
    assert out.splitlines() == ["picture.png", "numbers.json"]
    with Image.open(place / "picture.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    numbers = json.loads((place / "numbers.json").read_bytes())
    numbers = numbers[0] if isinstance(numbers, list) else numbers
    assert numbers["result"] == result
    assert numbers["provenance"]["model"] == "tiny.onnx"
    assert len(numbers["provenance"]["model_sha256"]) == 64
    assert not list(place.glob(".onnxviz-*"))


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["duplicates", "tiny.onnx", "classed", "--threshold", "0.001"], "NearDuplicates"),
        (["duplicates", "tiny.onnx", "images", "--against", "classed", "--threshold", "0.001"], "NearDuplicates"),
        (["suspects", "tiny.onnx", "classed", "-k", "3"], "LabelSuspects"),
        (["purity", "tiny.onnx", "classed", "-k", "3"], "ClassPurity"),
        (["hubs", "tiny.onnx", "classed", "-k", "3"], "Hubness"),
    ],
)
def test_a_question_on_the_feature_space_is_answered(
    arguments: list[str], result: str, place: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    classed_pictures(place / "classed")
    code, out, err = command(
        *arguments, "--preprocess", "unit", "-o", "picture.png", "--json", "numbers.json", "--timeout", 300
    )
    assert code == 0, err
    assert out.splitlines()[:2] == ["picture.png", "numbers.json"]
    with Image.open(place / "picture.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    numbers = json.loads((place / "numbers.json").read_bytes())
    assert numbers["result"] == result
    assert numbers["provenance"]["model"] == "tiny.onnx"
    if result == "NearDuplicates":
        assert out.splitlines()[2:] == [f"0 near-duplicate pairs, at most {numbers['threshold']:g} of the scale apart"]
        assert numbers["within"] == ("--against" not in arguments)


def test_duplicates_are_findings(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    classed_pictures(place / "classed")
    # The same bytes under another name, class and folder.
    (place / "classed" / "b" / "copy.png").write_bytes((place / "classed" / "a" / "1.png").read_bytes())
    (place / "images" / "leak.png").write_bytes((place / "classed" / "a" / "2.png").read_bytes())
    options = ("--preprocess", "unit", "--threshold", 0.001)
    code, out, _ = command("duplicates", "tiny.onnx", "classed", *options)
    assert code == 1
    assert out.splitlines() == [
        "duplicates.png",
        "0.000  a/1.png  b/copy.png",
        "1 near-duplicate pair, at most 0.001 of the scale apart",
    ]
    arguments = ("duplicates", "tiny.onnx", "images", "--against", "classed", *options)
    code, out, _ = command(*arguments)
    assert code == 1
    assert out.splitlines()[1] == "0.000  leak.png  a/2.png"
    # Numbers on standard output stand there alone.
    code, out, _ = command(*arguments, "--json", "-")
    assert code == 1
    assert json.loads(out)["pairs"] == [[6, 2]]
    assert command(*arguments, "-q")[:2] == (1, "")


def test_numbers_are_those_of_the_file(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command("filters", "tiny.onnx", "--json", "-", "-q")
    assert code == 0
    weights = next(tensor for tensor in tiny_network().graph.initializer if tensor.name == "w")
    np.testing.assert_array_equal(np.float32(json.loads(out)["weights"]), numpy_helper.to_array(weights))
    # Numbers were asked for, a picture was not.
    assert not list(place.glob("*.png"))


def test_several_values_give_several_pictures(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command(
        "activations", "tiny.onnx", "images", "--values", "conv", "--values", "relu", "-o", "maps.png",
        "--preprocess", "unit",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines() == ["maps.png", "maps-2.png"]
    assert (place / "maps.png").read_bytes() != (place / "maps-2.png").read_bytes()


def test_inspect_lists_values(place: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command("inspect", "tiny.onnx")
    assert code == 0
    for name in ("image", "conv", "relu", "pooled", "features", "logits", "prob"):
        assert re.search(rf"^{name} ", out, re.MULTILINE), name
    assert "(a guess)" in out
    code, out, _ = command("inspect", "tiny.onnx", "--values", "re*", "--json", "-")
    numbers = json.loads(out)
    assert [value["name"] for value in numbers["values"]] == ["relu"]
    assert numbers["values"][0]["shape_for_one_image"] == [1, 4, 8, 8]
    # One 3 x 3 convolution of 3 channels to 4 on 8 x 8, and a 4 x 3 product.
    assert numbers["macs"] == 4 * 3 * 9 * 64 + 12


# -- What goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["audit", "missing.onnx"], "missing.onnx"),
        (["audit", "garbage.onnx"], "not an ONNX model"),
        (["audit", "tiny.onnx", "nowhere"], "nowhere"),
        (["audit", "tiny.onnx", "garbage.onnx"], "garbage.onnx"),
        (["audit", "tiny.onnx", "images", "-o", "missing/report"], "does not exist"),
        (["audit", "tiny.onnx", "images", "-o", "images"], "not an onnxviz report"),
        (["audit", "tiny.onnx", "images", "-o", "tiny.onnx"], "is a file"),
        (["audit", "tiny.onnx", "images", "--values", "rellu"], "'relu'"),
        (["audit", "tiny.onnx", "images", "--target", "77"], "no such class"),
        (["audit", "tiny.onnx", "images", "--target", "prob[9]"], "no such element"),
        (["audit", "tiny.onnx", "images", "--preprocess", "imagenett"], "imagenett"),
        (["audit", "tiny.onnx", "images", "--labels", "nowhere.txt"], "nowhere.txt"),
        (["audit", "tiny.onnx", "images", "--limit", "-1"], "--limit"),
        (["audit", "tiny.onnx", "images", "--timeout", "0"], "timeout"),
        (["audit", "tiny.onnx", "images", "--threads", "0"], "--threads"),
        (["audit", "tiny.onnx", "images", "--device", "warp"], "warp"),
        (["audit", "tiny.onnx", "images", "more"], "more"),
        (["audit", "--labels", "x"], "without a model"),
        (["filters", "tiny.onnx", "--value", "relux"], "relu"),
        (["filters", "tiny.onnx", "-o", "picture.bmp"], ".bmp"),
        (["filters", "tiny.onnx", "-o", "missing/picture.png"], "does not exist"),
        (["filters"], "MODEL"),
        (["occlusion", "tiny.onnx", "images"], "one image"),
        (["occlusion", "tiny.onnx", "images/0.png", "--baseline", "purple"], "purple"),
        (["neighbors", "tiny.onnx", "images", "-k", "6"], "neighbours"),
        (["embed", "tiny.onnx", "images", "--method", "umap"], "umap"),
        (["duplicates", "tiny.onnx", "images", "--threshold", "2"], "--threshold"),
        (["duplicates", "tiny.onnx", "images", "--against", "nowhere"], "nowhere"),
        (["duplicates", "tiny.onnx", "images/0.png"], "too few images"),
        (["suspects", "tiny.onnx", "images"], "one folder per class"),
        (["purity", "tiny.onnx", "images"], "one folder per class"),
        (["hubs", "tiny.onnx", "images", "-k", "6"], "neighbours"),
        (["paint"], "paint"),
        (["--colour"], "--colour"),
    ],
)
def test_one_sentence_and_code_two(
    arguments: list[str], text: str, place: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (place / "garbage.onnx").write_bytes(b"this is no model" * 20)
    before = sorted(str(path) for path in place.rglob("*"))
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    sentence = [line for line in err.splitlines() if not re.match(r"\[ ?\d+/\d+\] |skipped ", line)]
    assert len(sentence) == 1, err
    assert sentence[0].startswith("onnxviz: ")
    assert text in sentence[0]
    assert "Traceback" not in err
    assert sorted(str(path) for path in place.rglob("*")) == before


def test_a_crash_is_one_sentence_too(
    place: Path, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sys.modules["onnxviz.report.audit"], "evaluate", crash)
    code, _, err = command("audit", "tiny.onnx", "--preprocess", "unit", "-o", "r", "-q")
    assert code == 2
    assert err == "onnxviz: internal error: ZeroDivisionError: a bug. Set ONNXVIZ_TRACEBACK=1 to see where.\n"
    assert not (place / "r").exists()
    assert not list(place.glob(".onnxviz-*"))
    monkeypatch.setenv("ONNXVIZ_TRACEBACK", "1")
    code, _, err = command("audit", "tiny.onnx", "--preprocess", "unit", "-o", "r", "-q")
    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1] == "onnxviz: internal error: ZeroDivisionError: a bug."


def test_names_cannot_write_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise InputError("bad\nname", got="\x1b[31mred\x07\u202e")

    assert supervise(work) == 2
    assert capsys.readouterr().err == "onnxviz: bad name; got \\x1b[31mred\\x07\\x202e.\n"


def test_version_and_help(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command("--version")
    assert code == 0
    assert out.startswith("onnxviz")
    code, out, _ = command("--help")
    assert code == 0
    for name in (
        "audit", "inspect", "filters", "activations", "patches", "occlusion", "rise", "explain", "trust",
        "neighbors", "embed", "duplicates", "suspects", "purity", "hubs", "visualize",
    ):  # fmt: skip
        assert re.search(rf"^  {name} ", out, re.MULTILINE), name
    code, shown, _ = command()
    assert (code, shown.strip()) == (0, out.strip())


def test_help_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "onnxruntime", "matplotlib", "sklearn", "scipy", "PIL")
    code = (
        "import sys; from onnxviz.cli import main\n"
        "try: main(['audit', '--help'])\n"
        f"except SystemExit: print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


# -- Limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["audit", "endless.onnx", "images"], ["inspect", "endless.onnx"]])
def test_an_endless_model_is_stopped(arguments: list[str], place: Path) -> None:
    save(endless_network(), place / "endless.onnx")
    limit = 2.0
    begin = time.monotonic()
    process = start(*arguments, "--timeout", limit, cwd=place)
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - begin
    assert process.returncode == 2
    assert "time" in err.splitlines()[-1]
    assert "Traceback" not in err
    # The limit plus one second, and what the interpreter needs to start before it can look at a clock.
    assert limit - 0.5 < took < limit + 1 + 3
    assert sorted(path.name for path in place.iterdir()) == ["endless.onnx", "images", "tiny.onnx"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_a_model_that_hangs(number: signal.Signals, code: int, place: Path) -> None:
    save(endless_network(), place / "endless.onnx")
    process = start("audit", "endless.onnx", "images", cwd=place)
    assert process.stderr is not None
    # The report's unfinished folder is there, and the model is being opened.
    assert process.stderr.readline() == f"[ 1/{STEPS}] endless.onnx: opening\n"
    begin = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 2
    assert process.returncode == code
    assert err in ("onnxviz: interrupted\n", "onnxviz: terminated\n")
    assert sorted(path.name for path in place.iterdir()) == ["endless.onnx", "images", "tiny.onnx"]


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    process = start("inspect", "tiny.onnx", cwd=place)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0
    assert err == ""
    process.stderr.close()

"""The subcommands as one program: arguments in, an exit code out; every failure is one sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from onnxviz.cli.activations import activations
from onnxviz.cli.audit import audit
from onnxviz.cli.duplicates import duplicates
from onnxviz.cli.embed import embed
from onnxviz.cli.explain import explain
from onnxviz.cli.features import features
from onnxviz.cli.filters import filters
from onnxviz.cli.hubs import hubs
from onnxviz.cli.inspect import inspect
from onnxviz.cli.neighbors import neighbors
from onnxviz.cli.occlusion import occlusion
from onnxviz.cli.patches import patches
from onnxviz.cli.purity import purity
from onnxviz.cli.rise import rise
from onnxviz.cli.supervise import INTERRUPTED, fail, report_crash
from onnxviz.cli.suspects import suspects
from onnxviz.cli.terminal import tolerant
from onnxviz.cli.trust import trust
from onnxviz.cli.visualize import visualize

__all__ = ["app", "main"]

# Recent typer carries a click of its own, older ones import the package: the base of its errors is found through the
# one error that typer itself makes public, so that both are caught.
_UsageFailure: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    name="onnxviz",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A microscope for exported models: what happens inside a .onnx network, what its features look for, and why "
    "it decided as it did. Exit codes: 0 done, 1 findings, 2 error, 130 interrupted.",
)
for command in (
    audit, inspect, filters, activations, patches, occlusion, rise, explain, trust, neighbors, embed, duplicates,
    suspects, purity, hubs, features, visualize,
):  # fmt: skip
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        try:
            print("onnxviz", importlib.metadata.version("onnxviz"))
        except importlib.metadata.PackageNotFoundError:
            print("onnxviz (not installed)")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code: 0 done, 1 findings, 2 error, 130 interrupted."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    code: object = None
    try:
        with tolerant():
            code = command.main(arguments, prog_name="onnxviz", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return fail("interrupted", code=INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except _UsageFailure as error:
        message = str(error.format_message())  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
            return 0
        context = getattr(error, "ctx", None)
        hint = f" Try '{context.command_path} --help'." if context is not None else ""
        return fail(message.rstrip(".") + "." + hint)
    except Exception as error:
        return report_crash(error)
    return code if isinstance(code, int) else 0

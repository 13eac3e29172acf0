"""The command line. This file holds names, types and help; `harness/commands.py` does the work and is imported late,
so that `harness --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.bench.cli import bench, regressions
from harness.compare.cli import compare
from harness.errors import CallError, InterruptedRunError

app = typer.Typer(
    name="harness",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 no FAIL or ERROR; 1 some; 2 the call itself was wrong; 130 interrupted.",
)

SPEC_HELP = (
    "package.module:attr, path/to/file.py:attr, or a name that `harness models` lists. attr is a model, a function or "
    "class that makes one without arguments, or a list or dict of these; attr[2] is one of them. "
    "Without SPEC, tool.harness in pyproject.toml says what to examine."
)
CHECK_EXAMPLES = (
    "Examples:  harness check mypackage.flows:trained  ·  harness check model.py:Flow --effort quick  ·  "
    "harness check model.py:Flow --only density --seed 3  ·  "
    "harness check suite.py:models --seed 0,1,2 --device cpu,cuda --workers 4 --html page.html"
)


@app.callback()
def about() -> None:
    """Does a generative model obey the laws of probability, how sure are we, and how large a defect could still hide?

    Start with `harness check SPEC`. A model is anything with sample(n, *, generator) or log_prob(x), a
    torch or scipy distribution, or a scikit-learn density.
    """


@app.command(epilog=CHECK_EXAMPLES)
def check(
    specs: Annotated[list[str] | None, typer.Argument(metavar="SPEC...", help=SPEC_HELP, show_default=False)] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="quick|standard|thorough", help="Draws and tolerance: 2^14, 2^18 or 2^22 draws. Default: standard."
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="All draws follow from it; several, such as 0,1,2, examine models at each. Default: 0.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda", help="Where models run; cpu,cuda examines them on both. Default: cpu."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="float32|float64", help="Cast models to it. Default: as they are.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this check, or family of checks; may be repeated. Gates are made too."),
    ] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="INCONCLUSIVE counts as a failure.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds that a model's draws may take; verdicts are valid whenever they stop."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds without progress after which a model hangs. Default: 60."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory that a model may take. Default: 4.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(metavar="A", help="Probability of any false FAIL in the whole run. Default: 1e-6."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all evidence as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that needs no network.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Models, seeds and devices examined at once. Default: 1.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR",
            help="Examine on the workers of this Dask scheduler, such as tcp://host:8786. They need the same versions, "
            "and a file system that is shared; for cuda, the resource GPU. The result does not depend on them.",
        ),
    ] = None,
) -> int:
    """Examine models, each in a process of its own: once, or once for each of several seeds and devices.

    All of it is one run: false alarms are as rare as --alpha says over all models, seeds and devices together. A model
    that hangs, dies or eats memory costs its own ERROR verdict and no other's. Ctrl-C keeps what was finished.
    """
    from harness import commands

    given = {
        **{"effort": effort, "seed": seed, "device": device, "dtype": dtype, "only": tuple(only) if only else None},
        **{"strict": strict, "budget": budget, "timeout": timeout, "memory": memory, "alpha": alpha},
        **{"json": json, "junit": junit, "html": html, "workers": workers, "scheduler": scheduler},
    }
    return commands.check(specs or (), {name: value for name, value in given.items() if value is not None})


@app.command()
def checks(json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> int:
    """List the checks: id, law, and what a model needs for it."""
    from harness import catalogue

    print(catalogue.as_json(catalogue.check_rows()) if json else catalogue.list_checks())
    return 0


@app.command(epilog="Example:  harness explain density.bridge_mass")
def explain(id: Annotated[str, typer.Argument(metavar="ID", help="A check's id; `harness checks` lists them.")]) -> int:
    """Say what a check tests, why the law holds, its source, its tolerance, and which planted bugs it finds."""
    from harness import catalogue

    try:
        print(catalogue.explain(id))
    except KeyError as error:
        raise CallError(error.args[0]) from None
    return 0


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> int:
    """List the models that installed packages register (entry points of the group harness.models)."""
    from harness import catalogue

    print(catalogue.as_json(catalogue.model_rows()) if json else catalogue.list_models())
    return 0


@app.command(epilog="Example:  harness selftest --only standard+d=50 --seeds 100 --json selftest.json --merge")
def selftest(
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the rows as JSON, after each one; Ctrl-C keeps them.")
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Rows replace the same ones of the --json FILE, which keeps its others."),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only rows of this group, bug, model, check, effort, d=10, scale=1 or alpha=0.05; words joined by + "
            "must all hold; may be repeated, for rows of either.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds for the rows that get most. Default: 100.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> int:
    """Measure the examiner: false alarms on correct models, and how often each planted bug is found."""
    from harness import commands

    return commands.selftest(only or (), seeds, workers, json, merge)


@app.command(epilog="Example:  harness report monday.json tuesday.json --html week.html")
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Files of `harness check --json`.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that needs no network.")
    ] = None,
) -> int:
    """Show stored results, several side by side."""
    from harness import commands

    return commands.report(results, html)


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="A file of `harness check --json`.")],
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds without progress after which a model hangs.")
    ] = 60.0,
) -> int:
    """Re-run a random part of a result from its recorded seeds, each model in a process of its own, and compare."""
    from harness import commands

    return commands.verify(certificate, timeout)


for command in (bench, regressions, compare):  # each in a file of its own package
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """The command `harness`: run, and leave with its exit status."""
    sys.exit(_status(arguments))


def _status(arguments: list[str] | None) -> int:
    wrong: Any = typer.BadParameter.__mro__[2]  # ClickException, whichever package typer has it from
    try:
        return int(app(arguments, prog_name="harness", standalone_mode=False) or 0)
    except wrong as error:
        return _refused(error.format_message())
    except CallError as error:
        return _refused(str(error))
    except InterruptedRunError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 130
    except (KeyboardInterrupt, typer.Abort):
        print("harness: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refused(message: str) -> int:
    """The call was wrong: one line on standard error."""
    print(f"harness: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()

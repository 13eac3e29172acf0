"""The command `harness compare`: names, types and help; the work is imported late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SPEC_HELP = (
    "package.module:attr, path/to/file.py:attr, or a name that `harness models` lists; attr is one of these, or a list "
    "or dict of them. A function or class that needs an argument is called with the training rows (n, d), and with "
    "those of valid, levels, generator, seed, seconds, device that it names; one that needs none is called without. An "
    "estimator or network of another library that is not fitted is fitted; so is a model with fit(x), and a class with "
    "a class method fit. A torch module in training mode, or a distribution whose parameters require gradients, is "
    "trained by Adam on -log_prob. Anything else is taken as it is."
)
DATA_HELP = (
    "digits, iris, wine, breast_cancer (scikit-learn), a name registered in the group harness.data, a file .npy, .npz, "
    ".csv or .pt, or package.module:function. Integers are discrete, floats continuous."
)


def compare(
    specs: Annotated[list[str] | None, typer.Argument(metavar="SPEC...", help=SPEC_HELP, show_default=False)] = None,
    data: Annotated[str, typer.Option(metavar="NAME|PATH", help=DATA_HELP)] = "",
    budget: Annotated[
        float,
        typer.Option(metavar="S", help="Seconds that the training of a model may take; then again, its draws."),
    ] = 60.0,
    effort: Annotated[
        str, typer.Option(metavar="quick|standard|thorough", help="Of the examination of each model.")
    ] = "quick",
    seed: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="The split, the training and all draws follow from it. With several, such as 0,1,2, the first splits "
            "the data, and every model is trained at each: its NLL is the mean, and ties allow for the seeds, of which "
            "fewer than five tell little.",
        ),
    ] = "0",
    device: Annotated[
        str,
        typer.Option(
            metavar="cpu|cuda",
            help="Where models are trained, examined and timed. Of several, such as cuda,cpu, the first; on the others "
            "they are timed too.",
        ),
    ] = "cpu",
    workers: Annotated[
        int, typer.Option(help="Models, and seeds, at work at once; figures of time are best with 1.")
    ] = 1,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDR", help="Work on a Dask cluster instead, as `harness check` does.")
    ] = "",
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds without progress, beyond the budget, after which a model hangs.")
    ] = 60.0,
    memory: Annotated[float, typer.Option(metavar="GIB", help="Memory that a model may take.")] = 4.0,
    alpha: Annotated[
        float, typer.Option(metavar="A", help="Probability that any correct model is refused by a FAIL.")
    ] = 1e-6,
    as_it_is: Annotated[bool, typer.Option("--as-it-is", help="Train nothing: models come trained.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure rows again that the --json FILE has.")] = False,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the leaderboard, row by row; the same call goes on from it."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that needs no network.")
    ] = None,
) -> int:
    """Rank models on a data set by what they give unseen draws; only models that conform are ranked.

    Each is trained, examined, asked for the log-density of every test row, and timed, in a process of its own: one that
    is missing, hangs or crashes costs its own row. Models whose NLL the test rows cannot tell apart are shown as ties.

    Exit status: 0 every model is ranked; 1 some are below the line; 2 the call was wrong; 130 interrupted.
    """
    from harness.calls import devices_in, seeds_in
    from harness.compare.command import Call
    from harness.compare.command import compare as run
    from harness.errors import CallError

    if not data:
        raise CallError("no data is given: name a set or a file with --data, such as --data iris")
    return run(
        Call(
            tuple(specs or ()),
            data,
            budget=budget,
            effort=effort,
            seed=seeds_in(seed),
            device=devices_in(device),
            workers=workers,
            scheduler=scheduler,
            timeout=timeout,
            memory=memory,
            alpha=alpha,
            as_it_is=as_it_is,
            fresh=fresh,
            json=json,
            html=html,
        )
    )

"""The commands `harness bench` and `harness regressions`: names, types and help; the work is imported late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SPECS_HELP = (
    "One model to be timed, or two to be compared: package.module:attr, path/to/file.py:attr, or a name that "
    "`harness models` lists."
)


def bench(
    specs: Annotated[list[str], typer.Argument(metavar="A [B]", help=SPECS_HELP, show_default=False)],
    commits: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="OLD NEW",
            help="Compare the model A at two commits of the repository around this folder; one examiner times both.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="log_prob|sample|fit|memory|nll",
            help="What is compared: seconds of a call, peak bytes of one, or nats per dimension on the same held-out "
            "events. Default: log_prob of two models, and all but fit and nll of one.",
            show_default=False,
        ),
    ] = "",
    n: Annotated[
        int | None, typer.Option(help="Rows of a call. Default: 1000, and 5000 for nll.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Events, a .npy or .pt file. Default: draws of the first model."),
    ] = None,
    policy: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="The difference that does not matter: a share, 0.05, or nats per dimension for nll, 0.005.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="AMBIGUOUS counts as a failure.")] = False,
    budget: Annotated[
        float, typer.Option(metavar="S", help="Seconds of timing in all; starting processes comes on top.")
    ] = 20.0,
    rounds: Annotated[int, typer.Option(help="Rounds, each with processes of its own; the interval is over them.")] = 5,
    clock: Annotated[
        str,
        typer.Option(
            metavar="wall|cpu",
            help="Seconds that pass, or those that the process has a processor: the latter on a busy machine, for work "
            "that neither waits nor sleeps.",
        ),
    ] = "wall",
    threads: Annotated[int, typer.Option(help="Threads of each process.")] = 1,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where models run.")] = "cpu",
    dtype: Annotated[
        str,
        typer.Option(metavar="float32|float64", help="Cast models to it. Default: as they are.", show_default=False),
    ] = "",
    seed: Annotated[int, typer.Option(help="All inputs follow from it.")] = 0,
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds without an answer after which a side hangs.")
    ] = 60.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all measurements and the verdict.")] = None,
) -> int:
    """Time a model, or compare two in turns and say which is faster and by how much.

    Both sides do the same work on the same inputs, in processes of their own that take turns (A B A A B A), and what
    they return is inspected. Each round starts new processes. The verdict holds the interval of the ratio against the
    policy and against what A differs by from itself, measured along the way: FASTER, SLOWER, SAME or AMBIGUOUS
    (SMALLER and LARGER of memory, BETTER and WORSE of nll). Differences beyond a factor of 2 are told as factors.

    Exit status: 0 B is the same, better, or it cannot be told; 1 B is slower, larger or worse, or a side failed; 2 the
    call was wrong.

    Examples:  harness bench gaussian.gaussian_64d  ·  harness bench old.py:Flow new.py:Flow --metric sample  ·
    harness bench model.py:Flow --commits main HEAD --strict
    """
    from harness.bench.bench import Call
    from harness.bench.bench import bench as benched

    call = Call(
        specs=tuple(specs),
        commits=tuple(commits or ()),
        **{"metric": metric, "n": n, "data": data, "policy": policy, "strict": strict, "budget": budget},  # type: ignore[arg-type]
        **{"rounds": rounds, "threads": threads, "clock": clock, "device": device, "dtype": dtype, "seed": seed},  # type: ignore[arg-type]
        **{"timeout": timeout, "json": json},  # type: ignore[arg-type]
    )
    return benched(call)


def regressions(
    history: Annotated[
        Path, typer.Argument(metavar="HISTORY", help="A results folder of asv: machines, and a file for each run.")
    ] = Path("results/asv"),
    alpha: Annotated[float, typer.Option(metavar="A", help="Probability that a history without a step fails.")] = 0.01,
    since: Annotated[
        str, typer.Option(metavar="COMMIT", help="Steps of this commit and later ones only: older ones are accepted.")
    ] = "",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="A file that cannot be read, or a step of all timings, counts as a failure."),
    ] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all that was found.")] = None,
) -> int:
    """Read a stored history and say where time, memory or NLL took a step that is beyond noise.

    A step is reported where it is larger than what does not matter (3 % of time or memory, 0.005 nats per dimension)
    and larger than the noise of its series explains, drift and disturbed runs included, at a stated level over all
    series together. The first commit of the new level is named; what could have been missed is stated. A timing needs
    five runs before a step can be seen at all, and fifteen before the newest run alone can show one. A step of all
    timings together may be the machine's: it is told, and fails with --strict. Where a commit was measured in two
    environments, the environment's part is told from the code's. A step that was taken back later does not fail; a
    value that is missing or not finite does.

    Exit status: 0 nothing got worse; 1 something did, and still is; 2 the call was wrong.

    Examples:  harness regressions  ·  harness regressions results/asv --since 3f2a91c --json steps.json
    """
    from harness.bench.regressions import regressions as judged

    return judged(history, alpha=alpha, since=since, strict=strict, json_path=json)

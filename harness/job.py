"""What a child process is asked to do: say which models a SPEC names, or examine one of them."""

from __future__ import annotations

import concurrent.futures.thread
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from harness.adapters import adapt
from harness.checks import CHECKS
from harness.checks.law import Check
from harness.effort import Effort, Settings
from harness.evidence import Raised, Record
from harness.examine import examine_model
from harness.judge import explain, judge
from harness.plan import plan, select
from harness.reproduce import Origin
from harness.resolve import SpecError, resolve
from harness.store import plain_record

Send = Callable[..., None]

LEFT_CLEAN = Check(
    id="process.left_clean",
    law="A model leaves no thread behind that would keep its program from ending.",
    why="Made only by the command line, which gives each model a process of its own, and listed only when it fails: "
    "when the examination is over, a thread that is no daemon and does not end is an ERROR. Idle workers of a "
    "concurrent.futures pool are allowed, since the interpreter stops them itself.",
    source="https://docs.python.org/3/library/threading.html#thread-objects",
    needs=(),
    blocked_by=(),
    unit="",
)


def laws() -> list[tuple[str, str, str, str]]:
    """Of every check its id, law, why, and source."""
    return [(check.id, check.law, check.why, check.source) for check in CHECKS]


def perform(request: dict[str, Any], send: Send) -> None:
    """Do what was requested; the answers are messages: models, refused, plan, at, record, end."""
    # One thread, so that sums come out the same on every machine and for every number of workers.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    os.chdir(request.get("folder", "."))  # of the command, where the job is done elsewhere
    sys.path.insert(0, os.getcwd())
    if request["job"] == "expand":
        _expand(request, send)
    elif request["job"] == "compare":
        from harness.compare.child import compare

        compare(request, send)
    else:
        _examine(request, send)
    send(end=True)


def _expand(request: dict[str, Any], send: Send) -> None:
    send(at=["import", 0])
    try:
        send(models=[[model.name, model.spec] for model in resolve(request["spec"])])
    except SpecError as error:
        send(refused=str(error))


def _examine(request: dict[str, Any], send: Send) -> None:
    checks = select(CHECKS, request["only"])
    send(plan=[[check.id, request["alpha"]] for check in checks])
    send(at=["import", 0])
    (named,) = resolve(request["spec"])
    send(at=["build", 0])
    dtype = getattr(torch, request["dtype"]) if request["dtype"] else None
    model = adapt(named.build(), request["name"], request["device"], dtype)
    alphas = request["alphas"]
    planned = [
        replace(item, alpha=alphas.get(item.check.id, item.alpha)) for item in plan(model, checks, request["alpha"])
    ]
    send(plan=[[item.check.id, item.alpha] for item in planned])
    settings = Settings(
        Effort(**request["effort"]),
        request["seed"],
        request["budget"],
        watch=lambda name, stage, n: send(at=[stage, n]),
    )
    origin = Origin(request["spec"], device=request["device"], dtype=request["dtype"])
    for record in examine_model(model, planned, settings, origin):
        send(record=plain_record(record))
    left = _threads_left()
    if left:
        send(record=plain_record(_left_behind(model.name, left)))


def _threads_left() -> list[str]:
    """Names of the threads that would keep the interpreter from ending."""
    pooled = getattr(concurrent.futures.thread, "_threads_queues", {})  # stopped by the interpreter when it ends
    main = threading.main_thread()
    left = [thread for thread in threading.enumerate() if not (thread is main or thread.daemon or thread in pooled)]
    for thread in left:
        thread.join(0.2)  # a moment for those that are about to end
    return [thread.name for thread in left if thread.is_alive()]


def _left_behind(name: str, threads: list[str]) -> Record:
    shown = ", ".join(threads[:3]) + (", ..." if len(threads) > 3 else "")
    evidence = Raised("LeftBehind", f"still running when all was done: {shown}; join threads that are no daemons")
    verdict = judge(evidence, 1.0)
    return Record(name, LEFT_CLEAN.id, verdict, evidence, 0.0, 0.0, explain(evidence, verdict, 1.0))

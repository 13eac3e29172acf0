"""Evidence to verdict: a pure function, so that stored evidence can be judged again at another level."""

from __future__ import annotations

import math

from harness.evidence import Absent, Estimated, Evidence, Exact, Raised, Verdict


def judge(evidence: Evidence, alpha: float) -> Verdict:
    """The verdict on `evidence` when a false alarm may happen with probability `alpha`.

    Comparisons are written so that NaN never passes.
    """
    match evidence:
        case Raised():
            return Verdict.ERROR
        case Absent():
            return Verdict.SKIP
        case Exact(error=error, allowed=allowed, uncertainty=uncertainty):
            if error + uncertainty <= allowed:
                return Verdict.PASS
            return Verdict.INCONCLUSIVE if error - uncertainty <= allowed else Verdict.FAIL
        case Estimated() as seen:
            if not seen.log_e < -math.log(alpha):
                return Verdict.FAIL
            return Verdict.PASS if seen.last.bound <= seen.tolerance else Verdict.INCONCLUSIVE
    raise TypeError(f"no verdict on {type(evidence).__name__}")


def explain(evidence: Evidence, verdict: Verdict, alpha: float) -> str:
    """One sentence that says what was seen and what it excludes."""
    match evidence:
        case Raised(kind=kind, message=message):
            return f"{kind}: {message}"
        case Absent(reason=reason):
            return reason
        case Exact() as seen:
            where = f" at {seen.where}" if seen.where else ""
            against = "<=" if verdict is Verdict.PASS else ">" if verdict is Verdict.FAIL else "not clearly <="
            return f"error {seen.error:.3g} {against} {seen.allowed:.3g} allowed{_unit(seen.unit)}{where}"
        case Estimated() as seen:
            return _explain_estimate(seen, verdict, alpha)
    raise TypeError(f"no explanation of {type(evidence).__name__}")


def _explain_estimate(seen: Estimated, verdict: Verdict, alpha: float) -> str:
    last = seen.last
    where = f" in {seen.where}" if seen.where else ""
    interval = f"[{last.low:+.3g}, {last.high:+.3g}]{_unit(seen.unit)}"
    if verdict is Verdict.FAIL:
        return (
            f"deviation {last.estimate:+.3g} in {interval}{where} after {last.n:,} draws; "
            f"evidence 10^{seen.log_e / math.log(10):.1f} against the law, {-math.log10(alpha):.1f} needed"
        )
    if verdict is Verdict.PASS:
        return f"any defect is below {last.bound:.2g}{_unit(seen.unit)} ({seen.confidence:.1%} sure, {last.n:,} draws)"
    return (
        f"undecided after {last.n:,} draws: deviation within {interval}{where}, "
        f"while a PASS needs at most {seen.tolerance:.2g}"
    )


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""

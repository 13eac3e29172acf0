"""What is stored is what was seen: exact round trips, a published schema, whole files or none, clear refusals."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields, replace

import jsonschema
import pytest
import torch

from harness import Effort, Report, check_model, store
from harness.evidence import Absent, Carried, Cell, Estimated, Exact, Look, Raised, Record, Reproducer, Verdict
from harness.judge import judge
from harness.report import Law, Run

VALIDATOR = jsonschema.Draft202012Validator(store.schema())
LOOKS = (Look(100, -0.25, -0.5, 0.0, 1.5, 3), Look(200, 0.1, -math.inf, math.inf, math.inf))
CELLS = (Cell("[0, ½)", 0.5, 0.25), Cell("</script>", 0.5, 0.75))
CARRIED = Carried(-0.25, 300, (0, 299), (0.1, -math.inf), (5e-324, math.inf), (-0.1, 1e300), (0.0, 1.0))
EVIDENCE = {
    "exact": Exact(math.inf, 5e-324, 7, "x = −1", "nat", 1e300),
    "estimated": Estimated(LOOKS, 0.05, 0.999, "probability", "tail", 4, True, CELLS),
    "gone_on": Estimated(LOOKS, 0.05, 0.999, "probability", carried=CARRIED),
    "absent": Absent("blocked: a.b did not pass", "a.b"),
    "raised": Raised("KeyError", "lone \ud800, NUL \x00 and\nnewline", 'File "<model>"'),
}


def record(evidence, **changes) -> Record:
    plainly = Record("m", "a.b", judge(evidence, 1e-8), evidence, 1e-8, 0.125, "what was seen")
    return replace(plainly, **changes)


class Shifted:
    """Draws around 0.3, a density around 0."""

    def sample(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return 0.3 + torch.randn(n, generator=generator)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return -(x**2) / 2 - math.log(2 * math.pi) / 2


@pytest.fixture(scope="module")
def real() -> Report:
    """A run of the real examiner on a model that breaks a law; one FAIL is labelled, with a note in its message."""
    report = check_model(Shifted(), effort="quick", name="shifted")
    first, *_ = report.failures
    noted = replace(first, label="precision", message=first.message + ". A note.")
    return replace(report, records=tuple(noted if r is first else r for r in report.records))


@pytest.fixture
def report(real: Report) -> Report:
    """Real records, and one of each kind of evidence with awkward numbers and text."""
    made = [record(seen, check=f"odd.{name}") for name, seen in EVIDENCE.items()]
    full = replace(made[1], label="precision", expected="known", reproducer=Reproducer("harness check x", "print()", 5))
    return replace(real, records=(*real.records, *made, replace(full, check="odd.full")), unmatched={"no.check": "why"})


def test_a_report_comes_back_exactly(report: Report, tmp_path):
    report.to_json(tmp_path / "r.json")
    assert Report.read(tmp_path / "r.json") == report


def test_a_not_a_number_comes_back():
    back = store.loaded_record(json.loads(json.dumps(store.plain_record(record(Exact(math.nan, 0.0, 1))))))
    assert math.isnan(back.evidence.error)
    assert back.verdict is Verdict.FAIL


def test_the_file_is_strict_json_that_conforms_to_the_published_schema(report: Report):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = store.dumps(report)
    VALIDATOR.validate(json.loads(text, parse_constant=refuse))
    assert text.isascii()


def test_the_schema_is_itself_a_schema():
    jsonschema.Draft202012Validator.check_schema(store.schema())


DESCRIBED = [*store.TYPES.items(), ("look", Look), ("cell", Cell), ("carried", Carried), ("reproducer", Reproducer)]
DESCRIBED += [("run", Run), ("effort", Effort), ("law", Law)]


@pytest.mark.parametrize(("name", "of"), DESCRIBED)
def test_the_schema_names_every_field(name, of):
    described = set(store.schema()["$defs"][name]["properties"]) - ({"type"} if name in store.TYPES else set())
    assert described == {field.name for field in fields(of)}


def test_every_record_has_the_fixed_fields(report: Report):
    fixed = {"model", "check", "verdict", "statistic", "bound", "n_samples", "seconds", "message"}
    for line in json.loads(store.dumps(report))["records"]:
        assert fixed <= set(line)


def test_a_report_without_anything_to_go_on_from_is_as_it_was_in_version_1_0(report: Report):
    older = replace(report, records=tuple(map(without_carried, report.records)))
    told = json.loads(store.dumps(older))
    assert told["schema_version"] == "1.0"
    assert not any("carried" in line["evidence"] for line in told["records"])
    assert store.loads(store.dumps(older)) == older
    assert json.loads(store.dumps(report))["schema_version"] == "1.1"


def without_carried(made: Record) -> Record:
    seen = made.evidence
    return replace(made, evidence=replace(seen, carried=None)) if isinstance(seen, Estimated) else made


@pytest.mark.parametrize("kept", [(0,), (0, 0), (1, 0), (-1, 2), (0, 300)])
def test_sums_that_have_no_place_are_refused(kept):
    text = json.dumps(store.plain_record(record(EVIDENCE["gone_on"])))
    damaged = json.loads(text)
    assert store.loaded_record(damaged).evidence == EVIDENCE["gone_on"]
    damaged["evidence"]["carried"]["kept"] = list(kept)
    with pytest.raises(ValueError, match=r"record\.evidence\.carried has not one sum of each kind for each place"):
        store.loaded_record(damaged)


DAMAGE = {
    "records[0].verdict": lambda d: d["records"][0].update(verdict="MAYBE"),
    "records[0].seconds": lambda d: d["records"][0].update(seconds="long"),
    "records[0].n_samples": lambda d: d["records"][0].pop("n_samples"),
    "records[0].colour": lambda d: d["records"][0].update(colour="red"),
    "records[0].evidence.type": lambda d: d["records"][0]["evidence"].update(type="guess"),
    "records[0].evidence.n": lambda d: d["records"][0]["evidence"].update(n=True),
    "records is not a list": lambda d: d.update(records={}),
    "run.seed": lambda d: d["run"].update(seed=1.5),
    "run.effort.draws": lambda d: d["run"]["effort"].pop("draws"),
    "laws['odd']": lambda d: d["laws"].update(odd=3),
    "unmatched": lambda d: d.pop("unmatched"),
}


@pytest.mark.parametrize("where", DAMAGE)
def test_a_file_that_does_not_conform_is_refused_by_the_reader_and_by_the_schema(where, report: Report):
    data = json.loads(store.dumps(report))
    DAMAGE[where](data)
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(ValueError, match="does not conform to schema") as refusal:
        store.loads(json.dumps(data))
    assert where in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_path_without_a_look_is_refused(report: Report):
    data = json.loads(store.dumps(report))
    stored = next(line for line in data["records"] if line["check"] == "odd.estimated")
    stored["evidence"]["path"] = []
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(ValueError, match="path is empty"):
        store.loads(json.dumps(data))


@pytest.mark.parametrize("field", ["statistic", "bound", "n_samples"])
def test_a_number_that_was_changed_by_hand_is_noticed(field, report: Report):
    data = json.loads(store.dumps(report))
    data["records"][0][field] = 12345
    with pytest.raises(ValueError, match=rf"records\[0\]\.{field} is 12345, but its evidence says otherwise"):
        store.loads(json.dumps(data))


def test_an_answer_that_was_changed_by_hand_is_noticed(report: Report):
    data = json.loads(store.dumps(report))
    data["passed"] = True
    with pytest.raises(ValueError, match="passed or counts disagree"):
        store.loads(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is truncated"),
        ("hello", "is not JSON"),
        ("[1, 2]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": "0.9"}', "has schema version '0.9', this harness reads 1.0 and 1.1"),
        ('{"schema_version": 1.0}', "has schema version 1.0"),
        ('{"schema_version": NaN}', "not strict JSON: it holds NaN"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line_that_names_the_fix(text, message, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        Report.read(path)
    assert str(path) in str(refusal.value)
    assert "harness check" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_cut_anywhere_is_refused(report: Report):
    text = store.dumps(report).rstrip()
    for end in range(0, len(text), 997):
        with pytest.raises(ValueError, match=r"is truncated|is not JSON"):
            store.loads(text[:end])


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("b.json", "not UTF-8"), ("none.json", "No such file"), (".", "directory")):
        with pytest.raises(ValueError, match=message):
            Report.read(tmp_path / name)


def test_an_unwritable_path_is_one_line_and_leaves_everything_as_it_was(report: Report, tmp_path):
    (tmp_path / "file").write_text("kept")
    cases = {tmp_path / "no" / "r.json": "does not exist; create it", tmp_path / "file" / "r.json": "not a folder"}
    cases[tmp_path] = "it is a folder"
    for path, message in cases.items():
        for attempt in (report.to_json, store.check_writable):
            with pytest.raises(OSError, match=message) as refusal:
                attempt(path)
            assert "\n" not in str(refusal.value)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "kept"}


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_other(report: Report, tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space is left"):
        report.to_json(path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"r.json": "old"}


def test_a_write_replaces_what_a_link_points_to_and_keeps_no_neighbour(report: Report, tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    store.check_writable(tmp_path / "link.json")
    assert (tmp_path / "real.json").read_text() == "old"
    report.to_json(tmp_path / "link.json")
    assert Report.read(tmp_path / "real.json") == report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_a_device_is_written_to_and_not_replaced(report: Report):
    report.to_json("/dev/null")
    assert not os.path.isfile("/dev/null")


def test_a_report_holds_plain_values_only():
    with pytest.raises(TypeError, match="plain numbers and text only, not Tensor"):
        store.plain({"x": torch.ones(3)})


def test_numbers_of_other_libraries_become_plain():
    import numpy as np

    assert store.plain((np.float32(0.5), np.int64(3), np.float64(math.inf))) == [0.5, 3, "inf"]


# ------------------------------------------------------------------------------------------------ judged again


def test_stored_evidence_is_judged_again_without_the_model(real: Report):
    statistical = [r for r in real.failures if isinstance(r.evidence, Estimated)]
    failing = min(statistical, key=lambda r: r.evidence.log_e)
    too_strict = math.exp(-failing.evidence.log_e) * real.run.alpha / failing.alpha / 10
    again = store.judged_again(real, too_strict)
    for before, after in zip(real.records, again.records, strict=True):
        assert after.verdict is judge(before.evidence, after.alpha)
        assert after.evidence == before.evidence
    changed = again.records[real.records.index(failing)]
    assert changed.verdict is not Verdict.FAIL
    assert (changed.label, changed.reproducer) == ("", None)


def test_judging_again_at_the_same_level_changes_nothing(real: Report):
    assert any(r.message.endswith("A note.") for r in real.records)
    assert store.judged_again(real, real.run.alpha) == real


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_a_level_that_is_no_probability_is_refused(alpha, real: Report):
    with pytest.raises(ValueError, match="give a probability"):
        store.judged_again(real, alpha)

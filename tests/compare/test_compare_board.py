"""The file of a leaderboard: strict, whole, shared by runs, and refused where it is something else."""

import json
import multiprocessing

import pytest

from harness.compare.board import board_of, enter, kept_rows, key_of, read
from harness.errors import CallError

DATA = {"name": "x", "d": 2, "entropy_ceiling_nats": None, "frontier_nats": None, "fingerprint": "f"}
RUN = {"seed": 0, "device": "cpu"}


def row(name: str, key: str = "k") -> dict:
    return {"name": name, "spec": f"m.py:{name}", "key": key, "trouble": "", "points": [1.0, 2.0, 4.0]}


def refuse(name: str) -> float:
    raise AssertionError(name)


def test_what_is_written_is_strict_json_and_read_back(tmp_path):
    path = tmp_path / "b.json"
    board = enter(path, [row("a"), row("b")], DATA, RUN, fresh=False)
    assert json.loads(path.read_text(), parse_constant=refuse) == json.loads(json.dumps(read(path))) == board
    assert board["columns"]["nll"] == {"unit": "nats per row of the data", "direction": "lower is better"}


def test_a_row_takes_the_place_of_its_spec(tmp_path):
    path = tmp_path / "b.json"
    enter(path, [row("a"), row("b")], DATA, RUN, fresh=False)
    again = enter(path, [row("a", key="new")], DATA, RUN, fresh=False)
    assert {each["name"]: each["key"] for each in again["rows"]} == {"a": "new", "b": "k"}
    assert [each["name"] for each in enter(path, [row("c")], DATA, RUN, fresh=True)["rows"]] == ["c"]


def test_rows_made_otherwise_are_measured_again(tmp_path):
    path = tmp_path / "b.json"
    enter(path, [row("a"), row("b", key="other")], DATA, RUN, fresh=False)
    assert [each["name"] for each in kept_rows(path, DATA, RUN, "k")] == ["a"]
    assert kept_rows(None, DATA, RUN, "k") == kept_rows(tmp_path / "none.json", DATA, RUN, "k") == []


def test_a_key_is_of_the_data_and_of_every_setting():
    keys = {key_of({"fingerprint": f}, {"seed": s, "budget": b}) for f in "ab" for s in (0, 1) for b in (1.0, 2.0)}
    assert len(keys) == 8


@pytest.mark.parametrize("text", ["", "{", '{"what": "else"}', "[]", '{"rows": [NaN]}', '{"what": "harness compare"}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(CallError, match="name another file"):
        kept_rows(path, DATA, RUN, "k")


def test_a_file_about_other_data_is_refused(tmp_path):
    path = tmp_path / "b.json"
    enter(path, [row("a")], DATA, RUN, fresh=False)
    with pytest.raises(CallError, match="about other data"):
        kept_rows(path, {**DATA, "fingerprint": "g"}, RUN, "k")


@pytest.mark.parametrize(
    "damage",
    [
        {"data": 3},
        {"data": {}},
        {"rows": ["text"]},
        {"rows": [{"key": "k"}]},
        {"rows": [{**row("b"), "points": "text"}]},
        {"rows": [{**row("b"), "certificate": 3}]},
    ],
)
def test_a_file_whose_parts_are_of_another_form_is_damaged(tmp_path, damage):
    path = tmp_path / "b.json"
    board = enter(path, [row("a")], DATA, RUN, fresh=False)
    path.write_text(json.dumps({**board, **damage}))
    with pytest.raises(CallError, match=r"is damaged.*--fresh"):
        kept_rows(path, DATA, RUN, "k")


def test_a_run_on_other_data_at_the_same_time_does_not_mix_in(tmp_path):
    path = tmp_path / "b.json"
    enter(path, [row("a")], DATA, RUN, fresh=False)
    with pytest.raises(CallError, match="about other data"):
        enter(path, [row("b")], {**DATA, "fingerprint": "g"}, RUN, fresh=False)
    assert [each["name"] for each in read(path)["rows"]] == ["a"]


def test_a_row_with_a_trouble_is_made_again(tmp_path):
    path = tmp_path / "b.json"
    enter(path, [row("a"), {**row("b"), "trouble": "there is no module 'b'"}], DATA, RUN, fresh=False)
    assert [each["name"] for each in kept_rows(path, DATA, RUN, "k")] == ["a"]


def write_rows(path, names):
    for name in names:
        enter(path, [row(name)], DATA, RUN, fresh=False)


def test_two_writers_at_once_lose_no_row(tmp_path):
    path = tmp_path / "b.json"
    fork = multiprocessing.get_context("fork")
    names = [[f"{which}{i}" for i in range(15)] for which in "ab"]
    writers = [fork.Process(target=write_rows, args=(path, mine)) for mine in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert sorted(each["name"] for each in read(path)["rows"]) == sorted(names[0] + names[1])
    assert [other.name for other in tmp_path.iterdir()] == ["b.json"]


def test_the_false_alarms_of_rows_add_up():
    rows = [{**row(name), "certificate": {"alpha": 1e-7, "passed": True, "counts": {}, "records": []}} for name in "ab"]
    assert board_of(rows, DATA, RUN)["run"]["alpha"] == pytest.approx(2e-7)

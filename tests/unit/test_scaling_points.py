"""Points: columns, what is filled in, what is refused, and the table they are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmwright.errors import ConfigError, DataError
from lmwright.scaling.points import Points, join, logs_of, read_csv


def some(**changes: object) -> Points:
    given = {"parameters": [1e6, 2e6, 4e6], "tokens": [1e8, 2e8, 3e8], "loss": [4.0, 3.5, 3.2]}
    return Points.of(**{**given, "convention": "kaplan", **changes})


def write(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_left_out_is_filled_in():
    points = some()
    assert points.flops.tolist() == [6e14, 2.4e15, 7.2e15]
    assert points.unique_tokens.tolist() == points.tokens.tolist()
    assert len(set(points.run)) == len(points) == 3
    assert points.finished.all()
    assert (points.metric, points.convention) == ("nats/token", "kaplan")
    assert all(getattr(points, name).dtype == np.float64 for name in ("parameters", "tokens", "loss", "flops"))


def test_columns_cannot_be_altered_and_are_copies():
    given = np.array([4.0, 3.5, 3.2])
    points = some(loss=given)
    given[0] = 9.0
    assert points.loss[0] == 4.0
    for column in (points.loss, points.finished, points.take([0, 1]).tokens):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_logarithms_are_natural_and_of_columns_alone():
    assert some().log("tokens").tolist() == np.log([1e8, 2e8, 3e8]).tolist()
    assert list(some().logs(("tokens", "flops"))) == ["tokens", "flops"]
    with pytest.raises(ConfigError, match=r"no column 'token' \(did you mean tokens\?\)"):
        some().log("token")


def test_rows_are_taken_by_mask_or_place_with_all_that_is_theirs():
    points = some(run=["a", "b", "a"], finished=[True, False, True])
    by_mask, by_place = points.take(points.finished), points.take([2, 0])
    assert by_mask.run == ("a", "a")
    assert by_mask.loss.tolist() == [4.0, 3.2]
    assert by_place.loss.tolist() == [3.2, 4.0]
    assert by_place.flops.tolist() == [7.2e15, 6e14]
    with pytest.raises(ConfigError, match="no row is left"):
        points.take([False, False, False])


def test_runs_are_clusters_in_order_of_appearance():
    runs, places = some(run=["late", "early", "late"]).clusters()
    assert runs == ("late", "early")
    assert places.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": [4.0, 3.5]}, "loss has shape"),
        ({"loss": [4.0, 0.0, 3.0]}, r"loss 0.0 in row 2"),
        ({"tokens": [1e8, float("nan"), 1e8]}, r"tokens nan in row 2"),
        ({"parameters": [1e6, 2e6, float("inf")]}, "row 3"),
        ({"unique_tokens": [1e8, 2e8, 4e8]}, "row 3 has more unique tokens"),
        ({"run": ["a", "b"]}, "3 rows, but 2 runs"),
        ({"finished": [True]}, "1 marks"),
        ({"convention": "chinchila"}, r"did you mean chinchilla\?"),
        ({"parameters": [], "tokens": [], "loss": []}, "shape"),
        ({"loss": [4.0, 1e300, 3.0]}, r"loss 1e\+300 in row 2; must be positive and finite, from 1e-12 to 1e\+12"),
        ({"loss": [4.0, 1e-300, 3.0]}, "loss 1e-300 in row 2"),
        ({"parameters": [1e300, 1e6, 1e6], "tokens": [1e300, 1e8, 1e8]}, r"parameters 1e\+300 in row 1"),
        ({"family": ["llama"]}, "3 rows, but 1 values of family"),
        ({"context": [512, 512]}, "context must be a whole number of tokens for each of 3 points"),
        ({"context": [512, 0.5, 512]}, "context must be a whole number"),
        ({"context": [512, -1, float("nan")]}, "context must be a whole number"),
    ],
)
def test_columns_that_are_none_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        some(**changes)


def test_points_join_if_they_are_of_one_kind():
    whole = join([some(run=["a", "b", "c"]), some(run=["a", "d", "e"], loss=[5.0, 6.0, 7.0])])
    assert whole.loss.tolist() == [4.0, 3.5, 3.2, 5.0, 6.0, 7.0]
    assert len(whole.clusters()[0]) == 5
    with pytest.raises(ConfigError, match=r"mixed conventions \(kaplan, chinchilla\)"):
        join([some(), some(convention="chinchilla")])
    with pytest.raises(ConfigError, match=r"mixed metrics \(nats/token, bits/byte\)"):
        join([some(), some(metric="bits/byte")])
    with pytest.raises(ConfigError, match="nothing to join"):
        join([])


def test_a_table_is_read_by_either_name_of_a_column(tmp_path):
    text = "N,D,val_loss,U,C,run,finished\n1e6,1e8,4.0,5e7,6.5e14,a,true\n2e6,2e8,3.5,2e8,2.4e15,b,0\n"
    points = read_csv(write(tmp_path, text), convention="chinchilla", metric="bits/byte")
    assert points.unique_tokens.tolist() == [5e7, 2e8]
    assert points.flops.tolist() == [6.5e14, 2.4e15]
    assert points.run == ("a", "b")
    assert points.finished.tolist() == [True, False]
    assert points.metric == "bits/byte"


def test_convention_and_metric_of_a_table_are_one_and_agree_with_the_callers(tmp_path):
    head = "parameters,tokens,loss,convention,metric\n"
    row = "1e6,1e8,4.0,kaplan,bits/byte\n"
    points = read_csv(write(tmp_path, head + row))
    assert (points.convention, points.metric) == ("kaplan", "bits/byte")
    with pytest.raises(ConfigError, match="mixed conventions"):
        read_csv(write(tmp_path, head + row), convention="chinchilla")
    with pytest.raises(ConfigError, match="mixed conventions"):
        read_csv(write(tmp_path, head + row + "1e6,1e8,4.0,chinchilla,bits/byte\n"))
    with pytest.raises(ConfigError, match="mixed metrics"):
        read_csv(write(tmp_path, head + row + "1e6,1e8,4.0,kaplan,nats/token\n"))
    with pytest.raises(ConfigError, match="convention 'other'"):
        read_csv(write(tmp_path, head + "1e6,1e8,4.0,other,nats\n"))
    with pytest.raises(ConfigError, match="says not how parameters are counted"):
        read_csv(write(tmp_path, "N,D,loss\n1e6,1e8,4.0\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("N,D,loss\n", "no row below its header"),
        ("N,D\n1,2\n", ":1: no column for loss"),
        ("N,D,loss,n\n1,2,3,4\n", "names a column twice"),
        ("N,D,loss,seed\n1,2,3,4\n", ":1: column 'seed'"),
        ("N,D,loss\n1e6,1e8\n", ":2: 2 values, the header has 3"),
        ("N,D,loss\n1e6,1e8,3\n1e6,x,3\n", ":3: tokens 'x' is no number"),
        ("N,D,loss\n1e6,1e8,nan\n", ":2: loss 'nan'; must be positive"),
        ("N,D,loss\n1e6,-1,3\n", ":2: tokens '-1'; must be positive"),
        ("N,D,loss,finished\n1e6,1e8,3,maybe\n", ":2: finished 'maybe'"),
        ("N,D,loss\n1e6,1e8,1e300\n", r":2: loss '1e300'; must be positive and finite, from 1e-12 to 1e\+12"),
        ("N,D,loss\n1e6,1e8,1e-300\n", ":2: loss '1e-300'"),
        ("N,D,loss,context\n1e6,1e8,3,5e2\n", ":2: context '5e2'; must be a whole number of tokens"),
        ("N,D,loss,context\n1e6,1e8,3," + 5000 * "0" + "\n", ":2: context '0"),
        ('N,D,loss\n1e6,1e8,"3\n', "no comma-separated table"),
    ],
)
def test_a_damaged_table_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_csv(write(tmp_path, text), convention="chinchilla")


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_csv(tmp_path / "none.csv", convention="chinchilla")
    (tmp_path / "binary.csv").write_bytes(b"N,D,loss\n\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_csv(tmp_path / "binary.csv", convention="chinchilla")


def test_plain_columns_become_logarithms():
    assert logs_of({"tokens": 1e9})["tokens"].tolist() == [np.log(1e9)]
    with pytest.raises(ConfigError, match="one number for each of 2"):
        logs_of({"tokens": [1e9, 2e9], "parameters": [1e6]})
    with pytest.raises(ConfigError, match="positive"):
        logs_of({"tokens": [0.0]})


@pytest.mark.parametrize("wrong", ["many", [1e9, "x"], [[1e9], [1e9, 2e9]], None, 10**400])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"^points: tokens .*; must be a number, or a list of them$|positive"):
        logs_of({"tokens": wrong})
    if wrong is not None:
        for name in ("tokens", "flops", "context"):
            with pytest.raises(ConfigError, match=rf"^points: {name} .*; must be a number, or a list of them$"):
                some(**{name: wrong})


def test_labels_go_with_their_rows(tmp_path):
    points = some(family=["llama", "lstm", "llama"], domain=["code", "", "law"])
    assert points.labels("family") == ("llama", "lstm")
    assert points.take([2, 1]).domain == ("law", "")
    whole = join([points, some()])
    assert whole.family == ("llama", "lstm", "llama", "", "", "")
    assert whole.labels("domain") == ("code", "", "law")
    read = read_csv(
        write(tmp_path, "N,D,loss,family,domain\n1e6,1e8,4,lstm,code\n2e6,2e8,3,,law\n"), convention="kaplan"
    )
    assert (read.family, read.domain) == (("lstm", ""), ("code", "law"))
    assert some().family == ("", "", "")


def test_contexts_go_with_their_rows_and_need_not_be_known(tmp_path):
    points = some(context=[512, 0, 1024])
    assert points.take([2, 1]).context.tolist() == [1024, 0]
    assert join([points, some()]).context.tolist() == [512, 0, 1024, 0, 0, 0]
    read = read_csv(write(tmp_path, "N,D,loss,context\n1e6,1e8,4,512\n2e6,2e8,3,0\n"), convention="kaplan")
    assert read.context.tolist() == [512, 0]


def test_rows_of_two_files_that_name_no_run_are_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("parameters,tokens,loss\n1e6,1e7,3\n2e6,1e7,2.9\n")
    both = join([read_csv(tmp_path / f"{name}.csv", convention="kaplan") for name in ("a", "b")])
    assert len(set(both.run)) == 4

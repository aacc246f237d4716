"""Tables: car prices obey their rule, scikit-learn's data arrive unchanged, a CSV is read as its owner meant."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import dl_course as dl
from dl_course.data import CSV, BreastCancer, CarPrices, Diabetes, TwoMoons, car_prices
from dl_course.data.tabular import CAR_BIAS, CAR_WEIGHTS, TableEncoder
from dl_course.errors import ConfigError

# Embedded


def test_the_rule_of_the_car_prices_prices_the_lecture_s_cars():
    cars = torch.tensor([[120_000.0, 10], [15_000, 2], [58_000, 8]])
    prices = CAR_BIAS + cars @ torch.tensor(CAR_WEIGHTS)
    torch.testing.assert_close(prices, torch.tensor([9_600.0, 21_600, 13_600]), atol=50, rtol=0)


def test_least_squares_recovers_the_weights_of_the_car_prices():
    x, y = (part.double() for part in car_prices(5_000, seed=3, noise=1000.0))
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    weights = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    residual = y - design @ weights
    errors = (residual.var() * torch.linalg.inv(design.T @ design).diagonal()).sqrt()
    truth = torch.tensor([*CAR_WEIGHTS, CAR_BIAS], dtype=torch.float64)
    assert ((weights - truth).abs() < 3 * errors).all()
    assert float(residual.std()) == pytest.approx(1000, rel=0.05)


def test_without_noise_the_rule_is_exact_and_the_seed_decides_the_cars():
    x, y = car_prices(101, seed=1, noise=0.0)
    torch.testing.assert_close(y, CAR_BIAS + x @ torch.tensor(CAR_WEIGHTS))
    assert torch.equal(car_prices(101, seed=1, noise=0.0)[0], x)
    assert not torch.equal(car_prices(101, seed=2, noise=0.0)[0], x)
    assert float(car_prices(100_000)[1].min()) > 0


@pytest.mark.parametrize(
    ("data", "reference"),
    [(Diabetes(), load_diabetes(return_X_y=True, scaled=False)), (BreastCancer(), load_breast_cancer(return_X_y=True))],
    ids=["diabetes", "cancer"],
)
def test_rows_are_scikit_learn_s_and_scaled_as_its_standard_scaler_does(data, reference):
    raw = {name: data.raw(name) for name in data.splits}
    x = torch.cat([split.x for split in raw.values()])
    y = torch.cat([split.y for split in raw.values()])
    ours = sorted([*row, target] for row, target in zip(x.tolist(), y.tolist()))
    theirs = sorted(np.column_stack(reference).astype(np.float32).tolist())
    assert ours == theirs
    scaler = StandardScaler().fit(raw["train"].x.double().numpy())
    expected = np.asarray(scaler.transform(raw["test"].x.double().numpy()))
    np.testing.assert_allclose(data.tensors("test").x.numpy(), expected, atol=1e-5)
    assert data.raw("train").y.dtype == torch.float32
    assert len(data.feature_names) == data.num_features


def test_facts_of_the_embedded_tables():
    assert (CarPrices().num_features, CarPrices().num_outputs, CarPrices().num_classes) == (2, 1, 0)
    assert (Diabetes().shape, Diabetes().target_names) == ((10,), ["progression"])
    assert (BreastCancer().num_classes, BreastCancer().num_outputs) == (2, 1)
    assert (TwoMoons().num_classes, TwoMoons().num_outputs) == (2, 2)
    assert TwoMoons().raw("train").y.dtype == torch.int64


def test_normalize_false_leaves_the_numbers():
    data = CarPrices(normalize=False)
    assert torch.equal(data.tensors("train").x, data.raw("train").x)


def test_a_constant_feature_becomes_zero_not_infinite():
    x = torch.tensor([[5e6, 1.0], [5e6, 3.0]])
    fitted = TwoMoons().statistics(x)
    assert fitted is not None
    mean, std = fitted
    torch.testing.assert_close((x - mean) / std, torch.tensor([[0.0, -1.0], [0.0, 1.0]]).double())


# CSV


@pytest.fixture
def houses() -> pd.DataFrame:
    """120 houses with gaps, a rare word, a constant column and a name for each."""
    rng = np.random.default_rng(0)
    n = 120
    frame = pd.DataFrame(
        {
            "area": rng.normal(100, 30, n).round(1),
            "rooms": rng.integers(1, 7, n).astype(float),
            "town": rng.choice(["Bonn", "Köln", "Trier"], n, p=[0.6, 0.3, 0.1]),
            "garden": rng.choice([True, False], n),
            "country": "DE",
            "owner": [f"owner {i}" for i in range(n)],
        }
    )
    frame["price"] = 1000 * frame["area"] + rng.normal(0, 100, n)
    frame.loc[rng.choice(n, 10, replace=False), "area"] = np.nan
    frame.loc[rng.choice(n, 10, replace=False), "town"] = None
    return frame


def write(frame: pd.DataFrame, folder: Path, **options) -> str:
    path = folder / "table.csv"
    frame.to_csv(path, index=False, **options)
    return str(path)


def test_the_encoder_equals_scikit_learn_s_imputers_and_one_hot_encoder(houses):
    train, test = houses[:80], houses[80:].copy()
    test.iloc[0, test.columns.get_loc("town")] = "Aachen"  # unknown in training
    numbers, words = ["area", "rooms"], ["town"]
    gap: Any = None
    reference: Any = make_column_transformer(
        (SimpleImputer(strategy="median"), numbers),
        (
            make_pipeline(
                SimpleImputer(strategy="most_frequent", missing_values=gap),
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            ),
            words,
        ),
    )
    columns = numbers + words
    objects = train[columns].astype({"town": object}).replace({np.nan: None}).astype({"area": float, "rooms": float})
    reference.fit(objects)
    later = test[columns].astype({"town": object}).replace({np.nan: None}).astype({"area": float, "rooms": float})
    encoder = TableEncoder().fit(train[columns])
    assert encoder.feature_names == ["area", "rooms", "town=Bonn", "town=Köln", "town=Trier"]
    for ours, theirs in [(train, objects), (test, later)]:
        np.testing.assert_allclose(encoder.encode(ours).numpy(), reference.transform(theirs), rtol=1e-6)
    assert encoder.encode(test)[0, 2:].tolist() == [0, 0, 0]


def test_a_csv_end_to_end(houses, tmp_path):
    data = CSV(path=write(houses, tmp_path), target="price")
    assert [len(data.raw(name).x) for name in data.splits] == [72, 24, 24]
    assert data.feature_names == [
        "area", "rooms", "town=Bonn", "town=Köln", "town=Trier", "garden=False", "garden=True"
    ]  # fmt: skip
    assert (data.num_features, data.shape, data.num_outputs, data.num_classes) == (7, (7,), 1, 0)
    assert (data.kind, data.loss, data.metrics) == ("regression", "mse", ["rmse", "mae", "r2"])
    assert any("'country': one value only" in note for note in data.notes)
    assert any("'owner': " in note for note in data.notes)
    x, y = data.tensors("train")
    assert torch.isfinite(x).all()
    assert sorted(torch.cat([data.raw(name).y for name in data.splits]).tolist()) == sorted(
        houses["price"].astype("float32").tolist()
    )
    assert y.dtype == torch.float32


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(houses, tmp_path, separator):
    data = CSV(path=write(houses, tmp_path, sep=separator), target="price")
    assert data.num_features == 7


@pytest.mark.parametrize(
    ("values", "kind", "dtype", "names"),
    [
        ([0, 1] * 30, "binary", torch.float32, ["0", "1"]),
        (["no", "yes"] * 30, "binary", torch.float32, ["no", "yes"]),
        ([True, False] * 30, "binary", torch.float32, ["False", "True"]),
        (["a", "b", "c"] * 20, "multiclass", torch.int64, ["a", "b", "c"]),
        ([3, 5, 7] * 20, "multiclass", torch.int64, ["3", "5", "7"]),
        ([3.5, 5, 7] * 20, "regression", torch.float32, []),
        (list(range(60)), "regression", torch.float32, []),
    ],
)
def test_the_task_is_inferred_from_the_target(tmp_path, values, kind, dtype, names):
    frame = pd.DataFrame({"a": np.arange(60) % 7, "y": values})
    data = CSV(path=write(frame, tmp_path), target="y")
    assert (data.kind, data.class_names) == (kind, names)
    assert data.num_outputs == {"binary": 1, "regression": 1, "multiclass": 3}[kind]
    assert data.loss == {"binary": "bce", "regression": "mse", "multiclass": "cross_entropy"}[kind]
    assert data.raw("train").y.dtype == dtype
    if names:
        counts = torch.bincount(data.raw("test").y.long())
        assert counts.tolist() == [12 // len(names)] * len(names)


def test_the_task_can_be_said(tmp_path):
    path = write(pd.DataFrame({"a": np.arange(60) % 7, "y": [0, 1] * 30}), tmp_path)
    assert CSV(path=path, target="y", task="multiclass").raw("train").y.dtype == torch.int64
    assert CSV(path=path, target="y", task="regression").class_names == []


def test_rows_without_a_target_and_ignored_columns_are_left_out(houses, tmp_path):
    houses.loc[:4, "price"] = np.nan
    data = CSV(path=write(houses, tmp_path), target="price", ignore=["rooms"])
    assert sum(len(data.raw(name).x) for name in data.splits) == 115
    assert "rooms" not in data.feature_names
    assert "left out 5 of 120 rows without a target" in data.notes


def test_infinite_values_count_as_gaps(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0, float("inf")] * 20, "y": np.arange(60) / 7})
    assert torch.isfinite(CSV(path=write(frame, tmp_path), target="y").tensors("train").x).all()


def test_many_rare_words_keep_the_most_frequent():
    words = [f"w{i % 90}" for i in range(300)]
    encoder = TableEncoder().fit(pd.DataFrame({"word": words}))
    assert len(encoder.feature_names) == 50


def test_a_checkpoint_brings_the_preprocessing(houses, tmp_path):
    path = write(houses, tmp_path)
    trained = CSV(path=path, target="price")
    torch.save(trained.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for load_first in (True, False):
        other = CSV(path=path, target="price", split_seed=3)
        if not load_first:
            other.setup()
        other.load_state_dict(state)
        assert other.feature_names == trained.feature_names
        rows = houses.drop(columns="price")
        assert torch.equal(other.normalise(other.encode(rows)), trained.normalise(trained.encode(rows)))
        expected = sorted(trained.normalise(trained.encode(rows)).tolist())
        assert sorted(torch.cat([other.tensors(name).x for name in other.splits]).tolist()) == expected


def test_a_checkpoint_with_other_classes_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    first = CSV(path=write(pd.DataFrame({"a": range(60), "y": ["a", "b", "c"] * 20}), tmp_path), target="y")
    second = CSV(path=write(pd.DataFrame({"a": range(60), "y": ["a", "b", "d"] * 20}), tmp_path / "other"), target="y")
    second.setup()
    with pytest.raises(ConfigError, match="trained on a, b, c"):
        second.load_state_dict(first.state_dict())


def test_new_rows_are_checked(houses):
    encoder = TableEncoder().fit(houses[["area", "rooms"]])
    with pytest.raises(ConfigError, match="no column 'area'; did you mean 'aera'"):
        encoder.encode(houses.rename(columns={"area": "aera"}))
    with pytest.raises(ConfigError, match="'rooms' held numbers"):
        encoder.encode(houses.assign(rooms="many"))


def table(text: str):
    return lambda folder: (folder / "t.csv").write_text(text)


ROWS = "".join(f"{i},{i % 3}\n" for i in range(30))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (table("a,y\n" + ROWS), {"path": "u.csv"}, r"no such file: .*u\.csv"),
        (table("a,price\n" + ROWS), {"target": "prise"}, "no column 'prise'; did you mean 'price'"),
        (table("a,y\n" + ROWS), {"ignore": ["b"]}, "no column 'b'"),
        (table("a,y\n" + ROWS), {"ignore": ["y"]}, "'y' is the target"),
        (table(""), {}, "cannot be read"),
        (table("a,y\n"), {}, "no rows"),
        (table("a,y\n" + "1,\n" * 12), {}, "every value of the target 'y' is missing"),
        (table("a,y\n" + "1,2\n" * 3), {}, "at least 10 rows"),
        (table("a,y\n" + "".join(f"{i},same\n" for i in range(30))), {}, "nothing to learn"),
        (table("a,y\n" + ROWS), {"task": "binary"}, r"3 different values \(0, 1, 2\)(.|\n)*expects two"),
        (table("a,y\n" + "".join(f"{i},w{i % 3}\n" for i in range(30))), {"task": "regression"}, "expects numbers"),
        (table("a,y\n" + "".join(f"{i},w{i}\n" for i in range(30))), {}, "too many for classes"),
        (table("a,y\n" + "".join(f"1,{i}\n" for i in range(30))), {}, "no column to predict from"),
        (table('a,y\n1,"2\n3,4'), {}, "cannot be read|at least 10 rows"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_in_a_few_lines(tmp_path, make, options, message):
    make(tmp_path)
    options = {"path": "t.csv", "target": "y", **options}
    options["path"] = str(tmp_path / options["path"])
    with pytest.raises(ConfigError, match=message) as error:
        CSV(**options).setup()
    assert len(str(error.value).splitlines()) <= 5


def test_a_run_tells_what_was_left_out_of_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DL_COURSE_QUIET", raising=False)
    table("a,same,y\n" + "".join(f"{i},7,{i * i if i % 5 else ''}\n" for i in range(30)))(tmp_path)
    overrides = ["data.path=t.csv", "data.target=y", "trainer.max_epochs=1", "callbacks.progress=false"]
    run = dl.train(dl.compose("linear_csv", overrides))
    said = "note: left out 6 of 30 rows without a target\nnote: left out column 'same': one value only\n"
    assert capsys.readouterr().err == said
    log = (run.path / "train.log").read_text()
    assert all(line in log for line in said.splitlines())

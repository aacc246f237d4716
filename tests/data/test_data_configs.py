"""Every data YAML is complete, names what its class takes, and states facts that the data confirm."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from dl_course.data.module import DataModule

FOLDER = Path(__file__).parents[2] / "configs" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str):
    """(class, constructor arguments, stated facts) of a data YAML."""
    config = OmegaConf.load(FOLDER / f"{name}.yaml")
    config = OmegaConf.merge({"seed": 11}, {"data": config}).data
    cls = get_class(config["_target_"])
    facts = {str(key) for key in config if isinstance(getattr(cls, str(key), None), property)}
    arguments = {key: None if OmegaConf.is_missing(config, key) else config[key] for key in config}
    return cls, {k: v for k, v in arguments.items() if k not in facts}, {k: arguments[k] for k in facts}


def test_there_is_a_yaml_for_each_data_set():
    assert NAMES == ["cancer", "cars", "cifar10", "csv", "diabetes", "digits", "fashion", "folder", "mnist", "moons"]


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_lists_exactly_the_arguments_of_its_class_with_their_defaults(name):
    cls, arguments, _ = load(name)
    parameters = inspect.signature(cls).parameters
    assert set(arguments) - {"_target_"} == set(parameters)
    assert arguments["seed"] == 11
    for key, parameter in parameters.items():
        if key in ("seed", "batch_size", "eval_batch_size", "augment") or parameter.default is inspect.Parameter.empty:
            continue
        if key != "ignore":
            assert arguments[key] == parameter.default, key


@pytest.mark.parametrize("name", ["cancer", "cars", "diabetes", "digits", "moons"])
def test_the_facts_are_true(name):
    _, arguments, facts = load(name)
    data = instantiate(arguments, _convert_="all")
    assert isinstance(data, DataModule)
    assert {"num_features", "num_outputs", "shape"} <= set(facts)
    for key, value in facts.items():
        actual = getattr(data, key)
        assert (list(actual) if isinstance(actual, tuple) else actual) == value, key
    assert data.augmentation() is None  # everything is off by default
    x, _ = next(iter(data.train_dataloader()))
    assert x.shape == (64, *data.shape)


def test_the_facts_of_mnist_are_true(real_data):
    _, arguments, facts = load("mnist")
    data = instantiate({**arguments, "root": str(real_data)}, _convert_="all")
    assert {key: facts[key] for key in ("num_features", "num_classes", "num_outputs")} == {
        "num_features": data.num_features,
        "num_classes": data.num_classes,
        "num_outputs": data.num_outputs,
    }
    assert tuple(facts["shape"] or ()) == data.shape

"""The check: every wrong value is named with what was expected, before any data or model work."""

from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from omegaconf import DictConfig, OmegaConf

from dl_course.catalog import CONFIGS
from dl_course.check import NODES, check, describe, find_target, is_allowed, public_classes, shipped_targets
from dl_course.config import compose
from dl_course.errors import ConfigError
from dl_course.training.process import Settings


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        # wrong type
        ("trainer.max_epochs=three", "trainer.max_epochs=three: expected an integer >= 1"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5: expected an integer >= 1"),
        ("data.batch_size=true", "data.batch_size=true: expected an integer >= 1"),
        ("trainer.deterministic=1", "trainer.deterministic=1: expected true or false"),
        ("optimizer.betas=[0.9]", "expected a list [a number >= 0 and < 1, a number >= 0 and < 1]"),
        ("model.net.hidden=128", "model.net.hidden=128: expected a list"),
        ("threads=null", "threads=null: expected an integer >= 1"),
        # out of range
        ("data.batch_size=-1", "data.batch_size=-1: expected an integer >= 1"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected a number > 0"),
        ("optimizer.lr=nan", "optimizer.lr=NaN: expected a number > 0"),
        ("optimizer.lr=inf", "optimizer.lr=Infinity: expected a number > 0"),
        ("model.net.hidden=[64,0]", "model.net.hidden=[64, 0]: expected a list, each an integer >= 1"),
        ("seed=-1", "seed=-1: expected an integer >= 0"),
        ("regularization.l2=-0.1", "regularization.l2=-0.1: expected a number >= 0"),
        ("data.augment.flip=2", "data.augment.flip=2: expected a number >= 0 and <= 1"),
        # no such choice
        ("model.net.activation=rellu", "did you mean 'relu'?"),
        ("model.loss=cross_entrpy", "did you mean 'cross_entropy'?"),
        ("model.metrics=[acuracy]", "did you mean 'accuracy'?"),
        ("precision=32", "precision=32: expected one of 32-true, bf16-mixed, 16-mixed, 64-true"),
        ("debug=dryrun", "did you mean 'dry_run'?"),
        ("optimizer.impl=numpy", "optimizer.impl=numpy: expected torch"),
        # no such key, or none where one is needed
        ("+model.net.hiden=[3]", "model.net has no key 'hiden'; did you mean 'hidden'?"),
        ("+data.nm_classes=3", "data has no key 'nm_classes'; did you mean 'num_classes'?"),
        ("+optimizer.foo=3", "optimizer has no key 'foo'; its keys: lr, betas, eps"),
        ("+optimizer._args_=[1]", "optimizer has no key '_args_'"),
        ("+sed=3", "the config has no key 'sed'; did you mean 'seed'?"),
        ("+experiment.optimizer.lr=1", "experiment has no key 'optimizer'"),
        ("~model.net.in_features", "model.net needs the key 'in_features': an integer >= 1"),
        ("model.loss=???", "model.loss has no value"),
        ("~callbacks", "the config needs the key 'callbacks'"),
        ("~threads", "the config needs the key 'threads'"),
        ("experiment.name=../up", "experiment.name=../up: expected text that matches"),
        ("seed=4294967296", "seed=4294967296: expected an integer >= 0 and < 4294967296"),
        ("data.augment.crop=100000", "data.augment.crop=100000: expected an integer >= 0 and <= 1024"),
        ("regularization.l1=100000000000000000000", "integers here have at most 63 bits"),
        ("model.net.hidden=[100000000000000000000]", "integers here have at most 63 bits"),
        # objects of another kind
        ("~model._target_", "expected a mapping with a _target_"),
        ("+model._partial_=true", "model is _partial_ of dl_course.training.Supervised: expected a Task"),
        ("regularization._target_=dl_course.mlp.MLP", "regularization is dl_course.mlp.MLP: expected a Regularization"),
        (
            "scheduler._target_=dl_course.optim.adam",
            "scheduler is _partial_ of dl_course.optim.adam: expected a _partial_",
        ),
        ("experiment.name=${optimizer}", "experiment.name is _partial_ of dl_course.optim.adam: expected text"),
        # references
        ("data._target_=${data}", "data._target_"),
        ("model.net.in_features=${data.num_feature}", "${data.num_feature}, which is not in the config"),
        ("data.num_classes=ten", "data.num_classes=ten: expected an integer"),
        # calls that are not allowed
        ("optimizer._target_=os.system", "optimizer._target_=os.system: not a class of this course"),
        ("model.net._target_=dl_course.mlp.MPL", "did you mean 'dl_course.mlp.MLP'?"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(override, expected):
    with pytest.raises(ConfigError) as caught:
        check(compose("mlp_digits", [override]))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_numbers_that_yaml_writes_without_a_point_are_numbers():
    check(compose("mlp_digits", ["optimizer.lr=1", "regularization.l2=1", "callbacks.save_every=5"]))


def test_several_problems_are_named_at_once_and_each_once():
    with pytest.raises(ConfigError) as caught:
        check(compose("mlp_digits", ["optimizer.lr=-1", "seed=-1", "data.batch_size=0"]))
    assert sorted(str(caught.value).splitlines()) == [
        "data.batch_size=0: expected an integer >= 1",
        "optimizer.lr=-1: expected a number > 0",
        "seed=-1: expected an integer >= 0 and < 4294967296",
    ]


def test_combinations_are_judged_by_the_factory_itself():
    with pytest.raises(ConfigError, match="nesterov=True needs momentum > 0, got momentum=0"):
        check(compose("linear_cars", ["optimizer.nesterov=true", "optimizer.momentum=0"]))


def test_what_the_data_will_tell_is_left_open():
    check(compose("mlp_csv", ["data.path=x.csv", "data.target=y"]))
    check(compose("mlp_digits", ["data.num_features=null"]))
    with pytest.raises(ConfigError, match=r"data\.path has no value"):
        check(compose("mlp_csv", ["data.target=y"]))


def test_a_resolved_plain_config_passes_too():
    """Checkpoints hold the config without references."""
    config = compose("mlp_digits")
    plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(plain, DictConfig)
    check(plain)


def test_the_check_leaves_the_config_alone():
    config = compose("mlp_csv", ["data.path=x.csv", "data.target=y"])
    before = OmegaConf.to_yaml(config)
    check(config)
    assert OmegaConf.to_yaml(config) == before


def test_every_top_level_key_has_a_type_in_one_place():
    """Scalars in `Settings`, objects in signatures: train.yaml and they cannot drift apart."""
    known = {*Settings.__dataclass_fields__, *NODES, "experiment"}
    assert known == set(compose("mlp_digits"))
    shipped = OmegaConf.to_container(OmegaConf.load(CONFIGS / "train.yaml"))
    assert isinstance(shipped, dict)
    assert {key: shipped[key] for key in Settings.__dataclass_fields__} == vars(Settings())


# -- the allow-list ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "numpy.load",
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "dl_course.cli.main",
        "dl_course.train.train",
        "dl_course.check.import_module",
        "dl_course.training.torch.load",
        "dl_course.training.load_checkpoint",
        "dl_course.mlp.MLP.__init__.__globals__",
        "dl_course",
        "",
    ],
)
def test_nothing_but_our_classes_may_be_called(name):
    assert not is_allowed(name)


def test_the_allow_list_is_generated_and_exact():
    for name in shipped_targets():
        assert callable(find_target(name))
    assert "dl_course.mlp.MLP" in public_classes("dl_course.mlp")
    assert not public_classes("dl_course.cli")
    assert not public_classes("os")


def test_a_package_of_the_user_needs_the_users_word(tmp_path, monkeypatch):
    (tmp_path / "their_package_7.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width: int):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = compose("mlp_digits")
    config.model.net = OmegaConf.create({"_target_": "their_package_7.Net", "width": 3})
    with pytest.raises(ConfigError, match="DL_COURSE_TRUST"):
        check(config)
    monkeypatch.setenv("DL_COURSE_TRUST", "other, their_package_7")
    check(config)
    config.model.net.width = "wide"
    with pytest.raises(ConfigError, match=r"model\.net\.width=wide: expected an integer"):
        check(config)
    config.model.net._target_ = "their_package_7.Nets"
    with pytest.raises(ConfigError, match=r"their_package_7\.Nets"):
        check(config)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, Ge(1)], "an integer >= 1"),
        (Annotated[float, Ge(0), Lt(1)] | None, "a number >= 0 and < 1 or null"),  # pyright: ignore[reportOperatorIssue]
        (Literal["a", "b"] | Annotated[int, Gt(2), Le(5)], "one of a, b or an integer > 2 and <= 5"),
        (tuple[int, float], "a list [an integer, a number]"),
        (list[str] | None, "a list, each text or null"),
        (dict[str, int], "a mapping"),
        (bool, "true or false"),
    ],
)
def test_annotations_in_words(annotation, words):
    assert describe(annotation) == words

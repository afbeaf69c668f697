"""Settings of models: what is accepted, and that errors say the value, the rule and the remedy."""

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from scaleml.models import MLP, LinearModel, Model, Signature

SIGNATURE = Signature(3, 4, "multiclass", "float32", sparse=True)


@pytest.mark.parametrize(
    "thing", [LinearModel(), LinearModel("huber", None, 0, dtype="float64"), MLP(()), MLP((3, 2), "tanh"), SIGNATURE]
)
def test_repr_recreates(thing):
    assert eval(repr(thing)) == thing
    assert pickle.loads(pickle.dumps(thing)) == thing
    assert hash(thing) == hash(replace(thing))
    with pytest.raises(FrozenInstanceError):
        thing.dtype = "float64"


def test_numpy_values_become_plain_ones():
    assert repr(LinearModel(alpha=np.float32(0.5))) == repr(LinearModel(alpha=0.5))
    assert repr(MLP([np.int64(3), 2])) == repr(MLP((3, 2)))
    assert MLP(7).hidden_layer_sizes == (7,)
    assert repr(Signature(np.int64(3), dtype=np.dtype("float64"))) == repr(Signature(3, dtype="float64"))


def test_models_are_models():
    assert issubclass(LinearModel, Model)
    assert issubclass(MLP, Model)
    assert [LinearModel(loss).is_classifier for loss in ("log_loss", "hinge", "huber")] == [True, True, False]
    assert MLP().is_classifier
    assert not MLP(loss="squared_error").is_classifier


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearModel("log"), "loss='log': must be one of 'log_loss'.* Did you mean 'log_loss'"),
        (lambda: LinearModel("logloss"), "Did you mean 'log_loss'"),
        (lambda: LinearModel(penalty="none"), "penalty='none': must be one of 'l2', .*None"),
        (lambda: LinearModel(alpha=-1), "alpha=-1: must be a finite number at least 0; change alpha"),
        (lambda: LinearModel(alpha=float("nan")), "alpha=nan: must be a finite number"),
        (lambda: LinearModel(alpha="0.1"), "alpha='0.1': must be a finite number"),
        (lambda: LinearModel(l1_ratio=1.5), "l1_ratio=1.5: must be .* at least 0 and at most 1"),
        (lambda: LinearModel("huber", epsilon=0), "epsilon=0: must be .* greater than 0"),
        (lambda: LinearModel(dtype="float16"), "dtype='float16': must be one of 'float32', 'float64'"),
        (lambda: MLP((3, 0)), "hidden_layer_sizes=0: must be an integer of at least 1"),
        (lambda: MLP("33"), "hidden_layer_sizes='33': must be integers.* use a tuple such as"),
        (lambda: MLP(True), "hidden_layer_sizes=True: must be an integer"),
        (lambda: MLP(3.5), "hidden_layer_sizes=3.5: must be integers"),
        (lambda: MLP(activation="sigmoid"), "activation='sigmoid': must be one of 'relu', 'tanh', 'logistic'"),
        (lambda: MLP(loss="hinge"), "loss='hinge': must be one of 'log_loss', 'squared_error'"),
        (lambda: Signature(0), "n_features=0: must be an integer of at least 1"),
        (lambda: Signature(2, 2), "n_outputs=2 with task='binary': .* use n_outputs=1, or task='multiclass'"),
        (lambda: Signature(2, 1, "multiclass"), "n_outputs=1 with task='multiclass': .* use at least 2"),
        (lambda: Signature(2, 1, "classes"), "task='classes': must be one of"),
        (lambda: LinearModel().build(Signature(2, 1, "regression")), "use loss='squared_error' for numbers"),
        (lambda: MLP(loss="squared_error").build(Signature(2)), "use loss='log_loss' for classes"),
        (
            lambda: LinearModel("hinge").build(Signature(2)).predict_proba(np.zeros(3, "f4"), np.zeros((1, 2), "f4")),
            "Hinge gives scores, not probabilities: only 'log_loss' does",
        ),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()

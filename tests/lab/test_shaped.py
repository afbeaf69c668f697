"""Data in its own shape in the lab: it is offered where PyTorch is, with the model that is for it."""

import numpy as np

import scaleml
from scaleml.frameworks.residual_network import ResidualNetwork
from scaleml.frameworks.text_classifier import TextClassifier
from scaleml.lab import setup
from scaleml.models import MLP

PIXELS = np.zeros((50, 1, 8, 8), "u1")


def test_each_data_set_has_its_models():
    with scaleml.Lab() as lab:
        chosen = lab._setup
        assert chosen.model.options == setup.MODELS
        for data, called, kind in (
            ("digit_images", "residual network", ResidualNetwork),
            ("docstrings", "text classifier", TextClassifier),
        ):
            chosen.data.value = data
            (hidden,) = [box for box in chosen.box.children[0].children if chosen.hidden in box.children]
            assert chosen.model.options == (called,)
            assert chosen.model.value == called
            assert hidden.layout.display == "none"
            wish = chosen.wish()
            assert called in chosen.summary.value
            model, X, y = wish.data()
            assert type(model) is kind
            assert len(y) == len(X["tokens"] if isinstance(X, dict) else X)
        chosen.data.value = "wine"
        assert chosen.model.options == setup.MODELS
        assert isinstance(chosen.wish().data()[0], MLP)


def test_images_of_ones_own_are_for_a_residual_network():
    with scaleml.Lab(X=PIXELS, y=np.arange(50) % 3) as lab:
        assert lab._setup.model.options == ("residual network",)
        assert lab._setup.wish().data()[0] == ResidualNetwork()


def test_without_pytorch_neither_is_offered(monkeypatch):
    monkeypatch.setattr(setup, "has_torch", lambda: False)
    with scaleml.Lab() as lab:
        assert set(dict(lab._setup.data.options).values()) == set(setup.DATA.values())

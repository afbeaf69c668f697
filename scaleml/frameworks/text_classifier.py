"""A small text classifier: the mean of the words' embeddings, and a perceptron on it.

Joulin, Grave, Bojanowski and Mikolov, Bag of tricks for efficient text classification, EACL 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from scaleml.checks import check_integer
from scaleml.models.base import Model, Signature
from scaleml.models.flat_model import FlatModel

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TextClassifier"]


@final
@dataclass(frozen=True, repr=False)
class TextClassifier(Model):
    """A classifier of texts that are token numbers, as ``datasets.load("docstrings")`` has them.

    Parameters
    ----------
    embedding : int
        Numbers that stand for a word.
    hidden : int
        Units of the hidden layer.
    vocabulary : int
        Token numbers are below it.

    Raises
    ------
    ValueError
        For a value that breaks its rule, and for X that is not a dict of ``tokens``, (n, words), and ``lengths``, (n,), whole numbers.

    Notes
    -----
    Needs PyTorch.

    Examples
    --------
    >>> from scaleml import AllReduce, datasets, train
    >>> sentences = datasets.load("docstrings")  # doctest: +SKIP
    >>> run = train(TextClassifier(), sentences.X, sentences.y, strategy=AllReduce(), workers=2, epochs=5)  # doctest: +SKIP
    """

    embedding: int = 64
    hidden: int = 64
    vocabulary: int = 4096
    dtype: ClassVar[str] = "float32"  # type: ignore[misc]  # see ResidualNetwork
    takes_any_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("embedding", "hidden", "vocabulary"):
            check_integer(name, getattr(self, name), 1)

    @property
    def is_classifier(self) -> bool:
        """Whether y holds classes."""
        return True

    def build(self, signature: Signature) -> FlatModel:
        """Return the flat model for texts of this signature; see `Model.build`."""
        from scaleml.frameworks.torch import TorchModel

        row = signature.row
        if row is None or row.names != ("tokens", "lengths") or len(row["tokens"].shape) != 1 or row["lengths"].shape:
            got = f"{signature.n_features} columns" if row is None else f"rows of {row}"
            raise ValueError(
                f"X has {got}, but a TextClassifier takes a dict of 'tokens', (n, words), and 'lengths', (n,), whole numbers: make it of "
                "texts with scaleml.datasets.text.tokens(texts, length=32)"
            )
        classes = 2 if signature.task == "binary" else signature.n_outputs
        made = _Factory(self.vocabulary, self.embedding, self.hidden, classes)
        return TorchModel(made, loss="cross_entropy").build(signature)


@dataclass(frozen=True)
class _Factory:
    """Makes the module: pickled without PyTorch being there, which is imported where it is called."""

    vocabulary: int
    embedding: int
    hidden: int
    classes: int

    def __call__(self) -> nn.Module:
        from torch import nn

        from scaleml.frameworks.torch_layers import MeanOfTokens

        head = nn.Sequential(nn.Linear(self.embedding, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.classes))
        return MeanOfTokens(self.vocabulary, self.embedding, head)

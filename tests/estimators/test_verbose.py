"""What a person and scikit-learn's callbacks see of a fit, in this process and on a cluster."""

import dask.array as da
import pytest

from scaleml import AllReduce, LocalSGD, ParameterServer
from scaleml.linear_model import SGDClassifier
from scaleml.neural_network import MLPClassifier, MLPRegressor

STRATEGIES = [AllReduce(), LocalSGD(4), ParameterServer()]


class Watch:
    """A callback that stops a fit after some epochs."""

    def __init__(self, X, most=10**9, look=False):
        self.words, self.estimators = [], []
        self.X, self.most, self.look = X, most, look

    def setup(self, estimator, context):
        self.words.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X, y):
        assert X is not None
        self.words.append("begin")

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        self.words.append("end")
        if self.look and context.task_name == "epoch":
            self.estimators.append(fitted_estimator.predict(self.X))
        return self.words.count("end") == self.most

    def teardown(self, estimator, context):
        self.words.append("teardown")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_callbacks_see_each_epoch_on_a_cluster(strategy, classes):
    pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    X, y = classes
    watch = Watch(X, look=True)
    clf = SGDClassifier("log_loss", strategy=strategy, workers=2, max_iter=6, tol=None, random_state=0)
    clf.set_callbacks(watch).fit(X, y)
    assert clf.n_iter_ == 6
    assert watch.words[0] == "setup"
    assert watch.words[-1] == "teardown"
    assert watch.words.count("begin") == watch.words.count("end") == 7
    assert [len(found) for found in watch.estimators] == [900] * 6
    assert (watch.estimators[-1] == y).mean() > 0.6


@pytest.mark.usefixtures("cluster")
def test_a_rule_that_ends_the_run_ends_the_epochs(classes):
    pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    X, y = classes
    watch = Watch(X)
    clf = SGDClassifier("log_loss", strategy=AllReduce(), tol=1e-2, random_state=0).set_callbacks(watch).fit(X, y)
    assert clf.n_iter_ < 1000
    assert watch.words.count("begin") == watch.words.count("end") == clf.n_iter_ + 1


@pytest.mark.usefixtures("cluster")
def test_a_callback_ends_a_fit_on_a_cluster(classes):
    pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    X, y = classes
    watch = Watch(X, most=3)
    mlp = MLPClassifier((5,), max_iter=100_000, n_iter_no_change=100_000, random_state=0)
    mlp.set_callbacks(watch).fit(da.from_array(X, chunks=300), da.from_array(y, chunks=300))
    assert 3 <= mlp.n_iter_ < 100_000
    assert mlp.predict(X).shape == y.shape
    assert watch.words.count("begin") == watch.words.count("end") == 4


@pytest.mark.usefixtures("cluster")
def test_what_a_callback_raises_ends_the_run_and_leaves_nothing(classes, cluster):
    pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    X, y = classes

    class Fails(Watch):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("enough of this")

    mlp = MLPRegressor(strategy=AllReduce(), max_iter=100_000, n_iter_no_change=100_000, random_state=0)
    with pytest.raises(RuntimeError, match="enough of this"):
        mlp.set_callbacks(Fails(X)).fit(X, X[:, 0])
    assert SGDClassifier(strategy=AllReduce(), random_state=0).fit(X, y).score(X, y) > 0.6


@pytest.mark.usefixtures("cluster")
def test_verbose_prints_a_line_an_epoch_on_a_cluster(classes, capsys):
    X, y = classes
    clf = SGDClassifier(verbose=1, strategy=AllReduce(), random_state=0, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == clf.n_iter_
    assert lines[0].startswith("SGDClassifier, epoch 1, loss = ")
    assert "validation score" in lines[0]
    SGDClassifier(strategy=AllReduce(), random_state=0).fit(X, y)
    assert capsys.readouterr().out == ""


def test_a_notebook_keeps_one_output_a_fit():
    nbformat = pytest.importorskip("nbformat", reason="needs Jupyter")
    nbclient = pytest.importorskip("nbclient", reason="needs Jupyter")
    pytest.importorskip("ipykernel", reason="needs Jupyter")
    cells = [
        """from sklearn.datasets import load_digits
from scaleml import AllReduce
from scaleml.linear_model import SGDClassifier
X, y = load_digits(return_X_y=True)""",
        "SGDClassifier(verbose=1, random_state=0).fit(X, y);",
        "SGDClassifier(verbose=1, random_state=0, strategy=AllReduce(), workers=2).fit(X, y);",
        "SGDClassifier(random_state=0).fit(X, y);",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbclient.NotebookClient(notebook, timeout=100, store_widget_state=False).execute()
    for cell, where in zip(notebook.cells[1:3], ("in this process", "on 2 workers"), strict=True):
        (output,) = cell.outputs
        assert output.output_type == "display_data"
        assert output.data["text/plain"].startswith(f"SGDClassifier: finished {where}: epoch ")
        assert ("<polyline" in output.data["text/html"]) == (where == "on 2 workers"), "of little data, the end"
    assert notebook.cells[3].outputs == []

"""The program that does what the lab did: it is as a formatter would have it, and it makes the same comparison."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scaleml
from lab.clicking import finished
from scaleml.api.trial import Trial
from scaleml.compression import Int8, TopK
from scaleml.lab.program import WIDTH, program_of
from scaleml.linear_model import SGDClassifier
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam, AdamW, Averaged, CosineAnnealing, Group, Warmup
from scaleml.strategies import AllReduce, Gossip, LocalSGD, ParameterServer, Serial

OFTEN = {"client": None, "validation": 0.2, "seed": 0, "optimizer": SGD(0.1), "batch_size": 256, "target": None}
CASES = {
    "short": (LinearModel(), [Serial()], {}, "digits"),
    "as the lab has it": (MLP((512, 512)), [Serial(), AllReduce(), LocalSGD(8)], {**OFTEN, "epochs": 60}, "digits"),
    "long": (
        MLP((512, 256, 128), activation="tanh", dtype="float64"),
        [
            Trial(AllReduce(compression=TopK(0.05)), optimizer=Adam(0.002), batch_size=512, epochs=7),
            ParameterServer("ssp", staleness=4),
            LocalSGD(16, outer=SGD(0.7, momentum=0.9, nesterov=True)),
            Gossip(),
        ],
        {
            "optimizer": Averaged(SGD(0.3, momentum=0.9, nesterov=True)),
            "workers": ("tls://10.0.0.1:40001", "tls://10.0.0.2:40001", "tls://10.0.0.3:40001", "tls://10.0.0.4:1"),
            "epochs": 12,
            "batch_size": 1024,
            "target": 0.25,
            "seed": 7,
            "repeats": 5,
            "tune": 4,
            "budget": 90.0,
            "validation": 0.1,
            "all_cores": False,
        },
        None,
    ),
    "many imports": (
        MLP(),
        [
            *(Serial(), AllReduce(Int8()), LocalSGD(), Gossip(), ParameterServer("async"), scaleml.Hogwild()),
            Trial(AllReduce(), optimizer=scaleml.AdaGrad(0.1)),
            Trial(AllReduce(TopK()), optimizer=SGD(0.1), workers=2),
        ],
        {"optimizer": Adam()},
        "wine",
    ),
    "schedule and groups": (
        MLP(),
        [LocalSGD(4)],
        {
            "optimizer": AdamW(
                0.001,
                schedule=Warmup(updates=100, then=CosineAnnealing(minimum=0.1)),
                groups=[Group("hidden.0.*", learning_rate=0.0001)],
                no_decay="1d",
            ),
            "microbatch": 32,
        },
        "digits",
    ),
    "estimator": (make_pipeline(StandardScaler(), SGDClassifier(alpha=0.001)), [AllReduce()], {"seed": 3}, "wine"),
}


def made(case):
    model, strategies, settings, data = CASES[case]
    return program_of(model, strategies, settings, data)


@pytest.mark.parametrize("case", CASES)
def test_it_is_as_a_formatter_would_have_it(case, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(made(case))
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("no ruff")
    command = [ruff, "format", "--isolated", f"--line-length={WIDTH}", "--diff", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert max(map(len, file.read_text().splitlines())) <= WIDTH
    command = [ruff, "check", "--isolated", "--select=F", file]  # names that are missing, imports that nobody uses
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", CASES)
def test_it_makes_the_same_objects(case):
    """Run with a stand-in for compare, it hands over what the lab would."""
    model, strategies, settings, _ = CASES[case]
    tree = ast.parse(made(case).replace("X, y = ...", "X, y = 1, 2"))
    names: dict = {}
    exec(compile(tree.body[:-2] and ast.Module(tree.body[:-2], []), "program", "exec"), names)
    call = tree.body[-2].value
    given = [eval(compile(ast.Expression(part), "program", "eval"), names) for part in call.args]
    more = {part.arg: eval(compile(ast.Expression(part.value), "program", "eval"), names) for part in call.keywords}
    assert repr(given[0]) == repr(model)
    assert [one if isinstance(one, Trial) else Trial(one) for one in given[3]] == [
        one if isinstance(one, Trial) else Trial(one) for one in strategies
    ]
    assert more.items() <= settings.items()
    left_out = settings.keys() - more.keys()
    assert all(settings[name] == OFTEN[name] for name in left_out)


def test_an_estimator_keeps_its_own_usual_settings_and_says_the_others():
    """Of an estimator no one knows here what it does without a word."""
    assert "seed=0" not in program_of(LinearModel(), [Serial()], {"seed": 0})
    assert "seed=0" in program_of(SGDClassifier(), [Serial()], {"seed": 0})
    assert "from scaleml.linear_model import SGDClassifier\n" in program_of(SGDClassifier(), [Serial()], {})


def test_a_long_pipeline_is_there_in_full():
    pipeline = make_pipeline(*(StandardScaler(with_mean=False, copy=False) for _ in range(20)), SGDClassifier())
    text = program_of(pipeline, [AllReduce()], {}, "wine")
    assert text.count("StandardScaler(") == 20
    assert "from sklearn.pipeline import Pipeline\nfrom sklearn.preprocessing import StandardScaler\n" in text
    assert "yours" not in text


@dataclass(frozen=True, repr=False)
class _Own(AllReduce):
    """A strategy of somebody's own."""


class _Odd:
    def __repr__(self):
        return "<odd\nthing" + 100 * "!" + ">"


def test_what_no_code_makes_is_left_to_be_filled_in():
    x = np.zeros((2, 2))
    local = type("Local", (_Own,), {"__module__": "__main__"})
    settings = {"validation": (x, [0, 1]), "client": _Odd(), "on_run": print}
    text = program_of(_Odd(), [Serial(), local(), _Own()], settings)
    ast.parse(text)
    lines = text.splitlines()
    assert "model = ...  # yours: <odd thing!!" in text
    assert "strategy_2 = ...  # yours: Local()" in lines
    assert any(line.startswith("client = ...  # yours: <odd thing!!") and line.endswith("...") for line in lines)
    assert "validation = ...  # yours: (array([[0., 0.], [0., 0.]]), [0, 1])" in lines
    assert "[Serial(), strategy_2, _Own()]" in text
    assert f"from {_Own.__module__} import _Own" in lines
    assert "client=client" in text
    assert "validation=validation" in text
    assert "on_run" not in text
    assert "X, y = ...  # your data" in lines


def test_a_text_cannot_leave_its_quotes():
    name = 'a"b\nimport os'
    (load,) = (node for node in ast.parse(program_of(LinearModel(), [Serial()], {}, name)).body if _loads(node))
    assert ast.literal_eval(load.value.args[0]) == name


def _loads(node):
    return isinstance(node, ast.Assign) and node.targets[0].id == "data"


def test_run_alone_it_compares_what_the_lab_compared(lab, tmp_path):
    one = lab(None, None, None, strategies=[Serial(), Trial(AllReduce(), optimizer=SGD(0.2))], epochs=2)
    one._setup.model.value = "linear model"
    one._setup.data.value = "wine"
    finished(one)
    wish = one._setup.wish()
    program = program_of(wish.data()[0], wish.trials, wish.settings, one._setup.data.value)
    assert "Trial(strategy=AllReduce(), optimizer=SGD(learning_rate=0.2))" in program
    file = tmp_path / "program.py"
    file.write_text(f"{program}\nfor run in comparison.runs:\n    print('run:', run.label, run.rows_an_update)\n")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("One round was run")
    told = [line.removeprefix("run: ") for line in done.stdout.splitlines() if line.startswith("run: ")]
    assert told == [f"{run.label} {run.rows_an_update}" for run in one.result.runs]

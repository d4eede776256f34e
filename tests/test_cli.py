"""The command apr-jax, the names of configurations, and what an install brings."""

import json
import pathlib
import subprocess
import sys
import tomllib

import pytest
from absl import app
from ml_collections import config_flags

import apr_jax
from apr_jax import augment, cli, config, presets
from apr_jax.cli import by_name, configs, methods, program
from apr_jax.runs import records

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Programs of other people that ``pip install apr_jax`` doesn't ask for. absl, rich and
# Orbax come with JAX's libraries, which may use them.
NOT_ASKED_FOR = {
    "cv2",
    "importlib_resources",
    "matplotlib",
    "ml_collections",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
}
OF_OTHERS = {"absl", "etils", "orbax", "rich"}  # JAX itself has etils
# Not even that do apr and recombine need.
FOR_NETWORKS = {"PIL", "flax", "optax"}
# The part of the package that is arrays in, arrays out.
CORE = """
    attacks augment augment.methods cdes cdes.training corruptions fast_random metrics
    models models.grad_cam models.torch_weights network ood pixels process spectral
    target train.losses train.step train.views
"""


def run(*arguments):
    """Runs Python in the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def start(monkeypatch, *arguments):
    """Runs ``apr-jax`` in this process."""
    monkeypatch.setattr(sys, "argv", ["apr-jax", *arguments])
    cli.main()


def test_help_and_version(monkeypatch, capsys):
    start(monkeypatch, "--help")
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli.COMMANDS)
    start(monkeypatch, "--version")
    assert capsys.readouterr().out == f"{apr_jax.__version__}\n"
    assert records.code_version().startswith(apr_jax.__version__)


def test_a_command_that_is_none(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        start(monkeypatch, "trian")
    said = capsys.readouterr().err
    assert said.startswith("error: unknown command 'trian'; did you mean train? There")


def test_a_command_whose_packages_are_missing():
    done = run(
        "-c",
        "import sys\nsys.modules['ml_collections'] = None\nfrom apr_jax import cli\n"
        "sys.argv = ['apr-jax', 'configs']\ncli.main()",
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: apr-jax configs needs ml_collections, which is not installed: "
        "pip install 'apr_jax[train]'\n",
    )


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "-?"])
def test_help_of_a_program_is_no_failure(capsys, flag):
    app.define_help_flags()
    with pytest.raises(SystemExit) as ended:
        program.parse(["program", flag])
    assert ended.value.code == 0
    assert "Try --helpfull" in capsys.readouterr().out or flag == "--helpfull"


def test_help_answers_before_jax_is_there():
    done = run(
        "-c",
        "import sys\nfrom apr_jax import cli\nsys.argv = ['apr-jax', '--help']\n"
        "cli.main()\nsys.exit('jax' in sys.modules)",
    )
    assert done.returncode == 0, done.stderr


# Command line -> part of the one line that says what is wrong with it.
MISTAKES = {
    "card": "give one run directory or several, or --model FILE.py; --help",
    "card w.pth --config quickstart": "a single measurement, such as apr-jax cle",
    "card --model net.onnx": "ONNX: FILE.py returns apr_jax.Classifier.from_onnx(path",
    "card --model net.pth": "Weights alone need their network: FILE.py returns Classif",
    "card nowhere": "nowhere is not a run: it has no config.json",
    "card run --adversarial.examples=-1": "eval.adversarial.examples is -1",
    "card run --ood.tdfs_dir=x": "'ood.tdfs_dir'. Did you mean: ood.tfds_dir",
    "card run --page=run": "--page is 'run', which can't be written: it is no file",
    "card run begun --workdir x": "--workdir is 'x', where records of one network go",
    "card --model net.py": "model is 'net.py', and net.py isn't there",
    "card --model net.py --data cifar10": "model is 'net.py', and net.py isn't there",
    "card --model timm:x --data cifar10 --weights w": "--weights is 'w', which is no",
    "clean": "give one run directory, one file of weights, or --model FILE.py alone",
    "clean run --devices=two": "--devices is 'two'; it must be a whole number",
    "clean run --devices=-1": "--devices is -1; it must be at least 0",
    "clean run --beside run": "--beside names run, which is the run itself",
    "clean run --config quickstart": "run is a run and has a configuration",
    "clean weights": "weights is not there; give a run's directory or a file",
    "clean run/config.json": "is a file of weights: --config must name its network",
    "clean run --workdir az://a/b": "--workdir is 'az://a/b'; it must be a file",
    "clean run --weights w": "--weights is for --model",
    "clean run --data cifar10": "--data is for --model; a network of the zoo is",
    "card --model net --data cifar10": "write FILE.py or FILE.py:create, timm:NAME, t",
    "card --model zoo:x --data cifar10": "--model is 'zoo:x'; the zoo has cifar10_air",
    "clean run --classes 1": "--classes is 1; it must be at",
    "card zoo:cifar10_airbench94_apr_p --data_dir x": "--data_dir is for measuring, an",
    "card zoo:cifar10_airbench94_apr_p --devices=2": "--devices is for measuring, and",
    "clean --model timm:x": "--model needs --data, what it is measured on",
    "corruption run --corruptions=rain": "corruptions has 'rain'",
    "corruption run --severities=1,x": "severities has 'x'; it must be a number",
    "corruption run --config quickstrat": "unknown configuration 'quickstrat'; choose",
    "ood run --scores=msp,mpc": "scores has 'mpc'; choose from 'msp', 'max_logit'",
    "ood begun": "begun has no classes.json; its training has not got that far",
    "card run begun": "begun has no classes.json",
    "fourier run --parts=phases": "parts has 'phases'",
    "pack": "--data is missing",
    "pack --data x": "--out is missing",
    "pack --data x --out y --quality 101": "--quality is 101; it must be from 1 to 100",
    "pack --data x --out y --shorter 0": "--shorter is 0; it must be from 8 to 10000",
    "pack --data x --out y --workers -1": "--workers is -1; it must be from 0 to 1024",
    "pack --data x --out y --name a/b": "--name is 'a/b'; it must be of letters",
    "pack --data x --out gs://y": "--out is 'gs://y'; it must be a file or folder",
    "pack --data parquet:x --out y": "--data is 'parquet:x'; write folder:PATH",
    "pack x --data x --out y": "unexpected 'x'",
    "corrupt": "--data is missing",
    "corrupt --data x": "give --out to write files, or --verify to compare some",
    "corrupt --data x --out y --network run": "--network belongs to --verify",
    "corrupt --data x --verify y --network z": "z is not a run",
    "corrupt --data x --out y --format=png": "--format is 'png'; choose from auto",
    "corrupt x --data x": "unexpected 'x'",
    "export": "give one run directory, one file of weights, or --model FILE.py or",
    "export run --out net": "--out is 'net'; say --to, one of stablehlo, onnx",
    "export none --out net.onnx": "none is not there; give a run's directory or a file",
    "export begun --out net.onnx": "begun has no classes.json",
    "export --model no.py --out net.onnx": "no.py isn't there",
    "export run --out net.onnx --to=tf": "--to is 'tf'; choose from stablehlo, onnx",
    "compare": "give one run directory or several; --help lists the flags",
    "cache --rm": "Unknown command line flag 'rm'",
}
# Imports once; each mistake is made in a copy of the process.
ANSWERS = """
import json, os, sys
from apr_jax import cli, config
from apr_jax.cli import measure
from apr_jax.foreign import named
named.check = lambda spec: None
os.chdir(sys.argv[2])
for run in ("run", "begun"):
    os.mkdir(run)
    open(f"{run}/config.json", "w").write(json.dumps(config.to_dict(config.default())))
open("run/classes.json", "w").write('["cat", "dog"]')
before = sorted(os.walk("."))
for words in json.loads(sys.argv[1]):
    print("BEGIN", flush=True)
    if not os.fork():
        sys.argv = ["apr-jax", *words.split()]
        os.dup2(1, 2)
        try:
            cli.main()
        except SystemExit as end:
            loaded = {"jax", "tensorflow"} & set(sys.modules)
            print("status", end.code, *loaded, flush=True)
            os._exit(0)
    os.wait()
print("same", before == sorted(os.walk(".")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_mistake_in_flags_is_said_before_jax_loads(tmp_path):
    done = run("-c", ANSWERS, json.dumps(list(MISTAKES)), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("same True\n"), done.stdout
    _, *said = done.stdout.partition("same")[0].split("BEGIN\n")
    for (words, part), answer in zip(MISTAKES.items(), said, strict=True):
        line, status = answer.splitlines()
        assert line.startswith("error: "), words
        assert part in line, words
        assert status == "status 2", words


@pytest.mark.parametrize("name", ["models", "methods", "configs", "zoo"])
def test_lists_take_nothing(monkeypatch, capsys, name):
    start(monkeypatch, name, "--help")
    assert capsys.readouterr().out.startswith(f"usage: apr-jax {name}\n\nTo list the ")
    with pytest.raises(SystemExit) as end:
        start(monkeypatch, name, "all")
    assert end.value.code == 2
    assert f"apr-jax {name} takes no arguments, not 'all'" in capsys.readouterr().err


def test_the_lists(capsys):
    configs.main()
    lines = capsys.readouterr().out.splitlines()
    assert [
        line.split(":")[0].split()[0] for line in lines[: len(presets.PRESETS)]
    ] == [*presets.PRESETS]
    methods.main()
    lines += capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3 - len(augment.AUGMENTS) : -3]] == [
        *augment.AUGMENTS
    ]
    assert max(map(len, lines)) <= 88
    assert all(method.about for method in augment.AUGMENTS.values())


def configuration(value):
    """What ``--config=VALUE`` stands for."""
    parser = config_flags.config_flags.ConfigFileFlagParser("config")
    (argument,) = by_name.with_files([f"--config={value}"])
    return parser.parse(argument.partition("=")[2]).to_dict()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_name_is_the_file_of_configs():
    files = {path.stem: path for path in (ROOT / "configs").glob("*.py")}
    assert set(files) == set(presets.PRESETS)
    for name, path in files.items():
        assert configuration(name) == configuration(path), name
    chosen = configuration("cifar:resnet18,apr_p,cifar100")
    assert chosen == presets.cifar("resnet18,apr_p,cifar100").to_dict()
    assert chosen == configuration(f"{files['cifar']}:resnet18,apr_p,cifar100")


def test_what_is_there_as_a_file_is_no_name(tmp_path, monkeypatch):
    (tmp_path / "quickstart").write_text("")
    monkeypatch.chdir(tmp_path)
    given = ["train", "--config", "quickstart", "--config=a/b.py:c", "--config.seed=3"]
    assert by_name.with_files(given) == given


def needs(name):
    """The lines of a file of requirements, without comments and other files."""
    lines = (ROOT / name).read_text().splitlines()
    return sorted(line for line in lines if line and line[0] not in "#-")


def test_the_requirements_are_those_of_the_package():
    extras = PROJECT["optional-dependencies"]
    whole = [*PROJECT["dependencies"], *extras["train"]]
    assert needs("requirements.txt") == sorted(whole)
    assert needs("requirements-dev.txt") == sorted(extras["dev"])
    assert needs("requirements-torchax.txt") == sorted(extras["torch"])
    assert needs("docs/requirements.txt") == sorted(extras["docs"])


def test_the_functions_need_no_extra():
    program = f"""
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {NOT_ASKED_FOR}:
            raise ModuleNotFoundError(f"No module named {{name}}", name=name)
sys.meta_path.insert(0, Missing)
from apr_jax import apr, recombine
if heavy := {FOR_NETWORKS | OF_OTHERS - {"etils"}} & {{*sys.modules}}:
    sys.exit(f"apr and recombine import {{heavy}}")
import jax, flax.linen, optax, PIL.Image, scipy.ndimage, scipy.special
theirs = set(sys.modules)
import importlib, apr_jax
for name in {CORE.split()}:
    importlib.import_module("apr_jax." + name)
ours = {{name.partition(".")[0] for name in set(sys.modules) - theirs}}
sys.exit(", ".join(sorted(ours & {OF_OTHERS})) or 0)
"""
    done = run("-c", program)
    assert done.returncode == 0, done.stderr


def test_print_config_prints_every_value():
    program = (
        "import sys\nfrom apr_jax import cli\n"
        "sys.argv = ['apr-jax', 'train', '--config', 'cifar10_wrn_aprsp', "
        "'--config.seed=7', '--print_config', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    sys.exit(end.code)"
    )
    wrong = run("-c", program, "--config.augment.method=apr_q")
    assert wrong.returncode == 2
    assert "augment.method: unknown method 'apr_q'" in wrong.stderr
    assert not wrong.stdout
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    values = dict(line.split(" = ", 1) for line in done.stdout.splitlines())
    assert list(values) == list(config.flatten(config.default()))
    assert values["seed"] == "7"

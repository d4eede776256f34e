"""Networks by name, of timm, torchvision and the hub: as their libraries have them."""

import importlib.util
import json
import os
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

import apr_jax
from apr_jax.errors import ConfigError, DataError
from apr_jax.evaluate import bring as bring_lib
from apr_jax.foreign import named

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # of other people's packages, as they load
]
needs_all = pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("torchax", "timm")),
    reason="needs torchax and timm: an environment of requirements-torchax.txt",
)
TINY = "test_resnet"  # of timm, for its own tests


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="needs PyTorch")
    found.manual_seed(0)
    return found


def shaken(torch, module):
    """The module with statistics of BatchNorm that aren't those of the start."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 2)
    return module.eval()


@pytest.fixture
def tiny(torch, tmp_path):
    """A network of timm, and a file of its weights."""
    timm = pytest.importorskip("timm", reason="needs timm")
    module = shaken(torch, timm.create_model(TINY))
    torch.save({"state_dict": module.state_dict()}, tmp_path / "tiny.pth")
    return module, tmp_path / "tiny.pth"


def picture(rng, size):
    coarse = rng.integers(0, 256, (8, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((size + 20, size))


def folder_of(tmp_path, images, names):
    for i, image in enumerate(images):
        place = tmp_path / "pictures" / names[i % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{i}.png")
    return f"folder:{tmp_path / 'pictures'}"


def logits_of(brought):
    """The network's logits of the images it is measured on, in their order."""
    images = brought.resident.splits["pictures"].images
    network = brought.classifier
    return np.asarray(network.predict(network.variables, images)[0])


@needs_all
def test_timm_as_its_own_transform_has_it(torch, tiny, rng, tmp_path, capsys):
    import timm

    module, file = tiny
    told = timm.data.resolve_data_config({}, model=module)
    transform = timm.data.create_transform(**told)
    shorter = int(told["input_size"][1] / told["crop_pct"])
    images = [picture(rng, shorter) for _ in range(2)]  # which no resizing changes
    data = folder_of(tmp_path, images, ["n01440764", "n15075141"])
    brought = bring_lib.bring(f"timm:{TINY}", data, weights=str(file))
    with torch.no_grad():
        wanted = module(torch.stack([transform(image) for image in images])).numpy()
    np.testing.assert_allclose(logits_of(brought), wanted, atol=1e-4)
    # Two of ImageNet's classes, found by their synsets.
    assert brought.resident.splits["pictures"].labels.tolist() == [0, 999]
    assert brought.classifier.name == f"{TINY}_tiny"
    said = capsys.readouterr().err
    assert f"the centre of 160x160; mean {told['mean'][0]}" in said
    assert ("bilinear where theirs is bicubic" in said) == (
        told["interpolation"] == "bicubic"
    )


@needs_all
def test_a_card_of_a_name_in_one_call(torch, tiny, rng, tmp_path):
    import timm
    from safetensors.torch import save_file

    module = shaken(torch, timm.create_model(TINY, num_classes=3))
    save_file(module.state_dict(), tmp_path / "three.safetensors")
    images = rng.integers(0, 256, (6, 160, 160, 3), np.uint8)
    records = apr_jax.robustness_card(
        f"timm:{TINY}",
        weights=str(tmp_path / "three.safetensors"),
        data=(images, np.arange(6) % 3),
        out=tmp_path / "out",
        parts=("clean",),
        quiet=True,
    )
    accuracy = next(r for r in records if r.metric == "accuracy")
    told = timm.data.resolve_data_config({}, model=module)
    pixels = (images / 255 - np.array(told["mean"])) / np.array(told["std"])
    with torch.no_grad():
        logits = module(torch.tensor(pixels.transpose(0, 3, 1, 2)).float())
    right = (logits.argmax(1).numpy() == np.arange(6) % 3).mean()
    assert (accuracy.value, accuracy.n) == (pytest.approx(right), 6)


@needs_all
def test_torchvision_as_its_own_transform_has_it(torch, rng, tmp_path):
    models = pytest.importorskip("torchvision").models
    made = models.get_model("squeezenet1_1", weights=None, num_classes=5).eval()
    torch.save(made.state_dict(), tmp_path / "five.pth")
    entry = models.get_model_weights("squeezenet1_1").DEFAULT
    transform = entry.transforms()
    images = [picture(rng, transform.resize_size[0]) for _ in range(5)]
    data = folder_of(tmp_path, images, list("abcde"))
    given = bring_lib.bring(
        "torchvision:squeezenet1_1", data, weights=str(tmp_path / "five.pth")
    )
    with torch.no_grad():
        wanted = made(torch.stack([transform(image) for image in images])).numpy()
    np.testing.assert_allclose(logits_of(given), wanted, atol=1e-4)
    assert given.classifier.class_names == tuple("abcde")


@needs_all
def test_torchvision_says_whose_preprocessing_it_is(torch, tmp_path):
    models = pytest.importorskip("torchvision").models
    made = models.get_model("mobilenet_v3_large", weights=None, num_classes=2)
    torch.save(made.state_dict(), tmp_path / "own.pth")
    load = lambda name: named.load(f"torchvision:{name}", tmp_path / "own.pth")
    plain = load("mobilenet_v3_large")
    assert plain.resize == 232
    assert "as for IMAGENET1K_V2, since the file is none" in plain.said()
    assert load("mobilenet_v3_large.IMAGENET1K_V1").resize == 256


def save_vit(folder, **changed):
    """A small network of transformers in a folder as the hub has it."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(
        size=size, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4], **changed
    ).save_pretrained(folder)
    return transformers


@needs_all
@pytest.mark.parametrize("how", ["path", "cache"])
def test_the_hub_as_transformers_has_it(torch, rng, tmp_path, monkeypatch, how):
    folder = tmp_path / "vit"
    if how == "cache":  # as a download leaves it
        top = tmp_path / "hub" / "models--someone--vit"
        folder = top / "snapshots" / ("0" * 40)
        (top / "refs").mkdir(parents=True)
        (top / "refs" / "main").write_text("0" * 40)
        constants = pytest.importorskip("huggingface_hub").constants
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    transformers = save_vit(folder)
    images = [picture(rng, 32).crop((0, 0, 32, 32)) for _ in range(4)]
    data = folder_of(tmp_path, images, ["dog", "cat"])
    spec = "hf:someone/vit" if how == "cache" else f"hf:{folder}"
    brought = bring_lib.bring(spec, data)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    module = transformers.AutoModelForImageClassification.from_pretrained(folder)
    listed = [Image.fromarray(x) for x in brought.resident.splits["pictures"].images]
    with torch.no_grad():
        found = module.eval()(**processor(images=listed, return_tensors="pt"))
    np.testing.assert_allclose(logits_of(brought), found.logits.numpy(), atol=1e-5)
    assert brought.classifier.class_names == ("cat", "dog")
    assert brought.classifier.name == "vit"


@needs_all
def test_a_file_of_other_classes_than_the_repository_s(torch, tmp_path):
    transformers = save_vit(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=5)
    made = transformers.ViTForImageClassification(config).eval()
    torch.save({"model": made.state_dict()}, tmp_path / "five.pth")
    given = named.load(f"hf:{tmp_path}", tmp_path / "five.pth")
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(given.module(pixels).logits, made(pixels).logits)
    assert given.classes == ()


@needs_all
def test_the_hub_as_timm_has_it(torch, tmp_path):
    import timm
    from safetensors.torch import save_file

    module = shaken(torch, timm.create_model(TINY, num_classes=2))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": TINY,
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "pretrained_cfg": {
            "input_size": [3, 96, 96],
            "crop_pct": 0.8,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.5, 0.5],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = named.load(f"hf:{tmp_path}")
    assert (given.image_size, given.resize) == (96, 120)
    assert (given.mean, given.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 0.5))
    assert given.classes == (("cat", "dog"),)
    assert given.outputs() == 2
    pixels = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(given.module(pixels), module(pixels))


@needs_all
def test_colours_in_another_order_are_refused(torch, tmp_path):
    save_vit(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    told = json.loads(path.read_text())
    kind = {"image_processor_type": "MobileViTImageProcessor"}
    turned = {"do_flip_channel_order": True, "size": {"shortest_edge": 40}}
    crop = {"crop_size": {"height": 32, "width": 32}}
    path.write_text(json.dumps(told | kind | turned | crop))
    with pytest.raises(ConfigError, match="colours in another order"):
        named.load(f"hf:{tmp_path}")


CODE = """
import pathlib
pathlib.Path(MARK).write_text("run")
from transformers import PretrainedConfig, ViTConfig, ViTForImageClassification

class OwnConfig(ViTConfig):
    model_type = "own"

class Own(ViTForImageClassification):
    config_class = OwnConfig
"""


@needs_all
def test_code_that_comes_with_weights_runs_only_where_it_is_trusted(
    torch, tmp_path, monkeypatch
):
    folder, mark = tmp_path / "own", tmp_path / "mark"
    save_vit(folder)
    told = json.loads((folder / "config.json").read_text())
    told |= {
        "model_type": "own",
        "auto_map": {
            "AutoConfig": "own_code.OwnConfig",
            "AutoModelForImageClassification": "own_code.Own",
        },
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "own_code.py").write_text(CODE.replace("MARK", repr(str(mark))))
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match="--trust_remote_code says so"):
        named.load(f"hf:{folder}")
    assert not mark.exists()
    assert named.load(f"hf:{folder}", trust_remote_code=True).outputs() == 2
    assert mark.exists()


class Bad:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


@needs_all
@pytest.mark.parametrize("library", ["timm", "torchvision", "hf"])
def test_code_in_a_pickle_is_never_run(torch, tmp_path, library):
    if library == "hf":
        save_vit(tmp_path / "repo")
    mark = tmp_path / "mark"
    with (tmp_path / "bad.pth").open("wb") as file:
        pickle.dump({"fc.weight": Bad(str(mark))}, file)
    names = {"timm": TINY, "torchvision": "resnet18", "hf": str(tmp_path / "repo")}
    with pytest.raises(DataError, match=r"can't read .*bad\.pth"):
        named.load(f"{library}:{names[library]}", tmp_path / "bad.pth")
    assert not mark.exists()


@needs_all
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm:resnet_18", "timm has no network 'resnet_18'; close .*resnet18"),
        ("timm:resnet18.a1_in2k", "close to it are .*resnet18.a1_in1k"),
        ("torchvision:resnet-50", "torchvision has no network .*resnet50"),
        ("torchvision:resnet50.IMAGENET1K_V3", "resnet50.IMAGENET1K_V2"),
        ("timm:", "write timm:NAME"),
        ("timm:resnet18", "no weights of ResNet; missing: .*; wrong shape|unexpected"),
        ("hf:no/where", "no folder, and can't be had from the hub"),
    ],
)
def test_what_is_not_there(torch, tiny, monkeypatch, spec, said):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=said) as caught:
        named.load(spec, tiny[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:resnet18", "hf:a/b"])
def test_without_the_libraries_it_is_said_what_to_do(monkeypatch, spec):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs torchax, torch.*\[train,torch\]"):
        named.load(spec)


def test_weights_are_for_names(tmp_path):
    data = (np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    for given, said in (
        ({"weights": "x.pth"}, "is for timm:NAME"),
        ({"trust_remote_code": True}, "is for hf:REPO"),
    ):
        with pytest.raises(ConfigError, match=said):
            bring_lib.bring(lambda x: x, data, **given)

"""Models of timm and torchvision: their names without an import of the library, their maps and weight keys."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.batchnorm_folding import fold_batch_norms
from harness.models.initial_weights import load_initial_weights
from harness.models.library_models import LibraryNet, library_net
from harness.models.stage_names import stage_ends
from harness.models.taps import describe_taps
from harness.models.zoo import build_model
from harness.spec import library_models, tasks
from harness.training.frozen_parts import freeze_parts, set_frozen_to_eval
from harness.training.trained_model import StudentWithMethod
from methods.at import AT
from methods.base import CAM
from methods.fitnets import FitNets
from tests.support.cli import REPO, process, run_command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quickly_built")]
SMALL = ["timm:test_resnet", "timm:mobilenetv1_100", "torchvision:resnet18", "torchvision:mobilenet_v2"]


def fresh(name: str, channels: int = 3) -> Any:
    torch.manual_seed(0)
    return build_model(name, 10, channels)


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_weights_with_a_method_in_the_model_load() -> None:
    """A network that is a part of another one, as with SimKD, saves and reads the same names."""
    models = [StudentWithMethod(fresh("timm:test_resnet"), nn.Linear(2, 2)) for _ in range(2)]  # type: ignore[arg-type]
    with torch.no_grad():
        next(models[0].parameters()).fill_(3)
    saved = models[0].state_dict()
    assert not [key for key in saved if ".net." in key]
    models[1].load_state_dict(saved)
    assert all(torch.equal(value, saved[key]) for key, value in models[1].state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch|Missing key"):
        models[1].load_state_dict({k: v[:1] if k.startswith("student") and v.ndim else v for k, v in saved.items()})


def test_arguments_that_the_library_refuses_are_one_message() -> None:
    with pytest.raises(UserError, match="not built with these arguments: TypeError: Basic"):
        build_model('timm:test_resnet(block_args={"a": 1})', 10)


def test_a_module_that_is_called_with_other_tokens_first() -> None:
    """TNT's drop path is called with the tokens inside of a patch, and then with those of patches."""
    net = library_net("timm:tnt_s_legacy_patch16_224", 10, 3, {"img_size": 32, "depth": 1, "embed_dim": 24})
    assert describe_taps(net, (3, 32, 32)).sizes["module.blocks.0.drop_path"] == (2, 2)


def test_the_embedding_of_two_heads_is_their_mean() -> None:
    net = library_net("timm:levit_128s", 10, 3, {"depth": (1, 1, 1), "num_heads": 1, "key_dim": 4})
    assert net._classifiers == ["head.linear", "head_dist.linear"]


def distilled_deit(classes: int) -> nn.Module:
    net = timm.models.deit.VisionTransformerDistilled(8, 4, num_classes=classes, embed_dim=8, depth=1, num_heads=2)
    return net  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "layers"),
    [
        (partial(build_model, "timm:test_resnet"), ["fc"]),
        (partial(build_model, "torchvision:squeezenet1_1"), ["classifier.1"]),  # a convolution
        (distilled_deit, ["head", "head_dist"]),
    ],
)
def test_last_layers_are_found_by_what_depends_on_the_classes(build: Any, layers: list[str], tmp_path: Path) -> None:
    state = {key: torch.ones_like(tensor) for key, tensor in build(5).state_dict().items()}
    save_file(state, file := tmp_path / "w.safetensors")
    model = build(7)
    note = load_initial_weights(model, build(8), "net", file)
    assert f"not its last layer ({', '.join(layers)}), which starts from random numbers for 7 classes" in note
    new = {key.rpartition(".")[0] for key, tensor in model.state_dict().items() if not bool((tensor == 1).all())}
    assert new == set(layers)


def test_parts_are_frozen_by_their_names_in_a_checkpoint() -> None:
    net = fresh("timm:test_resnet").train()
    freeze_parts(net, "timm:test_resnet", ("conv1", "bn1", "layer1"))
    set_frozen_to_eval(net)
    frozen = {name.partition(".")[0] for name, tensor in net.state_dict(keep_vars=True).items() if _is_fixed(tensor)}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert not net.net.layer1.training and not net.net.bn1.training and net.net.layer2.training and net.training


def _is_fixed(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:resnet50", "timm:resnet10t", "timm:mobilenetv1_100"]
)
def test_stages_that_end_in_a_relu_show_what_it_is_given(name: str) -> None:
    net, x = fresh(name).eval(), images(64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm's residual branches begin with 0
    stages = [tap for tap in net.tap_names if tap.startswith("stage") and "." not in tap]
    maps = net(x, net.tap_names).features
    assert [tap for tap in net.tap_names if "module" not in tap][-2:] == [f"{stages[-1]}.preact", stages[-1]]
    for stage in stages:
        preact = maps[f"{stage}.preact"]
        assert preact.min() < 0 and torch.equal(preact.clamp(0, 6 if "mobilenet" in name else None), maps[stage])
    assert describe_taps(net, (3, 64, 64)).head.tap.startswith(stages[-1])


def test_a_stage_without_a_relu_at_its_end_has_no_preact() -> None:
    assert not [tap for tap in fresh("torchvision:mobilenet_v2").tap_names if tap.endswith(".preact") and "3" in tap]


def test_the_names_read_are_those_the_libraries_list() -> None:
    assert library_models.library_model_names("timm") == set(timm.list_models())
    assert library_models.library_model_names("torchvision") == set(
        torchvision.models.list_models(module=torchvision.models)
    )


@pytest.mark.parametrize(("library", "near"), [("timm", "mobilenetv2_100"), ("torchvision", "mobilenet_v2")])
def test_an_unknown_name_is_answered_with_the_nearest(library: str, near: str) -> None:
    assert tasks.resolve_model(f"{library}:{near}") == f"{library}:{near}"
    with pytest.raises(ValueError, match=f"{library} has no model 'mobilenetv2_10'; nearest: .*{library}:{near}"):
        tasks.resolve_model(f"{library}:mobilenetv2_10")


def test_a_librarys_model_without_its_library_is_answered_with_both() -> None:
    with pytest.raises(ValueError, match="no model named 'resnet34'; nearest: timm:resnet34, torchvision:resnet34, "):
        tasks.resolve_model("resnet34")


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    library_models.library_model_names.cache_clear()
    with pytest.raises(ValueError, match=r"models of timm need it installed: pip install 'kd-harness\[timm\]'"):
        tasks.resolve_model("timm:resnet18")


SWEEP = """
dataset: {dataset}
recipe: {{base: digits_quick, epochs: 1}}
methods: [student, {{method}}]
pairs: [{{teacher: {teacher}, student: {student}}}]
seeds: 1
"""


def sweep_file(folder: Path, dataset: str, teacher: str, student: str, method: str = "kd") -> Path:
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(dataset=dataset, teacher=teacher, student=student).replace("{method}", method))
    return file


def test_wrong_names_in_a_sweep_and_at_evaluate_exit_2_with_one_message(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "cifar100", "resnet56", "timm:resnet81")
    error = run_command("sweep", file, "--plan", "--results", tmp_path / "r").error
    assert error.startswith(f"{file}:5: pairs.0.student: timm has no model 'resnet81'; nearest: ")
    file = sweep_file(tmp_path, "digits", "torchvision:resnet18", "digits_net_w4")
    error = run_command("sweep", file, "--plan", "--results", tmp_path / "r").error
    assert error.endswith("pairs.0.teacher: torchvision:resnet18 is for 3x8x8 images, dataset digits has 1x8x8")
    error = run_command("evaluate", "--dataset", "digits", "--model", "torchvision:resnet19", "--weights", "none").error
    assert error.startswith("torchvision has no model 'resnet19'; nearest: torchvision:resnet1")
    error = run_command("evaluate", "--dataset", "digits", "--model", "torchvision:resnet18", "--weights", "none").error
    assert error == "torchvision:resnet18 is for 3x8x8 images, dataset digits has 1x8x8"


def test_planning_imports_neither_and_reports_what_is_unknown(tmp_path: Path) -> None:
    file = sweep_file(tmp_path, "cifar100", "timm:resnet34", "torchvision:resnet18")
    program = (
        "import sys; from harness.console.app import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'heavy'\n"
    )
    result = process("-c", program, "sweep", file, "--plan", "--results", tmp_path / "r", cwd=REPO)
    assert result.code == 0 and result.err == "", result
    assert "time unknown: 3 runs (teacher timm:resnet34 / seed 0 and 2 more)" in result.out
    assert "disk unknown: 3 runs (teacher timm:resnet34 / seed 0 and 2 more)" in result.out


@pytest.mark.parametrize("name", SMALL)
def test_it_computes_what_the_library_computes(name: str) -> None:
    model = fresh(name).eval()
    for size in (32, 64):
        x = images(size)
        outputs = model(x, model.tap_names)
        assert torch.equal(outputs.logits, model.net(x))
        head = model.net.get_submodule({"timm:test_resnet": "fc", "torchvision:resnet18": "fc"}.get(name, "classifier"))
        torch.testing.assert_close(head(outputs.embedding), outputs.logits)
    if name.startswith("timm:"):
        assert torch.equal(outputs.embedding, model.net.forward_head(model.net.forward_features(x), pre_logits=True))


@pytest.mark.parametrize("size", [32, 224])
def test_stages_and_paths_are_places_of_the_model(size: int) -> None:
    for name, stem in (("timm:resnet18", "act1"), ("torchvision:resnet18", "relu")):
        model = fresh(name)
        spec = describe_taps(model, (3, size, size))
        places = [tap for tap in spec.names if "." not in tap and tap != CAM]
        assert places == ["stem", "stage1", "stage2", "stage3", "stage4"]
        assert spec.resolve("last") == "stage4"
        assert [spec.channels[t] for t in places] == [64, 64, 128, 256, 512]
        assert [spec.sizes[t][0] for t in places] == [size // d for d in (2, 4, 8, 16, 32)]
        taps = (stem, "layer1", "layer2", "layer3", "layer4", "layer2.0.conv1", "layer4.1")
        features = model.eval()(images(size), [*places, *(f"module.{t}" for t in taps)]).features
        for stage, path in zip(places, taps, strict=False):
            assert torch.equal(features[stage], features[f"module.{path}"])
        assert torch.equal(features["module.layer4.1"], features["stage4"])
        assert features["module.layer2.0.conv1"].shape == (2, 128, size // 8, size // 8)
    with pytest.raises(ValueError, match=r"no tap named 'module.layer9'; this model has: .*stem, stage1"):
        model(images(), ["module.layer9"])


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("torchvision:mobilenet_v2", ["features.1", "features.3", "features.6", "features.13", "features"]),
        ("torchvision:convnext_tiny", [None, "features.1", "features.3", "features.5", "features"]),
        ("timm:convnext_atto", [None, "stages.0", "stages.1", "stages.2", "stages.3"]),
        ("timm:vgg11", ["features.1", "features.4", "features.9", "features.14", "features.19", "features.20"]),
    ],
)
def test_stages_of_families(name: str, paths: list[str | None]) -> None:
    named = ["stem", *(f"stage{i}" for i in range(1, 9))]
    expected = {tap: path for tap, path in zip(named, paths, strict=False) if path}
    places = fresh(name)._places
    assert {tap: path for tap, (path, _) in places.items() if not tap.startswith("module.")} == expected


def test_a_map_is_what_its_module_returned_despite_later_changes() -> None:
    """resnet18 adds its shortcut in place to what bn2 returned."""
    model = fresh("torchvision:resnet18").eval()
    features = model(images(), ["module.layer1.0.conv2", "module.layer1.0.bn2"]).features
    recomputed = model.net.layer1[0].bn2(features["module.layer1.0.conv2"])
    assert torch.equal(recomputed, features["module.layer1.0.bn2"])


@pytest.mark.parametrize("name", SMALL)
def test_keys_are_the_librarys_own_frozen_too(name: str) -> None:
    model = fresh(name).eval()
    library, _, bare = name.partition(":")
    other = timm.create_model(bare, num_classes=10) if library == "timm" else torchvision.models.get_model(
        bare, num_classes=10
    )  # fmt: skip
    other.eval()
    assert list(model.state_dict()) == list(other.state_dict())
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(images()).logits, other(images()))
    before = model(images(), ["stage2"])
    assert fold_batch_norms(model) == 0
    assert list(model.state_dict()) == list(other.state_dict())
    assert torch.equal(model(images(), ["stage2"]).features["stage2"], before.features["stage2"])
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({})


def test_it_trains_and_leaves_no_hooks() -> None:
    student, teacher = fresh("timm:mobilenetv1_100").train(), fresh("torchvision:resnet18").eval()
    shape = (3, 32, 32)
    for method in (FitNets, AT):
        distiller = method(describe_taps(student, shape), describe_taps(teacher, shape))
        with torch.no_grad():
            teacher_outputs = teacher(images(), distiller.teacher_taps)
        (loss,) = distiller(None, student(images(), distiller.student_taps), teacher_outputs).values()
        loss.backward()
        reached = student.net.get_submodule("blocks.1").parameters()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in reached)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*student.modules(), *teacher.modules()))


def test_auxiliary_heads_are_left_out() -> None:
    model = fresh("torchvision:googlenet").train()
    assert model(images(64)).logits.shape == (2, 10)


def test_grey_images_and_the_same_weights_from_the_same_seed() -> None:
    model = fresh("timm:test_resnet", 1).eval()
    assert model(torch.zeros(2, 1, 8, 8)).logits.shape == (2, 10)
    twin = fresh("timm:test_resnet", 1)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) > 5


# Transformers and token mixers


def tokens_net(name: str, params: dict[str, Any], size: int, device: str = "cpu") -> LibraryNet:
    library, _, bare = name.partition(":")
    torch.manual_seed(0)
    with torch.device(device):
        if library == "timm":
            net = timm.create_model(bare, num_classes=10, **params)
        else:
            net = torchvision.models.get_model(bare, num_classes=10, **params)
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # so that attention is what modules return
    return LibraryNet(net, (3, size, size)).eval()


SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2, "depth": 2}
SMALL_SWIN = {"img_size": 32, "window_size": 2, "embed_dim": 8, "num_heads": (1, 1, 2, 2), "depths": (2, 1, 1, 1)}
# name, params, image size, tokens before the patches, class token
TOKENS: list[tuple[str, dict[str, Any], int, int, bool]] = [
    ("timm:vit_tiny_patch16_224", SMALL_VIT, 32, 1, True),
    ("timm:vit_tiny_patch16_224", {**SMALL_VIT, "depth": 1, "qk_norm": True, "num_heads": 3}, 32, 1, True),
    ("timm:vit_small_patch14_reg4_dinov2", SMALL_VIT, 32, 5, True),
    ("timm:deit_tiny_distilled_patch16_224", SMALL_VIT, 32, 2, True),
    ("timm:swin_tiny_patch4_window7_224", SMALL_SWIN, 32, 0, False),
    ("timm:swin_tiny_patch4_window7_224", {**SMALL_SWIN, "patch_size": 1, "embed_dim": 32}, 32, 0, False),
    ("timm:swinv2_tiny_window8_256", {**SMALL_SWIN, "img_size": 64}, 64, 0, False),
    ("timm:mixer_s16_224", {"img_size": 32}, 32, 0, False),
    ("timm:resmlp_12_224", {"img_size": 64}, 64, 0, False),
    ("timm:gmlp_ti16_224", {"img_size": 32}, 32, 0, False),
    ("timm:cait_xxs24_224", {"img_size": 32, "depth": 2}, 32, 1, True),
    ("timm:beit_base_patch16_224", SMALL_VIT, 32, 1, True),
]


@pytest.mark.parametrize(("name", "params", "size", "extra", "has_class"), TOKENS)
def test_stages_of_tokens_are_the_librarys_intermediate_maps(
    name: str, params: dict[str, Any], size: int, extra: int, has_class: bool
) -> None:
    model, x = tokens_net(name, params, size), images(size)
    places = [tap for tap in model.tap_names if "." not in tap]
    with torch.no_grad():
        outputs = model(x, places)
        last, intermediates = model.net.forward_intermediates(x)
        read = model.net.forward_head(model.net.forward_features(x), pre_logits=True)
    assert places[-2:] == (["tokens", "cls"] if has_class else [places[-2], "tokens"])
    stages = [tap for tap in places if tap.startswith("stage")]
    ends = stage_ends(len(intermediates))
    assert stages == [f"stage{i}" for i in range(1, len(ends) + 1)]
    for stage, end in zip(stages, ends, strict=True):
        assert torch.equal(outputs.features[stage], intermediates[end - 1])
    flat = last.flatten(1, 2) if last.ndim == 4 else last
    assert torch.equal(outputs.features["tokens"].flatten(2).mT, flat[:, extra:])
    if has_class:
        assert torch.equal(outputs.features["cls"], flat[:, 0, :, None, None])
    torch.testing.assert_close(outputs.embedding, read)
    assert describe_taps(model, (3, size, size)).resolve("last") == stages[-1]


def test_stages_of_isotropic_networks() -> None:
    assert {n: stage_ends(n) for n in (1, 2, 3, 4, 6, 8, 12, 24)} == {
        1: [1],
        2: [1, 2],
        3: [1, 2, 3],
        4: [1, 2, 3, 4],
        6: [2, 3, 5, 6],
        8: [2, 4, 6, 8],
        12: [2, 4, 10, 12],
        24: [2, 4, 22, 24],
    }


# What attention multiplies, and tables of positions. Names of timm's and torchvision's modules.
NO_MAPS = {"softmax", "attn_drop", "q_norm", "k_norm", "talking_head1", "talking_head2", "proj_l", "proj_w", "cpb_mlp"}
WITH_ATTENTION = [
    *((name, params, size) for name, params, size, _, _ in TOKENS),
    ("timm:efficientformerv2_s0", {}, 224),
    ("timm:xcit_nano_12_p16_224", {"depth": 2}, 64),
    ("timm:levit_128s", {}, 224),
    ("timm:vit_tiny_patch16_224", {**SMALL_VIT, "patch_size": 32, "depth": 1}, 32),
    ("torchvision:vit_b_32", {}, 224),
    ("torchvision:swin_t", {}, 224),
]


@pytest.mark.parametrize(("name", "params", "size"), WITH_ATTENTION)
def test_no_tap_is_attention(name: str, params: dict[str, Any], size: int) -> None:
    model = tokens_net(name, params, size, "meta")
    assert len([tap for tap in model.tap_names if tap.startswith("module.")]) > 5
    assert not [tap for tap in model.tap_names if NO_MAPS & set(tap.split("."))]
    spec = describe_taps(model, (3, size, size))
    assert all(h == w for h, w in spec.sizes.values())


@pytest.mark.parametrize("name", ["timm:mixer_s16_224", "timm:gmlp_ti16_224"])
def test_layers_that_mix_tokens_are_no_taps_but_blocks_are(name: str) -> None:
    taps = tokens_net(name, {"img_size": 256}, 256, "meta").tap_names  # of 16x16 tokens: as many as gMLP's half width
    assert "module.blocks.3" in taps and "module.blocks.3.norm1" not in taps or name.endswith("mixer_s16_224")
    assert not [tap for tap in taps if "mlp_tokens" in tap or tap.endswith("gate.proj")]


@pytest.mark.parametrize(
    ("name", "params", "tap"),
    [
        ("timm:vit_tiny_patch16_224", SMALL_VIT, "cls"),
        ("timm:swin_tiny_patch4_window7_224", SMALL_SWIN, "tokens"),
        ("timm:mixer_s16_224", {"img_size": 32}, "tokens"),
        ("timm:deit_tiny_distilled_patch16_224", SMALL_VIT, None),  # the mean of two layers' logits
    ],
)
def test_heads_of_token_models(name: str, params: dict[str, Any], tap: str | None) -> None:
    head = describe_taps(tokens_net(name, params, 32), (3, 32, 32)).head
    assert (head and head.tap) == tap


def test_deit_with_two_heads_returns_one_tensor_in_training_too() -> None:
    model = tokens_net("timm:deit_tiny_distilled_patch16_224", SMALL_VIT, 32)
    for mode in (True, False):
        outputs = model.train(mode)(images(), ["stage1"])
        assert outputs.logits.shape == (2, 10) and outputs.embedding.shape == (2, 24)


class PlainViT(nn.Module):
    """A ViT as a user writes it, of torch's own modules."""

    def __init__(self, tokens_before: int):
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2))
        self.first = nn.Parameter(torch.zeros(1, tokens_before, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        return self.fc(self.norm(self.encoder(x))[:, 0])


@pytest.mark.parametrize(("before", "image"), [(1, (3, 32, 32)), (3, (3, 32, 32)), (1, (3, 16, 32))])
def test_a_plain_modules_tokens_are_maps_whatever_stands_before_them(before: int, image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = LibraryNet(PlainViT(before), image).eval()
    spec = describe_taps(model, image)
    assert [tap for tap in spec.names if "." not in tap] == ["stem", "stage1", "stage2", "tokens", "cls", CAM]
    assert spec.resolve("last") == "stage2" and spec.sizes[CAM] == (1, 1)
    grid = (image[1] // 8, image[2] // 8)
    assert spec.sizes["stem"] == spec.sizes["stage1"] == spec.sizes["tokens"] == grid and spec.sizes["cls"] == (1, 1)
    assert spec.head is not None and spec.head.tap == "cls"
    net, x = model.net, torch.randn(2, *image)
    tokens = net.norm(net.encoder(torch.cat([net.first.expand(2, -1, -1), net.patches(x).mT], 1)))
    torch.testing.assert_close(model(x, ["tokens"]).features["tokens"].flatten(2).mT, tokens[:, before:])


@pytest.mark.parametrize(
    ("name", "params", "size", "taps", "classifier"),
    [
        # It multiplies maps as matrices; they stay maps.
        ("timm:bat_resnext26ts", {}, 256, ["stem", "stage1", "stage2", "stage3", "stage4"], "head.fc"),
        ("timm:naflexvit_base_patch16_gap", {"depth": 1}, 384, ["stem", "stage1", "tokens"], "head"),  # registers alone
        ("timm:crossvit_tiny_240", {}, 240, [], "head.1"),  # maps of two branches
    ],
)
def test_places_of_unusual_networks(
    name: str, params: dict[str, Any], size: int, taps: list[str], classifier: str
) -> None:
    model = tokens_net(name, params, size, "meta")
    places = [tap for tap in model.tap_names if "module" not in tap and "preact" not in tap]
    assert (places, model._classifiers) == (taps, [classifier])

"""Names of datasets, models and methods as papers print them, and our names for them."""

# dataset as printed -> the file here, named as the harness names the dataset
DATASETS = {"CIFAR-100": "cifar100", "ImageNet-1k": "imagenet", "MS-COCO 2017": "coco"}

_CIFAR = (
    "MobileNetV2", "ResNet50", "ShuffleV1", "ShuffleV2", "resnet110", "resnet20", "resnet32", "resnet32x4", "resnet56",
    "resnet8x4", "vgg13", "vgg8", "wrn_16_2", "wrn_40_1", "wrn_40_2",
)  # fmt: skip
_DETECTORS = {
    **{f"FasterRCNN-R{depth}-FPN": f"fasterrcnn_resnet{depth}_fpn" for depth in (18, 50, 101)},
    **{f"RetinaNet-R{depth}": f"retinanet_resnet{depth}_fpn" for depth in (50, 101)},
    "FasterRCNN-MobileNetV2-FPN": "fasterrcnn_mobilenet_v2_fpn",
}
_OTHER_DETECTORS = (
    "ATSS-R101", "ATSS-R50", "CascadeMaskRCNN-X101", "FCOS-R101", "FCOS-R50", "GFL-R101", "GFL-R50",
)  # fmt: skip
NO_TEACHER = "none"  # printed for students without a teacher; also our name

# dataset -> model as printed -> its name in sweep files; "" if the harness does not have it
MODELS = {
    "CIFAR-100": {name: name for name in _CIFAR} | {"ShuffleV2x1.5": ""},
    "ImageNet-1k": {f"ResNet{depth}": f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    | {"MobileNetV1": "timm:mobilenetv1_100"},
    "MS-COCO 2017": _DETECTORS | {name: "" for name in _OTHER_DETECTORS} | {NO_TEACHER: NO_TEACHER},
}

# The same of benchmarks that print other models under these names: OFA-KD's pairs are timm's models, on CIFAR-100 too.
# Its Swin-P and Swin-N are custom_model/swin_transformer.py of Hao840/OFAKD @18476ce.
_SWIN = "timm:swin_tiny_patch4_window7_224"
_HETEROGENEOUS = {
    "BEiT-L": "timm:beit_large_patch16_224",
    "BEiTv2-B": "timm:beitv2_base_patch16_224",
    "ConvNeXt-T": "timm:convnext_tiny",
    "ConvNeXtV2-T": "timm:convnextv2_tiny",
    "DeiT-S": "timm:deit_small_patch16_224",
    "DeiT-T": "timm:deit_tiny_patch16_224",
    "Mixer-B/14": "",
    "Mixer-B/16": "timm:mixer_b16_224",
    "Mixer-S/16": "timm:mixer_s16_224",
    "MobileNetV1": "timm:mobilenetv1_100",
    "MobileNetV2": "timm:mobilenetv2_100",
    "RegNetY-160": "timm:regnety_160",
    "ResMLP-S12": "timm:resmlp_12_224",
    "ResNet18": "timm:resnet18",
    "ResNet50": "timm:resnet50",
    "Swin-L": "timm:swin_large_patch4_window7_224",
    "Swin-N": f"{_SWIN}(depths=[2, 2, 2, 2], embed_dim=64, num_heads=[2, 4, 8, 16])",
    "Swin-T": _SWIN,
    "ViT-B": "timm:vit_base_patch16_224",
    "ViT-B/14": "",
    "ViT-S": "timm:vit_small_patch16_224",
    "ViT-Ti": "timm:vit_tiny_patch16_224",
}
MODELS_OF_BENCHMARKS = dict.fromkeys(("cifar100_hetero", "imagenet_hetero"), _HETEROGENEOUS)


def models_of(row: dict[str, str]) -> dict[str, str]:
    """Return the models of a row's benchmark, as printed and as named here."""
    return MODELS_OF_BENCHMARKS.get(row["benchmark"]) or MODELS.get(row["dataset"], {})


# The framework of a benchmark's detectors, from recipes.md. Numbers of different frameworks are not comparable.
FRAMEWORKS = {"coco_frcnn_fpn": "detectron2", "coco_frcnn_mmdet": "mmdetection", "coco_other": "mmdetection"}
# epochs of detectors as printed -> the length of training. A schedule of 1x is about 12 epochs in either framework.
SCHEDULES = {
    "1x (90k)": "1x (90k iterations of 16 images)",
    "180k it (bs8)": "1x (180k iterations of 8 images)",
    "3x (270k)": "3x (270k iterations of 16 images)",
    "1x": "1x (12 epochs)",
    "24": "2x (24 epochs)",
    "2x": "2x (24 epochs)",
    "2x ms": "2x (24 epochs), multi-scale",
}

# method as printed -> the module in methods/, and the settings of the printed variant, of the method or of the recipe.
# DKD+LSKD is `lskd` with another base. CRD+KD, NORM+KD and similar have none: a method with an additional KL term is
# not a method here.
_OURS = {
    "AB": "ab", "ABLoss": "ab", "AT": "at", "CC": "cc", "CRD": "crd", "DIST": "dist", "DKD": "dkd", "FGFI": "fgfi",
    "FSP": "fsp", "FT": "ft", "FitNet": "fitnets", "KD": "kd", "NST": "nst", "OFD": "ofd", "PKT": "pkt", "RKD": "rkd",
    "ReviewKD": "reviewkd", "SP": "sp", "SimKD": "simkd", "VID": "vid", "baseline": "student", "student": "student",
    "CAT-KD": "catkd", "CTKD": "ctkd", "ICKD": "ickd", "MGD": "mgd", "NKD": "nkd", "OFA": "ofa", "PKD": "pkd",
    "SRRL": "srrl", "TTM": "ttm", "WKD-F": "wkd_f", "WKD-L": "wkd_l", "WTTM": "wttm",
}  # fmt: skip
_NOT_OURS = (
    "CKD", "CLKD", "CRD+KD", "CSKD", "CrossKD", "CrossKD+PKD", "DIST+", "DIST++",
    "DIST+mimic", "DKD++", "DKD+CTKD", "DiffKD", "DistPro", "EA-FCFD", "EA-KD", "EA-MLKD", "EA-MLKD+LSKD", "FBKD",
    "FBT", "FCFD", "FGD", "FGD (inherit)", "FKD", "GID", "HSAKD", "HSAKD (augmented teacher)", "IKL-KD",
    "ITRD", "KD++", "KD-Zero", "L2", "LDRLD", "MRKD", "MasKD", "NORM",
    "NORM (plain FT)", "NORM+CRD", "NORM+KD", "ONE", "PAD-L2", "PAT", "RLTF-CRD", "RLTF-KD",
    "RSD", "ReviewKD++", "SD-DKD",
    "SD-KD", "SD-NKD", "SDD", "SKD", "SRD", "SSKD", "ScaleKD", "SemCKD",
    "TAID", "Tf-KD", "VkD", "WCoRD", "WKD-L+F", "WSLD", "WTTM+CRD",
    "WTTM+ITRD", "student+default FT", "student+plain FT",
)  # fmt: skip
TEACHER = "teacher"  # printed rows of the teacher's own accuracy
METHODS: dict[str, tuple[str, str]] = (
    {f"SimKD (f={factor})": ("simkd", f"factor={factor}") for factor in (2, 4, 8)}
    | {printed: (ours, "") for printed, ours in _OURS.items()}
    | {printed: ("", "") for printed in _NOT_OURS}
    | {f"{base.upper()}+LSKD": ("lskd", f"base={base}") for base in ("kd", "dkd", "mlkd", "ctkd")}
    | {"KD+DOT": ("kd", "optimizer=dot"), "MLKD": ("mlkd", "strong_view=True"), TEACHER: (TEACHER, "")}
)
_EPOCHS_OF_MLKD = (
    "MLKD's files (Jin-Ying/Multi-Level-Logit-Distillation) had 480 epochs; on 2024-09-23 commit 5ee473f made it 240 "
    "in six, those of equal architectures"
)
NOTES = {("CIFAR-100", method): _EPOCHS_OF_MLKD for method in ("MLKD", "MLKD+LSKD")}  # on the numbers of a method

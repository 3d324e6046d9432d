"""Protocols of the sources: rules that give each row of the input its protocol, or exclude it.

The evidence is the input's notes, the README and recipes.md next to it, and numbers that repeat an earlier source's to
the last digit. Facts that none of them states are ``unknown`` or empty here, never guessed.
"""

from dataclasses import dataclass
from typing import Literal

# The epoch of a number. ``best`` is chosen on the test set; ``last`` is about 0.3 points lower.
Epoch = Literal["last", "best", "unknown"]
# own: trained by the source's authors. quoted: from another source, by its own statement or by equal numbers.
# unstated: printed next to their own, of unstated origin. secondary: from a page about the paper.
Origin = Literal["own", "quoted", "unstated", "secondary"]


@dataclass(frozen=True)
class When:
    """A condition on the rows of a source; an empty field matches every row."""

    methods: tuple[str, ...] = ()  # as printed; "*X" and "X*" match by their end or start
    note: str = ""  # a part of the row's note
    metric: str = ""
    dataset: str = ""

    def fits(self, row: dict[str, str]) -> bool:
        """Return whether the rule is for this row."""
        method = row["method"]
        named = not self.methods or any(
            method == m or (m[0] == "*" and method.endswith(m[1:])) or (m[-1] == "*" and method.startswith(m[:-1]))
            for m in self.methods
        )
        return (
            named
            and self.note in row["note"]
            and self.metric in ("", row["metric"])
            and self.dataset in ("", row["dataset"])
        )


@dataclass(frozen=True)
class Rule:
    """A protocol. Its full id is ``id`` plus the printed number of epochs: rows of different lengths are separate."""

    id: str
    label: str  # of a column
    epoch: Epoch = "unknown"
    origin: Origin = "own"
    when: When = When()
    recipe: str = ""  # in benchmarks/recipes, if the source's settings for CIFAR-100 are known to be the same
    teachers: str | None = ""  # the source of the teachers' rows; "": this one, None: unknown
    teacher_value: str = ""  # the teacher's accuracy, if only a note states it
    plain: bool = True  # False: every method has an additional term, so that none is a method of ours
    note: str = ""


@dataclass(frozen=True)
class Exclusion:
    """An exclusion of rows, with its reason. ``repeats`` is the rule whose numbers they must equal."""

    reason: str
    when: When
    repeats: str = ""


CRD = "CRD (RepDistiller README.md @b84f547)"
LSKD_PAPER = "LSKD paper text (tables 1-3)"
_REPEATS_CRD = "repeats RepDistiller's last-epoch numbers in a table of other numbers"
_OFA = "OFA-KD's protocol (arXiv:2310.19444): 224 pixels; the columns but the paper's own are OFA-KD's numbers"
_MLKD = "MLKD's own files have 240 for six pairs of equal architectures since 2024-09-23, 480 before"

SOURCES: dict[str, tuple[Rule | Exclusion, ...]] = {
    CRD: (Rule("crd_last", "CRD (RepDistiller)", "last", recipe="crd_240ep"),),
    "CRD-Reproduction README (ChenBill900703/CRD-Reproduction, )": (
        Rule("crd_rerun_last", "CRD-Reproduction", "last", note="5 seeds, sample std; an independent re-run"),
    ),
    "CRD-Reproduction README (ChenBill900703/CRD-Reproduction, ) quoting the CRD paper": (
        Rule("crd_paper", "CRD paper, as quoted", origin="quoted", teachers=None),
    ),
    "DKD/DOT (mdistiller README.md @a08d46f)": (
        Exclusion(
            "the column's head names MobileNetV2, its values are ShuffleV2's elsewhere: the student is not certain",
            When(note="suspected header typo"),
        ),
        Exclusion(_REPEATS_CRD, When(methods=("KD",), dataset="CIFAR-100"), repeats="crd_last"),
        Rule(
            "mdistiller_quoted", "mdistiller, baselines", origin="quoted", when=When(("KD",)), teachers=None,
            note="its KD rows repeat others' numbers on CIFAR-100; whose this one is, is not stated",
        ),
        Rule(
            "mdistiller_best", "mdistiller", "best", recipe="crd_240ep", teachers=CRD,
            note="the trainer tracks the best test epoch; the teachers' files are RepDistiller's",
        ),
    ),
    "LSKD (logit-standardization-KD README.md @f6e5aa5)": (
        Rule(
            "lskd_mlkd_best", "LSKD over MLKD", "best", when=When(("MLKD+LSKD",)), teachers=LSKD_PAPER,
            note="mean of 4 trials; 480 epochs, 960 for ShuffleNets: not matched with the other methods. " + _MLKD,
        ),
        Rule(
            "lskd_mlkd_baseline", "LSKD, MLKD", origin="quoted", when=When(("MLKD",)), teachers=LSKD_PAPER,
            note="480 epochs, 960 for ShuffleNets: not matched with the other methods. " + _MLKD,
        ),
        Rule(
            "lskd_best", "LSKD", "best", when=When(("*+LSKD",)), teachers=LSKD_PAPER, note="mean of 4 trials",
        ),
        Rule(
            "lskd_baselines", "LSKD, baselines", origin="quoted", teachers=LSKD_PAPER,
            note="KD repeats RepDistiller's last epoch, DKD mostly mdistiller's best",
        ),
    ),
    "LSKD logs (logit-standardization-KD logs/ @f6e5aa5)": (
        Rule(
            "lskd_logs_best", "LSKD logs", "best", when=When(metric="top1_best"), teachers=LSKD_PAPER,
            note="one logged run; 41 logs hold both: best - last averages 0.32 points (0.11 to 0.92)",
        ),
        Rule(
            "lskd_logs_last", "LSKD logs", "last", when=When(metric="top1_last"), teachers=LSKD_PAPER,
            note="one logged run; 41 logs hold both: best - last averages 0.32 points (0.11 to 0.92)",
        ),
    ),
    LSKD_PAPER: (
        Rule(
            "lskd_paper_best", "LSKD paper", "best", when=When(("*+LSKD",)),
            note="LSKD prints the best test epoch",
        ),
        Rule(
            "lskd_paper_baselines", "LSKD paper, baselines", origin="quoted",
            note="quoted or re-run, as printed: which, is not stated row by row",
        ),
    ),
    "MRKD (MonotonicRankDistillation README.md @2bfee57)": (
        Rule(
            "mrkd", "MRKD", teachers=None,
            note="printed as Ours; its file for resnet32x4 -> resnet8x4 has 240 epochs",
        ),
    ),
    "ITRD (ITRD README.md @5d08c6b)": (
        Rule("itrd", "ITRD", when=When(("ITRD",))),
        Rule("itrd_baselines", "ITRD, baselines", origin="unstated"),
    ),
    "TTM (TTM README.md @fe457b3)": (
        Rule("ttm", "TTM", when=When(("TTM", "WTTM*")), note="mean of 3 runs on CIFAR-100"),
        Rule(
            "ttm_baselines", "TTM, baselines", origin="quoted",
            note="some DIST and ITRD values are the authors' re-runs",
        ),
    ),
    "NORM (NORM README.md @c6dfc39)": (
        Rule("norm_imagenet", "NORM", when=When(("NORM*", "student"), dataset="ImageNet-1k"), note="cosine schedule"),
        Rule("norm", "NORM", when=When(("NORM*", "student*")), note="the undistilled students are NORM's own re-runs"),
        Rule("norm_baselines", "NORM, baselines", origin="quoted"),
    ),
    "DIST (DIST_KD README.md @2418f18)": (
        Rule("dist", "DIST", when=When(("DIST*",), dataset="MS-COCO 2017")),
        Rule("dist", "DIST", when=When(("DIST*",)), note="mean and std as printed on CIFAR-100"),
        Rule("dist_baselines", "DIST, baselines", origin="unstated"),
    ),
    "KD++ (Knowledge-Distillation-via-ND README.md; earlier version )": (
        Rule("kdpp", "KD++", when=When(("*++",))),
        Rule("kdpp_rerun", "KD++, re-run of DKD", when=When(note="authors re-run of official code"), teachers=None),
        Rule("kdpp_baselines", "KD++, baselines", origin="unstated"),
    ),
    "CTKD (CTKD README.md @7d52412)": (
        Rule(
            "ctkd_imagenet", "CTKD", when=When(dataset="ImageNet-1k"),
            note="own weights of teacher and student: never to be pooled with CRD's protocol",
        ),
        Rule("ctkd", "CTKD", when=When(("CTKD",))),
        Rule("ctkd_baselines", "CTKD, baselines", origin="quoted", note="five of six numbers are RepDistiller's"),
    ),
    "SimKD (SimKD README.md)": (
        Rule(
            "simkd", "SimKD", when=When(("student", "KD", "teacher", "SimKD*")),
            note="in KD, CE and KL both weigh 1: never to be pooled with CRD's protocol",
        ),
        Rule(
            "simkd_with_kl", "SimKD, methods with KL", plain=False,
            note="every method has a KL term of weight 1 added: none is the method of its name elsewhere",
        ),
    ),
    "SSKD (SSKD README.md @661b972)": (
        Exclusion(_REPEATS_CRD, When(("KD",)), repeats="crd_last"),
        Rule(
            "sskd", "SSKD",
            note="teachers and students trained anew, baselines tuned: never to be pooled with CRD's protocol",
        ),
    ),
    "HSAKD (HSAKD README.md @28c8dc2)": (
        Rule(
            "hsakd_augmented", "HSAKD, augmented teacher", when=When(("HSAKD (augmented teacher)",)), teachers=None,
            note="the teacher is trained with self-supervised augmentation: never to be pooled with another protocol",
        ),
        Rule("hsakd", "HSAKD", note="own teachers and students: never to be pooled with CRD's protocol"),
    ),
    "WKD (WKD README.md @214cf88)": (Rule("wkd", "WKD"),),
    "IKL-KD (DKL DKLv1/KD-dkl/README.md @c5e8ad2)": (Rule("ikl_kd_readme", "IKL-KD README"),),
    "IKL-KD paper text (tables 4,13,14)": (
        Rule("ikl_kd", "IKL-KD", when=When(("IKL-KD",)), note="mean of 3 trials on CIFAR-100"),
        Rule("ikl_kd_baselines", "IKL-KD, baselines", origin="quoted"),
    ),
    "SDD paper text (tables 1-4)": (
        Exclusion(
            "SDD prints its ResNet50 -> MobileNetV2 value again for vgg13 -> MobileNetV2",
            When(note="SDD prints the ResNet50->MobileNetV2 value again"),
        ),
        Rule("sdd", "SDD", when=When(("SD-*",))),
        Rule("sdd_baselines", "SDD, baselines", origin="unstated"),
    ),
    "TAID paper tables via paper-notes page": (Rule("taid_notes", "TAID, paper notes", origin="secondary"),),
    "LDRLD paper notes": (Rule("ldrld_notes", "LDRLD, paper notes", origin="secondary"),),
    "EA-KD paper notes": (Rule("ea_kd_notes", "EA-KD, paper notes", origin="secondary"),),
    "CKD paper tables quoted in an unofficial reproduction README": (
        Rule("ckd_quoted", "CKD, as quoted", origin="secondary"),
    ),
    "RLTF README": (
        Exclusion(
            "labelled CRD, differs from CRD's own numbers and is likely CRD+KD: the method is not certain",
            When(note="labelled CRD but differs from the CRD README"),
        ),
        Rule("rltf", "RLTF", when=When(("RLTF-*",))),
        Rule("rltf_baselines", "RLTF, baselines", origin="unstated"),
    ),
    "SKD (StreamLined README.md @7458628)": (
        Rule(
            "skd", "SKD",
            note="a re-run of all methods in one code base; undistilled students far below CRD's: never to be pooled "
            "with CRD's protocol",
        ),
    ),
    "SKD paper notes": (Rule("skd_notes", "SKD, paper notes", origin="secondary"),),
    "ReviewKD (ReviewKD ImageNet/README.md @cede6ea)": (Rule("reviewkd", "ReviewKD"),),
    "ReviewKD Paddle (ReviewKD Paddle/Classification/README.md)": (
        Rule("reviewkd_paddle", "ReviewKD, Paddle port", teacher_value="76.5"),
    ),
    "MGD (MGD cls/README.md @2c9da0b)": (Rule("mgd", "MGD"),),
    "MGD (MGD det/README.md @2c9da0b)": (
        Rule("mgd_det", "MGD", note="the README names no teacher; the one given is assumed from FGD's protocol"),
    ),
    "NKD (cls_KD nkd.md @1e5d48f)": (Rule("nkd", "NKD"),),
    "OFD (overhaul-distillation ImageNet/README.md @76344a8)": (Rule("ofd", "OFD", note="error rates"),),
    "DiffKD (DiffKD README.md @904a465)": (Rule("diffkd", "DiffKD"),),
    "SRD (Simple-Recipe-Distillation README.md @31e8477)": (Rule("srd", "SRD"),),
    "mmrazor configs/distill READMEs @90c7af1": (
        Rule("mmrazor_fbkd", "mmrazor", when=When(("FBKD",)), teacher_value="39.4"),
        Rule("mmrazor_pkd", "mmrazor", when=When(("PKD",)), teacher_value="39.8"),
        Rule("mmrazor", "mmrazor", note="re-runs in mmrazor"),
    ),
    "torchdistill (docs/source/_static/benchmarks/imagenet-resnet18_kd.tsv @3e4373c)": (
        Rule("torchdistill_original", "torchdistill, original works", origin="quoted", when=When(note="Original work")),
        Rule("torchdistill_pretrained", "torchvision weights", origin="quoted", when=When(("student",))),
        Rule("torchdistill", "torchdistill", note="re-runs in torchdistill"),
    ),
    "detectron2 (MODEL_ZOO.md @02b5c4e)": (
        Rule("detectron2", "detectron2", note="detectors without distillation"),
    ),
    "FGD (FGD README.md @c03a6cf)": (Rule("fgd_readme", "FGD README"),),
    "FGD paper text (table 2)": (
        Rule("fgd", "FGD", when=When(("FGD*", "student", "teacher"))),
        Rule("fgd_baselines", "FGD, baselines", origin="unstated"),
    ),
    "FGD paper text (table 3)": (Rule("fgd_table3", "FGD, baselines", origin="unstated"),),
    "MasKD (MasKD README.md @b5af34f)": (Rule("maskd", "MasKD"),),
    "CSKD (swkdn16/CSKD README.md, code search excerpt)": (
        Rule("cskd", "CSKD", teacher_value="39.8", note="from an excerpt of the README"),
    ),
    "CrossKD (CrossKD README.md @87e156a)": (Rule("crosskd", "CrossKD"),),
    "RSD (spacewanderx/RSD README.md)": (
        Rule("rsd_teachers", "RSD", note="the teachers' files that its code base offers"),
    ),
    "RSD paper notes (arXiv:2507.21844)": (
        Rule("rsd_notes", "RSD, paper notes", origin="secondary", teachers=None, note=_OFA),
    ),
    "FBT paper notes (arXiv:2410.12342)": (
        Rule("fbt_notes", "FBT, paper notes", origin="secondary", teachers=None, note=_OFA),
    ),
    "PAT paper notes (arXiv:2501.08885)": (
        Rule("pat_notes", "PAT, paper notes", origin="secondary", teachers=None, note=_OFA),
    ),
    "ScaleKD (ScaleKD README.md @0496859)": (Rule("scalekd", "ScaleKD"),),
    "vanillaKD (vanillaKD readme.md @298d53e)": (
        Rule("vanillakd", "vanillaKD", note="the readme's model zoo does not state the length of training"),
    ),
    "VkD (VkD README.md @0127415)": (Rule("vkd", "VkD"),),
}  # fmt: skip

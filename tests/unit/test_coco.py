"""COCO's annotations as the reader returns them, and the batches, sizes and boxes derived from them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness.data.annotations import Annotations
from harness.data.coco_manifest import REMARKS, Category
from harness.data.load import aspect_batches, resize
from harness.data.load.arrays import WrongData
from harness.data.load.coco import MULTIPLE, canvas
from harness.data.prepare import coco_json, image_names
from harness.data.prepare.coco_json import ImageEntry
from harness.data.prepare.plausibility import implausible
from harness.errors import UserError

# Ids with holes and out of order; a crowd; boxes of no width, of negative height, wholly and partly outside the image.
COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 40, "file_name": "b.jpg", "height": 60, "width": 80},
        {"id": 7, "file_name": "in/a.jpg", "height": 100, "width": 50},
        {"id": 41, "file_name": "empty.jpg", "height": 10, "width": 10},
    ],
    "categories": [{"id": 90, "name": "tooth"}, {"id": 0, "name": "person"}, {"id": 13, "name": "stop sign"}],
    "annotations": [
        {"id": 5, "image_id": 40, "category_id": 90, "bbox": [-5, 10, 20, 20], "area": 250.5, "iscrowd": 0},
        {"id": 3, "image_id": 40, "category_id": 13, "bbox": [1, 2, 3, 4], "area": 7, "iscrowd": 1, "segmentation": []},
        {"id": 9, "image_id": 7, "category_id": 0, "bbox": [10, 20, 30.5, 40]},
        {"id": 4, "image_id": 40, "category_id": 13, "bbox": [10, 10, 0, 5], "area": 1, "iscrowd": 0},
        {"id": 6, "image_id": 40, "category_id": 13, "bbox": [10, 10, 5, -5], "area": 1, "iscrowd": 0},
        {"id": 8, "image_id": 40, "category_id": 13, "bbox": [90, 10, 5, 5], "area": 25, "iscrowd": 0},
    ],
}


def read(folder: Path, value: Any) -> coco_json.Instances:
    path = folder / "instances.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return coco_json.read_instances(path)


def test_holes_crowds_empty_images_and_degenerate_boxes(tmp_path: Path) -> None:
    instances = read(tmp_path, COCO)
    assert instances.names == ("in/a.jpg", "b.jpg", "empty.jpg")
    assert [category.id for category in instances.categories] == [0, 13, 90]
    held = instances.annotations
    assert (held.image_ids.tolist(), held.firsts.tolist()) == ([7, 40, 41], [0, 1, 6, 6])
    assert held.labels.tolist() == [1, 3, 2, 2, 2, 2]
    assert held.areas.tolist() == [30.5 * 40, 250.5, 7, 1, 1, 25]
    assert held.counts(instances.heights, instances.widths) == {"objects": 2, "crowds": 1, "degenerate": 3}
    trained = held.training_objects(instances.heights, instances.widths)
    assert trained.boxes.tolist() == [[10, 20, 40.5, 60], [0, 10, 15, 30]] and trained.boxes.dtype == np.float32
    assert (trained.labels.tolist(), trained.counts.tolist()) == ([1, 3], [1, 1, 0])


def test_the_ground_truth_is_what_was_given(tmp_path: Path) -> None:
    instances = read(tmp_path, COCO)
    truth = instances.annotations.as_coco(instances.heights, instances.widths, instances.categories)
    assert truth["categories"] == sorted(COCO["categories"], key=lambda c: c["id"])
    assert truth["images"] == [
        {k: image[k] for k in ("id", "height", "width")} for image in sorted(COCO["images"], key=lambda i: i["id"])
    ]
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    expected = sorted(COCO["annotations"], key=lambda a: a["image_id"])
    expected = [{"area": 30.5 * 40, "iscrowd": 0, **annotation} for annotation in expected]
    assert [{k: a[k] for k in keys} for a in truth["annotations"]] == [{k: a[k] for k in keys} for a in expected]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4, 5, 6], "0 is no object to pycocotools"
    json.dumps(truth)


def test_a_part_of_the_images(tmp_path: Path) -> None:
    instances = read(tmp_path, COCO)
    part = instances.annotations.of_images(np.array([0, 2]))
    assert (part.image_ids.tolist(), part.firsts.tolist(), part.labels.tolist()) == ([7, 41], [0, 1, 1], [1])
    assert instances.annotations.of_images(np.arange(3)).digest() == instances.annotations.digest() != part.digest()


def test_no_annotation_at_all(tmp_path: Path) -> None:
    instances = read(tmp_path, COCO | {"annotations": []})
    assert instances.annotations.training_objects(instances.heights, instances.widths).counts.tolist() == [0, 0, 0]
    instances.annotations.save(tmp_path / "a.safetensors")
    assert Annotations.load(tmp_path / "a.safetensors", 3).digest() == instances.annotations.digest()


def changed(part: str, index: int, **changes: Any) -> dict[str, Any]:
    """Return COCO with other values in one entry; None removes a key."""
    value = json.loads(json.dumps(COCO))
    value[part][index] = {k: v for k, v in {**value[part][index], **changes}.items() if v is not None}
    return value


HUGE = 10**400
WRONG: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "not JSON: "),
    "deep": ("[" * 100_000, "not JSON: "),
    "thousands of digits": ('{"images": [' + "9" * 5000 + "]}", "not JSON: Exceeds the limit"),
    "a list": ([], "expected COCO's images, annotations and categories; found []"),
    "no images": ({k: v for k, v in COCO.items() if k != "images"}, "no 'images'; expected COCO's"),
    "none of them": (COCO | {"images": []}, "images: expected at least one"),
    "no category": (COCO | {"categories": []}, "categories: expected at least one"),
    "not lists": (COCO | {"annotations": {}}, "annotations: expected a list; found {}"),
    "not mappings": (COCO | {"annotations": [3]}, "annotations[0]: expected a mapping; found 3"),
    "image without a name": (changed("images", 1, file_name=None), "images[1]: no 'file_name'"),
    "id as truth": (changed("images", 1, id=True), "images[1].id: expected an integer from 0 to"),
    "huge id": (changed("images", 1, id=HUGE), "images[1].id: expected an integer from 0 to"),
    "image twice": (changed("images", 1, id=40), "images[1].id: expected an id that no other image has; found 40"),
    "category twice": (changed("categories", 1, id=90), "categories[1].id: expected an id that no other category has"),
    "no file": (changed("images", 0, file_name="a\0b"), "images[0].file_name: expected a file's name; found"),
    "no text": (changed("images", 0, file_name="\ud800"), "images[0].file_name: expected a file's name; found"),
    "unknown image": (changed("annotations", 0, image_id=8), "annotations[0].image_id: expected the id of one of the"),
    "unknown category": (changed("annotations", 2, category_id=1), "annotations[2].category_id: expected the id of"),
    "not a number": (changed("annotations", 0, bbox=[0, 0, float("nan"), 1]), "bbox: expected x, y, width and height"),
    "infinite": (changed("annotations", 0, bbox=[0, 0, float("inf"), 1]), "bbox: expected x, y, width and height"),
    "huge": (changed("annotations", 0, bbox=[0, 0, HUGE, 1]), "bbox: expected x, y, width and height"),
    "three numbers": (changed("annotations", 0, bbox=[0, 0, 1]), "bbox: expected x, y, width and height"),
    "width": (changed("images", 0, width=80.5), "images[0].width: expected an integer from 1 to 65,535; found 80.5"),
    "area": (changed("annotations", 0, area=[1]), "annotations[0].area: expected a finite number; found [1]"),
    "category's name": (changed("categories", 0, name=["x"]), "categories[0].name: expected text; found ['x']"),
    "id with a fraction": (changed("images", 1, id=7.5), "images[1].id: expected an integer from 0 to"),
    "pointer": ("version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer instead of the file"),
    "page": ("<!DOCTYPE html>", "is HTML or XML, not JSON"),
    "empty": ("", "is empty; expected COCO's images"),
    "lines": ('{"images": []}\n{"images": []}', "(char 15) (one JSON object a line?"),
    "sizes": (
        COCO | {"images": [*COCO["images"], {"id": 99, "file_name": "b.jpg", "height": 5, "width": 6}]},
        "images[3].file_name: expected a file that no other image has with another width or height; found 'b.jpg'"
    ),
    "crowd": (changed("annotations", 0, iscrowd=2), "annotations[0].iscrowd: expected an integer from 0 to 1; found 2"),
}  # fmt: skip


@pytest.mark.parametrize("value, message", WRONG.values(), ids=WRONG)
def test_wrong_files(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(UserError) as e:
        read(tmp_path, value)
    assert message in str(e.value) and str(e.value).startswith(f"{tmp_path}/instances.json: ")
    assert len(str(e.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    part=st.sampled_from(["images", "categories", "annotations"]),
    index=st.integers(0, 2),
    key=st.sampled_from(["id", "file_name", "height", "name", "image_id", "category_id", "bbox", "area", "iscrowd"]),
    value=JSON,
)
def test_a_file_with_any_content_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, part: str, index: int, key: str, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = json.loads(json.dumps(COCO))
    content[part][index][key] = value
    try:
        instances = read(folder, content)
    except UserError as e:
        assert "instances.json: " in str(e)
        return
    boxes = instances.annotations.training_objects(instances.heights, instances.widths).boxes
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()


def as_text(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image.update(id=str(image["id"]), height=str(image["height"]), width=float(image["width"]))
    for annotation in content["annotations"]:
        annotation.update(image_id=float(annotation["image_id"]), bbox=list(map(str, annotation["bbox"])))
    content["annotations"][0].update(area="250.5", category_id="90")


def of_crowds(*values: Any) -> Callable[[dict[str, Any]], None]:
    """Return an edit of the flags of annotations 0, 2 and 3, which are no crowds, and of 1, which is one."""

    def edit(content: dict[str, Any]) -> None:
        for i, value in zip((0, 2, 3, 1), values, strict=True):
            content["annotations"][i]["iscrowd"] = value

    return edit


def twice(content: dict[str, Any]) -> None:
    content["annotations"] += [{**content["annotations"][0], "id": 77}, content["annotations"][2]]
    first = content["images"][0]
    content["images"].append({**first, "id": 99, "file_name": f"./{first['file_name']}"})
    content["annotations"].append({**content["annotations"][1], "image_id": 99})


def without_boxes(content: dict[str, Any]) -> None:
    content["annotations"].append({"id": 11, "image_id": 41, "category_id": 13, "bbox": []})
    content["annotations"].append({"id": 12, "image_id": 41, "category_id": 13, "segmentation": [[]]})
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[-5, 10, 15, 10, 15, 12], [-5, 12, 3, 30]]
    content["annotations"][2].update(bbox=None, segmentation=[10, 20, 40.5, 60, 10, 60])
    content["annotations"][1] |= {"bbox": [], "segmentation": {"size": [60, 80], "counts": [62, 4, 56, 4, 56, 4, 4614]}}


def impossible_areas(content: dict[str, Any]) -> None:
    for i, area in ((2, float("nan")), (5, 10**400)):
        content["annotations"][i]["area"] = area


# What labelling tools write -> what is counted of it. The annotations are the same.
TOOLS: list[tuple[Callable[[dict[str, Any]], object], dict[str, int]]] = [
    (as_text, {"ids_as_text": 10, "numbers_as_text": 10}),
    (of_crowds(False, "0", None, True), {"crowd_flags": 4}),
    (of_crowds(0.0, "false", "", "1"), {"crowd_flags": 4}),
    (of_crowds(0, 0, 0, 1.0), {"crowd_flags": 1}),
    (without_boxes, {"without_box": 2, "boxes_of_outlines": 3}),
    (twice, {"annotations_twice": 3, "images_twice": 1}),
    (impossible_areas, {"areas_replaced": 2}),
    (lambda content: content["annotations"][5].update(id=5), {"ids_shared": 1}),
    (lambda content: content["annotations"][5].update(area=9_999), {"areas_replaced": 1}),
    (lambda content: content["annotations"][5].update(area=None), {"areas_replaced": 1}),
    (lambda content: content["annotations"][5].update(area=-1), {"areas_replaced": 1}),
    (lambda content: content["categories"][1].update(name=None, supercategory="person"), {"unnamed_categories": 1}),
    (lambda content: content["images"][1].update(file_name="C:\\in\\a.jpg"), {}),
]


@pytest.mark.parametrize("edit, remarks", TOOLS, ids=range(len(TOOLS)))
def test_what_labelling_tools_write_is_read_for_what_it_means(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], remarks: dict[str, int]
) -> None:
    expected, content = read(tmp_path, COCO), json.loads(json.dumps(COCO))
    edit(content)
    instances = read(tmp_path, content)
    assert instances.remarks == remarks and remarks.keys() <= REMARKS.keys()
    assert instances.annotations.digest() == expected.annotations.digest()
    assert instances.categories == expected.categories and not expected.remarks
    (tmp_path / "instances.json").write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(content).encode()))
    assert coco_json.read_instances(tmp_path / "instances.json").annotations.digest() == instances.annotations.digest()


def test_ids_that_are_no_numbers_and_missing_sizes(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COCO))
    for i, image in enumerate(content["images"]):
        image.update(id=f"img-{image['id']:03}", width=(None, "", 0)[i])
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img-{annotation['image_id']:03}"
    instances = read(tmp_path, content)
    assert instances.remarks == {"ids_numbered": 3, "sizes_read": 3} and instances.heights.tolist() == [0, 0, 0]
    assert instances.annotations.image_ids.tolist() == [1, 2, 3] and instances.names == (
        "in/a.jpg",
        "b.jpg",
        "empty.jpg",
    )
    assert instances.annotations.labels.tolist() == read(tmp_path, COCO).annotations.labels.tolist()


BOXES = [[40, 10, 30, 20], [50, 30, 40, 25], [5, 5, 60, 50], [20, 8, 10, 40]]  # in 100 x 60 pixels
CORNERS = [[x, y, x + w, y + h] for x, y, w, h in BOXES]


@pytest.mark.parametrize(
    "boxes, area, expected",
    [
        (BOXES, None, {}),
        (CORNERS, None, {"boxes_as_corners": 4}),
        ([box for box in CORNERS if box[2] < 50], 400, {"boxes_as_corners": 1}),
        ([[x / 100, y / 60, w / 100, h / 60] for x, y, w, h in BOXES], None, {"boxes_as_shares": 4}),
        ([*BOXES, [-3, 0, 20, 20], [90.5, 10, 10, 10]], None, {"boxes_outside": 1}),
    ],
)
def test_implausible_boxes(tmp_path: Path, boxes: list[list[float]], area: float | None, expected: Any) -> None:
    facts = {"area": area} if area else {}
    annotations = [{"image_id": 1, "category_id": 90, "bbox": box, **facts} for box in boxes]
    images = [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 100}]
    instances = read(tmp_path, COCO | {"images": images, "annotations": annotations})
    assert +implausible(instances.annotations, instances.heights, instances.widths) == expected


def test_an_area_of_1_everywhere_is_none(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COCO))
    for annotation in content["annotations"]:
        annotation["area"] = 1.0
    instances = read(tmp_path, content)
    assert (
        instances.annotations.areas.tolist() == [30.5 * 40, 400, 12, 1, 1, 25]
        and instances.remarks["areas_replaced"] == 4
    )


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a/b.jpg", ["a/b.jpg", "b.jpg"]),
        ("a\\b.jpg", ["a\\b.jpg", "a/b.jpg", "b.jpg"]),
        ("/data/b.jpg", ["data/b.jpg", "b.jpg"]),
        ("https://x.org/i/b.jpg?token=a/c#d", ["x.org/i/b.jpg", "i/b.jpg", "b.jpg"]),
        ("../a/../b.jpg", ["b.jpg"]),
        ("..\\b.jpg", ["..\\b.jpg", "b.jpg"]),
        ("a/..", []),
    ],
)
def test_spellings_of_a_file_name(name: str, expected: list[str]) -> None:
    spellings = image_names.spellings(name)
    assert [spelling for spelling in spellings if "://" not in spelling] == expected


@given(st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "/", "://", "b.jpg"]), max_size=6))
def test_no_spelling_leads_out_of_the_folder(parts: list[str]) -> None:
    for separator in ("", "/", "\\"):
        for spelling in image_names.spellings(separator.join(parts)):
            assert spelling and ".." not in Path(spelling).parts and not Path(spelling).is_absolute()


def test_files_of_names_from_elsewhere(tmp_path: Path) -> None:
    for name in ("0.jpg", "a/0.jpg", "a/1.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    (tmp_path / "secret.jpg").touch()

    def found(*names: str) -> list[str]:
        images = [ImageEntry(i, name, 1, 1, f"x.json: images[{i}].file_name") for i, name in enumerate(names)]
        chosen = image_names.folder_of([tmp_path / "none", tmp_path / "images"], names)
        assert chosen
        return image_names.names_in(*chosen, images)

    assert found("0.jpg", "missing.jpg") == ["0.jpg", "missing.jpg"]
    assert found("/x/0.jpg", "C:\\x\\a\\1.jpg", "x/a/0.jpg") == ["0.jpg", "a/1.jpg", "a/0.jpg"]
    assert found("images/0.jpg", "x/a/1.jpg") == ["0.jpg", "a/1.jpg"]
    assert found("a\\0.jpg", "b\\0.jpg") == ["a/0.jpg", "b\\0.jpg"]
    assert found("0.jpg", "b/0.jpg") == ["0.jpg", "b/0.jpg"], "others are missing where some are as they are named"
    with pytest.raises(
        UserError, match=r"x.json: images\[1\].file_name: expected a file's name below the image folder"
    ):
        found("0.jpg", "../secret.jpg")
    with pytest.raises(UserError, match=r"images\[1\].file_name: '/y/0.jpg' and '/x/0.jpg' both mean 0.jpg"):
        found("/x/0.jpg", "/y/0.jpg")


DAMAGE: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "label 0": lambda held: held["labels"].__setitem__(0, 0),
    "label of no class": lambda held: held["labels"].__setitem__(0, 4),
    "not a number": lambda held: held["boxes"].__setitem__((0, 0), np.nan),
    "another order": lambda held: held["firsts"].__setitem__(2, 0),
    "before the first": lambda held: held["firsts"].__setitem__(0, -1),
    "after the last": lambda held: held["firsts"].__setitem__(3, 7),
    "an image twice": lambda held: held["image_ids"].__setitem__(1, 7),
    "fewer areas": lambda held: held.update(areas=held["areas"][:3]),
    "other numbers": lambda held: held.update(labels=held["labels"].astype(np.int32)),
    "flat": lambda held: held.update(boxes=held["boxes"].reshape(-1)),
    "another tensor": lambda held: held.update(x=held["labels"]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_annotations_are_reported(tmp_path: Path, damage: Callable[[dict[str, np.ndarray]], object]) -> None:
    from safetensors.numpy import save_file

    held = {name: tensor.copy() for name, tensor in read(tmp_path, COCO).annotations._tensors().items()}
    save_file(held, path := tmp_path / "val.safetensors")
    assert Annotations.load(path, 3).labels.tolist() == [1, 3, 2, 2, 2, 2]
    damage(held)
    save_file(held, path)
    with pytest.raises(WrongData, match=r"val\.safetensors: "):
        Annotations.load(path, 3)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WrongData, match=r"val\.safetensors: damaged: "):
        Annotations.load(path, 3)


# Batches

shapes = st.lists(st.booleans(), min_size=1, max_size=70).map(torch.tensor)


@given(wide=shapes, batch_size=st.integers(1, 20), seed=st.integers(0, 2**31), epoch=st.integers(-3, 100))
def test_each_image_once_in_as_many_batches_as_without_groups(
    wide: torch.Tensor, batch_size: int, seed: int, epoch: int
) -> None:
    batches = aspect_batches.aspect_batches(seed, epoch, wide, batch_size)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(wide)))
    assert len(batches) == -(-len(wide) // batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1]) and 1 <= len(batches[-1]) <= batch_size
    mixed = [batch for batch in batches if wide[batch].any() and not wide[batch].all()]
    assert len(mixed) <= 2
    second = aspect_batches.aspect_batches(seed, epoch, wide, batch_size)
    assert all(a.equal(b) for a, b in zip(batches, second, strict=True))


def test_order_changes_with_seed_and_epoch_and_batches_of_both_shapes_come_mixed() -> None:
    wide = torch.arange(400) % 4 > 0
    orders = [aspect_batches.aspect_batches(seed, epoch, wide, 10) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(torch.cat(batches).tolist()) for batches in orders}) == 3
    shapes = ["".join("w" if wide[batch].all() else "t" for batch in batches) for batches in orders]
    assert len(set(shapes)) == 3
    assert all(shape.count("t") == 10 and "t" in shape[:20] and "t" in shape[20:] for shape in shapes)


# Sizes and boxes

lengths = st.integers(1, 4000)


@given(height=lengths, width=lengths, side=st.integers(16, 1000), longest=st.integers(16, 1600))
def test_sizes_fit(height: int, width: int, side: int, longest: int) -> None:
    ((h, w),) = resize.resized_sizes(np.array([height]), np.array([width]), side, longest).tolist()
    assert 1 <= max(h, w) <= longest and 1 <= min(h, w) <= side
    assert min(h, w) == side or max(h, w) == longest
    scale = max(h, w) / max(height, width)
    assert abs(height * scale - h) <= 1 and abs(width * scale - w) <= 1
    rows, columns = canvas(np.array([[h, w], [1, 1]]))
    assert rows % MULTIPLE == columns % MULTIPLE == 0 and 0 <= rows - h < MULTIPLE and 0 <= columns - w < MULTIPLE


# Calculated by hand: height, width, shorter, longest -> the size by detectron2's ResizeShortestEdge.
SIZES = {
    (480, 640, 800, 1333): (800, 1067),
    (640, 480, 800, 1333): (1067, 800),
    (333, 500, 800, 1333): (800, 1201),
    (200, 640, 800, 1333): (417, 1333),
    (480, 640, 640, 1333): (640, 853),
    (500, 500, 800, 600): (600, 600),
}


@pytest.mark.parametrize("asked, expected", SIZES.items())
def test_known_sizes(asked: tuple[int, int, int, int], expected: tuple[int, int]) -> None:
    height, width, side, longest = asked
    assert tuple(resize.resized_sizes(np.array([height]), np.array([width]), side, longest)[0]) == expected


def test_each_image_has_a_side_of_its_own() -> None:
    heights, widths = np.array([480, 480, 640]), np.array([640, 640, 480])
    sizes = resize.resized_sizes(heights, widths, np.array([640, 800, 800]), 1333)
    assert sizes.tolist() == [[640, 853], [800, 1067], [1067, 800]]


@st.composite
def boxed(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    size, shown = (draw(st.tuples(lengths, lengths)) for _ in range(2))
    drawn = draw(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5))
    corners = np.array(drawn, np.float32).reshape(-1, 2, 2)
    corners = np.sort(corners, axis=1).reshape(-1, 4)
    return corners * np.float32([size[1], size[0]] * 2), size, shown


@given(boxed())
def test_boxes_scale_with_their_image_and_stay_inside(
    made: tuple[np.ndarray, tuple[int, int], tuple[int, int]],
) -> None:
    given, size, shown = made
    resized = resize.resized_boxes(given, size, shown, flip=False)
    flipped = resize.resized_boxes(given, size, shown, flip=True)
    for boxes in (resized, flipped):
        assert boxes.dtype == np.float32 and boxes.shape == given.shape
        assert (boxes >= 0).all() and (boxes <= [shown[1], shown[0]] * 2).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()
    factor = np.array([shown[1] / size[1], shown[0] / size[0]] * 2)
    np.testing.assert_allclose(resized, given * factor, rtol=1e-6)
    twice = resize.resized_boxes(flipped, shown, shown, flip=True)
    np.testing.assert_allclose(twice, resized, atol=shown[1] * 2e-7)
    np.testing.assert_allclose(resize.resized_boxes(given, size, shown, False), given * factor, rtol=1e-6)
    assert np.array_equal(flipped[:, [1, 3]], resized[:, [1, 3]])


@given(st.floats(0, 0.02) | st.floats(0, 3), st.integers(0, 3990), st.integers(200, 1333))
@example(1e-5, 3000, 200)
def test_what_is_not_degenerate_never_becomes_it(side: float, x: int, longest: int) -> None:
    """Not even the smallest box at the far end of a large image becomes degenerate in a small size."""
    held = Annotations(
        image_ids=np.array([1]),
        firsts=np.array([0, 1]),
        labels=np.array([1]),
        boxes=np.array([[x, 0, side, 5.0]]),
        areas=np.array([1.0]),
        crowds=np.array([False]),
    )
    trained = held.training_objects(np.array([4000]), np.array([4000])).boxes
    assert len(trained) or side < 0.011
    shown = (longest, longest)
    for flip in (False, True):
        boxes = resize.resized_boxes(trained, (4000, 4000), shown, flip)
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_categories_are_named_in_the_order_of_labels(tmp_path: Path) -> None:
    expected = (Category(id=0, name="person"), Category(id=13, name="stop sign"), Category(id=90, name="tooth"))
    assert read(tmp_path, COCO).categories == expected

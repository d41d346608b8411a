"""CVAT, Label Studio, LabelMe and Roboflow files: what their documentation shows, and what is broken.

The fixtures follow the documented formats (CVAT XML 1.1, Label Studio's JSON, LabelMe and X-AnyLabeling 4.x,
Roboflow's COCO and YOLO exports); real servers do not run here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curator.data.formats.base import Broken, LabelledImage, OutputImage, Source
from curator.data.formats.labelling import attribute_text, attribute_value, original_stems
from curator.data.formats.labelme import LabelMeFormat
from curator.data.formats.placement import place
from curator.data.settings import WRITTEN
from curator.errors import FormatError
from curator.registry import FORMATS
from store.records import NewAnnotation

Picture = Callable[..., Path]
SIZE = (40, 30)


def source(name: str, path: Path, **options: Any) -> Source:
    found: Source = FORMATS.load(name)().open(path, **options)
    return found


def items(name: str, path: Path, **options: Any) -> list[LabelledImage | Broken]:
    return list(source(name, path, **options).items)


def one(name: str, path: Path, **options: Any) -> LabelledImage:
    (item,) = items(name, path, **options)
    assert isinstance(item, LabelledImage), item
    return place(item, SIZE)


def boxes(item: LabelledImage) -> list[tuple[str, tuple[float, ...]]]:
    return [(a.category, a.box) for a in item.annotations or ()]


def test_the_formats_that_are_written_are_named() -> None:
    """The help texts list them; every built-in format is there or is read alone."""
    read_alone = {"images", "video", "deeppcb"}
    assert set(FORMATS.names()) == set(WRITTEN) | read_alone
    for name in WRITTEN:
        assert FORMATS.load(name)().carried([]) == ()


@pytest.mark.parametrize(
    "value",
    [
        "van",
        "12",
        " x",
        "",
        'say "no"',
        "nan",
        "NaN",
        "true",
        True,
        None,
        1.5,
        [1, "a"],
        "line\nbreak",
        "\x07",
    ],
)
def test_attributes_are_texts_and_back(value: Any) -> None:
    assert attribute_value(attribute_text(value)) == value


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a_b-0123456789ab_jpg.rf.0a1B2c3D4e5F.jpg", "a_b-0123456789ab"),
        ("1f2e3d4c-a-0123456789ab.jpg", "a-0123456789ab"),
        ("upload/3/1f2e3d4c-a.png", "a"),
        ("a-0123456789ab.jpg", "a-0123456789ab"),
    ],
)
def test_the_names_that_tools_changed(name: str, stem: str) -> None:
    assert stem in original_stems(name)


# ---------------------------------------------------------------- CVAT

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
META = "<meta><{0}><labels>{1}</labels></{0}></meta>"
BOX = '<box label="car" source="manual" occluded="1" xtl="1" ytl="2.5" xbr="11" ybr="22" z_order="0">{}</box>'


def cvat(
    tmp_path: Path, shapes: str, meta: str = "", image: str = 'name="a.png" width="40" height="30"'
) -> Path:
    file = tmp_path / "annotations.xml"
    file.write_text(f'{HEAD}{meta}<image id="0" {image}>{shapes}</image></annotations>')
    return file


def test_cvat_as_exported(tmp_path: Path, picture: Picture) -> None:
    """A job's export with images: attributes, a mark, a tag, a subset."""
    path = picture("images/train/a.png")
    labels = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in ("car", "bus"))
    marks = '<attribute name="difficult">true</attribute><attribute name="age">3</attribute>'
    image = 'name="a.png" subset="train" task_id="4" width="40" height="30"'
    cvat(
        tmp_path,
        BOX.format(marks) + '<tag label="night" source="manual"></tag>',
        META.format("job", labels),
        image,
    )
    found = source("cvat", tmp_path)
    assert (found.categories, found.listed, found.count) == (("car", "bus"), ("car", "bus"), 1)
    (item,) = found.items
    assert isinstance(item, LabelledImage)
    assert (item.path, item.split, item.declared_size, item.tags) == (path, "train", SIZE, {"night": "true"})
    (a,) = item.annotations or ()
    assert (a.box, a.difficult, a.attributes) == ((1, 2.5, 11, 22), True, {"age": 3})
    assert items("cvat", tmp_path, split="test") == []
    assert boxes(one("cvat", tmp_path, classes=["bus"])) == []


@pytest.mark.parametrize(
    ("shape", "box", "note"),
    [
        ('<polygon label="car" points="1,2;9.5,2;5,20"/>', (1, 2, 9.5, 20), None),
        ('<ellipse label="car" cx="10" cy="10" rx="5" ry="3"/>', (5, 7, 15, 13), "ellipse"),
        ('<mask label="car" rle="1" left="3" top="4" width="5" height="6"/>', (3, 4, 8, 10), "mask"),
        (BOX.format("").replace("<box", '<box rotation="90"'), (-3.75, 7.25, 15.75, 17.25), "turned by 90"),
    ],
)
def test_cvat_shapes_that_have_a_box(
    tmp_path: Path, picture: Picture, shape: str, box: tuple[float, ...], note: str | None
) -> None:
    picture("a.png")
    (item,) = items("cvat", cvat(tmp_path, shape))
    assert isinstance(item, LabelledImage)
    assert [a.box for a in item.annotations or ()] == [pytest.approx(box)]
    assert [note in n for n in item.notes if note] == [True] * bool(note)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (BOX.format("").replace('"11"', '"0.5"'), "negative size"),
        (BOX.format("").replace('"11"', '"x"'), "numbers"),
        (BOX.format("").replace('xbr="11"', ""), "numbers"),
        (BOX.format("").replace('"car"', '"bus"'), "unknown class 'bus'"),
        ('<points label="car" points="1,2"/>', "has no box"),
        ('<skeleton label="car"/>', "has no box"),
        ('<polygon label="car" points="1,2;3"/>', "expected points"),
        ('<polygon label="car" points="1,2;3,4"/>', "at least 3 points"),
    ],
)
def test_a_broken_shape_of_cvat_is_named(tmp_path: Path, picture: Picture, shape: str, reason: str) -> None:
    picture("a.png")
    meta = META.format("task", "<label><name>car</name></label>")
    item = one("cvat", cvat(tmp_path, BOX.format("") + shape, meta))
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert reason in item.problems[0]
    assert item.incomplete


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not readable as XML"),
        (HEAD, "not readable as XML"),
        ("<annotation/>", "expected <annotations>"),
        (HEAD + '<track id="0" label="car"></track></annotations>', "CVAT for images 1.1"),
        (
            f'<!DOCTYPE x [<!ENTITY e "boom">]>{HEAD.partition(chr(10))[2]}<image name="&e;"/></annotations>',
            "entities",
        ),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotations/>', None),
    ],
)
def test_a_broken_file_of_cvat_is_refused_in_one_line(tmp_path: Path, text: str, reason: str | None) -> None:
    (tmp_path / "annotations.xml").write_text(text)
    if reason is None:  # an outer document type is not fetched
        assert items("cvat", tmp_path) == []
        return
    with pytest.raises(FormatError, match=reason) as caught:
        source("cvat", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
    (tmp_path / "annotations.xml").write_text(
        f'<!DOCTYPE x [<!ENTITY x0 "x">{bomb}]><annotations>&x11;</annotations>'
    )
    with pytest.raises(FormatError, match="entities"):
        source("cvat", tmp_path)
    (tmp_path / "label_config.xml").write_text((tmp_path / "annotations.xml").read_text())
    (tmp_path / "tasks.json").write_text("[]")
    with pytest.raises(FormatError, match="entities"):
        source("label-studio", tmp_path)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\\\..\\\\etc\\\\passwd", "file:///etc/passwd"]
)
@pytest.mark.parametrize("form", ["cvat", "label-studio", "labelme"])
def test_no_name_leads_outside(tmp_path: Path, form: str, name: str) -> None:
    inner = tmp_path / "set"
    inner.mkdir()
    if form == "cvat":
        cvat(inner, BOX.format(""), image=f'name="{name}" width="40" height="30"')
    elif form == "label-studio":
        (inner / "tasks.json").write_text(
            json.dumps([{"data": {"image": name}, "annotations": [{"result": []}]}])
        )
    else:
        (inner / "a.json").write_text(json.dumps({"imagePath": name, "shapes": [], "imageData": None}))
    for item in items(form, inner):
        assert isinstance(item, Broken) or (item.path.is_relative_to(inner) and not item.path.exists())


# ---------------------------------------------------------------- Label Studio


def region(**changes: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 50, "height": 30, "rotation": 0, "rectanglelabels": ["car"]}
    given = {
        "id": "r1",
        "type": "rectanglelabels",
        "original_width": 40,
        "original_height": 30,
        "value": value,
    }
    value.update({k: v for k, v in changes.items() if k not in ("type", "id", "score", "meta")})
    return {**given, **{k: v for k, v in changes.items() if k in ("type", "id", "score", "meta")}}


def tasks(tmp_path: Path, *given: Any) -> Path:
    (tmp_path / "project-1.json").write_text(json.dumps(list(given)))
    return tmp_path


def task(image: str = "/data/upload/1/abcdef12-a%20b.png", **more: Any) -> dict[str, Any]:
    return {"id": 5, "data": {"image": image}, "annotations": [{"result": [region()]}], **more}


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/abcdef12-a%20b.png",
        "/data/local-files/?d=set/images/a%20b.png",
        "s3://bucket/folder/a b.png",
        "http://localhost:8080/data/upload/3/01234567-a%20b.png",
        "abcdef12-a b.png",
    ],
)
def test_label_studios_addresses_lead_to_the_image(tmp_path: Path, picture: Picture, address: str) -> None:
    path = picture("images/a b.png")
    item = one("label-studio", tasks(tmp_path, task(address)))
    assert item.path == path
    assert boxes(item) == [("car", (4, 6, 24, 15))]


def test_whose_labels_count_in_label_studio(tmp_path: Path, picture: Picture) -> None:
    for name in "abcde":
        picture(f"{name}.png")
    old = {"result": [region(x=0)], "created_at": "2026-01-01T00:00:00Z"}
    new = {"result": [], "created_at": "2026-01-02T00:00:00Z"}
    skipped = {"result": [region()], "was_cancelled": True, "created_at": "2026-01-03T00:00:00Z"}
    guess = [{"model_version": "m", "score": 0.5, "result": [region(score=0.5)]}]
    tasks(
        tmp_path,
        task("a.png", annotations=[new, old, skipped]),
        task("b.png", annotations=[skipped], predictions=guess),
        task("c.png", annotations=[], predictions=[17]),
        task("d.png", annotations=[old], predictions=guess),
        {"id": 9, "image": "e.png", "label": [region()["value"]]},
    )
    a, b, c, d, e = (i for i in items("label-studio", tmp_path) if isinstance(i, LabelledImage))
    assert (a.annotations, a.status, a.notes) == (
        (),
        "human",
        ("task 5 has 2 annotations; the newest counts",),
    )
    assert (b.status, [x.attributes for x in b.annotations or ()]) == ("pre-annotation", [{"score": 0.5}])
    assert c.annotations is None
    assert (d.status, len(d.annotations or ())) == ("human", 1)
    assert len(e.annotations or ()) == 1


def test_regions_of_label_studio(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    results = [
        region(rotation=90),
        region(id="r2", type="rectangle", rectanglelabels=None),
        {"id": "r2", "type": "labels", "value": {"labels": ["bus"]}},
        {"id": "r2", "type": "choices", "from_name": "size", "value": {"choices": ["small"]}},
        region(id="p", type="polygonlabels", points=[[0, 0], [50, 0], [50, 100]], polygonlabels=["car"]),
    ]
    del results[1]["value"]["rectanglelabels"], results[4]["value"]["rectanglelabels"]
    item = one("label-studio", tasks(tmp_path, task("a.png", annotations=[{"result": results}])))
    assert boxes(item) == [("car", (0, 6, 4, 26)), ("bus", (4, 6, 24, 15)), ("car", (0, 0, 20, 30))]
    assert any("turned by 90 degrees" in note for note in item.notes)
    assert (item.annotations or ())[1].attributes == {"size": "small"}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (region(width=-3), "negative size"),
        (region(width="x"), "numbers"),
        (region(rectanglelabels=[]), "unknown class"),
        (region(rectanglelabels=["car", "bus"]), "expected one class"),
        (region(type="keypointlabels"), "has no box"),
    ],
)
def test_a_broken_region_is_named(
    tmp_path: Path, picture: Picture, broken: dict[str, Any], reason: str
) -> None:
    picture("a.png")
    item = one("label-studio", tasks(tmp_path, task("a.png", annotations=[{"result": [region(), broken]}])))
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert reason in item.problems[0]
    assert item.incomplete


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a": 1}', "one list"), ("[1, 2]", "list of tasks"), ('[{"data": ', "valid JSON"), ("", "JSON")],
)
def test_a_broken_file_of_label_studio_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(FormatError, match=reason) as caught:
        source("label-studio", tmp_path)
    assert "\n" not in str(caught.value)


def test_tasks_without_an_image_and_twice_the_same(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    found = items("label-studio", tasks(tmp_path, {"id": 1, "data": {}}, task("a.png"), task("./a.png")))
    assert [isinstance(item, Broken) for item in found] == [True, False, True]
    assert [i.reason for i in found if isinstance(i, Broken)] == [
        "task 1: data names no image",
        "task 5 and task 5 show one image; one image, one task",
    ]


def test_predictions_carry_their_model_and_score(tmp_path: Path, output: Callable[..., OutputImage]) -> None:
    boxes = [NewAnnotation(category="car", box=(1, 2, 3, 4), attributes={"score": 0.5})]
    item = output("a", boxes, pre_annotated=True, lineage={"role": "pool", "labels_by": "f00"})
    list(FORMATS.load("label-studio")().write(tmp_path / "out", ["car", 'a "b"'], [item]))
    (given,) = json.loads((tmp_path / "out/tasks.json").read_text())
    (prediction,) = given["predictions"]
    assert (prediction["model_version"], prediction["score"], given["annotations"]) == ("f00", 0.5, [])
    assert source("label-studio", tmp_path / "out").categories == ("car", 'a "b"')


# ---------------------------------------------------------------- LabelMe, X-AnyLabeling


def shape(points: Any, kind: str = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": "car", "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme(tmp_path: Path, *shapes: Any, name: str = "a", **more: Any) -> Path:
    table = {"version": "5.5.0", "flags": {}, "imagePath": f"{name}.png", "imageData": None, **more}
    (tmp_path / f"{name}.json").write_text(json.dumps({**table, "shapes": list(shapes)}))
    return tmp_path


CORNERS = [[1, 2], [11, 2], [11, 22], [1, 22]]


def test_labelme_and_x_anylabeling_are_read(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    picture("unseen.png")
    (tmp_path / "other.json").write_text('{"no": "shapes"}')
    labelme(
        tmp_path,
        shape([[11, 22], [1, 2]], flags={"hidden": True, "cut": False}),
        shape(CORNERS, score=0.5, difficult=True, attributes={"colour": "red"}, kie_linking=[]),
        shape([[1, 2], [11, 2], [5, 22]], "polygon"),
        shape([[10, 10], [10, 13]], "circle"),
        imageWidth=40,
        imageHeight=30,
    )
    found = [i for i in items("labelme", tmp_path) if isinstance(i, LabelledImage)]
    assert [(i.name, i.annotations is None) for i in found] == [("a.png", False), ("unseen.png", True)]
    first, second, third, fourth = found[0].annotations or ()
    assert (first.box, first.attributes) == ((1, 2, 11, 22), {"hidden": True})
    assert (second.box, second.difficult) == ((1, 2, 11, 22), True)
    assert second.attributes == {"colour": "red", "score": 0.5}
    assert (third.box, third.polygon) == ((1, 2, 11, 22), ((1, 2, 11, 2, 5, 22),))
    assert fourth.box == (7, 7, 13, 13)
    assert [note.split("; ")[0] for note in found[0].notes] == ["car: a polygon", "car: a circle"]


def test_the_image_in_the_file_is_used_where_there_is_no_other(tmp_path: Path, picture: Picture) -> None:
    content = picture("elsewhere/a.png").read_bytes()
    (tmp_path / "set").mkdir()
    data = base64.b64encode(content).decode()
    labelme(tmp_path / "set", shape(CORNERS), imageData=data)
    labelme(tmp_path / "set", shape(CORNERS), name="b", imageData="!")
    labelme(tmp_path / "set", shape(CORNERS), name="c", imageData=base64.b64encode(b"text").decode())
    found = list(LabelMeFormat(frames=tmp_path / "frames").open(tmp_path / "set").items)
    assert isinstance(found[0], LabelledImage)
    assert found[0].path.read_bytes() == content
    assert found[0].path.is_relative_to(tmp_path / "frames")
    assert ["base64" in str(found[1]), "no picture that is known" in str(found[2])] == [True, True]
    own = picture("set/a.png", colour=3)
    (item, *_) = LabelMeFormat(frames=tmp_path / "frames").open(tmp_path / "set").items
    assert isinstance(item, LabelledImage)
    assert item.path == own


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (shape([[1, 2]]), "2 or 4 corners"),
        (shape([[1, 2], [1, "x"]]), "numbers"),
        (shape(CORNERS, label=None), "unknown class"),
        (shape([[1, 2], [3, 4]], "line"), "has no box"),
        (shape("no"), "2 or 4 corners"),
    ],
)
def test_a_broken_shape_of_labelme_is_named(
    tmp_path: Path, picture: Picture, broken: dict[str, Any], reason: str
) -> None:
    picture("a.png")
    item = one("labelme", labelme(tmp_path, shape(CORNERS), broken))
    assert len(item.annotations or ()) == len(item.problems) == 1
    assert reason in item.problems[0]
    assert item.incomplete


def test_a_class_that_the_list_lacks_is_a_class(tmp_path: Path, picture: Picture) -> None:
    """People add classes in the tool."""
    picture("a.png")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nbus\n")
    found = source("labelme", labelme(tmp_path, shape(CORNERS)))
    assert (found.categories, found.notes) == (
        ("bus", "car"),
        ("classes that the list of classes lacks: car",),
    )


def test_a_broken_file_of_labelme_is_named(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    picture("b.png")
    (tmp_path / "b.json").write_text('{"shapes": [')
    _, broken = items("labelme", labelme(tmp_path, shape(CORNERS)))
    assert isinstance(broken, Broken)
    assert "b.json: expected valid JSON" in broken.reason
    with pytest.raises(FormatError, match="found none"):
        source("labelme", picture("empty/a.png").parent)


# ---------------------------------------------------------------- Roboflow


def roboflow_coco(tmp_path: Path, picture: Picture) -> None:
    kinds = [
        {"id": 0, "name": "vehicles", "supercategory": "none"},
        {"id": 1, "name": "car", "supercategory": "vehicles"},
    ]
    for split in ("train", "valid", "test"):
        name = "a_jpg.rf.0123456789abcdef0123456789abcdef.jpg"
        picture(f"{split}/{name}", colour=len(split))
        table = {
            "images": [{"id": 0, "license": 1, "file_name": name, "height": 30, "width": 40}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 200}],
            "categories": kinds,
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(table))
    (tmp_path / "README.roboflow.txt").write_text("...")


def test_roboflows_coco_is_one_data_set(tmp_path: Path, picture: Picture) -> None:
    roboflow_coco(tmp_path, picture)
    found = source("coco", tmp_path)
    assert (found.categories, found.count) == (("car",), 3)
    assert found.notes == ("category 0 'vehicles' stands for all others; left out",)
    images = [item for item in found.items if isinstance(item, LabelledImage)]
    assert [(i.split, i.name.partition("/")[0], len(i.annotations or ())) for i in images] == [
        ("train", "train", 1),
        ("valid", "valid", 1),
        ("test", "test", 1),
    ]
    assert [i.split for i in items("coco", tmp_path, split="valid") if isinstance(i, LabelledImage)] == [
        "valid"
    ]


def test_a_category_0_that_is_used_stays(tmp_path: Path, picture: Picture) -> None:
    roboflow_coco(tmp_path, picture)
    file = tmp_path / "test/_annotations.coco.json"
    file.write_text(file.read_text().replace('"category_id": 1', '"category_id": 0'))
    assert source("coco", tmp_path).categories == ("car", "vehicles")


def test_roboflows_yolo_is_read(tmp_path: Path, picture: Picture) -> None:
    for split in ("train", "valid"):
        picture(f"{split}/images/a_jpg.rf.0123456789abcdef.jpg", colour=len(split))
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels/a_jpg.rf.0123456789abcdef.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    lines = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['car']\n"
    (tmp_path / "data.yaml").write_text(lines)
    found = [i for i in items("yolo", tmp_path) if isinstance(i, LabelledImage)]
    assert [(i.split, len(i.annotations or ())) for i in found] == [("train", 1), ("val", 1)]

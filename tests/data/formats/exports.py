"""The same four images as each annotation tool exports them: `a` to `c` with a cat and a dog, `d` without labels.

All objects are rectangles of whole pixels, so that every tool's way of drawing gives the same mask.
"""

from __future__ import annotations

import base64
import io
import json
import pathlib
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (24, 32)
NAMES = ("a", "b", "c")
CLASSES = ("background", "cat", "dog")
COLOURS = ((0, 0, 0), (250, 50, 83), (51, 221, 255))


def image(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def boxes(name: str) -> list[tuple[str, int, int, int, int]]:
    """(class, left, top, right, bottom), ends included; the dog is drawn over the cat."""
    k = NAMES.index(name)
    return [("cat", 3 + k, 4, 14 + k, 13), ("dog", 10 + k, 8, 20 + k, 18)]


def truth(name: str) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    for label, left, top, right, bottom in boxes(name):
        mask[top : bottom + 1, left : right + 1] = CLASSES.index(label)
    return mask


def region(box: tuple[str, int, int, int, int]) -> np.ndarray:
    _, left, top, right, bottom = box
    found = np.zeros(SIZE, bool)
    found[top : bottom + 1, left : right + 1] = True
    return found


def save(path: pathlib.Path, array: np.ndarray, **options) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_images(folder: pathlib.Path, suffix: str = ".png", names=(*NAMES, "d")) -> None:
    for name in names:
        save(folder / f"{name}{suffix}", image(name))


def dump(path: pathlib.Path, content: object) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def classes_json(root: pathlib.Path, **changes) -> pathlib.Path:
    return dump(root / "classes.json", {"classes": list(CLASSES), "background": "background", **changes})


def folder(root: pathlib.Path) -> None:
    save_images(root / "train/images")
    for name in NAMES:
        save(root / f"train/masks/{name}.png", truth(name))
    classes_json(root)


def pairs(root: pathlib.Path) -> None:
    save_images(root / "images")
    for name in NAMES:
        save(root / f"masks/{name}.png", truth(name))
    (root / "classes.txt").write_text("\n".join(CLASSES))


def mmsegmentation(root: pathlib.Path) -> None:
    for name in (*NAMES, "d"):
        save(root / f"img_dir/train/{name}_leftImg8bit.png", image(name))
    for name in NAMES:
        save(root / f"ann_dir/train/{name}_gtFine_labelTrainIds.png", truth(name))
    classes_json(root)


def voc(root: pathlib.Path) -> None:
    save_images(root / "JPEGImages")
    for name in NAMES:
        mask = Image.fromarray(truth(name)).convert("P")
        mask.putdata(truth(name).ravel().tolist())
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\nc\nd\n")
    (root / "names.txt").write_text("\n".join(CLASSES))


def cvat(root: pathlib.Path) -> None:
    save_images(root / "JPEGImages", ".jpg")
    for name in NAMES:
        save(root / f"SegmentationClass/{name}.png", np.array(COLOURS, np.uint8)[truth(name)])
        save(root / f"SegmentationObject/{name}.png", np.array(COLOURS, np.uint8)[truth(name)])
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("a\nb\nc\nd\n")
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(CLASSES, COLOURS, strict=True)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines, ""]))


def labelme(root: pathlib.Path) -> None:
    save_images(root)
    for name in NAMES:
        cat, dog = boxes(name)
        _, left, top, right, bottom = cat
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        _, x0, y0, x1, y1 = dog
        drawn = png(np.full((y1 - y0 + 1, x1 - x0 + 1), True))
        shapes = [
            {"label": "cat", "points": corners, "shape_type": "polygon", "group_id": None, "flags": {}},
            {
                "label": "dog",
                "points": [[x0, y0], [x1, y1]],
                "shape_type": "mask",
                "mask": base64.b64encode(drawn).decode(),
            },
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
        dump(root / f"{name}.json", {**content, "imageHeight": SIZE[0], "imageWidth": SIZE[1]})


def labelme2voc(root: pathlib.Path) -> None:
    save_images(root / "JPEGImages", ".jpg")
    for name in NAMES:
        save(root / f"SegmentationClassPNG/{name}.png", truth(name))
        save(root / f"SegmentationClassVisualization/{name}.jpg", image(name))
        (root / "SegmentationClass").mkdir(exist_ok=True)
        np.save(root / f"SegmentationClass/{name}.npy", truth(name).astype(np.int32))
    (root / "class_names.txt").write_text("_background_\ncat\ndog")


def rle_pack(values: np.ndarray) -> list[int]:
    """Label Studio's encoding of bytes: runs of equal values, and one run of values as they are."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    # The first four values as they are, so that both kinds of runs occur.
    bits += "0" + "00" + f"{3:03b}" + "".join(f"{value:08b}" for value in values[:4])
    ends = [*(np.flatnonzero(np.diff(values[4:].astype(int))) + 5).tolist(), len(values)]
    start = 4
    for end in ends:
        while start < end:
            step = min(end - start, 65536)
            bits += "1" + "11" + f"{step - 1:016b}" + f"{values[start]:08b}"
            start += step
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def label_studio(root: pathlib.Path) -> None:
    save_images(root / "images")
    tasks = []
    for k, name in enumerate((*NAMES, "d"), 1):
        result = []
        for n, box in enumerate(boxes(name) if name in NAMES else ()):
            alpha = region(box).astype(np.uint8) * 255
            rgba = np.repeat(alpha[..., None], 4, -1)
            save(root / f"task-{k}-annotation-{k}-by-1-tag-{box[0]}-{n}.png", alpha)
            value = {"format": "rle", "rle": rle_pack(rgba.ravel()), "brushlabels": [box[0]]}
            size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
            result.append({**size, "value": value, "from_name": "tag", "to_name": "image", "type": "brushlabels"})
        annotations = [{"id": k, "was_cancelled": False, "ground_truth": False, "result": result}] if result else []
        address = f"/data/upload/7/0123abcd-{name}.png" if k % 2 else f"/data/local-files/?d=pets/{name}.png"
        tasks.append({"id": k, "data": {"image": address}, "annotations": annotations})
    dump(root / "project-7.json", tasks)


def roboflow(root: pathlib.Path) -> None:
    save_images(root / "train", ".jpg")
    for name in NAMES:
        save(root / f"train/{name}_mask.png", truth(name))
    (root / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    (root / "README.roboflow.txt").write_text("x")


def supervisely(root: pathlib.Path, masks: bool = False) -> None:
    save_images(root / "ds1/img", ".jpg")
    titles = [{"title": name, "shape": "bitmap", "color": "#FF0000"} for name in CLASSES[1:]]
    dump(root / "meta.json", {"classes": titles, "tags": [], "projectType": "images"})
    dump(root / "obj_class_to_machine_color.json", {"cat": [1, 1, 1], "dog": [2, 2, 2]})
    for name in NAMES:
        if masks:
            save(root / f"ds1/masks_machine/{name}.png", np.repeat(truth(name)[..., None], 3, -1))
            continue
        cat, dog = boxes(name)
        _, x0, y0, x1, y1 = dog
        polygon = {"exterior": [[cat[1], cat[2]], [cat[3], cat[2]], [cat[3], cat[4]], [cat[1], cat[4]]], "interior": []}
        data = base64.b64encode(zlib.compress(png(np.full((y1 - y0 + 1, x1 - x0 + 1), True)))).decode()
        objects = [
            {"classTitle": "cat", "geometryType": "polygon", "points": polygon},
            {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [x0, y0]}},
        ]
        size = {"height": SIZE[0], "width": SIZE[1]}
        dump(root / f"ds1/ann/{name}.jpg.json", {"description": "", "tags": [], "size": size, "objects": objects})


def supervisely_masks(root: pathlib.Path) -> None:
    supervisely(root, masks=True)


def run_lengths(found: np.ndarray) -> list[int]:
    """Uncompressed run lengths down the columns."""
    flat = np.concatenate([[False], found.T.ravel()])
    return np.diff([0, *np.flatnonzero(np.diff(flat)).tolist(), found.size]).tolist()


def coco(root: pathlib.Path) -> None:
    """Categories with a gap; a polygon, compressed run lengths, and uncompressed ones with iscrowd."""
    save_images(root / "images", ".jpg")
    annotations = []
    for k, name in enumerate(NAMES):
        cat, dog = boxes(name)
        _, left, top, right, bottom = cat
        polygon = [left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1]
        packed = coco_mask.encode(np.asfortranarray(region(dog)))
        runs = {"size": list(SIZE), "counts": packed["counts"].decode() if k else run_lengths(region(dog))}
        annotations.append({"image_id": k, "category_id": 3, "segmentation": [polygon], "iscrowd": 0})
        annotations.append({"image_id": k, "category_id": 9, "segmentation": runs, "iscrowd": int(not k)})
    records = [
        {"id": k, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for k, name in enumerate((*NAMES, "d"))
    ]
    categories = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    content = {"images": records, "annotations": annotations, "categories": categories}
    content["annotations"] = [{"id": k, **one} for k, one in enumerate(annotations)]
    dump(root / "annotations.json", content)


EXPORTS: dict[str, tuple[str, Callable[[pathlib.Path], None]]] = {
    write.__name__: (name, write)
    for name, write in (
        ("folder", folder),
        ("pairs", pairs),
        ("pairs", mmsegmentation),
        ("voc", voc),
        ("cvat", cvat),
        ("labelme", labelme),
        ("labelme2voc", labelme2voc),
        ("label-studio", label_studio),
        ("roboflow", roboflow),
        ("supervisely", supervisely),
        ("supervisely", supervisely_masks),
        ("coco", coco),
    )
}
"""Name -> (format, function that writes the files into a folder)."""

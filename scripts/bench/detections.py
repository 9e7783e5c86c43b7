"""pycocotools' side of run_detections.py, and the boxes for both: `make FOLDER` or `judge ANNOTATIONS FOUND`, which prints a line of JSON."""

import contextlib
import importlib.metadata
import io
import json
import pathlib
import sys
import time

import numpy as np

PHOTOS, CLASSES, FOUND = 5000, 80, 100


def make(folder):
    """As many photos, classes and truths as COCO's val2017 has, and 100 detections in each photo, most of them near a truth."""
    rng = np.random.default_rng(1)
    often = rng.dirichlet(np.full(CLASSES, 0.3))
    annotations, found = [], []
    for photo in range(PHOTOS):
        # 7.4 truths of 2.9 classes on average.
        kinds = rng.choice(CLASSES, 1 + rng.poisson(2.2), p=often)
        truths = []
        for label in rng.choice(kinds, rng.geometric(1 / 7.4)):
            w, h = np.exp(rng.normal([4.0, 4.0], 0.9)).clip(4, 400)
            x, y = rng.random(2) * [640 - w, 480 - h]
            truths.append((label, np.array([x, y, w, h])))
            annotations.append({
                "id": len(annotations) + 1, "image_id": photo, "category_id": int(label) + 1, "bbox": [round(v, 2) for v in (x, y, w, h)],
                "area": round(0.6 * w * h, 2), "iscrowd": int(rng.random() < 0.012),
            })  # fmt: skip
        for _ in range(FOUND):
            label, box = truths[rng.integers(len(truths))]
            if rng.random() < 0.7:
                box = box + rng.normal(0, rng.choice([0.03, 0.15, 0.5]), 4) * box[[2, 3, 2, 3]]
            else:
                label, box = rng.integers(CLASSES), np.concatenate([rng.random(2) * 400, rng.random(2) * 200])
            found.append({
                "image_id": photo, "category_id": int(label) + 1, "score": round(float(rng.random()), 5),
                "bbox": [round(float(v), 2) for v in [*box[:2], *np.abs(box[2:])]],
            })  # fmt: skip
    known = {"images": [{"id": k} for k in range(PHOTOS)], "categories": [{"id": k + 1} for k in range(CLASSES)], "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(known))
    (folder / "found.json").write_text(json.dumps(found))


def judge(annotations, found):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(annotations)
        judge = COCOeval(known, known.loadRes(found), "bbox")
        start = time.perf_counter()
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        seconds = time.perf_counter() - start
    version = importlib.metadata.version("pycocotools")
    print(json.dumps({"seconds": seconds, "numbers": list(judge.stats), "pycocotools": version, "numpy": np.__version__}))


if sys.argv[1] == "make":
    make(pathlib.Path(sys.argv[2]))
    print("{}")
else:
    judge(*sys.argv[2:4])

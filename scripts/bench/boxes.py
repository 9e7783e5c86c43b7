"""DETR's training pictures by torchvision's transforms v2 behind a DataLoader: CocoDetection, flip, the crop policy, random short sides,
normalisation, and a batch padded with its mask.

boxes.py ROOT ANNOTATIONS PHOTOS [--batch 4] [--workers 2] [--steps 40]; prints one line of JSON, as crates/core/examples/scenes.rs.
"""

import argparse
import json
import os
import pathlib
import time

import PIL
import torch
import torchvision
from torchvision import datasets
from torchvision.transforms import v2

WARM_UP = 2


class SizeCrop(v2.Transform):
    """A part with sides from `low` to `high`, anywhere."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, inputs):
        height, width = v2.functional.get_size(inputs[0])
        side = lambda whole: int(torch.randint(min(self.low, whole), min(self.high, whole) + 1, ()))
        h, w = side(height), side(width)
        top, left = int(torch.randint(0, height - h + 1, ())), int(torch.randint(0, width - w + 1, ()))
        return dict(top=top, left=left, height=h, width=w)

    def transform(self, one, params):
        return self._call_kernel(v2.functional.crop, one, **params)


def padded(pairs):
    """Pictures of unlike sizes in one tensor, with the mask of what is padding."""
    height, width = (max(image.shape[at] for image, _ in pairs) for at in (1, 2))
    images = torch.zeros(len(pairs), 3, height, width)
    mask = torch.ones(len(pairs), height, width, dtype=torch.bool)
    for place, (image, _) in enumerate(pairs):
        images[place, :, : image.shape[1], : image.shape[2]] = image
        mask[place, : image.shape[1], : image.shape[2]] = False
    return images, mask, [target for _, target in pairs]


class Endless(torch.utils.data.Sampler):
    """Round and round, each time in another order."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        while True:
            yield from torch.randperm(self.n).tolist()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("annotations")
    parser.add_argument("photos")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)

    final = v2.RandomShortestSize(list(range(480, 801, 32)), max_size=1333)
    cut = v2.Compose([v2.RandomShortestSize([400, 500, 600]), SizeCrop(384, 600), final])
    transforms = v2.Compose([
        v2.ToImage(), v2.RandomHorizontalFlip(), v2.RandomChoice([final, cut]), v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    data = datasets.CocoDetection(args.root / args.photos, args.root / args.annotations, transforms=transforms)
    # Photos without boxes have no list of them there, which the transforms want.
    data.ids = [one for one in data.ids if data.coco.getAnnIds(one)]
    data = datasets.wrap_dataset_for_transforms_v2(data, target_keys={"boxes", "labels"})
    loader = torch.utils.data.DataLoader(
        data, args.batch, sampler=Endless(len(data)), num_workers=args.workers, collate_fn=padded
    )
    total, boxes, start = 0.0, 0, None
    for step, (images, _, targets) in enumerate(loader):
        if step == WARM_UP:
            start = time.perf_counter()
        if step >= WARM_UP:
            total += images[0, 0, 0, 0].item()
            boxes += sum(len(target["labels"]) for target in targets)
        if step + 1 == WARM_UP + args.steps:
            break
    seconds = time.perf_counter() - start
    print(json.dumps({
        "photos_per_second": args.steps * args.batch / seconds, "batch": args.batch, "steps": args.steps, "workers": args.workers,
        "boxes": boxes, "sum": total, "torch": torch.__version__, "torchvision": torchvision.__version__, "decoder": f"Pillow {PIL.__version__}",
    }), flush=True)  # fmt: skip
    # Python's own way out takes time that is no part of what is measured.
    os._exit(0)


main()

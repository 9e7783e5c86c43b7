"""torchvision's ImageFolder behind a DataLoader, as most code has it: RandomResizedCrop, flip, ToTensor, Normalize.

loader.py ROOT [--edge 224] [--batch 64] [--workers 2] [--epochs 1] [--images N]; prints one line of JSON, as crates/core/examples/loader.rs.
"""

import argparse
import json
import os
import pathlib
import time

import PIL
import torch
import torchvision
from torchvision import datasets, transforms


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--edge", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int)
    args = parser.parse_args()

    transform = transforms.Compose([
        transforms.RandomResizedCrop(args.edge), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    data = datasets.ImageFolder(args.root / "train", transform)
    loader = torch.utils.data.DataLoader(
        data, args.batch, shuffle=True, num_workers=args.workers, drop_last=True, persistent_workers=args.workers > 0
    )
    steps = min(args.images or len(data), len(data)) // args.batch
    epochs, total = [], 0.0
    for _ in range(args.epochs):
        start = time.perf_counter()
        for step, (image, _) in enumerate(loader, 1):
            total += image[0, 0, 0, 0].item()
            if step == steps:
                break
        epochs.append({"images_per_second": steps * args.batch / (time.perf_counter() - start)})
    print(json.dumps({
        "images": steps * args.batch, "edge": args.edge, "batch": args.batch, "workers": args.workers, "epochs": epochs,
        "sum": total, "torch": torch.__version__, "torchvision": torchvision.__version__, "decoder": f"Pillow {PIL.__version__}",
    }), flush=True)  # fmt: skip
    # Python's own way out takes time that is no part of what is measured.
    os._exit(0)


main()

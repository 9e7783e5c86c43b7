"""SimCLR's pre-training in PyTorch, as `simclr bench` does it: two views of each picture, f and g, NT-Xent and LARS, float32.

simclr.py resnet20: ResNet-20 for CIFAR-10, crops by a bilinear filter, as experiments/simclr/cifar10_10k_rn20_e20.yaml has them.
simclr.py resnet18: torchvision's ResNet-18 with a stem for CIFAR, bicubic crops, as experiments/simclr/cifar10_r18_e100.yaml has them.
simclr.py views:    the two views of the first without training.
Views are torchvision's transforms of PIL pictures behind a DataLoader of two workers, as most code has it. Prints one line of JSON. The first
step is left out of the speed, as in `simclr bench`.
"""

import argparse
import json
import os
import pathlib
import time

import torch
from peer import LAYOUTS, train
from resnet import Pictures, resnet20
from torch import nn
from torch.nn.functional import cross_entropy, normalize

LR, MOMENTUM, DECAY, TRUST, TEMPERATURE, SEED = 1, 0.9, 1e-4, 0.001, 0.5, 1
# Epochs of warm-up, and the pictures that one has; ours reads them from its configs.
WARM_UP = {"resnet20": (2, 10_000), "resnet18": (10, 50_000)}


class Lars(torch.optim.Optimizer):
    """The authors' LARS; all tensors of a group at a time, which is the fastest form that we know without a kernel of its own."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            params = group["params"]
            grads = [p.grad for p in params]
            if "velocity" not in group:
                group["velocity"] = [torch.zeros_like(p) for p in params]
            rates = [group["lr"]] * len(params)
            if group["adapt"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
                norms = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(grads))
                trust = torch.where((norms[0] > 0) & (norms[1] > 0), TRUST * norms[0] / norms[1], 1)
                rates = (group["lr"] * trust).tolist()
            torch._foreach_mul_(group["velocity"], MOMENTUM)
            torch._foreach_add_(group["velocity"], torch._foreach_mul(grads, rates))
            torch._foreach_sub_(params, group["velocity"])


def resnet18():
    from torchvision.models import resnet18

    net = resnet18(zero_init_residual=True)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = net.fc = nn.Identity()
    return net, 512


def network(name):
    """f, and g of two layers with batch norms, the last one's without a shift."""
    f, width = resnet18() if name == "resnet18" else (resnet20()[:-1], 64)
    last = nn.BatchNorm1d(128)
    last.bias.requires_grad_(False)
    return nn.Sequential(
        f, nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, 128, bias=False), last
    )


def nt_xent(z, _):
    """Eq. 1; picture i of n is rows i and i + n."""
    z = normalize(z)
    similar = (z @ z.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return cross_entropy(similar, torch.arange(len(z)).roll(len(z) // 2))


class TwoViews:
    def __init__(self, transform):
        self.transform = transform

    def __call__(self, picture):
        return self.transform(picture), self.transform(picture)


def views(args):
    """Endless pairs of [N, 3, 32, 32], a new order each epoch."""
    from torchvision import transforms

    filter = transforms.InterpolationMode.BICUBIC if args.peer == "resnet18" else transforms.InterpolationMode.BILINEAR
    transform = transforms.Compose([
        transforms.RandomResizedCrop(32, interpolation=filter), transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), transforms.RandomGrayscale(0.2), transforms.ToTensor(),
    ])  # fmt: skip
    batches = torch.utils.data.DataLoader(
        Pictures(args.data, TwoViews(transform)), args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    while True:
        for pair, _ in batches:
            yield pair


def draw(args):
    batches = views(args)
    # One of each worker, after which both are at work on one that is timed.
    for _ in range(2):
        next(batches)
    start = time.perf_counter()
    for _ in range(args.steps):
        next(batches)
    seconds = time.perf_counter() - start
    print(json.dumps({"pictures_per_second": args.batch * args.steps / seconds, "torch": torch.__version__}), flush=True)
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["resnet20", "resnet18", "views"])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--batch", type=int, required=True, help="pictures, each in two views")
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up")
    parser.add_argument("--layout", choices=LAYOUTS, default="channels_last")
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    if args.peer == "views":
        draw(args)
    net = network(args.peer).to(memory_format=LAYOUTS[args.layout])
    params = [p for p in net.parameters() if p.requires_grad]
    # Biases and norms neither adapt nor decay.
    groups = [{"params": [p for p in params if (p.ndim > 1) == adapt], "adapt": adapt} for adapt in (True, False)]
    optimizer = Lars(groups, {"lr": 0.0, "weight_decay": DECAY})
    epochs, pictures = WARM_UP[args.peer]
    ramp = epochs * (pictures // args.batch)

    def warm_up(step):
        for group in optimizer.param_groups:
            group["lr"] = LR * args.batch / 256 * min(1, step / ramp)

    batches = ((torch.cat(pair), None) for pair in views(args))
    train(net, optimizer, batches, args, warm_up, nt_xent)


main()

"""lenet5_modern in PyTorch, as `lenet bench` trains it: SGD with momentum under a cosine, float32, no augmentation.

lenet.py resident: the pictures lie in memory, chosen by a shuffled index; the fastest plain PyTorch that we know.
lenet.py loader:   torchvision's MNIST and transforms behind a DataLoader of two workers, as most code has it.
Prints one line of JSON. The first step is left out of the speed, as in `lenet bench`.
"""

import argparse
import math
import pathlib
import tempfile

import torch
from peer import LAYOUTS, train
from torch import nn

MEAN, STD = 0.1307, 0.3081
LR, MOMENTUM, SEED = 0.05, 0.9, 1


def network():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def idx(path, header):
    """The bytes of an idx file after its header."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)[header:]


def resident(args):
    """Endless batches out of memory, a new order each epoch."""
    pixels = idx(args.data / "train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
    labels = idx(args.data / "train-labels-idx1-ubyte", 8).long()
    if args.store == "float":
        pixels = pixels.float().div_(255).sub_(MEAN).div_(STD)
    while True:
        order = torch.randperm(len(labels))
        for index in order[: len(order) // args.batch * args.batch].split(args.batch):
            image = pixels[index]
            if args.store == "bytes":
                image = image.float().div_(255).sub_(MEAN).div_(STD)
            yield image, labels[index]


def loader(args):
    """Endless batches of torchvision's MNIST; it wants its files in a folder of its own naming."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    with tempfile.TemporaryDirectory() as root:
        (pathlib.Path(root) / "MNIST").mkdir()
        (pathlib.Path(root) / "MNIST/raw").symlink_to(args.data.resolve())
        train = datasets.MNIST(root, train=True, transform=transform)
    batches = torch.utils.data.DataLoader(
        train, args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    while True:
        yield from batches


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["resident", "loader"])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up")
    parser.add_argument("--store", choices=["bytes", "float"], default="float")
    parser.add_argument("--layout", choices=LAYOUTS, default="contiguous")
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    net = network().to(memory_format=LAYOUTS[args.layout])
    optimizer = torch.optim.SGD(net.parameters(), LR, momentum=MOMENTUM, fused=True)
    batches = {"resident": resident, "loader": loader}[args.peer](args)

    def cosine(step):
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / (args.steps + 1)))

    train(net, optimizer, batches, args, cosine)


main()

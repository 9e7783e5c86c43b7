"""ResNet in PyTorch, as `resnet bench` trains it: SGD with momentum and weight decay, float32.

resnet.py resident: CIFAR-10 ResNet-20, pictures centred beforehand and chosen by a shuffled index, no augmentation: the fastest plain PyTorch.
resnet.py loader:   the same network; crop and flip by torchvision's transforms behind a DataLoader of two workers, as most code has it.
resnet.py photo:    torchvision's ResNet-18 on batches of 224x224 pixels that are already at hand.
Prints one line of JSON. The first step is left out of the speed, as in `resnet bench`.
"""

import argparse
import pathlib

import torch
from peer import LAYOUTS, train
from torch import nn
from torch.nn.functional import pad, relu

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
LR, MOMENTUM, DECAY, SEED = 0.1, 0.9, 1e-4, 1


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.more:
            half = self.more // 2
            x = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        return relu(y + x, inplace=True)


def resnet20():
    layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)], 16
    for stage, width in enumerate((16, 32, 64)):
        for place in range(3):
            layers.append(Block(inputs, width, 2 if stage and not place else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def cifar(folder):
    """Pixels as bytes [50000, 3, 32, 32], and labels."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    raw = torch.cat([torch.frombuffer(bytearray((folder / name).read_bytes()), dtype=torch.uint8) for name in names])
    records = raw.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def resident(args):
    pixels, labels = cifar(args.data)
    column = lambda numbers: torch.tensor(numbers)[:, None, None]
    pixels = (pixels.float() / 255 - column(MEAN)) / column(STD)
    if args.layout == "channels_last":
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    while True:
        for index in torch.randperm(len(labels)).split(args.batch)[:-1]:
            yield pixels[index], labels[index]


class Pictures(torch.utils.data.Dataset):
    """As torchvision.datasets.CIFAR10 hands them out: a PIL picture through the transforms."""

    def __init__(self, folder, transform):
        pixels, self.labels = cifar(folder)
        self.pixels, self.transform = pixels.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[place])), int(self.labels[place])


def loader(args):
    from torchvision import transforms

    transform = transforms.Compose(
        [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    batches = torch.utils.data.DataLoader(
        Pictures(args.data, transform), args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    while True:
        yield from batches


def photo(args):
    images = [torch.randn(args.batch, 3, 224, 224) for _ in range(4)]
    if args.layout == "channels_last":
        images = [image.contiguous(memory_format=torch.channels_last) for image in images]
    labels = torch.randint(0, 10, (args.batch,))
    while True:
        yield from ((image, labels) for image in images)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["resident", "loader", "photo"])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up")
    parser.add_argument("--layout", choices=LAYOUTS, default="channels_last")
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    if args.peer == "photo":
        from torchvision.models import resnet18

        net = resnet18(num_classes=10)
    else:
        net = resnet20()
    net = net.to(memory_format=LAYOUTS[args.layout])
    optimizer = torch.optim.SGD(net.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY, fused=True)
    batches = {"resident": resident, "loader": loader, "photo": photo}[args.peer](args)
    train(net, optimizer, batches, args)


if __name__ == "__main__":
    main()

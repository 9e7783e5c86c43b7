"""PyTorch's training step of a network on a batch that lies on the device, eager or compiled: what gpu.sh holds ours against."""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy


def cifar_cnn():
    """AlexNet's network for CIFAR-10 as crates/alexnet has it, without its initialisation."""

    first = nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU()

    def block(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(*first, *block(32, 32), *block(32, 64), nn.Flatten(), nn.Linear(1024, 10))


def resnet18_cifar():
    import torchvision

    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


parser = argparse.ArgumentParser()
parser.add_argument("network", choices=["cifar_cnn", "resnet18_cifar"])
parser.add_argument("form", choices=["eager", "compiled"])
parser.add_argument("--device", default="cuda")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
args = parser.parse_args()

net = globals()[args.network]().to(args.device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
image = torch.rand(args.batch, 3, 32, 32, device=args.device).contiguous(memory_format=torch.channels_last)
label = torch.randint(10, (args.batch,), device=args.device)
forward = torch.compile(net) if args.form == "compiled" else net


def wait():
    if args.device != "cpu":
        torch.cuda.synchronize()


seconds = []
# Compilation and the choice of kernels take place in the first steps.
for step in range(args.steps + 5):
    wait()
    start = time.perf_counter()
    with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.precision == "bf16"):
        loss = cross_entropy(forward(image), label)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    wait()
    if step >= 5:
        seconds.append(time.perf_counter() - start)
median = statistics.median(seconds)
print(json.dumps({"median_step_seconds": median, "examples_per_second": args.batch / median, "torch": torch.__version__}))

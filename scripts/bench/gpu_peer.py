"""PyTorch's training step of a network on a batch that lies on the device, eager or compiled: what gpu.sh holds ours against."""

import argparse
import json
import statistics
import time

import torch
from torch.nn.functional import cross_entropy


def resnet18_cifar():
    import torchvision

    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = torch.nn.Identity()
    return net, (3, 32, 32)


parser = argparse.ArgumentParser()
parser.add_argument("network", choices=["resnet18_cifar"])
parser.add_argument("--device", default="cuda")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()

net, shape = globals()[args.network]()
net = net.to(args.device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, fused=True)
image = torch.rand(args.batch, *shape, device=args.device).contiguous(memory_format=torch.channels_last)
label = torch.randint(10, (args.batch,), device=args.device)
forward = torch.compile(net) if args.compile else net


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

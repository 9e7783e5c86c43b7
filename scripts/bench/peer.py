"""PyTorch's side of a training benchmark: the timed loop, and the line that it prints."""

import json
import os
import time

import torch
from torch.nn.functional import cross_entropy

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def train(net, optimizer, batches, args, before_step=lambda step: None, criterion=cross_entropy):
    """Trains for args.steps steps after one that warms up; prints speed and mean loss as JSON, and ends the process."""
    layout = LAYOUTS[args.layout]
    losses = []
    for step in range(args.steps + 1):
        if step == 1:
            start = time.perf_counter()
        before_step(step)
        image, label = next(batches)
        # Does nothing to a batch that is laid out so already.
        image = image.contiguous(memory_format=layout)
        loss = criterion(net(image), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    seconds = time.perf_counter() - start
    said = {
        "examples_per_second": args.batch * args.steps / seconds,
        "loss": torch.stack(losses).mean().item(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(said), flush=True)
    # Python's own way out takes time that is no part of what is measured.
    os._exit(0)

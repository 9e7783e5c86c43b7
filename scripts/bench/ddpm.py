"""DDPM in PyTorch: diffusers' UNet2DModel of the sizes of `unet_mnist`, eager, as `ddpm bench` and `ddpm sample` use it.

ddpm.py train:   Algorithm 1 with fused Adam, clipping and averages on random pictures that are at hand.
ddpm.py sample:  64 pictures by DDIMScheduler in 50 steps, x0 clipped.
Prints one line of JSON. Needs diffusers 0.42.1.
"""

import argparse
import json
import os
import time
from contextlib import nullcontext

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from peer import LAYOUTS
from torch.nn.functional import mse_loss

PICTURES = 64


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "sample"])
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up; of DDIM all of them")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(1)
    layout = LAYOUTS[args.layout]
    cast = lambda: torch.autocast("cpu", torch.bfloat16) if args.precision == "bf16" else nullcontext()
    sizes = dict(block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, norm_eps=1e-6, downsample_padding=0)
    blocks = dict(down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))
    net = UNet2DModel(sample_size=28, in_channels=1, out_channels=1, attention_head_dim=None, freq_shift=1, flip_sin_to_cos=False, **sizes, **blocks)
    net = net.to(memory_format=layout)

    if args.what == "sample":
        net.eval()
        scheduler = DDIMScheduler(clip_sample=True)
        scheduler.set_timesteps(args.steps)
        x = torch.randn(PICTURES, 1, 28, 28).to(memory_format=layout)
        with torch.no_grad(), cast():
            net(x, 0)
            start = time.perf_counter()
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t).sample.float(), t, x).prev_sample
        count = PICTURES
    else:
        scheduler = DDPMScheduler()
        optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
        averages = [p.detach().clone() for p in net.parameters()]
        pictures = torch.rand(4096, 1, 28, 28) * 2 - 1
        for step in range(args.steps + 1):
            if step == 1:
                start = time.perf_counter()
            x0 = pictures[torch.randint(len(pictures), (args.batch,))].to(memory_format=layout)
            noise, t = torch.randn_like(x0), torch.randint(1000, (args.batch,))
            with cast():
                told = net(scheduler.add_noise(x0, noise, t), t).sample
            optimizer.zero_grad(set_to_none=True)
            mse_loss(told.float(), noise).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
            optimizer.step()
            torch._foreach_lerp_(averages, [p.detach() for p in net.parameters()], 1e-3)
        count = args.batch * args.steps
    seconds = time.perf_counter() - start
    print(json.dumps({"examples_per_second": count / seconds, "torch": torch.__version__}), flush=True)
    # Python's own way out takes time that is no part of what is measured.
    os._exit(0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The detector of a device plan in PyTorch on a card: gpu_torch.py PLAN [MS]

The peer of bench/gpu.sh: the same layers, weights and batch, channels_last_3d, autocast to half, torch.compile. Prints the
milliseconds of a batch (median of 50 after 10), and with MS, what the plugin takes for one, the ratio and whether it
reaches 3. Exit status 0 reached or nothing to compare, 1 missed, 77 no PyTorch or no card.
"""

import statistics
import struct
import sys

HEADER = struct.Struct("<Q4q4i16i16i2i72s")  # infer/cuda/device_plan.h, struct device_plan
TENSOR = struct.Struct("<4i6q2q")
STEP = struct.Struct("<2i4i2i16q2f64s")
CONV, POOL, RESIZE, CONCAT, CONVERT = range(5)
GOAL = 3.0


class Plan:
    def __init__(self, path):
        with open(path, "rb") as file:
            block = file.read()
        head = HEADER.unpack_from(block)
        constants, tensor_count, step_count, inputs, outputs = head[3], head[5], head[6], head[7], head[8]
        self.inputs, self.outputs = head[9:9 + inputs], head[25:25 + outputs]
        at = HEADER.size
        self.tensors = [TENSOR.unpack_from(block, at + n * TENSOR.size) for n in range(tensor_count)]
        at += tensor_count * TENSOR.size
        self.steps = [STEP.unpack_from(block, at + n * STEP.size) for n in range(step_count)]
        self.data = memoryview(block)[constants:]

    def dims(self, tensor):
        return self.tensors[tensor][4:4 + self.tensors[tensor][2]]

    def constant(self, torch, tensor):
        element, offset, size = self.tensors[tensor][0], self.tensors[tensor][10], self.tensors[tensor][11]
        kind = torch.float16 if element else torch.float32
        return torch.frombuffer(bytearray(self.data[offset:offset + size]), dtype=kind).float()


def network(torch, plan):
    """A module that runs the steps of the plan."""
    functional = torch.nn.functional

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for n, step in enumerate(plan.steps):
                if step[0] != CONV:
                    continue
                k, c, t, r, s = plan.dims(step[3])
                weights = plan.constant(torch, step[3]).view(k, t, r, s, c).permute(0, 4, 1, 2, 3).contiguous()
                self.register_buffer(f"w{n}", weights)
                self.register_buffer(f"b{n}", plan.constant(torch, step[4]))

        def conv(self, n, step, values):
            numbers = step[8:24]
            assert numbers[3:6] == numbers[9:12], "a padding that differs before and behind"
            out = functional.conv3d(values[step[2]], getattr(self, f"w{n}"), getattr(self, f"b{n}"), numbers[0:3],
                                    numbers[3:6], numbers[6:9])
            out = out if step[5] < 0 else out + values[step[5]]
            return functional.relu(out) if step[1] else out

        def forward(self, image):
            values = {plan.inputs[0]: image}
            for n, step in enumerate(plan.steps):
                if step[0] == CONV:
                    out = self.conv(n, step, values)
                elif step[0] == POOL:
                    out = functional.max_pool3d(values[step[2]], step[20:23], step[8:11], step[11:14])
                elif step[0] == RESIZE:
                    out = functional.interpolate(values[step[2]], size=tuple(plan.dims(step[6])[2:]))
                elif step[0] == CONCAT:
                    out = torch.cat([values[i] for i in step[2:6] if i >= 0], 1)
                elif step[0] == CONVERT:
                    out = values[step[2]]
                else:
                    raise ValueError(f"a step of kind {step[0]} is none of a detector")
                values[step[6]] = out
            return tuple(values[i] for i in plan.outputs)

    return Network()


def measure(torch, plan):
    module = network(torch, plan).cuda().eval().to(memory_format=torch.channels_last_3d)
    image = torch.rand(tuple(plan.dims(plan.inputs[0])), device="cuda")
    image = image.to(memory_format=torch.channels_last_3d)
    compiled = torch.compile(module)
    times = []
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16):
        for n in range(60):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            compiled(image)
            end.record()
            torch.cuda.synchronize()
            if n >= 10:
                times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main(arguments):
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: the comparison is not made")
        return 77
    if not torch.cuda.is_available():
        print("PyTorch sees no card: the comparison is not made")
        return 77
    took = measure(torch, Plan(arguments[0]))
    print(f"PyTorch {torch.__version__}, channels_last_3d, autocast, torch.compile: {took:.3f} ms a batch")
    if len(arguments) < 2:
        return 0
    ratio = took / float(arguments[1])
    print(f"the plugin: {float(arguments[1]):.3f} ms, {ratio:.2f} times as fast; goal 3: "
          f"{'reached' if ratio >= GOAL else '**missed**'}")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

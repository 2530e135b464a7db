"""What torch makes of the GPUs, as JSON on one line: called as a process of its own, which may take a GPU down."""

import json

import torch


def about(number: int) -> dict[str, object]:
    """Name, memory, and whether a product of matrices comes out right in both precisions."""
    device = torch.device("cuda", number)
    ones = torch.ones(256, 256, device=device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": torch.cuda.get_device_name(device),
        "free": free,
        "total": total,
        "right": bool(torch.equal(ones @ ones, torch.full_like(ones, 256))),
        "bfloat16": torch.cuda.get_device_capability(device) >= (8, 0),
        "right_bfloat16": bool((ones.bfloat16() @ ones.bfloat16() == 256).all()),
    }


if __name__ == "__main__":
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(json.dumps([about(number) for number in range(count)]))

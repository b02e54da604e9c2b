"""Rewrites the golden of HQQ: what the hqq library makes of drawn rows on the CPU, in float.

The library runs up to 20 iterations and stops when the mean error of the whole matrix no longer falls, as
ours does; scales are not rounded. Needs the package hqq (0.2.8) beside torch.
"""

import json
import pathlib

import torch
from hqq.core.quantize import Quantizer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "compress" / "hqq.json"


def main():
    generator = torch.Generator().manual_seed(10)
    rows = torch.randn(12, 128, generator=generator) * 0.05
    rows[3] = rows[3].abs() + 0.2           # no number near zero
    rows[5, 7] = 4.0                        # an outlier
    rows[8] *= 60.0                         # errors large enough for the shrinking operator
    rows[9, :64] = 0.125                    # a constant group
    rows = rows.to(torch.bfloat16)
    cases = []
    for bits in (3, 4, 8):
        codes, meta = Quantizer.quantize(rows.float(), nbits=bits, group_size=64, axis=1, bitpack=False,
                                         compute_dtype=torch.float32, device="cpu")
        cases.append({"bits": bits, "group": 64, "codes": codes.to(torch.int32).flatten().tolist(),
                      "scales": meta["scale"].flatten().tolist(), "zeros": meta["zero"].flatten().tolist()})
    bits_of = (rows.contiguous().view(torch.int16).to(torch.int32) & 0xFFFF).tolist()
    GOLDEN.write_text(json.dumps({"rows": bits_of, "cases": cases}) + "\n")
    print(f"hqq: golden of {len(bits_of)} rows, {len(cases)} widths")


if __name__ == "__main__":
    main()

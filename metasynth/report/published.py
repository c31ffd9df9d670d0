"""Figures that the paper reports, to stand beside ours; never as targets: its data and scale are others."""

from typing import Any

NOISE_ONLY: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, ICCV 2025, Tables 1 and 2 (434 OASIS subjects, full scale)",
    "levels": ["0", "0.05", "0.1", "0.15", "U[0.025, 0.2]"],
    "table_1": [0.001, 0.042, 0.098, 0.146, 0.134],
    "table_2": {
        "N": [
            [0.913, 0.310, 0.209, 0.142, 0.205],
            [0.889, 0.874, 0.718, 0.520, 0.646],
            [0.867, 0.858, 0.841, 0.772, 0.815],
            [0.864, 0.857, 0.847, 0.829, 0.838],
            [0.870, 0.867, 0.850, 0.826, 0.831],
        ],
        "L": [
            [0.923, 0.346, 0.172, 0.092, 0.151],
            [0.900, 0.887, 0.744, 0.492, 0.635],
            [0.874, 0.873, 0.858, 0.799, 0.831],
            [0.860, 0.855, 0.854, 0.840, 0.834],
            [0.866, 0.864, 0.851, 0.833, 0.839],
        ],
        "O": [
            [0.919, 0.361, 0.189, 0.105, 0.167],
            [0.898, 0.890, 0.736, 0.508, 0.651],
            [0.871, 0.869, 0.847, 0.810, 0.829],
            [0.867, 0.860, 0.852, 0.836, 0.841],
            [0.872, 0.870, 0.853, 0.837, 0.843],
        ],
    },
}
"""Section 4.1.1: rows of Table 2 are the levels trained on, columns those tested on."""

NOISE_AND_INU: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, ICCV 2025, Tables 3 and 4 (434 OASIS subjects, full scale)",
    "levels": ["0", "0.05", "0.1", "0.15", "U[0.025, 0.2]"],
    "table_3": [0.018, 0.049, 0.085, 0.147, 0.134],
    "table_4": {
        "parametric": [
            [0.924, 0.867, 0.748, 0.619, 0.729],
            [0.900, 0.894, 0.867, 0.696, 0.744],
            [0.894, 0.889, 0.872, 0.832, 0.849],
            [0.881, 0.869, 0.856, 0.854, 0.862],
            [0.875, 0.868, 0.870, 0.851, 0.867],
        ],
        "nonparametric": [
            [0.903, 0.871, 0.752, 0.603, 0.769],
            [0.891, 0.886, 0.859, 0.749, 0.792],
            [0.884, 0.877, 0.865, 0.828, 0.839],
            [0.878, 0.864, 0.851, 0.837, 0.844],
            [0.869, 0.858, 0.843, 0.831, 0.850],
        ],
    },
}
"""Section 4.1.2, of Learn2Synth's segmenter alone; rows and columns as above."""

REAL_WORLD: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, ICCV 2025, Tables 5 and 8 (ABIDE, 1,087 subjects, and OASIS3, 1,235)",
    "columns": ["method", "ABIDE", "OASIS3"],
    "rows": [
        ["Supervised UNet", 0.908, 0.899],
        ["SAMSEG", 0.875, 0.841],
        ["Naive SynthSeg", 0.869, 0.831],
        ["Mixed SynthSeg", 0.875, 0.854],
        ["Finetuned SynthSeg", 0.871, 0.847],
        ["Learn2Synth (parametric, fixed σ)", 0.878, 0.860],
        ["Learn2Synth (parametric, varying σ)", 0.881, 0.857],
        ["Learn2Synth (nonparametric, fixed σ)", 0.879, 0.875],
        ["Learn2Synth (nonparametric, varying σ)", 0.874, 0.881],
        ["nnU-Net backbone: Naive SynthSeg", 0.881, 0.863],
        ["nnU-Net backbone: Learn2Synth (parametric, fixed σ)", 0.893, 0.875],
    ],
}
"""Section 4.2.1, mean Dice."""

COSTS: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, supplement, section 13 (OASIS3, 1,500 epochs of batch 64, one NVIDIA L40S)",
    "columns": ["method", "hours"],
    "rows": [
        ["Naive SynthSeg", 10.3],
        ["Learn2Synth (parametric, fixed σ)", 17.7],
        ["the same with nnU-Net as backbone", 62.1],
    ],
}
"""Training time."""

CROSS_CONTRAST: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, ICCV 2025, Tables 6 and 7 (Buckner39 and FreeSurfer maintenance data)",
    "columns": [
        *["method", "train, validation, test", "checkpoint"],
        *["MPRAGE", "FLASH 3°", "FLASH 5°", "FLASH 20°", "FLASH 30°"],
    ],
    "rows": [
        ["SynthSeg", None, None, 0.861, 0.776, 0.694, 0.766, 0.781],
        ["Supervised UNet", "29, 5, 5", "best", 0.941, 0.419, 0.396, 0.671, 0.769],
        ["Supervised UNet", "29, 5, 5", "last", 0.936, 0.301, 0.314, 0.527, 0.637],
        ["Supervised UNet", "5, 5, 29", "best", 0.907, 0.397, 0.413, 0.586, 0.692],
        ["Supervised UNet", "5, 5, 29", "last", 0.900, 0.342, 0.379, 0.637, 0.728],
        ["Supervised UNet", "1, 5, 33", "best", 0.885, 0.267, 0.247, 0.544, 0.651],
        ["Supervised UNet", "1, 5, 33", "last", 0.871, 0.337, 0.372, 0.654, 0.727],
        ["Learn2Synth", "29, 5, 5", "best", 0.895, 0.804, 0.789, 0.785, 0.797],
        ["Learn2Synth", "29, 5, 5", "last", 0.897, 0.801, 0.787, 0.782, 0.794],
        ["Learn2Synth", "5, 5, 29", "best", 0.867, 0.798, 0.789, 0.795, 0.799],
        ["Learn2Synth", "5, 5, 29", "last", 0.864, 0.800, 0.788, 0.786, 0.793],
        ["Learn2Synth", "1, 5, 33", "best", 0.718, 0.606, 0.603, 0.690, 0.707],
        ["Learn2Synth", "1, 5, 33", "last", 0.725, 0.588, 0.591, 0.695, 0.715],
    ],
}
"""Section 4.2.2, mean Dice."""

SAME_TEST_SIZE: dict[str, Any] = {
    "source": "Hu et al., Learn2Synth, supplement, Table 9 (as Tables 6 and 7, with 5 test subjects for all)",
    "columns": ["method", "train, validation, test", "MPRAGE", "FLASH 3°"],
    "rows": [
        ["SynthSeg", None, 0.861, 0.776],
        ["Mixed SynthSeg", "5, 5, 5", 0.859, 0.781],
        ["Finetuned SynthSeg", "5, 5, 5", 0.863, 0.783],
        ["Supervised UNet", "29, 5, 5", 0.941, 0.419],
        ["Supervised UNet", "5, 5, 5", 0.910, 0.397],
        ["Supervised UNet", "1, 5, 5", 0.879, 0.267],
        ["Learn2Synth", "29, 5, 5", 0.895, 0.804],
        ["Learn2Synth", "5, 5, 5", 0.871, 0.798],
        ["Learn2Synth", "1, 5, 5", 0.725, 0.606],
    ],
}
"""Section 12 of the supplement, mean Dice."""

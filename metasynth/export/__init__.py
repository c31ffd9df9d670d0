"""What was learned, for other programs: training images for nnU-Net, models as ONNX and as MONAI bundles."""

"""The commands that hand on what was learned."""

from bad_input.table import Place, Row, table


@table(
    Row("export nnune run --out x", 2, "no command 'nnune': did you mean 'nnunet'?"),
    Row("export nnunet --out Dataset501_New", 2, "Missing argument 'RUN'."),
    Row("export nnunet run", 2, "Missing option '--out'."),
    Row("export nnunet run --out new", 2, "--out new: expected a folder called DatasetXXX_Name, as Dataset501"),
    Row("export nnunet run --out Dataset501_New --n 0", 2, "Invalid value for '--n': 0 is not in the range"),
    Row("export nnunet run --out Dataset501_New --seed -1", 2, "Invalid value for '--seed': -1 is not in the range"),
    Row("export nnunet run --out gone/Dataset501_New", 2, "--out gone/Dataset501_New: the folder gone does not exist"),
    Row("export nnunet run --out Dataset500_Full", 2, "--out Dataset500_Full: exists already; give another name"),
    Row("export nnunet gone --out Dataset501_New", 2, "gone: holds no run (config.json is missing)"),
    Row("export nnunet c.h5 --out Dataset501_New", 2, "c.h5: holds no run (config.json is missing)"),
    Row("export nnunet grid --out Dataset501_New", 2, "grid: holds no run (config.json is missing)"),
    Row("export nnunet unfinished --out Dataset501_New", 2, "unfinished: the run has no results yet; continue it with"),
    Row("export nnunet foreign --out Dataset501_New", 2, "foreign: the run has no results yet; continue it with"),
    Row(
        "export nnunet run --out Dataset501_New --stage naive",
        2,
        "--stage naive: run has no training images of this stage; it has sigma=0.1/learn",
    ),
    Row("export onnx gone --out a.onnx", 2, "gone: there is no such model file or folder of a run"),
    Row("export onnx model.pt", 2, "Missing option '--out'."),
    Row("export onnx model.pt --out a.pt", 2, "--out a.pt: expected a name that ends in .onnx, for a ONNX file"),
    Row("export onnx model.pt --out model.pt", 2, "--out model.pt: expected a name that ends in .onnx"),
    Row("export onnx model.pt --out gone/a.onnx", 2, "--out gone/a.onnx: the folder gone does not exist"),
    Row("export onnx model.pt --out a.onnx --stage b", 2, "--stage b: model.pt is a model file; stages are those of a"),
    Row("export onnx short.pt --out a.onnx", 1, "short.pt: the model is damaged"),
    Row("export onnx thesis.tex --out a.onnx", 1, "thesis.tex: "),
    Row("export onnx folder --out a.onnx", 2, "folder: holds no trained segmenter (models/*.pt)"),
    Row("export monai-bundle gone --out b", 2, "gone: there is no such model file or folder of a run"),
    Row("export monai-bundle model.pt", 2, "Missing option '--out'."),
    Row("export monai-bundle model.pt --out full", 2, "--out full: exists already; give another name"),
    Row("export monai-bundle model.pt --out empty", 2, "--out empty: exists already; give another name"),
    Row("export monai-bundle model.pt --out gone/b", 2, "--out gone/b: the folder gone does not exist"),
    Row("export monai-bundle short.pt --out b", 1, "short.pt: the model is damaged"),
)  # fmt: skip
def test_export(place: Place, row: Row):
    place.refuses(row)

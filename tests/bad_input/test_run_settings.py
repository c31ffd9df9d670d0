"""Settings of the noise study: wrong kinds, ranges, names, combinations and sizes.

One table, and long as it grows by rows.
"""

from bad_input.table import Place, Row, table


@table(
    Row("run noise --data c.h5 --set", 2, "Option '--set' requires an argument."),
    Row("run noise --data c.h5 --set ''", 2, "--set : expected KEY=VALUE, for example --set sigma=..."),
    Row("run noise --data c.h5 --set =", 2, "--set =: expected KEY=VALUE, for example --set sigma=..."),
    Row("run noise --data c.h5 --set =1", 2, "--set =1: expected KEY=VALUE, for example --set sigma=..."),
    Row("run noise --data c.h5 --set sigma", 2, "--set sigma: expected KEY=VALUE, for example --set sigma=..."),
    Row("run noise --data c.h5 --set sgima=0.1", 2, "unknown setting 'sgima': did you mean 'sigma'?"),
    Row("run noise --data c.h5 --set outer=1", 2, "setting 'outer' is a group: set one of outer.lr, outer.network_lr,"),
    Row("run noise --data c.h5 --set outer.lr.x=1", 2, "unknown setting 'outer.lr.x': did you mean 'outer.lr'?"),
    Row(
        "run noise --data c.h5 --set sigma=",
        2,
        "--set sigma: sigma must list at least one noise level, each once, got []",
    ),
    Row(
        "run noise --data c.h5 --set sigma=loud",
        2,
        "sigma: got 'loud': sigma: must be a number such as 0.05 or a range such as",
    ),
    Row(
        "run noise --data c.h5 --set sigma=-0.1",
        2,
        "sigma: got '-0.1': sigma: must be a finite number >= 0 or a range with 0 <=",
    ),
    Row(
        "run noise --data c.h5 --set sigma=nan",
        2,
        "sigma: got 'nan': sigma: must be a finite number >= 0 or a range with 0 <=",
    ),
    Row(
        "run noise --data c.h5 --set sigma=1e400",
        2,
        "sigma: got '1e400': sigma: must be a finite number >= 0 or a range with 0 <=",
    ),
    Row(
        "run noise --data c.h5 --set sigma=0.2:0.1",
        2,
        "sigma: got '0.2:0.1': sigma: must be a finite number >= 0 or a range with 0",
    ),
    Row(
        "run noise --data c.h5 --set sigma=0.1,0.1",
        2,
        "--set sigma: sigma must list at least one noise level, each once, got ['0.1',",
    ),
    Row(
        "run noise --data c.h5 --set sigma=0.1:0.2:0.3",
        2,
        "sigma: got '0.1:0.2:0.3': sigma: must be a number such as 0.05 or a range",
    ),
    Row("run noise --data c.h5 --set start=0", 2, "--set start: start must be a positive number, got 0.0"),
    Row("run noise --data c.h5 --set start=inf", 2, "start: expected a finite number, got 'inf'"),
    Row("run noise --data c.h5 --set start=x", 2, "start: expected a finite number, got 'x'"),
    Row(
        "run noise --data c.h5 --set test=", 2, "--set test: test must list at least one noise level, each once, got []"
    ),
    Row("run noise --data c.h5 --set test_repeats=0", 2, "--set test_repeats: test_repeats must be at least 1, got 0"),
    Row("run noise --data c.h5 --set test_repeats=2.5", 2, "test_repeats: expected a whole number, got '2.5'"),
    Row("run noise --data c.h5 --set baselines=maybe", 2, "baselines: expected true or false, got 'maybe'"),
    Row(
        "run noise --data c.h5 --set cohort=template-128",
        2,
        "cohort: expected one of template-64, template-96, template-192, got",
    ),
    Row(
        "run noise --data c.h5 --set generator=torchio",
        2,
        "generator: expected one of batched, cornucopia, got 'torchio'",
    ),
    Row(
        "run noise --data c.h5 --set augmenter=", 2, "augmenter: expected one of fixed, random_amplitude, range, got ''"
    ),
    Row("run noise --data c.h5 --set segmenter.steps=0", 2, "--set segmenter.steps: steps must be at least 1, got 0"),
    Row("run noise --data c.h5 --set segmenter.steps=1.5", 2, "segmenter.steps: expected a whole number, got '1.5'"),
    Row("run noise --data c.h5 --set segmenter.steps=-5", 2, "--set segmenter.steps: steps must be at least 1, got -5"),
    Row("run noise --data c.h5 --set segmenter.steps=²", 2, "segmenter.steps: expected a whole number, got '²'"),
    Row("run noise --data c.h5 --set segmenter.widths=", 2, "--set segmenter.widths: levels must be at least 1, got 0"),
    Row(
        "run noise --data c.h5 --set segmenter.widths=8,0",
        2,
        "--set segmenter.widths: widths must be at least 1, got 0",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.widths=8;16",
        2,
        "segmenter.widths: expected a comma-separated list, each a whole number, got",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.widths=8,16,32,64,128,256",
        1,
        "c.h5: images of 16 x 16 cannot be halved 5 times; expected sizes divisible by",
    ),
    Row("run noise --data c.h5 --set segmenter.lr=0", 2, "--set segmenter.lr: lr must be positive, got 0.0"),
    Row("run noise --data c.h5 --set segmenter.lr=nan", 2, "segmenter.lr: expected a finite number, got 'nan'"),
    Row("run noise --data c.h5 --set segmenter.lr=0,005", 2, "segmenter.lr: expected a finite number, got '0,005'"),
    Row(
        "run noise --data c.h5 --set segmenter.batch_size=0",
        2,
        "--set segmenter.batch_size: batch_size must be at least 1, got 0",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.cooldown=1.5",
        2,
        "--set segmenter.cooldown: cooldown must be in [0, 1], got 1.5",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.norm=group",
        2,
        "segmenter.norm: expected one of none, batch, instance, got 'group'",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.loss=mse",
        2,
        "segmenter.loss: expected one of dice_cross_entropy, dice, squared_dice,",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.dice_over=voxel",
        2,
        "segmenter.dice_over: expected one of batch, image, got 'voxel'",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.autocast=float16",
        2,
        "segmenter.autocast: expected one of none, bfloat16, got 'float16'",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.network=resnet",
        2,
        "segmenter.network: expected one of unet, nnunet, nnunet_residual, monai, got",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.network=monai",
        2,
        "--set segmenter.network: network_arguments must name a class of monai.networks.nets with",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.monai=UNet",
        2,
        "--set segmenter.network_arguments: network_arguments must be {} with network = unet,",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.monai_arguments=[1]",
        2,
        "segmenter.monai_arguments: got '[1]': must be a JSON object such as",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.network_arguments=[1]",
        2,
        "segmenter.network_arguments: got '[1]': must be a JSON object such as",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.monai_arguments={",
        2,
        "segmenter.monai_arguments: got '{': must be a JSON object such as",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.checkpoint=2", 2, "segmenter.checkpoint: expected true or false, got '2'"
    ),
    Row(
        "run noise --data c.h5 --set segmenter.channels_last=maybe",
        2,
        "segmenter.channels_last: expected true or false, got 'maybe'",
    ),
    Row("run noise --data c.h5 --set outer.lr=0", 2, "--set outer.lr: lr must be positive, got 0.0"),
    Row(
        "run noise --data c.h5 --set outer.network_lr=-1",
        2,
        "--set outer.network_lr: network_lr must be positive, got -1.0",
    ),
    Row(
        "run noise --data c.h5 --set outer.betas=0.9",
        2,
        "outer.betas: expected 2 comma-separated values (a finite number, a finite",
    ),
    Row(
        "run noise --data c.h5 --set outer.betas=0.9,1", 2, "--set outer.betas: betas must be in [0, 1), got (0.9, 1.0)"
    ),
    Row(
        "run noise --data c.h5 --set outer.betas=a,b",
        2,
        "outer.betas: expected 2 comma-separated values (a finite number, a finite",
    ),
    Row(
        "run noise --data c.h5 --set outer.batch_size=0",
        2,
        "--set outer.batch_size: batch_size must be at least 1, got 0",
    ),
    Row(
        "run noise --data c.h5 --set outer.warmup=99999",
        2,
        "--set outer: outer.warmup must be below segmenter.steps = 1500, got 99999",
    ),
    Row("run noise --data c.h5 --set outer.warmup=-1", 2, "--set outer.warmup: warmup must be at least 0, got -1"),
    Row("run noise --data c.h5 --set outer.horizon=0", 2, "--set outer.horizon: horizon must be at least 1, got 0"),
    Row(
        "run noise --data c.h5 --set outer.horizon=80",
        2,
        "--set outer.horizon: every must be at least horizon = 80, got 3",
    ),
    Row(
        "run noise --data c.h5 --set outer.mean_of=2",
        2,
        "--set outer.mean_of: mean_of must be at most horizon = 1, got 2",
    ),
    Row(
        "run noise --data c.h5 --set outer.horizon=2 --set outer.strategy=forward",
        2,
        "--set outer.horizon, outer.strategy: horizon = 2 needs strategy = mixed, as several steps are differentiated "
        "in one way only, got forward",
    ),
    Row(
        "run noise --data c.h5 --set outer.horizon=2 --set outer.samples=4",
        2,
        "--set outer.horizon, outer.samples: horizon = 2 needs samples = 0, as several steps are differentiated in one "
        "way only, got 4",
    ),
    Row(
        "run noise --data c.h5 --set outer.horizon=2000 --set outer.every=2000",
        2,
        "--set outer: outer.warmup + outer.horizon must be at most segmenter.steps = 1500, got 200 + 2000",
    ),
    Row("run noise --data c.h5 --set outer.every=0", 2, "--set outer.every: every must be at least 1, got 0"),
    Row(
        "run noise --data c.h5 --set outer.reference=maybe",
        2,
        "outer.reference: expected one of random, matched, none, got 'maybe'",
    ),
    Row(
        "run noise --data c.h5 --set outer.reference=matched --set generator=cornucopia",
        2,
        "--set outer, generator: outer.reference = matched needs generator = batched,",
    ),
    Row("run noise --data c.h5 --set outer.memory=1", 2, "--set outer.memory: memory must be in [0, 1), got 1.0"),
    Row(
        "run noise --data c.h5 --set outer.clip=0.5",
        2,
        "--set outer.clip: clip must be above 1 (times the running scale) or None, got",
    ),
    Row(
        "run noise --data c.h5 --set outer.average=0",
        2,
        "--set outer.average: average must be an integer of at least 1, got 0",
    ),
    Row(
        "run noise --data c.h5 --set outer.average=99999",
        2,
        "--set outer: outer.average must leave an outer step in segmenter.steps = 1500",
    ),
    Row("run noise --data c.h5 --set outer.hold=-1", 2, "--set outer.hold: hold must be at least 0, got -1"),
    Row("run noise --data c.h5 --set outer.settle=-1", 2, "--set outer.settle: settle must be at least 0, got -1"),
    Row(
        "run noise --data c.h5 --set outer.strategy=guess",
        2,
        "outer.strategy: expected one of mixed, forward, finite_difference, got 'guess'",
    ),
    Row("run noise --data c.h5 --set outer.samples=-1", 2, "--set outer.samples: samples must be at least 0, got -1"),
    Row("run noise --data c.h5 --set outer.chunk=x", 2, "outer.chunk: expected a whole number, got 'x'"),
    Row(
        "run noise --data c.h5 --set synthesis.order=0",
        2,
        "--set synthesis.order: order: must be a whole number from 1 to 7, got 0",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.order=8",
        2,
        "--set synthesis.order: order: must be a whole number from 1 to 7, got 8",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.zooms=1", 2, "--set synthesis.zooms: zooms: must be less than 1, got 1.0"
    ),
    Row(
        "run noise --data c.h5 --set synthesis.rotation=-1",
        2,
        "--set synthesis.rotation: rotation: must be a finite number >= 0, got -1.0",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.rotation=1e400",
        2,
        "synthesis.rotation: expected a finite number, got '1e400'",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.elastic_nodes=1",
        2,
        "--set synthesis.elastic_nodes: elastic_nodes: must be at least 2, got 1",
    ),
    Row("run noise --data c.h5 --set synthesis.bias=1", 2, "--set synthesis.bias: bias: must be at least 2, got 1"),
    Row(
        "run noise --data c.h5 --set synthesis.bias=maybe",
        2,
        "synthesis.bias: expected a whole number or true or false, got 'maybe'",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.resolution=0.5",
        2,
        "--set synthesis.resolution: resolution: must be at least 1, got 0.5",
    ),
    Row(
        "run noise --data c.h5 --set synthesis.snr=-1",
        2,
        "--set synthesis.snr: snr: must be a finite number >= 0, got -1.0",
    ),
    Row(
        "run noise --data c.h5 --set pace.checkpoint_every=0",
        2,
        "--set pace.checkpoint_every: checkpoint_every must be at least 1, got 0",
    ),
    Row("run noise --data c.h5 --set pace.workers=-1", 2, "--set pace.workers: workers must be at least 0, got -1"),
    Row(
        "run noise --data c.h5 --set segmenter.steps=100000000000",
        2,
        "segmenter.steps: got '100000000000': must be a whole number from -2147483647",
    ),
    Row(
        "run noise --data c.h5 --set "
        "segmenter.steps=99999999999999999999999999999999999999999999999999999999999999999999999",
        2,
        "segmenter.steps: got",
    ),
    Row(
        "run noise --data c.h5 --set test_repeats=2000000000",
        2,
        "test_repeats: a test set of 8000000000 images of 16 x 16 takes ",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.widths=1000000,1000000",
        2,
        "segmenter.batch_size, segmenter.widths: a step on 8 images of 16 x 16 takes ",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.batch_size=2000000000",
        2,
        "segmenter.batch_size, segmenter.widths: a step on 2000000000 images of 16 x",
    ),
    Row(
        "run noise --data c.h5 --set outer.batch_size=2000000000",
        2,
        "outer.batch_size: a step on 2000000000 images of 16 x 16 takes ",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.widths=4,8 --set synthesis.elastic_nodes=1000000",
        2,
        "synthesis.elastic_nodes: drawing 8 images with 1e+06 takes ",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.widths=4,8 --set synthesis.gmm_fwhm=1e300",
        2,
        "synthesis.gmm_fwhm: drawing 8 images with 1e+300 takes ",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.widths=100000,200000",
        2,
        "segmenter.batch_size, segmenter.widths, segmenter.patch_size: a step on 8 images of 16 x 16 x 16",
    ),
    Row("run noise --data c.h5 --set pace.workers=100000", 2, "pace.workers: expected at most "),
    Row(
        "run noise --resume --out unfinished --set start=0.2",
        2,
        "unfinished: cannot resume with other settings: config.start: 0.4 -> 0.2;",
    ),
    Row(
        "run noise --data c.h5 --set segmenter.patch_size=8",
        1,
        "c.h5: holds coronal slices; segmenter.patch_size = 8 x 8 x 8 is of volumes: prepare them with --3d, or leave",
    ),
    Row(
        "run noise --data c.h5 --preset quick-3d", 1, "c.h5: holds coronal slices; segmenter.patch_size = 32 x 32 x 32"
    ),
    Row(
        "run noise --preset quick-3d",
        2,
        "segmenter.patch_size = 32 x 32 x 32 needs --data, a cache of volumes, as what is embedded are slices: "
        "metasynth prep labels LABEL_MAPS --3d --spacing 3 --out volumes.h5",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_size=32",
        1,
        "volumes.h5: its volumes of 16 x 16 x 16 are smaller than segmenter.patch_size = 32 x 32 x 32",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_size=12",
        2,
        "segmenter.patch_size: images of 12 x 12 x 12 cannot be halved 3 times; expected sizes divisible by 8",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_size=8,8",
        2,
        "--set segmenter.patch_size: patch_size must be empty, or 1 or 3 numbers of at least 1, got (8, 8)",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_size=8.5",
        2,
        "segmenter.patch_size: expected",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_foreground=2",
        2,
        "--set segmenter.patch_foreground: patch_foreground must be in [0, 1], got 2.0",
    ),
    Row(
        "run noise --data volumes.h5 --set segmenter.patch_size=8 --set generator=cornucopia",
        2,
        "segmenter.patch_size needs generator = batched, got cornucopia",
    ),
)
def test_run_settings(place: Place, row: Row) -> None:
    place.refuses(row)

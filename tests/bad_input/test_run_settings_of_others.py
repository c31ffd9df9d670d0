"""Settings of the other studies.

One table, and long as it grows by rows.
"""

from bad_input.table import Place, Row, table


@table(
    Row(
        "run cross_contrast --data c.h5 --set tests=a=gone.h5",
        1,
        "gone.h5: cannot be opened: No such file or directory",
    ),
    Row(
        "run cross_contrast --data c.h5 --set tests=a=maps.h5",
        1,
        "maps.h5: holds labels only; a comparison on real images needs their images too",
    ),
    Row("run cross_contrast --data c.h5 --set tests=a", 2, "tests: got 'a': must be NAME=PATH"),
    Row(
        "run cross_contrast --data c.h5 --set tests=a=c.h5,a=c.h5",
        2,
        "--set tests: domain and the names of tests must be different, got ['MPRAGE',",
    ),
    Row(
        "run real_world --data c.h5 --set methods=naive,naive",
        2,
        "--set methods: methods: must list at least one method, each once, got",
    ),
    Row(
        "run real_world --data c.h5 --set methods=naïve",
        2,
        "--set methods: methods: unknown method 'naïve': did you mean 'naive'?",
    ),
    Row(
        "run real_world --data c.h5 --set methods=",
        2,
        "--set methods: methods: must list at least one method, each once, got []",
    ),
    Row(
        "run real_world --data c.h5 --set methods=optimised",
        2,
        "--set methods: methods: optimised trains with what a variant learned; list",
    ),
    Row(
        "run real_world --data c.h5 --set subjects.train=",
        2,
        "--set subjects.train: train must list at least one number >= 0, got ()",
    ),
    Row(
        "run real_world --data c.h5 --set subjects.train=99",
        1,
        "c.h5: subjects.train asks for 99 training subjects; 6 of 10 are left beside 2",
    ),
    Row(
        "run real_world --data c.h5 --set subjects.train=-1",
        2,
        "--set subjects.train: train must list at least one number >= 0, got (-1,)",
    ),
    Row(
        "run real_world --data c.h5 --set subjects.validation=99",
        1,
        "c.h5: a split needs at least 1 subject each for training, validation and",
    ),
    Row(
        "run real_world --data c.h5 --set subjects.rotation=99",
        1,
        "c.h5: rotation must be 0 to 4 for 2 test subjects of 10, got 99",
    ),
    Row(
        "run real_world --data c.h5 --set interpolations=2",
        2,
        "--set interpolations: interpolations must list at least one weight in [0, 1],",
    ),
    Row(
        "run real_world --data c.h5 --set interpolations=",
        2,
        "--set interpolations: interpolations must list at least one weight in [0, 1],",
    ),
    Row(
        "run real_world --data c.h5 --set mixed.fraction=1",
        2,
        "--set mixed.fraction: fraction must be between 0 and 1, got 1.0",
    ),
    Row(
        "run real_world --data c.h5 --set mixed.fraction=nan", 2, "mixed.fraction: expected a finite number, got 'nan'"
    ),
    Row(
        "run real_world --data c.h5 --set finetune.steps=0",
        2,
        "--set finetune.steps: steps must be at least 1 and lr positive, got 0 and",
    ),
    Row(
        "run real_world --data c.h5 --set select_every=0",
        2,
        "--set select_every: select_every must be at least 1, got 0",
    ),
    Row(
        "run real_world --data c.h5 --set clustered.clusters=1",
        2,
        "--set clustered.clusters: clusters and nodes must be at least 2 and share in",
    ),
    Row(
        "run real_world --data c.h5 --set learned.start=0",
        2,
        "--set learned.start: start: must be finite and at least 1.18e-38 (the map",
    ),
    Row(
        "run real_world --data c.h5 --set learned.start_c=1",
        2,
        "--set learned.start_c: exponents: must be greater than 0 and less than 1, got",
    ),
    Row(
        "run real_world --data c.h5 --set learned.network=0",
        2,
        "--set learned.network: widths: must be one or more numbers >= 1, got (0,)",
    ),
    Row(
        "run real_world --data c.h5 --set domain=",
        2,
        "--set domain: domain and the names of tests must be different, got ['']",
    ),
    Row(
        "run unpaired --data c.h5 --set people.scans=99",
        1,
        "c.h5: people.scans asks for 99 subjects; there are 6 training subjects, of",
    ),
    Row("run unpaired --data c.h5 --set people.scans=-1", 2, "--set people.scans: scans must be at least 0, got -1"),
    Row(
        "run unpaired --data c.h5 --set discriminator.widths=",
        2,
        "--set discriminator.widths: widths must list at least one number >= 1, got ()",
    ),
    Row(
        "run unpaired --data c.h5 --set discriminator.widths=4,4,4,4,4,4,4",
        1,
        "c.h5: images of 16 x 16 cannot be halved 6 times, as discriminator.widths of",
    ),
    Row(
        "run unpaired --data c.h5 --set discriminator.gain=0",
        2,
        "--set discriminator.gain: gain must be positive, got 0.0",
    ),
    Row(
        "run unpaired --data c.h5 --set discriminator.betas=0.5,1",
        2,
        "--set discriminator.betas: betas must be in [0, 1), got (0.5, 1.0)",
    ),
    Row(
        "run unpaired --data c.h5 --set adversarial.real=0 --set adversarial.synthetic=0",
        2,
        "--set adversarial.real, adversarial.synthetic: synthetic and real must be at",
    ),
    Row(
        "run unpaired --data c.h5 --set adversarial.tail=0",
        2,
        "--set adversarial.tail: tail must be in (0, 1], got 0.0",
    ),
    Row(
        "run unpaired --data c.h5 --set outer.horizon=2",
        2,
        "--set outer: outer.horizon must be 1 (the discriminator's spectral norms take their singular vectors "
        "for constants, so several steps cannot be differentiated), got 2",
    ),
    Row(
        "run real_world --data c.h5 --set methods=parametric_fixed --set outer.horizon=2000 --set outer.every=2000 "
        "--set outer.until=0",
        2,
        "--set methods, outer: outer.warmup + outer.horizon must be at most segmenter.steps = 1200, got 300 + 2000",
    ),
    Row(
        "run real_world --data c.h5 --set outer_synthesis.until=100",
        2,
        "--set outer_synthesis.until: until must be 0, or at least warmup + horizon = 300 + 60, got 100",
    ),
    Row(
        "run unpaired --data c.h5 --set outer.loss=dice",
        2,
        "--set outer: outer.loss must be segmenter (real images have no labels here, ",
    ),
    Row(
        "run unpaired --data c.h5 --set outer.reference=random",
        2,
        "--set outer: outer.reference must be none (a discriminator's two losses are",
    ),
    Row(
        "run unpaired --data c.h5 --set outer.warmup=999999",
        2,
        "--set outer: outer.warmup, every and average must leave an outer step in",
    ),
    Row(
        "run unpaired --data c.h5 --set generator.sigma=-1",
        2,
        "--set generator.sigma: start: must be finite and at least 1.18e-38 (the map",
    ),
    Row(
        "run unpaired --data c.h5 --set generator.exponent=2",
        2,
        "--set generator.exponent: exponents: must be greater than 0 and less than 1,",
    ),
    Row(
        "run unpaired --data c.h5 --set methods=psychic",
        2,
        "--set methods: methods: unknown method 'psychic': choose from intensities,",
    ),
    Row(
        "run inu --data c.h5 --set c=0.5",
        2,
        "c: expected 3 comma-separated values (a finite number, a finite number, a",
    ),
    Row(
        "run inu --data c.h5 --set c=0.5,0.5,-1",
        2,
        "--set c: c must be three numbers of at least 0, got (0.5, 0.5, -1.0)",
    ),
    Row("run inu --data c.h5 --set nodes=1,2,3", 2, "--set nodes: nodes must be at least 2, got (1, 2, 3)"),
    Row("run inu --data c.h5 --set start_c=1", 2, "--set start_c: start_c must be between 0 and 1, got 1.0"),
    Row(
        "run inu --data c.h5 --set network=",
        2,
        "--set network: network must list at least one width of at least 1, got ()",
    ),
    Row(
        "run inu --data c.h5 --set augmenter=nonparametric --set network=4,4,4,4,4,4,4",
        1,
        "c.h5: images of 16 x 16 cannot be halved 6 times; expected sizes divisible by",
    ),
    Row("run hyper_cleaning --set train=0", 2, "--set train: train must be positive, got 0"),
    Row(
        "run hyper_cleaning --set train=5000",
        2,
        "--set train: train + validation must be below 1797 and batch_size at most",
    ),
    Row(
        "run hyper_cleaning --set corrupted=0",
        2,
        "--set corrupted: corrupted must leave both wrong and right labels, got 0.0",
    ),
    Row("run hyper_cleaning --set hidden=-1", 2, "--set hidden: hidden must be at least 0, got -1"),
    Row(
        "run hyper_cleaning --set batch_size=99999",
        2,
        "--set batch_size: train + validation must be below 1797 and batch_size at",
    ),
    Row("run ridge --set features=0", 2, "--set features: features must be at least 1, got 0"),
    Row("run ridge --set features=1000000000", 2, "features, train, validation: one regression takes "),
    Row("run ridge --set momentum=1", 2, "--set momentum: momentum must be in [0, 1), got 1.0"),
    Row(
        "run ridge --set strategies=guess",
        2,
        "strategies: expected a comma-separated list, each one of unrolled, implicit,",
    ),
    Row(
        "run ridge --set strategies=unrolled,unrolled",
        2,
        "--set strategies: strategies must list at least one, each once, got",
    ),
    Row("run ridge --set start=0", 2, "--set start: start must list positive numbers, each once, got (0.0,)"),
    Row("run ridge --set lr=nan", 2, "lr: expected a finite number, got 'nan'"),
    Row("run sinusoid --set widths=0", 2, "--set widths: widths must be at least 1, got (0,)"),
    Row(
        "run sinusoid --set widths=1000000000,1000000000",
        2,
        "widths, shots, queries, tasks: adapting to 25 tasks takes ",
    ),
    Row("run sinusoid --set tasks=2000000000", 2, "widths, shots, queries, tasks: adapting to 2000000000 tasks takes "),
    Row("run sinusoid --set test_steps=1", 2, "--set test_steps: test_steps must be at least inner_steps = 5, got 1"),
    Row("run sinusoid --set test_tasks=1", 2, "--set test_tasks: test_tasks must be at least 3, got 1"),
    Row("run sinusoid --set clip=1", 2, "--set clip: clip must be above 1, got 1.0"),
    Row(
        "run sinusoid --set variants=reptile",
        2,
        "variants: expected a comma-separated list, each one of maml, first-order, got",
    ),
    Row(
        "run inu --data c.h5 --set segmenter.widths=4,8 --set nodes=2,4,1000000000", 2, "nodes: drawing 8 fields takes "
    ),
    Row(
        "run real_world --data c.h5 --set segmenter.widths=4,8 --set learned.nodes=2,1000000000",
        2,
        "learned.nodes: drawing 8 fields takes ",
    ),
    Row(
        "run real_world --data c.h5 --set learned.network=1000000,1000000",
        2,
        "--set learned.network: widths: an augmenting network takes ",
    ),
    Row(
        "run unpaired --data c.h5 --set discriminator.batch_size=2000000000",
        2,
        "discriminator.widths, discriminator.batch_size: a step on 2000000000 images",
    ),
    Row(
        "run unpaired --data c.h5 --set generator.network=1000000,1000000",
        2,
        "--set generator.network: widths: an augmenting network takes ",
    ),
    Row(
        "run hyper_cleaning --set train=1500 --set batch_size=1500 --set hidden=2147483647",
        2,
        "hidden: the classifier takes ",
    ),
    Row(
        "run real_world --preset quick-3d",
        2,
        "segmenter.patch_size = 48 x 48 x 48 needs --data, a cache of volumes, as what is embedded are slices: "
        "metasynth prep nifti --images SCANS --labels LABELS --3d --spacing 3 --out volumes.h5",
    ),
    Row(
        "run real_world --preset quick-3d --data c.h5",
        1,
        "c.h5: holds coronal slices; segmenter.patch_size = 48 x 48 x 48 is of volumes: prepare them with --3d",
    ),
    Row(
        "run unpaired --data volumes.h5 --set segmenter.patch_size=8",
        2,
        "segmenter.patch_size must be empty (a discriminator is shown whole images), got (8,)",
    ),
)
def test_run_settings_of_others(place: Place, row: Row) -> None:
    place.refuses(row)

"""The files of tests that take longest, longest first.

Begun first, none is waited for at the end by processes that have nothing left to do. Measured with
``pytest --durations=0 -n 2 --dist loadfile``; a file that is missing here costs a few seconds at most.
"""

LONGEST = (
    "docs/test_blocks.py",
    "bilevel/test_contract.py",
    "test_kills.py",
    "test_cli_grid.py",
    "test_signals.py",
    "test_lines.py",
    "experiments/test_real_world.py",
    "test_packaging.py",
    "experiments/test_own_augmenter.py",
    "examples/test_examples.py",
    "training/test_settings_together.py",
    "bilevel/test_parts.py",
    "experiments/test_tampered_runs.py",
    "bilevel/test_dead_units.py",
    "experiments/test_heads.py",
    "bilevel/test_memory.py",
    "bilevel/test_processes.py",
    "bilevel/test_inner_update_parity.py",
    "bilevel/test_backbones.py",
    "bilevel/test_supported.py",
    "experiments/comparison/test_synthesis.py",
    "experiments/test_generation_labels.py",
    "test_bad_input_while_running.py",
    "bilevel/test_strategies_in_the_solver.py",
    "test_cli_log.py",
    "test_fuzzed_volumes.py",
    "running/integrity/test_results.py",
)

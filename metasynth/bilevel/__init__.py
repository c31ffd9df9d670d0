"""A core for bilevel problems, which knows nothing of images: what a user of it needs.

State a problem by two losses (`BilevelProblem`), solve it step by step (`BilevelSolver`), choose how the hypergradient
is computed (a strategy), what is done with it (`OuterStep`), and what around the inner optimiser (`InnerUpdate`).
"""

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.draws import draw
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.outer_step import PERSISTENT, OuterStep
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem, Loss, Outer
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.step_report import NonFiniteError, StepReport
from metasynth.bilevel.strategies.evolution_strategies import EvolutionStrategies
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, LinearSolver, Neumann
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.score_function import ScoreFunction
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate

__all__ = [
    "PERSISTENT",
    "BilevelProblem",
    "BilevelSolver",
    "BufferPolicy",
    "ConjugateGradient",
    "EvolutionStrategies",
    "FiniteDifference",
    "Forward",
    "FunctionalModel",
    "Hypergradient",
    "HypergradientStrategy",
    "Implicit",
    "InParts",
    "InnerStep",
    "InnerUpdate",
    "LinearSolver",
    "Loss",
    "Mixed",
    "Neumann",
    "NonFiniteError",
    "Outer",
    "OuterStep",
    "Processes",
    "ScoreFunction",
    "StepInputs",
    "StepReport",
    "Unrolled",
    "draw",
    "hypergradient",
    "preflight",
]

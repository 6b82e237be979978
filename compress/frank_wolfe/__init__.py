"""Training inside a convex set: feasible sets, stochastic Frank-Wolfe, its learning rate and its start (001)."""

from compress.frank_wolfe.balls import L1Ball, L2Ball, LInfBall, Simplex
from compress.frank_wolfe.initialisation import LearnedScales, sfw_init
from compress.frank_wolfe.optimizer import SFW
from compress.frank_wolfe.polytope import KSparsePolytope
from compress.frank_wolfe.schedule import DynamicLR
from compress.frank_wolfe.set import FeasibleSet
from compress.frank_wolfe.tensor_sets import k_sparse_sets

__all__ = [
    "SFW",
    "DynamicLR",
    "FeasibleSet",
    "KSparsePolytope",
    "L1Ball",
    "L2Ball",
    "LInfBall",
    "LearnedScales",
    "Simplex",
    "k_sparse_sets",
    "sfw_init",
]

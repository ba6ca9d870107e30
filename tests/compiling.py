"""How much of the compiler's effort goes into tests: little, where a test does not ask for all."""

import importlib.metadata

# XLA's older way of compiling fusions is the faster one. jaxlib 0.11 no longer has it, and does not
# start with a flag that it does not know.
_CHOOSES_EMITTERS = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)

# For the environment variable XLA_FLAGS, beside `jax_disable_most_optimizations`.
LIGHT_FLAGS = "--xla_cpu_use_fusion_emitters=false" if _CHOOSES_EMITTERS else ""

# `jax.jit(f, compiler_options=FULLY)` compiles as users do.
FULLY = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
FULLY |= {"xla_cpu_use_fusion_emitters": True} if _CHOOSES_EMITTERS else {}

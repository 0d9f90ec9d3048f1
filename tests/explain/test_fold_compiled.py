"""The fused kernel passes Triton's compiler for GPUs, which refuses what its interpreter takes; no GPU is needed."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from camplug.explain import fold_kernels as kernels
from camplug.explain.fold import KINDS

POINTERS = {"a_ptr": "*bf16", "g_ptr": "*bf16", "weight_ptr": "*fp32", "out_ptr": "*fp32"}


@pytest.mark.parametrize(
    "kernel, options",
    [("_map_kernel", {"has_weights": False, "clamp": True}), ("_weight_kernel", {})],
)
@pytest.mark.parametrize("kind", ["fully", "xgradcam"])
def test_kernels_compile(kernel, options, kind):
    function = getattr(kernels, kernel)
    if not hasattr(function, "arg_names"):
        pytest.skip("Triton was imported for its interpreter")
    constants = {"kind": KINDS.index(kind), "block_k": 16, "block_p": 64, "tiny": 1e-38, **options}
    signature = {n: POINTERS.get(n, "constexpr" if n in constants else "i32") for n in function.arg_names}
    source = ASTSource(function, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 4})
    assert len(compiled.asm["cubin"]) > 0

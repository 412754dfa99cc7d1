"""Stands in for SGLang's compiled kernels, of which PyPI has no CPU build.

SGLang 0.5.23 imports these names while loading on a CPU, and its pure-torch paths never call them (only speculative
decoding and moves of the KV cache would). A call is an error, never a silent nothing. Real kernels register
`torch.ops.sgl_kernel`; this file does not, and that is what sends SGLang down its torch paths.
"""


def _missing(name):
    def call(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} was called, but there is no CPU build of sgl_kernel")

    call.__name__ = name
    return call


for _name in (
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "verify_tree_greedy_cpu",
):
    globals()[_name] = _missing(_name)

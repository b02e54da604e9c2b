// int4_group; the linear is that of int4_linear.cuh.
#include "kernels/cuda/int4_linear.cuh"

namespace tandem {

LinearKernel cuda_int4_row(const char* name) { return int4_row<false>(name, Packing::int4_group); }

}  // namespace tandem

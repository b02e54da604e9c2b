// int4_zero; the linear is that of int4_linear.cuh.
#include "kernels/cuda/int4_linear.cuh"

namespace tandem {

LinearKernel cuda_int4_zero_row(const char* name) {
  return int4_row<true>(name, Packing::int4_zero);
}

}  // namespace tandem

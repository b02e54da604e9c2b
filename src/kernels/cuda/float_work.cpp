// kernels/float_work.h on a GPU: which kernels and which large products make each operation.
#include "kernels/float_work.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/float_kernels.h"
#include "kernels/cuda/float_products.h"

namespace tandem {
namespace {

// Of a symmetric product: rows that are made from their diagonal block on.
constexpr int64_t kSymmetricRows = 2048;

// As one of the library's factors, where [rows, columns] in columns is its transpose in rows.
struct Factor {
  int64_t ld;
  bool transposed;
};
Factor factor_of(const MatrixView& view) {
  CHECK(view.column_stride == 1 || view.row_stride == 1, "strides {} {}", view.row_stride,
        view.column_stride);
  return view.column_stride == 1 ? Factor{view.row_stride, false}
                                 : Factor{view.column_stride, true};
}

class CudaFloatWork final : public FloatWork {
 public:
  CudaFloatWork(CudaDevice& device, FloatProducts& products)
      : device_(device),
        products_(products),
        most_free_(device.free_bytes()),
        least_free_(most_free_),
        failed_(sizeof(int32_t), &device) {}

  Device& device() override { return device_; }
  uint64_t peak_bytes() const override { return most_free_ - least_free_; }

  void multiply(const ProductBatch& p) override {
    if (p.M == 0 || p.N == 0) return;
    if (!p.upper_only || p.M <= kSymmetricRows) return multiply_whole(p);
    for (int64_t i = 0; i < p.M; i += kSymmetricRows) {
      ProductBatch part = p;
      part.M = std::min(kSymmetricRows, p.M - i);
      part.N = p.N - i;
      part.a.data += i * p.a.row_stride;
      part.b.data += i * p.b.column_stride;
      part.c += i * p.ldc + i;
      multiply_whole(part);
    }
  }

  void rotate_heads(float* qkv, const HeadTransform& transform, const float* cos_sin,
                    const HeadShape& shape) override {
    cuda_rotate_heads(qkv, transform, cos_sin, shape, device_.stream());
  }

  // The queries that share a key are taken one after the other, so that what is left is at even
  // distances.
  void attention(const float* qkv, const HeadShape& s, int64_t window, float* scores,
                 float* out) override {
    const int64_t each = s.H / s.G, S = s.length, ld = (s.H + 2 * s.G) * s.D;
    const float* keys = qkv + s.H * s.D;
    const float* values = keys + s.G * s.D;
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.D));
    for (int64_t t = 0; t < s.T; t += S) {
      for (int64_t q = 0; q < each; ++q) {
        ProductBatch product;
        product.M = product.N = S;
        product.K = s.D;
        product.a = {qkv + t * ld + q * s.D, ld};
        product.b = {keys + t * ld, 1, ld};
        product.c = scores;
        product.ldc = S;
        product.alpha = scale;
        product.accumulates = false;
        product.count = s.G;
        product.a_stride = each * s.D;
        product.b_stride = s.D;
        product.c_stride = S * S;
        multiply_whole(product);
        cuda_causal_softmax(scores, s.G, S, window, device_.stream());
        product.N = s.D;
        product.K = S;
        product.a = {scores, S};
        product.a_stride = S * S;
        product.b = {values + t * ld, ld};
        product.c = out + t * s.H * s.D + q * s.D;
        product.ldc = s.H * s.D;
        product.c_stride = each * s.D;
        product.alpha = 1.0f;
        multiply_whole(product);
      }
    }
  }

  void add_magnitudes(const float* x, int64_t T, int64_t K, double* sums,
                      float* largest) override {
    note_memory();
    const int64_t count = kMagnitudeParts * K;
    std::byte* parts = device_.workspace();
    CHECK(static_cast<size_t>(count) * (sizeof(double) + sizeof(float)) <=
              CudaDevice::kWorkspaceBytes,
          "K {}", K);
    auto* part_sums = reinterpret_cast<double*>(parts);
    cuda_add_magnitudes(x, T, K, part_sums, reinterpret_cast<float*>(part_sums + count), sums,
                        largest, device_.stream());
  }

  void mirror(float* a, int64_t n, float* diagonal) override {
    cuda_mirror(a, n, diagonal, device_.stream());
  }

  bool inverse_factor(const float* gram, int64_t n, const int32_t* channels, const uint8_t* dead,
                      float added, float* upper, float* spare) override {
    note_memory();
    cudaStream_t stream = device_.stream();
    CUDA_CHECK(cudaMemsetAsync(failed_.data(), 0, sizeof(int32_t), stream));
    const int64_t blocks = (n + kFactorBlock - 1) / kFactorBlock;
    const size_t block_bytes = kFactorBlock * kFactorBlock * sizeof(float);
    // A block's rows to the right while they are made, and the inverses of the diagonal's blocks.
    const size_t panel_bytes = static_cast<size_t>(kFactorBlock * n) * sizeof(float);
    CHECK(panel_bytes + static_cast<size_t>(blocks) * block_bytes <= CudaDevice::kWorkspaceBytes,
          "n {}", n);
    auto* panel = reinterpret_cast<float*>(device_.workspace());
    float* inverses = panel + kFactorBlock * n;
    cuda_damped_reversed(gram, n, channels, dead, added, spare, stream);
    factorize(spare, n, panel, inverses);
    int32_t failed = 0;
    device_.download(&failed, failed_.data(), sizeof failed);
    if (failed != 0) return false;
    invert_upper(spare, n, panel, inverses);
    cuda_flip_upper(spare, n, upper, stream);
    return true;
  }

  void round_columns(const ColumnRounding& r) override {
    note_memory();
    cuda_take_columns(r, device_.stream());
    const int64_t group = r.grid.group, most = ColumnRounding::kBlockColumns;
    // Whole groups, so that a group is fitted when all errors before it have arrived.
    const int64_t block = group < most ? most / group * group : most;
    float* w = r.channels != nullptr ? r.spare : r.w;
    for (int64_t begin = 0; begin < r.K; begin += block) {
      const int64_t end = std::min(begin + block, r.K), count = end - begin;
      cuda_round_block(r, begin, count, device_.stream());
      ProductBatch product;
      product.M = r.N;
      product.N = r.K - end;
      product.K = count;
      product.a = {r.errors, count};
      product.b = {r.factor + begin * r.K + end, r.K};
      product.c = w + end;
      product.ldc = r.K;
      product.alpha = -1.0f;
      multiply(product);
    }
  }

  void find_ranges(const ZeroSearch& search) override {
    note_memory();
    cuda_find_ranges(search, device_.stream());
  }
  void move_zeros(const ZeroSearch& search) override {
    cuda_move_zeros(search, device_.stream());
  }
  void make_codes(const ZeroSearch& search) override {
    cuda_make_codes(search, device_.stream());
  }

 private:
  // Where the largest buffers are in use.
  void note_memory() { least_free_ = std::min(least_free_, device_.free_bytes()); }

  // In rows c = a . b is c^T = b^T . a^T in columns.
  void multiply_whole(const ProductBatch& p) {
    const Factor a = factor_of(p.a), b = factor_of(p.b);
    products_.multiply({.M = p.N,
                        .N = p.M,
                        .K = p.K,
                        .a = p.b.data,
                        .lda = b.ld,
                        .a_transposed = b.transposed,
                        .b = p.a.data,
                        .ldb = a.ld,
                        .b_transposed = a.transposed,
                        .c = p.c,
                        .ldc = p.ldc,
                        .alpha = p.alpha,
                        .accumulate = p.accumulates,
                        .count = p.count,
                        .a_stride = p.b_stride,
                        .b_stride = p.a_stride,
                        .c_stride = p.c_stride},
                       device_.stream());
  }

  // panel [size, rest] = rows [begin, end) of a to the right of their diagonal block.
  void copy_panel(const float* a, int64_t n, int64_t begin, int64_t end, float* panel) {
    const size_t width = static_cast<size_t>(n - end) * sizeof(float);
    CUDA_CHECK(cudaMemcpy2DAsync(panel, width, a + begin * n + end,
                                 static_cast<size_t>(n) * sizeof(float), width,
                                 static_cast<size_t>(end - begin), cudaMemcpyDeviceToDevice,
                                 device_.stream()));
  }

  // a = R^T R in place: the upper triangle becomes R. With the inverses of its diagonal blocks.
  void factorize(float* a, int64_t n, float* panel, float* inverses) {
    for (int64_t begin = 0; begin < n; begin += kFactorBlock) {
      const int64_t end = std::min(begin + kFactorBlock, n), size = end - begin, rest = n - end;
      float* inverse = inverses + begin * kFactorBlock;
      cuda_factor_block(a + begin * n + begin, n, size, inverse,
                        failed_.as<int32_t>(), device_.stream());
      if (rest == 0) return;
      copy_panel(a, n, begin, end, panel);
      ProductBatch right;  // R12 = R11^-T A12
      right.M = right.K = size;
      right.N = rest;
      right.a = {inverse, 1, kFactorBlock};
      right.b = {panel, rest};
      right.c = a + begin * n + end;
      right.ldc = n;
      right.accumulates = false;
      multiply(right);
      ProductBatch below;  // A22 -= R12^T R12
      below.M = below.N = rest;
      below.K = size;
      below.b = {a + begin * n + end, n};
      below.a = below.b.transposed();
      below.c = a + end * n + end;
      below.ldc = n;
      below.alpha = -1.0f;
      below.upper_only = true;
      multiply(below);
    }
  }

  // The upper triangle R becomes R^-1, by blocks of rows from the bottom. What lies below the
  // diagonal is cleared before it is read.
  void invert_upper(float* r, int64_t n, float* panel, const float* inverses) {
    cudaStream_t stream = device_.stream();
    const auto pitch = static_cast<size_t>(n) * sizeof(float);
    for (int64_t begin = (n - 1) / kFactorBlock * kFactorBlock; begin >= 0;
         begin -= kFactorBlock) {
      const int64_t end = std::min(begin + kFactorBlock, n), size = end - begin, rest = n - end;
      const float* inverse = inverses + begin * kFactorBlock;
      if (rest > 0) {
        ProductBatch product;  // of R12 and what has become of R22
        product.M = size;
        product.N = product.K = rest;
        product.a = {r + begin * n + end, n};
        product.b = {r + end * n + end, n};
        product.c = panel;
        product.ldc = rest;
        product.accumulates = false;
        multiply(product);
        product.K = size;
        product.a = {inverse, kFactorBlock};
        product.b = {panel, rest};
        product.c = r + begin * n + end;
        product.ldc = n;
        product.alpha = -1.0f;
        multiply(product);
      }
      CUDA_CHECK(cudaMemset2DAsync(r + begin * n, pitch, 0,
                                   static_cast<size_t>(begin) * sizeof(float),
                                   static_cast<size_t>(size), stream));
      CUDA_CHECK(cudaMemcpy2DAsync(r + begin * n + begin, pitch, inverse,
                                   kFactorBlock * sizeof(float),
                                   static_cast<size_t>(size) * sizeof(float),
                                   static_cast<size_t>(size), cudaMemcpyDeviceToDevice, stream));
    }
  }

  CudaDevice& device_;
  FloatProducts& products_;
  uint64_t most_free_, least_free_;
  Buffer failed_;
};

}  // namespace

std::unique_ptr<FloatWork> make_float_work(Device& device) {
  auto& cuda = static_cast<CudaDevice&>(device);
  FloatProducts* products = FloatProducts::of(cuda.cublas());
  if (products == nullptr) {
    fail(ErrorKind::no_device,
         "{}: compression wants large fp32 products: found no libcublasLt.so.13 for {}, expected it "
         "in the loader's path or /usr/local/cuda/lib64, and sm_90a kernels",
         device.name(), device.description());
  }
  return std::make_unique<CudaFloatWork>(cuda, *products);
}

}  // namespace tandem

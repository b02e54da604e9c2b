#include "kernels/cuda/cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <tuple>

#include "base/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/float_products.h"

namespace tandem {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA asks for on Hopper
constexpr const char* kPlaces[] = {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13"};

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::system, "cuBLASLt: {}: status {}", what, static_cast<int>(status));
}

// The functions used, by their own names.
struct Functions {
#define TANDEM_CUBLAS(name) decltype(&::name) name = nullptr
  TANDEM_CUBLAS(cublasLtCreate);
  TANDEM_CUBLAS(cublasLtDestroy);
  TANDEM_CUBLAS(cublasLtGetVersion);
  TANDEM_CUBLAS(cublasLtMatmulDescCreate);
  TANDEM_CUBLAS(cublasLtMatmulDescSetAttribute);
  TANDEM_CUBLAS(cublasLtMatrixLayoutCreate);
  TANDEM_CUBLAS(cublasLtMatrixLayoutSetAttribute);
  TANDEM_CUBLAS(cublasLtMatmulPreferenceCreate);
  TANDEM_CUBLAS(cublasLtMatmulPreferenceSetAttribute);
  TANDEM_CUBLAS(cublasLtMatmulAlgoGetHeuristic);
  TANDEM_CUBLAS(cublasLtMatmul);
#undef TANDEM_CUBLAS

  bool load(void* library) {
    const auto find = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    return find(cublasLtCreate, "cublasLtCreate") && find(cublasLtDestroy, "cublasLtDestroy") &&
           find(cublasLtGetVersion, "cublasLtGetVersion") &&
           find(cublasLtMatmulDescCreate, "cublasLtMatmulDescCreate") &&
           find(cublasLtMatmulDescSetAttribute, "cublasLtMatmulDescSetAttribute") &&
           find(cublasLtMatrixLayoutCreate, "cublasLtMatrixLayoutCreate") &&
           find(cublasLtMatrixLayoutSetAttribute, "cublasLtMatrixLayoutSetAttribute") &&
           find(cublasLtMatmulPreferenceCreate, "cublasLtMatmulPreferenceCreate") &&
           find(cublasLtMatmulPreferenceSetAttribute, "cublasLtMatmulPreferenceSetAttribute") &&
           find(cublasLtMatmulAlgoGetHeuristic, "cublasLtMatmulAlgoGetHeuristic") &&
           find(cublasLtMatmul, "cublasLtMatmul");
  }
};

// A product of one shape as cuBLASLt wants it described. Descriptions live as long as the program's
// device.
struct Plan {
  bool exists = false;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

uint64_t u64(int64_t value) { return static_cast<uint64_t>(value); }

// Whether all rows of all factors begin at whole 16 bytes.
bool is_aligned(const FloatMatmul& m) {
  int64_t bits = m.lda | m.ldb | m.ldc | m.a_stride | m.b_stride | m.c_stride;
  for (const float* data : {m.a, m.b, static_cast<const float*>(m.c)}) {
    bits |= static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / sizeof(float));
  }
  return bits % 4 == 0;
}

class LoadedCublas final : public Cublas, public FloatProducts {
 public:
  LoadedCublas(void* library, const Functions& functions) : library_(library), call_(functions) {
    check(call_.cublasLtCreate(&handle_), "create");
    CUDA_CHECK(cudaMalloc(&workspace_, kWorkspaceBytes));
  }
  ~LoadedCublas() override {
    cudaFree(workspace_);
    call_.cublasLtDestroy(handle_);
    dlclose(library_);
  }
  uint64_t version() const override { return call_.cublasLtGetVersion(); }

  bool matmul(const MatmulCall& m, void* stream) override {
    const auto key =
        std::make_tuple(m.type, m.w_scales != nullptr, m.N, m.T, m.K, m.ldw, m.ldx, m.ldy);
    auto it = plans_.find(key);
    if (it == plans_.end()) it = plans_.emplace(key, make_plan(m)).first;
    const Plan& plan = it->second;
    if (!plan.exists) return false;
    if (m.w_scales != nullptr) set_scales(plan.operation, m);
    const float alpha = 1.0f, beta = m.accumulate ? 1.0f : 0.0f;
    const int32_t one = 1, zero = 0;
    const bool is_int8 = m.type == ActType::int8_token;
    const void* scale = is_int8 ? static_cast<const void*>(&one) : &alpha;
    const void* keep = is_int8 ? static_cast<const void*>(&zero) : &beta;
    check(call_.cublasLtMatmul(handle_, plan.operation, scale, m.w, plan.w, m.x, plan.x, keep, m.y,
                               plan.y, m.y, plan.y, &plan.algorithm, workspace_, kWorkspaceBytes,
                               static_cast<cudaStream_t>(stream)),
          "matmul");
    return true;
  }

  void multiply(const FloatMatmul& m, void* stream) override {
    const bool aligned = is_aligned(m);
    const auto key = std::make_tuple(std::array{m.M, m.N, m.K, m.lda, m.ldb, m.ldc, m.count,
                                                m.a_stride, m.b_stride, m.c_stride},
                                     m.a_transposed, m.b_transposed, aligned);
    auto it = float_plans_.find(key);
    if (it == float_plans_.end()) it = float_plans_.emplace(key, make_plan(m, aligned)).first;
    const Plan& plan = it->second;
    const float beta = m.accumulate ? 1.0f : 0.0f;
    check(call_.cublasLtMatmul(handle_, plan.operation, &m.alpha, m.a, plan.w, m.b, plan.x, &beta,
                               m.c, plan.y, m.c, plan.y, &plan.algorithm, workspace_,
                               kWorkspaceBytes, static_cast<cudaStream_t>(stream)),
          "multiply");
  }

 private:
  cublasLtMatrixLayout_t make_layout(int64_t rows, int64_t columns, int64_t ld, int64_t count,
                                     int64_t stride) {
    cublasLtMatrixLayout_t layout = nullptr;
    check(call_.cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, u64(rows), u64(columns), ld),
          "describe a factor");
    if (count == 1) return layout;
    const auto n = static_cast<int32_t>(count);
    check(call_.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n,
                                                 sizeof n),
          "count products");
    check(call_.cublasLtMatrixLayoutSetAttribute(
              layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
          "place products");
    return layout;
  }

  Plan make_plan(const FloatMatmul& m, bool aligned) {
    Plan plan;
    check(call_.cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "describe the product");
    const cublasOperation_t a = m.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b = m.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(call_.cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &a,
                                               sizeof a),
          "transpose a factor");
    check(call_.cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &b,
                                               sizeof b),
          "transpose a factor");
    plan.w = m.a_transposed ? make_layout(m.K, m.M, m.lda, m.count, m.a_stride)
                            : make_layout(m.M, m.K, m.lda, m.count, m.a_stride);
    plan.x = m.b_transposed ? make_layout(m.N, m.K, m.ldb, m.count, m.b_stride)
                            : make_layout(m.K, m.N, m.ldb, m.count, m.b_stride);
    plan.y = make_layout(m.M, m.N, m.ldc, m.count, m.c_stride);
    choose_algorithm(&plan, aligned);
    if (!plan.exists) {
      fail(ErrorKind::no_device, "cuBLASLt {} has no fp32 product of {} x {} x {}", version(), m.M,
           m.N, m.K);
    }
    return plan;
  }

  void choose_algorithm(Plan* plan, bool aligned) {
    cublasLtMatmulPreference_t preference = nullptr;
    check(call_.cublasLtMatmulPreferenceCreate(&preference), "state a preference");
    check(call_.cublasLtMatmulPreferenceSetAttribute(preference,
                                                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &kWorkspaceBytes, sizeof kWorkspaceBytes),
          "give a workspace");
    const uint32_t bytes = aligned ? 16 : 4;
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      check(call_.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof bytes),
            "state alignment");
    }
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        call_.cublasLtMatmulAlgoGetHeuristic(handle_, plan->operation, plan->w, plan->x, plan->y,
                                             plan->y, preference, 1, &found, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "choose an algorithm");
    plan->exists = status == CUBLAS_STATUS_SUCCESS && count > 0;
    plan->algorithm = found.algo;
  }

  void set_scales(cublasLtMatmulDesc_t operation, const MatmulCall& m) {
    check(call_.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                               &m.w_scales, sizeof m.w_scales),
          "give the rows' scales");
    check(call_.cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                                               &m.x_scales, sizeof m.x_scales),
          "give the tokens' scales");
  }

  // In cuBLASLt's columns: y is N x T, w is K x N and transposed, x is K x T.
  Plan make_plan(const MatmulCall& m) {
    const bool is_int8 = m.type == ActType::int8_token;
    const cudaDataType_t type = is_int8                        ? CUDA_R_8I
                                : m.type == ActType::fp8_token ? CUDA_R_8F_E4M3
                                : m.type == ActType::bf16      ? CUDA_R_16BF
                                                               : CUDA_R_16F;
    const cudaDataType_t sum = is_int8 ? CUDA_R_32I : CUDA_R_32F;
    Plan plan;
    check(call_.cublasLtMatmulDescCreate(&plan.operation,
                                         is_int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, sum),
          "describe the product");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    check(call_.cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                               &transpose, sizeof transpose),
          "transpose the weight");
    if (m.w_scales != nullptr) {
      const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
      for (const auto attribute :
           {CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE}) {
        check(call_.cublasLtMatmulDescSetAttribute(plan.operation, attribute, &mode, sizeof mode),
              "scale rows and tokens");
      }
      set_scales(plan.operation, m);
    }
    check(call_.cublasLtMatrixLayoutCreate(&plan.w, type, u64(m.K), u64(m.N), m.ldw),
          "describe the weight");
    check(call_.cublasLtMatrixLayoutCreate(&plan.x, type, u64(m.K), u64(m.T), m.ldx),
          "describe the activations");
    check(call_.cublasLtMatrixLayoutCreate(&plan.y, sum, u64(m.N), u64(m.T), m.ldy),
          "describe the output");
    cublasLtMatmulPreference_t preference = nullptr;
    check(call_.cublasLtMatmulPreferenceCreate(&preference), "state a preference");
    check(call_.cublasLtMatmulPreferenceSetAttribute(preference,
                                                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &kWorkspaceBytes, sizeof kWorkspaceBytes),
          "give a workspace");
    // y may begin in the middle of a wider row, and its rows are 4-byte numbers.
    const uint32_t alignment = 16;
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      const uint32_t bytes = m.ldy % 4 == 0 ? alignment : 4;
      check(call_.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof bytes),
            "state alignment");
    }
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = call_.cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.operation, plan.w, plan.x, plan.y, plan.y, preference, 1, &found, &count);
    // A library that does not know the scales' mode calls it an invalid value.
    const bool unknown = m.w_scales != nullptr && status == CUBLAS_STATUS_INVALID_VALUE;
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && !unknown) check(status, "choose an algorithm");
    plan.exists = status == CUBLAS_STATUS_SUCCESS && count > 0;
    plan.algorithm = found.algo;
    return plan;
  }

  void* library_;
  Functions call_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<std::tuple<ActType, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>, Plan>
      plans_;
  std::map<std::tuple<std::array<int64_t, 10>, bool, bool, bool>, Plan> float_plans_;
};

}  // namespace

FloatProducts* FloatProducts::of(Cublas* cublas) { return dynamic_cast<LoadedCublas*>(cublas); }

std::shared_ptr<Cublas> Cublas::open() {
  for (const char* place : kPlaces) {
    void* library = dlopen(place, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    Functions functions;
    if (functions.load(library)) return std::make_shared<LoadedCublas>(library, functions);
    dlclose(library);
  }
  return nullptr;
}

}  // namespace tandem

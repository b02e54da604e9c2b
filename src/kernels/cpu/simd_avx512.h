// AVX-512 with VNNI as the operations that the kernels of cpu/ are written in: 16 lanes. Included
// inside the region that is compiled for AVX-512 (kernels_avx512.cpp), after immintrin.h.
#pragma once

struct Avx512 {
  static constexpr const char* kIsa = "avx512";
  static constexpr int kLanes = 16;
  static constexpr int kTileTokens = 8;   // tokens of a linear's register tile: 2 x 8 of 32 registers
  static constexpr bool kSignedBytes = false;  // 8-bit codes are kept unsigned: vpdpbusd wants u8 x s8
  using F = __m512;
  using I = __m512i;

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  // The first n of 16 lanes, n in [0, 16].
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static F load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store_first(float* p, F x, int64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static float reduce_add(F a) { return _mm512_reduce_add_ps(a); }
  static float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
  // Lanes whose number is >= n become x.
  static F fill_from(F a, int64_t n, float x) {
    const int64_t keep = n < 0 ? 0 : n > 16 ? 16 : n;
    return _mm512_mask_blend_ps(first(keep), _mm512_set1_ps(x), a);
  }

  // e^x for x in [-87, 88]; below, 0; above, the value at 88; NaN of NaN. Relative error under 2e-7.
  static F exp(F x) {
    x = _mm512_min_ps(set(88.0f), x);  // NOTE: min gives the second operand when one is NaN
    const __mmask16 tiny = _mm512_cmp_ps_mask(x, set(-87.0f), _CMP_LT_OQ);
    const F n = _mm512_roundscale_ps(mul(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    F r = _mm512_fnmadd_ps(n, set(0.693145752f), x);
    r = _mm512_fnmadd_ps(n, set(1.42860677e-6f), r);
    F p = set(1.98756915e-4f);
    p = fma(p, r, set(1.39819995e-3f));
    p = fma(p, r, set(8.33345261e-3f));
    p = fma(p, r, set(4.16657962e-2f));
    p = fma(p, r, set(1.66666657e-1f));
    p = fma(p, r, set(5.00000000e-1f));
    p = add(fma(mul(p, r), r, r), set(1.0f));
    const F result = _mm512_scalef_ps(p, n);
    return _mm512_mask_blend_ps(tiny, result, zero());
  }

  // 16 elements of a 16-bit or 8-bit type.
  static F load_bf16(const uint16_t* p) {
    const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_int8(const int8_t* p) {
    return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F load_uint8(const uint8_t* p) {
    return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // 16 E4M3 numbers, times 1 / kE4m3Unit: their bits are those of f16 further right, with another bias.
  static constexpr float kE4m3Unit = 256.0f;
  static F load_e4m3(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
    const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7F)), 7);
    return _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
  }
  // 16 numbers, and those that the low and the high nibbles of 16 bytes stand for.
  static F load_table(const float* values) { return load(values); }
  static void look_up(F table, const uint8_t* p, F& low, F& high) {
    const I codes = load_codes(p);
    low = _mm512_permutexvar_ps(codes, table);  // reads the lowest four bits
    high = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table);
  }
  // 16 bytes, a lane each.
  static I load_codes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // For 2:4 weights: in each lane the float of x[4] that its two lowest bits name.
  static F pick_of_four(const float* x, I places) {
    return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(x)), places);
  }
  // A byte of four places, of two groups -> four bytes that say which of eight bytes.
  static I spread_places(I c) {
    const I low = or_bits(c, _mm512_slli_epi32(c, 6));
    const I all = or_bits(low, _mm512_slli_epi32(low, 12));
    return or_bits(and_bytes(all, 3), set_int(0x04040000));
  }
  // sum + values . (kPickedBias + the four of x[8] in each lane), which makes x unsigned for vpdpbusd.
  static constexpr int32_t kPickedBias = 128;
  static I dot_picked(I sum, I values, const int8_t* x, I places) {
    int64_t eight;
    std::memcpy(&eight, x, sizeof eight);
    const I unsigned_x = _mm512_set1_epi64(eight ^ static_cast<int64_t>(0x8080808080808080u));
    return _mm512_dpbusd_epi32(sum, _mm512_shuffle_epi8(unsigned_x, places), values);
  }
  // Round to nearest even; NaN is not expected.
  static void store_bf16(uint16_t* p, F x) {
    const I u = _mm512_castps_si512(x);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const I rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7FFF)), odd);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
  // Rounds to nearest even, stores 16 signed bytes and gives their 32-bit values.
  static I store_int8(int8_t* p, F x) {
    const I codes = _mm512_cvtps_epi32(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(codes));
    return codes;
  }

  static I zero_int() { return _mm512_setzero_si512(); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static int32_t reduce_add(I a) { return _mm512_reduce_add_epi32(a); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }

  static I broadcast4(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }

  // Bits and bytes, for codes that are split in planes (code_planes.h).
  static I set_int(int32_t x) { return _mm512_set1_epi32(x); }
  static I load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static I or_bits(I a, I b) { return _mm512_or_si512(a, b); }
  static I and_bytes(I a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi8(static_cast<char>(mask))); }
  // Within 16 bits, left by `bits` or right by -bits.
  template <int bits>
  static I shift(I a) {
    if constexpr (bits >= 0) return _mm512_slli_epi16(a, bits);
    return _mm512_srli_epi16(a, bits < 0 ? -bits : 0);
  }
  // sum + codes . x in each 32 bits; codes unsigned, below 128.
  static I dot_quad(I sum, I codes, I x) { return _mm512_dpbusd_epi32(sum, codes, x); }

  // sums[m] += codes . x[m] over a block of 32 channels, for 16 rows. codes: 4 x 64 bytes; in vector j the
  // low nibbles of row n's four bytes are channels 4j.., the high ones channels 16 + 4j...
  template <int MB>
  static void dot_block4(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    const I mask = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const I raw = _mm512_loadu_si512(codes + 64 * j);
      const I low = _mm512_and_si512(raw, mask);
      const I high = _mm512_and_si512(_mm512_srli_epi16(raw, 4), mask);
#pragma GCC unroll 8
      for (int m = 0; m < MB; ++m) {
        sums[m] = _mm512_dpbusd_epi32(sums[m], low, broadcast4(x + m * ldx + 4 * j));
      }
#pragma GCC unroll 8
      for (int m = 0; m < MB; ++m) {
        sums[m] = _mm512_dpbusd_epi32(sums[m], high, broadcast4(x + m * ldx + 16 + 4 * j));
      }
    }
  }
  // The same for 8-bit codes: 8 x 64 bytes; vector j holds channels 4j .. 4j+3.
  template <int MB>
  static void dot_block8(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const I w = _mm512_loadu_si512(codes + 64 * j);
#pragma GCC unroll 8
      for (int m = 0; m < MB; ++m) {
        sums[m] = _mm512_dpbusd_epi32(sums[m], w, broadcast4(x + m * ldx + 4 * j));
      }
    }
  }
};

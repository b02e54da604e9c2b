// AVX2 with FMA and F16C as the operations that the kernels of cpu/ are written in: 8 lanes. Included
// inside the region that is compiled for AVX2 (kernels_avx2.cpp), after immintrin.h.
#pragma once

struct Avx2 {
  static constexpr const char* kIsa = "avx2";
  static constexpr int kLanes = 8;
  static constexpr int kTileTokens = 4;       // tokens of a linear's register tile: 2 x 4 of 16 registers
  static constexpr bool kSignedBytes = true;  // maddubs saturates on u8 x s8 of full range: see dot_block8
  using F = __m256;
  using I = __m256i;

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static I lane_numbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  // All ones in the first n of 8 lanes.
  static I first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane_numbers());
  }
  static F load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
  static void store_first(float* p, F x, int64_t n) { _mm256_maskstore_ps(p, first(n), x); }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static float reduce_add(F a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float reduce_max(F a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
  // Lanes whose number is >= n become x.
  static F fill_from(F a, int64_t n, float x) {
    return _mm256_blendv_ps(set(x), a, _mm256_castsi256_ps(first(n)));
  }

  // e^x for x in [-87, 88]; below, 0; above, the value at 88; NaN of NaN. Relative error under 2e-7.
  static F exp(F x) {
    x = _mm256_min_ps(set(88.0f), x);  // NOTE: min and max give the second operand when one is NaN
    const F normal = _mm256_cmp_ps(x, set(-87.0f), _CMP_NLT_UQ);
    x = _mm256_max_ps(set(-87.0f), x);
    const F n = _mm256_round_ps(mul(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    F r = _mm256_fnmadd_ps(n, set(0.693145752f), x);
    r = _mm256_fnmadd_ps(n, set(1.42860677e-6f), r);
    F p = set(1.98756915e-4f);
    p = fma(p, r, set(1.39819995e-3f));
    p = fma(p, r, set(8.33345261e-3f));
    p = fma(p, r, set(4.16657962e-2f));
    p = fma(p, r, set(1.66666657e-1f));
    p = fma(p, r, set(5.00000000e-1f));
    p = add(fma(mul(p, r), r, r), set(1.0f));
    const I power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(normal, mul(p, _mm256_castsi256_ps(power)));
  }

  // 8 elements of a 16-bit or 8-bit type.
  static F load_bf16(const uint16_t* p) {
    const I wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static F load_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load_int8(const int8_t* p) {
    return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F load_uint8(const uint8_t* p) {
    return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // 8 E4M3 numbers, times 1 / kE4m3Unit: their bits are those of f16 further right, with another bias.
  static constexpr float kE4m3Unit = 256.0f;
  static F load_e4m3(const uint8_t* p) {
    const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
    const __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7F)), 7);
    return _mm256_cvtph_ps(_mm_or_si128(sign, rest));
  }
  // 16 numbers, and those that the low and the high nibbles of 8 bytes stand for.
  struct Table {
    F low, high;
  };
  static Table load_table(const float* values) { return {load(values), load(values + 8)}; }
  static F pick(const Table& table, I codes) {
    const F upper = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));  // bit 3 as the sign
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, codes),
                            _mm256_permutevar8x32_ps(table.high, codes), upper);
  }
  static void look_up(const Table& table, const uint8_t* p, F& low, F& high) {
    const I codes = load_codes(p);
    low = pick(table, codes);
    high = pick(table, _mm256_srli_epi32(codes, 4));
  }
  // 8 bytes, a lane each.
  static I load_codes(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  // For 2:4 weights: in each lane the float of x[4] that its two lowest bits name.
  static F pick_of_four(const float* x, I places) {
    return _mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(x)), places);
  }
  // A byte of four places, of two groups -> four bytes that say which of eight bytes.
  static I spread_places(I c) {
    const I low = or_bits(c, _mm256_slli_epi32(c, 6));
    const I all = or_bits(low, _mm256_slli_epi32(low, 12));
    return or_bits(and_bytes(all, 3), set_int(0x04040000));
  }
  // sum + values . the four of x[8] in each lane; values signed, beside x within +-127.
  static constexpr int32_t kPickedBias = 0;
  static I dot_picked(I sum, I values, const int8_t* x, I places) {
    int64_t eight;
    std::memcpy(&eight, x, sizeof eight);
    const I picked = _mm256_shuffle_epi8(_mm256_set1_epi64x(eight), places);
    const I pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(values), _mm256_sign_epi8(picked, values));
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m128i to_16_bits(I a) {
    const I packed = _mm256_packus_epi32(a, a);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
  }
  // Round to nearest even; NaN is not expected.
  static void store_bf16(uint16_t* p, F x) {
    const I u = _mm256_castps_si256(x);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const I rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7FFF)), odd);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_16_bits(_mm256_srli_epi32(rounded, 16)));
  }
  // Rounds to nearest even, stores 8 signed bytes and gives their 32-bit values.
  static I store_int8(int8_t* p, F x) {
    const I codes = _mm256_cvtps_epi32(x);
    const I words = _mm256_permute4x64_epi64(_mm256_packs_epi32(codes, codes), 0x08);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes);
    return codes;
  }

  static I zero_int() { return _mm256_setzero_si256(); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static int32_t reduce_add(I a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
  }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }

  static I broadcast4(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }

  // Bits and bytes, for codes that are split in planes (code_planes.h).
  static I set_int(int32_t x) { return _mm256_set1_epi32(x); }
  static I load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static I or_bits(I a, I b) { return _mm256_or_si256(a, b); }
  static I and_bytes(I a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi8(static_cast<char>(mask))); }
  // Within 16 bits, left by `bits` or right by -bits.
  template <int bits>
  static I shift(I a) {
    if constexpr (bits >= 0) return _mm256_slli_epi16(a, bits);
    return _mm256_srli_epi16(a, bits < 0 ? -bits : 0);
  }
  // sum + codes . x in each 32 bits; codes unsigned, below 64: a pair of products is at most 2 * 63 * 127.
  static I dot_quad(I sum, I codes, I x) {
    return add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
  }

  // sums[m] += codes . x[m] over a block of 32 channels, for 8 rows. codes: 4 x 32 bytes; in vector j the low
  // nibbles of row n's four bytes are channels 4j.., the high ones channels 16 + 4j... A pair of products is
  // at most 2 * 15 * 127 and the block adds eight pairs into 16 bits: 30480, so nothing saturates.
  template <int MB>
  static void dot_block4(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    const I mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    I pairs[MB];
#pragma GCC unroll 4
    for (int m = 0; m < MB; ++m) pairs[m] = zero_int();
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const I raw = _mm256_loadu_si256(reinterpret_cast<const I*>(codes + 32 * j));
      const I low = _mm256_and_si256(raw, mask);
      const I high = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
#pragma GCC unroll 4
      for (int m = 0; m < MB; ++m) {
        const I a = _mm256_maddubs_epi16(low, broadcast4(x + m * ldx + 4 * j));
        const I b = _mm256_maddubs_epi16(high, broadcast4(x + m * ldx + 16 + 4 * j));
        pairs[m] = _mm256_add_epi16(pairs[m], _mm256_add_epi16(a, b));
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < MB; ++m) sums[m] = add(sums[m], _mm256_madd_epi16(pairs[m], ones));
  }
  // The same for signed 8-bit codes: 8 x 32 bytes. |code| <= 128 as u8 times the activation with the code's
  // sign: a pair is at most 2 * 128 * 127 = 32512, so maddubs does not saturate.
  template <int MB>
  static void dot_block8(const uint8_t* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    const I ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const I w = _mm256_loadu_si256(reinterpret_cast<const I*>(codes + 32 * j));
      const I magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 4
      for (int m = 0; m < MB; ++m) {
        const I signed_x = _mm256_sign_epi8(broadcast4(x + m * ldx + 4 * j), w);
        sums[m] = add(sums[m], _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, signed_x), ones));
      }
    }
  }
};

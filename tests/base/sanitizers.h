// Whether the tests run under AddressSanitizer, which makes loops many times as slow.
#pragma once

namespace tandem {

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kAddressSanitized = true;
#else
inline constexpr bool kAddressSanitized = false;
#endif

}  // namespace tandem

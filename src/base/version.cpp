#include "base/version.h"

#include "version_generated.h"

namespace tandem {

const char* version() { return TANDEM_VERSION; }
const char* commit() { return TANDEM_COMMIT; }

const char* compiler() {
#ifdef __OPTIMIZE__
#define TANDEM_OPTIMIZED ", optimised"
#else
#define TANDEM_OPTIMIZED ", not optimised"
#endif
#ifdef __clang__
  return "clang " __clang_version__ TANDEM_OPTIMIZED;
#else
  return "g++ " __VERSION__ TANDEM_OPTIMIZED;
#endif
}

}  // namespace tandem

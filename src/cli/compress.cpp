#include "cli/verbs.h"

namespace tandem {
void add_compress(CLI::App&, Action&) {}
}  // namespace tandem

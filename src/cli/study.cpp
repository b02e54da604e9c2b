#include "cli/verbs.h"

namespace tandem {
void add_study(CLI::App&, Action&) {}
}  // namespace tandem

// The program's version and the commit it was built from ("-dirty" when the tree had changes).
#pragma once

namespace tandem {

const char* version();
const char* commit();
const char* compiler();  // name and version, with the optimisation level

}  // namespace tandem

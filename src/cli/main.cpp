#include "cli/verbs.h"
int main() { return 0; }

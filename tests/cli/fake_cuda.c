/* A stand-in for libcuda.so.1, the driver: of version VERSION, answering cuInit with STATUS. */
#define _GNU_SOURCE
#include <dlfcn.h>

int cuInit(unsigned flags) { return (void)flags, STATUS; }
int cuDriverGetVersion(int *version) { return *version = VERSION, 0; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *found) {
  (void)version, (void)flags;
  Dl_info self;
  dladdr((void *)cuInit, &self);
  *function = dlsym(dlopen(self.dli_fname, RTLD_NOW), name);
  if (found) *found = *function ? 0 : 1;
  return *function ? 0 : 500;
}

/* Looked up first, to see that a driver is there at all. */
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}

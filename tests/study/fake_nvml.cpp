// A stand-in for libnvidia-ml.so.1: what it says comes from the environment variable FAKE_NVML, a
// list like "watts=400;slowdowns=4". Statuses are NVML's numbers.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

double setting(const char* name, double otherwise) {
  const char* all = std::getenv("FAKE_NVML");
  const std::string text = std::string(";") + (all != nullptr ? all : "");
  const size_t at = text.find(";" + std::string(name) + "=");
  return at == std::string::npos ? otherwise : std::atof(text.c_str() + at + std::strlen(name) + 2);
}

int status(const char* name) { return static_cast<int>(setting(name, 0)); }

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct FieldValue {
  unsigned field, scope;
  long long timestamp_us, latency_us;
  int type, status;
  unsigned long long value;
};

}  // namespace

extern "C" {

int nvmlInit_v2() { return status("init_status"); }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int code) {
  return code == 3   ? "Not Supported"
         : code == 4 ? "Insufficient Permissions"
         : code == 6 ? "Not Found"
         : code == 9 ? "Driver Not Loaded"
                     : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "580.1");
  return 0;
}
#ifndef LACKS_LOOKUP
int nvmlDeviceGetHandleByPciBusId_v2(const char* address, void** gpu) {
  static int any;
  *gpu = &any;
  return std::strcmp(address, "0000:41:00.0") == 0 ? 0 : 6;
}
#endif
#ifndef LACKS_COUNTER
// Draws `watts` times `counter_factor` for ever.
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  const double watts = setting("watts", 400) * setting("counter_factor", 1);
  *millijoules = static_cast<unsigned long long>(1e3 * watts * seconds());
  return status("energy_status");
}
#endif
int nvmlDeviceGetFieldValues(void*, int, FieldValue* field) {
  field->timestamp_us = static_cast<long long>(setting("stuck_time", seconds() * 1e6));
  field->type = 1;
  field->status = field->field == 186 ? status("power_status") : 3;
  field->value = static_cast<unsigned>(1e3 * setting("watts", 400));
  return 0;
}
int nvmlDeviceGetClockInfo(void*, unsigned which, unsigned* mhz) {
  *mhz = which == 1 ? 1980 : which == 2 ? 3201 : 0;
  return 0;
}
int nvmlDeviceGetTemperature(void*, unsigned, unsigned* celsius) {
  *celsius = 41;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void*, unsigned* gpu_and_memory) {
  gpu_and_memory[0] = 97;
  gpu_and_memory[1] = 55;
  return status("busy_status");
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  *reasons = static_cast<unsigned long long>(setting("slowdowns", 0));
  return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700000;
  return 0;
}
int nvmlDeviceGetMigMode(void*, unsigned* current, unsigned* pending) {
  *current = *pending = static_cast<unsigned>(setting("mig", 0));
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, void*) {
  *count = static_cast<unsigned>(setting("processes", 1));
  return *count == 0 ? 0 : 7;
}

}  // extern "C"
